#include "queue/recovery.h"

#include "base/base.h"
#include "base/msgid.h"
#include "queue/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PEEK_BYTES (256 * 1024) /* of a file without header: an unsynced first batch shows here */

/* ---- Telling ---- */

void recovery_tell_corruption(const struct recovery *recovery, uint64_t id, const char *text)
{
	if (recovery->notify->on_corruption)
		recovery->notify->on_corruption(recovery->notify->ctx, id, text);
}

static void tell_note(const struct recovery *recovery, const char *text)
{
	if (recovery->notify->on_note)
		recovery->notify->on_note(recovery->notify->ctx, text);
}

void recovery_add_range(struct recovery *recovery, const struct segment *segment, uint64_t offset, uint64_t end,
			uint64_t id, bool is_suspect)
{
	struct recovery_range *range;
	char text[256], id_text[MSGID_CHARS + 16] = "";

	recovery->ranges = xreallocarray(recovery->ranges, recovery->range_count + 1, sizeof(recovery->ranges[0]));
	range = &recovery->ranges[recovery->range_count++];
	*range = (struct recovery_range){.fd = segment->fd,
					 .segment = segment->header.number,
					 .offset = offset,
					 .bytes = end - offset,
					 .id = id,
					 .is_suspect = is_suspect};
	memcpy(range->name, segment->name, sizeof(range->name));
	if (is_suspect) {
		recovery->report->suspect_ranges++;
		recovery->report->suspect_bytes += range->bytes;
	} else {
		recovery->report->corrupt_ranges++;
		recovery->report->corrupt_bytes += range->bytes;
	}
	if (id) {
		memcpy(id_text, ", of message ", 13);
		msgid_format(id, id_text + 13);
	}
	snprintf(text, sizeof(text), "segment %u (%s): octets %" PRIu64 " to %" PRIu64 " are %s%s",
		 segment->header.number, segment->name, offset, end,
		 is_suspect ? "torn or damaged" : "damaged, though they had been synced", id_text);
	recovery_tell_corruption(recovery, id, text);
}

/* ---- Finding the files ---- */

static bool parse_name(const char *name, uint64_t *number)
{
	char *end;

	if (strlen(name) != 20 || (strncmp(name, "seg-", 4) != 0 && strncmp(name, "new-", 4) != 0))
		return false;
	*number = strtoull(name + 4, &end, 16);
	return *end == '\0';
}

struct names {
	char (*items)[SEGMENT_NAME_MAX];
	uint32_t count;
};

static int collect_name(void *ctx, const char *name)
{
	struct names *names = ctx;

	names->items = xreallocarray(names->items, names->count + 1, sizeof(names->items[0]));
	snprintf(names->items[names->count++], SEGMENT_NAME_MAX, "%s", name);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

static bool has_content(struct recovery *recovery, int fd, uint64_t limit)
{
	struct scan scan;
	bool any;

	scan_init(&scan, recovery->disk, fd, 0, limit);
	any = scan_last_nonzero(&scan, 0) > 0;
	scan_fini(&scan);
	return any;
}

static void add_leftover(struct recovery *recovery, const char *name, int fd, uint64_t size, bool header)
{
	struct recovery_leftover *leftover;

	recovery->leftovers =
	    xreallocarray(recovery->leftovers, recovery->leftover_count + 1, sizeof(recovery->leftovers[0]));
	leftover = &recovery->leftovers[recovery->leftover_count++];
	*leftover = (struct recovery_leftover){.fd = fd, .size = size, .has_header = header};
	snprintf(leftover->name, sizeof(leftover->name), "%s", name);
	recovery->report->leftovers++;
}

/* Made ahead of need, it is empty; from a recovery that was cut short, it has records and no header yet; a header that
 * is there and unsound, or records in a file that recovery did not make, are evidence of more. */
static void add_headless(struct recovery *recovery, const char *name, int fd, uint64_t size)
{
	struct recovery_leftover *leftover;

	add_leftover(recovery, name, fd, size, false);
	leftover = &recovery->leftovers[recovery->leftover_count - 1];
	leftover->has_content = has_content(recovery, fd, MIN(size, (uint64_t)PEEK_BYTES));
	if (strncmp(name, "seg-", 4) == 0)
		leftover->is_evidence = leftover->has_content;
	else
		leftover->is_evidence = has_content(recovery, fd, MIN(size, (uint64_t)SEGMENT_DATA_START));
}

static void add_found(struct recovery *recovery, const char *name, int fd, uint64_t size,
		      const struct segment_header *header)
{
	struct segment *segment = xcalloc(1, sizeof(*segment));

	segment->header = *header;
	snprintf(segment->name, sizeof(segment->name), "%s", name);
	segment->fd = fd;
	segment->bytes = size;
	recovery->found = xreallocarray(recovery->found, recovery->found_count + 1, sizeof(recovery->found[0]));
	recovery->found[recovery->found_count++] = segment;
	recovery->highest = MAX(recovery->highest, header->number);
	recovery->id_floor = MAX(recovery->id_floor, header->id_floor);
	recovery->spool = header->spool;
}

/* The header of a file, if there is a sound one: as segment_header_get(), or ERR_IO: it stands where nothing can be read.
 * An error that passes, or one that hits one copy of the two, must not cost a segment. */
static int read_header(struct recovery *recovery, int fd, uint64_t size, struct segment_header *header)
{
	size_t len = (size_t)MIN(size, (uint64_t)SEGMENT_DATA_START);
	struct scan scan;
	int rc = 0;

	scan_init(&scan, recovery->disk, fd, 0, len);
	if (len > 0)
		rc = segment_header_get(scan_bytes(&scan, 0, len), len, header);
	if (rc == 0 && scan.read_errors > 0)
		rc = ERR_IO;
	scan_fini(&scan);
	return rc;
}

/* What is no file of ours, is gone, or lies where the disk has died stays so; the others wait for a person who mends it,
 * and so does the whole journal: without one of its segments mail would be missing, or be delivered again. */
static bool may_go_on_without(int error)
{
	return error == -EINVAL || error == -ENOENT || error == -EIO;
}

static int refuse_file(int error, const char *name, struct err *err)
{
	const char *hint = "";

	if (error == -EACCES || error == -EPERM)
		hint = "; it must belong to the user that relayd runs as, readable and writable";
	if (error == -EMLINK)
		hint = "; it has a second name (a copy by hard links?), which must go first";

	return err_set(err, err_code_of_errno(-error), "cannot open journal/%.100s: %s%s", name, strerror(-error),
		       hint);
}

static int look_at_file(struct recovery *recovery, const char *name, struct err *err)
{
	struct segment_header header;
	char text[256];
	uint64_t size, number;
	int fd, rc;

	if (!parse_name(name, &number)) {
		snprintf(text, sizeof(text), "journal/%.100s is not ours: left alone", name);
		tell_note(recovery, text);
		return 0;
	}
	recovery->next_name = MAX(recovery->next_name, number + 1);
	rc = recovery->disk->open(recovery->disk, DISK_JOURNAL, name, &fd, &size);
	if (rc < 0 && !may_go_on_without(rc))
		return refuse_file(rc, name, err);
	if (rc == 0) {
		rc = read_header(recovery, fd, size, &header);
		if (rc == 1)
			add_found(recovery, name, fd, size, &header);
		else if (rc == 0)
			add_headless(recovery, name, fd, size);
		else
			recovery->disk->close(recovery->disk, fd);
		if (rc == ERR_VERSION)
			return err_set(err, rc, "journal/%s was written by a newer relayd", name);
		if (rc >= 0)
			return 0;
		rc = -EIO;
	}
	if (rc == -ENOENT)
		return 0; /* only a tool that looks at a living journal sees this: it was freed meanwhile */
	snprintf(text, sizeof(text), "journal/%s cannot be read (%s): left alone", name,
		 rc == -EINVAL ? "not a regular file" : strerror(-rc));
	recovery_tell_corruption(recovery, 0, text);
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const struct segment *const *left = a, *const *right = b;

	return (*left)->header.number < (*right)->header.number ? -1 : 1;
}

int recovery_find_files(struct recovery *recovery, struct err *err)
{
	struct names names = {0};
	int rc = recovery->disk->list(recovery->disk, DISK_JOURNAL, collect_name, &names);

	if (rc < 0)
		rc = err_set(err, err_code_of_errno(-rc), "cannot list the journal: %s", strerror(-rc));
	if (rc == 0 && names.count > 0)
		qsort(names.items, names.count, sizeof(names.items[0]), by_name);
	for (uint32_t i = 0; rc == 0 && i < names.count; i++)
		rc = look_at_file(recovery, names.items[i], err);
	free(names.items);
	if (recovery->found_count > 0)
		qsort(recovery->found, recovery->found_count, sizeof(recovery->found[0]), by_number);
	return rc;
}

/* ---- The newest segment: how far is it known to be synced, where does it end ---- */

void recovery_see_id(struct recovery *recovery, uint64_t id)
{
	recovery->id_floor = MAX(recovery->id_floor, id < UINT64_MAX ? id + 1 : id);
}

/* A reader steps from record to record; behind a MARK the next stands at the next block. */
uint64_t recovery_step_over(const struct journal_rules *rules, uint64_t offset, const struct record_header *header)
{
	uint64_t next = offset + record_bytes(header->length);

	return header->type == RECORD_MARK && !rules->no_padding ? record_block_up(next) : next;
}

/* Only a broken rule asks for it: without a MARK nothing but the zeros tells that a batch has ended. */
bool recovery_skip_padding(const struct journal_rules *rules, struct scan *scan, uint64_t *offset)
{
	const char *at = scan_bytes(scan, *offset, RECORD_HEADER_BYTES);

	if (!rules->no_marks || *offset % RECORD_BLOCK == 0 || at[0] != 0 ||
	    memcmp(at, at + 1, RECORD_HEADER_BYTES - 1))
		return false;
	*offset = record_block_up(*offset);
	return true;
}

static void see_mark(struct recovery *recovery, struct slice payload)
{
	struct payload_mark mark;

	if (payload_get_mark(payload, &mark) < 0)
		return;
	if (mark.first <= recovery->highest)
		recovery->first = MAX(recovery->first, (uint32_t)mark.first);
	recovery->id_floor = MAX(recovery->id_floor, mark.id_floor);
}

/* Reads all of it, payloads too. Sets `end` to the watermark (0: there is none) and returns where good records end. */
static uint64_t survey(struct recovery *recovery, struct segment *segment)
{
	uint64_t offset = SEGMENT_DATA_START, good_end = SEGMENT_DATA_START, watermark = 0;
	struct scan scan;

	scan_init(&scan, recovery->disk, segment->fd, segment->header.nonce, segment->bytes);
	while (offset + RECORD_HEADER_BYTES <= scan.limit) {
		struct record_header header;
		struct slice payload;
		if (!scan_header(&scan, offset, &header) || !scan_payload(&scan, offset, &header, &payload)) {
			if (recovery_skip_padding(recovery->rules, &scan, &offset))
				continue;
			if (recovery->rules->stop_at_gap)
				break;
			offset = scan_next_valid(&scan, offset + RECORD_ALIGN);
			continue;
		}
		if (header.watermark.segment == segment->header.number)
			watermark = MAX(watermark, (uint64_t)header.watermark.at8 * RECORD_ALIGN);
		if (header.type == RECORD_MARK)
			see_mark(recovery, payload);
		offset = recovery_step_over(recovery->rules, offset, &header);
		good_end = offset;
	}
	recovery->report->bytes_read += scan.bytes_read;
	scan_fini(&scan);
	segment->end = watermark;
	return MAX(good_end, watermark);
}

static void count_torn(struct recovery *recovery, const struct segment *segment, uint64_t from)
{
	struct scan scan;
	uint64_t torn;
	char text[128];

	if (from >= segment->bytes)
		return;
	scan_init(&scan, recovery->disk, segment->fd, segment->header.nonce, segment->bytes);
	torn = scan_last_nonzero(&scan, from) - from;
	scan_fini(&scan);
	recovery->report->torn_bytes += torn;
	if (torn == 0)
		return;
	snprintf(text, sizeof(text), "segment %u: its last %" PRIu64 " octets were not synced and do not count",
		 segment->header.number, torn);
	tell_note(recovery, text);
}

/* ---- The chain ---- */

/* Whether a sound record stands near the beginning of the file. */
static bool has_record(struct recovery *recovery, int fd, uint64_t size, uint64_t nonce)
{
	uint64_t limit = MIN(size, (uint64_t)PEEK_BYTES);
	struct scan scan;
	bool any;

	if (limit < SEGMENT_DATA_START)
		return false;
	scan_init(&scan, recovery->disk, fd, nonce, limit);
	any = scan_next_valid(&scan, SEGMENT_DATA_START) < limit;
	scan_fini(&scan);
	return any;
}

static struct segment *take_found(struct recovery *recovery, uint32_t at)
{
	struct segment *segment = recovery->found[at];

	recovery->found_count--;
	memmove(recovery->found + at, recovery->found + at + 1,
		(recovery->found_count - at) * sizeof(recovery->found[0]));
	return segment;
}

/* Number and nonce (0: not known), for a stale header may surface in a later file. */
static struct segment *take_previous(struct recovery *recovery, const struct segment_header *successor)
{
	for (uint32_t at = 0; at < recovery->found_count; at++) {
		const struct segment_header *header = &recovery->found[at]->header;
		if (header->number == successor->previous &&
		    (header->nonce == successor->previous_nonce || successor->previous_nonce == 0))
			return take_found(recovery, at);
	}
	return NULL;
}

/* The highest number; of two, for the same reason, the one that has records. */
static struct segment *take_newest(struct recovery *recovery)
{
	uint32_t at = recovery->found_count - 1;
	const struct segment *newest = recovery->found[at];

	while (at > 0 && recovery->found[at - 1]->header.number == newest->header.number) {
		const struct segment *other = recovery->found[--at];
		if (has_record(recovery, other->fd, other->bytes, other->header.nonce))
			return take_found(recovery, at);
	}
	return take_found(recovery, recovery->found_count - 1);
}

/* The highest below `number` that is still needed. */
static struct segment *take_older(struct recovery *recovery, uint32_t number)
{
	uint32_t at = recovery->found_count;

	while (at > 0 && recovery->found[at - 1]->header.number >= number)
		at--;
	return at > 0 && recovery->found[at - 1]->header.number >= recovery->first ? take_found(recovery, at - 1)
										   : NULL;
}

/* A file without sound header whose first record is sound with the nonce that its successor names: both copies of the
 * header were lost, and the successor tells what stood in them. */
static struct segment *adopt_headless(struct recovery *recovery, const struct segment_header *successor)
{
	char text[128];

	for (uint32_t i = 0; i < recovery->leftover_count; i++) {
		struct recovery_leftover *leftover = &recovery->leftovers[i];
		struct segment_header header = {.number = successor->previous,
						.nonce = successor->previous_nonce,
						.previous = successor->previous_previous,
						.cut = successor->previous_cut};
		struct segment *segment;
		if (leftover->has_header || !leftover->has_content ||
		    !has_record(recovery, leftover->fd, leftover->size, successor->previous_nonce))
			continue;
		segment = xcalloc(1, sizeof(*segment));
		segment->header = header;
		memcpy(segment->name, leftover->name, sizeof(segment->name));
		segment->fd = leftover->fd;
		segment->bytes = leftover->size;
		*leftover = recovery->leftovers[--recovery->leftover_count];
		recovery->report->leftovers--;
		snprintf(text, sizeof(text),
			 "segment %u (%s): both headers are damaged; read with its successor's help", header.number,
			 segment->name);
		recovery_tell_corruption(recovery, 0, text);
		recovery->report->corrupt_ranges++;
		return segment;
	}
	return NULL;
}

static void tell_missing(struct recovery *recovery, uint32_t number)
{
	char text[96];

	recovery->report->segments_missing++;
	snprintf(text, sizeof(text), "segment %u is missing, or its headers are damaged", number);
	recovery_tell_corruption(recovery, 0, text);
}

/* What counts of `segment` ends where its successor says; 0: the successor is lost, so all that is good counts. */
static void set_end(struct recovery *recovery, struct segment *segment, uint64_t cut)
{
	if (cut == 0) {
		segment->end = MIN(survey(recovery, segment), segment->bytes);
	} else {
		segment->end = cut;
	}
	segment->synced = segment->end;
}

/* The segment before this one, with its end; NULL: there is none that is needed and can be read. */
static struct segment *step_back(struct recovery *recovery, const struct segment_header *header)
{
	struct segment *segment;

	if (header->previous == 0 || header->previous < recovery->first)
		return NULL;
	segment = take_previous(recovery, header);
	if (!segment)
		segment = adopt_headless(recovery, header);
	if (segment) {
		set_end(recovery, segment, header->cut);
		return segment;
	}
	tell_missing(recovery, header->previous);
	segment = take_older(recovery, header->previous);
	if (segment)
		set_end(recovery, segment, 0);
	return segment;
}

static void link_chain(struct recovery *recovery)
{
	struct segment **chain = NULL, *segment;
	uint32_t count = 0;

	if (recovery->found_count == 0)
		return;
	segment = take_newest(recovery);
	recovery->newest = segment->header.number;
	recovery->first = segment->header.first;
	recovery->tail_end = survey(recovery, segment);
	segment->synced = segment->end;
	while (segment) {
		chain = xreallocarray(chain, count + 1, sizeof(chain[0]));
		chain[count++] = segment;
		segment = step_back(recovery, &segment->header);
	}
	while (count > 0)
		segments_add(recovery->segments, chain[--count]);
	free(chain);
}

/* Sound headers outside the chain: freed, or nothing of them was ever synced. If a number stands twice, and with
 * records both times, the second file is left alone, for nobody knows how it came. */
static void drop_unchained(struct recovery *recovery)
{
	char text[128];

	for (uint32_t i = 0; i < recovery->found_count; i++) {
		struct segment *segment = recovery->found[i];
		struct segment *twin = segments_find(recovery->segments, segment->header.number);
		if (twin && twin->header.nonce != segment->header.nonce &&
		    has_record(recovery, segment->fd, segment->bytes, segment->header.nonce)) {
			snprintf(text, sizeof(text), "segment %u stands twice, also in %s: left alone",
				 segment->header.number, segment->name);
			recovery_tell_corruption(recovery, 0, text);
			continue;
		}
		add_leftover(recovery, segment->name, segment->fd, segment->bytes, true);
		segment->fd = -1;
	}
}

int recovery_scan(struct recovery *recovery, struct err *err)
{
	int rc = recovery_find_files(recovery, err);

	if (rc < 0)
		return rc;
	link_chain(recovery);
	drop_unchained(recovery);
	for (uint32_t i = 0; rc == 0 && i < recovery->segments->count; i++) {
		struct segment *segment = recovery->segments->items[i];
		bool is_newest = segment->header.number == recovery->newest;
		rc = replay_segment(recovery, segment, is_newest, err);
		if (is_newest)
			count_torn(recovery, segment, recovery->tail_end);
		if (recovery->notify->on_progress)
			recovery->notify->on_progress(recovery->notify->ctx, i + 1, recovery->segments->count);
	}
	if (rc == 0)
		replay_check_messages(recovery);
	return rc;
}

void recovery_fini(struct recovery *recovery)
{
	replay_fini(recovery);
	for (uint32_t i = 0; i < recovery->found_count; i++)
		segment_free(&recovery->found[i], recovery->disk);
	for (uint32_t i = 0; i < recovery->leftover_count; i++)
		if (recovery->leftovers[i].fd >= 0)
			recovery->disk->close(recovery->disk, recovery->leftovers[i].fd);
	free(recovery->found);
	free(recovery->leftovers);
	for (uint32_t i = 0; i < recovery->broken_count; i++)
		free(recovery->broken[i].extra);
	free(recovery->ranges);
	free(recovery->broken);
}

/* ---- For the queue ---- */

/* From now on the messages count, and stand in the heaps. */
static void activate(struct index *index)
{
	for (uint32_t number = 0; number < index_limit(index); number++) {
		struct slot *slot = index_slot(index, number);
		if (slot->id == 0)
			continue;
		slot->flags |= SLOT_SYNCED;
		index_change_end(index, slot);
	}
}

static int scan_and_repair(struct recovery *recovery, const struct queue_options *options, struct err *err)
{
	int rc = 0;

	/* What a killed run created or unlinked must be decided before anything is built on it. */
	if (!recovery->rules->no_dir_sync)
		rc = recovery->disk->sync_dir(recovery->disk, DISK_JOURNAL);
	if (rc < 0)
		return err_set(err, err_code_of_errno(-rc), "the journal's directory cannot be synced: %s",
			       strerror(-rc));
	rc = recovery_scan(recovery, err);
	return rc < 0 ? rc : repair_run(recovery, options, err);
}

int recovery_run(struct queue *queue, struct queue_report *report, uint32_t *next_number, uint64_t *next_name,
		 uint64_t *spool, struct err *err)
{
	int64_t began_ms = clock_mono_ms(queue->options.clock);
	struct recovery recovery = {
	    .disk = queue->disk,
	    .segments = &queue->segments,
	    .index = queue->index,
	    .notify = &queue->options.notify,
	    .rules = queue->rules,
	    .report = report,
	    .now_wall = clock_wall_ms(queue->options.clock),
	};
	int rc;

	*report = (struct queue_report){0};
	rc = scan_and_repair(&recovery, &queue->options, err);
	if (rc == 0) {
		activate(queue->index);
		id_source_init(&queue->ids, recovery.spool, queue->rules->reuse_ids ? 0 : recovery.id_floor);
		queue->corruptions =
		    report->corrupt_ranges + report->suspect_ranges + report->segments_missing + report->quarantined;
	}
	*next_number = recovery.highest + 2;
	*next_name = recovery.next_name;
	*spool = recovery.spool;
	report->duration_ms = clock_mono_ms(queue->options.clock) - began_ms;
	recovery_fini(&recovery);
	return rc;
}
