/* Every verb in every state: the reply's code and the state behind it, against a table written down here once more. */
#include "support_transcript.h"

#include <stdio.h>
#include <stdlib.h>

struct cell {
	int code; /* 0: no reply yet */
	const char *next;
};

#define SAME NULL /* the state stays */

enum { STATES = 4 };
static const char *const states[STATES] = {"START", "READY", "MAIL", "RCPT"};
static const char *const ways[STATES] = {"", "EHLO a\r\n", "EHLO a\r\nMAIL FROM:<a@b>\r\n",
					 "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"};

static const struct row {
	const char *command;
	struct cell cells[STATES];
} table[] = {
    {"EHLO x", {{250, "READY"}, {250, "READY"}, {250, "READY"}, {250, "READY"}}},
    {"HELO x", {{250, "READY"}, {250, "READY"}, {250, "READY"}, {250, "READY"}}},
    {"EHLO", {{501, SAME}, {501, SAME}, {501, SAME}, {501, SAME}}},
    {"MAIL FROM:<a@b>", {{503, SAME}, {250, "MAIL"}, {503, SAME}, {503, SAME}}},
    {"MAIL FROM:<a", {{503, SAME}, {501, SAME}, {503, SAME}, {503, SAME}}},
    {"RCPT TO:<c@d>", {{503, SAME}, {503, SAME}, {250, "RCPT"}, {250, "RCPT"}}},
    {"RCPT TO:<>", {{503, SAME}, {503, SAME}, {501, SAME}, {501, SAME}}},
    {"DATA", {{503, SAME}, {503, SAME}, {554, SAME}, {354, "DATA"}}},
    {"DATA x", {{503, SAME}, {503, SAME}, {554, SAME}, {501, SAME}}},
    {"RSET", {{250, "START"}, {250, "READY"}, {250, "READY"}, {250, "READY"}}},
    {"RSET x", {{501, SAME}, {501, SAME}, {501, SAME}, {501, SAME}}},
    {"NOOP", {{250, SAME}, {250, SAME}, {250, SAME}, {250, SAME}}},
    {"NOOP x", {{250, SAME}, {250, SAME}, {250, SAME}, {250, SAME}}},
    {"QUIT", {{221, "CLOSED"}, {221, "CLOSED"}, {221, "CLOSED"}, {221, "CLOSED"}}},
    {"STARTTLS", {{503, SAME}, {220, "TLS"}, {503, SAME}, {503, SAME}}},
    {"STARTTLS x", {{503, SAME}, {501, SAME}, {503, SAME}, {503, SAME}}},
    {"AUTH PLAIN AGFwcABzZWNyZXQ=", {{503, SAME}, {235, "READY"}, {503, SAME}, {503, SAME}}},
    {"AUTH LOGIN", {{503, SAME}, {334, "AUTH_LINE"}, {503, SAME}, {503, SAME}}},
    {"AUTH X", {{503, SAME}, {504, SAME}, {503, SAME}, {503, SAME}}},
    {"VRFY x", {{252, SAME}, {252, SAME}, {252, SAME}, {252, SAME}}},
    {"HELP", {{214, SAME}, {214, SAME}, {214, SAME}, {214, SAME}}},
    {"EXPN x", {{502, SAME}, {502, SAME}, {502, SAME}, {502, SAME}}},
    {"ETRN x", {{502, SAME}, {502, SAME}, {502, SAME}, {502, SAME}}},
    {"ATRN x", {{502, SAME}, {502, SAME}, {502, SAME}, {502, SAME}}},
    {"BURL x", {{502, SAME}, {502, SAME}, {502, SAME}, {502, SAME}}},
    {"TURN", {{502, SAME}, {502, SAME}, {502, SAME}, {502, SAME}}},
    {"SEND x", {{502, SAME}, {502, SAME}, {502, SAME}, {502, SAME}}},
    {"SOML x", {{502, SAME}, {502, SAME}, {502, SAME}, {502, SAME}}},
    {"SAML x", {{502, SAME}, {502, SAME}, {502, SAME}, {502, SAME}}},
    {"BDAT 1 LAST", {{502, "CLOSED"}, {502, "CLOSED"}, {502, "CLOSED"}, {502, "CLOSED"}}},
    {"GET / HTTP/1.1", {{554, "CLOSED"}, {554, "CLOSED"}, {554, "CLOSED"}, {554, "CLOSED"}}},
    {"POST / HTTP/1.1", {{554, "CLOSED"}, {554, "CLOSED"}, {554, "CLOSED"}, {554, "CLOSED"}}},
    {"CONNECT x", {{554, "CLOSED"}, {554, "CLOSED"}, {554, "CLOSED"}, {554, "CLOSED"}}},
    {"XCLIENT x", {{500, SAME}, {500, SAME}, {500, SAME}, {500, SAME}}},
    {"FOO", {{500, SAME}, {500, SAME}, {500, SAME}, {500, SAME}}},
    {"", {{500, SAME}, {500, SAME}, {500, SAME}, {500, SAME}}},
};

/* What happened since `work()` was last called. */
struct seen {
	int code; /* of the first reply line; 0: none */
	size_t lines;
	int mails, aborts;
};

static void flush(struct smtp_server *s, struct seen *seen)
{
	struct slice out = smtp_server_output(s);

	if (out.len && seen->code == 0)
		seen->code = (int)strtol(out.ptr, NULL, 10);
	for (size_t i = 0; i < out.len; i++)
		seen->lines += out.ptr[i] == '\n';
	smtp_server_output_sent(s, out.len);
}

static struct seen work(struct smtp_server *s, const char *line)
{
	struct smtp_server_event event;
	struct seen seen = {0};
	size_t before;

	smtp_server_input(s, slice_of_str(line));
	do {
		while (smtp_server_next(s, &event)) {
			seen.mails += event.type == SMTP_SERVER_MAIL;
			seen.aborts += event.type == SMTP_SERVER_ABORTED;
			smtp_server_auth_done(s, SMTP_SERVER_AUTH_OK);
			smtp_server_mail_done(s, NULL);
			smtp_server_rcpt_done(s, NULL);
			smtp_server_data_done(s, NULL);
			smtp_server_stored(s, NULL);
		}
		before = smtp_server_output(s).len;
		flush(s, &seen);
	} while (before);
	return seen;
}

static struct smtp_server *server_in(const struct smtp_server_options *options, int state)
{
	struct smtp_server *s = smtp_server_new(options, 0);

	work(s, ways[state]);
	assert_string_equal(smtp_server_state_name(s), states[state]);
	return s;
}

static const struct smtp_server_options all = {
    .hostname = "relay.test", .auth = true, .allow_plaintext_auth = true, .starttls = true, .trusted = true};

static void every_verb_in_every_state(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		for (int from = 0; from < STATES; from++) {
			const struct cell *cell = &table[i].cells[from];
			struct smtp_server *s = server_in(&all, from);
			char line[100];
			struct seen seen;

			snprintf(line, sizeof(line), "%s\r\n", table[i].command);
			seen = work(s, line);
			if (seen.code != cell->code ||
			    strcmp(smtp_server_state_name(s), cell->next ? cell->next : states[from]) != 0)
				fail_msg("%s in %s: %d and %s", table[i].command, states[from], seen.code,
					 smtp_server_state_name(s));
			/* A transaction ends exactly when its state is left for READY or the end. */
			assert_int_equal(seen.aborts, from >= 2 && cell->next && strcmp(cell->next, "RCPT") != 0 &&
							  strcmp(cell->next, "DATA") != 0);
			smtp_server_free(&s);
		}
	}
}

/* Neither TLS nor AUTH: nothing that moves mail gets through, whatever the state and the order. */
static void strangers_reach_nothing(void **state)
{
	struct smtp_server_options options[] = {
	    {.hostname = "relay.test", .auth = true, .starttls = true, .tls_required = true},
	    {.hostname = "relay.test", .auth = true, .starttls = true},
	    {.hostname = "relay.test"},
	};

	(void)state;
	for (size_t o = 0; o < ARRAY_LEN(options); o++) {
		for (size_t i = 0; i < ARRAY_LEN(table); i++) {
			for (size_t j = 0; j < ARRAY_LEN(table); j++) {
				struct smtp_server *s = smtp_server_new(&options[o], 0);
				char lines[300];
				struct seen seen;

				snprintf(lines, sizeof(lines),
					 "EHLO a\r\n%s\r\n%s\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n", table[i].command,
					 table[j].command);
				/* AUTH LOGIN would swallow a line; the host says yes to every password. */
				if (strncmp(table[i].command, "AUTH P", 6) && strncmp(table[j].command, "AUTH P", 6)) {
					seen = work(s, lines);
					assert_int_equal(seen.mails, 0);
				}
				smtp_server_free(&s);
			}
		}
	}
}

/* In the states where no command is read, none runs. */
static void no_command_runs_elsewhere(void **state)
{
	static const struct {
		const char *way, *name;
	} elsewhere[] = {
	    {"DATA\r\n", "DATA"},
	    {"DATA\r\na\nb\r\n", "SWALLOW"},
	    {"QUIT\r\n", "CLOSED"},
	};

	(void)state;
	for (size_t e = 0; e < ARRAY_LEN(elsewhere); e++) {
		for (size_t i = 0; i < ARRAY_LEN(table); i++) {
			struct smtp_server *s = server_in(&all, 3);
			char line[100];
			struct seen seen;

			work(s, elsewhere[e].way);
			snprintf(line, sizeof(line), "%s\r\n", table[i].command);
			seen = work(s, line);
			assert_int_equal(seen.code, 0);
			assert_string_equal(smtp_server_state_name(s), elsewhere[e].name);
			smtp_server_free(&s);
		}
	}
}

/* In AUTH's line, a command is a bad response; while the host is waited for, commands wait too. */
static void commands_in_auth_and_while_waiting(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		struct smtp_server *s = server_in(&all, 1);
		struct smtp_server_event event;
		char line[100];
		struct seen seen;

		snprintf(line, sizeof(line), "%s\r\n", table[i].command);
		work(s, "AUTH LOGIN\r\n");
		seen = work(s, line);
		assert_true(seen.code == 501 || seen.code == 535 || seen.code == 334);
		smtp_server_free(&s);

		s = server_in(&all, 1);
		smtp_server_input(s, SLICE("MAIL FROM:<a@b>\r\n"));
		smtp_server_input(s, slice_of_str(line));
		assert_true(smtp_server_next(s, &event));
		assert_int_equal(event.type, SMTP_SERVER_MAIL);
		assert_false(smtp_server_next(s, &event));
		assert_string_equal(smtp_server_state_name(s), "WAIT_MAIL");
		assert_int_equal(smtp_server_output(s).len, 0);
		smtp_server_free(&s);
	}
}

/* Every refusal carries an enhanced code of its class (RFC 2034), every reply is clean. */
static void every_reply_is_well_formed(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		for (int from = 0; from < STATES; from++) {
			struct smtp_server *s = server_in(&all, from);
			struct smtp_server_event event;
			char line[100];
			struct slice out;
			bool is_ehlo =
			    strncmp(table[i].command, "HELO", 4) == 0 || strncmp(table[i].command, "EHLO", 4) == 0;

			snprintf(line, sizeof(line), "%s\r\n", table[i].command);
			smtp_server_input(s, slice_of_str(line));
			while (smtp_server_next(s, &event)) {
				smtp_server_auth_done(s, SMTP_SERVER_AUTH_OK);
				smtp_server_mail_done(s, NULL);
				smtp_server_rcpt_done(s, NULL);
				smtp_server_data_done(s, NULL);
			}
			out = smtp_server_output(s);
			while (out.len) {
				ptrdiff_t end = slice_find(out, '\n');
				assert_true(end > 4 && out.ptr[end - 1] == '\r');
				for (ptrdiff_t k = 0; k < end - 1; k++)
					assert_true(out.ptr[k] >= ' ' && out.ptr[k] <= '~');
				if (out.ptr[0] != '3' && !(is_ehlo && out.ptr[0] == '2'))
					assert_true(out.ptr[4] == out.ptr[0] && out.ptr[5] == '.');
				out = slice_from(out, (size_t)end + 1);
			}
			smtp_server_free(&s);
		}
	}
}

static void every_name_is_there(void **state)
{
	(void)state;
	for (int i = 0; i < SMTP_SERVER_REASON_COUNT; i++)
		assert_true(strlen(smtp_server_reason_name((enum smtp_server_reason)i)) > 2);
	for (int i = 0; i <= SMTP_SERVER_CLOSE; i++)
		assert_true(strlen(smtp_server_event_name((enum smtp_server_event_type)i)) > 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_verb_in_every_state),  cmocka_unit_test(strangers_reach_nothing),
	    cmocka_unit_test(no_command_runs_elsewhere),  cmocka_unit_test(commands_in_auth_and_while_waiting),
	    cmocka_unit_test(every_reply_is_well_formed), cmocka_unit_test(every_name_is_there),
	};
	return cmocka_run_group_tests_name("smtp server: verbs and states", tests, NULL, NULL);
}
