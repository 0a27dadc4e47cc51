/*
 * queue/recovery.h - what a crash left: reads the whole journal, changes nothing
 *
 * Private to queue/. The scan fills a table of segments and an index; repair.c then makes a good journal of what was
 * found, and verify.c only tells it. The rules stand in queue/journal.h under CRASH.
 */
#ifndef QUEUE_RECOVERY_H
#define QUEUE_RECOVERY_H

#include "queue/index.h"
#include "queue/journal.h"
#include "queue/payload.h"
#include "queue/segment.h"

/* A damaged place. */
struct recovery_range {
	char name[SEGMENT_NAME_MAX]; /* of the file */
	int fd;			     /* borrowed from its segment or leftover */
	uint32_t segment;
	uint64_t offset, bytes;
	uint64_t id; /* whose record stood there, if that can be told */
	bool is_suspect;
};

/* A file of the journal that is in no use. */
struct recovery_leftover {
	char name[SEGMENT_NAME_MAX];
	int fd;
	uint64_t size;
	bool has_header;
	bool has_content; /* some octet near its beginning is not zero */
	bool is_evidence; /* without a sound header, yet more than an interrupted recovery leaves behind */
};

/* A message that cannot be sent. */
struct recovery_broken {
	uint64_t id;
	struct record_place message;
	uint32_t length;
	struct index_extra *extra; /* with the places of its pieces, as far as they are there; NULL: it has none */
	bool is_suspect;	   /* its MESSAGE was not known to be synced */
};

/* Pieces whose MESSAGE has not come yet. */
struct recovery_orphan;

struct recovery {
	struct disk *disk;
	struct segments *segments; /* filled: the chain, oldest first, the newest last */
	struct index *index;	   /* filled; slots are not marked as synced */
	const struct queue_notify *notify;
	const struct journal_rules *rules;
	struct queue_report *report;
	int64_t now_wall;
	bool check_bodies; /* check the pieces of older segments too */

	uint64_t records;	/* that were sound */
	struct segment **found; /* sound headers, ascending; those in the chain have moved to `segments` */
	uint32_t found_count;
	struct recovery_leftover *leftovers;
	uint32_t leftover_count;
	struct recovery_range *ranges;
	uint32_t range_count;
	struct recovery_broken *broken;
	uint32_t broken_count;
	struct recovery_orphan *orphans;

	uint32_t newest;   /* its number; 0: the journal is empty */
	uint64_t tail_end; /* of the newest: good records end here; those from its `end` on are to be copied */
	uint32_t first;
	uint32_t highest;	       /* number of all sound headers */
	uint64_t next_name;	       /* not yet used */
	uint64_t id_floor, highest_id; /* highest: of the records read so far */
	uint64_t spool;		       /* 0: no header was found */
};

/* The first step alone: fills `found` and `leftovers`. */
int recovery_find_files(struct recovery *recovery, struct err *err);
/* 0; or the spool cannot be used: ERR_VERSION, ERR_IO, ERR_SYSTEM, ERR_PERMISSION. */
int recovery_scan(struct recovery *recovery, struct err *err);
void recovery_fini(struct recovery *recovery);

/* Shared by the two halves of the scan. */
void recovery_tell_corruption(const struct recovery *recovery, uint64_t id, const char *text);
/* Remembers a damaged place, and tells of it. */
void recovery_add_range(struct recovery *recovery, const struct segment *segment, uint64_t offset, uint64_t end,
			uint64_t id, bool is_suspect);
/* No id up to this one is given out again. */
void recovery_see_id(struct recovery *recovery, uint64_t id);
/* Where the record behind this one stands. */
uint64_t recovery_step_over(const struct journal_rules *rules, uint64_t offset, const struct record_header *header);
bool recovery_skip_padding(const struct journal_rules *rules, struct scan *scan, uint64_t *offset);

/* replay.c: applies a segment's records to the index. 0, or ERR_VERSION. */
int replay_segment(struct recovery *recovery, struct segment *segment, bool is_newest, struct err *err);
/* When all are applied: counts the messages, sets aside those that cannot be sent. */
void replay_check_messages(struct recovery *recovery);
/* The pieces of a message whose MESSAGE was not found, as far as they are there; NULL: there are none. */
const struct index_place *replay_orphans(struct recovery *recovery, uint64_t id, uint32_t *count);
void replay_fini(struct recovery *recovery);

/* evidence.c: copies what is damaged, or cannot be sent, to the quarantine, and syncs it there. */
int evidence_save(struct recovery *recovery, struct err *err);

/* repair.c: changes the disk. On success the table's last segment is the one to be appended to. */
int repair_run(struct recovery *recovery, const struct queue_options *options, struct err *err);

#endif
