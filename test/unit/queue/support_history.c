#include "support_crash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Steps ---- */

/* Sometimes a body holds records as they stand in the journal, to be taken for real ones. */
static void make_content(struct run *run, char *out, size_t len)
{
	uint64_t size = 0, at;
	const char *bytes = NULL;

	if (rng_below(&run->rng.rng, 4) == 0 && run->disk.cached_count[DISK_JOURNAL] > 0)
		bytes = fault_disk_bytes(&run->disk, DISK_JOURNAL, "seg-0000000000000001", &size);
	if (bytes && size > len + SEGMENT_DATA_START) {
		at = SEGMENT_DATA_START + rng_below(&run->rng.rng, size - len - SEGMENT_DATA_START) / 8 * 8;
		memcpy(out, bytes + at, len);
		return;
	}
	for (size_t i = 0; i < len; i++)
		out[i] = (char)('a' + (i + run->message_count) % 26);
}

static struct queue_envelope make_envelope(const struct run *run, struct queue_recipient *recipients, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		recipients[i] = (struct queue_recipient){.address = SLICE("someone@example.org")};
	return (struct queue_envelope){
	    .sender = SLICE("a@example.com"),
	    .prefix = SLICE("Received: here\r\n"),
	    .arrived_wall = clock_wall_ms(&run->clock.clock),
	    .expires_wall = clock_wall_ms(&run->clock.clock) + 1000000,
	    .recipients = recipients,
	    .recipient_count = count,
	};
}

static void commit(struct run *run, struct model_upload *upload, uint32_t rcpt_count)
{
	struct queue_recipient recipients[RCPTS_MAX];
	struct queue_envelope envelope = make_envelope(run, recipients, rcpt_count);
	struct model_message *message;
	int rc;

	if (run->message_count == MESSAGES_MAX) {
		model_abort_upload(upload);
		return;
	}
	message = &run->messages[run->message_count++];
	*message = (struct model_message){.id = queue_upload_id(upload->upload),
					  .content = upload->content,
					  .len = upload->len,
					  .rcpt_count = rcpt_count};
	message->commit_seq = ++run->seq;
	rc = queue_upload_commit(&upload->upload, &envelope, model_on_commit, run);
	if (rc < 0) {
		message->life = LIFE_REFUSED;
		message->refused_at_syncs = run->disk.syncs_ok;
	}
	*upload = (struct model_upload){0};
}

static struct model_upload *begin(struct run *run)
{
	for (uint32_t i = 0; i < UPLOADS_MAX; i++) {
		struct model_upload *upload = &run->uploads[i];
		if (upload->upload)
			continue;
		upload->upload = queue_upload_begin(run->queue, NULL);
		if (!upload->upload)
			return NULL;
		model_use_id(run, queue_upload_id(upload->upload));
		return upload;
	}
	return NULL;
}

static void append(struct run *run, struct model_upload *upload, size_t len)
{
	upload->content = xrealloc(upload->content, upload->len + len + 1);
	make_content(run, upload->content + upload->len, len);
	queue_upload_append(upload->upload, slice_of(upload->content + upload->len, len));
	upload->len += len;
}

static struct model_upload *choose_upload(struct run *run, uint32_t a)
{
	for (uint32_t i = 0; i < UPLOADS_MAX; i++)
		if (run->uploads[(a + i) % UPLOADS_MAX].upload)
			return &run->uploads[(a + i) % UPLOADS_MAX];
	return NULL;
}

static void submit(struct run *run, uint32_t rcpts, uint32_t len)
{
	struct model_upload *upload = begin(run);

	if (!upload)
		return;
	append(run, upload, len);
	commit(run, upload, rcpts);
}

static void deliver(struct run *run)
{
	int64_t now = clock_wall_ms(&run->clock.clock);
	uint32_t indexes[RCPTS_MAX];
	uint64_t id;

	while (!run->disk.is_dead && queue_pop_due(run->queue, now, &id)) {
		struct model_message *message = model_by_id(run, id);
		size_t count;
		if (!message || message->life != LIFE_ACKED) {
			model_violation(run, "DELIVERED BEFORE IT WAS ACCEPTED");
			return;
		}
		count = queue_take_due(run->queue, id, now, indexes, RCPTS_MAX);
		for (size_t i = 0; i < count; i++)
			message->rcpts[indexes[i]].taken = true;
	}
}

static void record_result(struct run *run, struct model_message *message, uint32_t r, enum outcome_kind kind)
{
	struct outcome outcome = {.kind = kind, .class = CLASS_OTHER, .stage = STAGE_RCPT, .code = 450};
	struct model_rcpt *rcpt = &message->rcpts[r];
	struct queue_result result = {.outcome = &outcome,
				      .attempts = rcpt->attempts.value + 1,
				      .next_attempt_wall = clock_wall_ms(&run->clock.clock) + 60000};
	int rc;

	snprintf(outcome.text, sizeof(outcome.text), "reply to attempt %u", result.attempts);
	rc = queue_record_result(run->queue, message->id, r, &result);
	if (run->disk.is_dead)
		return;
	if (rc != 0) {
		if (!model_is_excused(run, message))
			model_violation(run, "RESULT NOT TAKEN (%d)", rc);
		return;
	}
	rcpt->taken = false;
	model_record(run, &rcpt->attempts, result.attempts);
	rcpt->attempts.seq = run->seq;
	if (kind != OUTCOME_DEFERRED)
		model_record(run, &rcpt->final, kind);
}

static void result_step(struct run *run, uint32_t a, uint32_t b)
{
	static const enum outcome_kind kinds[] = {OUTCOME_DELIVERED, OUTCOME_DELIVERED, OUTCOME_DEFERRED,
						  OUTCOME_FAILED};
	struct model_message *message = model_choose_alive(run, a);

	for (uint32_t i = 0; message && i < message->rcpt_count; i++) {
		uint32_t r = (a + i) % message->rcpt_count;
		if (message->rcpts[r].final.value == 0) {
			record_result(run, message, r, kinds[b % ARRAY_LEN(kinds)]);
			return;
		}
	}
}

static void finish_message(struct run *run, struct model_message *message)
{
	for (uint32_t r = 0; message && r < message->rcpt_count; r++)
		if (message->rcpts[r].final.value == 0 && !run->disk.is_dead)
			record_result(run, message, r, OUTCOME_DELIVERED);
}

static void expect_ok(struct run *run, int rc, const char *what)
{
	if (rc != 0 && !run->disk.is_dead && !run->rotten)
		model_violation(run, "%s NOT TAKEN (%d)", what, rc);
}

static void read_message(struct run *run, struct model_message *message)
{
	if (!message || model_check_content(run, message) || run->disk.is_dead)
		return;
	if (!model_is_excused(run, message))
		model_violation(run, "CANNOT BE READ");
	message->is_lost = true; /* the evidence is on its way to the quarantine */
}

static void open_reader(struct run *run, uint32_t a)
{
	struct model_message *message = model_choose_alive(run, a);
	struct model_reader *reader = &run->readers[a % READERS_MAX];

	if (!message)
		return;
	queue_content_close(&reader->content);
	*reader = (struct model_reader){.message = (uint32_t)(message - run->messages)};
	reader->content = queue_content_open(run->queue, message->id, NULL);
}

static void read_on(struct run *run, uint32_t a)
{
	struct model_reader *reader = &run->readers[a % READERS_MAX];
	const struct model_message *message = &run->messages[reader->message];
	char bytes[700];
	ssize_t n;

	if (!reader->content)
		return;
	n = queue_content_read(reader->content, bytes, sizeof(bytes));
	if (n > 0 &&
	    (reader->at + (size_t)n > message->len || memcmp(bytes, message->content + reader->at, (size_t)n) != 0))
		model_violation(run, "READER SENDS FOREIGN BYTES");
	if (n == 0 && reader->at != message->len)
		model_violation(run, "READER SENDS A PART");
	if (n < 0 && model_is_alive(message) && !model_is_excused(run, message) && !run->disk.is_dead)
		model_violation(run, "READER FAILS (%d)", (int)n);
	reader->at += n > 0 ? (size_t)n : 0;
	if (n <= 0)
		queue_content_close(&reader->content);
}

/* ---- Calm ---- */

static bool turn_and_finish(struct run *run)
{
	bool any;

	queue_turn(run->queue);
	model_look_at_durability(run);
	any = fault_disk_finish(&run->disk);
	return any;
}

static void rest(struct run *run)
{
	for (int i = 0; i < 400 && !run->disk.is_dead; i++) {
		int64_t deadline;
		if (turn_and_finish(run))
			continue;
		queue_turn(run->queue);
		model_look_at_durability(run);
		deadline = queue_next_deadline_ms(run->queue);
		if (deadline == INT64_MAX && run->disk.async_count == 0)
			return;
		if (deadline > clock_mono_ms(&run->clock.clock) && run->disk.async_count == 0)
			clock_virtual_advance(&run->clock, MIN(deadline - clock_mono_ms(&run->clock.clock), 5000));
	}
}

static void check_bounds(struct run *run)
{
	struct queue_stats stats;

	queue_stats(run->queue, &stats);
	if (stats.state == QUEUE_OK && stats.journal_bytes > 2 * stats.live_bytes + 4 * SEGMENT_BYTES)
		model_violation(run, "DISK BOUND: %" PRIu64 " bytes, %" PRIu64 " of them live", stats.journal_bytes,
				stats.live_bytes);
}

/* So small a disk that it may be full. */
static bool is_small(struct run *run)
{
	struct queue_stats stats;

	queue_stats(run->queue, &stats);
	return run->disk.capacity < 3 * stats.live_bytes + 16 * SEGMENT_BYTES;
}

static void check_intake(struct run *run)
{
	uint32_t before = run->message_count;

	if (is_small(run) || before == MESSAGES_MAX)
		return;
	if (queue_may_accept(run->queue) != 0) {
		model_violation(run, "NO MAIL IS TAKEN AFTER THE FAULT (%d)", queue_may_accept(run->queue));
		return;
	}
	if (choose_upload(run, 0) && !choose_upload(run, 0)->upload)
		return;
	submit(run, 1, 100);
	rest(run);
	if (run->message_count == before + 1 && run->messages[before].life != LIFE_ACKED && !run->disk.is_dead)
		model_violation(run, "MAIL IS NOT TAKEN AFTER THE FAULT");
}

static void calm(struct run *run)
{
	run->disk.fault_at = run->disk.planned_at = 0;
	clock_virtual_advance(&run->clock, 4000);
	rest(run);
	if (run->disk.is_dead)
		return;
	if (journal_unsynced_bytes(run->queue->journal) > 0 && run->result->faults > 0 && is_small(run)) {
		/* Faults and what they left behind have eaten the reserve: somebody makes room. */
		run->disk.capacity += 4 * SEGMENT_BYTES;
		clock_virtual_advance(&run->clock, 4000);
		rest(run);
	}
	if (!run->disk.is_dead && journal_unsynced_bytes(run->queue->journal) > 0)
		model_violation(run, "RESULTS CANNOT BE RECORDED");
	check_bounds(run);
	check_intake(run);
}

/* When all is delivered, a disk of any size takes mail again. */
static void drain(struct run *run)
{
	run->disk.fault_at = 0;
	for (uint32_t i = 0; i < run->message_count; i++)
		if (model_is_alive(&run->messages[i]))
			finish_message(run, &run->messages[i]);
	rest(run);
	if (queue_may_accept(run->queue) == ERR_NO_SPACE && run->result->faults > 0) {
		run->disk.capacity += 4 * SEGMENT_BYTES;
		rest(run);
	}
	if (queue_may_accept(run->queue) != 0)
		model_violation(run, "EMPTY, AND TAKES NO MAIL (%d)", queue_may_accept(run->queue));
}

/* ---- Running ---- */

static void count_moves(struct run *run)
{
	if (run->queue)
		run->result->compacted += run->queue->compaction.own_appended > 0;
}

static void fault_step(struct run *run, uint32_t a, uint32_t b)
{
	enum fault_kind kind = (enum fault_kind)(1 + a % (FAULT_KIND_COUNT - 1));

	fault_disk_arm(&run->disk, 1 + b % 5, 1 + (b / 5 % 3 ? b / 15 % 4 : 40), kind);
	run->result->faults++;
}

static void run_step(struct run *run, const struct step *step)
{
	static const int64_t times[] = {1, 10, 50, 1000, 3000, 120000};
	struct model_upload *upload = choose_upload(run, step->a);
	struct model_message *message = run->message_count ? model_choose_alive(run, step->a) : NULL;

	switch ((enum step_kind)step->kind) {
	case STEP_SUBMIT: submit(run, 1 + step->a % RCPTS_MAX, step->b % 3000); break;
	case STEP_BEGIN: begin(run); break;
	case STEP_PIECE:
		if (upload)
			append(run, upload, 1 + step->b % 4000);
		break;
	case STEP_COMMIT:
		if (upload)
			commit(run, upload, 1 + step->b % RCPTS_MAX);
		break;
	case STEP_ABORT:
		if (upload)
			model_abort_upload(upload);
		break;
	case STEP_TURN: queue_turn(run->queue); break;
	case STEP_FINISH: fault_disk_finish(&run->disk); break;
	case STEP_FLUSH:
		for (int i = 0; i < 8 && !run->disk.is_dead; i++)
			turn_and_finish(run);
		break;
	case STEP_TIME: clock_virtual_advance(&run->clock, times[step->a % ARRAY_LEN(times)]); break;
	case STEP_DELIVER: deliver(run); break;
	case STEP_RESULT: result_step(run, step->a, step->b); break;
	case STEP_DONE: finish_message(run, message); break;
	case STEP_HOLD:
		if (message && (expect_ok(run, queue_hold(run->queue, message->id), "HOLD"), true))
			model_record(run, &message->held, true);
		break;
	case STEP_RELEASE:
		if (message && (expect_ok(run, queue_release(run->queue, message->id), "RELEASE"), true))
			model_record(run, &message->held, false);
		break;
	case STEP_DELETE:
		if (message && (expect_ok(run, queue_delete(run->queue, message->id), "DELETE"), true))
			model_record(run, &message->deleted, true);
		break;
	case STEP_WARN:
		if (message && (expect_ok(run, queue_set_warned(run->queue, message->id), "WARNED"), true))
			model_record(run, &message->warned, true);
		break;
	case STEP_READ: read_message(run, message); break;
	case STEP_READER: open_reader(run, step->a); break;
	case STEP_READ_ON: read_on(run, step->a); break;
	case STEP_FAULT: fault_step(run, step->a, step->b); break;
	case STEP_CALM: calm(run); break;
	case STEP_CRASH: crash_now(run, step->a % 2, step->b); break;
	case STEP_ROT: crash_with_rot(run, step->a, step->b); break;
	case STEP_KIND_COUNT: break;
	}
}

static void after_step(struct run *run, const struct step *step)
{
	if (run->result->violated)
		return;
	if (run->disk.is_dead) {
		model_say(run, "        %s\n", run->disk.died_by_power ? "power cut" : "killed");
		crash_now(run, false, step->b);
		return;
	}
	model_look_at_durability(run);
}

void history_run(const struct history *history, const struct journal_rules *rules, bool trace,
		 struct history_result *result)
{
	static struct run memory;
	struct run *run = &memory;

	*run = (struct run){.history = history, .trace = trace, .result = result};
	*result = (struct history_result){0};
	if (rules)
		run->rules = *rules;
	fault_disk_init(&run->disk, history->capacity_segments * SEGMENT_BYTES, history->seed);
	run->disk.recycles = run->rules.recycle;
	run->disk.disk.overwrites_in_place = history->seed % 4 != 0; /* else no zeros are written ahead */
	fault_disk_plan(&run->disk, history->plan_at, history->plan_count, history->plan_kind);
	clock_virtual_init(&run->clock, WALL_MS);
	rng_seeded_init(&run->rng, history->seed);
	crash_recover(run, 0, 0);
	for (run->step = 0; run->step < history->count && !result->violated; run->step++) {
		const struct step *step = &history->steps[run->step];
		model_say(run, "%3u %s %u %u\n", run->step, history_step_name((enum step_kind)step->kind), step->a,
			  step->b);
		run_step(run, step);
		after_step(run, step);
		count_moves(run);
	}
	if (!result->violated)
		calm(run);
	if (!result->violated)
		crash_now(run, history->seed % 2, (uint32_t)history->seed);
	if (!result->violated)
		drain(run);
	result->ops = run->disk.ops;
	crash_forget_queue(run);
	for (uint32_t i = 0; i < run->message_count; i++)
		free(run->messages[i].content);
	for (uint32_t i = 0; i < run->evidence_count; i++)
		free(run->evidence[i].bytes);
	fault_disk_fini(&run->disk);
}
