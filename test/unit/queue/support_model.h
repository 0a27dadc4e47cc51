/*
 * The model of a history (support_history.h): what was promised of each message, what is known to be on stable storage,
 * and what must therefore be true behind a crash.
 */
#ifndef TEST_QUEUE_SUPPORT_MODEL_H
#define TEST_QUEUE_SUPPORT_MODEL_H

#include "queue/internal.h"
#include "support_history.h"

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

/* The first violation counts, and ends the history. */
void model_violation(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* When the history is traced. */
void model_say(const struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* It has this value from now on; it must survive once what is recorded now is durable. */
void model_record(struct run *run, struct recorded *recorded, uint32_t value);
bool model_is_durable(const struct run *run, const struct recorded *recorded);
/* The value that a crash leaves at least. */
uint32_t model_must_be(const struct run *run, const struct recorded *recorded);
/* With nothing unsynced in the journal, all that was recorded is durable. */
void model_look_at_durability(struct run *run);

/* The latest: after the clock was set back, the id of one that was never written down may have come again. */
struct model_message *model_by_id(struct run *run, uint64_t id);
bool model_all_final(const struct model_message *message);
bool model_all_final_durable(const struct run *run, const struct model_message *message);
/* Whether the model may ask something of it. */
bool model_is_alive(const struct model_message *message);
/* Damage excuses what it hit, if it was told. */
bool model_is_excused(const struct run *run, const struct model_message *message);
/* One that is alive, NULL: none. */
struct model_message *model_choose_alive(struct run *run, uint32_t a);
/* No id comes twice. */
void model_use_id(struct run *run, uint64_t id);
/* The answer to a commit; ctx: the run. */
queue_commit_cb model_on_commit;
void model_abort_upload(struct model_upload *upload);
void model_close_readers(struct run *run);

/* Reads the whole content; true: it is what was submitted. */
bool model_check_content(struct run *run, const struct model_message *message);
/* After a recovery: everything that must be there is, and nothing else; what is there is taken as durable. */
void model_check_all(struct run *run);

#endif
