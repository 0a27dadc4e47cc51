/*
 * smtp/bsmtp.h - a message with its envelope in one file, as batch SMTP has it (RFC 2442)
 *
 *     MAIL FROM:<root@host.example> SIZE=57 BODY=8BITMIME RET=HDRS ENVID=x
 *     RCPT TO:<one@example.net> NOTIFY=FAILURE ORCPT=rfc822;one@example.net
 *     RCPT TO:<two@example.net>
 *     DATA
 *     the content, lines ended by CRLF, dots not doubled, without a final dot
 *
 * SIZE is a must here and exact: what is longer or shorter is no whole file. Written by relayctl under the name
 * sendmail, read by the daemon; anybody may write such files, so nothing in them is believed. Pure functions.
 */
#ifndef SMTP_BSMTP_H
#define SMTP_BSMTP_H

#include "smtp/client.h"

enum {
	BSMTP_ENVELOPE_MAX_BYTES = 1024 * 1024, /* up to and with DATA */
	BSMTP_RECIPIENTS_MAX = 10000,
};

/* Appends the lines up to and with DATA. content_bytes is a must. ERR_SYNTAX: an address or an ENVID with octets that
 * would break the line; ERR_LIMIT: the buffer's. Then `out` may hold a part. */
int bsmtp_format(struct buf *out, const struct smtp_transaction *transaction);

/* What was read. Slices lie in the text. */
struct bsmtp {
	struct smtp_transaction transaction; /* its recipients are ours */
	struct smtp_client_recipient *recipients;
	size_t content_at; /* where the content begins */
};

/* 1: *out has the envelope, give it back with bsmtp_fini(). 0: `text` ends before DATA. -1: `why` (static, for people)
 * says what is wrong. */
int bsmtp_parse(struct slice text, struct bsmtp *out, const char **why);
void bsmtp_fini(struct bsmtp *batch);

#endif
