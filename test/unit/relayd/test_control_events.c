/* Live events: which ones a client gets, and that one which does not read costs no more than its buffer. */
#include "support_control.h"

#include <errno.h>
#include <unistd.h>

struct fixture {
	struct console console;
	int fd;		 /* of the client */
	struct buf text; /* what it has read */
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	console_init(&f->console, NULL);
	f->fd = -1;
	buf_init(&f->text, 16 << 20);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->fd >= 0)
		close(f->fd);
	console_fini(&f->console);
	buf_fini(&f->text);
	free(f);
	return 0;
}

/* Turns until nothing more comes; false: the server has closed. */
static bool read_all(struct fixture *f)
{
	for (int quiet = 0; quiet < 3;) {
		char *at = buf_reserve(&f->text, 65536);
		ssize_t n = read(f->fd, at, 65536);
		if (n == 0)
			return false;
		if (n > 0)
			buf_commit(&f->text, (size_t)n);
		quiet = n > 0 ? 0 : quiet + 1;
		relay_turn(&f->console.relay);
	}
	return true;
}

static bool has_text(struct fixture *f, const char *text)
{
	return memmem(buf_slice(&f->text).ptr, buf_len(&f->text), text, strlen(text)) != NULL;
}

static void follow(struct fixture *f, const char *query)
{
	char path[256];

	if (f->fd >= 0)
		close(f->fd);
	buf_clear(&f->text);
	snprintf(path, sizeof(path), "/v1/events%s", query);
	f->fd = web_begin(&f->console.web, "GET", path, NULL);
	read_all(f);
}

static void event_one(struct fixture *f, enum log_level level, const char *event, const char *recipient)
{
	log_event(f->console.relay.log, level, event, LOG_ID(7), LOG_STR("user", "app"),
		  LOG_ADDR("from", SLICE("App@example.org")), LOG_ADDR("rcpt", slice_of_str(recipient)),
		  LOG_STR("outcome", event), LOG_INT("code", 450), LOG_STR("relayhost", "main"),
		  LOG_STR("text", "bad \x1b[31m\xff bytes"));
}

static void a_client_sees_what_happens_from_now_on(void **state)
{
	struct fixture *f = *state;

	event_one(f, LOG_INFO, "before", "one@a.example");
	follow(f, "");
	assert_true(has_text(f, "application/x-ndjson"));
	assert_true(has_text(f, "\"event\":\"tail\""));
	event_one(f, LOG_INFO, "deferred", "one@a.example");
	event_one(f, LOG_DEBUG, "detail", "one@a.example");
	read_all(f);
	assert_true(
	    has_text(f, "\"level\":\"info\",\"event\":\"deferred\",\"id\":\"0000000000007\",\"user\":\"app\","
			"\"from\":\"App@example.org\",\"rcpt\":\"one@a.example\",\"outcome\":\"deferred\","
			"\"code\":450,\"relayhost\":\"main\",\"text\":\"bad \xEF\xBF\xBD[31m\xEF\xBF\xBD bytes\"}\n"));
	assert_false(has_text(f, "before"));
	assert_false(has_text(f, "detail"));
}

/* Also what the log itself leaves out. */
static void debug_is_there_for_who_asks(void **state)
{
	struct fixture *f = *state;
	struct log_options errors_only = {.level = LOG_ERROR};

	log_configure(f->console.relay.log, &errors_only);
	follow(f, "?level=debug");
	event_one(f, LOG_DEBUG, "detail", "one@a.example");
	read_all(f);
	assert_true(has_text(f, "detail"));
	assert_false(relay_log_has(&f->console.relay, "detail"));
}

static void conditions_choose(void **state)
{
	static const struct {
		const char *query;
		bool fits;
	} cases[] = {
	    {"?event=deferred", true},
	    {"?event=delivered,deferred", true},
	    {"?event=deferred2,defer", false},
	    {"?id=0000000000007", true},
	    {"?id=0000000000008", false},
	    {"?user=app", true},
	    {"?user=ap", false},
	    {"?sender=app@EXAMPLE.org", true},
	    {"?sender=%3C%3E", false},
	    {"?recipient=one@a.example", true},
	    {"?recipient=two@a.example", false},
	    {"?domain=A.example", true},
	    {"?domain=example", false},
	    {"?relayhost=main", true},
	    {"?relayhost=mai", false},
	    {"?outcome=deferred&user=app", true},
	    {"?outcome=deferred&user=other", false},
	    {"?level=warn", false},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		follow(f, cases[i].query);
		event_one(f, LOG_INFO, "deferred", "one@a.example");
		read_all(f);
		if (has_text(f, "\"event\":\"deferred\"") != cases[i].fits)
			fail_msg("%s", cases[i].query);
	}
}

static void a_relayhosts_own_events_are_its_too(void **state)
{
	struct fixture *f = *state;

	follow(f, "?relayhost=main");
	log_event(f->console.relay.log, LOG_WARN, "destination_trouble",
		  LOG_STR("destination", "relayhost:main/verify"));
	log_event(f->console.relay.log, LOG_WARN, "destination_ok", LOG_STR("destination", "relayhost:mainline"));
	read_all(f);
	assert_true(has_text(f, "destination_trouble"));
	assert_false(has_text(f, "destination_ok"));
}

static void questions_that_make_no_sense_are_refused(void **state)
{
	struct fixture *f = *state;

	follow(f, "?level=loud");
	assert_true(has_text(f, " 400 ") && has_text(f, "unknown level 'loud'"));
	follow(f, "?id=rubbish");
	assert_true(has_text(f, " 400 "));
}

/* Its lines are counted, and it is told; the others miss nothing. */
static void a_client_that_does_not_read_loses_lines_and_is_told(void **state)
{
	enum { COUNT = 20000 };
	struct fixture *f = *state;
	char last[64];

	follow(f, "");
	for (int i = 0; i < COUNT; i++) {
		snprintf(last, sizeof(last), "number%d@a.example", i);
		event_one(f, LOG_INFO, "deferred", last);
		if (i % 100 == 0)
			relay_turn(&f->console.relay);
	}
	read_all(f);
	assert_true(has_text(f, "number0@a.example"));
	assert_false(has_text(f, last));
	assert_true(has_text(f, "\"event\":\"dropped\",\"count\":"));
	assert_true(buf_len(&f->text) < 2 << 20);
	event_one(f, LOG_INFO, "deferred", "again@a.example");
	read_all(f);
	assert_true(has_text(f, "again@a.example"));
}

static void a_client_that_left_is_noticed(void **state)
{
	struct fixture *f = *state;

	follow(f, "");
	close(f->fd);
	f->fd = -1;
	relay_pass(&f->console.relay, 60 * 1000);
	/* Nobody is there: the next fact is made for nobody. The sanitizers watch. */
	event_one(f, LOG_INFO, "deferred", "one@a.example");
	relay_turn(&f->console.relay);
}

static void heartbeats_keep_a_silent_stream_alive(void **state)
{
	struct fixture *f = *state;
	size_t before;

	follow(f, "");
	before = buf_len(&f->text);
	for (int i = 0; i < 6; i++) {
		relay_pass(&f->console.relay, 10 * 1000);
		assert_true(read_all(f));
	}
	assert_in_range(buf_len(&f->text) - before, 5, 100);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_client_sees_what_happens_from_now_on),
	    TEST(debug_is_there_for_who_asks),
	    TEST(conditions_choose),
	    TEST(a_relayhosts_own_events_are_its_too),
	    TEST(questions_that_make_no_sense_are_refused),
	    TEST(a_client_that_does_not_read_loses_lines_and_is_told),
	    TEST(a_client_that_left_is_noticed),
	    TEST(heartbeats_keep_a_silent_stream_alive),
	};
	return cmocka_run_group_tests_name("control_events", tests, NULL, NULL);
}
