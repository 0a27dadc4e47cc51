/* Requests to a real HTTPS server in the same loop: answers, refusals, limits, and what is never done. */
#include "support_https.h"

#include <dirent.h>
#include <gnutls/abstract.h>
#include <stdio.h>
#include <time.h>

#define OK "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"

struct told {
	unsigned calls;
	enum https_result result;
	int status;
	int64_t retry_after_ms;
	char reason[HTTPS_REASON_MAX], type[64], body[4096];
};

struct fixture {
	struct loop *loop;
	struct https_peer peer;
	struct https *https;
	struct told told;
	char url[128];
};

static void configure(struct fixture *f, bool trusted, bool loopback)
{
	const struct https_settings settings = {trusted ? f->peer.certificate : NULL, loopback, DNS_IP_PREFER4};

	https_configure(f->https, &settings);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->loop = loop_new(clock_system());
	https_peer_init(&f->peer, f->loop, clock_system());
	f->peer.reply = OK;
	f->https = https_new(f->loop, f->peer.resolver);
	configure(f, true, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	https_free(&f->https);
	https_peer_fini(&f->peer);
	loop_free(&f->loop);
	free(f);
	return 0;
}

static void on_answer(void *ctx, const struct https_answer *answer)
{
	struct told *told = ctx;

	told->calls++;
	told->result = answer->result;
	told->status = answer->status;
	told->retry_after_ms = answer->retry_after_ms;
	slice_to_cstr(slice_of_str(answer->reason), told->reason, sizeof(told->reason));
	slice_to_cstr(slice_of_str(answer->content_type), told->type, sizeof(told->type));
	slice_to_cstr(answer->body, told->body, sizeof(told->body));
}

static struct https_request to(struct fixture *f, const char *host)
{
	snprintf(f->url, sizeof(f->url), "https://%s:%u/path?q=1", host, f->peer.port);
	return (struct https_request){.url = f->url, .answer_max_bytes = 4096, .is_configured_name = true};
}

static void ask(struct fixture *f, const struct https_request *request)
{
	f->told = (struct told){0};
	assert_int_not_equal(https_send(f->https, request, on_answer, &f->told), 0);
	assert_int_equal(f->told.calls, 0);
	turn_until(f->loop, &f->told.calls, 1);
	turn_until_quiet(f->loop);
	assert_int_equal(f->told.calls, 1);
}

/* Of this process. */
static unsigned thread_count(void)
{
	DIR *folder = opendir("/proc/self/task");
	unsigned count = 0;

	assert_non_null(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count - 2;
}

static void a_get_is_answered(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_ANSWERED);
	assert_int_equal(f->told.status, 200);
	assert_string_equal(f->told.body, "hello");
	assert_string_equal(f->told.type, "text/plain");
	assert_string_equal(f->told.reason, "");
	assert_memory_equal(f->peer.header, "GET /path?q=1 HTTP/1.1\r\n", 24);
	assert_non_null(strstr(f->peer.header, "\r\nHost: secure.test:"));
	assert_non_null(strstr(f->peer.header, "\r\nUser-Agent: relayd/"));
	assert_int_equal(thread_count(), 1);
}

static void a_post_carries_headers_and_body(void **state)
{
	struct fixture *f = *state;
	static const char *const headers[] = {"Content-Type: application/json", "X-Relayd-Signature: t=1"};
	struct https_request request = to(f, "secure.test");
	char body[4096];

	/* So long that libcurl would ask "Expect: 100-continue" if it was let. */
	memset(body, 'x', sizeof(body));
	request.headers = headers;
	request.header_count = 2;
	request.body = slice_of(body, sizeof(body));
	f->peer.reply = "HTTP/1.1 503 later\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n";
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_ANSWERED);
	assert_int_equal(f->told.status, 503);
	assert_int_equal(f->told.retry_after_ms, 120 * 1000);
	assert_memory_equal(f->peer.header, "POST /path", 10);
	assert_non_null(strstr(f->peer.header, "\r\nContent-Type: application/json\r\n"));
	assert_non_null(strstr(f->peer.header, "\r\nX-Relayd-Signature: t=1\r\n"));
	assert_null(strcasestr(f->peer.header, "Expect"));
	assert_int_equal(strlen(f->peer.body), sizeof(body));
}

static void other_methods_and_bodies_of_octets(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	request.method = "PUT";
	request.body = SLICE("a=b");
	ask(f, &request);
	assert_memory_equal(f->peer.header, "PUT /path", 9);
	assert_string_equal(f->peer.body, "a=b");
	request.method = "POST";
	request.body = (struct slice){0};
	ask(f, &request);
	assert_memory_equal(f->peer.header, "POST /path", 10);
	assert_non_null(strstr(f->peer.header, "\r\nContent-Length: 0\r\n"));
}

static void a_connection_is_used_again(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	for (unsigned i = 1; i <= 3; i++) {
		ask(f, &request);
		assert_int_equal(f->told.status, 200);
		assert_int_equal(f->peer.requests, i);
	}
	assert_int_equal(f->peer.accepted, 1);
	f->peer.close_after = true;
	ask(f, &request);
	ask(f, &request);
	assert_int_equal(f->told.status, 200);
	assert_int_equal(f->peer.accepted, 2);
}

static void a_certificate_for_another_name_is_refused(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "other.test");

	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_TLS);
	assert_true(f->told.reason[0]);
	assert_int_equal(f->told.status, 0);
	assert_int_equal(f->peer.requests, 0);
	request = to(f, "127.0.0.1");
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_TLS);
	assert_int_equal(f->peer.requests, 0);
}

static void a_certificate_of_nobody_we_trust_is_refused(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	configure(f, false, true);
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_TLS);
	assert_int_equal(f->peer.requests, 0);
}

/* With a key whose exponent is as long as its modulus: one signature takes a second and more. */
static void show_monstrous_key(struct https_peer *peer)
{
	unsigned char modulus[2048], exponent[2048];
	gnutls_datum_t m = {modulus, sizeof(modulus)}, e = {exponent, sizeof(exponent)};
	gnutls_x509_privkey_t own;
	gnutls_x509_crt_t crt, issuer;
	gnutls_pubkey_t key;

	memset(modulus, 0xf1, sizeof(modulus));
	memset(exponent, 0xe3, sizeof(exponent));
	gnutls_pubkey_init(&key);
	assert_int_equal(gnutls_pubkey_import_rsa_raw(key, &m, &e), 0);
	gnutls_x509_privkey_init(&own);
	assert_int_equal(gnutls_x509_privkey_generate(own, GNUTLS_PK_RSA, 2048, 0), 0);
	gnutls_x509_crt_init(&crt);
	gnutls_x509_crt_set_version(crt, 3);
	gnutls_x509_crt_set_serial(crt, "\x01", 1);
	gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, "secure.test", 11);
	gnutls_x509_crt_set_activation_time(crt, time(NULL) - 3600);
	gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600);
	assert_int_equal(gnutls_x509_crt_set_pubkey(crt, key), 0);
	gnutls_x509_crt_init(&issuer);
	gnutls_x509_crt_set_dn_by_oid(issuer, GNUTLS_OID_X520_COMMON_NAME, 0, "issuer", 6);
	gnutls_x509_crt_set_key(issuer, own);
	assert_int_equal(gnutls_x509_crt_sign2(crt, issuer, own, GNUTLS_DIG_SHA256, 0), 0);
	gnutls_certificate_free_credentials(peer->credentials);
	assert_int_equal(gnutls_certificate_allocate_credentials(&peer->credentials), 0);
	gnutls_certificate_set_flags(peer->credentials, GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
	assert_int_equal(gnutls_certificate_set_x509_key(peer->credentials, &crt, 1, own), 0);
	gnutls_x509_crt_deinit(issuer);
	gnutls_x509_crt_deinit(crt);
	gnutls_x509_privkey_deinit(own);
	gnutls_pubkey_deinit(key);
}

static void a_monstrous_key_is_not_computed_with(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	show_monstrous_key(&f->peer);
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_TLS);
	assert_non_null(strstr(f->told.reason, "Error in the certificate"));
	assert_int_equal(f->peer.requests, 0);
}

static void loopback_wants_permission_and_link_local_is_never_asked(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "link.test");

	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_NO_ADDRESS);
	configure(f, true, false);
	request = to(f, "secure.test");
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_NO_ADDRESS);
	request = to(f, "127.0.0.1");
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_NO_ADDRESS);
	assert_int_equal(f->peer.accepted, 0);
}

static void names_of_strangers_are_looked_up_in_dns_alone(void **state)
{
	struct fixture *f = *state;
	static const char *const hosts[] = {"secure.test", "localhost"};

	for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
		struct https_request request = to(f, hosts[i]);

		request.is_configured_name = false;
		ask(f, &request);
		assert_int_equal(f->told.result, HTTPS_DNS_FAILED);
	}
	struct https_request request = to(f, "127.0.0.1");
	request.is_configured_name = false;
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_BAD_REQUEST);
	assert_int_equal(f->peer.accepted, 0);
	assert_int_equal(thread_count(), 1);
}

static void the_environment_has_no_say(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	setenv("https_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	ask(f, &request);
	unsetenv("https_proxy");
	unsetenv("ALL_PROXY");
	assert_int_equal(f->told.result, HTTPS_ANSWERED);
	assert_memory_equal(f->peer.header, "GET ", 4);
}

static void a_redirect_is_told_and_not_followed(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	f->peer.reply = "HTTP/1.1 302 Found\r\nLocation: https://secure.test/other\r\nContent-Length: 0\r\n\r\n";
	ask(f, &request);
	assert_int_equal(f->told.status, 302);
	assert_int_equal(f->peer.requests, 1);
}

static void what_is_no_request_is_refused_without_a_word_to_anybody(void **state)
{
	struct fixture *f = *state;
	static const char *const urls[] = {"http://secure.test/",
					   "ftp://secure.test/",
					   "secure.test",
					   "https://",
					   "",
					   "https://secure.test:99999/",
					   "file:///etc/passwd",
					   "https://secure.test/a\r\nX: y"};
	static const char *const headers[] = {"X-Good: 1\r\nX-Bad: 2"};
	static const char *const no_header[] = {"nothing"};
	struct https_request request = to(f, "secure.test");

	for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
		request.url = urls[i];
		ask(f, &request);
		assert_int_equal(f->told.result, HTTPS_BAD_REQUEST);
	}
	request = to(f, "secure.test");
	request.header_count = 1;
	request.headers = headers;
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_BAD_REQUEST);
	request.headers = no_header;
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_BAD_REQUEST);
	assert_int_equal(f->peer.accepted, 0);
}

static void a_body_may_be_as_long_as_the_caller_says(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	request.answer_max_bytes = 5;
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_ANSWERED);
	assert_string_equal(f->told.body, "hello");
	request.answer_max_bytes = 4;
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_TOO_LARGE);
	assert_string_equal(f->told.body, "");
	f->peer.reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n";
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_TOO_LARGE);
}

static void a_header_without_end_is_cut_off(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");
	char *reply = xmalloc(100 * 1000);
	size_t len = (size_t)sprintf(reply, "HTTP/1.1 200 OK\r\n");

	while (len < 90 * 1000)
		len += (size_t)sprintf(reply + len, "X-Filler: %0100d\r\n", 0);
	f->peer.reply = reply;
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_TOO_LARGE);
	free(reply);
}

static void hostile_answers(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *reply;
		enum https_result result;
	} cases[] = {
	    {"250 mx.example.org ESMTP\r\n", HTTPS_BAD_ANSWER},
	    {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", HTTPS_CONNECT},
	    {"", HTTPS_CONNECT},
	    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", HTTPS_CONNECT},
	    {"HTTP/9.9 hello\r\n\r\n", HTTPS_BAD_ANSWER},
	};
	struct https_request request = to(f, "secure.test");

	f->peer.close_after = true;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		f->peer.reply = cases[i].reply;
		ask(f, &request);
		if (f->told.result != cases[i].result)
			fail_msg("case %zu: %s, %s", i, https_result_name(f->told.result), f->told.reason);
	}
}

static void nobody_listens(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	https_peer_stop_listening(&f->peer);
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_CONNECT);
}

static void silence_ends_by_the_time_limit(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");

	f->peer.reply = NULL;
	request.timeout_ms = 300;
	ask(f, &request);
	assert_int_equal(f->told.result, HTTPS_TIMEOUT);
	assert_string_equal(f->told.reason, "no complete answer in time");
	https_peer_say(&f->peer, OK);
	turn_until_quiet(f->loop);
	assert_int_equal(f->told.calls, 1);
}

static void what_is_cancelled_never_calls_back(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test"), bad = {.url = "nothing"};
	struct told other = {0};
	uint64_t id, bad_id, none = 0;

	f->peer.reply = NULL;
	id = https_send(f->https, &request, on_answer, &f->told); /* while it is resolved */
	https_cancel(f->https, &id);
	assert_int_equal(id, 0);
	id = https_send(f->https, &request, on_answer, &f->told); /* while it runs */
	turn_until(f->loop, &f->peer.requests, 1);
	https_cancel(f->https, &id);
	https_cancel(f->https, &id);
	https_cancel(f->https, &none);
	bad_id = https_send(f->https, &bad, on_answer, &f->told); /* when it is over already */
	https_cancel(f->https, &bad_id);
	f->peer.reply = OK;
	https_send(f->https, &request, on_answer, &other);
	turn_until(f->loop, &other.calls, 1);
	assert_int_equal(f->told.calls, 0);
	assert_int_equal(other.status, 200);
}

static void so_many_run_at_a_time_and_strangers_have_their_own_places(void **state)
{
	enum { MORE = HTTPS_RUNNING_MAX + 3 };
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test"), stranger;
	struct told foreign = {0};
	uint64_t last = 0;

	f->peer.reply = NULL;
	for (unsigned i = 0; i < MORE; i++)
		last = https_send(f->https, &request, on_answer, &f->told);
	turn_until(f->loop, &f->peer.requests, HTTPS_RUNNING_MAX);
	turn_until_quiet(f->loop);
	assert_int_equal(f->peer.requests, HTTPS_RUNNING_MAX);
	stranger = to(f, "stranger.test");
	stranger.is_configured_name = false;
	https_send(f->https, &stranger, on_answer, &foreign);
	turn_until(f->loop, &foreign.calls, 1);
	assert_int_equal(foreign.result, HTTPS_DNS_FAILED);
	https_cancel(f->https, &last); /* one that waits */
	f->peer.reply = OK;
	https_peer_say(&f->peer, OK);
	turn_until(f->loop, &f->told.calls, MORE - 1);
	turn_until_quiet(f->loop);
	assert_int_equal(f->told.calls, MORE - 1);
	assert_int_equal(f->peer.requests, MORE - 1);
}

static void too_many_that_wait_are_told_so(void **state)
{
	struct fixture *f = *state;
	struct https_request request = to(f, "secure.test");
	struct told busy = {0};

	f->peer.reply = NULL;
	for (unsigned i = 0; i < HTTPS_RUNNING_MAX + HTTPS_WAITING_MAX; i++)
		https_send(f->https, &request, on_answer, &f->told);
	https_send(f->https, &request, on_answer, &busy);
	turn_until(f->loop, &busy.calls, 1);
	assert_int_equal(busy.result, HTTPS_BUSY);
	https_free(&f->https); /* with all of them on the way */
	turn_until_quiet(f->loop);
	assert_int_equal(f->told.calls, 0);
}

struct chain {
	struct fixture *f;
	struct https_request request;
	struct told told;
	uint64_t victim;
};

static void on_answer_go_on(void *ctx, const struct https_answer *answer)
{
	struct chain *chain = ctx;

	on_answer(&chain->told, answer);
	https_cancel(chain->f->https, &chain->victim);
	if (chain->told.calls < 3)
		https_send(chain->f->https, &chain->request, on_answer_go_on, chain);
}

static void a_callback_may_send_and_cancel(void **state)
{
	struct fixture *f = *state;
	struct chain chain = {.f = f, .request = to(f, "secure.test")};
	struct https_request slow = chain.request;

	https_send(f->https, &chain.request, on_answer_go_on, &chain);
	chain.victim = https_send(f->https, &slow, on_answer, &f->told);
	f->peer.reply = NULL;
	turn_until(f->loop, &f->peer.requests, 2);
	f->peer.reply = OK;
	chain.told.calls = 0;
	https_peer_say(&f->peer, OK);
	turn_until(f->loop, &chain.told.calls, 3);
	turn_until_quiet(f->loop);
	assert_int_equal(chain.told.calls, 3);
	assert_true(f->told.calls <= 1);
}

static void results_have_names(void **state)
{
	(void)state;
	assert_string_equal(https_result_name(HTTPS_ANSWERED), "answered");
	assert_string_equal(https_result_name(HTTPS_BAD_ANSWER), "bad-answer");
	assert_string_equal(https_result_name(HTTPS_TIMEOUT), "timeout");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    TEST(a_get_is_answered),
	    TEST(a_post_carries_headers_and_body),
	    TEST(other_methods_and_bodies_of_octets),
	    TEST(a_connection_is_used_again),
	    TEST(a_certificate_for_another_name_is_refused),
	    TEST(a_certificate_of_nobody_we_trust_is_refused),
	    TEST(a_monstrous_key_is_not_computed_with),
	    TEST(loopback_wants_permission_and_link_local_is_never_asked),
	    TEST(names_of_strangers_are_looked_up_in_dns_alone),
	    TEST(the_environment_has_no_say),
	    TEST(a_redirect_is_told_and_not_followed),
	    TEST(what_is_no_request_is_refused_without_a_word_to_anybody),
	    TEST(a_body_may_be_as_long_as_the_caller_says),
	    TEST(a_header_without_end_is_cut_off),
	    TEST(hostile_answers),
	    TEST(nobody_listens),
	    TEST(silence_ends_by_the_time_limit),
	    TEST(what_is_cancelled_never_calls_back),
	    TEST(so_many_run_at_a_time_and_strangers_have_their_own_places),
	    TEST(too_many_that_wait_are_told_so),
	    TEST(a_callback_may_send_and_cancel),
	    TEST(results_have_names),
	};
	return cmocka_run_group_tests_name("https", tests, NULL, NULL);
}
