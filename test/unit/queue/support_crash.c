#include "support_crash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void on_corruption(void *ctx, uint64_t id, const char *text)
{
	struct run *run = ctx;

	(void)id;
	if (run->disk.is_dead)
		return;
	run->told++;
	model_say(run, "        told: %s\n", text);
}

static void on_note(void *ctx, const char *text)
{
	model_say(ctx, "        note: %s\n", text);
}

static void on_state(void *ctx, enum queue_journal_state state, const char *reason)
{
	model_say(ctx, "        state %s: %s\n", queue_journal_state_name(state), reason);
}

void crash_forget_queue(struct run *run)
{
	model_close_readers(run);
	for (uint32_t i = 0; i < UPLOADS_MAX; i++)
		if (run->uploads[i].upload)
			model_abort_upload(&run->uploads[i]);
	if (!run->queue)
		return;
	run->disk.is_dead = true;
	journal_free(&run->queue->journal);
	queue_close(&run->queue);
}

static void open_queue(struct run *run)
{
	struct queue_options options = {
	    .disk = &run->disk.disk,
	    .clock = &run->clock.clock,
	    .rng = &run->rng.rng,
	    .segment_bytes = SEGMENT_BYTES,
	    .piece_bytes = PIECE_BYTES,
	    .notify = {run, .on_corruption = on_corruption, .on_note = on_note, .on_state = on_state},
	    .rules = &run->rules,
	};
	struct err err = {0};

	run->queue = queue_open(&options, &run->report, &err);
	run->error = err.code;
	if (!run->queue)
		model_say(run, "        recovery: %s\n", run->disk.is_dead ? "cut" : err.text);
	else
		model_say(run, "        recovered %" PRIu64 " messages, corrupt %u suspect %u missing %u\n",
			  run->report.messages, run->report.corrupt_ranges, run->report.suspect_ranges,
			  run->report.segments_missing);
}

void crash_recover(struct run *run, uint64_t seed, uint32_t faults)
{
	struct rng_seeded rng;

	rng_seeded_init(&rng, seed);
	for (uint32_t tries = 0; tries < 60; tries++) {
		bool power;
		if (tries < faults) {
			enum fault_kind kind = (enum fault_kind)(1 + rng_below(&rng.rng, FAULT_KIND_COUNT - 1));
			fault_disk_arm(&run->disk, 1 + rng_below(&rng.rng, 24), 1 + rng_below(&rng.rng, 3), kind);
			model_say(run, "        (%s during recovery)\n", fault_kind_name(kind));
		}
		open_queue(run);
		run->result->faults += tries < faults;
		if (run->queue && !run->disk.is_dead) {
			run->disk.fault_at = 0;
			return;
		}
		/* A small disk may be full to the brim: the start says so, and somebody makes room. */
		if (!run->disk.is_dead && run->error == ERR_NO_SPACE && tries >= faults)
			run->disk.capacity += 2 * SEGMENT_BYTES;
		power = run->disk.is_dead && run->disk.died_by_power;
		run->had_power_cut |= power;
		crash_forget_queue(run);
		fault_disk_crash(&run->disk, power, rng_u64(&rng.rng));
	}
	model_violation(run, "RECOVERY DOES NOT SUCCEED");
}

/* A restart takes time; and now and then the clock is set back meanwhile, to when some message was accepted. Then only
 * ids that were answered for must not come again: those that were never written down were seen by nobody who counts on
 * them. */
static void pass_time(struct run *run, uint32_t b)
{
	const struct model_message *message = run->message_count ? model_choose_alive(run, b / 16) : NULL;

	clock_virtual_advance(&run->clock, 1);
	if (b % 16 != 5 || !message)
		return;
	run->clock.wall = id_wall_ms(message->id);
	run->id_count = 0;
	for (uint32_t i = 0; i < run->message_count; i++)
		if (run->messages[i].life == LIFE_ACKED)
			run->ids_used[run->id_count++] = run->messages[i].id;
}

void crash_now(struct run *run, bool power, uint32_t b)
{
	power |= run->disk.is_dead && run->disk.died_by_power;
	run->had_power_cut |= power;
	crash_forget_queue(run);
	pass_time(run, b);
	fault_disk_crash(&run->disk, power, b);
	crash_recover(run, b, b % 4 == 0 ? b / 4 % 4 : 0);
	if (run->result->violated)
		return;
	model_check_all(run);
	if (b % 8 != 1 || run->result->violated)
		return;
	/* Once more, cut anywhere: nothing may change. */
	crash_forget_queue(run);
	fault_disk_crash(&run->disk, b / 8 % 2, b + 1);
	run->had_power_cut |= b / 8 % 2;
	crash_recover(run, b + 2, 3);
	if (!run->result->violated)
		model_check_all(run);
}

/* Chooses a record of the segment that counts: one of those before its end. */
static bool choose_record(struct run *run, const struct segment *segment, uint32_t b, uint64_t *offset,
			  struct record_header *header)
{
	uint64_t at = SEGMENT_DATA_START, count = 0, wanted;
	struct scan scan;

	scan_init(&scan, &run->disk.disk, segment->fd, segment->header.nonce, segment->end);
	for (int pass = 0; pass < 2; pass++) {
		wanted = count ? b % count : 0;
		count = 0;
		at = SEGMENT_DATA_START;
		while ((at = scan_next_valid(&scan, at)) < scan.limit) {
			scan_header(&scan, at, header);
			if (pass == 1 && count == wanted)
				break;
			count++;
			at += record_bytes(header->length);
		}
	}
	*offset = at;
	scan_fini(&scan);
	return at < segment->end;
}

static void keep_evidence(struct run *run, const char *name, uint64_t offset, const struct record_header *header)
{
	struct model_message *message = model_by_id(run, header->id);
	const char *bytes;
	uint64_t size;

	if (message)
		message->is_hit = true;
	bytes = fault_disk_bytes(&run->disk, DISK_JOURNAL, name, &size);
	if (run->evidence_count < EVIDENCE_MAX && bytes && offset + record_bytes(header->length) <= size) {
		struct evidence *evidence = &run->evidence[run->evidence_count++];
		evidence->id = header->id;
		evidence->len = RECORD_HEADER_BYTES + header->length;
		evidence->bytes = xmemdup(bytes + offset, evidence->len);
	}
}

void crash_with_rot(struct run *run, uint32_t a, uint32_t b)
{
	const struct segments *segments = &run->queue->segments;
	const struct segment *segment = segments->count ? segments->items[a / 2 % segments->count] : NULL;
	struct record_header header;
	char name[SEGMENT_NAME_MAX];
	uint64_t offset, bytes = SEGMENT_HEADER_BYTES;
	bool in_record = segment && b % 4 != 0 && choose_record(run, segment, b / 8, &offset, &header);

	if (!segment)
		return;
	/* One of two headers may rot, never both. */
	if (!in_record)
		offset = segment->header.number % 2 * RECORD_BLOCK;
	if (run->evidence_count == EVIDENCE_MAX || (!in_record && segment->synced == 0))
		return;
	if (in_record)
		bytes = RECORD_HEADER_BYTES + header.length;
	snprintf(name, sizeof(name), "%s", segment->name);
	model_say(run, "        rot in segment %u at %" PRIu64 ": %s\n", segment->header.number, offset,
		  in_record ? record_type_name(header.type) : "header");
	crash_forget_queue(run);
	run->told = 0;
	run->rotten = true;
	fault_disk_rot(&run->disk, DISK_JOURNAL, name, offset, offset + bytes, 3);
	if (in_record)
		keep_evidence(run, name, offset, &header);
	fault_disk_crash(&run->disk, a % 2, b);
	run->had_power_cut |= a % 2;
	pass_time(run, b);
	crash_recover(run, b, b % 3 == 0 ? 1 + b / 3 % 3 : 0);
	if (!run->result->violated)
		model_check_all(run);
}
