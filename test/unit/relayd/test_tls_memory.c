/* Hosts that have had verified TLS, and what is expected of them. */
#include "support_relay.h"

#include "relayd/tls_memory.h"

#include <fcntl.h>
#include <unistd.h>

#define HOUR_MS (INT64_C(3600) * 1000)
#define DAY_MS (24 * HOUR_MS)

struct fixture {
	struct relay relay; /* its folder, loop, clock and log */
	struct memos *memos;
	struct tls_memory *memory;
	char alert[512]; /* "": none */
	unsigned begun, ended;
};

static void on_stripped(void *ctx, const char *text)
{
	struct fixture *f = ctx;

	f->begun += text && !f->alert[0];
	snprintf(f->alert, sizeof(f->alert), "%s", text ? text : "");
	f->ended += text == NULL;
}

static void open_memory(struct fixture *f)
{
	const struct memos_options remembering = {f->relay.loop, f->relay.log, f->relay.fd, NULL};
	struct tls_memory_options options = {
	    .clock = &f->relay.clock.clock, .log = f->relay.log, .on_stripped = on_stripped, .ctx = f};

	f->memos = options.memos = memos_new(&remembering);
	f->memory = tls_memory_new(&options);
}

static void close_memory(struct fixture *f)
{
	memos_free(&f->memos);
	tls_memory_free(&f->memory);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	relay_init(&f->relay, NULL);
	open_memory(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_memory(f);
	relay_fini(&f->relay);
	free(f);
	return 0;
}

static bool expects(struct fixture *f, const char *host)
{
	return tls_memory_expects(f->memory, host, 25);
}

static void who_has_shown_a_certificate_is_expected_to(void **state)
{
	struct fixture *f = *state;

	assert_false(expects(f, "mx.example"));
	tls_memory_note_verified(f->memory, "mx.example", 25);
	assert_true(expects(f, "mx.example"));
	assert_false(expects(f, "mx2.example"));
	assert_false(tls_memory_expects(f->memory, "mx.example", 587));
	clock_virtual_advance(&f->relay.clock, 30 * DAY_MS);
	assert_true(expects(f, "mx.example"));
	clock_virtual_advance(&f->relay.clock, 1000);
	assert_false(expects(f, "mx.example"));
	tls_memory_note_verified(f->memory, "mx.example", 25);
	assert_true(expects(f, "mx.example"));
}

static void a_host_that_nobody_remembers_may_be_without(void **state)
{
	struct fixture *f = *state;

	tls_memory_note_missing(f->memory, "mx.example", 25);
	assert_int_equal(f->begun, 0);
	assert_int_equal(tls_memory_count(f->memory), 0);
}

static void stripped_is_told_once_and_ends(void **state)
{
	struct fixture *f = *state;

	tls_memory_note_verified(f->memory, "mx.example", 25);
	tls_memory_note_verified(f->memory, "mx2.example", 25);
	tls_memory_note_missing(f->memory, "mx.example", 25);
	tls_memory_note_missing(f->memory, "mx.example", 25);
	assert_int_equal(f->begun, 1);
	assert_non_null(strstr(f->alert, "mx.example:25"));
	assert_true(relay_log_has(&f->relay, "level=warn event=tls_stripped host=mx.example:25"));
	tls_memory_note_missing(f->memory, "mx2.example", 25);
	tls_memory_note_verified(f->memory, "mx.example", 25);
	assert_int_equal(f->ended, 0);
	tls_memory_note_verified(f->memory, "mx2.example", 25);
	assert_int_equal(f->ended, 1);
	assert_true(expects(f, "mx.example"));
}

static void patience_has_an_end(void **state)
{
	struct fixture *f = *state;

	tls_memory_note_verified(f->memory, "mx.example", 25);
	clock_virtual_advance(&f->relay.clock, 5 * DAY_MS);
	tls_memory_note_missing(f->memory, "mx.example", 25);
	clock_virtual_advance(&f->relay.clock, 12 * HOUR_MS);
	tls_memory_note_missing(f->memory, "mx.example", 25); /* counts from the first time */
	clock_virtual_advance(&f->relay.clock, 12 * HOUR_MS);
	assert_true(expects(f, "mx.example"));
	clock_virtual_advance(&f->relay.clock, 1000);
	assert_false(expects(f, "mx.example"));
	assert_int_equal(f->ended, 1);
	assert_true(relay_log_has(&f->relay, "event=tls_forgotten host=mx.example:25 seconds=86401"));
	assert_int_equal(tls_memory_count(f->memory), 0);
}

static void it_outlives_a_restart(void **state)
{
	struct fixture *f = *state;

	tls_memory_note_verified(f->memory, "mx.example", 25);
	tls_memory_note_verified(f->memory, "mx2.example", 25);
	tls_memory_note_missing(f->memory, "mx2.example", 25);
	clock_virtual_advance(&f->relay.clock, 20 * HOUR_MS);
	close_memory(f);
	open_memory(f);
	assert_true(expects(f, "mx.example"));
	assert_true(expects(f, "mx2.example"));
	/* Told again when it is seen again; over without anybody asking. */
	tls_memory_note_missing(f->memory, "mx2.example", 25);
	assert_int_equal(f->begun, 1);
	assert_non_null(strstr(f->alert, "mx2.example:25"));
	clock_virtual_advance(&f->relay.clock, 5 * HOUR_MS);
	tls_memory_look(f->memory);
	assert_true(expects(f, "mx.example"));
	assert_false(expects(f, "mx2.example"));
	assert_int_equal(f->ended, 1);
}

static void odd_files_are_passed_over(void **state)
{
	struct fixture *f = *state;
	static const char text[] = "{\"a:25\": 1, \"b:25\": [1], \"c:25\": [\"x\", 0], \"d:25\": [99999999999, -5]}";
	int fd;

	close_memory(f);
	fd = openat(f->relay.fd, "tls-seen.json", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	open_memory(f);
	assert_int_equal(tls_memory_count(f->memory), 1);
	assert_true(expects(f, "d"));
	clock_virtual_advance(&f->relay.clock, 31 * DAY_MS); /* a time to come counts as now */
	assert_false(expects(f, "d"));
}

static void there_is_an_end_to_what_is_kept(void **state)
{
	struct fixture *f = *state;
	char name[300];

	for (int i = 0; i < TLS_MEMORY_HOSTS_MAX + 5; i++) {
		snprintf(name, sizeof(name), "mx%d.%0230d.example", i, 0); /* as long as names get */
		tls_memory_note_verified(f->memory, name, 25);
		if (i == 2)
			tls_memory_note_missing(f->memory, name, 25);
	}
	assert_int_equal(tls_memory_count(f->memory), TLS_MEMORY_HOSTS_MAX);
	assert_int_equal(f->ended, 1);
	assert_true(expects(f, name));
	close_memory(f);
	open_memory(f);
	assert_int_equal(tls_memory_count(f->memory), TLS_MEMORY_HOSTS_MAX);
	assert_true(expects(f, name));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(who_has_shown_a_certificate_is_expected_to),
	    TEST(a_host_that_nobody_remembers_may_be_without),
	    TEST(stripped_is_told_once_and_ends),
	    TEST(patience_has_an_end),
	    TEST(it_outlives_a_restart),
	    TEST(odd_files_are_passed_over),
	    TEST(there_is_an_end_to_what_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
