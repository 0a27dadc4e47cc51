/* The ring of messages that left the queue lately. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/recent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct recent *recent;

static int setup(void **state)
{
	(void)state;
	recent = recent_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	recent_free(&recent);
	assert_null(recent);
	recent_free(&recent);
	return 0;
}

static void add(uint64_t id, uint32_t recipient, enum outcome_kind kind)
{
	struct queue_recipient to[] = {{.address = SLICE("one@example.net")}, {.address = SLICE("two@example.net")}};
	struct queue_message message = {.id = id,
					.envelope = {.sender = SLICE("app@example.org"),
						     .user = SLICE("app"),
						     .client = SLICE("[192.0.2.9]:4711"),
						     .message_id = SLICE("<1@example.org>"),
						     .tag = SLICE("welcome"),
						     .class = MESSAGE_BULK,
						     .arrived_wall = 1000,
						     .recipients = to,
						     .recipient_count = 2},
					.content_bytes = 77};
	struct outcome outcome = {.kind = kind, .class = CLASS_MAILBOX, .stage = STAGE_RCPT, .code = 550};

	snprintf(outcome.enhanced, sizeof(outcome.enhanced), "5.1.1");
	snprintf(outcome.host, sizeof(outcome.host), "mx.example.net[192.0.2.1]");
	snprintf(outcome.text, sizeof(outcome.text), "no such user");
	recent_add(recent, &message, recipient, &outcome, 3, 2000);
	/* What it keeps is its own. */
	memset(&outcome, 'x', sizeof(outcome));
}

static void an_entry_holds_all_that_was_known(void **state)
{
	const struct recent_entry *entry;

	(void)state;
	add(7, 1, OUTCOME_FAILED);
	entry = recent_find(recent, 7, NULL);
	assert_non_null(entry);
	assert_int_equal(entry->at_wall, 2000);
	assert_int_equal(entry->arrived_wall, 1000);
	assert_int_equal(entry->bytes, 77);
	assert_int_equal(entry->attempts, 3);
	assert_int_equal(entry->kind, OUTCOME_FAILED);
	assert_int_equal(entry->class, CLASS_MAILBOX);
	assert_int_equal(entry->stage, STAGE_RCPT);
	assert_int_equal(entry->message_class, MESSAGE_BULK);
	assert_int_equal(entry->code, 550);
	assert_string_equal(entry->enhanced, "5.1.1");
	assert_string_equal(entry->sender, "app@example.org");
	assert_string_equal(entry->recipient, "two@example.net");
	assert_string_equal(entry->user, "app");
	assert_string_equal(entry->client, "[192.0.2.9]:4711");
	assert_string_equal(entry->message_id, "<1@example.org>");
	assert_string_equal(entry->tag, "welcome");
	assert_string_equal(entry->host, "mx.example.net[192.0.2.1]");
	assert_string_equal(entry->text, "no such user");
	assert_null(recent_find(recent, 7, entry));
}

static void an_empty_ring_finds_nothing(void **state)
{
	(void)state;
	assert_null(recent_find(recent, 0, NULL));
	assert_null(recent_find(recent, 7, NULL));
}

static void all_recipients_of_a_message_are_found(void **state)
{
	const struct recent_entry *first, *second;

	(void)state;
	add(7, 0, OUTCOME_DELIVERED);
	add(8, 0, OUTCOME_DELIVERED);
	add(7, 1, OUTCOME_FAILED);
	first = recent_find(recent, 7, NULL);
	second = recent_find(recent, 7, first);
	assert_string_equal(first->recipient, "one@example.net");
	assert_string_equal(second->recipient, "two@example.net");
	assert_null(recent_find(recent, 7, second));
}

static void the_oldest_give_way(void **state)
{
	(void)state;
	for (uint64_t id = 1; id <= RECENT_MAX + 10; id++)
		add(id, 0, OUTCOME_DELIVERED);
	assert_null(recent_find(recent, 1, NULL));
	assert_null(recent_find(recent, 10, NULL));
	assert_non_null(recent_find(recent, 11, NULL));
	assert_non_null(recent_find(recent, RECENT_MAX + 10, NULL));
	assert_null(recent_find(recent, 11, recent_find(recent, 11, NULL)));
}

/* Also where the ring's end lies between them. */
static void recipients_come_in_the_order_of_their_ends(void **state)
{
	const struct recent_entry *first;

	(void)state;
	for (uint64_t id = 1; id < RECENT_MAX; id++)
		add(id, 0, OUTCOME_DELIVERED);
	add(1000, 0, OUTCOME_DELIVERED);
	add(1000, 1, OUTCOME_DELIVERED);
	first = recent_find(recent, 1000, NULL);
	assert_string_equal(first->recipient, "one@example.net");
	assert_string_equal(recent_find(recent, 1000, first)->recipient, "two@example.net");
	assert_null(recent_find(recent, 1000, recent_find(recent, 1000, first)));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_entry_holds_all_that_was_known),	      TEST(an_empty_ring_finds_nothing),
	    TEST(all_recipients_of_a_message_are_found),      TEST(the_oldest_give_way),
	    TEST(recipients_come_in_the_order_of_their_ends),
	};
	return cmocka_run_group_tests_name("recent", tests, NULL, NULL);
}
