/*
 * queue/journal_internal.h - the writer's inside, shared by journal.c (batches, writing, syncing, failing) and
 * journal_segments.c (where segments come from and go)
 */
#ifndef QUEUE_JOURNAL_INTERNAL_H
#define QUEUE_JOURNAL_INTERNAL_H

#include "queue/gather.h"
#include "queue/journal.h"

struct journal {
	struct journal_options options;
	const struct journal_rules *rules;
	struct segment *current; /* NULL: the next batch opens one */
	bool header_pending;	 /* the current segment's header goes out with the next batch */
	uint64_t zeroed;	 /* zeros were written ahead up to this offset of it */
	struct gather gather;
	struct batch flight;
	struct batch *open; /* that of gather in which a record is under way ... */
	size_t begun;	    /* ... and where it begins; NULL: none is */

	uint64_t sync_token; /* 0: none runs */
	struct record_place watermark;
	uint32_t first_written; /* `first` as synced */
	uint32_t flight_first;	/* as the batch in flight says */
	int64_t mark_at_ms;	/* when a lone MARK is due */
	bool hurry;

	struct segment *spare;
	uint64_t prepare_token; /* 0: none runs */
	int64_t prepare_at_ms;	/* not before */
	int prepare_error;
	struct segment **condemned; /* nothing of them counts; unlinked once a later header stands */
	uint32_t condemned_count;
	bool must_clean; /* something waits for the next header to stand */

	uint32_t failures; /* running */
	int64_t retry_at_ms;
	enum queue_journal_state state;
	uint32_t next_number;
	uint64_t next_name, next_token;
	uint64_t free_bytes;
	int64_t free_looked_ms;
	struct journal_counts counts;
};

int64_t journal_now_ms(const struct journal *journal);
void journal_set_state(struct journal *journal, enum queue_journal_state state, const char *reason);
/* Tells those who wait for a 250 that it will not come, and takes their records out. */
void journal_refuse_intake(struct journal *journal, enum err_code why);

/* journal_segments.c */
bool journal_is_space_error(int error);
/* Ready to be opened. */
bool journal_has_spare(const struct journal *journal);
void journal_look_at_space(struct journal *journal);
/* Begins to make one, if there is none and none is being made. */
void journal_prepare_spare(struct journal *journal);
void journal_on_prepared(struct journal *journal, const struct disk_done *done);
/* Ok, or no space, as room says; a poisoned journal stays so until a sync succeeds. */
void journal_review_state(struct journal *journal);
/* Opens the spare as the current segment. False: there is none, or the reserve forbids it. */
bool journal_open_segment(struct journal *journal);
/* The current segment has failed: it counts up to its last synced byte. */
void journal_end_segment(struct journal *journal);
/* The oldest segment that is needed. Only what is synced counts, since `live` changes only then. */
uint32_t journal_oldest_needed(const struct journal *journal);
/* All below `first` go: that `first` is synced. */
void journal_discard_below(struct journal *journal, uint32_t first);
/* The header of the current segment is on stable storage: what it replaces is cut off and unlinked. */
void journal_clean_behind(struct journal *journal);

#endif
