/* What clients remember, and what must never be resumed. */
#include "support_tls.h"

#include "tls/resume.h"

#include <stdio.h>
#include <stdlib.h>

static struct cert *leaf;
static struct tls_credentials *server_side, *client_side;
static struct clock_virtual now;
static struct tls_resume_cache *cache;

static int setup(void **state)
{
	if (support_setup(state) < 0)
		return -1;
	leaf = cert_new(&(struct cert_spec){.common_name = "mail.example.org", .dns = {"mail.example.org"}});
	server_side = server_credentials(leaf, 1);
	client_side = client_credentials(leaf);
	return 0;
}

static int teardown(void **state)
{
	tls_credentials_unref(&server_side);
	tls_credentials_unref(&client_side);
	cert_free(&leaf);
	return support_teardown(state);
}

static int cache_setup(void **state)
{
	(void)state;
	clock_virtual_init(&now, 1700000000000);
	cache = tls_resume_cache_new(&now.clock);
	return 0;
}

static int cache_teardown(void **state)
{
	(void)state;
	tls_resume_cache_free(&cache);
	assert_null(cache);
	tls_resume_cache_free(&cache);
	return 0;
}

/* One whole session; true when it was resumed on both sides. */
static bool run_session(const struct tls_client_options *options)
{
	struct tls_session *client = tls_session_new_client(client_side, options);
	struct tls_session *server = tls_session_new_server(server_side);
	bool resumed;

	wire_handshake_ok(client, server);
	wire_say(client, server, "EHLO a\r\n");
	wire_say(server, client, "250 b\r\n");
	resumed = tls_session_was_resumed(client);
	assert_int_equal(tls_session_was_resumed(server), resumed);
	tls_session_free(&client);
	tls_session_free(&server);
	return resumed;
}

static struct tls_client_options options_for(const char *key)
{
	return (struct tls_client_options){.server_name = "mail.example.org", .resume = cache, .resume_key = key};
}

static void the_second_session_resumes_the_first(void **state)
{
	struct tls_client_options options = options_for("mail.example.org[192.0.2.1]:25");
	struct tls_client_options elsewhere = options_for("mail.example.org[192.0.2.2]:25");

	(void)state;
	assert_false(run_session(&options));
	assert_int_equal(tls_resume_cache_count(cache), 1);
	assert_false(run_session(&elsewhere));
	assert_true(run_session(&options));
	assert_true(run_session(&options));
	assert_int_equal(tls_resume_cache_count(cache), 2);
}

/* GnuTLS keeps the chain with the session, so it can be verified again: the peer has proven then that it is its own. */
static void a_resumed_session_is_worth_what_the_first_was(void **state)
{
	struct tls_client_options options = options_for("k"), other = options_for("o");

	(void)state;
	other.server_name = "other.example.org";
	for (int i = 0; i < 4; i++) {
		struct tls_session *client = tls_session_new_client(client_side, i % 2 ? &other : &options);
		struct tls_session *server = tls_session_new_server(server_side);
		struct err why = {0};

		wire_handshake_ok(client, server);
		wire_say(client, server, "EHLO a\r\n");
		wire_say(server, client, "250 b\r\n");
		assert_int_equal(tls_session_was_resumed(client), i >= 2);
		assert_int_equal(tls_session_verify(client, &why), i % 2 == 0);
		tls_session_free(&client);
		tls_session_free(&server);
	}
}

static void a_ticket_is_used_once(void **state)
{
	struct tls_client_options options = options_for("k");
	struct tls_session *client;

	(void)state;
	assert_false(run_session(&options));
	client = tls_session_new_client(client_side, &options);
	assert_int_equal(tls_resume_cache_count(cache), 0);
	tls_session_free(&client);
	assert_false(run_session(&options));
}

static void an_hour_later_nothing_is_left(void **state)
{
	struct tls_client_options options = options_for("k");

	(void)state;
	assert_false(run_session(&options));
	clock_virtual_advance(&now, TLS_RESUME_LIFETIME_MS);
	assert_false(run_session(&options));
}

static void strict_levels_never_resume(void **state)
{
	struct tls_client_options options = options_for("k");

	(void)state;
	assert_false(run_session(&options));
	options.level = TLS_LEVEL_VERIFY;
	assert_false(run_session(&options));
	assert_int_equal(tls_resume_cache_count(cache), 1);
	options.level = TLS_LEVEL_DANE;
	assert_false(run_session(&options));
	assert_int_equal(tls_resume_cache_count(cache), 1);
	options.level = TLS_LEVEL_OPPORTUNISTIC;
	assert_true(run_session(&options));
}

static void a_reloaded_server_makes_a_full_handshake(void **state)
{
	struct tls_client_options options = options_for("k");

	(void)state;
	assert_false(run_session(&options));
	tls_credentials_unref(&server_side);
	server_side = server_credentials(leaf, 1);
	assert_false(run_session(&options));
	assert_true(run_session(&options));
}

static void damaged_data_means_a_full_handshake(void **state)
{
	struct tls_client_options options = options_for("k");

	(void)state;
	for (size_t len = 1; len < 200; len += 13) {
		char noise[200];

		memset(noise, (int)len, sizeof(noise));
		tls_resume_cache_put(cache, "1.2 k", slice_of(noise, len), true);
		assert_false(run_session(&options));
		tls_resume_cache_take(cache, "1.2 k");
	}
}

static void the_oldest_of_a_thousand_goes_first(void **state)
{
	char key[20];

	(void)state;
	for (int i = 0; i < TLS_RESUME_ENTRIES + 5; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		tls_resume_cache_put(cache, key, slice_of(key, strlen(key)), true);
	}
	assert_int_equal(tls_resume_cache_count(cache), TLS_RESUME_ENTRIES);
	assert_int_equal(tls_resume_cache_take(cache, "k4").len, 0);
	assert_true(slice_eq(tls_resume_cache_take(cache, "k5"), SLICE("k5")));
	assert_int_equal(tls_resume_cache_take(cache, "k5").len, 0);
	tls_resume_cache_put(cache, "k7", SLICE("new"), false);
	assert_int_equal(tls_resume_cache_count(cache), TLS_RESUME_ENTRIES - 1);
	assert_true(slice_eq(tls_resume_cache_take(cache, "k7"), SLICE("new")));
	assert_true(slice_eq(tls_resume_cache_take(cache, "k7"), SLICE("new")));
	tls_resume_cache_put(cache, "empty", SLICE(""), true);
	assert_int_equal(tls_resume_cache_take(cache, "empty").len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(the_second_session_resumes_the_first, cache_setup, cache_teardown),
	    cmocka_unit_test_setup_teardown(a_resumed_session_is_worth_what_the_first_was, cache_setup, cache_teardown),
	    cmocka_unit_test_setup_teardown(a_ticket_is_used_once, cache_setup, cache_teardown),
	    cmocka_unit_test_setup_teardown(an_hour_later_nothing_is_left, cache_setup, cache_teardown),
	    cmocka_unit_test_setup_teardown(strict_levels_never_resume, cache_setup, cache_teardown),
	    cmocka_unit_test_setup_teardown(a_reloaded_server_makes_a_full_handshake, cache_setup, cache_teardown),
	    cmocka_unit_test_setup_teardown(damaged_data_means_a_full_handshake, cache_setup, cache_teardown),
	    cmocka_unit_test_setup_teardown(the_oldest_of_a_thousand_goes_first, cache_setup, cache_teardown),
	};

	return cmocka_run_group_tests_name("tls resume", tests, setup, teardown);
}
