/*
 * queue/internal.h - how the parts of the queue see each other; private to queue/
 *
 * queue.c opens, turns and closes and hears from the journal what is synced; upload.c takes mail; schedule.c knows what
 * is due; result.c records what became of it; content.c reads; aside.c puts damaged messages aside; compaction.c copies
 * stragglers forward; recovery.c and replay.c find what a crash left, evidence.c saves what of it is damaged, and
 * repair.c makes a good journal of it.
 */
#ifndef QUEUE_INTERNAL_H
#define QUEUE_INTERNAL_H

#include "base/base.h"
#include "queue/id.h"
#include "queue/index.h"
#include "queue/journal.h"
#include "queue/payload.h"
#include "queue/queue.h"
#include "queue/segment.h"

#define QUEUE_UNSYNCED_MAX (8u << 20) /* reading from clients pauses above */
#define QUEUE_PIECE_BYTES (64u << 10)

struct aside;

/* The walk over the oldest segment that is still needed. */
struct compaction {
	uint32_t segment, walked; /* 0: none is walked; the newest that was walked to its end */
	uint64_t offset;
	uint64_t budget; /* bytes that may be looked at */
	uint64_t seen_appended, seen_released;
	uint64_t own_appended, own_released; /* by copies; these do not count as others' */
	uint32_t pending;		     /* copies that are not synced yet */
	uint32_t sweep;			     /* the next slot to be looked at for what the walk did not find */
	bool is_waiting;		     /* nothing can be done before something is synced */
	int64_t not_before_ms;		     /* the oldest segment cannot be emptied now */
	uint32_t told;			     /* the segment of which that was said */
	struct scan scan;
};

struct queue {
	struct queue_options options;
	const struct journal_rules *rules;
	struct disk *disk;
	struct segments segments;
	struct journal *journal;
	struct index *index;
	struct id_source ids;
	struct queue_upload *uploads; /* uthash by id */
	struct queue_list **lists;    /* by number; NULL: free */
	uint32_t list_cap, list_hint; /* hint: all below it are in use */
	struct compaction compaction;
	struct aside *asides;
	int64_t aside_not_before_ms; /* a copy has just failed */
	uint64_t corruptions;
	int accept_told;
	bool is_stopping;
};

/* queue.c */
int queue_append_simple(struct queue *queue, enum record_type type, uint64_t id);
/* All recipients are final, or the message is deleted: DONE, and out of the index. */
void queue_finish(struct queue *queue, struct slot *slot);
/* A piece is needed, or no longer. */
void queue_keep_piece(struct queue *queue, const struct index_place *piece);
void queue_release_piece(struct queue *queue, const struct index_place *piece);
void queue_release_places(struct queue *queue, struct record_place message, uint32_t length,
			  const struct index_extra *extra);
void queue_tell_corruption(struct queue *queue, uint64_t id, const char *text);
void queue_tell_note(struct queue *queue, const char *text);
/* queue_may_accept() as far as the disk goes: without the limits, and without ERR_LIMIT. */
int queue_may_store(const struct queue *queue);
/* NULL: no such message, or not synced yet. */
struct slot *queue_find(const struct queue *queue, uint64_t id);

/* upload.c */
void upload_on_synced(struct queue *queue, const struct journal_item *item, struct record_place place);
void upload_on_refused(struct queue *queue, const struct journal_item *item, enum err_code why);
uint64_t upload_count(const struct queue *queue);
/* Where piece `number` of an upload under way is; NULL: no such upload or piece. */
struct index_place *upload_piece(struct queue *queue, uint64_t id, uint32_t number);
/* Calls back for each piece of an upload that stands in the segment; false from the callback ends it. */
void upload_each_piece(struct queue *queue, uint32_t segment,
		       bool (*cb)(struct queue *queue, uint64_t id, uint32_t number, const struct index_place *piece));

/* schedule.c */
void schedule_forget_list(struct queue *queue, struct slot *slot);

/* aside.c: the bytes of the message go to the quarantine; once they are synced there the message is done. */
void aside_put(struct queue *queue, struct slot *slot, const char *what);
bool aside_on_done(struct queue *queue, const struct disk_done *done);
void aside_free_all(struct queue *queue);

/* content.c: the last RESULT of a recipient from the journal into `room` of RESULT_ROOM octets. ERR_NOT_FOUND: there is
 * none that can be read. */
#define RESULT_ROOM (RECORD_HEADER_BYTES + 1024)
int content_read_result(const struct queue *queue, const struct index_rcpt *rcpt, char *room,
			struct payload_result *result);

/* result.c: what is known of a recipient, as far as memory goes. */
struct payload_result result_of_rcpt(const struct index_rcpt *rcpt);
void result_to_rcpt(struct slot *slot, uint32_t i, const struct payload_result *result);

/* recovery.c: fills segments, index and ids from the disk, and opens a new segment. */
int recovery_run(struct queue *queue, struct queue_report *report, uint32_t *next_number, uint64_t *next_name,
		 uint64_t *spool, struct err *err);

/* compaction.c */
void compaction_step(struct queue *queue);
/* A copy is synced, and took the place of the old one if that still counted. */
void compaction_on_copied(struct queue *queue, const struct journal_item *item, bool took_place);
int64_t compaction_next_deadline_ms(const struct queue *queue);
void compaction_fini(struct queue *queue);

#endif
