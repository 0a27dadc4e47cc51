/* relayctl show - one message, with each attempt of each recipient. */
#include "base/base.h"
#include "relayctl/commands.h"
#include "relayctl/screen.h"

enum { MARGIN = 11 };

static void label(struct screen *screen, const char *name)
{
	screen_to(screen, 2);
	screen_print(screen, COLOUR_DIM, "%s", name);
	screen_to(screen, MARGIN);
}

static enum colour colour_of(const char *outcome)
{
	return strcmp(outcome, "delivered") == 0  ? COLOUR_GREEN
	       : strcmp(outcome, "deferred") == 0 ? COLOUR_YELLOW
	       : strcmp(outcome, "none") == 0	  ? COLOUR_NONE
						  : COLOUR_RED;
}

/* What the server said, or what happened: "mx.example.net[192.0.2.1] (rcpt) 450 4.2.0 come back later". */
static void print_reply(struct screen *screen, json_t *attempt)
{
	if (text_of(attempt, "host")[0])
		screen_print(screen, COLOUR_NONE, "%s ", text_of(attempt, "host"));
	screen_print(screen, COLOUR_NONE, "(%s)", text_of(attempt, "stage"));
	if (number_of(attempt, "code") > 0)
		screen_print(screen, COLOUR_NONE, " %lld", (long long)number_of(attempt, "code"));
	screen_print(screen, COLOUR_NONE, " %s %s", text_of(attempt, "enhanced"), text_of(attempt, "text"));
	screen_newline(screen);
}

/* The latest first. */
static void print_history(struct screen *screen, json_t *history)
{
	json_t *attempt;
	char ago[24];
	size_t i;

	json_array_foreach(history, i, attempt)
	{
		screen_to(screen, MARGIN);
		screen_print(screen, COLOUR_DIM, "%lld.", (long long)number_of(attempt, "attempts"));
		screen_to(screen, MARGIN + 4);
		if (json_is_string(json_object_get(attempt, "at")))
			screen_print(screen, COLOUR_NONE, "%s (%s ago) ", text_of(attempt, "at"),
				     age_of(attempt, "ago_sec", ago));
		screen_print(screen, colour_of(text_of(attempt, "outcome")), "%s", text_of(attempt, "outcome"));
		if (strcmp(text_of(attempt, "class"), "none") != 0)
			screen_print(screen, COLOUR_NONE, ", %s", text_of(attempt, "class"));
		screen_print(screen, COLOUR_NONE, ": ");
		print_reply(screen, attempt);
	}
}

static void print_next(struct screen *screen, json_t *recipient)
{
	json_t *next = json_object_get(recipient, "next_attempt_sec");
	const char *why = text_of(recipient, "why");
	char wait[24];

	if (json_integer_value(next) <= 0 && !why[0])
		return;
	screen_to(screen, MARGIN);
	if (json_integer_value(next) > 0)
		screen_print(screen, COLOUR_CYAN, "next attempt in %s%s",
			     ctl_format_age(json_integer_value(next), wait, sizeof(wait)), why[0] ? ": " : "");
	screen_print(screen, COLOUR_NONE, "%s", why);
	screen_newline(screen);
}

/* Before aliases and rewriting. */
static void print_submitted(struct screen *screen, json_t *object, const char *key)
{
	if (text_of(object, key)[0])
		screen_print(screen, COLOUR_DIM, " (submitted as %s)", text_of(object, key));
}

static void print_recipient(struct screen *screen, json_t *recipient)
{
	json_t *history = json_object_get(recipient, "history");
	const char *outcome = text_of(recipient, "outcome");
	int64_t attempts = number_of(recipient, "attempts");

	label(screen, "to");
	screen_print(screen, COLOUR_BOLD, "%s", text_of(recipient, "address"));
	print_submitted(screen, recipient, "submitted_as");
	screen_print(screen, COLOUR_NONE, ": ");
	screen_print(screen, colour_of(outcome), "%s", strcmp(outcome, "none") == 0 ? "waiting" : outcome);
	if (attempts > 0)
		screen_print(screen, COLOUR_NONE, " after %lld attempt%s", (long long)attempts, plural(attempts));
	screen_newline(screen);
	print_next(screen, recipient);
	if (json_array_size(history) > 0) {
		print_history(screen, history);
	} else if (text_of(recipient, "text")[0]) {
		screen_to(screen, MARGIN);
		print_reply(screen, recipient);
	}
}

static void print_header(struct screen *screen, json_t *header)
{
	json_t *line;
	size_t i;

	if (json_array_size(header) == 0)
		return;
	label(screen, "header");
	json_array_foreach(header, i, line)
	{
		screen_to(screen, MARGIN);
		screen_print(screen, COLOUR_DIM, "%s", json_string_value(line));
		screen_newline(screen);
	}
}

static void print_message(struct screen *screen, json_t *message)
{
	json_t *recipient;
	char age[24], bytes[24];
	size_t i;

	screen_print(screen, COLOUR_BOLD, "%s ", text_of(message, "id"));
	screen_print(screen, COLOUR_NONE, "%s, %s old, %s", text_of(message, "state"),
		     ctl_format_age(number_of(message, "age"), age, sizeof(age)),
		     ctl_format_bytes(number_of(message, "bytes"), bytes, sizeof(bytes)));
	screen_newline(screen);
	if (strcmp(text_of(message, "state"), "held") == 0) {
		screen_to(screen, MARGIN);
		screen_print(screen, COLOUR_CYAN, "held by an operator: relayctl release %s", text_of(message, "id"));
		screen_newline(screen);
	}
	label(screen, "from");
	screen_print(screen, COLOUR_NONE, "%s", text_of(message, "sender")[0] ? text_of(message, "sender") : "<>");
	print_submitted(screen, message, "submitted_sender");
	screen_newline(screen);
	label(screen, "user");
	screen_print(screen, COLOUR_NONE, "%s, class %s, by %s",
		     text_of(message, "user")[0] ? text_of(message, "user") : "(trusted)", text_of(message, "class"),
		     text_of(message, "client"));
	screen_newline(screen);
	if (text_of(message, "message_id")[0]) {
		label(screen, "message");
		screen_print(screen, COLOUR_NONE, "%s", text_of(message, "message_id"));
		screen_newline(screen);
	}
	json_array_foreach(json_object_get(message, "recipients"), i, recipient) print_recipient(screen, recipient);
	print_header(screen, json_object_get(message, "header"));
}

int cmd_show(struct ctl *ctl, int argc, char **argv)
{
	struct screen screen;
	struct buf path;
	json_t *message;
	const char *id;
	int rc = ctl_parse(argc, argv, NULL, 0, &id, 1);

	if (rc != 1)
		return rc < 0 ? CTL_USAGE : ctl_wrong_usage("show");
	buf_init(&path, 64 * 1024);
	buf_append_str(&path, "message");
	ctl_add_query(&path, "id", id);
	buf_append_byte(&path, '\0');
	rc = ctl_request(ctl, buf_slice(&path).ptr, NULL, &message);
	buf_fini(&path);
	if (rc != CTL_OK)
		return rc;
	screen_init(&screen, ctl);
	screen.wraps = true;
	if (ctl->json)
		ctl_print_json(message);
	else
		print_message(&screen, message);
	json_decref(message);
	return CTL_OK;
}
