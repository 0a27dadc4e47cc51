/*
 * relayctl/submit.h - hands one message to a relayd: over submit.sock, or over TCP with STARTTLS and AUTH
 *
 * Blocking, with a time-out of two minutes for each reply, ten for the last (RFC 5321 section 4.5.3.2).
 */
#ifndef RELAYCTL_SUBMIT_H
#define RELAYCTL_SUBMIT_H

#include "base/err.h"
#include "base/msgid.h"
#include "base/slice.h"
#include "smtp/client.h"

enum submit_tls {
	SUBMIT_TLS_AUTO, /* VERIFY for a password that leaves this machine, otherwise OPPORTUNISTIC */
	SUBMIT_TLS_NONE,
	SUBMIT_TLS_OPPORTUNISTIC, /* STARTTLS where it is offered, any certificate */
	SUBMIT_TLS_REQUIRED,	  /* STARTTLS, any certificate */
	SUBMIT_TLS_VERIFY,	  /* STARTTLS, a certificate that is trusted and for the host */
};
/* Of "none", "opportunistic", "required", "verify". False: none of them. */
bool submit_tls_parse(const char *text, enum submit_tls *tls);

struct submit_server {
	const char *socket_path; /* NULL: host and port */
	const char *host;
	uint16_t port;
	enum submit_tls tls;  /* over TCP */
	const char *ca_file;  /* NULL: the system's trust */
	const char *username; /* NULL: no AUTH */
	const char *password;
};

struct submission {
	const char *sender; /* "" for <> */
	const char *const *recipients;
	size_t recipient_count;
	struct slice message; /* LF and CRLF line ends, also mixed: sent with CRLF */
	/* RFC 3461; 0, NONE and "" or NULL: not said. NOTIFY counts for all recipients. */
	unsigned notify;
	enum smtp_dsn_ret ret;
	const char *envid; /* xtext */
};

struct submit_result {
	char id[MSGID_CHARS + 1]; /* "": nobody's message was accepted */
	size_t refused;		  /* recipients */
	/* The first refusal: where, and the server's code; 0: it was none of the server's. */
	enum delivery_stage stage;
	int code;
	char enhanced[12]; /* "5.3.4"; "" when there is none */
};

/*
 * 0: accepted for all recipients. Otherwise `err` has the server's words (and whom they are about), result->id tells
 * whether the others' message was accepted, and the code is
 * ERR_CLOSED      nobody there, it is stopping (421), or the connection was lost: what was sent may have been taken
 * ERR_TEMPORARY   4yz      ERR_PERMISSION  5yz, or the message cannot be sent there
 * ERR_CONFIG      no TLS, a bad certificate, a password that is refused
 */
int submit_message(const struct submit_server *server, const struct submission *submission,
		   struct submit_result *result, struct err *err);

/* The message with CRLF line ends: itself, or a copy in `memory` (initialised, without a ceiling to speak of). Its last
 * line is ended, and it is never empty. */
struct slice submit_crlf(struct slice message, struct buf *memory);

#endif
