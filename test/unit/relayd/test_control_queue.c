/* The listing of the queue: conditions, bounds, and that it goes in steps. */
#include "support_control.h"

#include "base/msgid.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

/* The messages of the answer. */
static json_t *list(struct console *f, const char *query)
{
	char path[512];

	snprintf(path, sizeof(path), "/v1/queue%s", query);
	console_get(f, path);
	return json_object_get(f->answer.json, "messages");
}

static bool has_more(struct console *f)
{
	json_t *more = json_object_get(f->answer.json, "more");

	assert_true(json_is_boolean(more));
	return json_is_true(more);
}

static const char *refusal(struct console *f, const char *query)
{
	char path[256];

	snprintf(path, sizeof(path), "/v1/queue%s", query);
	return text_of(console_ask(f, 400, "GET", path, NULL), "error");
}

static const char *recipient(json_t *row, size_t index)
{
	return json_string_value(json_array_get(json_object_get(row, "recipients"), index));
}

static uint64_t defer(struct console *f, const char *recipient_address, const struct outcome *outcome)
{
	uint64_t id = relay_submit(&f->relay, "app@example.org", recipient_address);

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	fake_finish(relay_connection(&f->relay, 0), outcome);
	fake_close(relay_connection(&f->relay, 0));
	relay_pass(&f->relay, 20);
	return id;
}

/* ---- rows ---- */

static void an_empty_queue_is_an_empty_list(void **state)
{
	struct console *f = *state;

	assert_int_equal(json_array_size(list(f, "")), 0);
	assert_false(has_more(f));
	assert_string_equal(f->answer.type, "application/json");
}

static void a_row_has_what_the_contract_names(void **state)
{
	struct console *f = *state;
	struct outcome refused =
	    outcome_like(OUTCOME_DEFERRED, CLASS_THROTTLE, STAGE_RCPT, 421, "4.7.0", "too many messages");
	uint64_t id = defer(f, "one@a.example two@a.example", &refused);
	json_t *row;

	relay_pass(&f->relay, 10000);
	row = json_array_get(list(f, ""), 0);
	assert_string_equal(text_of(row, "id"), id_text(id));
	assert_string_equal(text_of(row, "state"), "deferred");
	assert_string_equal(text_of(row, "sender"), "app@example.org");
	assert_string_equal(recipient(row, 0), "one@a.example");
	assert_string_equal(recipient(row, 1), "two@a.example");
	assert_int_equal(number_of(row, "recipient_count"), 2);
	assert_int_equal(number_of(row, "age"), 10);
	assert_int_equal(number_of(row, "attempts"), 1);
	assert_string_equal(text_of(row, "reason"), "throttle: 421 too many messages");
	assert_string_equal(text_of(row, "class"), "default");
	assert_string_equal(text_of(row, "user"), "app");
	assert_true(number_of(row, "bytes") > 0);
	assert_true(number_of(row, "next_attempt_sec") > 0);
	assert_memory_equal(text_of(row, "next_attempt"), "2026-09-21T", 11);
	assert_int_equal(strlen(text_of(row, "next_attempt")), strlen("2026-09-21T14:13:20Z"));
}

static void what_is_not_planned_has_no_next_attempt(void **state)
{
	struct console *f = *state;
	uint64_t id = relay_submit(&f->relay, "", "one@a.example");
	json_t *row;

	relay_turn(&f->relay);
	fake_session(relay_connection(&f->relay, 0));
	row = json_array_get(list(f, ""), 0);
	assert_string_equal(text_of(row, "state"), "inflight");
	assert_string_equal(text_of(row, "sender"), "");
	assert_string_equal(text_of(row, "reason"), "");
	assert_true(json_is_null(json_object_get(row, "next_attempt")));
	assert_true(json_is_null(json_object_get(row, "next_attempt_sec")));
	fake_close(relay_connection(&f->relay, 0));
	queue_hold(f->relay.queue, id);
	row = json_array_get(list(f, ""), 0);
	assert_string_equal(text_of(row, "state"), "held");
	assert_true(json_is_null(json_object_get(row, "next_attempt")));
}

static void one_that_was_never_tried_says_what_it_waits_for(void **state)
{
	struct console *f = *state;
	struct fake_connection *connection;
	json_t *row;

	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_turn(&f->relay);
	connection = relay_connection(&f->relay, 0);
	fake_fail(connection, CLASS_CONNECT, STAGE_CONNECT, "connection refused");
	relay_submit(&f->relay, "app@example.org", "two@a.example");
	relay_turn(&f->relay);
	row = json_array_get(list(f, "?recipient=two@a.example"), 0);
	assert_int_equal(number_of(row, "attempts"), 0);
	assert_string_equal(text_of(row, "reason"), "waits for mx:a.example: connect: connection refused");
}

static void those_who_have_it_are_not_listed(void **state)
{
	struct console *f = *state;
	json_t *row;

	relay_submit(&f->relay, "app@example.org", "one@a.example two@b.example");
	relay_turn(&f->relay);
	fake_session(relay_connection_to(&f->relay, "mx:a.example"));
	fake_deliver(relay_connection_to(&f->relay, "mx:a.example"));
	row = json_array_get(list(f, ""), 0);
	assert_int_equal(json_array_size(json_object_get(row, "recipients")), 1);
	assert_string_equal(recipient(row, 0), "two@b.example");
	assert_int_equal(json_array_size(list(f, "?domain=a.example")), 0);
	assert_int_equal(json_array_size(list(f, "?domain=b.example")), 1);
}

static void a_row_is_bounded(void **state)
{
	enum { MANY = 3000 };
	struct console *f = *state;
	struct queue_recipient *to = xcalloc(MANY, sizeof(*to));
	char *addresses = xmalloc(MANY * 40);
	struct queue_envelope envelope = {.sender = SLICE("app@example.org"),
					  .arrived_wall = RELAY_WALL_MS,
					  .expires_wall = RELAY_WALL_MS + 86400000,
					  .recipients = to,
					  .recipient_count = MANY};
	json_t *row;

	for (int i = 0; i < MANY; i++) {
		snprintf(addresses + i * 40, 40, "someone%d@example.net", i);
		to[i].address = slice_of_str(addresses + i * 40);
	}
	relay_submit_envelope(&f->relay, &envelope);
	row = json_array_get(list(f, ""), 0);
	assert_int_equal(json_array_size(json_object_get(row, "recipients")), 100);
	assert_int_equal(number_of(row, "recipient_count"), MANY);
	free(addresses);
	free(to);
}

static void the_worst_row_fits(void **state)
{
	enum { LONGEST = 1024 };
	struct console *f = *state;
	struct queue_recipient to[64];
	char *bad = xmalloc(LONGEST);
	struct slice text = {bad, LONGEST};
	struct queue_envelope envelope = {.sender = text,
					  .user = text,
					  .arrived_wall = RELAY_WALL_MS,
					  .expires_wall = RELAY_WALL_MS + 86400000,
					  .recipients = to,
					  .recipient_count = ARRAY_LEN(to)};

	memset(bad, 0xff, LONGEST);
	memcpy(bad + LONGEST - 10, "@a.example", 10);
	for (size_t i = 0; i < ARRAY_LEN(to); i++)
		to[i] = (struct queue_recipient){.address = text};
	for (int i = 0; i < 5; i++)
		relay_submit_envelope(&f->relay, &envelope);
	assert_int_equal(json_array_size(list(f, "")), 5);
	free(bad);
}

/* Wherever the journal keeps it. */
static void damage(struct console *f, const char *text)
{
	int dir = openat(f->relay.fd, "journal", O_RDONLY | O_DIRECTORY);
	DIR *files = fdopendir(dup(dir));
	unsigned damaged = 0;

	for (struct dirent *entry; (entry = readdir(files));) {
		int fd = openat(dir, entry->d_name, O_RDWR);
		char *bytes = entry->d_name[0] == '.' ? NULL : xmalloc(1 << 20);
		ssize_t n = bytes ? pread(fd, bytes, 1 << 20, 0) : 0;
		char *at = n > 0 ? memmem(bytes, (size_t)n, text, strlen(text)) : NULL;
		if (at)
			damaged += pwrite(fd, "X", 1, at - bytes) == 1;
		free(bytes);
		close(fd);
	}
	closedir(files);
	close(dir);
	assert_int_equal(damaged, 1);
}

static void a_damaged_message_is_listed_too(void **state)
{
	struct console *f = *state;
	json_t *row;

	relay_submit(&f->relay, "unmistakable@example.org", "one@a.example");
	relay_submit(&f->relay, "app@example.org", "two@a.example");
	relay_pass(&f->relay, 2000);
	damage(f, "unmistakable");
	assert_int_equal(json_array_size(list(f, "")), 2);
	row = json_array_get(json_object_get(f->answer.json, "messages"), 0);
	assert_string_equal(text_of(row, "state"), "held");
	assert_string_equal(text_of(row, "sender"), "");
	assert_string_equal(text_of(row, "reason"), "its stored bytes are damaged");
	assert_int_equal(json_array_size(json_object_get(row, "recipients")), 0);
	assert_int_equal(number_of(row, "recipient_count"), 1);
	assert_int_equal(json_array_size(list(f, "?domain=a.example")), 1);
}

/* ---- conditions ---- */

static void conditions_hold_together(void **state)
{
	struct console *f = *state;
	uint64_t held;

	relay_submit(&f->relay, "app@example.org", "one@a.example two@B.example");
	relay_submit(&f->relay, "App@Example.Org", "three@a.example");
	held = relay_submit(&f->relay, "other@example.org", "four@c.example");
	relay_submit(&f->relay, "", "five@[192.0.2.1]");
	relay_submit(&f->relay, "app@example.org",
		     "six@b\xC3\xBC"
		     "cher.example");
	queue_hold(f->relay.queue, held);

	assert_int_equal(json_array_size(list(f, "")), 5);
	assert_int_equal(json_array_size(list(f, "?state=held")), 1);
	assert_string_equal(text_of(json_array_get(list(f, "?state=held"), 0), "sender"), "other@example.org");
	assert_int_equal(json_array_size(list(f, "?state=ready")), 4);
	assert_int_equal(json_array_size(list(f, "?state=deferred")), 0);
	assert_int_equal(json_array_size(list(f, "?domain=a.example")), 2);
	assert_int_equal(json_array_size(list(f, "?domain=@A.EXAMPLE")), 2);
	assert_int_equal(json_array_size(list(f, "?domain=b.example")), 1);
	assert_int_equal(json_array_size(list(f, "?domain=example")), 0);
	assert_int_equal(json_array_size(list(f, "?domain=%5B192.0.2.1%5D")), 1);
	assert_int_equal(json_array_size(list(f, "?domain=b%C3%BCcher.example")), 1);
	assert_int_equal(json_array_size(list(f, "?domain=xn--bcher-kva.example")), 1);
	assert_int_equal(json_array_size(list(f, "?sender=app@example.org")), 3);
	assert_int_equal(json_array_size(list(f, "?sender=")), 1);
	assert_int_equal(json_array_size(list(f, "?sender=%3C%3E")), 1);
	assert_int_equal(json_array_size(list(f, "?user=app")), 5);
	assert_int_equal(json_array_size(list(f, "?user=App")), 0);
	assert_int_equal(json_array_size(list(f, "?sender=app@example.org&domain=a.example")), 2);
	assert_int_equal(json_array_size(list(f, "?sender=other@example.org&domain=a.example")), 0);
	assert_int_equal(json_array_size(list(f, "?state=held&sender=app@example.org")), 0);
}

static void conditions_that_make_no_sense_are_refused(void **state)
{
	struct console *f = *state;

	assert_string_equal(refusal(f, "?state=nonsense"),
			    "unknown state 'nonsense'; there are ready, inflight, deferred, held");
	refusal(f, "?state=");
	refusal(f, "?state=HELD");
	refusal(f, "?limit=0");
	refusal(f, "?limit=-1");
	refusal(f, "?limit=many");
	refusal(f, "?limit=1x");
	refusal(f, "?limit=");
	refusal(f, "?domain=");
}

/* ---- bounds ---- */

static void limit_and_more(void **state)
{
	struct console *f = *state;

	for (int i = 0; i < 5; i++)
		relay_submit(&f->relay, i == 2 ? "odd@example.org" : "app@example.org", "one@a.example");
	assert_int_equal(json_array_size(list(f, "?limit=4")), 4);
	assert_true(has_more(f));
	assert_int_equal(json_array_size(list(f, "?limit=5")), 5);
	assert_false(has_more(f));
	/* What does not match is no more. */
	assert_int_equal(json_array_size(list(f, "?limit=1&sender=odd@example.org")), 1);
	assert_false(has_more(f));
	assert_int_equal(json_array_size(list(f, "?limit=3&sender=app@example.org")), 3);
	assert_true(has_more(f));
}

static void without_a_limit_a_thousand_come(void **state)
{
	struct console *f = *state;

	relay_submit_many(&f->relay, "one@a.example", 1001);
	assert_int_equal(json_array_size(list(f, "")), 1000);
	assert_true(has_more(f));
	assert_int_equal(json_array_size(list(f, "?limit=1001")), 1001);
	assert_false(has_more(f));
}

/* ---- order and pages ---- */

/* The local parts of the recipients, in the order of the listing. */
static void expect_order(struct console *f, const char *query, const char *expected)
{
	struct buf found;
	json_t *row;
	size_t i;

	buf_init(&found, 4096);
	json_array_foreach(list(f, query), i, row)
	    buf_printf(&found, "%.*s ", (int)strcspn(recipient(row, 0), "@"), recipient(row, 0));
	if (!slice_eq(buf_slice(&found), slice_of_str(expected)))
		fail_msg("%s: %.*s, not %s", query, SLICE_ARG(buf_slice(&found)), expected);
	buf_fini(&found);
}

static void rows_come_in_the_order_that_is_asked_for(void **state)
{
	struct console *f = *state;
	struct outcome refused = outcome_like(OUTCOME_DEFERRED, CLASS_MAILBOX, STAGE_RCPT, 450, "4.2.2", "full");
	uint64_t held;

	defer(f, "tried@a.example", &refused);
	relay_pass(&f->relay, 2000);
	held = relay_submit(&f->relay, "app@example.org", "held@a.example");
	queue_hold(f->relay.queue, held);
	relay_pass(&f->relay, 2000);
	relay_submit(&f->relay, "a-longer-address-makes-a-longer-content@example.org", "new@a.example");
	expect_order(f, "", "tried held new ");
	expect_order(f, "?sort=age", "tried held new ");
	expect_order(f, "?sort=next", "new tried held ");
	expect_order(f, "?sort=attempts", "tried held new ");
	expect_order(f, "?sort=age&limit=2", "tried held ");
	refusal(f, "?sort=beauty");
	refusal(f, "?sort=age&limit=10001");
	refusal(f, "?after=rubbish");
	refusal(f, "?after=1.2.3");
	refusal(f, "?after=x.0000000000001");
}

/* Page after page everything comes, and once. */
static void check_pages(struct console *f, const char *conditions, unsigned expected)
{
	char query[300], next[64] = "";
	uint64_t last = 0;
	unsigned found = 0;

	for (bool more = true; more; more = has_more(f)) {
		json_t *row;
		size_t i;
		snprintf(query, sizeof(query), "?limit=7%s%s%s", conditions, next[0] ? "&after=" : "", next);
		json_array_foreach(list(f, query), i, row)
		{
			uint64_t id;
			assert_true(msgid_parse(slice_of_str(text_of(row, "id")), &id));
			assert_true(id > last); /* all of one age: by id */
			last = id;
			found++;
		}
		assert_true(has_more(f) == json_is_string(json_object_get(f->answer.json, "next")));
		if (has_more(f))
			snprintf(next, sizeof(next), "%s", text_of(f->answer.json, "next"));
	}
	assert_int_equal(found, expected);
}

static void pages_follow_each_other(void **state)
{
	struct console *f = *state;
	char query[64], id[MSGID_CHARS + 1];

	for (int i = 0; i < 50; i++)
		relay_submit(&f->relay, "app@example.org", i % 2 ? "odd@a.example" : "even@b.example");
	check_pages(f, "", 50);
	check_pages(f, "&sort=next", 50);
	check_pages(f, "&domain=a.example", 25);
	check_pages(f, "&domain=c.example", 0);
	/* The last id of a page does as well. */
	snprintf(id, sizeof(id), "%s", text_of(json_array_get(list(f, "?limit=48"), 47), "id"));
	snprintf(query, sizeof(query), "?after=%s", id);
	assert_int_equal(json_array_size(list(f, query)), 2);
	console_ask(f, 404, "GET", "/v1/queue?after=0000000000007", NULL);
}

/* More than a sort keeps at a time. */
static void pages_of_a_long_queue(void **state)
{
	struct console *f = *state;

	relay_submit_many(&f->relay, "one@a.example", 300);
	check_pages(f, "", 300);
}

static void rows_as_lines(void **state)
{
	struct console *f = *state;
	struct slice text;
	unsigned lines = 0;

	for (int i = 0; i < 3; i++)
		relay_submit(&f->relay, "app@example.org", "one@a.example");
	web_ask(&f->web, "GET", "/v1/queue?lines=1&limit=2", NULL, &f->answer);
	assert_string_equal(f->answer.type, "application/x-ndjson");
	text = buf_slice(&f->answer.body);
	for (ptrdiff_t end; (end = slice_find(text, '\n')) >= 0; text = slice_from(text, (size_t)end + 1)) {
		json_t *object = json_loadb(text.ptr, (size_t)end, 0, NULL);
		if (end == 0)
			continue;
		assert_non_null(json_object_get(object, lines < 2 ? "id" : "more"));
		json_decref(object);
		lines++;
	}
	assert_int_equal(text.len, 0);
	assert_int_equal(lines, 3);
}

struct walk {
	struct http_response response;
	struct buf out;
	unsigned steps;
};

static void walk_begin(struct console *f, struct walk *walk)
{
	struct http_request request = {.method = "GET", .path = "/v1/queue"};

	*walk = (struct walk){.response = {.status = 200}};
	buf_init(&walk->response.body, 1000);
	buf_init(&walk->out, 16 << 20);
	control_handle(f->control, &request, &walk->response);
	assert_non_null(walk->response.stream_next);
}

static bool walk_step(struct walk *walk)
{
	size_t before = buf_len(&walk->out);
	bool goes_on = walk->response.stream_next(walk->response.stream_ctx, &walk->out) == HTTP_MORE;

	walk->steps++;
	assert_in_range(buf_len(&walk->out) - before, 1, 64 * 1024);
	return goes_on;
}

static json_t *walk_end(struct walk *walk)
{
	json_t *json = json_loadb(buf_slice(&walk->out).ptr, buf_len(&walk->out), 0, NULL);

	walk->response.stream_free(walk->response.stream_ctx);
	buf_fini(&walk->out);
	buf_fini(&walk->response.body);
	assert_non_null(json);
	return json;
}

/* Messages that leave and come meanwhile do no harm, and those that stay come once. */
static void the_queue_may_change_under_the_walk(void **state)
{
	enum { COUNT = 900 };
	struct console *f = *state;
	uint64_t *ids = xcalloc(COUNT, sizeof(*ids));
	bool *seen = xcalloc(COUNT, sizeof(*seen));
	struct walk walk;
	json_t *answer, *row;
	size_t i;
	unsigned stayed = 0;

	for (i = 0; i < COUNT; i++)
		ids[i] = relay_submit(&f->relay, "app@example.org", "one@a.example");
	walk_begin(f, &walk);
	while (walk_step(&walk)) {
		for (i = walk.steps; i < COUNT; i += 7) /* some behind, some ahead of it */
			queue_delete(f->relay.queue, ids[i]);
		relay_submit(&f->relay, "app@example.org", "late@a.example");
		relay_turn(&f->relay);
	}
	assert_true(walk.steps > 3);
	answer = walk_end(&walk);
	json_array_foreach(json_object_get(answer, "messages"), i, row)
	{
		uint64_t id;
		assert_true(msgid_parse(slice_of_str(text_of(row, "id")), &id));
		for (size_t k = 0; k < COUNT; k++)
			if (ids[k] == id) {
				assert_false(seen[k]);
				seen[k] = true;
			}
	}
	for (i = 0; i < COUNT; i++) {
		struct queue_brief brief;
		if (queue_brief(f->relay.queue, ids[i], &brief) == 0) {
			assert_true(seen[i]);
			stayed++;
		}
	}
	assert_true(stayed > 100);
	json_decref(answer);
	free(seen);
	free(ids);
}

static void a_client_that_leaves_ends_the_walk(void **state)
{
	struct console *f = *state;
	struct web_answer answer;
	int fd;

	relay_submit_many(&f->relay, "one@a.example", 1000);
	fd = web_begin(&f->web, "GET", "/v1/queue", NULL);
	for (int turns = 0; turns < 5; turns++)
		loop_turn(f->relay.loop, 0);
	close(fd);
	/* The next one is served as if nothing had been; the sanitizers watch what is left of the first. */
	web_ask(&f->web, "GET", "/v1/queue?limit=1", NULL, &answer);
	assert_int_equal(answer.status, 200);
	web_answer_fini(&answer);
}

static void a_listing_under_way_ends_with_the_server(void **state)
{
	struct console *f = *state;
	int fd;

	relay_submit_many(&f->relay, "one@a.example", 1000);
	fd = web_begin(&f->web, "GET", "/v1/queue", NULL);
	for (int turns = 0; turns < 3; turns++)
		loop_turn(f->relay.loop, 0);
	web_server_fini(&f->web);
	close(fd);
	web_server_init(&f->web, &f->relay, control_handle, f->control);
	assert_int_equal(json_array_size(list(f, "?limit=2")), 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, console_setup_mx, console_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_empty_queue_is_an_empty_list),
	    TEST(a_row_has_what_the_contract_names),
	    TEST(what_is_not_planned_has_no_next_attempt),
	    TEST(one_that_was_never_tried_says_what_it_waits_for),
	    TEST(those_who_have_it_are_not_listed),
	    TEST(a_row_is_bounded),
	    TEST(the_worst_row_fits),
	    TEST(a_damaged_message_is_listed_too),
	    TEST(conditions_hold_together),
	    TEST(conditions_that_make_no_sense_are_refused),
	    TEST(limit_and_more),
	    TEST(without_a_limit_a_thousand_come),
	    TEST(rows_come_in_the_order_that_is_asked_for),
	    TEST(pages_follow_each_other),
	    TEST(pages_of_a_long_queue),
	    TEST(rows_as_lines),
	    TEST(the_queue_may_change_under_the_walk),
	    TEST(a_client_that_leaves_ends_the_walk),
	    TEST(a_listing_under_way_ends_with_the_server),
	};
	return cmocka_run_group_tests_name("control_queue", tests, NULL, NULL);
}
