/* Two ends of a session wired in memory: whole, in small pieces, with every kind of certificate. */
#include "support_tls.h"

#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>

struct fixture {
	struct cert *root, *intermediate, *leaf;
};

static struct fixture fx;

static int setup(void **state)
{
	if (support_setup(state) < 0)
		return -1;
	fx.root = cert_new(&(struct cert_spec){.common_name = "Test Root", .is_authority = true});
	fx.intermediate =
	    cert_new(&(struct cert_spec){.common_name = "Test Intermediate", .is_authority = true, .issuer = fx.root});
	fx.leaf = cert_new(&(struct cert_spec){.common_name = "mail.example.org",
					       .dns = {"mail.example.org", "*.wild.example.org"},
					       .ip = "192.0.2.7",
					       .issuer = fx.intermediate});
	return 0;
}

static int teardown(void **state)
{
	cert_free(&fx.leaf);
	cert_free(&fx.intermediate);
	cert_free(&fx.root);
	return support_teardown(state);
}

/* Both ends with the usual credentials. */
struct pair {
	struct tls_credentials *client_credentials, *server_credentials;
	struct tls_session *client, *server;
};

static void pair_open(struct pair *pair, const struct cert *cert, unsigned depth,
		      const struct tls_client_options *options)
{
	pair->client_credentials = client_credentials(fx.root);
	pair->server_credentials = server_credentials(cert, depth);
	pair->client = tls_session_new_client(pair->client_credentials, options);
	pair->server = tls_session_new_server(pair->server_credentials);
}

static void pair_close(struct pair *pair)
{
	tls_session_free(&pair->client);
	tls_session_free(&pair->server);
	tls_credentials_unref(&pair->client_credentials);
	tls_credentials_unref(&pair->server_credentials);
}

static const struct tls_client_options verify_mail = {.server_name = "mail.example.org", .level = TLS_LEVEL_VERIFY};

static void a_verified_session_tells_what_was_agreed(void **state)
{
	struct pair pair;
	char name[64];

	(void)state;
	pair_open(&pair, fx.leaf, 2, &verify_mail);
	assert_string_equal(tls_session_version(pair.client), "");
	assert_false(tls_session_verify(pair.client, NULL));
	wire_handshake_ok(pair.client, pair.server);
	assert_string_equal(tls_session_version(pair.client), "TLSv1.3");
	assert_string_equal(tls_session_cipher(pair.server), "TLS_AES_256_GCM_SHA384");
	assert_true(tls_session_verify(pair.client, NULL));
	assert_false(tls_session_was_resumed(pair.client));
	assert_string_equal(tls_session_alpn(pair.server), "");
	assert_int_equal(tls_session_peer_chain_count(pair.client), 2);
	assert_true(slice_eq(tls_session_peer_certificate(pair.client, 0), cert_der(fx.leaf)));
	assert_int_equal(tls_session_peer_expires_at_wall(pair.client),
			 (int64_t)gnutls_x509_crt_get_expiration_time(fx.leaf->crt) * 1000);
	assert_int_equal(tls_session_peer_expires_at_wall(pair.server), INT64_MAX);
	tls_session_peer_name(pair.client, name, sizeof(name));
	assert_string_equal(name, "mail.example.org");
	wire_say(pair.client, pair.server, "EHLO client.example.org\r\n");
	wire_say(pair.server, pair.client, "250 mail.example.org\r\n");
	pair_close(&pair);
}

static void a_batch_of_replies_is_one_record(void **state)
{
	struct pair pair;
	size_t taken, plain = 2000;
	char batch[2000];
	struct err err = {0};

	(void)state;
	memset(batch, 'x', sizeof(batch));
	pair_open(&pair, fx.leaf, 2, &verify_mail);
	wire_handshake_ok(pair.client, pair.server);
	assert_int_equal(tls_session_output(pair.server).len, 0);
	assert_int_equal(tls_session_write(pair.server, slice_of(batch, plain), &taken, &err), TLS_OK);
	/* header 5, content type 1, tag 16 */
	assert_int_equal(tls_session_output(pair.server).len, plain + 22);
	pair_close(&pair);
}

static void handshakes_survive_any_cut(void **state)
{
	static const size_t chunks[] = {1, 2, 17, 1000};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(chunks); i++) {
		struct pair pair;
		enum tls_status client, server;
		struct err err = {0};

		pair_open(&pair, fx.leaf, 2, &verify_mail);
		wire_handshake(pair.client, pair.server, chunks[i], &client, &err, &server, &err);
		assert_string_equal(err.text, "");
		assert_int_equal(client, TLS_OK);
		assert_int_equal(server, TLS_OK);
		wire_say(pair.client, pair.server, "NOOP\r\n");
		pair_close(&pair);
	}
}

static unsigned char pattern(size_t at)
{
	return (unsigned char)(at * 7 + at / 251);
}

/* Reads whatever is there and checks it against the pattern. */
static void drain(struct tls_session *to, size_t *got)
{
	unsigned char piece[5000];
	size_t len;
	struct err err = {0};
	enum tls_status status;

	while ((status = tls_session_read(to, piece, sizeof(piece), &len, &err)) == TLS_OK)
		for (size_t i = 0; i < len; i++, (*got)++)
			if (piece[i] != pattern(*got))
				fail_msg("octet %zu differs", *got);
	assert_int_equal(status, TLS_AGAIN);
	assert_false(tls_session_may_read(to));
}

static void transfer(size_t total, size_t write_size, size_t wire_size)
{
	struct pair pair;
	char *plain = xmalloc(total);
	size_t sent = 0, got = 0, taken;
	struct err err = {0};

	for (size_t i = 0; i < total; i++)
		plain[i] = (char)pattern(i);
	pair_open(&pair, fx.leaf, 2, &verify_mail);
	wire_handshake_ok(pair.client, pair.server);
	while (got < total) {
		struct slice piece = slice_to(slice_of(plain + sent, total - sent), write_size);
		enum tls_status status = tls_session_write(pair.client, piece, &taken, &err);

		assert_true(status == TLS_OK || status == TLS_AGAIN);
		assert_int_equal(status == TLS_AGAIN, piece.len && !taken);
		sent += taken;
		if (status == TLS_OK && sent < total && write_size < 100)
			continue; /* many writes before anything moves */
		wire_move(pair.client, pair.server, wire_size);
		drain(pair.server, &got);
	}
	assert_int_equal(got, total);
	free(plain);
	pair_close(&pair);
}

static void two_mebibytes_in_17_octet_writes(void **state)
{
	(void)state;
	transfer(2 << 20, 17, 60000);
}

static void two_mebibytes_in_60000_octet_writes(void **state)
{
	(void)state;
	transfer(2 << 20, 60000, 70000);
}

static void bulk_trickles_byte_by_byte(void **state)
{
	(void)state;
	transfer(40000, 9000, 1);
}

static void the_output_has_a_ceiling(void **state)
{
	struct pair pair;
	char block[50000] = {0};
	size_t taken, total = 0;
	struct err err = {0};
	enum tls_status status;

	(void)state;
	pair_open(&pair, fx.leaf, 2, &verify_mail);
	wire_handshake_ok(pair.client, pair.server);
	while ((status = tls_session_write(pair.client, slice_of(block, sizeof(block)), &taken, &err)) == TLS_OK)
		total += taken;
	assert_int_equal(status, TLS_AGAIN);
	assert_int_equal(taken, 0);
	assert_true(total < 100000);
	/* A peer that does not read is not read from. */
	assert_int_equal(tls_session_write(pair.server, SLICE("250 ok\r\n"), &taken, &err), TLS_OK);
	while (wire_move(pair.server, pair.client, SIZE_MAX))
		;
	assert_int_equal(tls_session_read(pair.client, block, sizeof(block), &taken, &err), TLS_AGAIN);
	tls_session_output_sent(pair.client, tls_session_output(pair.client).len);
	assert_true(tls_session_may_read(pair.client));
	assert_int_equal(tls_session_read(pair.client, block, sizeof(block), &taken, &err), TLS_OK);
	pair_close(&pair);
}

/* What a client of this level says of this certificate. "": it is content. */
static void expect_refusal(const struct cert *cert, unsigned depth, const char *server_name, const char *words)
{
	struct tls_client_options options = {.server_name = server_name, .level = TLS_LEVEL_VERIFY};
	struct pair pair;
	enum tls_status client, server;
	struct err client_err = {0}, server_err = {0}, why = {0};

	pair_open(&pair, cert, depth, &options);
	wire_handshake(pair.client, pair.server, SIZE_MAX, &client, &client_err, &server, &server_err);
	assert_string_equal(client_err.text, words);
	assert_int_equal(client, *words ? TLS_FAILED : TLS_OK);
	/* The other side is told by an alert. In TLS 1.3 it may have finished by then. */
	if (*words && server == TLS_OK) {
		char byte;
		size_t len;

		assert_int_equal(tls_session_read(pair.server, &byte, 1, &len, &server_err), TLS_FAILED);
	}
	if (*words)
		assert_non_null(strstr(server_err.text, "alert \"Certificate is bad\""));
	pair_close(&pair);

	/* The same words for the record of an opportunistic session, which goes on. */
	options.level = TLS_LEVEL_OPPORTUNISTIC;
	pair_open(&pair, cert, depth, &options);
	wire_handshake_ok(pair.client, pair.server);
	assert_int_equal(tls_session_verify(pair.client, &why), !*words);
	assert_string_equal(why.text, words);
	pair_close(&pair);
}

static void good_names_are_accepted(void **state)
{
	(void)state;
	expect_refusal(fx.leaf, 2, "mail.example.org", "");
	expect_refusal(fx.leaf, 2, "mail.example.org.", "");
	expect_refusal(fx.leaf, 2, "MAIL.example.ORG", "");
	expect_refusal(fx.leaf, 2, "a.wild.example.org", "");
	expect_refusal(fx.leaf, 2, "192.0.2.7", "");
}

/* G18 */
static void wrong_names_are_told(void **state)
{
	static const char names[] = "mail.example.org, *.wild.example.org, 192.0.2.7";
	static const char *const wrong[] = {"mail.example.net",
					    "a.b.wild.example.org",
					    "wild.example.org",
					    "192.0.2.8",
					    "org",
					    "mail.example.org.example.net"};
	char words[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		snprintf(words, sizeof(words), "certificate is for %s, not %s", names, wrong[i]);
		expect_refusal(fx.leaf, 2, wrong[i], words);
	}
}

/* G18 */
static void expired_and_future_certificates_are_told(void **state)
{
	struct cert *old = cert_new(&(struct cert_spec){
	    .dns = {"mail.example.org"}, .issuer = fx.intermediate, .from = 1600000000, .until = 1704067200});
	struct cert *future = cert_new(&(struct cert_spec){
	    .dns = {"mail.example.org"}, .issuer = fx.intermediate, .from = 4102444800, .until = 4133980800});
	struct cert *old_ca = cert_new(&(struct cert_spec){
	    .common_name = "Old", .is_authority = true, .issuer = fx.root, .from = 1600000000, .until = 1704067200});
	struct cert *under_old = cert_new(&(struct cert_spec){.dns = {"mail.example.org"}, .issuer = old_ca});

	(void)state;
	expect_refusal(old, 2, "mail.example.org", "certificate has expired (2024-01-01)");
	expect_refusal(future, 2, "mail.example.org", "certificate is not valid before 2100-01-01");
	expect_refusal(under_old, 2, "mail.example.org", "an issuer's certificate has expired (2024-01-01)");
	cert_free(&under_old);
	cert_free(&old_ca);
	cert_free(&future);
	cert_free(&old);
}

/* G18 */
static void untrusted_certificates_are_told(void **state)
{
	struct cert *self = cert_new(&(struct cert_spec){.common_name = "x", .dns = {"mail.example.org"}});
	struct cert *stranger = cert_new(&(struct cert_spec){.common_name = "Stranger\n CA", .is_authority = true});
	struct cert *strange = cert_new(&(struct cert_spec){.dns = {"mail.example.org"}, .issuer = stranger});
	struct cert *not_an_authority =
	    cert_new(&(struct cert_spec){.common_name = "No CA", .dns = {"x.example.org"}, .issuer = fx.root});
	struct cert *child = cert_new(&(struct cert_spec){.dns = {"mail.example.org"}, .issuer = not_an_authority});
	struct cert *for_clients = cert_new(&(struct cert_spec){
	    .dns = {"mail.example.org"}, .issuer = fx.intermediate, .purpose = GNUTLS_KP_TLS_WWW_CLIENT});

	(void)state;
	expect_refusal(self, 1, "mail.example.org",
		       "certificate is self-signed, no trusted authority stands behind it");
	expect_refusal(strange, 1, "mail.example.org",
		       "certificate leads to the issuer \"Stranger? CA\", who is not trusted here");
	/* The server forgot its intermediate. */
	expect_refusal(fx.leaf, 1, "mail.example.org",
		       "certificate leads to the issuer \"Test Intermediate\", who is not trusted here");
	expect_refusal(child, 2, "mail.example.org",
		       "certificate was issued by a certificate that is not an authority's");
	expect_refusal(for_clients, 2, "mail.example.org", "certificate is not meant for this use");
	cert_free(&for_clients);
	cert_free(&child);
	cert_free(&not_an_authority);
	cert_free(&strange);
	cert_free(&stranger);
	cert_free(&self);
}

static void without_authorities_nothing_verifies(void **state)
{
	struct tls_credentials *nobody = client_credentials(NULL);
	struct tls_credentials *credentials = server_credentials(fx.leaf, 2);
	struct tls_session *client = tls_session_new_client(nobody, &verify_mail);
	struct tls_session *server = tls_session_new_server(credentials);
	enum tls_status client_status, server_status;
	struct err client_err = {0}, server_err = {0};

	(void)state;
	wire_handshake(client, server, SIZE_MAX, &client_status, &client_err, &server_status, &server_err);
	assert_string_equal(client_err.text, "no certification authority is trusted here");
	assert_int_equal(client_status, TLS_FAILED);
	tls_session_free(&client);
	tls_session_free(&server);
	tls_credentials_unref(&credentials);
	tls_credentials_unref(&nobody);
}

static enum tls_status handshake_pinned(const struct cert *cert, const struct tls_fingerprint *pins, size_t count,
					struct err *err)
{
	struct tls_client_options options = {.server_name = "other.example.net",
					     .level = TLS_LEVEL_FINGERPRINT,
					     .fingerprints = pins,
					     .fingerprint_count = count};
	struct pair pair;
	enum tls_status client, server;
	struct err server_err = {0};

	*err = (struct err){0};
	pair_open(&pair, cert, 1, &options);
	wire_handshake(pair.client, pair.server, SIZE_MAX, &client, err, &server, &server_err);
	assert_int_equal(tls_session_verify(pair.client, NULL), client == TLS_OK);
	pair_close(&pair);
	return client;
}

static void pinned_certificates_need_no_name_and_no_authority(void **state)
{
	struct cert *self = cert_new(&(struct cert_spec){.common_name = "x", .from = 1600000000, .until = 1704067200});
	struct tls_fingerprint pins[2] = {0};
	char hex[TLS_FINGERPRINT_CHARS + 1], words[200];
	struct err err;

	(void)state;
	gnutls_hash_fast(GNUTLS_DIG_SHA256, self->der.data, self->der.size, pins[1].bytes);
	assert_int_equal(handshake_pinned(self, pins, 2, &err), TLS_OK);
	assert_int_equal(handshake_pinned(self, pins, 1, &err), TLS_FAILED);
	tls_fingerprint_format(&pins[1], hex);
	snprintf(words, sizeof(words), "certificate's fingerprint is %s, not the one that is configured", hex);
	assert_string_equal(err.text, words);
	gnutls_hash_fast(GNUTLS_DIG_SHA256, self->spki.data, self->spki.size, pins[0].bytes);
	assert_int_equal(handshake_pinned(self, pins, 1, &err), TLS_OK);
	cert_free(&self);
}

static void the_peer_fingerprint_is_that_of_its_leaf(void **state)
{
	struct pair pair;
	struct tls_fingerprint got, expected;

	(void)state;
	pair_open(&pair, fx.leaf, 2, &(struct tls_client_options){.level = TLS_LEVEL_DANE});
	assert_false(tls_session_peer_fingerprint(pair.client, &got));
	wire_handshake_ok(pair.client, pair.server);
	assert_true(tls_session_peer_fingerprint(pair.client, &got));
	gnutls_hash_fast(GNUTLS_DIG_SHA256, fx.leaf->der.data, fx.leaf->der.size, expected.bytes);
	assert_memory_equal(&got, &expected, sizeof(got));
	assert_false(tls_session_peer_fingerprint(pair.server, &got));
	pair_close(&pair);
}

static void sessions_keep_the_credentials_they_began_with(void **state)
{
	struct cert *next = cert_new(&(struct cert_spec){.dns = {"next.example.org"}, .issuer = fx.root});
	struct tls_client_options options = {.server_name = "next.example.org", .level = TLS_LEVEL_VERIFY};
	struct tls_credentials *renewed;
	struct pair pair;

	(void)state;
	pair_open(&pair, fx.leaf, 2, &verify_mail);
	wire_handshake_ok(pair.client, pair.server);
	/* The reload: the old object loses its owner and lives on by its session. */
	renewed = server_credentials(next, 1);
	tls_credentials_unref(&pair.server_credentials);
	pair.server_credentials = renewed;
	wire_say(pair.client, pair.server, "NOOP\r\n");
	wire_say(pair.server, pair.client, "250 ok\r\n");
	tls_session_free(&pair.client);
	tls_session_free(&pair.server);
	pair.client = tls_session_new_client(pair.client_credentials, &options);
	pair.server = tls_session_new_server(pair.server_credentials);
	wire_handshake_ok(pair.client, pair.server);
	pair_close(&pair);
	cert_free(&next);
}

static void client_certificates(const struct cert *client_cert, bool expect_ok, bool expect_verified)
{
	struct tls_server_credentials_options server_options = {.certificate_file = in_dir("server.pem"),
								.key_file = in_dir("server.key"),
								.client_ca_file = in_dir("client-ca.pem")};
	struct tls_client_credentials_options client_options = {0};
	struct tls_credentials *server_side, *client_side;
	struct tls_session *client, *server;
	enum tls_status client_status, server_status;
	struct err client_err = {0}, server_err = {0};
	char name[64];

	cert_write_chain(fx.leaf, 2, "server.pem");
	cert_write_key(fx.leaf, "server.key");
	cert_write_chain(fx.root, 1, "client-ca.pem");
	if (client_cert) {
		cert_write_chain(client_cert, 1, "client.pem");
		cert_write_key(client_cert, "client.key");
		client_options.certificate_file = in_dir("client.pem");
		client_options.key_file = in_dir("client.key");
	}
	server_side = tls_credentials_new_server(&server_options, &server_err);
	assert_string_equal(server_err.text, "");
	client_side = tls_credentials_new_client(&client_options, &client_err);
	client = tls_session_new_client(client_side, &(struct tls_client_options){0});
	server = tls_session_new_server(server_side);
	wire_handshake(client, server, SIZE_MAX, &client_status, &client_err, &server_status, &server_err);
	assert_int_equal(server_status, expect_ok ? TLS_OK : TLS_FAILED);
	if (expect_ok)
		assert_int_equal(tls_session_verify(server, NULL), expect_verified);
	else
		assert_string_equal(server_err.text,
				    "certificate is self-signed, no trusted authority stands behind it");
	tls_session_peer_name(server, name, sizeof(name));
	assert_string_equal(name, client_cert ? "app" : "");
	tls_session_free(&client);
	tls_session_free(&server);
	tls_credentials_unref(&client_side);
	tls_credentials_unref(&server_side);
}

static void client_certificates_are_verified_when_shown(void **state)
{
	struct cert *good =
	    cert_new(&(struct cert_spec){.common_name = "app", .issuer = fx.root, .purpose = GNUTLS_KP_TLS_WWW_CLIENT});
	struct cert *self = cert_new(&(struct cert_spec){.common_name = "app", .purpose = GNUTLS_KP_TLS_WWW_CLIENT});

	(void)state;
	client_certificates(good, true, true);
	client_certificates(NULL, true, false);
	client_certificates(self, false, false);
	cert_free(&self);
	cert_free(&good);
}

static void close_notify_ends_reading_and_what_follows_is_dropped(void **state)
{
	struct pair pair;
	char got[64];
	size_t len, taken;
	struct err err = {0};

	(void)state;
	pair_open(&pair, fx.leaf, 2, &verify_mail);
	wire_handshake_ok(pair.client, pair.server);
	assert_int_equal(tls_session_write(pair.client, SLICE("half a mes"), &taken, &err), TLS_OK);
	tls_session_bye(pair.client);
	tls_session_bye(pair.client);
	assert_int_equal(tls_session_write(pair.client, SLICE("more"), &taken, &err), TLS_FAILED);
	while (wire_move(pair.client, pair.server, SIZE_MAX))
		;
	assert_int_equal(tls_session_read(pair.server, got, sizeof(got), &len, &err), TLS_OK);
	assert_int_equal(len, 10);
	assert_int_equal(tls_session_read(pair.server, got, sizeof(got), &len, &err), TLS_CLOSED);
	assert_false(tls_session_was_truncated(pair.server));
	assert_int_equal(tls_session_input(pair.server, SLICE("MAIL FROM:<x@example.org>\r\n")), 27);
	assert_int_equal(tls_session_read(pair.server, got, sizeof(got), &len, &err), TLS_CLOSED);
	assert_false(tls_session_may_read(pair.server));
	/* We may still say good-bye. */
	assert_int_equal(tls_session_write(pair.server, SLICE("421 bye\r\n"), &taken, &err), TLS_OK);
	assert_true(tls_session_output(pair.server).len > 0);
	pair_close(&pair);
}

static void a_bare_fin_is_a_close_that_is_told_apart(void **state)
{
	struct pair pair;
	char got[64];
	size_t len;
	struct err err = {0};

	(void)state;
	pair_open(&pair, fx.leaf, 2, &verify_mail);
	wire_handshake_ok(pair.client, pair.server);
	tls_session_input_eof(pair.server);
	assert_true(tls_session_may_read(pair.server));
	assert_int_equal(tls_session_read(pair.server, got, sizeof(got), &len, &err), TLS_CLOSED);
	assert_true(tls_session_was_truncated(pair.server));
	pair_close(&pair);
}

static void a_fin_in_the_middle_of_a_record_is_a_close_too(void **state)
{
	struct pair pair;
	char got[64];
	size_t len, taken;
	struct err err = {0};

	(void)state;
	pair_open(&pair, fx.leaf, 2, &verify_mail);
	wire_handshake_ok(pair.client, pair.server);
	assert_int_equal(tls_session_write(pair.client, SLICE("never complete"), &taken, &err), TLS_OK);
	wire_move(pair.client, pair.server, 12);
	assert_int_equal(tls_session_read(pair.server, got, sizeof(got), &len, &err), TLS_AGAIN);
	tls_session_input_eof(pair.server);
	assert_int_equal(tls_session_read(pair.server, got, sizeof(got), &len, &err), TLS_CLOSED);
	assert_true(tls_session_was_truncated(pair.server));
	pair_close(&pair);
}

static void a_fin_in_the_handshake_is_told(void **state)
{
	struct pair pair;
	struct err err = {0};

	(void)state;
	pair_open(&pair, fx.leaf, 2, &verify_mail);
	assert_int_equal(tls_session_handshake(pair.client, &err), TLS_AGAIN);
	tls_session_input_eof(pair.client);
	assert_int_equal(tls_session_handshake(pair.client, &err), TLS_CLOSED);
	assert_string_equal(err.text, "the peer closed the connection in the TLS handshake");
	assert_int_equal(tls_session_handshake(pair.client, &err), TLS_CLOSED);
	tls_session_bye(pair.client);
	pair_close(&pair);
}

static void the_systems_trust_does_not_know_our_root(void **state)
{
	struct tls_trust *system = tls_trust_new_system();
	struct tls_client_credentials_options options = {.trust = system};
	struct tls_credentials *client_side = tls_credentials_new_client(&options, NULL);
	struct tls_credentials *server_side = server_credentials(fx.leaf, 2);
	struct tls_session *client, *server;
	struct err why = {0};

	(void)state;
	tls_trust_unref(&system);
	client = tls_session_new_client(client_side, &(struct tls_client_options){.server_name = "mail.example.org"});
	server = tls_session_new_server(server_side);
	wire_handshake_ok(client, server);
	assert_false(tls_session_verify(client, &why));
	/* The other words come on a system without ca-certificates. */
	if (!strstr(why.text, "install ca-certificates"))
		assert_string_equal(why.text, "certificate leads to the issuer \"Test Root\", who is not trusted here");
	tls_session_free(&client);
	tls_session_free(&server);
	tls_credentials_unref(&client_side);
	tls_credentials_unref(&server_side);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_verified_session_tells_what_was_agreed),
	    cmocka_unit_test(a_batch_of_replies_is_one_record),
	    cmocka_unit_test(handshakes_survive_any_cut),
	    cmocka_unit_test(two_mebibytes_in_17_octet_writes),
	    cmocka_unit_test(two_mebibytes_in_60000_octet_writes),
	    cmocka_unit_test(bulk_trickles_byte_by_byte),
	    cmocka_unit_test(the_output_has_a_ceiling),
	    cmocka_unit_test(good_names_are_accepted),
	    cmocka_unit_test(wrong_names_are_told),
	    cmocka_unit_test(expired_and_future_certificates_are_told),
	    cmocka_unit_test(untrusted_certificates_are_told),
	    cmocka_unit_test(without_authorities_nothing_verifies),
	    cmocka_unit_test(pinned_certificates_need_no_name_and_no_authority),
	    cmocka_unit_test(the_peer_fingerprint_is_that_of_its_leaf),
	    cmocka_unit_test(sessions_keep_the_credentials_they_began_with),
	    cmocka_unit_test(client_certificates_are_verified_when_shown),
	    cmocka_unit_test(close_notify_ends_reading_and_what_follows_is_dropped),
	    cmocka_unit_test(a_bare_fin_is_a_close_that_is_told_apart),
	    cmocka_unit_test(a_fin_in_the_middle_of_a_record_is_a_close_too),
	    cmocka_unit_test(a_fin_in_the_handshake_is_told),
	    cmocka_unit_test(the_systems_trust_does_not_know_our_root),
	};

	return cmocka_run_group_tests_name("tls session", tests, setup, teardown);
}
