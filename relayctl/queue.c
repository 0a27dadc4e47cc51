/* relayctl queue - what waits, and why; rows are printed as they come. */
#include "base/base.h"
#include "relayctl/commands.h"
#include "relayctl/screen.h"

#include <stdlib.h>

enum { PAGE_ROWS = 10000, UNSORTED_LIMIT = 2000000000 };

struct listing {
	struct ctl *ctl;
	struct screen screen;
	struct ctl_filter filter;
	const char *limit, *sort, *after;
	bool all;
	int64_t rows;
	bool has_end, more; /* the last line of a page came; there are more pages */
	char next[64];	    /* where the next one begins; "": the order has no pages */
};

static enum colour colour_of(const char *state)
{
	return strcmp(state, "deferred") == 0	? COLOUR_YELLOW
	       : strcmp(state, "held") == 0	? COLOUR_RED
	       : strcmp(state, "inflight") == 0 ? COLOUR_GREEN
						: COLOUR_NONE;
}

static void print_reason(struct screen *screen, json_t *row)
{
	json_t *next = json_object_get(row, "next_attempt_sec");
	int64_t attempts = number_of(row, "attempts");
	char wait[24];

	if (!text_of(row, "reason")[0])
		return;
	screen_to(screen, 15);
	if (json_integer_value(next) > 0)
		screen_print(screen, COLOUR_CYAN, "next in %s",
			     ctl_format_age(json_integer_value(next), wait, sizeof(wait)));
	else
		screen_print(screen, COLOUR_CYAN, "%s", json_is_integer(next) ? "next now" : text_of(row, "state"));
	if (attempts > 0)
		screen_print(screen, COLOUR_NONE, " after %lld attempt%s", (long long)attempts, plural(attempts));
	screen_print(screen, COLOUR_NONE, "; ");
	screen_print(screen, COLOUR_DIM, "%s", text_of(row, "reason"));
	screen_newline(screen);
}

static void print_row(struct screen *screen, json_t *row)
{
	json_t *recipients = json_object_get(row, "recipients");
	int64_t count = number_of(row, "recipient_count");
	char age[24], bytes[24];

	screen_print(screen, COLOUR_BOLD, "%s", text_of(row, "id"));
	screen_to(screen, 15);
	screen_print(screen, colour_of(text_of(row, "state")), "%s", text_of(row, "state"));
	screen_to(screen, 24);
	screen_print(screen, COLOUR_NONE, "%4s %9s", ctl_format_age(number_of(row, "age"), age, sizeof(age)),
		     ctl_format_bytes(number_of(row, "bytes"), bytes, sizeof(bytes)));
	screen_to(screen, 40);
	screen_print(screen, COLOUR_NONE, "%s -> %s", text_of(row, "sender")[0] ? text_of(row, "sender") : "<>",
		     json_array_size(recipients) ? json_string_value(json_array_get(recipients, 0)) : "?");
	if (count > 1)
		screen_print(screen, COLOUR_DIM, " +%lld", (long long)count - 1);
	screen_newline(screen);
	print_reason(screen, row);
}

static bool on_line(void *ctx, json_t *line)
{
	struct listing *listing = ctx;

	if (json_object_get(line, "more")) {
		listing->has_end = true;
		listing->more = json_is_true(json_object_get(line, "more"));
		snprintf(listing->next, sizeof(listing->next), "%s", text_of(line, "next"));
		return true;
	}
	if (listing->ctl->json) {
		fputs(listing->rows > 0 ? ",\n" : "[\n", stdout);
		json_dumpf(line, stdout, JSON_COMPACT);
	} else {
		print_row(&listing->screen, line);
	}
	listing->rows++;
	return true;
}

static void add_number(struct buf *path, const char *name, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%lld", (long long)value);
	ctl_add_query(path, name, text);
}

static int ask_page(struct listing *listing)
{
	struct buf path;
	int rc;

	buf_init(&path, 64 * 1024);
	buf_append_str(&path, "queue?lines=1");
	for (size_t i = 0; ctl_filter_names[i]; i++)
		if (listing->filter.values[i])
			ctl_add_query(&path, ctl_filter_names[i], listing->filter.values[i]);
	if (listing->limit)
		ctl_add_query(&path, "limit", listing->limit);
	else if (listing->all)
		add_number(&path, "limit", listing->sort || listing->after ? PAGE_ROWS : UNSORTED_LIMIT);
	if (listing->sort)
		ctl_add_query(&path, "sort", listing->sort);
	if (listing->after)
		ctl_add_query(&path, "after", listing->after);
	buf_append_byte(&path, '\0');
	listing->has_end = listing->more = false;
	rc = ctl_stream(listing->ctl, buf_slice(&path).ptr, NULL, on_line, listing);
	buf_fini(&path);
	if (rc == CTL_OK && !listing->has_end)
		rc = ctl_failed("relayd has broken off the listing");
	return rc;
}

/* In an order, all of it comes page by page. */
static int ask_all(struct listing *listing)
{
	char after[64];
	int rc = ask_page(listing);

	while (rc == CTL_OK && listing->all && listing->more && listing->next[0]) {
		memcpy(after, listing->next, sizeof(after));
		listing->after = after;
		rc = ask_page(listing);
	}
	return rc;
}

static void print_end(struct listing *listing)
{
	if (listing->rows == 0)
		printf("nothing waits%s\n", ctl_filter_is_empty(&listing->filter) ? "" : " that matches");
	if (listing->more && listing->next[0])
		printf("... and more: --after %s\n", listing->next);
	else if (listing->more)
		printf("... and more: --all shows them\n");
}

int cmd_queue(struct ctl *ctl, int argc, char **argv)
{
	struct listing listing = {.ctl = ctl};
	struct ctl_option options[CTL_FILTER_MAX + 4];
	size_t count = ctl_filter_options(&listing.filter, options);
	int rc;

	options[count++] = (struct ctl_option){"--limit", &listing.limit, NULL};
	options[count++] = (struct ctl_option){"--sort", &listing.sort, NULL};
	options[count++] = (struct ctl_option){"--after", &listing.after, NULL};
	options[count++] = (struct ctl_option){"--all", NULL, &listing.all};
	if (ctl_parse(argc, argv, options, count, NULL, 0) < 0)
		return CTL_USAGE;
	if (listing.all && listing.limit)
		return ctl_usage("--all and --limit do not go together");
	screen_init(&listing.screen, ctl);
	rc = ask_all(&listing);
	if (rc == CTL_OK && ctl->json) /* what was broken off is no document, and must not look like one */
		puts(listing.rows > 0 ? "\n]" : "[]");
	else if (rc == CTL_OK)
		print_end(&listing);
	return rc;
}
