/* relayctl tail - what happens in relayd, as it happens. */
#include "base/base.h"
#include "relayctl/commands.h"
#include "relayctl/screen.h"

#include <stdlib.h>

struct tail {
	struct ctl *ctl;
	struct screen screen;
	int64_t count, left; /* events to print; count 0: no end */
};

/* What is said elsewhere on the line. */
static bool is_shown(const char *key)
{
	static const char *const keys[] = {"time", "level", "event", "id", "from", "rcpt", "outcome", "text"};

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return false;
}

static enum colour colour_of(json_t *line)
{
	const char *event = text_of(line, "event"), *level = text_of(line, "level");

	if (strcmp(level, "error") == 0)
		return COLOUR_RED;
	if (strcmp(event, "delivered") == 0)
		return COLOUR_GREEN;
	return strcmp(level, "warn") == 0 || strcmp(event, "deferred") == 0 ? COLOUR_YELLOW : COLOUR_CYAN;
}

/* On a terminal the time of day is enough. */
static void print_time(struct screen *screen, const char *time)
{
	const char *day_end = strchr(time, 'T');

	if (screen->width > 0 && day_end)
		screen_print(screen, COLOUR_DIM, "%.8s", day_end + 1);
	else
		screen_print(screen, COLOUR_NONE, "%s", time);
}

static void print_field(struct screen *screen, const char *key, json_t *value)
{
	if (json_is_integer(value))
		screen_print(screen, COLOUR_NONE, " %s=%lld", key, (long long)json_integer_value(value));
	else if (json_is_string(value))
		screen_print(screen, COLOUR_NONE, " %s=%s", key, json_string_value(value));
}

static void print_line(struct screen *screen, json_t *line)
{
	const char *key;
	json_t *value;

	print_time(screen, text_of(line, "time"));
	screen_print(screen, COLOUR_NONE, " ");
	screen_print(screen, colour_of(line), "%s", text_of(line, "event"));
	if (text_of(line, "id")[0])
		screen_print(screen, COLOUR_BOLD, " %s", text_of(line, "id"));
	if (json_object_get(line, "from"))
		screen_print(screen, COLOUR_NONE, " %s", text_of(line, "from")[0] ? text_of(line, "from") : "<>");
	if (json_object_get(line, "rcpt"))
		screen_print(screen, COLOUR_NONE, " -> %s", text_of(line, "rcpt"));
	json_object_foreach(line, key, value)
	{
		if (!is_shown(key))
			print_field(screen, key, value);
	}
	if (text_of(line, "text")[0])
		screen_print(screen, COLOUR_NONE, ": %s", text_of(line, "text"));
	screen_newline(screen);
}

static bool on_line(void *ctx, json_t *line)
{
	struct tail *tail = ctx;

	if (tail->ctl->json) {
		json_dumpf(line, stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		print_line(&tail->screen, line);
	}
	/* The greeting is none. A reader that is gone ends it. */
	if (strcmp(text_of(line, "event"), "tail") != 0)
		tail->left--;
	return fflush(stdout) == 0 && (tail->count == 0 || tail->left > 0);
}

int cmd_tail(struct ctl *ctl, int argc, char **argv)
{
	static const char *const names[] = {"event",	 "level",  "id",	"user",	  "sender",
					    "recipient", "domain", "relayhost", "outcome"};
	static const char *const dashed[] = {"--event",	    "--level",	"--id",	       "--user",   "--sender",
					     "--recipient", "--domain", "--relayhost", "--outcome"};
	struct ctl_option options[ARRAY_LEN(names) + 1];
	const char *values[ARRAY_LEN(names)] = {0}, *count = NULL;
	struct tail tail = {.ctl = ctl};
	struct buf path;
	int rc;

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		options[i] = (struct ctl_option){dashed[i], &values[i], NULL};
	options[ARRAY_LEN(names)] = (struct ctl_option){"--count", &count, NULL};
	if (ctl_parse(argc, argv, options, ARRAY_LEN(options), NULL, 0) < 0)
		return CTL_USAGE;
	if (count && (tail.count = tail.left = strtoll(count, NULL, 10)) <= 0)
		return ctl_usage("--count wants a number above 0");
	screen_init(&tail.screen, ctl);
	buf_init(&path, 64 * 1024);
	buf_append_str(&path, "events");
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (values[i])
			ctl_add_query(&path, names[i], values[i]);
	buf_append_byte(&path, '\0');
	rc = ctl_stream(ctl, buf_slice(&path).ptr, NULL, on_line, &tail);
	buf_fini(&path);
	return rc;
}
