#include "tls/session.h"

#include "base/base.h"
#include "base/buf.h"
#include "tls/internal.h"
#include "tls/names.h"
#include "tls/verify.h"
#include "tls/words.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>

#define INPUT_MAX (64 * 1024)
/* Above this no more plain text is taken and nothing is read. */
#define OUTPUT_HIGH (64 * 1024)
/* Room for what GnuTLS writes by itself: a flight with our own chain, tickets, alerts. */
#define OUTPUT_MAX (512 * 1024)
#define RECORD_MAX 16384
/* GnuTLS gathers a handshake message of any announced length; a hundred certificates fit in here. */
#define HANDSHAKE_MAX (256 * 1024)
/* As much ciphertext without any plain text in it is a flood of empty records; GnuTLS takes them without end. */
#define BARREN_MAX (64 * 1024)
/* A peer that sends more warnings than this plays games. */
#define WARNINGS_MAX 16

/*
 *  HANDSHAKE ──TLS_OK──▶ OPEN ──close_notify, FIN──▶ CLOSED     (we may still write, until bye)
 *      └──────error───────┴──error──▶ FAILED                    (the alert is in the output)
 */
enum state { STATE_HANDSHAKE, STATE_OPEN, STATE_CLOSED, STATE_FAILED };

struct tls_session {
	gnutls_session_t gnutls;
	struct tls_credentials *credentials;
	enum state state;
	enum tls_level level;
	bool was_open;	  /* the handshake has been completed */
	bool eof;	  /* no more ciphertext will come */
	bool truncated;	  /* the end came without close_notify */
	bool bye;	  /* close_notify is sent */
	bool has_key;	  /* the peer's certificate has come, and its key is no larger than it may */
	bool is_verified; /* the peer is who it should be */
	bool is_judged;	  /* is_verified is final */
	bool want_ticket; /* the resumption cache waits for one */
	unsigned warnings;
	size_t barren_len; /* octets taken since the handshake began or the last plain text came */
	int first_byte;	   /* of all input, -1: none yet */
	struct buf in, out;
	char *server_name;
	const struct tls_fingerprint *fingerprints;
	size_t fingerprint_count;
	struct tls_resume_cache *resume;
	char *resume_key;
	struct err *refusal; /* where the verification puts its words, during a handshake call */
	bool was_refused;
};

/* ---- the transport: two buffers ---- */

static ssize_t pull(gnutls_transport_ptr_t ptr, void *out, size_t size)
{
	struct tls_session *s = ptr;
	struct slice have = slice_to(buf_slice(&s->in), size);

	if (!have.len && s->eof)
		return 0;
	if (!have.len) {
		gnutls_transport_set_errno(s->gnutls, EAGAIN);
		return -1;
	}
	memcpy(out, have.ptr, have.len);
	buf_consume(&s->in, have.len);
	return (ssize_t)have.len;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *data, size_t len)
{
	struct tls_session *s = ptr;

	if (buf_append(&s->out, slice_of(data, len)) < 0) {
		gnutls_transport_set_errno(s->gnutls, EMSGSIZE);
		return -1;
	}
	return (ssize_t)len;
}

static int pull_ready(gnutls_transport_ptr_t ptr, unsigned ms)
{
	struct tls_session *s = ptr;

	(void)ms; /* nothing in here waits */
	return buf_len(&s->in) || s->eof;
}

static void free_empty(struct buf *buf)
{
	if (!buf_len(buf))
		buf_reset(buf);
}

/* ---- making one ---- */

static int on_message(gnutls_session_t gnutls, unsigned type, unsigned when, unsigned is_incoming,
		      const gnutls_datum_t *message);

static struct tls_session *session_new(struct tls_credentials *credentials, unsigned flags)
{
	struct tls_session *s = xcalloc(1, sizeof(*s));

	s->credentials = tls_credentials_ref(credentials);
	s->first_byte = -1;
	buf_init(&s->in, INPUT_MAX);
	buf_init(&s->out, OUTPUT_MAX);
	BUG_ON(gnutls_init(&s->gnutls, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0);
	gnutls_session_set_ptr(s->gnutls, s);
	gnutls_transport_set_ptr(s->gnutls, s);
	gnutls_transport_set_pull_function(s->gnutls, pull);
	gnutls_transport_set_push_function(s->gnutls, push);
	gnutls_transport_set_pull_timeout_function(s->gnutls, pull_ready);
	gnutls_handshake_set_hook_function(s->gnutls, GNUTLS_HANDSHAKE_ANY, GNUTLS_HOOK_PRE, on_message);
	BUG_ON(gnutls_priority_set(s->gnutls, credentials->priority) < 0);
	BUG_ON(gnutls_credentials_set(s->gnutls, GNUTLS_CRD_CERTIFICATE, credentials->x509) < 0);
	return s;
}

static int verify_in_handshake(gnutls_session_t gnutls);

/* Before each message: GnuTLS is about to compute with the key that the peer's certificate has brought. What verifies
 * the chain is called too late, in TLS 1.3 behind the peer's signature. */
static int on_message(gnutls_session_t gnutls, unsigned type, unsigned when, unsigned is_incoming,
		      const gnutls_datum_t *message)
{
	struct tls_session *s = gnutls_session_get_ptr(gnutls);
	unsigned count = 0;
	const gnutls_datum_t *chain;

	(void)type;
	(void)when;
	(void)message;
	if (!is_incoming || s->has_key)
		return 0;
	chain = gnutls_certificate_get_peers(gnutls, &count);
	if (!chain || !count)
		return 0;
	s->has_key = true;
	s->was_refused = verify_leaf(chain, s->refusal) < 0;
	return s->was_refused ? GNUTLS_E_CERTIFICATE_ERROR : 0;
}

struct tls_session *tls_session_new_server(struct tls_credentials *credentials)
{
	static const gnutls_datum_t protocols[] = {
	    {(unsigned char *)"smtp", 4},
	    {(unsigned char *)"esmtp", 5},
	};
	struct tls_session *s;

	BUG_ON(!credentials->is_server);
	s = session_new(credentials, GNUTLS_SERVER);
	BUG_ON(gnutls_session_ticket_enable_server(s->gnutls, &credentials->ticket_key) < 0);
	BUG_ON(gnutls_alpn_set_protocols(s->gnutls, protocols, ARRAY_LEN(protocols), GNUTLS_ALPN_MANDATORY) < 0);
	if (credentials->asks_client) {
		gnutls_certificate_server_set_request(s->gnutls, GNUTLS_CERT_REQUEST);
		gnutls_session_set_verify_function(s->gnutls, verify_in_handshake);
	}
	return s;
}

static void set_server_name(struct tls_session *s, const char *name)
{
	unsigned char address[16];
	size_t len = name ? strlen(name) : 0;

	if (len && name[len - 1] == '.')
		len--;
	if (!len)
		return;
	s->server_name = xmemdup(name, len);
	/* RFC 6066 §3: no addresses. A name that GnuTLS cannot send is left out: verification uses it all the same. */
	if (!names_parse_address(s->server_name, address))
		gnutls_server_name_set(s->gnutls, GNUTLS_NAME_DNS, s->server_name, len);
}

/* What was accepted under one minimum version must not come back under another. */
static char *make_resume_key(const struct tls_session *s, const char *key)
{
	size_t size = strlen(key) + 8;
	char *text = xmalloc(size);

	snprintf(text, size, "%s %s", tls_version_name(s->credentials->min_version), key);
	return text;
}

static void try_resume(struct tls_session *s)
{
	struct slice data = tls_resume_cache_take(s->resume, s->resume_key);

	/* Data that does not fit any more means a full handshake, nothing else. */
	if (data.len)
		gnutls_session_set_data(s->gnutls, data.ptr, data.len);
}

struct tls_session *tls_session_new_client(struct tls_credentials *credentials,
					   const struct tls_client_options *options)
{
	bool resumes = options->resume && options->resume_key && options->level == TLS_LEVEL_OPPORTUNISTIC;
	struct tls_session *s;

	BUG_ON(credentials->is_server);
	BUG_ON(options->level == TLS_LEVEL_VERIFY && !options->server_name);
	BUG_ON(options->level == TLS_LEVEL_FINGERPRINT && !options->fingerprint_count);
	s = session_new(credentials, GNUTLS_CLIENT | (resumes ? 0 : GNUTLS_NO_TICKETS) |
					 (credentials->has_certificate ? GNUTLS_FORCE_CLIENT_CERT : 0));
	s->level = options->level;
	s->fingerprints = options->fingerprints;
	s->fingerprint_count = options->fingerprint_count;
	set_server_name(s, options->server_name);
	if (s->level == TLS_LEVEL_VERIFY || s->level == TLS_LEVEL_FINGERPRINT)
		gnutls_session_set_verify_function(s->gnutls, verify_in_handshake);
	if (resumes) {
		s->resume = options->resume;
		s->resume_key = make_resume_key(s, options->resume_key);
		s->want_ticket = true;
		try_resume(s);
	}
	return s;
}

void tls_session_free(struct tls_session **session)
{
	struct tls_session *s = *session;

	*session = NULL;
	if (!s)
		return;
	gnutls_deinit(s->gnutls);
	tls_credentials_unref(&s->credentials);
	buf_fini(&s->in);
	buf_fini(&s->out);
	free(s->server_name);
	free(s->resume_key);
	free(s);
}

/* ---- who is the peer ---- */

static int judge(struct tls_session *s, struct err *why)
{
	bool is_server = s->credentials->is_server;
	unsigned count = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(s->gnutls, &count);

	if (!chain || !count)
		return err_set(why, ERR_CRYPTO, "the peer showed no certificate");
	if (s->level == TLS_LEVEL_FINGERPRINT)
		return verify_fingerprint(chain, s->fingerprints, s->fingerprint_count, why);
	if (!is_server && !s->server_name)
		return err_set(why, ERR_CRYPTO, "there is no name to look for in the certificate");
	return verify_chain_by_trust(chain, count, s->credentials->trust,
				     is_server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER,
				     is_server ? NULL : s->server_name, why);
}

/* Called by GnuTLS when the peer's certificate has come; anything but 0 ends the handshake. */
static int verify_in_handshake(gnutls_session_t gnutls)
{
	struct tls_session *s = gnutls_session_get_ptr(gnutls);
	unsigned count = 0;

	if (s->credentials->is_server && (!gnutls_certificate_get_peers(gnutls, &count) || !count))
		return 0; /* a client without a certificate is let in, unverified */
	s->is_judged = true;
	s->is_verified = judge(s, s->refusal) == 0;
	s->was_refused = !s->is_verified;
	return s->is_verified ? 0 : -1;
}

bool tls_session_verify(struct tls_session *s, struct err *why)
{
	struct err ignored;

	if (s->is_judged && s->is_verified)
		return true;
	if (!s->was_open) {
		err_set(why, ERR_CRYPTO, "the TLS handshake is not complete");
		return false;
	}
	s->is_judged = true;
	s->is_verified = judge(s, why ? why : &ignored) == 0;
	return s->is_verified;
}

/* ---- ciphertext in and out ---- */

size_t tls_session_input(struct tls_session *s, struct slice ciphertext)
{
	size_t take = MIN(ciphertext.len, INPUT_MAX - buf_len(&s->in));

	if (s->state == STATE_CLOSED || s->state == STATE_FAILED)
		return ciphertext.len;
	if (take && s->first_byte < 0)
		s->first_byte = (unsigned char)ciphertext.ptr[0];
	buf_append(&s->in, slice_to(ciphertext, take));
	return take;
}

void tls_session_input_eof(struct tls_session *s)
{
	s->eof = true;
}

size_t tls_session_input_room(const struct tls_session *s)
{
	return INPUT_MAX - buf_len(&s->in);
}

struct slice tls_session_output(const struct tls_session *s)
{
	return buf_slice(&s->out);
}

void tls_session_output_sent(struct tls_session *s, size_t len)
{
	buf_consume(&s->out, len);
	free_empty(&s->out);
}

/* ---- ends ---- */

static enum tls_status end_with(struct tls_session *s, enum state state)
{
	s->state = state;
	buf_reset(&s->in);
	return state == STATE_CLOSED ? TLS_CLOSED : TLS_FAILED;
}

static enum tls_status fail(struct tls_session *s, int code)
{
	/* Best effort; some codes have no alert of their own. */
	gnutls_alert_send_appropriate(s->gnutls, code);
	return end_with(s, STATE_FAILED);
}

/* The answer to every call after the end. */
static enum tls_status ended(const struct tls_session *s, struct err *err)
{
	if (s->state == STATE_CLOSED) {
		err_set(err, ERR_CLOSED, "the peer has closed the TLS session");
		return TLS_CLOSED;
	}
	err_set(err, ERR_CRYPTO, s->bye ? "this side has ended the TLS session" : "the TLS session has failed before");
	return TLS_FAILED;
}

/* A record that is cut short by the end reads as one of wrong length. */
static bool is_end(const struct tls_session *s, int code)
{
	return s->eof && !buf_len(&s->in) &&
	       (code == GNUTLS_E_PREMATURE_TERMINATION || code == GNUTLS_E_PULL_ERROR ||
		code == GNUTLS_E_UNEXPECTED_PACKET_LENGTH);
}

static bool is_too_many_warnings(struct tls_session *s)
{
	return ++s->warnings > WARNINGS_MAX;
}

/* ---- handshake ---- */

static void remember(struct tls_session *s)
{
	bool is_13 = gnutls_protocol_get_version(s->gnutls) == GNUTLS_TLS1_3;
	gnutls_datum_t data = {0};

	/* A TLS 1.3 ticket comes with the first records after the handshake; asking for the data before would wait. */
	if (!s->want_ticket || (is_13 && !(gnutls_session_get_flags(s->gnutls) & GNUTLS_SFLAGS_SESSION_TICKET)))
		return;
	s->want_ticket = false;
	if (gnutls_session_get_data2(s->gnutls, &data) == 0)
		tls_resume_cache_put(s->resume, s->resume_key, slice_of(data.data, data.size), is_13);
	if (data.data)
		gnutls_memset(data.data, 0, data.size);
	gnutls_free(data.data);
}

static enum tls_status handshake_failed(struct tls_session *s, int code, struct err *err)
{
	bool closed = is_end(s, code);

	if (closed)
		words_of_handshake(s->gnutls, s->credentials, GNUTLS_E_PREMATURE_TERMINATION, -1, err);
	else if (!s->was_refused)
		words_of_handshake(s->gnutls, s->credentials, code, s->first_byte, err);
	if (closed)
		return end_with(s, STATE_CLOSED);
	return fail(s, code);
}

enum tls_status tls_session_handshake(struct tls_session *s, struct err *err)
{
	int rc;

	if (s->state == STATE_OPEN)
		return TLS_OK;
	if (s->state != STATE_HANDSHAKE)
		return ended(s, err);
	s->refusal = err;
	s->barren_len += buf_len(&s->in);
	do
		rc = gnutls_handshake(s->gnutls);
	while (rc < 0 && rc != GNUTLS_E_AGAIN && rc != GNUTLS_E_INTERRUPTED && !gnutls_error_is_fatal(rc) &&
	       !is_too_many_warnings(s));
	s->refusal = NULL;
	s->barren_len -= buf_len(&s->in);
	if (rc == GNUTLS_E_AGAIN && s->barren_len > HANDSHAKE_MAX)
		rc = GNUTLS_E_HANDSHAKE_TOO_LARGE;
	if (rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED) {
		free_empty(&s->in);
		return TLS_AGAIN;
	}
	if (rc < 0)
		return handshake_failed(s, rc, err);
	s->state = STATE_OPEN;
	s->was_open = true;
	s->barren_len = 0;
	remember(s);
	free_empty(&s->in);
	return TLS_OK;
}

bool tls_session_is_established(const struct tls_session *s)
{
	return s->was_open && s->state != STATE_FAILED;
}

/* ---- records ---- */

bool tls_session_may_read(const struct tls_session *s)
{
	return s->state == STATE_OPEN && buf_len(&s->out) < OUTPUT_HIGH &&
	       (buf_len(&s->in) || s->eof || gnutls_record_check_pending(s->gnutls));
}

/* GnuTLS also says AGAIN after it has swallowed a ticket or a key update; while it gets on, there may be more. */
static int receive(struct tls_session *s, void *ptr, size_t size)
{
	size_t before, first = buf_len(&s->in);
	ssize_t rc;

	do {
		before = buf_len(&s->in);
		rc = gnutls_record_recv(s->gnutls, ptr, size);
		if (rc >= 0 || gnutls_error_is_fatal((int)rc) || rc == GNUTLS_E_REHANDSHAKE)
			break;
		if (rc != GNUTLS_E_AGAIN && rc != GNUTLS_E_INTERRUPTED && is_too_many_warnings(s))
			return GNUTLS_E_TOO_MANY_EMPTY_PACKETS;
	} while (buf_len(&s->in) < before && (buf_len(&s->in) || s->eof) && buf_len(&s->out) < OUTPUT_HIGH);
	s->barren_len = rc > 0 ? 0 : s->barren_len + first - buf_len(&s->in);
	if (rc < 0 && !gnutls_error_is_fatal((int)rc) && s->barren_len > BARREN_MAX)
		return GNUTLS_E_TOO_MANY_EMPTY_PACKETS;
	return (int)rc;
}

enum tls_status tls_session_read(struct tls_session *s, void *ptr, size_t size, size_t *len, struct err *err)
{
	int rc;

	BUG_ON(s->state == STATE_HANDSHAKE || !size);
	*len = 0;
	if (s->state != STATE_OPEN)
		return ended(s, err);
	if (!tls_session_may_read(s))
		return TLS_AGAIN;
	rc = receive(s, ptr, size);
	free_empty(&s->in);
	if (s->want_ticket)
		remember(s);
	if (rc > 0) {
		*len = (size_t)rc;
		return TLS_OK;
	}
	if (rc == 0 || is_end(s, rc)) {
		s->truncated = rc != 0;
		end_with(s, STATE_CLOSED);
		return ended(s, err);
	}
	if (rc != GNUTLS_E_REHANDSHAKE && !gnutls_error_is_fatal(rc))
		return TLS_AGAIN;
	words_of_record(s->gnutls, rc, err);
	return fail(s, rc);
}

bool tls_session_was_truncated(const struct tls_session *s)
{
	return s->truncated;
}

enum tls_status tls_session_write(struct tls_session *s, struct slice plaintext, size_t *taken, struct err *err)
{
	BUG_ON(s->state == STATE_HANDSHAKE);
	*taken = 0;
	if (!tls_session_is_established(s) || s->bye)
		return ended(s, err);
	while (*taken < plaintext.len && buf_len(&s->out) < OUTPUT_HIGH) {
		struct slice piece = slice_to(slice_from(plaintext, *taken), RECORD_MAX);
		ssize_t rc = gnutls_record_send(s->gnutls, piece.ptr, piece.len);

		if (rc < 0) {
			words_of_record(s->gnutls, (int)rc, err);
			return fail(s, (int)rc);
		}
		*taken += (size_t)rc;
	}
	return *taken || !plaintext.len ? TLS_OK : TLS_AGAIN;
}

void tls_session_bye(struct tls_session *s)
{
	if (s->bye || !tls_session_is_established(s))
		return;
	s->bye = true;
	gnutls_bye(s->gnutls, GNUTLS_SHUT_WR);
}

/* ---- what was agreed ---- */

const char *tls_session_version(const struct tls_session *s)
{
	if (!s->was_open)
		return "";
	switch (gnutls_protocol_get_version(s->gnutls)) {
	case GNUTLS_TLS1_3: return "TLSv1.3";
	case GNUTLS_TLS1_2: return "TLSv1.2";
	case GNUTLS_TLS1_1: return "TLSv1.1";
	case GNUTLS_TLS1_0: return "TLSv1";
	default: return "";
	}
}

const char *tls_session_cipher(const struct tls_session *s)
{
	const char *name = !s->was_open ? NULL : gnutls_ciphersuite_get(s->gnutls);

	return name ? name : "";
}

bool tls_session_was_resumed(const struct tls_session *s)
{
	return gnutls_session_is_resumed(s->gnutls) != 0;
}

const char *tls_session_alpn(const struct tls_session *s)
{
	gnutls_datum_t chosen;

	if (gnutls_alpn_get_selected_protocol(s->gnutls, &chosen) < 0)
		return "";
	return chosen.size == 4 ? "smtp" : "esmtp";
}

size_t tls_session_peer_chain_count(const struct tls_session *s)
{
	unsigned count = 0;

	return gnutls_certificate_get_peers(s->gnutls, &count) ? count : 0;
}

struct slice tls_session_peer_certificate(const struct tls_session *s, size_t index)
{
	unsigned count = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(s->gnutls, &count);

	BUG_ON(!chain || index >= count);
	return slice_of(chain[index].data, chain[index].size);
}

bool tls_session_peer_fingerprint(const struct tls_session *s, struct tls_fingerprint *out)
{
	unsigned count = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(s->gnutls, &count);

	return chain && count && gnutls_hash_fast(GNUTLS_DIG_SHA256, chain->data, chain->size, out->bytes) == 0;
}

/* False: the peer has shown none that can be read. */
static bool parse_leaf(const struct tls_session *s, struct verify_chain *leaf)
{
	unsigned count = 0;
	const gnutls_datum_t *der = gnutls_certificate_get_peers(s->gnutls, &count);

	return der && count && verify_chain_parse(leaf, der, 1, NULL) == 0;
}

void tls_session_peer_name(const struct tls_session *s, char *out, size_t size)
{
	struct verify_chain leaf;
	struct buf name;

	out[0] = '\0';
	if (!parse_leaf(s, &leaf))
		return;
	names_common_name(leaf.list[0], out, size);
	if (!out[0]) {
		buf_init(&name, 1024);
		names_format(leaf.list[0], 1, &name);
		slice_to_cstr(buf_slice(&name), out, size);
		buf_fini(&name);
	}
	verify_chain_free(&leaf);
}

int64_t tls_session_peer_expires_at_wall(const struct tls_session *s)
{
	struct verify_chain leaf;
	int64_t at;

	if (!parse_leaf(s, &leaf))
		return INT64_MAX;
	at = (int64_t)gnutls_x509_crt_get_expiration_time(leaf.list[0]) * 1000;
	verify_chain_free(&leaf);
	return at;
}
