#include "queue/verify.h"

#include "base/base.h"
#include "base/msgid.h"
#include "base/utf8.h"
#include "queue/internal.h"
#include "queue/recovery.h"
#include "queue/xxh3.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOOKS 3 /* a journal that changes under our eyes looks damaged at times; damage stays */
#define PAUSE_NS (200 * 1000 * 1000)

static const struct journal_rules all_kept;

/* ---- A spool that is only looked at ---- */

struct view {
	int spool_fd;
	struct disk *disk;
	struct segments segments;
	struct index *index;
	struct queue_notify notify;
	struct queue_report report;
	struct recovery recovery;
	struct line *lines, **last_line;
};

/* Lines wait until it is known that this look is the last. */
struct line {
	struct line *next;
	bool bad;
	char text[512];
};

static void add_line(struct view *view, bool bad, const char *text)
{
	struct line *line = xcalloc(1, sizeof(*line));

	line->bad = bad;
	snprintf(line->text, sizeof(line->text), "%s", text);
	*view->last_line = line;
	view->last_line = &line->next;
}

static void on_corruption(void *ctx, uint64_t id, const char *text)
{
	char whole[480], id_text[MSGID_CHARS + 1];

	msgid_format(id, id_text);
	snprintf(whole, sizeof(whole), "%s%s%.400s", id ? id_text : "", id ? ": " : "", text);
	add_line(ctx, true, whole);
}

static void on_note(void *ctx, const char *text)
{
	add_line(ctx, false, text);
}

static void view_close(struct view *view)
{
	while (view->lines) {
		struct line *line = view->lines;
		view->lines = line->next;
		free(line);
	}
	recovery_fini(&view->recovery);
	segments_fini(&view->segments);
	index_free(&view->index);
	disk_real_free(&view->disk);
	if (view->spool_fd >= 0)
		close(view->spool_fd);
}

static int view_open(struct view *view, const char *spool, struct err *err)
{
	*view = (struct view){.spool_fd = open(spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	view->last_line = &view->lines;
	if (view->spool_fd < 0)
		return err_set_errno(err, "cannot open the spool %s", spool);
	view->disk = disk_real_new_readonly(view->spool_fd, err);
	if (!view->disk)
		return err ? (int)err->code : ERR_IO;
	segments_init(&view->segments, view->disk);
	view->index = index_new();
	view->notify = (struct queue_notify){.ctx = view, .on_corruption = on_corruption, .on_note = on_note};
	view->recovery = (struct recovery){
	    .disk = view->disk,
	    .segments = &view->segments,
	    .index = view->index,
	    .notify = &view->notify,
	    .rules = &all_kept,
	    .report = &view->report,
	    .now_wall = clock_wall_ms(clock_system()),
	    .check_bodies = true,
	};
	return 0;
}

/* ---- Checking contents ---- */

static int hash_pieces(struct view *view, struct slot *slot, uint64_t *hash)
{
	XXH3_state_t *state = XXH3_createState();
	int rc = 0;

	BUG_ON(!state);
	XXH3_64bits_reset(state);
	for (uint32_t i = 0; rc == 0 && i < slot_piece_count(slot); i++) {
		const struct index_place *piece = &slot->u.extra->pieces[i];
		char *memory = xmalloc(RECORD_HEADER_BYTES + (size_t)piece->length);
		struct record_header header;
		rc = segments_read(&view->segments, piece->at, piece->length, memory, &header);
		if (rc == 0)
			XXH3_64bits_update(state, memory + RECORD_HEADER_BYTES, piece->length);
		free(memory);
	}
	*hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return rc;
}

static int check_content(struct view *view, struct slot *slot)
{
	char *memory = xmalloc(RECORD_HEADER_BYTES + (size_t)slot->length);
	struct record_header header;
	struct payload_core core;
	uint64_t hash = 0;
	int rc = segments_read(&view->segments, slot->message, slot->length, memory, &header);

	if (rc == 0)
		rc = payload_get_core(slice_of(memory + RECORD_HEADER_BYTES, slot->length), &core);
	if (rc == 0 && core.content.is_inline)
		hash = XXH3_64bits(core.content.body.len ? core.content.body.ptr : "", core.content.body.len);
	else if (rc == 0)
		rc = hash_pieces(view, slot, &hash);
	if (rc == 0 && hash != core.content.hash)
		rc = ERR_CORRUPT;
	free(memory);
	return rc;
}

static void check_contents(struct view *view, struct verify_summary *summary)
{
	for (uint32_t number = 0; number < index_limit(view->index); number++) {
		struct slot *slot = index_slot(view->index, number);
		if (slot->id == 0 || slot->rcpt_open == 0 || check_content(view, slot) == 0)
			continue;
		summary->messages_broken++;
		on_corruption(view, slot->id, "its content is not what was submitted");
	}
}

static void tell_leftovers(struct view *view, struct verify_summary *summary)
{
	char text[160];

	for (uint32_t i = 0; i < view->recovery.leftover_count; i++) {
		if (!view->recovery.leftovers[i].is_evidence)
			continue;
		summary->suspect_ranges++;
		snprintf(text, sizeof(text), "journal/%s has no sound header, but is not empty: torn or damaged",
			 view->recovery.leftovers[i].name);
		add_line(view, true, text);
	}
}

static void fill_summary(const struct view *view, struct verify_summary *summary)
{
	const struct queue_report *report = &view->report;

	*summary = (struct verify_summary){
	    .segments = report->segments,
	    .records = view->recovery.records,
	    .bytes = report->bytes_read,
	    .messages = report->messages,
	    .recipients = report->recipients,
	    .content_bytes = report->content_bytes,
	    .corrupt_ranges = report->corrupt_ranges,
	    .corrupt_bytes = report->corrupt_bytes,
	    .suspect_ranges = report->suspect_ranges,
	    .suspect_bytes = report->suspect_bytes,
	    .segments_missing = report->segments_missing,
	    .messages_broken = report->quarantined,
	    .torn_bytes = report->torn_bytes,
	    .leftovers = report->leftovers,
	};
}

static bool is_bad(const struct verify_summary *summary)
{
	return summary->corrupt_ranges || summary->suspect_ranges || summary->segments_missing ||
	       summary->messages_broken;
}

static void give_lines(const struct view *view, verify_line_cb *line, void *ctx, bool *any_bad)
{
	for (const struct line *at = view->lines; at; at = at->next) {
		*any_bad |= at->bad;
		line(ctx, at->bad, at->text);
	}
}

int verify_spool(const char *spool, verify_line_cb *line, void *ctx, struct verify_summary *summary, struct err *err)
{
	struct view view;
	bool any_bad = false;
	int rc;

	*summary = (struct verify_summary){0};
	for (int look = 1;; look++) {
		rc = view_open(&view, spool, err);
		if (rc == 0)
			rc = recovery_scan(&view.recovery, err);
		if (rc < 0)
			break;
		fill_summary(&view, summary);
		tell_leftovers(&view, summary);
		check_contents(&view, summary);
		if (!is_bad(summary) || look == LOOKS)
			break;
		view_close(&view);
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
	}
	give_lines(&view, line, ctx, &any_bad);
	view_close(&view);
	if (rc == 0 && (any_bad || is_bad(summary)))
		rc = err_set(err, ERR_CORRUPT, "the spool is damaged");
	return rc;
}

/* ---- The dump ---- */

struct dump {
	struct view *view;
	verify_line_cb *line;
	void *ctx;
	struct buf text;
};

static void end_line(struct dump *dump, bool bad)
{
	buf_append_byte(&dump->text, '\0');
	dump->line(dump->ctx, bad, dump->text.data + dump->text.start);
	buf_clear(&dump->text);
}

/* Addresses and replies were written by strangers: nothing of theirs may steer a terminal. */
static void put_clean(struct dump *dump, const char *key, struct slice value)
{
	if (value.len == 0)
		return;
	buf_printf(&dump->text, " %s=\"", key);
	for (size_t len, i = 0; i < value.len && i < 200; i += len) {
		struct slice rest = slice_from(value, i);
		len = utf8_visible(rest);
		if (len > 0 && rest.ptr[0] != '"' && rest.ptr[0] != '\\')
			buf_append(&dump->text, slice_to(rest, len));
		else
			buf_printf(&dump->text, "\\x%02x", (uint8_t)rest.ptr[0]);
		len = MAX(len, (size_t)1);
	}
	buf_append_str(&dump->text, value.len > 200 ? "...\"" : "\"");
}

static void put_time(struct dump *dump, const char *key, int64_t wall_ms)
{
	time_t sec = (time_t)(wall_ms / 1000);
	char text[40];
	struct tm tm;

	if (!gmtime_r(&sec, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return;
	buf_printf(&dump->text, " %s=%s", key, text);
}

static void dump_result(struct dump *dump, const struct payload_result *result)
{
	buf_printf(&dump->text, " outcome=%s class=%s stage=%s attempts=%u", outcome_kind_name(result->kind),
		   failure_class_name(result->class), delivery_stage_name(result->stage), result->attempts);
	if (result->kind == OUTCOME_DEFERRED)
		put_time(dump, "next", result->next_wall);
	if (result->code)
		buf_printf(&dump->text, " code=%u", result->code);
	if (result->at_wall)
		put_time(dump, "at", result->at_wall);
	put_clean(dump, "enhanced", result->enhanced);
	put_clean(dump, "host", result->host);
	put_clean(dump, "text", result->text);
}

static int dump_state(void *ctx, uint32_t recipient, const struct payload_result *result)
{
	struct dump *dump = ctx;

	buf_printf(&dump->text, "             state of recipient %u:", recipient);
	dump_result(dump, result);
	end_line(dump, false);
	return 0;
}

static void dump_recipients(struct dump *dump, const struct queue_envelope *envelope)
{
	for (size_t i = 0; i < envelope->recipient_count; i++) {
		buf_printf(&dump->text, "             recipient %zu:", i);
		put_clean(dump, "to", envelope->recipients[i].address);
		put_clean(dump, "submitted", envelope->recipients[i].original);
		put_clean(dump, "orcpt", envelope->recipients[i].orcpt);
		end_line(dump, false);
	}
}

static void dump_message(struct dump *dump, struct slice payload)
{
	struct queue_recipient *recipients;
	struct queue_envelope envelope;
	struct payload_core core;

	if (payload_get_core(payload, &core) < 0) {
		buf_append_str(&dump->text, " (cannot be read)");
		end_line(dump, true);
		return;
	}
	recipients = xcalloc(core.recipient_count, sizeof(*recipients));
	if (payload_get_envelope(payload, &envelope, recipients, core.recipient_count) == 0) {
		buf_printf(&dump->text, " class=%s content=%" PRIu64 " %s", message_class_name(core.class),
			   core.content.bytes, core.content.is_inline ? "inline" : "pieces=");
		if (!core.content.is_inline)
			buf_printf(&dump->text, "%u", core.content.pieces);
		put_clean(dump, "from", envelope.sender);
		put_clean(dump, "user", envelope.user);
		put_clean(dump, "client", envelope.client);
		put_clean(dump, "tag", envelope.tag);
		put_clean(dump, "relayhost", envelope.relayhost);
		put_clean(dump, "message-id", envelope.message_id);
		put_time(dump, "arrived", envelope.arrived_wall);
		put_time(dump, "expires", envelope.expires_wall);
		buf_append_str(&dump->text, core.held ? " held" : "");
		buf_append_str(&dump->text, core.deleting ? " deleted" : "");
		end_line(dump, false);
		dump_recipients(dump, &envelope);
		payload_get_states(payload, dump_state, dump);
	}
	free(recipients);
}

static void dump_record(struct dump *dump, uint64_t offset, const struct record_header *header, struct slice payload)
{
	struct payload_result result;
	struct payload_mark mark;
	char id[MSGID_CHARS + 1];

	msgid_format(header->id, id);
	buf_printf(&dump->text, "  %10" PRIu64 " %-7s %s %u octets, synced to %u:%" PRIu64, offset,
		   record_type_name(header->type), header->id ? id : "-", header->length, header->watermark.segment,
		   (uint64_t)header->watermark.at8 * RECORD_ALIGN);
	switch (header->type) {
	case RECORD_MESSAGE:
	case RECORD_MOVE: dump_message(dump, payload); return;
	case RECORD_DATA: buf_printf(&dump->text, " piece %u", header->index); break;
	case RECORD_RESULT:
		buf_printf(&dump->text, " recipient %u", header->index);
		if (payload_get_result(payload, &result) == 0)
			dump_result(dump, &result);
		break;
	case RECORD_MARK:
		if (payload_get_mark(payload, &mark) == 0)
			buf_printf(&dump->text, " batch from %" PRIu64 ", first segment %" PRIu64, mark.batch_start,
				   mark.first);
		break;
	default: break;
	}
	end_line(dump, false);
}

static void dump_gap(struct dump *dump, struct scan *scan, uint64_t from, uint64_t next)
{
	uint64_t limit = scan->limit, used;

	scan->limit = next;
	used = scan_last_nonzero(scan, from);
	scan->limit = limit;
	if (used == from)
		buf_printf(&dump->text, "  %10" PRIu64 " empty up to %" PRIu64, from, next);
	else
		buf_printf(&dump->text, "  %10" PRIu64 " no record up to %" PRIu64 ": torn, void or damaged", from,
			   next);
	end_line(dump, used != from);
}

static void dump_segment(struct dump *dump, const struct segment *segment)
{
	const struct segment_header *header = &segment->header;
	uint64_t offset = SEGMENT_DATA_START;
	struct scan scan;
	char floor[MSGID_CHARS + 1];

	msgid_format(header->id_floor, floor);
	buf_printf(&dump->text,
		   "segment %u (%s): %" PRIu64 " octets, previous %u counts up to %" PRIu64 ", first %u, floor %s",
		   header->number, segment->name, segment->bytes, header->previous, header->cut, header->first, floor);
	put_time(dump, "created", header->created_wall);
	end_line(dump, false);
	scan_init(&scan, dump->view->disk, segment->fd, header->nonce, segment->bytes);
	while (offset + RECORD_HEADER_BYTES <= scan.limit) {
		struct record_header record;
		struct slice payload;
		uint64_t next;
		if (scan_header(&scan, offset, &record) && scan_payload(&scan, offset, &record, &payload)) {
			dump_record(dump, offset, &record, payload);
			offset += record_bytes(record.length);
			if (record.type == RECORD_MARK)
				offset = record_block_up(offset);
			continue;
		}
		next = scan_next_valid(&scan, offset + RECORD_ALIGN);
		dump_gap(dump, &scan, offset, next);
		offset = next;
	}
	scan_fini(&scan);
}

int verify_dump(const char *spool, verify_line_cb *line, void *ctx, struct err *err)
{
	struct view view;
	struct dump dump = {&view, line, ctx, {0}};
	bool any_bad = false;
	int rc = view_open(&view, spool, err);

	buf_init(&dump.text, 64 * 1024);
	if (rc == 0)
		rc = recovery_find_files(&view.recovery, err);
	for (uint32_t i = 0; rc == 0 && i < view.recovery.found_count; i++)
		dump_segment(&dump, view.recovery.found[i]);
	for (uint32_t i = 0; rc == 0 && i < view.recovery.leftover_count; i++) {
		buf_printf(&dump.text, "file %s: no sound header, %s", view.recovery.leftovers[i].name,
			   view.recovery.leftovers[i].has_content ? "not empty" : "empty: made ahead of need");
		end_line(&dump, view.recovery.leftovers[i].has_content);
	}
	give_lines(&view, line, ctx, &any_bad);
	buf_fini(&dump.text);
	view_close(&view);
	return rc;
}
