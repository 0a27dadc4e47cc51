/* Which policy holds for a domain: DNS and HTTPS answer as the test says, time is virtual, the folder is real. */
#include "support_relay.h"

#include "relayd/mta_sts.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENFORCE "version: STSv1\nmode: enforce\nmx: mx.example.net\nmax_age: 604800\n"
#define TESTING "version: STSv1\nmode: testing\nmx: mx.example.net\nmax_age: 604800\n"
enum { DAY_MS = 24 * 3600 * 1000, HOUR_MS = 3600 * 1000 };

struct fixture {
	struct relay relay; /* its folder, loop, clock and log */
	struct memos *memos;
	struct dns_transport transport;
	struct dns *dns;
	struct mta_sts *sts;

	/* DNS: the TXT records there are, parted by newlines; NULL: the resolver fails; is_silent: it says nothing. */
	const char *txt;
	bool is_silent;
	uint64_t last_token;
	unsigned questions;

	/* HTTPS: the request that waits. */
	unsigned fetches, cancelled;
	char url[300];
	https_cb *cb;
	void *cb_ctx;
	uint64_t fetch_id;
};

struct got {
	unsigned count;
	enum mta_sts_answer answer;
	enum mta_sts_mode mode;
	bool has_policy;
};

/* ---- DNS ---- */

static void put_txt(struct buf *packet, const char *text, size_t len)
{
	buf_append(packet, slice_of("\300\014\000\020\000\001\000\000\000\036", 10));
	buf_append_byte(packet, 0);
	buf_append_byte(packet, (char)(len + 1));
	buf_append_byte(packet, (char)len);
	buf_append(packet, slice_of(text, len));
}

static void answer_txt(struct fixture *f, const char *name)
{
	struct buf packet;
	const char *text = f->txt ? f->txt : "";
	unsigned count = 0;

	buf_init(&packet, 4096);
	for (const char *c = text; *c; c++)
		count += *c == '\n';
	count += *text != '\0';
	buf_append(&packet, slice_of("\0\0\201\200\0\1\0", 7));
	buf_append_byte(&packet, (char)count);
	buf_append(&packet, slice_of("\0\0\0\0", 4));
	if (!f->txt)
		packet.data[packet.start + 3] = (char)0x82; /* SERVFAIL */
	for (const char *label = name; *label;) {
		size_t len = strcspn(label, ".");
		buf_append_byte(&packet, (char)len);
		buf_append(&packet, slice_of(label, len));
		label += len + (label[len] == '.');
	}
	buf_append(&packet, slice_of("\0\0\020\0\1", 5));
	for (unsigned i = 0; i < count; i++) {
		size_t len = strcspn(text, "\n");
		put_txt(&packet, text, len);
		text += len + (text[len] == '\n');
	}
	dns_transport_answer(f->dns, f->last_token, buf_slice(&packet));
	buf_fini(&packet);
}

static void ask(void *ctx, struct dns *dns, uint64_t token, const char *name, uint16_t type)
{
	struct fixture *f = ctx;

	(void)dns;
	assert_int_equal(type, DNS_TXT);
	f->last_token = token;
	f->questions++;
	if (!f->is_silent)
		answer_txt(f, name);
}

/* ---- HTTPS ---- */

static uint64_t send_request(void *ctx, const struct https_request *request, https_cb *cb, void *cb_ctx)
{
	struct fixture *f = ctx;

	assert_int_equal(request->answer_max_bytes, MTA_STS_TEXT_MAX);
	assert_int_equal(request->timeout_ms, MTA_STS_FETCH_MS);
	assert_false(request->is_configured_name);
	snprintf(f->url, sizeof(f->url), "%s", request->url);
	f->fetches++;
	f->cb = cb;
	f->cb_ctx = cb_ctx;
	return f->fetch_id = f->fetches;
}

static void cancel_request(void *ctx, uint64_t *id)
{
	struct fixture *f = ctx;

	assert_int_equal(*id, f->fetch_id);
	f->cancelled++;
	f->cb = NULL;
	*id = 0;
}

static void answer_fetch(struct fixture *f, const struct https_answer *answer)
{
	https_cb *cb = f->cb;

	assert_non_null(cb);
	f->cb = NULL;
	cb(f->cb_ctx, answer);
}

static void serve_as(struct fixture *f, int status, const char *type, const char *body)
{
	const struct https_answer answer = {
	    .status = status, .content_type = type, .reason = "", .body = slice_of_str(body)};

	answer_fetch(f, &answer);
}

static void serve(struct fixture *f, const char *body)
{
	serve_as(f, 200, "text/plain", body);
}

static void break_fetch(struct fixture *f)
{
	const struct https_answer answer = {
	    .result = HTTPS_CONNECT, .content_type = "", .reason = "connection refused"};

	answer_fetch(f, &answer);
}

/* ---- the rest of the world ---- */

static void open_sts(struct fixture *f)
{
	const struct memos_options remembering = {f->relay.loop, f->relay.log, f->relay.fd, NULL};
	struct mta_sts_options options = {.dns = f->dns,
					  .timers = loop_timers(f->relay.loop),
					  .clock = &f->relay.clock.clock,
					  .log = f->relay.log,
					  .fetcher = {f, send_request, cancel_request}};

	f->memos = options.memos = memos_new(&remembering);
	f->sts = mta_sts_new(&options);
}

/* An end in order: what has changed is written. */
static void close_sts(struct fixture *f)
{
	memos_free(&f->memos);
	mta_sts_free(&f->sts);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	const struct dns_options options = {.transport = &f->transport, .ttl_min_ms = 1000};

	relay_init(&f->relay, NULL);
	f->transport = (struct dns_transport){ask, f};
	f->dns = dns_new(&options, NULL, loop_timers(f->relay.loop), &f->relay.clock.clock, &f->relay.rng.rng, NULL);
	f->txt = "";
	open_sts(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_sts(f);
	dns_free(&f->dns);
	relay_fini(&f->relay);
	free(f);
	return 0;
}

static void on_answer(void *ctx, enum mta_sts_answer answer, struct mta_sts_policy *policy)
{
	struct got *got = ctx;

	got->count++;
	got->answer = answer;
	got->has_policy = policy != NULL;
	got->mode = policy ? policy->mode : MTA_STS_NONE;
	assert_int_equal(policy != NULL, answer == MTA_STS_HOLDS);
}

static uint64_t begin(struct fixture *f, struct got *got)
{
	uint64_t id;

	*got = (struct got){0};
	id = mta_sts_lookup(f->sts, "example.net", on_answer, got);
	assert_int_equal(got->count, 0); /* never from inside */
	relay_pass(&f->relay, 0);
	return id;
}

/* A lookup that is answered without a fetch. */
static struct got look(struct fixture *f)
{
	struct got got;

	begin(f, &got);
	assert_int_equal(got.count, 1);
	return got;
}

/* A lookup that has the policy fetched. */
static struct got look_and_serve(struct fixture *f, const char *body)
{
	struct got got;

	begin(f, &got);
	assert_int_equal(got.count, 0);
	serve(f, body);
	assert_int_equal(got.count, 1);
	return got;
}

static void assert_holds(const struct got got, enum mta_sts_mode mode)
{
	assert_int_equal(got.answer, MTA_STS_HOLDS);
	assert_int_equal(got.mode, mode);
}

/* ---- the tests ---- */

static void no_record_means_no_policy(void **state)
{
	struct fixture *f = *state;
	static const char *const none[] = {"", "v=spf1 -all", "v=STSv1; id=1\nv=STSv1; id=2", "v=STSv1; id=a-b"};

	for (size_t i = 0; i < ARRAY_LEN(none); i++) {
		f->txt = none[i];
		assert_int_equal(look(f).answer, MTA_STS_ABSENT);
		relay_pass(&f->relay, HOUR_MS);
	}
	assert_int_equal(f->fetches, 0);
}

static void a_policy_is_fetched_once(void **state)
{
	struct fixture *f = *state;

	f->txt = "v=spf1 -all\nv=STSv1; id=1";
	assert_holds(look_and_serve(f, ENFORCE), MTA_STS_ENFORCE);
	assert_string_equal(f->url, "https://mta-sts.example.net/.well-known/mta-sts.txt");
	assert_int_equal(mta_sts_count(f->sts), 1);
	assert_holds(look(f), MTA_STS_ENFORCE);
	relay_pass(&f->relay, HOUR_MS);
	assert_holds(look(f), MTA_STS_ENFORCE);
	assert_int_equal(f->fetches, 1);
	assert_true(relay_log_has(&f->relay, "event=mta_sts domain=example.net version=1 mode=enforce"));
}

static void many_wait_for_one_fetch(void **state)
{
	struct fixture *f = *state;
	struct got first, second, third;
	uint64_t id;

	f->txt = "v=STSv1; id=1";
	begin(f, &first);
	id = begin(f, &second);
	begin(f, &third);
	assert_int_equal(f->fetches, 1);
	mta_sts_cancel(f->sts, &id);
	assert_int_equal(id, 0);
	mta_sts_cancel(f->sts, &id);
	serve(f, TESTING);
	assert_holds(first, MTA_STS_TESTING);
	assert_holds(third, MTA_STS_TESTING);
	assert_int_equal(second.count, 0);
	assert_int_equal(first.count + third.count, 2);
}

/* H22 */
static void another_id_brings_another_policy(void **state)
{
	struct fixture *f = *state;

	f->txt = "v=STSv1; id=1";
	assert_holds(look_and_serve(f, TESTING), MTA_STS_TESTING);
	f->txt = "v=STSv1; id=2";
	relay_pass(&f->relay, HOUR_MS);
	assert_holds(look_and_serve(f, ENFORCE), MTA_STS_ENFORCE);
	f->txt = "v=STSv1; id=3";
	relay_pass(&f->relay, HOUR_MS);
	assert_holds(look_and_serve(f, "version: STSv1\nmode: none\nmax_age: 86400\n"), MTA_STS_NONE);
	assert_int_equal(mta_sts_count(f->sts), 1);
}

/* H22: Whatever goes wrong with the new one, the old one holds until it expires. */
static void a_kept_policy_survives_every_failure(void **state)
{
	struct fixture *f = *state;
	struct got got;

	f->txt = "v=STSv1; id=1";
	look_and_serve(f, ENFORCE);
	f->txt = NULL; /* SERVFAIL */
	relay_pass(&f->relay, HOUR_MS);
	assert_holds(look(f), MTA_STS_ENFORCE);
	f->txt = ""; /* gone */
	relay_pass(&f->relay, HOUR_MS);
	assert_holds(look(f), MTA_STS_ENFORCE);
	f->txt = "v=STSv1; id=2";
	for (int i = 0; i < 5; i++) {
		relay_pass(&f->relay, HOUR_MS);
		begin(f, &got);
		assert_int_equal(got.count, 0);
		switch (i) {
		case 0: break_fetch(f); break;
		case 1: serve_as(f, 404, "text/plain", ENFORCE); break;
		case 2: serve_as(f, 301, "text/plain", ENFORCE); break;
		case 3: serve_as(f, 200, "text/html; charset=utf-8", ENFORCE); break;
		case 4: serve(f, "version: STSv1\nmode: nonsense\nmax_age: 1\n"); break;
		}
		assert_holds(got, MTA_STS_ENFORCE);
	}
	assert_true(relay_log_has(&f->relay, "kept=1 text=\"the policy's server said 301\""));
	relay_pass(&f->relay, 7 * (int64_t)DAY_MS);
	if (f->cb)
		break_fetch(f);
	f->txt = "";
	relay_pass(&f->relay, HOUR_MS);
	assert_int_equal(look(f).answer, MTA_STS_ABSENT);
	assert_int_equal(mta_sts_count(f->sts), 0);
}

static void a_failed_fetch_is_not_repeated_at_once(void **state)
{
	struct fixture *f = *state;
	struct got got;

	f->txt = "v=STSv1; id=1";
	begin(f, &got);
	break_fetch(f);
	assert_int_equal(got.answer, MTA_STS_UNKNOWN);
	relay_pass(&f->relay, 60 * 1000);
	assert_int_equal(look(f).answer, MTA_STS_UNKNOWN);
	assert_int_equal(f->fetches, 1);
	/* A new version is another matter. */
	f->txt = "v=STSv1; id=2";
	relay_pass(&f->relay, 60 * 1000);
	begin(f, &got);
	assert_int_equal(f->fetches, 2);
	break_fetch(f);
	relay_pass(&f->relay, MTA_STS_FAILURE_MS);
	assert_holds(look_and_serve(f, ENFORCE), MTA_STS_ENFORCE);
}

static void nobody_waits_for_long(void **state)
{
	struct fixture *f = *state;
	struct got got;

	f->txt = "v=STSv1; id=1";
	begin(f, &got);
	relay_pass(&f->relay, MTA_STS_WAIT_MS - 1);
	assert_int_equal(got.count, 0);
	relay_pass(&f->relay, 1);
	assert_int_equal(got.count, 1);
	assert_int_equal(got.answer, MTA_STS_UNKNOWN);
	/* The next one is in haste; the fetch goes on and is not begun again. */
	begin(f, &got);
	relay_pass(&f->relay, MTA_STS_HASTY_MS);
	assert_int_equal(got.count, 1);
	assert_int_equal(f->fetches, 1);
	serve(f, ENFORCE);
	assert_holds(look(f), MTA_STS_ENFORCE);
}

static void a_silent_resolver_keeps_nobody(void **state)
{
	struct fixture *f = *state;
	struct got got;

	f->is_silent = true;
	begin(f, &got);
	relay_pass(&f->relay, MTA_STS_WAIT_MS);
	assert_int_equal(got.answer, MTA_STS_UNKNOWN);
	assert_int_equal(got.count, 1);
	begin(f, &got);
	relay_pass(&f->relay, MTA_STS_HASTY_MS);
	assert_int_equal(got.count, 1);
	assert_int_equal(f->questions, 1);
}

static void policies_are_refreshed_before_they_expire(void **state)
{
	struct fixture *f = *state;

	f->txt = "v=STSv1; id=1";
	look_and_serve(f, ENFORCE);
	for (int day = 1; day <= 20; day++) {
		relay_pass(&f->relay, DAY_MS + HOUR_MS + 1);
		assert_int_equal(f->fetches, 1 + day);
		serve(f, ENFORCE);
	}
	assert_holds(look(f), MTA_STS_ENFORCE);
	/* On a lookup too, which does not wait for it. */
	relay_pass(&f->relay, DAY_MS - HOUR_MS);
	f->cb = NULL;
	assert_holds(look(f), MTA_STS_ENFORCE);
}

static void reopen(struct fixture *f)
{
	close_sts(f);
	open_sts(f);
}

static void a_restart_is_no_downgrade(void **state)
{
	struct fixture *f = *state;
	struct fixture crashed;

	f->txt = "v=STSv1; id=1";
	look_and_serve(f, ENFORCE);
	reopen(f);
	assert_int_equal(mta_sts_count(f->sts), 1);
	f->txt = NULL;
	relay_pass(&f->relay, HOUR_MS);
	assert_holds(look(f), MTA_STS_ENFORCE);
	/* On the disk a second later, without waiting for an end in order. */
	f->txt = "v=STSv1; id=2";
	relay_pass(&f->relay, HOUR_MS);
	look_and_serve(f, TESTING);
	relay_pass(&f->relay, 1000);
	crashed = *f;
	open_sts(f);
	assert_holds(look(f), MTA_STS_TESTING);
	close_sts(&crashed);
	/* What has expired meanwhile does not come back. */
	close_sts(f);
	clock_virtual_advance(&f->relay.clock, 8 * (int64_t)DAY_MS);
	open_sts(f);
	assert_int_equal(mta_sts_count(f->sts), 0);
}

static void put_file(struct fixture *f, const char *text)
{
	int fd = openat(f->relay.fd, "mta-sts.json", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void odd_files_are_passed_over(void **state)
{
	struct fixture *f = *state;
	static const char text[] =
	    "{\"../x\": {}, \"a.example\": 5, \"b.example\": {\"id\": \"1\", \"fetched\": 1, \"expires\": "
	    "9999999999999, \"policy\": \"nonsense\"}, \"c.example\": {\"id\": \"1\", \"fetched\": 1, "
	    "\"expires\": 1, \"policy\": \"version: STSv1\\nmode: none\\nmax_age: 1\"}, \"example.net\": "
	    "{\"id\": \"1\", \"fetched\": 9999999999999, \"expires\": 9999999999999, \"policy\": "
	    "\"version: STSv1\\nmode: enforce\\nmx: mx.example.net\\nmax_age: 86400\\n\"}}";

	close_sts(f);
	put_file(f, text);
	open_sts(f);
	assert_int_equal(mta_sts_count(f->sts), 1);
	f->txt = "v=STSv1; id=1";
	assert_holds(look(f), MTA_STS_ENFORCE);
	/* No longer than the policy says, whatever the file does. */
	f->txt = NULL;
	relay_pass(&f->relay, DAY_MS);
	assert_int_equal(look(f).answer, MTA_STS_UNKNOWN);
	close_sts(f);
	put_file(f, "[1, 2");
	open_sts(f);
	assert_int_equal(mta_sts_count(f->sts), 0);
	assert_true(relay_log_has(&f->relay, "memo_unreadable"));
	close_sts(f);
	put_file(f, "[1, 2]");
	open_sts(f);
	assert_int_equal(mta_sts_count(f->sts), 0);
}

static void there_is_an_end_to_what_is_kept(void **state)
{
	struct fixture *f = *state;
	struct got got = {0};
	char name[40];
	size_t count;

	f->txt = "v=STSv1; id=1";
	for (int i = 0; i < MTA_STS_DOMAINS_MAX + 10; i++) {
		snprintf(name, sizeof(name), "d%d.example", i);
		mta_sts_lookup(f->sts, name, on_answer, &got);
		relay_pass(&f->relay, 0);
		serve(f, ENFORCE);
	}
	assert_int_equal(got.count, MTA_STS_DOMAINS_MAX + 10);
	count = mta_sts_count(f->sts);
	assert_true(count > 1000 && count <= MTA_STS_DOMAINS_MAX);
	/* All of them fit into the file. */
	reopen(f);
	assert_int_equal(mta_sts_count(f->sts), count);
	/* The first ones went, the last ones are here. */
	f->txt = "";
	relay_pass(&f->relay, 40 * 1000);
	mta_sts_lookup(f->sts, "d0.example", on_answer, &got);
	relay_pass(&f->relay, 0);
	assert_int_equal(got.answer, MTA_STS_ABSENT);
	mta_sts_lookup(f->sts, name, on_answer, &got);
	relay_pass(&f->relay, 0);
	assert_int_equal(got.answer, MTA_STS_HOLDS);
}

static void an_end_in_the_middle(void **state)
{
	struct fixture *f = *state;
	struct got got;

	f->txt = "v=STSv1; id=1";
	begin(f, &got);
	close_sts(f);
	assert_int_equal(f->cancelled, 1);
	relay_pass(&f->relay, HOUR_MS);
	assert_int_equal(got.count, 0);
	f->is_silent = true;
	open_sts(f);
	begin(f, &got);
	close_sts(f);
	relay_pass(&f->relay, HOUR_MS);
	assert_int_equal(got.count, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(no_record_means_no_policy),
	    TEST(a_policy_is_fetched_once),
	    TEST(many_wait_for_one_fetch),
	    TEST(another_id_brings_another_policy),
	    TEST(a_kept_policy_survives_every_failure),
	    TEST(a_failed_fetch_is_not_repeated_at_once),
	    TEST(nobody_waits_for_long),
	    TEST(a_silent_resolver_keeps_nobody),
	    TEST(policies_are_refreshed_before_they_expire),
	    TEST(a_restart_is_no_downgrade),
	    TEST(odd_files_are_passed_over),
	    TEST(there_is_an_end_to_what_is_kept),
	    TEST(an_end_in_the_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
