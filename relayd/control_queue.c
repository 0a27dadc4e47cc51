/*
 * GET /v1/queue - the listing, written piece by piece while the client reads, so that a million messages stall nothing
 *
 * SORTED    up to SORTED_MAX rows: a walk over the index keeps the best so many keys and ids, then their rows are
 *           written. Memory is 32 bytes a row, whatever the queue's length. The next page begins behind the last key.
 * UNSORTED  more rows, when no order was asked for: written as the index has them, in one walk.
 *
 * What comes or goes meanwhile may or may not be in it; what stays comes once.
 */
#include "relayd/control_filter.h"

#include "base/base.h"
#include "base/msgid.h"

#include <stdlib.h>

enum {
	LIMIT_DEFAULT = 1000,
	SORTED_MAX = 10000,
	/* One step: about two milliseconds of work, in looks at a place of the index. */
	STEP_WORK = 10000,
	READ_WORK = 50,
	STEP_BYTES = 32 * 1024,
	/* More outcomes are not looked up for a row's reason. */
	ROW_OUTCOMES_MAX = 4,
};

/* Where a message stands in the order; the smallest comes first. */
struct place {
	int64_t key;
	uint64_t id;
};

typedef int64_t sort_key(const struct queue_brief *brief);

struct listing {
	struct control *control;
	struct control_filter filter;
	sort_key *key; /* NULL: unsorted */
	struct place after;
	bool has_after, as_lines;
	bool begun, walked, dropped, more; /* dropped: some are behind the page */
	struct place *best; /* `count` of them, room for 2 * (limit + 1); the first `settled` are in order */
	size_t count, settled, next;
	struct place last; /* written */
	int64_t limit, listed;
	uint64_t cursor;
	unsigned work;
	struct buf *out;
};

static void listing_free(void *ctx)
{
	struct listing *listing = ctx;

	control_filter_fini(&listing->filter);
	free(listing->best);
	free(listing);
}

/* ---- the order ---- */

static int64_t by_age(const struct queue_brief *brief)
{
	return brief->arrived_wall;
}

/* What is being attempted comes first, what is held last. */
static int64_t by_next(const struct queue_brief *brief)
{
	if (brief->state == STATE_HELD)
		return INT64_MAX;
	return brief->next_attempt_wall == INT64_MAX ? 0 : brief->next_attempt_wall;
}

static int64_t by_attempts(const struct queue_brief *brief)
{
	return -(int64_t)brief->attempts;
}

static int64_t by_size(const struct queue_brief *brief)
{
	return -(int64_t)MIN(brief->bytes, (uint64_t)INT64_MAX);
}

static const struct {
	const char *name;
	sort_key *key;
} orders[] = {{"age", by_age}, {"next", by_next}, {"attempts", by_attempts}, {"size", by_size}};

static int compare(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* Sorts, and drops those behind the limit; one more is kept to know that there is more. */
static void settle(struct listing *listing)
{
	if (listing->count > 0)
		qsort(listing->best, listing->count, sizeof(*listing->best), compare);
	listing->dropped |= listing->count > (size_t)listing->limit + 1;
	listing->count = MIN(listing->count, (size_t)listing->limit + 1);
	listing->settled = listing->count;
}

static bool is_on_earlier_page(const struct listing *listing, const struct place *place)
{
	return listing->has_after && compare(place, &listing->after) <= 0;
}

static bool is_behind(const struct listing *listing, const struct place *place)
{
	return listing->settled > (size_t)listing->limit && compare(place, &listing->best[listing->settled - 1]) > 0;
}

static void keep(struct listing *listing, const struct place *place)
{
	size_t cap = 2 * ((size_t)listing->limit + 1);

	if (!listing->best)
		listing->best = xreallocarray(NULL, cap, sizeof(*listing->best));
	listing->best[listing->count++] = *place;
	if (listing->count == cap)
		settle(listing);
}

/* ---- rows ---- */

static void append_object(struct listing *listing, json_t *row)
{
	if (!listing->as_lines)
		buf_append_str(listing->out, listing->listed > 0 ? ",\n" : "\n");
	BUG_ON(control_dump(listing->out, row) != 0);
	if (listing->as_lines)
		buf_append_byte(listing->out, '\n');
	json_decref(row);
	listing->listed++;
}

/* True: it meets the conditions. */
static bool list(struct listing *listing, const struct queue_brief *brief)
{
	struct queue *queue = listing->control->options.queue;
	bool with_outcomes = brief->recipients <= ROW_OUTCOMES_MAX && brief->attempts > 0;
	struct queue_message message;
	struct queue_brief now;
	bool takes = false;

	listing->work += READ_WORK * (with_outcomes ? 1 + brief->recipients : 1);
	if (queue_read_envelope(queue, brief->id, with_outcomes ? QUEUE_READ_OUTCOMES : 0, &message) == 0) {
		takes = control_filter_takes_message(&listing->filter, listing->control, &message);
		if (takes && listing->listed < listing->limit)
			append_object(listing, control_row(listing->control, brief, &message));
		queue_message_free(&message);
	} else if (!control_filter_wants_message(&listing->filter) && queue_brief(queue, brief->id, &now) == 0) {
		takes = true; /* perhaps it has only now been found damaged, and put aside */
		if (listing->listed < listing->limit)
			append_object(listing, control_row(listing->control, &now, NULL));
	}
	return takes;
}

/* ---- the walks ---- */

static bool takes(struct listing *listing, const struct queue_brief *brief)
{
	struct queue_message message;
	bool takes;

	if (!control_filter_wants_message(&listing->filter))
		return true;
	listing->work += READ_WORK;
	if (queue_read_envelope(listing->control->options.queue, brief->id, 0, &message) != 0)
		return false;
	listing->work += (unsigned)message.envelope.recipient_count;
	takes = control_filter_takes_message(&listing->filter, listing->control, &message);
	queue_message_free(&message);
	return takes;
}

static void visit(void *ctx, const struct queue_brief *brief)
{
	struct listing *listing = ctx;
	struct place place;

	if (!control_filter_takes_brief(&listing->filter, brief, control_now_wall(listing->control)))
		return;
	if (!listing->key) {
		bool is_full = listing->listed == listing->limit;
		listing->more |= list(listing, brief) && is_full;
		return;
	}
	place = (struct place){listing->key(brief), brief->id};
	if (is_on_earlier_page(listing, &place) || (listing->dropped && is_behind(listing, &place)))
		return;
	if (takes(listing, brief))
		keep(listing, &place);
}

static void walk(struct listing *listing, size_t before)
{
	while (!listing->walked && listing->work < STEP_WORK && buf_len(listing->out) - before < STEP_BYTES) {
		queue_iterate(listing->control->options.queue, &listing->cursor, 1, visit, listing);
		listing->work++;
		listing->walked = listing->cursor == 0 || listing->more;
	}
	if (listing->walked && listing->key)
		settle(listing);
}

static void write_sorted(struct listing *listing, size_t before)
{
	struct queue_brief brief;

	while (listing->next < listing->count && listing->listed < listing->limit && listing->work < STEP_WORK &&
	       buf_len(listing->out) - before < STEP_BYTES) {
		listing->last = listing->best[listing->next++];
		listing->work++;
		if (queue_brief(listing->control->options.queue, listing->last.id, &brief) == 0)
			list(listing, &brief);
	}
}

static bool is_over(struct listing *listing)
{
	if (!listing->walked)
		return false;
	if (!listing->key)
		return true;
	listing->more = listing->next < listing->count || listing->dropped;
	return listing->next == listing->count || listing->listed == listing->limit;
}

static void append_end(struct listing *listing)
{
	json_t *more = json_boolean(listing->more), *next = json_null();
	char id[MSGID_CHARS + 1];

	if (listing->more && listing->key) {
		msgid_format(listing->last.id, id);
		next = json_sprintf("%lld.%s", (long long)listing->last.key, id);
	}
	if (listing->as_lines) {
		append_object(listing, json_pack("{s:o, s:o}", "more", more, "next", next));
		return;
	}
	buf_append_str(listing->out, "],\n\"more\":");
	json_dump_callback(more, control_append_piece, listing->out, JSON_ENCODE_ANY);
	buf_append_str(listing->out, ",\"next\":");
	json_dump_callback(next, control_append_piece, listing->out, JSON_ENCODE_ANY);
	buf_append_str(listing->out, "}\n");
	json_decref(more);
	json_decref(next);
}

static enum http_more listing_next(void *ctx, struct buf *out)
{
	struct listing *listing = ctx;
	size_t before = buf_len(out);

	if (!listing->begun && !listing->as_lines)
		buf_append_str(out, "{\"messages\":[");
	listing->begun = true;
	listing->out = out;
	listing->work = 0;
	walk(listing, before);
	if (listing->walked && listing->key)
		write_sorted(listing, before);
	if (is_over(listing)) {
		append_end(listing);
		return HTTP_END;
	}
	if (buf_len(out) == before)
		buf_append_byte(out, '\n'); /* the client sees that we are at it */
	return HTTP_MORE;
}

/* ---- the request ---- */

static const char *value_of(const void *ctx, const char *name)
{
	return http_request_query(ctx, name);
}

static int parse_limit(struct listing *listing, const char *text, struct http_response *response)
{
	char *end = NULL;

	listing->limit = LIMIT_DEFAULT;
	if (!text)
		return 0;
	listing->limit = *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : 0;
	if (listing->limit > 0 && *end == '\0')
		return 0;
	control_refuse(response, 400, "limit wants a number above 0, not '%.64s'", text);
	return ERR_SYNTAX;
}

static int parse_order(struct listing *listing, const char *word, struct http_response *response)
{
	listing->key = listing->limit <= SORTED_MAX ? by_age : NULL;
	if (!word)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		if (strcmp(orders[i].name, word) != 0)
			continue;
		listing->key = orders[i].key;
		if (listing->limit <= SORTED_MAX)
			return 0;
		control_refuse(response, 400, "in an order limit is at most %d: ask for page after page", SORTED_MAX);
		return ERR_SYNTAX;
	}
	control_refuse(response, 400, "unknown order '%.64s'; there are age, next, attempts, size", word);
	return ERR_SYNTAX;
}

/* "next" of the page before, or the id of its last message, as long as that is in the queue. */
static int parse_after(struct listing *listing, const char *text, struct http_response *response)
{
	const char *dot = text ? strchr(text, '.') : NULL;
	struct queue_brief brief;
	char *end = NULL;

	if (!text)
		return 0;
	listing->has_after = true;
	if (!listing->key) {
		control_refuse(response, 400, "after goes with a limit of at most %d", SORTED_MAX);
		return ERR_SYNTAX;
	}
	if (!msgid_parse(slice_of_str(dot ? dot + 1 : text), &listing->after.id)) {
		control_refuse(response, 400, "after wants an id, or \"next\" of the page before");
		return ERR_SYNTAX;
	}
	if (dot) {
		listing->after.key = strtoll(text, &end, 10);
		if (end == dot && end > text)
			return 0;
		control_refuse(response, 400, "after wants an id, or \"next\" of the page before");
		return ERR_SYNTAX;
	}
	if (queue_brief(listing->control->options.queue, listing->after.id, &brief) == 0) {
		listing->after.key = listing->key(&brief);
		return 0;
	}
	control_refuse(response, 404, "%.64s has left the queue", text);
	return ERR_NOT_FOUND;
}

void control_get_queue(struct control *control, const struct http_request *request, json_t *body,
		       struct http_response *response)
{
	struct listing *listing = xcalloc(1, sizeof(*listing));
	const char *lines = http_request_query(request, "lines");

	(void)body;
	listing->control = control;
	listing->as_lines = lines && strcmp(lines, "0") != 0;
	if (parse_limit(listing, http_request_query(request, "limit"), response) != 0 ||
	    parse_order(listing, http_request_query(request, "sort"), response) != 0 ||
	    parse_after(listing, http_request_query(request, "after"), response) != 0 ||
	    control_filter_init(&listing->filter, value_of, request, response) != 0) {
		listing_free(listing);
		return;
	}
	if (listing->as_lines)
		response->content_type = "application/x-ndjson";
	response->stream_next = listing_next;
	response->stream_free = listing_free;
	response->stream_ctx = listing;
}
