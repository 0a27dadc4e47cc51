/* What the TCP http listener shows, and what it does not. */
#include "support_http.h"

#include "relayd/web.h"

#include <unistd.h>

struct fixture {
	struct relay relay;
	struct web web;
	struct web_server server;
	struct web_answer answer;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	relay_init(&f->relay, NULL);
	f->web = (struct web){f->relay.metrics, f->relay.health};
	web_server_init(&f->server, &f->relay, web_handle, &f->web);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	web_answer_fini(&f->answer);
	web_server_fini(&f->server);
	relay_fini(&f->relay);
	free(f);
	return 0;
}

static const char *ask(struct fixture *f, int status, const char *method, const char *path)
{
	web_answer_fini(&f->answer);
	web_ask(&f->server, method, path, NULL, &f->answer);
	assert_int_equal(f->answer.status, status);
	return buf_len(&f->answer.body) ? buf_slice(&f->answer.body).ptr : "";
}

static void metrics_come_in_the_text_format(void **state)
{
	struct fixture *f = *state;
	const char *body = ask(f, 200, "GET", "/metrics");

	assert_string_equal(f->answer.type, "text/plain; version=0.0.4; charset=utf-8");
	assert_non_null(strstr(body, "# TYPE relayd_alert_active gauge\n"));
	assert_non_null(strstr(body, "relayd_alert_active{alert=\"journal\"} 0\n"));
}

static void a_well_relay_is_well(void **state)
{
	struct fixture *f = *state;
	static const char *const paths[] = {"/livez", "/healthz", "/readyz", "/mailz"};

	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		assert_string_equal(ask(f, 200, "GET", paths[i]), "ok\n");
	assert_string_equal(ask(f, 200, "HEAD", "/livez"), "");
}

static void a_dead_upstream_concerns_mail_alone(void **state)
{
	struct fixture *f = *state;

	health_raise(f->relay.health, ALERT_RELAYHOST, "relayhost main: connect: refused");
	assert_string_equal(ask(f, 503, "GET", "/mailz"), "relayhost main: connect: refused\n");
	assert_string_equal(ask(f, 200, "GET", "/readyz"), "ok\n");
	assert_string_equal(ask(f, 200, "GET", "/livez"), "ok\n");
	health_end(f->relay.health, ALERT_RELAYHOST);
	ask(f, 200, "GET", "/mailz");
}

static void a_queue_that_takes_no_mail_is_not_ready_but_alive(void **state)
{
	struct fixture *f = *state;

	queue_stop(f->relay.queue);
	assert_string_equal(ask(f, 503, "GET", "/readyz"), "the journal takes no mail: stopping\n");
	ask(f, 503, "GET", "/mailz");
	assert_string_equal(ask(f, 200, "GET", "/livez"), "ok\n");
}

static void nothing_else_is_shown(void **state)
{
	struct fixture *f = *state;
	static const char *const paths[] = {"/",	 "/v1/status", "/v1/queue",   "/metrics/", "/Metrics",
					    "//metrics", "/livez/x",   "/../metrics", "/v1/reload"};

	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		ask(f, 404, "GET", paths[i]);
	ask(f, 404, "POST", "/v1/reload");
	ask(f, 405, "POST", "/metrics");
	ask(f, 405, "DELETE", "/livez");
}

/* K9: a request that never ends keeps its place for a while, and in a crowd only for a moment. */
static void slow_requests_make_room(void **state)
{
	enum { CROWD = 300 };
	struct fixture *f = *state;
	int fds[CROWD];
	unsigned closed = 0;
	char octet;

	for (int i = 0; i < CROWD; i++) {
		fds[i] = web_connect(&f->server);
		assert_int_equal(write(fds[i], "GET /li", 7), 7);
		relay_turn(&f->relay);
	}
	for (int i = 0; i < 5; i++) {
		relay_pass(&f->relay, 1000);
		relay_turn(&f->relay);
	}
	assert_non_null(strstr(ask(f, 200, "GET", "/livez"), "ok"));
	for (int i = 0; i < CROWD; i++) {
		closed += read(fds[i], &octet, 1) == 0;
		close(fds[i]);
	}
	assert_true(closed >= CROWD - 32);
}

static void a_slow_request_alone_has_its_time(void **state)
{
	struct fixture *f = *state;
	int fd = web_connect(&f->server);
	char octet;

	assert_int_equal(write(fd, "GET /li", 7), 7);
	relay_pass(&f->relay, 14 * 1000);
	assert_int_equal(write(fd, "v", 1), 1);
	relay_turn(&f->relay);
	assert_int_equal(read(fd, &octet, 1), -1);
	relay_pass(&f->relay, 1000);
	relay_turn(&f->relay);
	relay_turn(&f->relay);
	assert_int_equal(read(fd, &octet, 1), 0); /* each octet bought no time */
	close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(metrics_come_in_the_text_format),
	    TEST(a_well_relay_is_well),
	    TEST(a_dead_upstream_concerns_mail_alone),
	    TEST(a_queue_that_takes_no_mail_is_not_ready_but_alive),
	    TEST(nothing_else_is_shown),
	    TEST(slow_requests_make_room),
	    TEST(a_slow_request_alone_has_its_time),
	};
	return cmocka_run_group_tests_name("web", tests, NULL, NULL);
}
