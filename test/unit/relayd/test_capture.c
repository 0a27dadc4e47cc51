/* `via: capture` and `via: discard`: what stands in the folder, and when a recipient counts as delivered. */
#include "support_relay.h"

#include "base/msgid.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int setup(void **state)
{
	return relay_setup_with(
	    state, "routes:\n  - {name: nowhere, to: ['@void.example'], via: discard}\n  - {via: capture}\n");
}

/* The path of a captured file, until the next call. */
static const char *path_of(const struct relay *relay, uint64_t id, const char *ending)
{
	static char path[256];
	char text[MSGID_CHARS + 1];

	msgid_format(id, text);
	snprintf(path, sizeof(path), "%s/captured/%s%s", relay->folder, text, ending);
	return path;
}

static bool is_there(const struct relay *relay, uint64_t id, const char *ending)
{
	return access(path_of(relay, id, ending), F_OK) == 0;
}

static char *content_of(const struct relay *relay, uint64_t id, const char *ending, size_t *len)
{
	static char text[4 << 20];
	int fd = open(path_of(relay, id, ending), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n < 0)
		fail_msg("%s: %s", path_of(relay, id, ending), strerror(errno));
	close(fd);
	text[n] = '\0';
	if (len)
		*len = (size_t)n;
	return text;
}

static void discarded_mail_counts_as_delivered(void **state)
{
	struct relay *relay = *state;
	uint64_t id = relay_submit(relay, "app@example.org", "one@void.example two@void.example");

	relay_turn(relay);
	assert_false(relay_is_queued(relay, id));
	for (uint32_t i = 0; i < 2; i++) {
		const struct outcome *outcome = &relay_report(relay, id, i)->outcome;
		assert_int_equal(outcome->kind, OUTCOME_DELIVERED);
		assert_string_equal(outcome->text, "discarded by nowhere, not sent");
		assert_string_equal(outcome->host, "discard");
	}
	assert_int_equal(relay->opened, 0);
	assert_false(is_there(relay, id, ".eml"));
}

static void a_captured_message_is_a_file(void **state)
{
	struct relay *relay = *state;
	uint64_t id = relay_submit(relay, "app@example.org", "one@a.example two@b.example");
	struct stat st;

	relay_turn(relay);
	assert_string_equal(content_of(relay, id, ".eml", NULL),
			    "Return-Path: <app@example.org>\r\nDelivered-To: one@a.example\r\n"
			    "Delivered-To: two@b.example\r\nSubject: test\r\n\r\nHello\r\n");
	assert_int_equal(stat(path_of(relay, id, ".eml"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(fstatat(relay->fd, CAPTURE_FOLDER, &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_false(relay_is_queued(relay, id));
	assert_int_equal(relay_report(relay, id, 1)->outcome.kind, OUTCOME_DELIVERED);
	assert_non_null(strstr(relay_report(relay, id, 1)->outcome.text, ".eml, not sent"));
	assert_string_equal(relay_report(relay, id, 1)->destination, "capture:captured");
	assert_int_equal(relay->capture_syncs, 3); /* the file, the folder, and the spool that has a new folder */
	relay_submit(relay, "app@example.org", "one@a.example");
	relay_turn(relay);
	assert_int_equal(relay->capture_syncs, 5);
	assert_int_equal(relay->opened, 0);
}

/* Those who go elsewhere are not in it; the file of the others has their number. */
static void each_part_of_a_message_has_a_name_of_its_own(void **state)
{
	struct relay *relay = *state;
	uint64_t id = relay_submit(relay, "", "one@void.example two@b.example three@c.example");

	relay_turn(relay);
	assert_false(is_there(relay, id, ".eml"));
	assert_non_null(strstr(content_of(relay, id, "-2.eml", NULL),
			       "Return-Path: <>\r\nDelivered-To: two@b.example\r\nDelivered-To: three@c.example\r\n"));
	assert_false(relay_is_queued(relay, id));
}

/* A message to one@a.example whose file waits for the disk. */
static uint64_t submit_unsynced(struct relay *relay)
{
	uint64_t id;

	relay->capture_waits = true;
	id = relay_submit(relay, "app@example.org", "one@a.example");
	relay_turn(relay);
	assert_true(relay->capture_token != 0);
	return id;
}

static void nobody_is_delivered_before_file_and_folder_are_synced(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_unsynced(relay);

	assert_false(is_there(relay, id, ".eml"));
	assert_int_equal(relay->report_count, 0);
	assert_true(captures_on_disk_done(relay->captures, &(struct disk_done){.token = relay->capture_token}));
	relay_turn(relay);
	assert_true(is_there(relay, id, ".eml"));
	assert_int_equal(relay->report_count, 0);
	assert_true(relay_is_queued(relay, id));
	assert_true(captures_on_disk_done(relay->captures, &(struct disk_done){.token = relay->capture_token}));
	relay_turn(relay);
	assert_true(relay_is_queued(relay, id)); /* the folder is new in the spool */
	assert_true(captures_on_disk_done(relay->captures, &(struct disk_done){.token = relay->capture_token}));
	relay_turn(relay);
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_DELIVERED);
	assert_false(relay_is_queued(relay, id));
	/* Answers to others are left to them. */
	assert_false(captures_on_disk_done(relay->captures, &(struct disk_done){.token = 7}));
}

static void a_failed_sync_is_tried_again_from_the_beginning(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_unsynced(relay);

	assert_true(
	    captures_on_disk_done(relay->captures, &(struct disk_done){.token = relay->capture_token, .result = -EIO}));
	relay_turn(relay);
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_DEFERRED);
	assert_non_null(strstr(relay_report(relay, id, 0)->outcome.text, "synced"));
	assert_int_equal(relay_destination(relay, "capture:captured")->trouble.kind, OUTCOME_DEFERRED);
	assert_int_equal(captures_count(relay->captures), 0);
	relay->capture_waits = false;
	relay_pass(relay, 3600 * 1000);
	assert_true(is_there(relay, id, ".eml"));
	assert_false(relay_is_queued(relay, id));
	assert_int_equal(relay_destination(relay, "capture:captured")->trouble.kind, OUTCOME_NONE);
}

static void without_a_folder_mail_waits(void **state)
{
	struct relay *relay = *state;
	int fd = openat(relay->fd, CAPTURE_FOLDER, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	uint64_t first, second;

	close(fd);
	first = relay_submit(relay, "app@example.org", "one@a.example");
	relay_turn(relay);
	second = relay_submit(relay, "app@example.org", "one@a.example");
	relay_turn(relay);
	assert_int_equal(relay_report(relay, first, 0)->outcome.kind, OUTCOME_DEFERRED);
	assert_true(relay_is_queued(relay, first) && relay_is_queued(relay, second));
	assert_int_equal(unlinkat(relay->fd, CAPTURE_FOLDER, 0), 0);
	relay_pass(relay, 3600 * 1000);
	assert_true(is_there(relay, first, ".eml") && is_there(relay, second, ".eml"));
}

/* What a crash left has no name, and is written anew. */
static void a_stop_in_the_middle_loses_nothing(void **state)
{
	struct relay *relay = *state;
	uint64_t id = submit_unsynced(relay);

	relay_restart(relay);
	assert_false(is_there(relay, id, ".eml"));
	relay->capture_waits = false;
	relay_pass(relay, 60 * 1000);
	assert_true(is_there(relay, id, ".eml"));
	assert_int_equal(relay_report(relay, id, 0)->outcome.kind, OUTCOME_DELIVERED);
}

static void a_large_message_is_captured_octet_for_octet(void **state)
{
	enum { LINES = 20000, LINE = 80 };
	struct relay *relay = *state;
	struct queue_recipient one = {.address = SLICE("one@a.example")};
	struct queue_envelope envelope = {.sender = SLICE("app@example.org"),
					  .prefix = SLICE("Received: x\r\n"),
					  .recipients = &one,
					  .recipient_count = 1,
					  .arrived_wall = clock_wall_ms(&relay->clock.clock),
					  .expires_wall = clock_wall_ms(&relay->clock.clock) + 3600 * 1000};
	struct queue_upload *upload = queue_upload_begin(relay->queue, NULL);
	uint64_t id = queue_upload_id(upload);
	const char *head =
	    "Return-Path: <app@example.org>\r\nDelivered-To: one@a.example\r\nReceived: x\r\nSubject: x\r\n\r\n";
	char line[LINE + 1], *text;
	size_t len;

	assert_int_equal(queue_upload_append(upload, SLICE("Subject: x\r\n\r\n")), 0);
	for (int i = 0; i < LINES; i++) {
		snprintf(line, sizeof(line), "%0*d\r\n", LINE - 2, i);
		assert_int_equal(queue_upload_append(upload, slice_of(line, LINE)), 0);
		if (i % 100 == 0)
			relay_turn(relay);
	}
	assert_int_equal(queue_upload_commit(&upload, &envelope, NULL, NULL), 0);
	relay_turn(relay);
	text = content_of(relay, id, ".eml", &len);
	assert_int_equal(len, strlen(head) + (size_t)LINES * LINE);
	assert_memory_equal(text, head, strlen(head));
	for (int i = 0; i < LINES; i += 777) {
		snprintf(line, sizeof(line), "%0*d\r\n", LINE - 2, i);
		assert_memory_equal(text + strlen(head) + (size_t)i * LINE, line, LINE);
	}
	assert_false(relay_is_queued(relay, id));
}

static void a_hundred_wait_their_turn(void **state)
{
	struct relay *relay = *state;

	relay_submit_many(relay, "one@a.example", 300);
	relay_pass(relay, 60 * 1000);
	assert_int_equal(relay->report_count, 300);
	for (size_t i = 0; i < relay->report_count; i++) {
		assert_int_equal(relay->reports[i].outcome.kind, OUTCOME_DELIVERED);
		assert_true(is_there(relay, relay->reports[i].id, ".eml"));
	}
	assert_int_equal(captures_count(relay->captures), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, relay_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(discarded_mail_counts_as_delivered),
	    TEST(a_captured_message_is_a_file),
	    TEST(each_part_of_a_message_has_a_name_of_its_own),
	    TEST(nobody_is_delivered_before_file_and_folder_are_synced),
	    TEST(a_failed_sync_is_tried_again_from_the_beginning),
	    TEST(without_a_folder_mail_waits),
	    TEST(a_stop_in_the_middle_loses_nothing),
	    TEST(a_large_message_is_captured_octet_for_octet),
	    TEST(a_hundred_wait_their_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
