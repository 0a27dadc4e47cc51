/* The moment of the 250, and messages that come twice while the first is not yet safe: a real journal in a temporary
 * folder, whose syncs end when the test says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/intake.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
	char folder[64];
	int spool_fd;
	struct disk *disk;
	struct config *config;
	struct intake_context context;
};

struct client {
	struct intake *intake;
	unsigned answers;
	enum intake_result result;
	uint64_t id;
	int code;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct config_source source = {.file = "f", .default_hostname = "relay.example.org"};
	struct config_errors errors;
	struct queue_options options = {.clock = clock_system(), .rng = rng_system(), .segment_bytes = 1024 * 1024};
	struct err err;

	snprintf(f->folder, sizeof(f->folder), "/tmp/relayd-intake-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	f->spool_fd = open(f->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(config_load_text(&source, SLICE("dedupe_window: 10m\n"), &f->config, &errors), 0);
	f->disk = options.disk = disk_real_new(f->spool_fd, NULL, &err);
	assert_non_null(f->disk);
	f->context = (struct intake_context){.queue = queue_open(&options, NULL, &err),
					     .dedupe = dedupe_new(clock_system()),
					     .clock = clock_system(),
					     .rng = rng_system(),
					     .config = f->config};
	assert_non_null(f->context.queue);
	dedupe_configure(f->context.dedupe, f->config->dedupe_window_ms);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	queue_close(&f->context.queue);
	dedupe_free(&f->context.dedupe);
	disk_real_free(&f->disk);
	config_free(&f->config);
	close(f->spool_fd);
	nftw(f->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void on_done(void *ctx, enum intake_result result, uint64_t id, const struct smtp_server_reply *refusal)
{
	struct client *client = ctx;

	client->answers++;
	client->result = result;
	client->id = id;
	client->code = refusal ? refusal->code : 250;
}

static struct intake *new_intake(struct fixture *f, const struct smtp_server_mail *mail)
{
	const struct smtp_server_reply *refusal;
	struct intake *intake = intake_new(&f->context, mail, NULL, &refusal);

	assert_non_null(intake);
	assert_null(refusal);
	return intake;
}

static void add_recipient(struct intake *intake, const struct smtp_server_rcpt *rcpt)
{
	unsigned suppressed = 0;

	assert_null(intake_add_recipient(intake, rcpt, &suppressed));
	assert_int_equal(suppressed, 0);
}

/* One name for many, said again and again: the work ends where the recipients do. */
static void what_an_alias_stands_for_counts_each_time(void **state)
{
	struct fixture *f = *state;
	struct smtp_server_mail mail = {.sender = {.address = SLICE("app@example.org")}};
	struct smtp_server_rcpt rcpt = {.recipient = {.address = SLICE("all")}};
	struct config_errors errors;
	struct intake *intake;
	unsigned suppressed = 0;
	struct buf text;

	buf_init(&text, 1 << 20);
	buf_append_str(&text, "all: ");
	for (int i = 0; i < 900; i++)
		buf_printf(&text, "%su%d@example.net", i ? ", " : "", i);
	config_errors_init(&errors);
	f->config->aliases = aliases_parse(f->config->memory, buf_slice(&text), "a", &errors);
	intake = new_intake(f, &mail);
	add_recipient(intake, &rcpt);
	add_recipient(intake, &rcpt);
	assert_int_equal(intake_add_recipient(intake, &rcpt, &suppressed)->code, 452);
	intake_free(&intake);
	f->config->aliases = NULL;
	buf_fini(&text);
}

/* Everything up to the final dot. */
static void submit_mail(struct fixture *f, struct client *client, const struct smtp_server_mail *mail,
			const struct user_options *options, const char *content)
{
	struct smtp_server_rcpt rcpt = {.recipient = {.address = SLICE("user@example.net")}};
	struct intake_client who = {.user = SLICE("app"),
				    .listener = SLICE("127.0.0.1:587"),
				    .client = SLICE("[192.0.2.1]:4711"),
				    .address = SLICE("192.0.2.1"),
				    .esmtp = true,
				    .authenticated = true,
				    .options = options};
	struct smtp_server_complete complete = {.bytes = strlen(content)};

	*client = (struct client){0};
	client->intake = new_intake(f, mail);
	add_recipient(client->intake, &rcpt);
	assert_null(intake_begin(client->intake, &who));
	assert_null(intake_content(client->intake, slice_of_str(content)));
	intake_complete(client->intake, &complete, on_done, client);
}

static void submit(struct fixture *f, struct client *client, const char *content)
{
	struct smtp_server_mail mail = {.sender = {.address = SLICE("app@example.org")}};

	submit_mail(f, client, &mail, NULL, content);
}

static void sync_journal(struct fixture *f);

/* NOTIFY of the one mailbox that these recipients stand for. */
static uint32_t notify_of_one(struct fixture *f, const struct smtp_server_rcpt *rcpts, size_t count)
{
	struct smtp_server_mail mail = {.sender = {.address = SLICE("app@example.org")}};
	struct intake_client who = {.user = SLICE("app"), .listener = SLICE("127.0.0.1:587"), .authenticated = true};
	struct smtp_server_complete complete = {0};
	struct client client = {.intake = new_intake(f, &mail)};
	struct queue_message message;
	uint32_t notify;

	for (size_t i = 0; i < count; i++)
		add_recipient(client.intake, &rcpts[i]);
	assert_null(intake_begin(client.intake, &who));
	assert_null(intake_content(client.intake, SLICE("From: app@example.org\r\n\r\nbody\r\n")));
	intake_complete(client.intake, &complete, on_done, &client);
	sync_journal(f);
	assert_int_equal(client.code, 250);
	intake_free(&client.intake);
	assert_int_equal(queue_read_envelope(f->context.queue, client.id, 0, &message), 0);
	assert_int_equal(message.envelope.recipient_count, 1);
	notify = message.envelope.recipients[0].notify;
	queue_message_free(&message);
	return notify;
}

/* Whoever wanted to hear of a failure hears of it, though the mailbox gets the message once. */
static void recipients_that_become_one_keep_what_each_wants_to_hear(void **state)
{
	static const struct {
		unsigned one, other;
		uint32_t together;
	} rows[] = {
	    {0, 0, 0},
	    {SMTP_DSN_NEVER, SMTP_DSN_NEVER, QUEUE_NOTIFY_NEVER},
	    {SMTP_DSN_NEVER, 0, QUEUE_NOTIFY_FAILURE | QUEUE_NOTIFY_DELAY},
	    {SMTP_DSN_NEVER, SMTP_DSN_FAILURE, QUEUE_NOTIFY_FAILURE},
	    {SMTP_DSN_SUCCESS, SMTP_DSN_FAILURE, QUEUE_NOTIFY_SUCCESS | QUEUE_NOTIFY_FAILURE},
	    {SMTP_DSN_SUCCESS, 0, QUEUE_NOTIFY_SUCCESS | QUEUE_NOTIFY_FAILURE | QUEUE_NOTIFY_DELAY},
	};
	struct fixture *f = *state;
	struct config_errors errors;

	config_errors_init(&errors);
	f->config->aliases =
	    aliases_parse(f->config->memory, SLICE("boss: joe@example.net\nchief: joe@example.net\n"), "a", &errors);
	for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
		unsigned one = rows[i / 2].one, other = rows[i / 2].other;
		const struct smtp_server_rcpt rcpts[] = {
		    {.recipient = {.address = SLICE("boss")}, .notify = i % 2 ? other : one},
		    {.recipient = {.address = SLICE("chief")}, .notify = i % 2 ? one : other}};
		assert_int_equal(notify_of_one(f, rcpts, 2), rows[i / 2].together);
	}
	f->config->aliases = NULL;
	f->config->redirect = "staging@example.com";
	for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
		unsigned one = rows[i / 2].one, other = rows[i / 2].other;
		const struct smtp_server_rcpt rcpts[] = {
		    {.recipient = {.address = SLICE("joe@example.net")}, .notify = i % 2 ? other : one},
		    {.recipient = {.address = SLICE("ann@example.net")}, .notify = i % 2 ? one : other}};
		assert_int_equal(notify_of_one(f, rcpts, 2), rows[i / 2].together);
	}
	f->config->redirect = NULL;
}

static void sync_journal(struct fixture *f)
{
	for (int i = 0; i < 10; i++)
		queue_turn(f->context.queue);
}

static uint64_t message_count(struct fixture *f)
{
	struct queue_stats stats;
	uint64_t sum = 0;

	queue_stats(f->context.queue, &stats);
	for (int i = 0; i < STATE_COUNT; i++)
		sum += stats.messages[i];
	return sum;
}

#define MESSAGE "From: app@example.org\r\nMessage-ID: <one@example.org>\r\n\r\nbody\r\n"

static void nobody_hears_of_a_message_before_it_is_synced(void **state)
{
	struct fixture *f = *state;
	struct client first, second;

	submit(f, &first, MESSAGE);
	submit(f, &second, MESSAGE);
	assert_int_equal(first.answers + second.answers, 0);
	sync_journal(f);
	assert_int_equal(first.result, INTAKE_ACCEPTED);
	assert_int_equal(second.result, INTAKE_REPEATED);
	assert_int_equal(second.id, first.id);
	assert_int_equal(first.answers + second.answers, 2);
	assert_int_equal(message_count(f), 1);
	intake_free(&first.intake);
	intake_free(&second.intake);
}

/* Promise 1: the disk said no. */
static void what_cannot_be_written_is_refused(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit, none;
	struct client client;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	none = (struct rlimit){0, limit.rlim_max};
	signal(SIGXFSZ, SIG_IGN);
	submit(f, &client, MESSAGE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	sync_journal(f);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(client.answers, 1);
	assert_int_equal(client.result, INTAKE_REFUSED);
	assert_int_equal(client.code / 100, 4);
	assert_int_equal(message_count(f), 0);
	intake_free(&client.intake);
}

/* What the header says counts, then what the user's line says; REQUIRETLS stands above TLS-Required: No (RFC 8689). */
static void what_is_said_of_a_message_is_stored_with_it(void **state)
{
	static const struct user_options bulk = {.has_class = true, .class = MESSAGE_BULK, .lifetime_ms = 60 * 1000};
	static const struct {
		const char *header;
		const struct user_options *options;
		bool requiretls;
		enum message_class class;
		int64_t lifetime_ms; /* 0: the configuration's */
		uint32_t tls_flag;
	} rows[] = {
	    {"", NULL, false, MESSAGE_DEFAULT, 0, 0},
	    {"", &bulk, true, MESSAGE_BULK, 60 * 1000, QUEUE_REQUIRETLS},
	    {"X-Relayd-Class: transactional\r\nX-Relayd-Lifetime: 10m\r\n", NULL, false, MESSAGE_TRANSACTIONAL,
	     600 * 1000, 0},
	    {"X-Relayd-Class: default\r\nX-Relayd-Lifetime: 10m\r\n", &bulk, false, MESSAGE_DEFAULT, 600 * 1000, 0},
	    {"TLS-Required: No\r\n", NULL, false, MESSAGE_DEFAULT, 0, QUEUE_TLS_OPTIONAL},
	    {"TLS-Required: No\r\n", NULL, true, MESSAGE_DEFAULT, 0, QUEUE_REQUIRETLS},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct smtp_server_mail mail = {.sender = {.address = SLICE("app@example.org")},
						.requiretls = rows[i].requiretls};
		struct client client;
		struct queue_message message;
		char content[300];
		snprintf(content, sizeof(content), "From: app@example.org\r\n%s\r\nbody\r\n", rows[i].header);
		submit_mail(f, &client, &mail, rows[i].options, content);
		sync_journal(f);
		assert_int_equal(client.result, INTAKE_ACCEPTED);
		intake_free(&client.intake);
		assert_int_equal(queue_read_envelope(f->context.queue, client.id, 0, &message), 0);
		assert_int_equal(message.envelope.class, rows[i].class);
		assert_int_equal(message.envelope.expires_wall - message.envelope.arrived_wall,
				 rows[i].lifetime_ms ? rows[i].lifetime_ms : f->config->retry.expire_ms);
		assert_int_equal(message.envelope.flags & (QUEUE_REQUIRETLS | QUEUE_TLS_OPTIONAL), rows[i].tls_flag);
		assert_true(slice_has_prefix(message.envelope.prefix, SLICE("Received: ")));
		queue_message_free(&message);
	}
}

static void a_client_that_vanished_behind_the_dot_is_answered_when_it_asks_again(void **state)
{
	struct fixture *f = *state;
	struct client gone, again, later;

	submit(f, &gone, MESSAGE);
	intake_free(&gone.intake);
	submit(f, &again, MESSAGE);
	assert_int_equal(again.answers, 0);
	sync_journal(f);
	assert_int_equal(gone.answers, 0);
	assert_int_equal(again.result, INTAKE_REPEATED);
	submit(f, &later, MESSAGE);
	assert_int_equal(later.result, INTAKE_REPEATED);
	assert_int_equal(later.id, again.id);
	assert_int_equal(message_count(f), 1);
	intake_free(&again.intake);
	intake_free(&later.intake);
}

static void one_that_waits_may_go_too(void **state)
{
	struct fixture *f = *state;
	struct client first, waits;

	submit(f, &first, MESSAGE);
	submit(f, &waits, MESSAGE);
	intake_free(&waits.intake);
	sync_journal(f);
	assert_int_equal(first.result, INTAKE_ACCEPTED);
	assert_int_equal(waits.answers, 0);
	intake_free(&first.intake);
}

static void a_refused_message_leaves_no_trace_in_the_window(void **state)
{
	struct fixture *f = *state;
	struct client first, second;
	const char *bad =
	    "From: app@example.org\r\nX-Relayd-Class: urgent\r\nMessage-ID: <bad@example.org>\r\n\r\nbody\r\n";
	struct smtp_server_mail mail = {.sender = {.address = SLICE("app@example.org")}};
	struct smtp_server_rcpt rcpt = {.recipient = {.address = SLICE("user@example.net")}};
	struct intake_client who = {.user = SLICE("app"), .authenticated = true};

	first = (struct client){.intake = new_intake(f, &mail)};
	add_recipient(first.intake, &rcpt);
	assert_null(intake_begin(first.intake, &who));
	assert_int_equal(intake_content(first.intake, slice_of_str(bad))->code, 550);
	intake_free(&first.intake);
	submit(f, &second, MESSAGE);
	sync_journal(f);
	assert_int_equal(second.result, INTAKE_ACCEPTED);
	assert_int_equal(dedupe_count(f->context.dedupe), 1);
	intake_free(&second.intake);
}

static void without_a_message_id_each_is_its_own(void **state)
{
	struct fixture *f = *state;
	struct client first, second;

	submit(f, &first, "From: app@example.org\r\n\r\nbody\r\n");
	submit(f, &second, "From: app@example.org\r\n\r\nbody\r\n");
	sync_journal(f);
	assert_int_equal(first.result, INTAKE_ACCEPTED);
	assert_int_equal(second.result, INTAKE_ACCEPTED);
	assert_int_equal(message_count(f), 2);
	intake_free(&first.intake);
	intake_free(&second.intake);
}

static void memory_is_told_and_the_header_is_what_it_is(void **state)
{
	struct fixture *f = *state;
	struct smtp_server_mail mail = {.sender = {.address = SLICE("app@example.org")}};
	struct intake_client who = {.user = SLICE("app")};
	struct intake *intake = new_intake(f, &mail);
	char *line = xmalloc(100000);
	size_t before;

	memset(line, 'x', 100000);
	memcpy(line, "X: ", 3);
	assert_null(intake_begin(intake, &who));
	before = intake_memory_bytes(intake);
	assert_null(intake_content(intake, slice_of(line, 100000)));
	assert_true(intake_is_in_header(intake));
	assert_true(intake_memory_bytes(intake) >= before + 100000);
	assert_null(intake_content(intake, SLICE("\r\n\r\n")));
	assert_false(intake_is_in_header(intake));
	intake_free(&intake);
	free(line);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
	    TEST(what_an_alias_stands_for_counts_each_time),
	    TEST(recipients_that_become_one_keep_what_each_wants_to_hear),
	    TEST(nobody_hears_of_a_message_before_it_is_synced),
	    TEST(what_cannot_be_written_is_refused),
	    TEST(what_is_said_of_a_message_is_stored_with_it),
	    TEST(a_client_that_vanished_behind_the_dot_is_answered_when_it_asks_again),
	    TEST(one_that_waits_may_go_too),
	    TEST(a_refused_message_leaves_no_trace_in_the_window),
	    TEST(without_a_message_id_each_is_its_own),
	    TEST(memory_is_told_and_the_header_is_what_it_is),
	};

	return cmocka_run_group_tests_name("intake", tests, NULL, NULL);
}
