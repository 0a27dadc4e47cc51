/*
 * relayd/policy_subject.h - headers.subject_prefix; private to relayd/policy*.c
 */
#ifndef RELAYD_POLICY_SUBJECT_H
#define RELAYD_POLICY_SUBJECT_H

#include "base/buf.h"

/* Appends "Subject: PREFIX ..." with CRLF; the prefix is UTF-8 and becomes an encoded word when it is not ASCII. False:
 * nothing was appended, since the subject (`body` as behind the colon) begins with it already, perhaps behind "Re:". */
bool policy_subject_put(struct buf *out, struct slice prefix, struct slice body);

#endif
