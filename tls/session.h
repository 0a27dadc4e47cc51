/*
 * tls/session.h - one TLS session over buffers, without a socket (GnuTLS)
 *
 * The caller moves ciphertext: what the socket gave goes into tls_session_input(), what tls_session_output() holds goes
 * to the socket. Nothing here blocks, waits or looks at a clock; time-outs are the caller's.
 *
 *     tls_session_input(s, bytes);                     or tls_session_input_eof(s) when the peer's FIN has come
 *     status = tls_session_handshake(s, &err);         until TLS_OK; send the output after every call, whatever it says
 *     while ((status = tls_session_read(s, ptr, size, &len, &err)) == TLS_OK) ...;    until it is not TLS_OK
 *     status = tls_session_write(s, plaintext, &taken, &err);
 *     tls_session_bye(s);                              then flush the output and close
 *
 * READ UNTIL TLS_AGAIN, or ask tls_session_may_read(): decrypted bytes may wait in here while the socket stays silent.
 * The first read after TLS_OK of the handshake comes before waiting for the socket, for the same reason.
 *
 * At STARTTLS the caller drops plain text that it has already buffered (RFC 3207 §4.2, CVE-2011-0411): only bytes that
 * came after the 220 was sent or read belong in here, and a server gets none that came before it in the same segment.
 *
 * REFUSED: versions below the credentials' minimum, renegotiation, early data, ALPN of other protocols (a client that
 * offers ALPN without "smtp" or "esmtp" gets the fatal alert no_application_protocol, RFC 7301 §3.2; we offer none).
 * BOUNDED: 64 KiB of ciphertext each way (a little more while the handshake runs), handshakes of 256 KiB,
 * floods of key updates, empty records and warnings end the session.
 */
#ifndef TLS_SESSION_H
#define TLS_SESSION_H

#include "base/err.h"
#include "base/slice.h"
#include "tls/credentials.h"
#include "tls/fingerprint.h"
#include "tls/resume.h"

/* What a client asks of the server's certificate. */
enum tls_level {
	TLS_LEVEL_OPPORTUNISTIC, /* anything will do; tls_session_verify() tells afterwards what it was worth */
	TLS_LEVEL_VERIFY,	 /* trusted by the credentials' authorities, valid now, and for `server_name` */
	TLS_LEVEL_FINGERPRINT,	 /* one of `fingerprints`; names, dates and authorities don't matter */
	TLS_LEVEL_DANE,		 /* nothing in the handshake: the caller asks tls_dane_match() before anything else */
};

struct tls_client_options {
	/* For SNI (RFC 7672 §8.1: the TLSA base domain) and TLS_LEVEL_VERIFY; an A-label name, a trailing dot is
	 * dropped. An IP address is no SNI and is looked for among the certificate's addresses. NULL: none (not with
	 * VERIFY). */
	const char *server_name;
	enum tls_level level;
	const struct tls_fingerprint *fingerprints; /* borrowed while the session lives */
	size_t fingerprint_count;
	struct tls_resume_cache *resume; /* NULL: never resume. Only used at TLS_LEVEL_OPPORTUNISTIC */
	const char *resume_key;		 /* who that is, e.g. "mx.example.org[192.0.2.1]:25"; copied */
};

struct tls_session;

/* Takes a reference to the credentials. */
struct tls_session *tls_session_new_server(struct tls_credentials *credentials);
struct tls_session *tls_session_new_client(struct tls_credentials *credentials,
					   const struct tls_client_options *options);
/* Sends nothing; accepts NULL and sets *session to NULL. */
void tls_session_free(struct tls_session **session);

/* Takes ciphertext and returns how much: less than all when its buffer is full (read first). After TLS_CLOSED or
 * TLS_FAILED everything is taken and dropped. */
size_t tls_session_input(struct tls_session *session, struct slice ciphertext);
/* The peer sends no more. */
void tls_session_input_eof(struct tls_session *session);
/* How much tls_session_input() would take now; 0: don't read from the socket. */
size_t tls_session_input_room(const struct tls_session *session);

/* TLS_OK, TLS_AGAIN, TLS_CLOSED (the peer went away; `err` says so) or TLS_FAILED. A client's first call makes the
 * ClientHello. */
enum tls_status tls_session_handshake(struct tls_session *session, struct err *err);
/* The handshake has been completed, and nothing has failed since. */
bool tls_session_is_established(const struct tls_session *session);

/* One record's plaintext at most. TLS_OK: *len > 0. TLS_CLOSED: no more will come, see tls_session_was_truncated().
 * Also TLS_AGAIN while the output is over its ceiling: a peer that does not read is not read from. */
enum tls_status tls_session_read(struct tls_session *session, void *ptr, size_t size, size_t *len, struct err *err);
/* A read may give something without more input. */
bool tls_session_may_read(const struct tls_session *session);
/* The peer closed without close_notify: what came may have been cut by somebody else. Normal among SMTP peers. */
bool tls_session_was_truncated(const struct tls_session *session);

/* Encrypts as much as the output has room for; *taken says how much. TLS_AGAIN: nothing was taken, send the output
 * first. Hand in a whole batch of replies or commands at once: it becomes one record (of at most 16 KiB). */
enum tls_status tls_session_write(struct tls_session *session, struct slice plaintext, size_t *taken, struct err *err);

/* Ciphertext to send; valid until the next call on the session. */
struct slice tls_session_output(const struct tls_session *session);
/* `len` of it have been sent. */
void tls_session_output_sent(struct tls_session *session, size_t len);

/* Puts close_notify into the output. Harmless at any time; nothing can be written after it. */
void tls_session_bye(struct tls_session *session);

/* --- what was agreed; meaningful once the handshake is TLS_OK. Strings are static or live as the session. --- */

/* "TLSv1.3"; "" before. */
const char *tls_session_version(const struct tls_session *session);
/* IANA's name: "TLS_AES_256_GCM_SHA384". */
const char *tls_session_cipher(const struct tls_session *session);
bool tls_session_was_resumed(const struct tls_session *session);
/* "smtp", "esmtp" or "". */
const char *tls_session_alpn(const struct tls_session *session);

/* How many certificates the peer sent (0: none; a resumed session has those of the first), and each in DER, the leaf
 * first. They live as the session. */
size_t tls_session_peer_chain_count(const struct tls_session *session);
struct slice tls_session_peer_certificate(const struct tls_session *session, size_t index);
/* False: the peer showed no certificate. */
bool tls_session_peer_fingerprint(const struct tls_session *session, struct tls_fingerprint *out);
/* The subject's common name, or the first subjectAltName; "" when there is none. Control characters are replaced. */
void tls_session_peer_name(const struct tls_session *session, char *out, size_t size);
/* When the peer's certificate expires, in milliseconds since 1970; INT64_MAX: it showed none. */
int64_t tls_session_peer_expires_at_wall(const struct tls_session *session);
/*
 * Is the peer who it should be? True at once when the handshake has verified it (VERIFY, FINGERPRINT, a client
 * certificate). At TLS_LEVEL_OPPORTUNISTIC the chain is verified now, for the record (0.5 ms, the first time of all
 * loads the trust), and `why` (may be NULL) says in words what is wrong with it.
 */
bool tls_session_verify(struct tls_session *session, struct err *why);

#endif
