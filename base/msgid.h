/*
 * base/msgid.h - a message id as people see it: 13 characters of Crockford's base 32
 *
 * The same id stands in the 250 reply, each log line, event, DSN and relayctl output. Upper case, without I, L, O and
 * U.
 */
#ifndef BASE_MSGID_H
#define BASE_MSGID_H

#include "base/slice.h"

#define MSGID_CHARS 13

/* Fills 13 characters and a NUL. */
void msgid_format(uint64_t id, char out[MSGID_CHARS + 1]);
/* Accepts lower case, and I, L, O as people mistype 1, 1, 0. False: not an id. */
bool msgid_parse(struct slice text, uint64_t *id);

#endif
