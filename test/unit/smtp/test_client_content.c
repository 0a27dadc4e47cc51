/* Content on its way to the server: dots, BDAT, how much is held, what ends it. */
#include "support_sessions.h"

#include "base/random.h"

#include <stdlib.h>

static void test_dots_are_doubled_at_the_start_of_lines(void **state)
{
	static const char dots[] = ".\r\n..\r\na.b\r\n.\r\n.c\r\n\r\n.";
	struct peer_setup setup = plain;

	(void)state;
	setup.content = dots;
	peer_play(&setup, MINIMAL
		  "> send 2\nC: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<a@x.example>\nS: 250 ok\nC: DATA\nS: 354 go\n"
		  "= need_body\nC: ..\nC: ...\nC: a.b\nC: ..\nC: ..c\nC: \nC: ..\nC: .\n");
}

/* All content of one transaction by DATA, as it went over the wire, for each size of portion. */
static void send_content(struct slice content, size_t portion, struct buf *wire)
{
	static const char *const replies[] = {"220 x\r\n", "250 x\r\n", "250 x\r\n", "250 x\r\n", "354 x\r\n"};
	struct smtp_client *client = smtp_client_new(&plain.options, 0);
	struct smtp_client_event event;
	bool wanted = false;

	for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
		smtp_client_input(client, slice_of_str(replies[i]));
		while (smtp_client_next(client, &event)) {
			if (event.type == SMTP_CLIENT_READY)
				smtp_client_send(client, &transactions[2]);
			wanted = wanted || event.type == SMTP_CLIENT_NEED_BODY;
		}
		smtp_client_output_sent(client, SIZE_MAX);
	}
	assert_true(wanted);
	while (content.len) {
		content = slice_from(content, smtp_client_body(client, slice_to(content, portion)));
		assert_true(smtp_client_output(client).len <= SMTP_CLIENT_OUTPUT_MAX);
		if (smtp_client_body_room(client) < portion) {
			assert_int_equal(buf_append(wire, smtp_client_output(client)), 0);
			smtp_client_output_sent(client, SIZE_MAX);
		}
	}
	smtp_client_body_end(client);
	assert_int_equal(buf_append(wire, smtp_client_output(client)), 0);
	smtp_client_free(&client);
}

/* RFC 5321 §4.5.2, octet by octet: the plainest way to say it. */
static void stuff_plainly(struct slice content, struct buf *out)
{
	bool start = true;

	for (size_t i = 0; i < content.len; i++) {
		if (start && content.ptr[i] == '.')
			assert_int_equal(buf_append_byte(out, '.'), 0);
		assert_int_equal(buf_append_byte(out, content.ptr[i]), 0);
		start = content.ptr[i] == '\n';
	}
	assert_int_equal(buf_append_str(out, start ? ".\r\n" : "\r\n.\r\n"), 0);
}

static void test_stuffing_equals_the_plainest_way_for_random_content_and_cuts(void **state)
{
	struct rng_seeded rng;
	char content[600];

	(void)state;
	rng_seeded_init(&rng, 3);
	for (int round = 0; round < 3000; round++) {
		size_t len = rng_below(&rng.rng, sizeof(content)) + 1, portion = 1 + rng_below(&rng.rng, 50);
		struct buf wire, wanted;

		for (size_t i = 0; i < len; i++)
			content[i] = "..\r\n\nab"[rng_below(&rng.rng, 7)];
		buf_init(&wire, 1 << 20);
		buf_init(&wanted, 1 << 20);
		send_content(slice_of(content, len), portion, &wire);
		stuff_plainly(slice_of(content, len), &wanted);
		assert_true(slice_eq(buf_slice(&wire), buf_slice(&wanted)));
		buf_fini(&wire);
		buf_fini(&wanted);
	}
}

static void test_a_large_message_never_fills_the_memory(void **state)
{
	size_t len = 5 * 1024 * 1024;
	char *content = xmalloc(len);
	struct buf wire, wanted;

	(void)state;
	for (size_t i = 0; i < len; i++)
		content[i] = i % 50 == 0 ? '\n' : '.';
	buf_init(&wire, 64 << 20);
	buf_init(&wanted, 64 << 20);
	send_content(slice_of(content, len), 60000, &wire);
	stuff_plainly(slice_of(content, len), &wanted);
	assert_true(slice_eq(buf_slice(&wire), buf_slice(&wanted)));
	buf_fini(&wire);
	buf_fini(&wanted);
	free(content);
}

static void test_content_that_is_not_as_long_as_announced_is_broken_off(void **state)
{
	struct peer_setup setup = plain;

	(void)state;
#define SHORT "the content is shorter than it was announced\n"
#define LONG "the content is longer than it was announced\n"
	setup.content = "Subject: x\r\n\r\nhell\r\n";
	peer_play(&setup, TO_BODY "C: Subject: x\nC: \nC: hell\n= result 0 aborted data 0 " SHORT "= done\n"
				  "= failed aborted data 0 " SHORT);
	peer_play(&setup, CHUNKING "> send 0\n= need_body\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nC: BDAT 21 LAST\n"
				   "C: Subject: x\nC: \nC: hell\n= result 0 aborted mail 0 " SHORT "= done\n"
				   "= failed aborted mail 0 " SHORT);
	setup.keeps_body_to_itself = true;
	setup.content = "Subject: x\r\n\r\nhello\r\n!";
	peer_play(&setup, TO_BODY "> feed 21\nC: Subject: x\nC: \nC: hello\n> feed 1\n= result 0 aborted data 0 " LONG
				  "= done\n"
				  "= failed aborted data 0 " LONG "> end\n");
}

static void test_an_abort_never_ends_the_message(void **state)
{
	(void)state;
#define GONE "the content cannot be read\n"
	peer_play(&by_hand, TO_BODY
		  "> feed 12\nC: Subject: x\n> abort the content cannot be read\n= result 0 aborted data 0 " GONE
		  "= done\n= failed aborted data 0 " GONE "> end\n");
	peer_play(&by_hand,
		  CHUNKING "> send 0\n= need_body\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nC: BDAT 21 LAST\n"
			   "S: 250 ok\nS: 550 5.1.1 no\n= result 0 replied rcpt 550 5.1.1 no\n"
			   "> abort the content cannot be read\n= done\n= failed aborted data 0 " GONE);
	/* When it is out already, an abort does not call it back. */
	peer_play(&plain, TO_DOT "> abort stopping\n= result 0 aborted dot 0 stopping +taken\n= done\n"
				 "= failed aborted dot 0 stopping +taken\n");
	peer_play(&plain, MINIMAL "> abort stopping\n= failed aborted none 0 stopping\n");
}

/* The server has the whole message when it has the last octet: that one is not given before the end. */
static void test_bdat_holds_the_last_octet_until_the_end(void **state)
{
	(void)state;
	for (int aborts = 0; aborts < 2; aborts++) {
		struct smtp_client *client = smtp_client_new(&plain.options, 0);
		static const char *const replies[] = {"220 x\r\n", "250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n"};
		struct smtp_client_event event;
		struct slice out;

		for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
			smtp_client_input(client, slice_of_str(replies[i]));
			while (smtp_client_next(client, &event))
				if (event.type == SMTP_CLIENT_READY)
					smtp_client_send(client, &transactions[0]);
			out = smtp_client_output(client);
			if (i == 0)
				smtp_client_output_sent(client, SIZE_MAX);
		}
		assert_int_equal(smtp_client_body(client, SLICE("Subject: x\r\n\r\nhello\r\n")), CONTENT);
		out = smtp_client_output(client);
		assert_true(slice_has_prefix(slice_from(out, out.len - 6), SLICE("hello\r")));
		if (aborts)
			smtp_client_abort(client, "gone");
		smtp_client_body_end(client);
		out = smtp_client_output(client);
		assert_int_equal(out.ptr[out.len - 1], aborts ? '\r' : '\n');
		smtp_client_free(&client);
	}
}

static void test_a_large_message_with_bdat_waits_for_its_recipients(void **state)
{
	(void)state;
	peer_play(&plain, CHUNKING "> send 3\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nS: 250 ok\nS: 550 no\n"
				   "= result 0 replied rcpt 550 no\n= done reusable\n");
	peer_play(&by_hand, CHUNKING "> send 3\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nS: 250 ok\nS: 250 ok\n"
				     "= need_body\nC: BDAT 65537 LAST\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_dots_are_doubled_at_the_start_of_lines),
	    cmocka_unit_test(test_stuffing_equals_the_plainest_way_for_random_content_and_cuts),
	    cmocka_unit_test(test_a_large_message_never_fills_the_memory),
	    cmocka_unit_test(test_content_that_is_not_as_long_as_announced_is_broken_off),
	    cmocka_unit_test(test_an_abort_never_ends_the_message),
	    cmocka_unit_test(test_bdat_holds_the_last_octet_until_the_end),
	    cmocka_unit_test(test_a_large_message_with_bdat_waits_for_its_recipients),
	};
	return cmocka_run_group_tests_name("client, content", tests, NULL, NULL);
}
