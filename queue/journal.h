/*
 * queue/journal.h - the append-only log: its format, its rules, and the writer
 *
 * Private to queue/. The first part of this comment is enough to write a reader from.
 *
 * FILES    SPOOL/journal/ holds segments. File names mean nothing (ours are "seg-" and "new-" with a running number;
 *          the latter were made by recovery). Numbers are little-endian. Offsets count from the start of the file.
 *
 * HEADER   128 octets at offset 0 and again at 4096 (the rest of both blocks is zero); either copy is enough.
 *              0  8  "RELAYDJ\n"
 *              8  2  version, 1
 *             10  2  length, 128
 *             12  4  0 in the first copy, 1 in the second
 *             16  8  number; grows, from 1, never used again; below 2^32
 *             24  8  nonce, random
 *             32  8  number of the previous segment, 0: none
 *             40  8  cut: the previous segment counts up to there, all behind it is void
 *             48  8  first: the oldest segment that is still needed; all below may be gone
 *             56  8  floor: the lowest message id that was not given out
 *             64  8  the spool's random number; ids carry its low 10 bits
 *             72  8  created, ms since 1970
 *             80  8  size of the file when it was made
 *             88  8  of the previous segment: its nonce,
 *             96  8  the number of its previous one,
 *            104  8  and the cut of that: should both copies of its own header be lost
 *            112  8  zero
 *            120  8  XXH3-64 of the first 120 octets, seed 0x52454c415944
 *          A newer version keeps magic, version, length and this checksum where they are, so that an old reader can
 *          tell and refuse. A file without a sound header is no segment.
 *
 * RECORDS  From offset 8192, each at a multiple of 8: a header of 32 octets, the payload, zeros up to a multiple of 8.
 *              0  4  sum of octets 4..31 of the header
 *              4  4  sum of the payload
 *              8  4  length of the payload
 *             12  1  type
 *             13  1  flags; 0x80: who does not know the type refuses the spool
 *             14  2  DATA: number of the piece; RESULT: of the recipient
 *             16  8  message id, or 0
 *             24  8  watermark: segment (4), offset / 8 (4): all before it was synced when this was written
 *          Pieces and recipients are numbered from 0.
 *          Sums are the low 32 bits of XXH3-64 with the seed nonce + offset (header), nonce + offset +
 *          0x9e3779b97f4a7c15 (payload), the offset being that of the record: nothing stale, moved or made up by a
 *          sender of mail passes.
 *
 * TYPES    1 DATA     a piece of content, raw; found by (id, number), the last one counts
 *          2 MESSAGE  the message exists from here on
 *          3 RESULT   state of one recipient, absolute: the last one counts
 *          4 HOLD, 5 RELEASE, 10 WARNED   state of the message; no payload
 *          11 DELETE deleted while in flight: the next start makes it DONE; no payload
 *          6 DONE     the message is gone; no payload
 *          7 MOVE     a MESSAGE copied forward with all state so far folded in; replaces what was known of the id
 *          8 MARK     ends a batch: its start (8), first (8), floor (8: as in the header, but of now). The next batch
 *                     begins at the next multiple of 4096
 *          9 SEAL     room for a table of contents at the end of a full segment; nothing may depend on it; not
 *                     written by this version
 *          Payloads of MESSAGE, MOVE and RESULT are fields: tag (1), length (LEB128), value. A tag with the bit 0x80
 *          must be understood, else the spool is refused; others may be skipped.
 *          MESSAGE  81 core: arrived (8), expires (8), content octets (8), content hash (8: XXH3-64 of all
 *                      of it, seed 0),
 *                      pieces (4), recipients (4), flags (4), class (1), body (1), ret (1), zero (1)
 *                   02 sender  03 sender as submitted  04 ENVID  05 user  06 listener  07 client  08 tag
 *                   09 Message-ID  0a From domain  0b AUTH  8c header fields sent before the content
 *                   8d recipient, fields inside: 81 address  02 as submitted  03 ORCPT  04 NOTIFY bits
 *                   8e the content itself, when pieces is 0  11 relayhost of the user
 *          MOVE     the same, and 8f: recipient number (2), then the fields of RESULT; 90 bits: 1 held, 2 warned,
 *                   4 deleted while in flight. The pieces stay where they are
 *          RESULT   81 core: next attempt (8), attempts (4), reply code (2), kind, class, stage, bits (1 each; bit 1:
 *                      a hint was used), zero (2)   02 enhanced code  03 host  04 text
 *                   05 when it was recorded (8)  06 place of the RESULT before it (segment, offset / 8; 4 each), which
 *                      may be gone: only for people who ask what happened
 *          Kinds, classes and stages are the numbers of base/vocabulary.h and base/outcome.h; flags and the rest are
 *          those of queue/queue.h.
 *
 * WRITING  All that was appended in a turn is a batch: it begins at a multiple of 4096, ends with a MARK, and is padded
 *          with zeros to a multiple of 4096, so no later write touches a synced block that holds a record. One batch is
 *          on its way at a time: written, then synced; meanwhile the next gathers in memory. Bytes stay in memory until
 *          their sync has returned 0. A segment's header is written with its first batch. A segment begins only when
 *          its predecessor is synced up to the cut that the header names. When the journal goes idle, a lone MARK
 *          within a second carries the watermark over the last batch. Zeros may be written behind a batch: the
 *          allocated file reads as zeros anyway, but a sync of what overwrites them is cheaper.
 *          A write or sync that fails (or whose helper dies) ends the segment at its last synced byte: it is never
 *          written or synced again, and everything behind goes to a new segment. A segment in which nothing was synced
 *          is left out of the chain: its successor names its predecessor.
 *          Only the oldest segment is freed: nothing in it is needed, a MARK or header with a higher `first` is synced,
 *          then it is unlinked.
 *
 * CRASH    What is found, and what it means or what is done:
 *          - a file without header, empty: made ahead of need, never used; unlinked
 *          - a file without header, "new-", both header blocks zero: an interrupted recovery; unlinked
 *          - any other file without header: a first batch that was never synced, or both copies damaged. If it is the
 *            one that a segment of the chain names, that one tells what the header said: read, and told. Else copied to
 *            the quarantine as suspect, unlinked
 *          - a bad record below the cut or the watermark: corruption; quarantined, told, reading goes on behind it
 *          - a bad record behind the watermark, good ones follow: torn or damaged; quarantined, told as suspect; the
 *            good ones are kept, for their 250 may be out
 *          - a bad record behind the watermark, nothing follows: the torn, unsynced end; cut off, counted
 *          - the chain names a segment at or above `first` that is gone: a loss; told, reading goes on with the next
 *            older one
 *          - a segment below `first` or out of the chain: left over from freeing or failure; unlinked
 *          - a MESSAGE with missing pieces: never sent; quarantined; behind the watermark it is suspect (its pieces
 *            were never synced), else a loss
 *          - DATA without MESSAGE: the client got no 250; forgotten
 *          - RESULT, HOLD, ... without MESSAGE: of a message that is done; ignored
 *          - a segment that cannot be opened (rights, descriptors; all but a dead disk): refused, nothing touched; a new
 *            journal beside it would begin with the same numbers
 *          - a newer version, or something unknown that must be known: refused, nothing touched
 *          The newest segment's watermark is the highest that its own records name. The records behind it are copied
 *          into a new segment and synced, then that segment's header is written and synced, naming the watermark as cut
 *          (or, if there is none, the newest one's predecessor and its cut); only then the old ones are unlinked or cut
 *          off. So recovery may stop anywhere and start again.
 */
#ifndef QUEUE_JOURNAL_H
#define QUEUE_JOURNAL_H

#include "queue/queue.h"
#include "queue/segment.h"

/* Only tests set any of these: each breaks one rule, to show that the rule is needed. */
struct journal_rules {
	bool no_padding;	  /* a batch ends where it ends */
	bool no_second_header;	  /* the header stands once */
	bool no_marks;		  /* no MARK, and records carry no watermark */
	bool sync_again;	  /* a failed sync is repeated on the same file */
	bool dead_helper_is_fine; /* a sync whose helper died counts as done */
	bool forget_unsynced;	  /* after a failure nothing is written again from memory, yet answered as if */
	bool write_error_is_fine; /* a failed write does not end the segment */
	bool no_cut;		  /* the header does not name how far the previous segment counts */
	bool free_unsynced;	  /* records count as replaced before DONE or MOVE is synced */
	bool free_unmarked;	  /* segments are unlinked before the MARK with the new `first` is synced */
	bool forget_pieces;	  /* pieces do not keep their segment */
	bool forget_uploads;	  /* pieces of uploads under way do not keep their segment */
	bool uploads_stay;	  /* compaction does not move pieces of uploads */
	bool fold_early;	  /* a MOVE holds the state of the time when its segment was begun */
	bool trust_reads;	  /* reads for delivery check nothing */
	bool trust_pieces;	  /* neither count nor hash of the pieces is checked */
	bool no_nonce;		  /* checksums do not depend on the segment ... */
	bool recycle;		  /* ... and freed files are used again */
	bool schedule_unsynced;	  /* messages are due before they are synced */
	bool sync_early;	  /* a sync is believed to cover what was written after it began */
	bool reply_unsynced;	  /* 250 when written, before the sync */
	bool append_replayed;	  /* after recovery the newest segment is appended to */
	bool no_dir_sync;	  /* recovery syncs the directory neither at its start nor before the new header */
	bool quarantine_last;	  /* evidence is copied after the new segment stands */
	bool tail_stays;	  /* records behind the watermark are not copied forward */
	bool header_first;	  /* recovery's header is written with the copies, before they are synced */
	bool clean_early;	  /* recovery cuts off and unlinks before the new header stands */
	bool stop_at_gap;	  /* recovery reads on behind a bad range only below the watermark */
	bool reuse_ids;		  /* no floor in headers, no gap */
	bool no_reserve;	  /* intake may use the last segments */
};

/* ---- The writer ---- */

struct journal;

/* One record that waits for its sync, and what must be known then. */
struct journal_item {
	uint64_t id;
	uint32_t at;	 /* private: in the gathered bytes */
	uint32_t length; /* of the payload */
	uint16_t index;
	uint8_t type;
	bool is_intake;		 /* belongs to mail that is not accepted yet: given up when the disk fails twice */
	struct record_place old; /* MOVE and moved DATA: the copy that is replaced; DONE: the MESSAGE */
	uint32_t old_length;
	void *extra;	     /* DONE: more places that are no longer needed; the owner frees it */
	queue_commit_cb *cb; /* MESSAGE */
	void *ctx;
};

struct journal_options {
	struct disk *disk;
	const struct clock *clock;
	struct rng *rng;
	struct segments *segments; /* borrowed: shared with recovery, readers and compaction */
	uint64_t segment_bytes;
	uint64_t spool; /* the number in headers */
	const struct journal_rules *rules;
	const struct queue_notify *notify; /* borrowed */
	void *ctx;
	/* In the order of appending. `place` is where the record now stands. */
	void (*on_synced)(void *ctx, const struct journal_item *item, struct record_place place);
	/* Intake only: it will never be on disk (if the disk does as it is told). */
	void (*on_refused)(void *ctx, const struct journal_item *item, enum err_code why);
	uint64_t (*id_floor)(void *ctx);
};

/* `current`: the newest segment in the table, to be appended to; `next_number`, `next_name`: not yet used. */
struct journal *journal_new(const struct journal_options *options, uint32_t next_number, uint64_t next_name);
void journal_free(struct journal **journal);

/* A record is appended in two steps: its payload is written into the returned buffer, then it ends. Nothing else may be
 * called in between. journal_append_cancel() takes the begun record back. */
struct buf *journal_append_begin(struct journal *journal);
/* ERR_LIMIT: the record is too long for a segment, or memory's ceiling is reached; it was taken back. Those other than
 * MESSAGE want only to be synced within 10 ms. */
int journal_append_end(struct journal *journal, const struct journal_item *item);
void journal_append_cancel(struct journal *journal);
/* The longest payload of a record. */
uint32_t journal_payload_max(const struct journal *journal);

/* Writes the batch that is due and begins its sync, unless one runs. */
void journal_turn(struct journal *journal);
int64_t journal_next_deadline_ms(const struct journal *journal);
/* False: not an operation of the journal. */
bool journal_on_done(struct journal *journal, const struct disk_done *done);
/* Whatever waits is written without delay from now on. */
void journal_hurry(struct journal *journal);
bool journal_is_synced(const struct journal *journal);
/* Forgets the callback of a MESSAGE that waits. */
void journal_forget(struct journal *journal, uint64_t id);
/* A cheap look whether a segment has become free; asks for a MARK if so. */
void journal_check_first(struct journal *journal);

enum queue_journal_state journal_state(const struct journal *journal);
/* How many segments could still be made, the prepared one included, at the last look. */
uint64_t journal_room(const struct journal *journal);
uint64_t journal_unsynced_bytes(const struct journal *journal);
/* The segment that is appended to; 0: none right now. */
uint32_t journal_current(const struct journal *journal);

struct journal_counts {
	uint64_t syncs, errors, written_bytes, appended_bytes, free_bytes;
	uint64_t spare_bytes; /* of files that are not in the table: made ahead, or about to go */
};
void journal_counts(const struct journal *journal, struct journal_counts *counts);
/* A token for an operation of the disk that is not the journal's own. */
uint64_t journal_token(struct journal *journal);

#endif
