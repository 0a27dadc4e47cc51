/*
 * smtp/client.h - the sending side of an SMTP connection, without socket, clock or file (RFC 5321)
 *
 * Used by relayd/delivery. One machine per connection, many transactions one after the other. It knows the protocol and
 * reports facts; what they mean for a message (deferred, failed, whose fault) is decided in relayd/outcome.c.
 *
 *     c = smtp_client_new(&options, now_ms);        when TCP stands (IMPLICIT: when the TLS handshake is done)
 *     per turn:    smtp_client_tick(c, now_ms);     first: all time-outs count from the last tick
 *                  smtp_client_input(c, bytes) / smtp_client_eof(c)
 *                  while (smtp_client_next(c, &event)) ...;
 *                  write smtp_client_output(c), then smtp_client_output_sent(c, n), then next() again
 *     READY:       smtp_client_send(c, &transaction), next(), output        or smtp_client_quit(c)
 *
 * PULL   Nothing happens except in smtp_client_next(): call it until it returns false after every other call, and send
 *        the output afterwards. Events are plain values; from between two of them every function may be called except
 *        smtp_client_free().
 *
 *                      220            250                   (220)  NEED_TLS
 *     GREETING ───────────▶ EHLO ───────────▶ STARTTLS ────────────────▶ TLS ── tls_started() ──▶ EHLO again
 *                            │ 5xx              │ not wanted, or refused and opportunistic
 *                            ▼                  ▼            235
 *                          HELO ─────────▶ AUTH ───────────▶ READY ◀──────────────────────┐
 *                                                              │ send()                   │ TRANSACTION_DONE
 *                                                              ▼                          │
 *              [RSET] MAIL RCPT.. DATA 354 content . 250   or  [RSET] MAIL RCPT.. BDAT content 250
 *
 *     from everywhere:  FAILED (something went wrong) or CLOSED (a polite end); no event comes after it.
 *
 * RESULTS   Every recipient of a transaction gets exactly one RESULT, before TRANSACTION_DONE, whatever happens:
 *           - refused at RCPT: at once;
 *           - otherwise when the message's own reply is there (MAIL, DATA, end of data),
 *           - or at once when what the server offers excludes it (nothing is sent then),
 *           - or when the session ends; TRANSACTION_DONE with `reusable` false and FAILED or CLOSED follow.
 *           "Delivered" is: cause REPLIED, stage STAGE_DOT, code 2yz. It is only ever given for a 2yz that came after
 *           the last octet of the message had been sent.
 *
 * ORDER     A reply must come after its command has been sent; anything said out of turn ends the session (cause
 *           PROTOCOL), and a 421 at any place counts for what is under way. Replies are counted (RFC 2920 §3.1).
 *           Without PIPELINING nothing is ever sent ahead. With CHUNKING and PIPELINING a message of at most
 *           SMTP_CLIENT_ONE_FLIGHT_MAX octets goes out with MAIL, RCPT and BDAT in one flight.
 *
 * KNOWN     In one flight only the count says which reply is whose (after DATA its 354 does). A server that sends one
 *           reply too many there is noticed when the surplus is there in time, and not when it comes later.
 *
 * BOUNDS    128 KiB of output, 100 lines and 64 KiB a reply, a time limit for each step and one for the whole session
 *           start and each transaction, which a trickle does not extend.
 */
#ifndef SMTP_CLIENT_H
#define SMTP_CLIENT_H

#include "base/err.h"
#include "base/outcome.h"
#include "smtp/reply.h"
#include "smtp/sasl_client.h"
#include "smtp/syntax.h"

enum {
	SMTP_CLIENT_ONE_FLIGHT_MAX = 64 * 1024,
	SMTP_CLIENT_OUTPUT_MAX = 128 * 1024,
};

struct smtp_client;

/* ---- Making one ------------------------------------------------------------------------------------------------- */

enum smtp_client_tls {
	SMTP_CLIENT_TLS_NONE,	       /* never asks for it */
	SMTP_CLIENT_TLS_OPPORTUNISTIC, /* STARTTLS where it is offered; refused: goes on in clear text */
	SMTP_CLIENT_TLS_REQUIRED,      /* STARTTLS or nothing: FAILED at STAGE_TLS */
	SMTP_CLIENT_TLS_IMPLICIT,      /* TLS runs already when the machine is made */
};

/* Milliseconds; RFC 5321 §4.5.3.2 where it speaks. 0: the default. */
struct smtp_client_limits {
	int64_t greeting_ms;	/* 5 min */
	int64_t command_ms;	/* EHLO, STARTTLS, AUTH, MAIL, RCPT, RSET: 5 min */
	int64_t data_ms;	/* DATA until 354: 2 min */
	int64_t block_ms;	/* content: until some of the output is taken: 3 min */
	int64_t dot_ms;		/* the reply to the end of data: 10 min */
	int64_t quit_ms;	/* 5 s */
	int64_t start_ms;	/* from new() to READY, TLS included: 15 min */
	int64_t transaction_ms; /* send() to TRANSACTION_DONE: 45 min, and one second more for each 4 KiB of content */
};

/* Strings are copied. */
struct smtp_client_options {
	const char *helo_name; /* a real FQDN or an address literal */
	enum smtp_client_tls tls;
	struct sasl_client_credentials credentials; /* mechanism SASL_CLIENT_NONE: none. Wiped once AUTH is over */
	bool allow_plaintext_auth;		    /* send them without TLS too; otherwise never */
	bool use_helo;				    /* begin with HELO: for the second try after `try_helo` */
	bool no_pipelining, no_chunking;	    /* act as if the server did not offer it */
	struct smtp_client_limits limits;
};

struct smtp_client *smtp_client_new(const struct smtp_client_options *options, int64_t now_ms);
/* At any time; no event comes any more. Accepts NULL, sets *client to NULL. */
void smtp_client_free(struct smtp_client **client);

/* ---- Bytes and time --------------------------------------------------------------------------------------------- */

/* What the server sent (inside TLS: its plain text), at most 64 KiB at a time; copied. */
void smtp_client_input(struct smtp_client *client, struct slice bytes);
/* The server sends no more, or the connection broke (reset, write error). What was put in before is still read.
 * `why`: a line for people, e.g. "Connection reset by peer"; NULL: it closed. */
void smtp_client_eof(struct smtp_client *client, const char *why);
/* Bytes to send; valid until the next call on the client. */
struct slice smtp_client_output(const struct smtp_client *client);
/* `len` of them have been handed to the socket (or the TLS session). */
void smtp_client_output_sent(struct smtp_client *client, size_t len);
/* The time now, monotonic. A time-out shows in the next smtp_client_next(). */
void smtp_client_tick(struct smtp_client *client, int64_t now_ms);
/* When to tick at the latest; INT64_MAX: nothing is waited for (idle, or waiting for the host's content). */
int64_t smtp_client_deadline_ms(const struct smtp_client *client);

/* ---- What happens ----------------------------------------------------------------------------------------------- */

/* Why something ended as it did. */
enum smtp_client_cause {
	SMTP_CLIENT_REPLIED,	   /* the server said so: `reply` is its reply */
	SMTP_CLIENT_UNDELIVERABLE, /* what the server offers excludes this message or recipient: reply.code 0,
				    * reply.enhanced (5.6.3 8-bit, 5.6.7 SMTPUTF8, 5.3.4 SIZE, 5.7.30 REQUIRETLS, 5.1.3
				    * and 5.1.7 an address that cannot be sent) and reply.text are ours; permanent for
				    * this host */
	SMTP_CLIENT_LOST,	   /* the connection ended or broke */
	SMTP_CLIENT_TIMEOUT,
	SMTP_CLIENT_PROTOCOL, /* the server broke the protocol; the connection is of no use any more */
	SMTP_CLIENT_NO_TLS,   /* required and not offered, or the handshake failed */
	SMTP_CLIENT_NO_AUTH,  /* the server offers no mechanism that may be used, or credentials that need TLS have none
			       */
	SMTP_CLIENT_ABORTED,  /* the host broke it off, or fed less or more content than it had announced */
};
const char *smtp_client_cause_name(enum smtp_client_cause cause);

/* What happened to a recipient, or to the session. `reply.text` is always a line for people: the server's text, or what
 * happened. With LOST and PROTOCOL reply.code may be set: the last thing the server said before (an early 552). */
struct smtp_client_result {
	enum smtp_client_cause cause;
	enum delivery_stage stage;
	struct smtp_reply reply;
	/* The end of the message had been sent and no reply to it has been read: trying again may deliver it twice. */
	bool may_have_been_taken;
	/* A connection that had been idle was found closed, or said 421, before anything of this transaction was
	 * answered. That is no attempt: connect anew at once. Never set for the first transaction of a connection,
	 * except when the host itself had ended it. */
	bool untried;
	/* "Too many recipients" after others had been accepted: send these at once in another transaction. */
	bool too_many_recipients;
};

enum smtp_client_event_type {
	SMTP_CLIENT_NEED_TLS,	      /* do the handshake now, then smtp_client_tls_started() or _failed() */
	SMTP_CLIENT_READY,	      /* once: the session stands; smtp_client_send() may be called */
	SMTP_CLIENT_RESULT,	      /* `recipient`, `result` */
	SMTP_CLIENT_NEED_BODY,	      /* feed the content until body_end(), or until TRANSACTION_DONE comes */
	SMTP_CLIENT_TRANSACTION_DONE, /* `reusable`: ready for the next; the transaction's memory is not used any more
				       */
	SMTP_CLIENT_FAILED,	      /* `result`: why. Send what the output holds (a QUIT) if it can go, then close */
	SMTP_CLIENT_CLOSED, /* a polite end: after quit(), or the server ended an idle session (`result`). Close */
};
const char *smtp_client_event_name(enum smtp_client_event_type type);

struct smtp_client_event {
	enum smtp_client_event_type type;
	uint32_t recipient; /* index into the transaction's recipients */
	bool reusable;
	/* FAILED: the server hung up on EHLO; connect again, once, with `use_helo` (never set where TLS or AUTH is a
	 * must). */
	bool try_helo;
	struct smtp_client_result result;
};

/* False: nothing more until something is put in. */
bool smtp_client_next(struct smtp_client *client, struct smtp_client_event *event);

/* TLS stands, verified as the host wants it. Everything learnt is forgotten and EHLO goes out again. */
void smtp_client_tls_started(struct smtp_client *client);
/* FAILED at STAGE_TLS with this text follows. Whether to try again without TLS is the host's decision. */
void smtp_client_tls_failed(struct smtp_client *client, const char *text);

/* ---- What was learnt; from READY on ----------------------------------------------------------------------------- */

struct smtp_client_capabilities {
	bool esmtp; /* EHLO was understood */
	bool pipelining, chunking, eightbitmime, smtputf8, dsn, size, starttls, requiretls, enhancedstatuscodes;
	uint64_t size_max;	  /* with `size`; 0: not told */
	uint32_t rcpt_max;	  /* LIMITS RCPTMAX (RFC 9422), recipients a transaction; 0: not told */
	uint32_t mail_max;	  /* LIMITS MAILMAX, transactions a session */
	unsigned auth_mechanisms; /* SASL_CLIENT_BIT() */
};

const struct smtp_client_capabilities *smtp_client_capabilities(const struct smtp_client *client);
bool smtp_client_is_tls(const struct smtp_client *client);
/* How the server calls itself, by its greeting or, later, its EHLO reply: the first word, "" when it says none;
 * printable. To find out that we talk to ourselves. */
const char *smtp_client_peer_name(const struct smtp_client *client);
/* No transaction, nothing outstanding, send() may be called. */
bool smtp_client_is_ready(const struct smtp_client *client);
/* MAIL commands sent so far. */
uint32_t smtp_client_transaction_count(const struct smtp_client *client);

/* ---- Sending a message ------------------------------------------------------------------------------------------ */

/* Addresses stand as they stood in MAIL and RCPT, without the angle brackets: quoted local parts keep their quotes. */
struct smtp_client_recipient {
	struct slice address;
	struct slice orcpt; /* xtext, as it came: "rfc822;joe@example.com"; empty: none */
	unsigned notify;    /* SMTP_DSN_... of smtp/syntax.h; 0: not given */
};

/* Borrowed until TRANSACTION_DONE. Parameters go out only where the server offers them. */
struct smtp_transaction {
	struct slice sender; /* empty: <> */
	const struct smtp_client_recipient *recipients;
	size_t recipient_count; /* at least 1 */
	/* Octets of the content as it will be fed, exactly; 0: not known (no SIZE, no BDAT). */
	uint64_t content_bytes;
	bool has_8bit;	     /* octets over 127 in the content */
	bool needs_smtputf8; /* the header has UTF-8 that cannot do without; addresses are looked at here. When only
			      * some recipients need it and it is not offered, only they are undeliverable */
	bool requiretls;     /* RFC 8689; the host has checked who it talks to */
	enum smtp_dsn_ret ret;
	struct slice envid; /* xtext, as it came */
	struct slice auth;  /* MAIL's AUTH=, xtext or "<>"; sent where we are authenticated; empty: none */
};

/* From READY on, one at a time, until FAILED or CLOSED has been told. When the session is ending already (QUIT is out,
 * or the connection was found closed) all recipients come back `untried`. */
void smtp_client_send(struct smtp_client *client, const struct smtp_transaction *transaction);

/* How many octets of content smtp_client_body() takes now; 0: send output first, or no content is wanted. */
size_t smtp_client_body_room(const struct smtp_client *client);
/* The content in order: lines ended by CRLF, without dot-stuffing. Returns how much was taken (min of room and length).
 * A missing CRLF at the end is added where DATA needs it. */
size_t smtp_client_body(struct smtp_client *client, struct slice content);
/* All is in; only now can the server have the whole message. Harmless when no content is wanted any more. */
void smtp_client_body_end(struct smtp_client *client);
/* The content cannot be read to its end, or the host must go: the message is broken off so that the server cannot take
 * it for complete; all remaining recipients get ABORTED with this text, then FAILED. */
void smtp_client_abort(struct smtp_client *client, const char *text);

/* QUIT when the transaction under way is done, at once when there is none; CLOSED follows. Before READY: ends at once.
 */
void smtp_client_quit(struct smtp_client *client);

#endif
