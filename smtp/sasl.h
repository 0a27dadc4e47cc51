/*
 * smtp/sasl.h - base64, and the server's side of AUTH PLAIN and LOGIN
 *
 * PLAIN: RFC 4616. LOGIN: draft-murchison-sasl-login; its challenges are exactly "Username:" and "Password:", which
 * some clients compare. The exchange on the line is RFC 4954 §4: this file gets and gives lines without their codes.
 *
 *     if (sasl_server_parse_mechanism(word, &mechanism)) sasl_server_init(&sasl, mechanism);
 *     step = sasl_server_begin(&sasl, has_initial, initial);
 *     while (step == SASL_CHALLENGE) { send "334 " sasl_server_challenge(&sasl); step = sasl_server_respond(&sasl,
 * line); } SASL_COMPLETE: sasl.user, sasl.password sasl_server_fini(&sasl);      // wipes
 */
#ifndef SMTP_SASL_H
#define SMTP_SASL_H

#include "base/buf.h"
#include "base/err.h"

/* RFC 4648 §4, with padding, nothing else in it: no blanks, no line ends, no stray bits. Appends. */
int sasl_base64_encode(struct buf *out, struct slice bytes);
/* ERR_SYNTAX or ERR_LIMIT: `out` is unchanged. */
int sasl_base64_decode(struct buf *out, struct slice text);

enum sasl_mechanism { SASL_PLAIN = 0, SASL_LOGIN, SASL_MECHANISM_COUNT };
/* "PLAIN", "LOGIN". */
const char *sasl_mechanism_name(enum sasl_mechanism mechanism);
/* In any case. False: not one of ours. */
bool sasl_mechanism_parse(struct slice word, enum sasl_mechanism *mechanism);

enum {
	SASL_USER_MAX_BYTES = 255, /* RFC 4616 §2 names this limit */
	SASL_PASSWORD_MAX_BYTES = 1024,
};

enum sasl_step {
	SASL_CHALLENGE,	  /* send sasl_server_challenge() and wait for a line */
	SASL_COMPLETE,	  /* user and password are known, but not yet whether they are right */
	SASL_CANCELLED,	  /* the client said "*": 501 */
	SASL_UNDECODABLE, /* not base64: 501 5.5.2 */
	SASL_MALFORMED,	  /* not what the mechanism says (empty name, stray NUL, controls in the name, too long): 535 */
	SASL_OTHER_IDENTITY, /* an authorisation identity that is not the user: 535 */
};

/* Embedded. What it holds is secret until sasl_server_fini(). */
struct sasl_server {
	enum sasl_mechanism mechanism;
	bool has_user;		     /* LOGIN: the name is in, the password comes next */
	struct slice user, password; /* with SASL_COMPLETE; in `memory` */
	struct buf memory;
};

void sasl_server_init(struct sasl_server *sasl, enum sasl_mechanism mechanism);
/* Wipes and gives back the memory. */
void sasl_server_fini(struct sasl_server *sasl);
/* With the initial response, if there was one ("=" stands for an empty one, RFC 4954 §4). */
enum sasl_step sasl_server_begin(struct sasl_server *sasl, bool has_initial, struct slice initial);
/* A line of the client, without CRLF. */
enum sasl_step sasl_server_respond(struct sasl_server *sasl, struct slice line);
/* In base64, may be empty. Static. */
const char *sasl_server_challenge(const struct sasl_server *sasl);

#endif
