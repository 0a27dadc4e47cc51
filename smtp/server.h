/*
 * smtp/server.h - the receiving side of a submission session, without socket, clock, disk or TLS library
 *
 * RFC 5321, 6409 (submission), 2920 (PIPELINING), 1870 (SIZE), 6152 (8BITMIME), 6531 (SMTPUTF8), 2034 (enhanced codes),
 * 3461 (DSN), 3207 (STARTTLS), 4954 (AUTH), 8689 (REQUIRETLS). One machine per connection, used by relayd's listener.
 * Not offered, on purpose: CHUNKING (none of the recorded clients uses it, and it has been the worst hole of others),
 * ETRN (RFC 6409 §7 forbids it).
 *
 *     s = smtp_server_new(&options, now_ms);      when TCP stands (tls_active: when the TLS handshake is done)
 *     per turn:    smtp_server_tick(s, now_ms);   first: all times count from the last tick
 *                  if (smtp_server_wants_input(s)) n = smtp_server_input(s, bytes);     keep what was not taken
 *                  or smtp_server_eof(s)
 *                  while (smtp_server_next(s, &event)) answer it now or later;
 *                  write smtp_server_output(s), then smtp_server_output_sent(s, n), then next() again
 *
 * PULL     Nothing happens except in smtp_server_next(): call it until it returns false after every other call. Between
 *          two events every function may be called. Replies gather in the output meanwhile, so that a pipelined group
 *          is answered in one piece.
 * ANSWERS  AUTH, MAIL, RCPT, DATA and COMPLETE wait for smtp_server_*_done() or _stored(), at once or any time later;
 *          until then nothing else happens in the session, so a 250 to the final dot cannot be given early. RFC 6409
 *          §5.3: answer within two minutes. No clock of ours runs meanwhile. An answer that nobody waits for (the
 *          session was closed) is dropped.
 *
 *     START ──EHLO──▶ READY ──MAIL──▶ MAIL ──RCPT──▶ RCPT ──DATA──▶ DATA ──CRLF.CRLF──▶ STORING ──stored()──▶ READY
 *       ▲               │ ▲             └──── RSET, EHLO, a refusal ──┴──┐ └ refused ─▶ SWALLOW ──CRLF.CRLF──▶ READY
 *       │           STARTTLS└─────────────────────────────────────────────┘
 *       └─ TLS ◀─ 220 sent                          AUTH_LINE ◀─334─ AUTH       any ─▶ CLOSING ─▶ CLOSED
 *
 * TRUST    Who is neither authenticated nor `trusted` cannot get past MAIL, whatever else is set. With
 *          `tls_required` nothing but EHLO, HELO, NOOP, RSET, HELP, QUIT and STARTTLS works before TLS, except for the
 *          trusted.
 * CONTENT  The end of data is CRLF.CRLF and nothing else. NUL is never taken. A bare CR or LF is refused with
 *          550 5.6.11, or normalised. A message that is refused while it arrives is aborted at once and the rest
 *          swallowed up to its end, so that content never runs as commands.
 * BOUNDS   32 KiB of input, 32 KiB of output, under 2 KiB while idle; every limit below.
 */
#ifndef SMTP_SERVER_H
#define SMTP_SERVER_H

#include "base/base.h"
#include "smtp/content.h"
#include "smtp/server_reply.h"
#include "smtp/syntax.h"

struct smtp_server;

/* ---- Making one ------------------------------------------------------------------------------------------------- */

/* 0: the default that stands behind it. */
struct smtp_server_limits {
	uint64_t message_bytes;	     /* offered as SIZE: 25 MiB */
	uint32_t recipients;	     /* of one message: 1,000 */
	uint32_t messages;	     /* of one session: 1,000 */
	uint32_t commands;	     /* that bring no message forward, since the last accepted message: 1,000 */
	uint32_t errors;	     /* refused commands since the last accepted message: 100 */
	uint32_t auth_failures;	     /* of one session: 10 */
	int64_t idle_ms;	     /* for a command or a piece of content, whatever trickles meanwhile: 5 min */
	int64_t login_ms;	     /* from the start to the first accepted AUTH or MAIL: 5 min */
	int64_t session_ms;	     /* the whole session; a message under way is finished first: 4 h */
	int64_t data_grace_ms;	     /* the client may let us wait this long for a message's content, */
	uint32_t data_bytes_per_sec; /* and one second more for each of these many octets: 60 s, 512 */
};

/* Borrowed for the machine's life. Strings are not NULL unless it is said. */
struct smtp_server_options {
	const char *hostname;
	bool starttls;		   /* can be offered: there is a certificate */
	bool tls_required;	   /* before AUTH and MAIL */
	bool tls_active;	   /* implicit TLS: it stands already */
	bool auth;		   /* there are users: AUTH is offered, under TLS */
	bool allow_plaintext_auth; /* and without */
	bool trusted;		   /* this client needs neither AUTH nor TLS; everybody else needs AUTH */
	bool bare_names;	   /* "RCPT TO:<root>" is for the host to complete; otherwise only postmaster */
	/* What others are told at MAIL: 530 5.7.0 if they could log in here (`auth`), else 554 5.7.1. NULL: a text that
	 * says which of the two must be set up. */
	const char *untrusted_text;
	enum content_bare_newlines bare_newlines;
	bool reject_long_lines;			 /* over 998 octets */
	bool no_smtputf8, no_dsn, no_requiretls; /* leave it out of the offer */
	struct smtp_server_limits limits;
};

/* The greeting is in the output. */
struct smtp_server *smtp_server_new(const struct smtp_server_options *options, int64_t now_ms);
/* At any time; no event comes any more, secrets are wiped. Accepts NULL, sets *server to NULL. */
void smtp_server_free(struct smtp_server **server);

/* ---- Bytes and time --------------------------------------------------------------------------------------------- */

/* False: don't read from the client now. While the session ends it stays true: what comes is dropped and buys no time,
 * and no reset overtakes the last reply. */
bool smtp_server_wants_input(const struct smtp_server *server);
/* Copies what it has room for and says how much that is. At STARTTLS it takes and drops everything until
 * smtp_server_tls_started() (RFC 3207 §4.2): a host hands its rest in then too. */
size_t smtp_server_input(struct smtp_server *server, struct slice bytes);
/* The client sends no more. What was put in is still worked through and answered; then CLOSE. (A connection that broke:
 * free the machine and drop what is open.) */
void smtp_server_eof(struct smtp_server *server);
/* Valid until the next call on the machine. */
struct slice smtp_server_output(const struct smtp_server *server);
void smtp_server_output_sent(struct smtp_server *server, size_t len);
/* The time now, monotonic. */
void smtp_server_tick(struct smtp_server *server, int64_t now_ms);
/* When to tick at the latest; INT64_MAX: no clock runs, the host's answer is waited for. */
int64_t smtp_server_deadline_ms(const struct smtp_server *server);

/* ---- What happens ----------------------------------------------------------------------------------------------- */

enum smtp_server_event_type {
	SMTP_SERVER_HELO,     /* fact: smtp_server_status() has the new name. No transaction is open */
	SMTP_SERVER_AUTH,     /* `auth`: answer with smtp_server_auth_done() */
	SMTP_SERVER_MAIL,     /* `mail`: a transaction begins. smtp_server_mail_done() */
	SMTP_SERVER_RCPT,     /* `rcpt`: smtp_server_rcpt_done() */
	SMTP_SERVER_DATA,     /* open what takes the content; smtp_server_data_done() */
	SMTP_SERVER_CONTENT,  /* `content`: the next octets. Not ready for them: call next() again later */
	SMTP_SERVER_COMPLETE, /* `complete`: all of it was given. smtp_server_stored() */
	SMTP_SERVER_ABORTED,  /* `reason`: the transaction that MAIL began is over, drop all of it */
	SMTP_SERVER_STARTTLS, /* the 220 is out, what came before TLS is dropped: do the handshake, then
			       * smtp_server_tls_started(); or close */
	SMTP_SERVER_REJECTED, /* fact, for log and metrics: `reason`, `code`; a reply that refused something */
	SMTP_SERVER_CLOSE,    /* close (`reason`); all output that could be sent is sent. No event comes after it */
};
const char *smtp_server_event_name(enum smtp_server_event_type type);

/* Why: the words of the metric submission_rejections{reason}, of log and tests. */
enum smtp_server_reason {
	SMTP_SERVER_NONE = 0,
	SMTP_SERVER_QUIT, /* polite ends: QUIT, RSET, EHLO in a transaction */
	SMTP_SERVER_RESET,
	SMTP_SERVER_GONE,     /* the client closed */
	SMTP_SERVER_SHUTDOWN, /* smtp_server_shutdown(), smtp_server_close() */
	SMTP_SERVER_TIMEOUT,  /* idle, or not logged in in time, or the session was too long */
	SMTP_SERVER_TOO_SLOW, /* content */
	SMTP_SERVER_SYNTAX,   /* command, arguments, parameters */
	SMTP_SERVER_SEQUENCE, /* a command out of order */
	SMTP_SERVER_UNKNOWN_COMMAND,
	SMTP_SERVER_ADDRESS,	      /* a path that breaks the grammar */
	SMTP_SERVER_LINE_TOO_LONG,    /* a command line */
	SMTP_SERVER_BAD_OCTETS,	      /* NUL or controls in a command; bare LF; a TLS hello in clear text */
	SMTP_SERVER_FOREIGN_PROTOCOL, /* HTTP */
	SMTP_SERVER_TLS_REQUIRED,
	SMTP_SERVER_AUTH_REQUIRED,
	SMTP_SERVER_AUTH_FAILED,      /* wrong, malformed or cancelled */
	SMTP_SERVER_AUTH_UNAVAILABLE, /* could not be checked now */
	SMTP_SERVER_AUTH_BLOCKED,
	SMTP_SERVER_TOO_MANY_ERRORS,
	SMTP_SERVER_TOO_MANY_COMMANDS,
	SMTP_SERVER_TOO_MANY_MESSAGES,
	SMTP_SERVER_TOO_MANY_RECIPIENTS,
	SMTP_SERVER_SENDER_REFUSED, /* by the host */
	SMTP_SERVER_RECIPIENT_REFUSED,
	SMTP_SERVER_MESSAGE_REFUSED,
	SMTP_SERVER_TOO_BIG,
	SMTP_SERVER_BARE_NEWLINE,
	SMTP_SERVER_NUL,
	SMTP_SERVER_LONG_LINE,
	SMTP_SERVER_REASON_COUNT,
};
/* "too_big". Static. */
const char *smtp_server_reason_name(enum smtp_server_reason reason);

/* Slices of an event live until the next call on the machine; those of AUTH until it is answered, then they are wiped.
 */
struct smtp_server_auth {
	const char *mechanism; /* "PLAIN" */
	struct slice user, password;
};

struct smtp_server_mail {
	struct smtp_mailbox sender; /* address empty: <> */
	bool has_size;
	uint64_t size;
	bool body_8bitmime;
	bool smtputf8;	 /* normal also for plain ASCII messages: Go's net/smtp always says it */
	bool requiretls; /* RFC 8689 */
	enum smtp_dsn_ret ret;
	struct slice envid; /* xtext, as given; empty: none */
	struct slice auth;  /* AUTH=: xtext, or "<>"; checked in its form, not to be believed (RFC 4954 §5) */
};

struct smtp_server_rcpt {
	struct smtp_mailbox recipient;
	unsigned notify;    /* SMTP_DSN_NEVER ...; 0: not given */
	struct slice orcpt; /* "rfc822;joe@example.com" in xtext, as given; empty: none */
};

struct smtp_server_complete {
	uint64_t bytes; /* the sum of all CONTENT */
	unsigned flags; /* enum content_flag: CONTENT_8BIT, CONTENT_LONG_LINE, CONTENT_BARE_NEWLINE (normalised) */
};

struct smtp_server_event {
	enum smtp_server_event_type type;
	enum smtp_server_reason reason; /* ABORTED, REJECTED, CLOSE */
	int code;			/* REJECTED: of the reply */
	struct smtp_server_auth auth;
	struct smtp_server_mail mail;
	struct smtp_server_rcpt rcpt;
	struct slice content;
	struct smtp_server_complete complete;
};

/* False: nothing more until something is put in, sent or answered. */
bool smtp_server_next(struct smtp_server *server, struct smtp_server_event *event);

/* ---- The host's answers. Replies are borrowed for the call; NULL: the usual good one. A reply with a code of 400 and
 * more refuses; 421 closes behind it. ---- */

enum smtp_server_auth_result {
	SMTP_SERVER_AUTH_OK,
	SMTP_SERVER_AUTH_BAD,	    /* 535 5.7.8, the same for unknown users and wrong passwords */
	SMTP_SERVER_AUTH_TEMPORARY, /* 454 4.7.0 */
	SMTP_SERVER_AUTH_SHUT_OUT,  /* 421 4.7.0 and the end */
};
void smtp_server_auth_done(struct smtp_server *server, enum smtp_server_auth_result result);
void smtp_server_mail_done(struct smtp_server *server, const struct smtp_server_reply *reply);
void smtp_server_rcpt_done(struct smtp_server *server, const struct smtp_server_reply *reply);
/* Refused: the transaction goes on with its recipients, DATA may be tried again. */
void smtp_server_data_done(struct smtp_server *server, const struct smtp_server_reply *reply);
/* The message is on stable storage (250), or it is not and never will be. NULL gives "250 2.0.0 Ok". */
void smtp_server_stored(struct smtp_server *server, const struct smtp_server_reply *reply);
/* While content arrives: it is not wanted. ABORTED follows, the rest is swallowed, and this is the reply to the final
 * dot (421 and other closing codes: the end of the session). Dropped when no content arrives. */
void smtp_server_refuse_content(struct smtp_server *server, const struct smtp_server_reply *reply);

/* The handshake is done: everything learnt is forgotten (RFC 3207 §4.2), the client says EHLO again. */
void smtp_server_tls_started(struct smtp_server *server);

/* ---- Ending it -------------------------------------------------------------------------------------------------- */

/* 421 at once when no transaction is open, otherwise as soon as it is over. */
void smtp_server_shutdown(struct smtp_server *server);
/* This reply (NULL: none) and the end, whatever is under way: ABORTED, then CLOSE. While a COMPLETE waits for its
 * answer the message may be stored all the same, and the client will not know: better wait. */
void smtp_server_close(struct smtp_server *server, const struct smtp_server_reply *reply);

/* ---- What is known ---------------------------------------------------------------------------------------------- */

/* Strings live until they change; "" when there is none. */
struct smtp_server_status {
	const char *helo; /* as the client calls itself: printable ASCII, what was not is "?" */
	const char *user; /* who authenticated */
	bool esmtp;	  /* EHLO, not HELO */
	bool tls;
	bool in_transaction; /* MAIL was accepted, and it is not over */
	bool is_idle;	     /* nothing is under way: may be sent away with smtp_server_shutdown() */
	bool has_logged_in;  /* AUTH or MAIL was accepted once */
	uint32_t recipients; /* accepted, of this transaction */
	uint32_t messages;   /* accepted */
	uint32_t commands, errors, auth_failures; /* of the whole session */
	uint64_t content_bytes;			  /* of the message that arrives */
};
void smtp_server_status(const struct smtp_server *server, struct smtp_server_status *out);
/* "READY", as in the picture above. For traces and tests. */
const char *smtp_server_state_name(const struct smtp_server *server);
/* What it occupies, for the ceiling over all sessions. */
size_t smtp_server_memory_bytes(const struct smtp_server *server);

#endif
