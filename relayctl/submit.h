/*
 * relayctl/submit.h - hands one message to the daemon over submit.sock (SMTP for local users)
 *
 * Blocking, with a time-out of two minutes for each reply (RFC 6409 section 5.3).
 */
#ifndef RELAYCTL_SUBMIT_H
#define RELAYCTL_SUBMIT_H

#include "base/err.h"
#include "base/slice.h"

struct submission {
	const char *sender; /* "" for <> */
	const char *const *recipients;
	size_t recipient_count;
	struct slice message; /* LF and CRLF line ends, also mixed: sent with CRLF, dots stuffed */
};

/* 0: accepted, *id has the queue id (NUL-terminated, at least 14 bytes of room). ERR_CLOSED: no daemon there;
 * ERR_TEMPORARY (4yz) or ERR_PERMISSION (5yz): `err` has the reply. */
int submit_message(const char *socket_path, const struct submission *submission, char id[14], struct err *err);

#endif
