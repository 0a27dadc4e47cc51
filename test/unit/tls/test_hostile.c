/* Peers that are broken, old, or mean harm. */
#include "support_tls.h"

#include <gnutls/abstract.h>
#include <gnutls/crypto.h>

#include <stdlib.h>

#define PRIORITY_12 "NORMAL:-VERS-ALL:+VERS-TLS1.2"
#define PRIORITY_13 "NORMAL:-VERS-ALL:+VERS-TLS1.3"

static struct cert *leaf;
static struct tls_credentials *server_side, *client_side;

static int setup(void **state)
{
	if (support_setup(state) < 0)
		return -1;
	leaf = cert_new(&(struct cert_spec){.common_name = "mail.example.org", .dns = {"mail.example.org"}});
	server_side = server_credentials(leaf, 1);
	client_side = client_credentials(NULL);
	return 0;
}

static int teardown(void **state)
{
	tls_credentials_unref(&server_side);
	tls_credentials_unref(&client_side);
	cert_free(&leaf);
	return support_teardown(state);
}

/* A server gets these octets first: it fails with these words, and answers with nothing but alerts. */
static void expect_server_fails(struct slice bytes, const char *words)
{
	struct tls_session *server = tls_session_new_server(server_side);
	struct err err = {0};
	enum tls_status status = TLS_AGAIN;
	struct slice out;

	for (size_t i = 0; i < bytes.len && status == TLS_AGAIN; i += 1000) {
		tls_session_input(server, slice_to(slice_from(bytes, i), 1000));
		status = tls_session_handshake(server, &err);
	}
	assert_int_equal(status, TLS_FAILED);
	assert_string_equal(err.text, words);
	out = tls_session_output(server);
	assert_true(out.len == 0 || (out.len == 7 && out.ptr[0] == 21));
	/* It stays that way, and takes whatever else comes. */
	assert_int_equal(tls_session_input(server, bytes), bytes.len);
	assert_int_equal(tls_session_handshake(server, &err), TLS_FAILED);
	assert_false(tls_session_is_established(server));
	tls_session_free(&server);
}

/* D8 */
static void garbage_instead_of_a_client_hello(void **state)
{
	char noise[5000];
	unsigned seed = 1;

	(void)state;
	for (size_t i = 0; i < sizeof(noise); i++) {
		seed = seed * 1103515245 + 12345;
		noise[i] = (char)(seed >> 16);
	}
	noise[0] = 0x5a;
	expect_server_fails(slice_of(noise, sizeof(noise)),
			    "the peer speaks plain text, not TLS: does it expect STARTTLS?");
	noise[0] = 0x05;
	expect_server_fails(slice_of(noise, sizeof(noise)), "the peer does not speak TLS (its first octet is 0x05)");
	expect_server_fails(SLICE("EHLO app.example.org\r\nMAIL FROM:<a@example.org>\r\n"),
			    "the peer speaks plain text, not TLS: does it expect STARTTLS?");
	expect_server_fails(SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
			    "the peer speaks plain text, not TLS: does it expect STARTTLS?");
	memcpy(noise, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
	expect_server_fails(slice_of(noise, sizeof(noise)),
			    "TLS handshake failed: Error decoding the received TLS packet.");
}

/* D8 */
static void a_record_of_65535_octets(void **state)
{
	size_t len = 5 + 65535;
	char *record = xcalloc(1, len);

	(void)state;
	memcpy(record, "\x16\x03\x03\xff\xff", 5);
	expect_server_fails(slice_of(record, len),
			    "TLS handshake failed: A TLS record packet with invalid length was received.");
	free(record);
}

/* D8 */
static void an_sslv2_hello(void **state)
{
	static const char hello[] =
	    "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80\x03\x00\x80\x04"
	    "\x00\x80\x05\x00\x80\x06\x00\x40\x07\x00\xc0"
	    "0123456789abcdef";

	(void)state;
	expect_server_fails(slice_of(hello, sizeof(hello) - 1),
			    "the peer offers no TLS version that is allowed here (at least 1.2)");
}

static void every_truncation_of_a_client_hello_waits_and_then_is_told(void **state)
{
	struct tls_session *client = tls_session_new_client(client_side, &(struct tls_client_options){0});
	struct slice hello;

	(void)state;
	assert_int_equal(tls_session_handshake(client, NULL), TLS_AGAIN);
	hello = tls_session_output(client);
	assert_true(hello.len > 100);
	for (size_t len = 0; len < hello.len; len++) {
		struct tls_session *server = tls_session_new_server(server_side);
		struct err err = {0};

		tls_session_input(server, slice_to(hello, len));
		assert_int_equal(tls_session_handshake(server, &err), TLS_AGAIN);
		tls_session_input_eof(server);
		assert_int_equal(tls_session_handshake(server, &err), TLS_CLOSED);
		assert_string_equal(err.text, "the peer closed the connection in the TLS handshake");
		tls_session_free(&server);
	}
	tls_session_free(&client);
}

static void every_flipped_octet_of_a_client_hello_is_survived(void **state)
{
	struct tls_session *client = tls_session_new_client(client_side, &(struct tls_client_options){0});
	char copy[2000];
	size_t len;

	(void)state;
	tls_session_handshake(client, NULL);
	len = tls_session_output(client).len;
	assert_true(len <= sizeof(copy));
	for (size_t i = 0; i < len; i++) {
		struct tls_session *server = tls_session_new_server(server_side);
		enum tls_status status;

		memcpy(copy, tls_session_output(client).ptr, len);
		copy[i] ^= 0xff;
		tls_session_input(server, slice_of(copy, len));
		status = tls_session_handshake(server, NULL);
		assert_true(status == TLS_AGAIN || status == TLS_FAILED);
		tls_session_free(&server);
	}
	tls_session_free(&client);
}

static void old_clients(const char *priority)
{
	struct raw raw;
	struct tls_session *server = tls_session_new_server(server_side);
	struct err err = {0};
	int code;

	raw_init(&raw, GNUTLS_CLIENT, priority, NULL);
	assert_int_equal(raw_handshake(&raw, &code, server, &err), TLS_FAILED);
	assert_string_equal(err.text, "the peer offers no TLS version that is allowed here (at least 1.2)");
	assert_int_equal(code, GNUTLS_E_FATAL_ALERT_RECEIVED);
	assert_int_equal(gnutls_alert_get(raw.session), GNUTLS_A_PROTOCOL_VERSION);
	raw_fini(&raw);
	tls_session_free(&server);
}

/* D6 */
static void tls_1_0_and_1_1_are_refused(void **state)
{
	(void)state;
	old_clients("NORMAL:-VERS-ALL:+VERS-TLS1.0");
	old_clients("NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0");
}

static void expect_version(const char *priority, const char *version)
{
	struct raw raw;
	struct tls_session *server = tls_session_new_server(server_side);
	struct err err = {0};
	int code;

	raw_init(&raw, GNUTLS_CLIENT, priority, NULL);
	assert_int_equal(raw_handshake(&raw, &code, server, &err), TLS_OK);
	assert_string_equal(tls_session_version(server), version);
	raw_fini(&raw);
	tls_session_free(&server);
}

/* D7 */
static void tls_1_2_and_1_3_work(void **state)
{
	(void)state;
	expect_version(PRIORITY_12, "TLSv1.2");
	expect_version(PRIORITY_13, "TLSv1.3");
	expect_version("NORMAL:%COMPAT", "TLSv1.3");
}

/* D6 */
static void weak_suites_are_refused(void **state)
{
	static const char *const weak[] = {
	    "NONE:+VERS-TLS1.2:+ARCFOUR-128:+SHA1:+RSA:+ECDHE-ECDSA:+SIGN-ALL:+GROUP-ALL:+COMP-NULL:+CTYPE-ALL",
	    "NONE:+VERS-TLS1.2:+3DES-CBC:+SHA1:+RSA:+ECDHE-ECDSA:+SIGN-ALL:+GROUP-ALL:+COMP-NULL:+CTYPE-ALL",
	    "NONE:+VERS-TLS1.2:+NULL:+SHA1:+RSA:+SIGN-ALL:+GROUP-ALL:+COMP-NULL:+CTYPE-ALL",
	    "NONE:+VERS-TLS1.2:+AES-128-CBC:+SHA1:+ANON-ECDH:+SIGN-ALL:+GROUP-ALL:+COMP-NULL:+CTYPE-ALL",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(weak); i++) {
		struct raw raw;
		struct tls_session *server = tls_session_new_server(server_side);
		gnutls_anon_client_credentials_t anonymous;
		struct err err = {0};
		int code;

		gnutls_anon_allocate_client_credentials(&anonymous);
		raw_init(&raw, GNUTLS_CLIENT, weak[i], NULL);
		gnutls_credentials_set(raw.session, GNUTLS_CRD_ANON, anonymous);
		assert_int_equal(raw_handshake(&raw, &code, server, &err), TLS_FAILED);
		assert_string_equal(err.text,
				    "no cipher suite or key exchange is common to both sides (TLS 1.2 and up)");
		raw_fini(&raw);
		gnutls_anon_free_client_credentials(anonymous);
		tls_session_free(&server);
	}
}

/* What a client that offers these protocols gets: NULL means the fatal alert. */
static void expect_alpn(const char *const *protocols, const char *selected)
{
	gnutls_datum_t list[4];
	unsigned count = 0;
	struct raw raw;
	struct tls_session *server = tls_session_new_server(server_side);
	struct err err = {0};
	int code;
	enum tls_status status;

	raw_init(&raw, GNUTLS_CLIENT, "NORMAL", NULL);
	for (; protocols[count]; count++)
		list[count] =
		    (gnutls_datum_t){(unsigned char *)(uintptr_t)protocols[count], (unsigned)strlen(protocols[count])};
	gnutls_alpn_set_protocols(raw.session, list, count, 0);
	status = raw_handshake(&raw, &code, server, &err);
	if (selected) {
		assert_int_equal(status, TLS_OK);
		assert_string_equal(tls_session_alpn(server), selected);
	} else {
		assert_int_equal(status, TLS_FAILED);
		assert_string_equal(err.text, "the peer wants to speak another protocol than SMTP (ALPN)");
		assert_int_equal(gnutls_alert_get(raw.session), GNUTLS_A_NO_APPLICATION_PROTOCOL);
	}
	raw_fini(&raw);
	tls_session_free(&server);
}

/* D11 */
static void other_protocols_are_refused(void **state)
{
	(void)state;
	expect_alpn((const char *const[]){"h2", NULL}, NULL);
	expect_alpn((const char *const[]){"h2", "http/1.1", NULL}, NULL);
	expect_alpn((const char *const[]){"imap", NULL}, NULL);
	expect_alpn((const char *const[]){"h2", "smtp", NULL}, "smtp");
	expect_alpn((const char *const[]){"esmtp", NULL}, "esmtp");
}

static void reads_fail(struct raw *raw, struct tls_session *ours, const char *words)
{
	char got[100];
	size_t len;
	struct err err = {0};
	enum tls_status status;

	while ((status = tls_session_read(ours, got, sizeof(got), &len, &err)) == TLS_OK)
		;
	if (status == TLS_AGAIN && buf_len(&raw->out)) {
		raw_move(raw, ours);
		status = tls_session_read(ours, got, sizeof(got), &len, &err);
	}
	assert_int_equal(status, TLS_FAILED);
	assert_string_equal(err.text, words);
	assert_int_equal(tls_session_read(ours, got, sizeof(got), &len, &err), TLS_FAILED);
	assert_string_equal(err.text, "the TLS session has failed before");
}

static void open_raw_client(struct raw *raw, const char *priority, struct tls_session **server)
{
	struct err err = {0};
	int code;

	*server = tls_session_new_server(server_side);
	raw_init(raw, GNUTLS_CLIENT, priority, NULL);
	assert_int_equal(raw_handshake(raw, &code, *server, &err), TLS_OK);
	assert_int_equal(code, 0);
}

/* D13 */
static void renegotiation_by_the_client_is_refused(void **state)
{
	struct raw raw;
	struct tls_session *server;

	(void)state;
	open_raw_client(&raw, PRIORITY_12, &server);
	/* The client starts a second handshake inside the session. */
	assert_int_equal(gnutls_handshake(raw.session), GNUTLS_E_AGAIN);
	raw_move(&raw, server);
	reads_fail(&raw, server, "the peer asked for a renegotiation, which is refused");
	raw_fini(&raw);
	tls_session_free(&server);
}

static void renegotiation_by_the_server_is_refused(void **state)
{
	struct raw raw;
	struct tls_session *client = tls_session_new_client(client_side, &(struct tls_client_options){0});
	struct err err = {0};
	int code;

	(void)state;
	raw_init(&raw, GNUTLS_SERVER, PRIORITY_12, leaf);
	assert_int_equal(raw_handshake(&raw, &code, client, &err), TLS_OK);
	assert_int_equal(gnutls_rehandshake(raw.session), 0);
	raw_move(&raw, client);
	reads_fail(&raw, client, "the peer asked for a renegotiation, which is refused");
	raw_fini(&raw);
	tls_session_free(&client);
}

static void a_few_key_updates_are_followed(void **state)
{
	struct raw raw;
	struct tls_session *server;
	char got[10];
	size_t len, taken;
	struct err err = {0};

	(void)state;
	open_raw_client(&raw, PRIORITY_13, &server);
	for (int i = 0; i < 4; i++)
		assert_int_equal(gnutls_session_key_update(raw.session, GNUTLS_KU_PEER), 0);
	assert_int_equal(gnutls_record_send(raw.session, "NOOP\r\n", 6), 6);
	raw_move(&raw, server);
	assert_int_equal(tls_session_read(server, got, sizeof(got), &len, &err), TLS_OK);
	assert_int_equal(len, 6);
	assert_int_equal(tls_session_write(server, SLICE("250 ok\r\n"), &taken, &err), TLS_OK);
	raw_move(&raw, server);
	while ((taken = (size_t)gnutls_record_recv(raw.session, got, sizeof(got))) == (size_t)GNUTLS_E_AGAIN &&
	       buf_len(&raw.in))
		;
	assert_int_equal(taken, 8);
	raw_fini(&raw);
	tls_session_free(&server);
}

/* D13 */
static void a_thousand_key_updates_end_the_session(void **state)
{
	struct raw raw;
	struct tls_session *server;

	(void)state;
	open_raw_client(&raw, PRIORITY_13, &server);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(gnutls_session_key_update(raw.session, GNUTLS_KU_PEER), 0);
	raw_move(&raw, server);
	reads_fail(&raw, server, "the peer floods the TLS session with empty records or key updates");
	assert_true(tls_session_output(server).len < 2000);
	raw_fini(&raw);
	tls_session_free(&server);
}

/* An application-data record of TLS 1.3 without data (RFC 8446 §5.2), which GnuTLS would not send: sealed by hand. */
static void append_empty_record(struct raw *raw, uint64_t sequence)
{
	static const unsigned char header[5] = {23, 3, 3, 0, 17};
	unsigned char nonce[12], sealed[17], number[8];
	static const unsigned char content_type[1] = {23};
	size_t sealed_len = sizeof(sealed);
	gnutls_datum_t iv, key;
	gnutls_aead_cipher_hd_t cipher;

	assert_int_equal(gnutls_record_get_state(raw->session, 0, NULL, &iv, &key, number), 0);
	assert_int_equal(iv.size, sizeof(nonce));
	memcpy(nonce, iv.data, sizeof(nonce));
	for (int i = 0; i < 8; i++)
		nonce[11 - i] ^= (unsigned char)(sequence >> (8 * i));
	assert_int_equal(gnutls_aead_cipher_init(&cipher, gnutls_cipher_get(raw->session), &key), 0);
	assert_int_equal(gnutls_aead_cipher_encrypt(cipher, nonce, sizeof(nonce), header, sizeof(header), 16,
						    content_type, 1, sealed, &sealed_len),
			 0);
	gnutls_aead_cipher_deinit(cipher);
	assert_int_equal(sealed_len, sizeof(sealed));
	buf_append(&raw->out, slice_of(header, sizeof(header)));
	buf_append(&raw->out, slice_of(sealed, sizeof(sealed)));
}

static void a_few_empty_records_are_passed_over(void **state)
{
	struct raw raw;
	struct tls_session *server;
	char got[10];
	size_t len;
	struct err err = {0};

	(void)state;
	open_raw_client(&raw, PRIORITY_13, &server);
	assert_int_equal(gnutls_record_send(raw.session, "NOOP\r\n", 6), 6);
	for (uint64_t sequence = 1; sequence <= 5; sequence++)
		append_empty_record(&raw, sequence);
	raw_move(&raw, server);
	assert_int_equal(tls_session_read(server, got, sizeof(got), &len, &err), TLS_OK);
	assert_int_equal(tls_session_read(server, got, sizeof(got), &len, &err), TLS_AGAIN);
	raw_fini(&raw);
	tls_session_free(&server);
}

/* D13 */
static void ten_thousand_empty_records_end_the_session(void **state)
{
	struct raw raw;
	struct tls_session *server;

	(void)state;
	open_raw_client(&raw, PRIORITY_13, &server);
	for (uint64_t sequence = 0; sequence < 10000; sequence++)
		append_empty_record(&raw, sequence);
	raw_move(&raw, server);
	reads_fail(&raw, server, "the peer floods the TLS session with empty records or key updates");
	raw_fini(&raw);
	tls_session_free(&server);
}

static void warning_alerts_are_bounded(void **state)
{
	struct raw raw;
	struct tls_session *server;

	(void)state;
	open_raw_client(&raw, PRIORITY_12, &server);
	for (int i = 0; i < 1000; i++)
		gnutls_alert_send(raw.session, GNUTLS_AL_WARNING, GNUTLS_A_UNRECOGNIZED_NAME);
	raw_move(&raw, server);
	reads_fail(&raw, server, "the peer floods the TLS session with empty records or key updates");
	raw_fini(&raw);
	tls_session_free(&server);
}

static void a_damaged_record_is_told(void **state)
{
	struct raw raw;
	struct tls_session *server;

	(void)state;
	open_raw_client(&raw, PRIORITY_13, &server);
	assert_int_equal(gnutls_record_send(raw.session, "MAIL FROM:<a@example.org>\r\n", 27), 27);
	raw.out.data[raw.out.start + 20] ^= 1;
	raw_move(&raw, server);
	reads_fail(&raw, server, "a TLS record was damaged or forged");
	raw_fini(&raw);
	tls_session_free(&server);
}

static void plain_text_inside_an_open_session(void **state)
{
	struct raw raw;
	struct tls_session *server;

	(void)state;
	open_raw_client(&raw, PRIORITY_13, &server);
	tls_session_input(server, SLICE("MAIL FROM:<a@example.org>\r\n"));
	reads_fail(&raw, server, "TLS session failed: An unexpected TLS packet was received.");
	raw_fini(&raw);
	tls_session_free(&server);
}

/* A client reads plain text where the server's hello should be: response injection (NO STARTTLS). */
static void plain_text_answers_to_a_client(void **state)
{
	struct tls_session *client = tls_session_new_client(client_side, &(struct tls_client_options){0});
	struct err err = {0};

	(void)state;
	assert_int_equal(tls_session_handshake(client, &err), TLS_AGAIN);
	tls_session_input(client, SLICE("250-mail.example.org\r\n250 AUTH PLAIN\r\n"));
	assert_int_equal(tls_session_handshake(client, &err), TLS_FAILED);
	assert_string_equal(err.text, "the peer speaks plain text, not TLS: does it expect STARTTLS?");
	tls_session_free(&client);
}

/* G17 */
static void servers_of_tls_1_0(void **state)
{
	static const struct tls_client_credentials_options legacy = {.min_version = TLS_VERSION_LEGACY};
	struct tls_credentials *sides[] = {client_side, tls_credentials_new_client(&legacy, NULL)};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct raw raw;
		struct tls_session *client = tls_session_new_client(sides[i], &(struct tls_client_options){0});
		struct err err = {0};
		int code;

		raw_init(&raw, GNUTLS_SERVER, "NORMAL:-VERS-ALL:+VERS-TLS1.0", leaf);
		assert_int_equal(raw_handshake(&raw, &code, client, &err), i ? TLS_OK : TLS_FAILED);
		assert_string_equal(tls_session_version(client), i ? "TLSv1" : "");
		if (!i)
			assert_string_equal(err.text,
					    "the peer offers no TLS version that is allowed here (at least 1.2)");
		raw_fini(&raw);
		tls_session_free(&client);
	}
	tls_credentials_unref(&sides[1]);
}

static void min_version_1_3_refuses_1_2(void **state)
{
	struct tls_server_credentials_options options = {
	    .certificate_file = in_dir("server.pem"), .key_file = in_dir("server.key"), .min_version = TLS_VERSION_1_3};
	struct tls_credentials *strict = tls_credentials_new_server(&options, NULL);
	struct tls_session *server = tls_session_new_server(strict);
	struct raw raw;
	struct err err = {0};
	int code;

	(void)state;
	raw_init(&raw, GNUTLS_CLIENT, PRIORITY_12, NULL);
	assert_int_equal(raw_handshake(&raw, &code, server, &err), TLS_FAILED);
	assert_string_equal(err.text, "no cipher suite or key exchange is common to both sides (TLS 1.3 and up)");
	raw_fini(&raw);
	tls_session_free(&server);
	tls_credentials_unref(&strict);
}

/* D16 */
static void odd_server_names_are_harmless(void **state)
{
	char names[4][300] = {"", "trailing\\", "with\nnewline.example.org", "."};

	(void)state;
	memset(names[0], 'a', 255);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct tls_session *server = tls_session_new_server(server_side);
		struct err err = {0};
		struct raw raw;
		int code;

		raw_init(&raw, GNUTLS_CLIENT, "NORMAL", NULL);
		gnutls_server_name_set(raw.session, GNUTLS_NAME_DNS, names[i], strlen(names[i]));
		assert_int_not_equal(raw_handshake(&raw, &code, server, &err), TLS_AGAIN);
		raw_fini(&raw);
		tls_session_free(&server);
	}
}

/* G18 */
static void a_certificate_chain_of_a_hundred(void **state)
{
	struct cert *self = cert_new(&(struct cert_spec){.common_name = "x", .dns = {"mail.example.org"}});
	struct tls_credentials *trusting = client_credentials(self);
	struct tls_client_options options = {.server_name = "mail.example.org", .level = TLS_LEVEL_VERIFY};
	struct tls_session *client = tls_session_new_client(trusting, &options);
	gnutls_x509_crt_t list[100];
	struct err err = {0};
	struct raw raw;
	int code;

	(void)state;
	for (size_t i = 0; i < 100; i++)
		list[i] = self->crt;
	raw_init(&raw, GNUTLS_SERVER, "NORMAL", NULL);
	assert_int_equal(gnutls_certificate_set_x509_key(raw.credentials, list, 100, self->key), 0);
	assert_int_equal(raw_handshake(&raw, &code, client, &err), TLS_FAILED);
	assert_string_equal(err.text, "certificate chain of 100 is too long");
	raw_fini(&raw);
	tls_session_free(&client);
	tls_credentials_unref(&trusting);
	cert_free(&self);
}

/* G18 */
static void a_handshake_message_of_ten_mebibytes(void **state)
{
	struct tls_session *client = tls_session_new_client(client_side, &(struct tls_client_options){0});
	struct err err = {0};
	enum tls_status status = TLS_AGAIN;
	size_t given = 0;
	char record[5 + 16384] = "\x16\x03\x03\x40\x00\x0b\xa0\x00\x00"; /* Certificate, 10 MiB */

	(void)state;
	assert_int_equal(tls_session_handshake(client, &err), TLS_AGAIN);
	while (status == TLS_AGAIN && given < (10u << 20)) {
		given += tls_session_input(client, slice_of(record, sizeof(record)));
		status = tls_session_handshake(client, &err);
	}
	assert_int_equal(status, TLS_FAILED);
	assert_string_equal(err.text, "the peer's handshake message is too large");
	assert_true(given < 400000);
	tls_session_free(&client);
}

/* D9 */
static void abandoned_handshakes_leave_nothing(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++) {
		struct tls_session *client = tls_session_new_client(client_side, &(struct tls_client_options){0});
		struct tls_session *server = tls_session_new_server(server_side);

		tls_session_handshake(client, NULL);
		wire_move(client, server, 100 + (size_t)i);
		tls_session_handshake(server, NULL);
		tls_session_bye(server);
		tls_session_free(&client);
		tls_session_free(&server);
	}
}

/* Ten thousand names are no certificate of a mail host, and GnuTLS is slow at each. */
static void a_certificate_that_is_all_names(void **state)
{
	struct tls_session *client = tls_session_new_client(client_side, &(struct tls_client_options){0});
	struct cert *crowd = cert_new(&(struct cert_spec){.common_name = "x"});
	struct buf names;
	struct err err = {0};
	struct raw raw;
	int code;

	(void)state;
	buf_init(&names, 1 << 20);
	buf_append(&names, slice_of("\x30\x83\x01\x11\x70", 5)); /* SEQUENCE of 70,000 octets */
	for (int i = 0; i < 10000; i++)
		buf_append(&names, slice_of("\x82\x05mx.io", 7));
	assert_int_equal(
	    gnutls_x509_crt_set_extension_by_oid(crowd->crt, "2.5.29.17", buf_slice(&names).ptr, buf_len(&names), 0),
	    0);
	assert_int_equal(gnutls_x509_crt_sign2(crowd->crt, crowd->crt, crowd->key, GNUTLS_DIG_SHA256, 0), 0);
	raw_init(&raw, GNUTLS_SERVER, "NORMAL", crowd);
	gnutls_handshake_set_max_packet_length(raw.session, 1 << 20);
	assert_int_equal(raw_handshake(&raw, &code, client, &err), TLS_FAILED);
	assert_string_equal(err.text, "the peer's handshake message is too large");
	raw_fini(&raw);
	buf_fini(&names);
	tls_session_free(&client);
	cert_free(&crowd);
}

/* A certificate whose key has `bits` and an exponent of `exponent_bytes`; nobody has the private one. */
static gnutls_x509_crt_t monstrous(unsigned bits, unsigned exponent_bytes)
{
	unsigned char modulus[4096], exponent[4096];
	gnutls_datum_t m = {modulus, bits / 8}, e = {exponent, exponent_bytes};
	gnutls_x509_crt_t crt;
	gnutls_pubkey_t key;

	memset(modulus, 0xf1, sizeof(modulus));
	memset(exponent, 0xf3, sizeof(exponent));
	gnutls_pubkey_init(&key);
	assert_int_equal(gnutls_pubkey_import_rsa_raw(key, &m, &e), 0);
	gnutls_x509_crt_init(&crt);
	gnutls_x509_crt_set_version(crt, 3);
	gnutls_x509_crt_set_serial(crt, "\x01", 1);
	gnutls_x509_crt_set_activation_time(crt, time(NULL) - DAY);
	gnutls_x509_crt_set_expiration_time(crt, time(NULL) + DAY);
	gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, "mail.example.org", 16);
	assert_int_equal(gnutls_x509_crt_set_pubkey(crt, key), 0);
	assert_int_equal(gnutls_x509_crt_sign2(crt, leaf->crt, leaf->key, GNUTLS_DIG_SHA256, 0), 0);
	gnutls_pubkey_deinit(key);
	return crt;
}

/* Shows a certificate that is not its own. */
static void show_monstrous(struct raw *raw, unsigned bits, unsigned exponent_bytes)
{
	gnutls_x509_crt_t crt = monstrous(bits, exponent_bytes);
	struct cert *own = cert_new(&(struct cert_spec){.common_name = "x", .rsa = true});

	gnutls_certificate_set_flags(raw->credentials, GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
	assert_int_equal(gnutls_certificate_set_x509_key(raw->credentials, &crt, 1, own->key), 0);
	gnutls_x509_crt_deinit(crt);
	cert_free(&own);
}

static const struct {
	unsigned bits, exponent_bytes;
	const char *words;
} monsters[] = {
    {16392, 3, "certificate's key of 16392 bits is too large"},
    {32768, 4096, "certificate's key of 32768 bits is too large"},
    {3080, 9, "certificate's key has an exponent of 9 octets, which is too large"},
    {16384, 2048, "certificate's key has an exponent of 2048 octets, which is too large"},
};

/* One signature with such a key takes seconds to minutes, and nothing else is done meanwhile. */
static void servers_whose_keys_are_monstrous(void **state)
{
	static const char *const priorities[] = {PRIORITY_12, PRIORITY_13};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(monsters) * ARRAY_LEN(priorities); i++) {
		struct tls_client_options options = {.server_name = "mail.example.org",
						     .level = i % 2 ? TLS_LEVEL_OPPORTUNISTIC : TLS_LEVEL_DANE};
		struct tls_session *client = tls_session_new_client(client_side, &options);
		struct err err = {0};
		struct raw raw;
		int code;

		raw_init(&raw, GNUTLS_SERVER, priorities[i / ARRAY_LEN(monsters)], NULL);
		show_monstrous(&raw, monsters[i % 4].bits, monsters[i % 4].exponent_bytes);
		assert_int_equal(raw_handshake(&raw, &code, client, &err), TLS_FAILED);
		assert_string_equal(err.text, monsters[i % 4].words);
		tls_session_free(&client);
		raw_fini(&raw);
	}
}

static void clients_whose_keys_are_monstrous(void **state)
{
	struct tls_server_credentials_options options = {.certificate_file = in_dir("server.pem"),
							 .key_file = in_dir("server.key"),
							 .client_ca_file = in_dir("server.pem"),
							 .min_version = TLS_VERSION_1_2};
	struct tls_credentials *asking;
	struct err err = {0};

	(void)state;
	cert_write_chain(leaf, 1, "server.pem");
	cert_write_key(leaf, "server.key");
	asking = tls_credentials_new_server(&options, &err);
	assert_non_null(asking);
	for (size_t i = 0; i < ARRAY_LEN(monsters); i++) {
		struct tls_session *server = tls_session_new_server(asking);
		struct raw raw;
		int code;

		raw_init(&raw, GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT, i % 2 ? PRIORITY_12 : PRIORITY_13, NULL);
		show_monstrous(&raw, monsters[i].bits, monsters[i].exponent_bytes);
		assert_int_equal(raw_handshake(&raw, &code, server, &err), TLS_FAILED);
		assert_string_equal(err.text, monsters[i].words);
		tls_session_free(&server);
		raw_fini(&raw);
	}
	tls_credentials_unref(&asking);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(garbage_instead_of_a_client_hello),
	    cmocka_unit_test(a_record_of_65535_octets),
	    cmocka_unit_test(an_sslv2_hello),
	    cmocka_unit_test(every_truncation_of_a_client_hello_waits_and_then_is_told),
	    cmocka_unit_test(every_flipped_octet_of_a_client_hello_is_survived),
	    cmocka_unit_test(tls_1_0_and_1_1_are_refused),
	    cmocka_unit_test(tls_1_2_and_1_3_work),
	    cmocka_unit_test(weak_suites_are_refused),
	    cmocka_unit_test(other_protocols_are_refused),
	    cmocka_unit_test(renegotiation_by_the_client_is_refused),
	    cmocka_unit_test(renegotiation_by_the_server_is_refused),
	    cmocka_unit_test(a_few_key_updates_are_followed),
	    cmocka_unit_test(a_thousand_key_updates_end_the_session),
	    cmocka_unit_test(a_few_empty_records_are_passed_over),
	    cmocka_unit_test(ten_thousand_empty_records_end_the_session),
	    cmocka_unit_test(warning_alerts_are_bounded),
	    cmocka_unit_test(a_damaged_record_is_told),
	    cmocka_unit_test(plain_text_inside_an_open_session),
	    cmocka_unit_test(plain_text_answers_to_a_client),
	    cmocka_unit_test(servers_of_tls_1_0),
	    cmocka_unit_test(min_version_1_3_refuses_1_2),
	    cmocka_unit_test(odd_server_names_are_harmless),
	    cmocka_unit_test(a_certificate_chain_of_a_hundred),
	    cmocka_unit_test(a_handshake_message_of_ten_mebibytes),
	    cmocka_unit_test(abandoned_handshakes_leave_nothing),
	    cmocka_unit_test(a_certificate_that_is_all_names),
	    cmocka_unit_test(servers_whose_keys_are_monstrous),
	    cmocka_unit_test(clients_whose_keys_are_monstrous),
	};

	return cmocka_run_group_tests_name("tls hostile", tests, setup, teardown);
}
