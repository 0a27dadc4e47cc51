#include "support_history.h"

#include "queue/internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define SEGMENT_BYTES (32 * 1024)
#define PIECE_BYTES 1536
#define WALL_MS 1790000000000
#define RCPTS_MAX 3
#define MESSAGES_MAX 600
#define UPLOADS_MAX 4
#define READERS_MAX 2
#define EVIDENCE_MAX 64

/* What the model knows of something that was recorded: when, and whether it must survive. */
struct recorded {
	uint64_t seq; /* 0: never */
	uint32_t value, durable_value;
};

enum life {
	LIFE_PENDING, /* committed, no answer yet */
	LIFE_ACKED,
	LIFE_REFUSED,
	LIFE_GONE, /* nobody promises anything any more, and it must not come back */
};

struct model_rcpt {
	struct recorded final; /* value: outcome kind, 0: none */
	struct recorded attempts;
	bool taken;
};

struct model_message {
	uint64_t id;
	enum life life;
	char *content;
	size_t len;
	uint32_t rcpt_count;
	struct model_rcpt rcpts[RCPTS_MAX];
	struct recorded held, warned, deleted;
	uint64_t commit_seq;
	uint64_t refused_at_syncs;
	bool is_lost; /* told as damaged; nothing more is expected */
	bool is_hit;  /* a record of it rotted */
};

struct model_upload {
	struct queue_upload *upload;
	char *content;
	size_t len;
};

struct model_reader {
	struct queue_content *content;
	uint32_t message;
	size_t at;
};

/* A record as it was when bits of it had been flipped: the quarantine must hold it if something is lost. */
struct evidence {
	uint64_t id;
	char *bytes;
	size_t len;
};

struct run {
	const struct history *history;
	struct journal_rules rules;
	bool trace;
	struct history_result *result;
	struct fault_disk disk;
	struct clock_virtual clock;
	struct rng_seeded rng;
	struct queue *queue;
	struct queue_report report;
	uint64_t seq, durable_seq;
	struct model_message messages[MESSAGES_MAX];
	uint32_t message_count;
	struct model_upload uploads[UPLOADS_MAX];
	struct model_reader readers[READERS_MAX];
	uint64_t ids_used[4 * MESSAGES_MAX];
	uint32_t id_count;
	struct evidence evidence[EVIDENCE_MAX];
	uint32_t evidence_count;
	unsigned told; /* corruptions, since the last rot */
	bool rotten;   /* bits have been flipped in this history */
	bool had_power_cut;
	uint32_t step;
	enum err_code error; /* of the last start */
};

/* ---- Reporting ---- */

static void __attribute__((format(printf, 2, 3))) violation(struct run *run, const char *format, ...)
{
	va_list args;

	if (run->result->violated)
		return;
	run->result->violated = true;
	run->result->at_step = run->step;
	va_start(args, format);
	vsnprintf(run->result->text, sizeof(run->result->text), format, args);
	va_end(args);
	if (run->trace)
		printf("VIOLATION %s\n", run->result->text);
}

static void __attribute__((format(printf, 2, 3))) say(const struct run *run, const char *format, ...)
{
	va_list args;

	if (!run->trace)
		return;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
}

static void on_corruption(void *ctx, uint64_t id, const char *text)
{
	struct run *run = ctx;

	(void)id;
	if (run->disk.is_dead)
		return;
	run->told++;
	say(run, "        told: %s\n", text);
}

static void on_note(void *ctx, const char *text)
{
	say(ctx, "        note: %s\n", text);
}

static void on_state(void *ctx, enum queue_journal_state state, const char *reason)
{
	say(ctx, "        state %s: %s\n", queue_journal_state_name(state), reason);
}

/* ---- The model ---- */

static void record(struct run *run, struct recorded *recorded, uint32_t value)
{
	recorded->seq = ++run->seq;
	recorded->value = value;
}

static bool is_durable(const struct run *run, const struct recorded *recorded)
{
	return recorded->seq <= run->durable_seq;
}

static uint32_t must_be(const struct run *run, const struct recorded *recorded)
{
	return is_durable(run, recorded) ? recorded->value : recorded->durable_value;
}

static void settle_recorded(const struct run *run, struct recorded *recorded)
{
	if (is_durable(run, recorded))
		recorded->durable_value = recorded->value;
}

/* What has become durable is remembered, so that a later change that is not does not hide it. */
static void settle(struct run *run)
{
	for (uint32_t i = 0; i < run->message_count; i++) {
		struct model_message *message = &run->messages[i];
		settle_recorded(run, &message->held);
		settle_recorded(run, &message->warned);
		settle_recorded(run, &message->deleted);
		for (uint32_t r = 0; r < message->rcpt_count; r++) {
			settle_recorded(run, &message->rcpts[r].final);
			settle_recorded(run, &message->rcpts[r].attempts);
		}
	}
}

static void look_at_durability(struct run *run)
{
	if (!run->queue || run->disk.is_dead || journal_unsynced_bytes(run->queue->journal) > 0)
		return;
	if (run->durable_seq < run->seq) {
		run->durable_seq = run->seq;
		settle(run);
	}
}

/* The latest: after the clock was set back, the id of one that was never written down may have come again. */
static struct model_message *by_id(struct run *run, uint64_t id)
{
	for (uint32_t i = run->message_count; i > 0; i--)
		if (run->messages[i - 1].id == id)
			return &run->messages[i - 1];
	return NULL;
}

static bool all_final(const struct model_message *message)
{
	for (uint32_t r = 0; r < message->rcpt_count; r++)
		if (message->rcpts[r].final.value == 0)
			return false;
	return true;
}

static bool all_final_durable(const struct run *run, const struct model_message *message)
{
	for (uint32_t r = 0; r < message->rcpt_count; r++)
		if (must_be(run, &message->rcpts[r].final) == 0)
			return false;
	return true;
}

/* Whether the model may ask something of it. */
static bool is_alive(const struct model_message *message)
{
	return message->life == LIFE_ACKED && !message->is_lost && message->deleted.value == 0 && !all_final(message);
}

/* Damage excuses what it hit, if it was told. */
static bool is_excused(const struct run *run, const struct model_message *message)
{
	return message->is_lost || (message->is_hit && run->told > 0);
}

static struct model_message *choose_alive(struct run *run, uint32_t a)
{
	for (uint32_t i = 0; i < run->message_count; i++) {
		struct model_message *message = &run->messages[(a + i) % run->message_count];
		if (is_alive(message))
			return message;
	}
	return NULL;
}

static void use_id(struct run *run, uint64_t id)
{
	for (uint32_t i = 0; i < run->id_count; i++)
		if (run->ids_used[i] == id)
			violation(run, "ID USED TWICE");
	if (run->id_count < ARRAY_LEN(run->ids_used))
		run->ids_used[run->id_count++] = id;
}

static void on_commit(void *ctx, uint64_t id, enum err_code code)
{
	struct run *run = ctx;
	struct model_message *message = by_id(run, id);

	if (run->disk.is_dead)
		return;
	if (!message || message->life != LIFE_PENDING) {
		violation(run, "ANSWERED TWICE, OR FOR NOTHING");
		return;
	}
	if (code == 0) {
		message->life = LIFE_ACKED;
		run->result->acked++;
		run->durable_seq = MAX(run->durable_seq, message->commit_seq);
		settle(run);
		say(run, "        250 for message %u\n", (unsigned)(message - run->messages));
	} else {
		message->life = LIFE_REFUSED;
		message->refused_at_syncs = run->disk.syncs_ok;
		say(run, "        %d for message %u\n", code, (unsigned)(message - run->messages));
	}
}

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
		queue_upload_abort(&upload->upload);
		free(upload->content);
		*upload = (struct model_upload){0};
		return;
	}
	message = &run->messages[run->message_count++];
	*message = (struct model_message){.id = queue_upload_id(upload->upload),
					  .content = upload->content,
					  .len = upload->len,
					  .rcpt_count = rcpt_count};
	message->commit_seq = ++run->seq;
	rc = queue_upload_commit(&upload->upload, &envelope, on_commit, run);
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
		use_id(run, queue_upload_id(upload->upload));
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

static void abort_upload(struct model_upload *upload)
{
	queue_upload_abort(&upload->upload);
	free(upload->content);
	*upload = (struct model_upload){0};
}

static void deliver(struct run *run)
{
	int64_t now = clock_wall_ms(&run->clock.clock);
	uint32_t indexes[RCPTS_MAX];
	uint64_t id;

	while (!run->disk.is_dead && queue_pop_due(run->queue, now, &id)) {
		struct model_message *message = by_id(run, id);
		size_t count;
		if (!message || message->life != LIFE_ACKED) {
			violation(run, "DELIVERED BEFORE IT WAS ACCEPTED");
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
		if (!is_excused(run, message))
			violation(run, "RESULT NOT TAKEN (%d)", rc);
		return;
	}
	rcpt->taken = false;
	record(run, &rcpt->attempts, result.attempts);
	rcpt->attempts.seq = run->seq;
	if (kind != OUTCOME_DEFERRED)
		record(run, &rcpt->final, kind);
}

static void result_step(struct run *run, uint32_t a, uint32_t b)
{
	static const enum outcome_kind kinds[] = {OUTCOME_DELIVERED, OUTCOME_DELIVERED, OUTCOME_DEFERRED,
						  OUTCOME_FAILED};
	struct model_message *message = choose_alive(run, a);

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
		violation(run, "%s NOT TAKEN (%d)", what, rc);
}

/* Reads the whole content; true: it is what was submitted. */
static bool check_content(struct run *run, const struct model_message *message)
{
	struct queue_content *content = queue_content_open(run->queue, message->id, NULL);
	char bytes[4096];
	size_t at = 0;
	ssize_t n;

	if (!content)
		return false;
	while ((n = queue_content_read(content, bytes, sizeof(bytes))) > 0) {
		if (at + (size_t)n > message->len || memcmp(bytes, message->content + at, (size_t)n) != 0) {
			violation(run, "READER SENDS FOREIGN BYTES");
			break;
		}
		at += (size_t)n;
	}
	queue_content_close(&content);
	if (n == 0 && at != message->len)
		violation(run, "READER SENDS A PART");
	return n == 0;
}

static void read_message(struct run *run, struct model_message *message)
{
	if (!message || check_content(run, message) || run->disk.is_dead)
		return;
	if (!is_excused(run, message))
		violation(run, "CANNOT BE READ");
	message->is_lost = true; /* the evidence is on its way to the quarantine */
}

static void close_readers(struct run *run)
{
	for (uint32_t i = 0; i < READERS_MAX; i++)
		queue_content_close(&run->readers[i].content);
}

static void open_reader(struct run *run, uint32_t a)
{
	struct model_message *message = choose_alive(run, a);
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
		violation(run, "READER SENDS FOREIGN BYTES");
	if (n == 0 && reader->at != message->len)
		violation(run, "READER SENDS A PART");
	if (n < 0 && is_alive(message) && !is_excused(run, message) && !run->disk.is_dead)
		violation(run, "READER FAILS (%d)", (int)n);
	reader->at += n > 0 ? (size_t)n : 0;
	if (n <= 0)
		queue_content_close(&reader->content);
}

/* ---- Crash, recovery and what must be true behind it ---- */

static void forget_queue(struct run *run)
{
	close_readers(run);
	for (uint32_t i = 0; i < UPLOADS_MAX; i++)
		if (run->uploads[i].upload)
			abort_upload(&run->uploads[i]);
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
		say(run, "        recovery: %s\n", run->disk.is_dead ? "cut" : err.text);
	else
		say(run, "        recovered %" PRIu64 " messages, corrupt %u suspect %u missing %u\n",
		    run->report.messages, run->report.corrupt_ranges, run->report.suspect_ranges,
		    run->report.segments_missing);
}

/* Opens until it succeeds; the first tries may be cut short or meet errors. */
static void recover(struct run *run, uint64_t seed, uint32_t faults)
{
	struct rng_seeded rng;

	rng_seeded_init(&rng, seed);
	for (uint32_t tries = 0; tries < 60; tries++) {
		bool power;
		if (tries < faults) {
			enum fault_kind kind = (enum fault_kind)(1 + rng_below(&rng.rng, FAULT_KIND_COUNT - 1));
			fault_disk_arm(&run->disk, 1 + rng_below(&rng.rng, 24), 1 + rng_below(&rng.rng, 3), kind);
			say(run, "        (%s during recovery)\n", fault_kind_name(kind));
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
		forget_queue(run);
		fault_disk_crash(&run->disk, power, rng_u64(&rng.rng));
	}
	violation(run, "RECOVERY DOES NOT SUCCEED");
}

static void adopt(struct recorded *recorded, uint32_t value)
{
	*recorded = (struct recorded){0, value, value};
}

static void check_rcpt(struct run *run, struct model_message *message, uint32_t r,
		       const struct queue_recipient_status *status)
{
	struct model_rcpt *rcpt = &message->rcpts[r];
	uint32_t final = status->state == QUEUE_FINAL ? status->kind : 0;

	if (must_be(run, &rcpt->final) && final != must_be(run, &rcpt->final) && !is_excused(run, message))
		violation(run, "RESULT FORGOTTEN: message %u, recipient %u", (unsigned)(message - run->messages), r);
	else if (final && final != rcpt->final.value)
		violation(run, "RESULT FROM NOWHERE: message %u, recipient %u", (unsigned)(message - run->messages), r);
	if (status->attempts < must_be(run, &rcpt->attempts) && !is_excused(run, message))
		violation(run, "ATTEMPTS FORGOTTEN: message %u, recipient %u", (unsigned)(message - run->messages), r);
	else if (status->attempts > rcpt->attempts.value)
		violation(run, "ATTEMPTS FROM NOWHERE");
	adopt(&rcpt->final, final);
	adopt(&rcpt->attempts, status->attempts);
	rcpt->taken = false;
}

static void check_flag(struct run *run, const struct model_message *message, struct recorded *recorded, bool now,
		       const char *name)
{
	/* Of several changes that were not synced any may be the last that survived. */
	if (is_durable(run, recorded) && now != recorded->value && !is_excused(run, message))
		violation(run, "%s FORGOTTEN", name);
	adopt(recorded, now);
}

static bool may_be_present(struct run *run, const struct model_message *message)
{
	switch (message->life) {
	case LIFE_PENDING: return true;
	case LIFE_REFUSED: return message->refused_at_syncs == run->disk.syncs_ok;
	case LIFE_GONE: return false;
	case LIFE_ACKED: return must_be(run, &message->deleted) == 0 && !all_final_durable(run, message);
	}
	return false;
}

static bool may_be_absent(const struct model_message *message)
{
	return message->life != LIFE_ACKED || message->is_lost || message->deleted.value || all_final(message);
}

static bool quarantine_has(struct run *run, const struct evidence *evidence)
{
	for (uint32_t i = 0; i < run->disk.cached_count[DISK_QUARANTINE]; i++) {
		uint64_t size;
		const char *bytes = fault_disk_bytes(&run->disk, DISK_QUARANTINE,
						     fault_disk_name(&run->disk, DISK_QUARANTINE, i), &size);
		if (memmem(bytes, size, evidence->bytes, evidence->len))
			return true;
	}
	return false;
}

/* An accepted message is not there, or cannot be read: only what rotted may go this way, told and with the bytes kept.
 */
static void lose(struct run *run, struct model_message *message)
{
	unsigned number = (unsigned)(message - run->messages);
	bool any = false;

	if (message->is_lost)
		return;
	message->is_lost = true;
	if (!message->is_hit)
		violation(run, "LOST: message %u", number);
	else if (run->told == 0)
		violation(run, "SILENT LOSS: message %u", number);
	for (uint32_t i = 0; i < run->evidence_count; i++)
		any |= run->evidence[i].id == message->id && quarantine_has(run, &run->evidence[i]);
	if (message->is_hit && !any)
		violation(run, "LOST WITHOUT EVIDENCE: message %u", number);
}

static void check_present(struct run *run, struct model_message *message)
{
	struct queue_message read;
	int rc;

	if (!may_be_present(run, message) && !is_excused(run, message))
		violation(run,
			  message->life == LIFE_REFUSED ? "REFUSED, YET THERE: message %u" : "RESURRECTED: message %u",
			  (unsigned)(message - run->messages));
	message->life = LIFE_ACKED;
	rc = queue_read_envelope(run->queue, message->id, 0, &read);
	if (rc < 0 || !check_content(run, message)) {
		if (rc == 0)
			queue_message_free(&read);
		lose(run, message);
		return;
	}
	if (read.envelope.recipient_count != message->rcpt_count)
		violation(run, "ANOTHER ENVELOPE");
	for (uint32_t r = 0; r < message->rcpt_count; r++)
		check_rcpt(run, message, r, &read.status[r]);
	check_flag(run, message, &message->held, read.state == STATE_HELD, "HOLD");
	check_flag(run, message, &message->warned, read.warned, "WARNED");
	adopt(&message->deleted, 0);
	queue_message_free(&read);
}

static void check_absent(struct run *run, struct model_message *message)
{
	if (!may_be_absent(message))
		lose(run, message);
	message->life = LIFE_GONE;
}

struct finder {
	struct run *run;
	bool seen[MESSAGES_MAX];
};

static void on_found(void *ctx, const struct queue_brief *brief)
{
	struct finder *finder = ctx;
	struct model_message *message = by_id(finder->run, brief->id);

	if (!message)
		violation(finder->run, "A MESSAGE FROM NOWHERE");
	else
		finder->seen[message - finder->run->messages] = true;
}

static void check_all(struct run *run)
{
	struct finder finder = {.run = run};
	uint64_t cursor = 0;

	run->result->crashes++;
	queue_iterate(run->queue, &cursor, SIZE_MAX, on_found, &finder);
	if (!run->rotten && (run->report.corrupt_ranges || run->report.segments_missing ||
			     (run->report.quarantined && !run->had_power_cut)))
		violation(run, "FALSE ALARM");
	for (uint32_t i = 0; i < run->message_count; i++) {
		if (finder.seen[i])
			check_present(run, &run->messages[i]);
		else
			check_absent(run, &run->messages[i]);
	}
	run->durable_seq = run->seq;
}

/* A restart takes time; and now and then the clock is set back meanwhile, to when some message was accepted. Then only
 * ids that were answered for must not come again: those that were never written down were seen by nobody who counts on
 * them. */
static void pass_time(struct run *run, uint32_t b)
{
	const struct model_message *message = run->message_count ? choose_alive(run, b / 16) : NULL;

	clock_virtual_advance(&run->clock, 1);
	if (b % 16 != 5 || !message)
		return;
	run->clock.wall = id_wall_ms(message->id);
	run->id_count = 0;
	for (uint32_t i = 0; i < run->message_count; i++)
		if (run->messages[i].life == LIFE_ACKED)
			run->ids_used[run->id_count++] = run->messages[i].id;
}

static void crash(struct run *run, bool power, uint32_t b)
{
	power |= run->disk.is_dead && run->disk.died_by_power;
	run->had_power_cut |= power;
	forget_queue(run);
	pass_time(run, b);
	fault_disk_crash(&run->disk, power, b);
	recover(run, b, b % 4 == 0 ? b / 4 % 4 : 0);
	if (run->result->violated)
		return;
	check_all(run);
	if (b % 8 != 1 || run->result->violated)
		return;
	/* Once more, cut anywhere: nothing may change. */
	forget_queue(run);
	fault_disk_crash(&run->disk, b / 8 % 2, b + 1);
	run->had_power_cut |= b / 8 % 2;
	recover(run, b + 2, 3);
	if (!run->result->violated)
		check_all(run);
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
	struct model_message *message = by_id(run, header->id);
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

/* Bits rot in one record, or in one of the two headers, of a segment that is needed; then the daemon starts again. */
static void rot(struct run *run, uint32_t a, uint32_t b)
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
	say(run, "        rot in segment %u at %" PRIu64 ": %s\n", segment->header.number, offset,
	    in_record ? record_type_name(header.type) : "header");
	forget_queue(run);
	run->told = 0;
	run->rotten = true;
	fault_disk_rot(&run->disk, DISK_JOURNAL, name, offset, offset + bytes, 3);
	if (in_record)
		keep_evidence(run, name, offset, &header);
	fault_disk_crash(&run->disk, a % 2, b);
	run->had_power_cut |= a % 2;
	pass_time(run, b);
	recover(run, b, b % 3 == 0 ? 1 + b / 3 % 3 : 0);
	if (!run->result->violated)
		check_all(run);
}

/* ---- Calm ---- */

static bool turn_and_finish(struct run *run)
{
	bool any;

	queue_turn(run->queue);
	look_at_durability(run);
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
		look_at_durability(run);
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
		violation(run, "DISK BOUND: %" PRIu64 " bytes, %" PRIu64 " of them live", stats.journal_bytes,
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
		violation(run, "NO MAIL IS TAKEN AFTER THE FAULT (%d)", queue_may_accept(run->queue));
		return;
	}
	if (choose_upload(run, 0) && !choose_upload(run, 0)->upload)
		return;
	submit(run, 1, 100);
	rest(run);
	if (run->message_count == before + 1 && run->messages[before].life != LIFE_ACKED && !run->disk.is_dead)
		violation(run, "MAIL IS NOT TAKEN AFTER THE FAULT");
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
		violation(run, "RESULTS CANNOT BE RECORDED");
	check_bounds(run);
	check_intake(run);
}

/* When all is delivered, a disk of any size takes mail again. */
static void drain(struct run *run)
{
	run->disk.fault_at = 0;
	for (uint32_t i = 0; i < run->message_count; i++)
		if (is_alive(&run->messages[i]))
			finish_message(run, &run->messages[i]);
	rest(run);
	if (queue_may_accept(run->queue) == ERR_NO_SPACE && run->result->faults > 0) {
		run->disk.capacity += 4 * SEGMENT_BYTES;
		rest(run);
	}
	if (queue_may_accept(run->queue) != 0)
		violation(run, "EMPTY, AND TAKES NO MAIL (%d)", queue_may_accept(run->queue));
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
	struct model_message *message = run->message_count ? choose_alive(run, step->a) : NULL;

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
			abort_upload(upload);
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
			record(run, &message->held, true);
		break;
	case STEP_RELEASE:
		if (message && (expect_ok(run, queue_release(run->queue, message->id), "RELEASE"), true))
			record(run, &message->held, false);
		break;
	case STEP_DELETE:
		if (message && (expect_ok(run, queue_delete(run->queue, message->id), "DELETE"), true))
			record(run, &message->deleted, true);
		break;
	case STEP_WARN:
		if (message && (expect_ok(run, queue_set_warned(run->queue, message->id), "WARNED"), true))
			record(run, &message->warned, true);
		break;
	case STEP_READ: read_message(run, message); break;
	case STEP_READER: open_reader(run, step->a); break;
	case STEP_READ_ON: read_on(run, step->a); break;
	case STEP_FAULT: fault_step(run, step->a, step->b); break;
	case STEP_CALM: calm(run); break;
	case STEP_CRASH: crash(run, step->a % 2, step->b); break;
	case STEP_ROT: rot(run, step->a, step->b); break;
	case STEP_KIND_COUNT: break;
	}
}

static void after_step(struct run *run, const struct step *step)
{
	if (run->result->violated)
		return;
	if (run->disk.is_dead) {
		say(run, "        %s\n", run->disk.died_by_power ? "power cut" : "killed");
		crash(run, false, step->b);
		return;
	}
	look_at_durability(run);
}

static const char *const step_names[] = {
    "submit", "begin",	 "piece",  "commit", "abort", "turn",	"finish",  "flush", "time", "deliver", "result", "done",
    "hold",   "release", "delete", "warn",   "read",  "reader", "read on", "fault", "calm", "crash",   "rot"};

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
	fault_disk_plan(&run->disk, history->plan_at, history->plan_count, history->plan_kind);
	clock_virtual_init(&run->clock, WALL_MS);
	rng_seeded_init(&run->rng, history->seed);
	recover(run, 0, 0);
	for (run->step = 0; run->step < history->count && !result->violated; run->step++) {
		const struct step *step = &history->steps[run->step];
		say(run, "%3u %s %u %u\n", run->step, step_names[step->kind], step->a, step->b);
		run_step(run, step);
		after_step(run, step);
		count_moves(run);
	}
	if (!result->violated)
		calm(run);
	if (!result->violated)
		crash(run, history->seed % 2, (uint32_t)history->seed);
	if (!result->violated)
		drain(run);
	result->ops = run->disk.ops;
	forget_queue(run);
	for (uint32_t i = 0; i < run->message_count; i++)
		free(run->messages[i].content);
	for (uint32_t i = 0; i < run->evidence_count; i++)
		free(run->evidence[i].bytes);
	fault_disk_fini(&run->disk);
}

/* ---- Making ---- */

struct weight {
	enum step_kind kind;
	uint32_t weight;
	enum history_danger danger;
};

static const struct weight weights[] = {
    {STEP_SUBMIT, 14, DANGER_NONE}, {STEP_BEGIN, 4, DANGER_NONE},
    {STEP_PIECE, 8, DANGER_NONE},   {STEP_COMMIT, 5, DANGER_NONE},
    {STEP_ABORT, 1, DANGER_NONE},   {STEP_TURN, 14, DANGER_NONE},
    {STEP_FINISH, 14, DANGER_NONE}, {STEP_FLUSH, 8, DANGER_NONE},
    {STEP_TIME, 4, DANGER_NONE},    {STEP_DELIVER, 3, DANGER_NONE},
    {STEP_RESULT, 8, DANGER_NONE},  {STEP_DONE, 10, DANGER_NONE},
    {STEP_HOLD, 1, DANGER_NONE},    {STEP_RELEASE, 1, DANGER_NONE},
    {STEP_DELETE, 1, DANGER_NONE},  {STEP_WARN, 1, DANGER_NONE},
    {STEP_READ, 2, DANGER_NONE},    {STEP_READER, 2, DANGER_NONE},
    {STEP_READ_ON, 3, DANGER_NONE}, {STEP_FAULT, 5, DANGER_FAULTS},
    {STEP_CALM, 1, DANGER_FAULTS},  {STEP_CRASH, 3, DANGER_FAULTS | DANGER_CRASH},
    {STEP_ROT, 3, DANGER_ROT},
};

static uint32_t weight_of(const struct weight *weight, enum history_danger danger)
{
	return weight->danger == DANGER_NONE || weight->danger & danger ? weight->weight : 0;
}

void history_random(struct history *history, uint64_t seed, uint32_t steps, enum history_danger danger)
{
	struct rng_seeded rng;
	uint32_t total = 0;

	rng_seeded_init(&rng, seed ^ 0x5bd1e995u);
	*history = (struct history){.seed = seed, .count = MIN(steps, (uint32_t)HISTORY_STEPS_MAX)};
	history->capacity_segments = rng_below(&rng.rng, 5) == 0 ? 8 + rng_below(&rng.rng, 12) : 200;
	if (danger & DANGER_FULL)
		history->capacity_segments = 7 + rng_below(&rng.rng, 4);
	for (size_t i = 0; i < ARRAY_LEN(weights); i++)
		total += weight_of(&weights[i], danger);
	for (uint32_t s = 0; s < history->count; s++) {
		uint64_t at = rng_below(&rng.rng, total);
		size_t i = 0;
		while (at >= weight_of(&weights[i], danger))
			at -= weight_of(&weights[i++], danger);
		if (danger & DANGER_FULL && rng_below(&rng.rng, 3) == 0)
			i = 0;
		history->steps[s] = (struct step){(uint8_t)weights[i].kind, (uint32_t)rng_below(&rng.rng, 1u << 30),
						  (uint32_t)rng_below(&rng.rng, 1u << 30)};
		if (danger & DANGER_CRASH)
			history->steps[s].b = history->steps[s].b / 4 * 4 + 2; /* crash(): no faults of its own */
	}
}

/* ---- Shrinking ---- */

static bool still_violates(const struct history *history, const struct journal_rules *rules)
{
	struct history_result result;

	history_run(history, rules, false, &result);
	return result.violated;
}

void history_shrink(struct history *history, const struct journal_rules *rules)
{
	for (uint32_t chunk = history->count; chunk > 0; chunk = chunk > 1 ? (chunk + 1) / 2 : 0) {
		uint32_t at = 0;
		while (at < history->count) {
			struct history shorter = *history;
			uint32_t n = MIN(chunk, history->count - at);
			memmove(shorter.steps + at, shorter.steps + at + n,
				(shorter.count - at - n) * sizeof(shorter.steps[0]));
			shorter.count -= n;
			if (still_violates(&shorter, rules))
				*history = shorter;
			else
				at += n;
		}
	}
}

void history_print(const struct history *history)
{
	printf("SEED=%" PRIu64 ", %u steps", history->seed, history->count);
	if (history->plan_at)
		printf(", from disk operation %" PRIu64 " on %" PRIu64 " times %s", history->plan_at,
		       history->plan_count, fault_kind_name(history->plan_kind));
	printf(":\n");
	for (uint32_t i = 0; i < history->count; i++)
		printf("%3u %s %u %u\n", i, step_names[history->steps[i].kind], history->steps[i].a,
		       history->steps[i].b);
}
