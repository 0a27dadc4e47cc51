/*
 * queue/queue.h - what survives a crash: the only door to the durable queue
 *
 * A message is accepted when its commit callback says 0: message and envelope are then on stable storage. From there on
 * each recipient ends in one recorded outcome. Everything is asynchronous and nothing here waits for the disk's cache
 * to reach the platter: appends gather, queue_turn() writes them as one batch at the end of the loop's turn and has it
 * synced, and callbacks come out of queue_turn() or queue_on_disk_done(), never out of the call that asked.
 *
 * The life of a message: queue_upload_begin, _append, _commit -> (synced) -> queue_pop_due -> queue_take_due ->
 * queue_read_envelope, queue_content_* -> queue_set_inflight -> queue_record_result for each recipient -> gone when all
 * are final, or due again at the earliest next attempt.
 *
 * Messages are named by id; an id that is not (any longer) known gives ERR_NOT_FOUND, so late answers are harmless.
 * From a callback everything may be called except queue_turn(), queue_on_disk_done() and queue_close().
 * Times called _wall are milliseconds since 1970, _ms alone are monotonic.
 *
 * queue/journal.h tells the format and its rules; nothing outside queue/ knows where bytes live.
 */
#ifndef QUEUE_QUEUE_H
#define QUEUE_QUEUE_H

#include "base/clock.h"
#include "base/err.h"
#include "base/outcome.h"
#include "base/random.h"
#include "base/slice.h"
#include "queue/disk.h"

struct queue;
struct queue_upload;
struct queue_content;

/* ---- Opening ---------------------------------------------------------------------------------------------------- */

enum queue_journal_state {
	QUEUE_OK,
	QUEUE_NO_SPACE, /* no new mail until there is room again; results and deliveries go on */
	QUEUE_POISONED, /* the disk failed twice running; a new segment is tried every few seconds */
};
const char *queue_journal_state_name(enum queue_journal_state state);

/* What the host is told. Each may be NULL. Called from queue_open(), queue_turn(), queue_on_disk_done() and reads. */
struct queue_notify {
	void *ctx;
	/* A sync ended well after `duration_us`: for the histogram. */
	void (*on_synced)(void *ctx, uint32_t duration_us);
	/* The journal's state changed; `reason` is a line for people. */
	void (*on_state)(void *ctx, enum queue_journal_state state, const char *reason);
	/* The answer of queue_may_accept() has changed to `answer`: pause or resume reading from clients. */
	void (*on_accept)(void *ctx, int answer);
	/* Stored bytes are damaged or missing: always a reason for an alert. id 0: not known. */
	void (*on_corruption)(void *ctx, uint64_t id, const char *text);
	/* A fact for the log that needs nobody: a torn tail was cut, a leftover file removed. */
	void (*on_note)(void *ctx, const char *text);
	/* Recovery reads on: bytes done of all. */
	void (*on_progress)(void *ctx, uint64_t done, uint64_t total);
};

struct journal_rules; /* queue/journal.h: only tests break rules */

struct queue_options {
	struct disk *disk;	   /* borrowed, outlives the queue */
	const struct clock *clock; /* borrowed */
	struct rng *rng;	   /* borrowed */
	uint64_t
	    segment_bytes;    /* a multiple of 4,096, at least 32 KiB; 0: 64 MiB, or 8 where less than 1 GiB is free */
	uint64_t limit_bytes; /* limits.queue_bytes; 0: none */
	uint64_t limit_messages; /* limits.queue_messages; 0: none */
	uint32_t piece_bytes;	 /* 0: 64 KiB; larger contents are stored in pieces of this size (tests: small) */
	struct queue_notify notify;
	const struct journal_rules *rules; /* NULL: all kept */
};

/* What recovery found. Everything in it was also told to notify, with words. */
struct queue_report {
	uint64_t messages, recipients, content_bytes;
	uint32_t segments;	   /* read */
	uint32_t segments_missing; /* a loss */
	uint32_t corrupt_ranges;   /* damaged where all was synced: copied to the quarantine */
	uint64_t corrupt_bytes;
	uint32_t suspect_ranges; /* torn or damaged, with good records behind: copied to the quarantine */
	uint64_t suspect_bytes;
	uint32_t quarantined; /* messages that cannot be sent: pieces missing or bad */
	uint64_t torn_bytes;  /* the unsynced end, cut off */
	uint32_t leftovers;   /* files without use, removed */
	uint64_t bytes_read;
	int64_t duration_ms;
};

/* Takes the spool's lock (a file named "lock", flock), at once or not at all: a descriptor to be closed at the end, or
 * ERR_LOCKED while another daemon has it (wait and ask again), or another error. */
int queue_lock(int spool_fd, struct err *err);

/* Reads the journal, repairs what a crash left, opens a new segment. Blocks: called before anybody is served. NULL:
 * `err` tells why, nothing has been lost: ERR_VERSION (written by a newer relayd; nothing was touched), ERR_IO,
 * ERR_NO_SPACE (no room for one segment), ERR_PERMISSION. `report` may be NULL. Options are copied. The disk's async
 * hooks may already be called from here: the helper must stand before. */
struct queue *queue_open(const struct queue_options *options, struct queue_report *report, struct err *err);

/* No new uploads from now on (ERR_CLOSED), those under way may go on; what is gathered is written and marked without
 * delay. Then call turns until queue_is_synced(), or until patience ends. */
void queue_stop(struct queue *queue);
/* Everything appended is on stable storage, and the journal says so. */
bool queue_is_synced(const struct queue *queue);
/* Frees all, sets NULL. Inline disks sync what is left first; with a helper an unsynced rest is dropped, as in a crash:
 * its callbacks never come. Uploads, contents and messages read from it must be gone before. */
void queue_close(struct queue **queue);

/* ---- The turn of the loop --------------------------------------------------------------------------------------- */

/* Once at the end of each turn of the loop. Writes the batch, begins a sync when none runs, and does a bounded step of
 * compaction and freeing (about a millisecond at most). */
void queue_turn(struct queue *queue);
/* When queue_turn() wants to be called although nothing happens; INT64_MAX: never (an idle queue does no work). */
int64_t queue_next_deadline_ms(const struct queue *queue);
/* The helper's answer to what the disk's async hooks posted. A result of DISK_HELPER_DIED for each that was lost. */
void queue_on_disk_done(struct queue *queue, const struct disk_done *done);

/* ---- Taking mail ------------------------------------------------------------------------------------------------ */

/* 0, or why not: ERR_NO_SPACE (452 4.3.1: the reserve or a limit), ERR_IO (451 4.3.0: poisoned), ERR_LIMIT (too much is
 * not yet synced: stop reading from clients for now, refuse nothing), ERR_CLOSED (stopping). Cheap. Ask before MAIL
 * FROM is answered and before each read of content; notify tells when the answer changes. */
int queue_may_accept(const struct queue *queue);

enum queue_body { QUEUE_BODY_7BIT = 0, QUEUE_BODY_8BITMIME = 1 };
enum queue_ret { QUEUE_RET_NONE = 0, QUEUE_RET_FULL = 1, QUEUE_RET_HDRS = 2 };

/* NOTIFY of RFC 3461 §4.1; 0: not given. */
enum queue_notify_flag {
	QUEUE_NOTIFY_NEVER = 1,
	QUEUE_NOTIFY_SUCCESS = 2,
	QUEUE_NOTIFY_FAILURE = 4,
	QUEUE_NOTIFY_DELAY = 8,
};

enum queue_flag {
	QUEUE_SMTPUTF8 = 1,	  /* a next hop must offer SMTPUTF8 */
	QUEUE_REQUIRETLS = 2,	  /* RFC 8689 */
	QUEUE_HELD = 4,		  /* starts held */
	QUEUE_BOUNCE = 8,	  /* a DSN of our own */
	QUEUE_SIGNED = 16,	  /* the prefix holds a DKIM signature */
	QUEUE_SUBMIT_SOCKET = 32, /* came over submit.sock or the drop folder */
	QUEUE_TLS_OPTIONAL = 64,  /* "TLS-Required: No" (RFC 8689) */
};

struct queue_recipient {
	struct slice address;  /* as rewritten: where it goes; without angle brackets; at most 1,024 octets */
	struct slice original; /* as submitted; empty: the same */
	struct slice orcpt;    /* "rfc822;..." in xtext, as given; at most 1,024 octets; empty: none */
	uint32_t notify;       /* enum queue_notify_flag */
};

#define QUEUE_STRING_MAX 1024 /* octets of each string of an envelope, if nothing else is said */
#define QUEUE_PREFIX_MAX (256 * 1024)

/* Pure data; slices borrow. Written once, with the content; never changes afterwards. */
struct queue_envelope {
	struct slice sender;	      /* the reverse-path as rewritten; empty: <> */
	struct slice sender_original; /* as submitted; empty: the same */
	struct slice envid;	      /* xtext, as given */
	struct slice user;	      /* who authenticated; empty: a trusted address */
	struct slice listener;	      /* where it came in */
	struct slice client;	      /* "[192.0.2.1]:4711 helo=..." for people */
	struct slice tag;	      /* X-Relayd-Tag */
	struct slice message_id;      /* of the header, for logs */
	struct slice from_domain;     /* of the header's From: the domain that routes and DKIM look at */
	struct slice auth;	      /* MAIL FROM's AUTH= in xtext, if it is passed on */
	struct slice relayhost;	      /* the user's own, by name; empty: by the routes */
	struct slice prefix; /* header fields that are sent before the content: Received, DKIM-Signature, ... */
	enum queue_body body;
	enum queue_ret ret;
	uint32_t flags; /* enum queue_flag */
	enum message_class class;
	int64_t arrived_wall;
	int64_t expires_wall; /* the recipients expire then */
	const struct queue_recipient *recipients;
	size_t recipient_count; /* 1 .. 65,000 */
};

/* Its id is known at once, for Received and the 250. NULL: ERR_NO_SPACE, ERR_IO, ERR_CLOSED as queue_may_accept()
 * (but not ERR_LIMIT). Costs under 2 KiB of memory, and at most 128 KiB + 32 bytes a piece while it grows. */
struct queue_upload *queue_upload_begin(struct queue *queue, struct err *err);
/* For a DSN: the limits on messages and bytes do not hold it back, for what it tells of leaves the queue once it is
 * in; a queue full of mail that nobody takes would never empty otherwise. The disk's reserve does. */
struct queue_upload *queue_upload_begin_dsn(struct queue *queue, struct err *err);
uint64_t queue_upload_id(const struct queue_upload *upload);
/* Content with CRLF, without dot-stuffing and final dot, in any portions. 0; or the upload is broken and can only be
 * aborted: ERR_IO, ERR_NO_SPACE (what of it was not yet synced is lost), ERR_LIMIT (4 GiB). */
int queue_upload_append(struct queue_upload *upload, struct slice content);
uint64_t queue_upload_bytes(const struct queue_upload *upload);

/* result 0: accepted, say 250. ERR_NO_SPACE -> 452 4.3.1, ERR_IO -> 451 4.3.0: nothing of it will be delivered. */
typedef void queue_commit_cb(void *ctx, uint64_t id, enum err_code result);

/* Appends the MESSAGE; takes the upload over and sets *upload to NULL, whatever happens. 0: `cb` (may be NULL) will
 * come once. Otherwise it never comes: ERR_LIMIT (a string or the whole envelope is too long), ERR_SYNTAX (no
 * recipient), ERR_NO_SPACE, ERR_IO. */
int queue_upload_commit(struct queue_upload **upload, const struct queue_envelope *envelope, queue_commit_cb *cb,
			void *ctx);
/* The committer goes away: its callback never comes; the message stays. Harmless when it has come. */
void queue_commit_forget(struct queue *queue, uint64_t id);
void queue_upload_abort(struct queue_upload **upload);

/*
 * A DSN is a message of its own. Commit it, wait for its callback (0), and only then record the FAILED or EXPIRED of
 * the original: a crash in between repeats the DSN at worst, the reverse order would lose it.
 */

/* ---- When: messages that are due -------------------------------------------------------------------------------- */

/*
 * A recipient waits (for its next attempt), is taken (in the scheduler's hands) or final. A message stands in the heap
 * while a recipient of it waits and it is neither popped nor held. State as others see it: held; else inflight when
 * queue_set_inflight() said so; else ready when it is popped, has taken recipients or was never tried; else deferred.
 */

/* The next message with a waiting recipient that is due, by class (transactional first), then by time; it leaves the
 * heap and is popped: it may now stand on a list. False: none is due. */
bool queue_pop_due(struct queue *queue, int64_t now_wall, uint64_t *id);
/* When the earliest message in the heap is due; INT64_MAX: none. */
int64_t queue_next_due_wall(const struct queue *queue);
/* Ends being popped: takes the waiting recipients that are due (at most `max`; those left over stay waiting and put the
 * message back into the heap), fills their indexes and returns how many. 0 also when the id is unknown or held. */
size_t queue_take_due(struct queue *queue, uint64_t id, int64_t now_wall, uint32_t *indexes, size_t max);
/* A taken recipient goes back untried, to wait until `next_wall`; memory only. Ends its being taken. */
int queue_give_back(struct queue *queue, uint64_t id, uint32_t index, int64_t next_wall);
/* A waiting recipient comes at `next_wall` if that is sooner; memory only. Harmless for one that does not wait. */
int queue_hasten(struct queue *queue, uint64_t id, uint32_t index, int64_t next_wall);
/* A popped message goes back whole, to be popped again at `next_wall` or when a recipient is due, whichever is later.
 */
int queue_push_back(struct queue *queue, uint64_t id, int64_t next_wall);
/* False when an attempt of what was taken must not begin: the message is gone, being deleted or held, or
 * queue_may_deliver() says no. */
bool queue_may_begin(const struct queue *queue, uint64_t id);
/* How many of its taken recipients are in an attempt now. */
int queue_set_inflight(struct queue *queue, uint64_t id, uint32_t count);

/* What the scheduler wants to know without reading the disk. */
struct queue_brief {
	uint64_t id;
	enum message_state state;
	enum message_class class;
	uint32_t recipients, open; /* open: not final */
	uint32_t inflight;
	uint32_t attempts;	   /* the most of any open recipient */
	enum failure_class reason; /* of its last deferral */
	int64_t next_attempt_wall; /* the earliest of its waiting recipients; INT64_MAX: none waits */
	int64_t arrived_wall;	   /* to the second */
	uint64_t bytes;		   /* content */
	bool warned;		   /* the delay warning is out */
	bool popped;
	bool deleting; /* it goes when the attempts in flight end: a deferral is the end then */
	bool corrupt;  /* held for good, its bytes are damaged */
};
int queue_brief(const struct queue *queue, uint64_t id, struct queue_brief *out);

/*
 * Waiting lines of messages, for destinations: embedded in the owner, linked through the index, no memory per message.
 * A message is on at most one list; it leaves by itself when it is held, deleted or done. A list must stay where it is
 * in memory between init and fini; fini takes the rest off (they stay popped).
 */
struct queue_list {
	uint32_t head, tail, number; /* private */
	uint32_t count;
	struct queue *queue;
};
void queue_list_init(struct queue_list *list, struct queue *queue);
void queue_list_fini(struct queue_list *list);
/* To the end, from another list if it is on one. ERR_NOT_FOUND: no such message. */
int queue_list_append(struct queue_list *list, uint64_t id);
/* The first, off the list; false: it is empty. */
bool queue_list_pop(struct queue_list *list, uint64_t *id);

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

enum queue_recipient_state { QUEUE_WAITING, QUEUE_TAKEN, QUEUE_FINAL };

struct queue_recipient_status {
	enum queue_recipient_state state;
	enum outcome_kind kind; /* of the last result */
	enum failure_class reason;
	uint32_t attempts;
	int64_t next_attempt_wall; /* while waiting */
	bool hint_used;		   /* queue/retry.h */
	struct outcome *last;	   /* only with QUEUE_READ_OUTCOMES and when there is one; owned by the message */
};

/* A message as read from the journal; its slices and arrays are its own and live until queue_message_free(). */
struct queue_message {
	uint64_t id;
	struct queue_envelope envelope;
	struct queue_recipient_status *status; /* one per recipient */
	enum message_state state;
	bool warned;
	uint64_t content_bytes;
	bool is_inline;	      /* the content is here, verified: no reader needed */
	struct slice content; /* while is_inline */
	void *memory;	      /* private */
};

enum queue_read_flag { QUEUE_READ_OUTCOMES = 1 };

/* One pread for envelope and small content (one more per recipient with QUEUE_READ_OUTCOMES). ERR_NOT_FOUND;
 * ERR_CORRUPT: the message has been put aside and told; ERR_IO; ERR_TEMPORARY: not synced yet. On error *out is empty.
 */
int queue_read_envelope(struct queue *queue, uint64_t id, uint32_t flags, struct queue_message *out);
void queue_message_free(struct queue_message *message);

/* One attempt for a recipient, as it was recorded. */
struct queue_attempt {
	int64_t at_wall;   /* 0: not known */
	uint32_t attempts; /* made by then */
	struct outcome outcome;
};
/* The attempts of one recipient as far as the journal still has them, the latest first: a pread for each. The older
 * ones go with their segments, and when the message is copied forward. Returns how many were filled in. */
size_t queue_read_attempts(struct queue *queue, uint64_t id, uint32_t recipient, struct queue_attempt *out, size_t max);

/* The content without the prefix, in order, from the start. Up to 64 KiB of memory. NULL as queue_read_envelope(). */
struct queue_content *queue_content_open(struct queue *queue, uint64_t id, struct err *err);
/* How many octets were put into `out`, 0 at the end; ERR_CORRUPT (told, put aside; the attempt must be broken off
 * before the final dot), ERR_IO, ERR_NOT_FOUND (deleted meanwhile). The last piece is given out only after the hash
 * over the whole content has been checked. */
ssize_t queue_content_read(struct queue_content *content, void *out, size_t len);
void queue_content_close(struct queue_content **content);

/* ---- Results ---------------------------------------------------------------------------------------------------- */

struct queue_result {
	const struct outcome *outcome; /* DELIVERED, FAILED, EXPIRED, DELETED are final; DEFERRED waits */
	uint32_t attempts;	       /* made so far for this recipient */
	int64_t next_attempt_wall;     /* DEFERRED */
	bool hint_used;
};

/* Ends the recipient's being taken, and one of the attempts in flight. Synced with the next group commit, at most 10 ms
 * later. When all recipients are final the message is gone (DONE). ERR_EXISTS: it was final already. */
int queue_record_result(struct queue *queue, uint64_t id, uint32_t index, const struct queue_result *result);
/* False while too many results wait in memory for a failing disk: begin no new attempts. */
bool queue_may_deliver(const struct queue *queue);
/* The delay warning has been sent; durable. */
int queue_set_warned(struct queue *queue, uint64_t id);
/* Attempt now: all waiting recipients become due. */
int queue_flush(struct queue *queue, uint64_t id);
/* Durable. A held message is not popped and not taken; attempts in flight end as they end. */
int queue_hold(struct queue *queue, uint64_t id);
/* Durable; attempt now. */
int queue_release(struct queue *queue, uint64_t id);
/* Durable. What is in flight ends as it ends (a deferral then counts as DELETED); the rest is gone at once. */
int queue_delete(struct queue *queue, uint64_t id);

/* ---- Looking ---------------------------------------------------------------------------------------------------- */

/* In the order of the index, stable under change: what is there during the whole walk comes exactly once. *cursor
 * starts at 0 and is 0 again at the end. Looks at no more than `max` places. The callback may change the queue. */
typedef void queue_visit(void *ctx, const struct queue_brief *brief);
void queue_iterate(struct queue *queue, uint64_t *cursor, size_t max, queue_visit *visit, void *ctx);

struct queue_stats {
	uint64_t messages[STATE_COUNT], recipients[STATE_COUNT], bytes[STATE_COUNT]; /* open recipients, content */
	int64_t oldest_arrived_wall[STATE_COUNT];				     /* 0: none */
	uint64_t uploads;
	uint64_t journal_bytes; /* on disk, with preallocated space */
	uint64_t live_bytes;	/* of records that are still needed */
	uint64_t free_bytes;	/* of the file system, at the last look */
	uint32_t segments;
	uint64_t syncs, errors;	 /* since the start */
	uint64_t written_bytes;	 /* since the start */
	uint64_t unsynced_bytes; /* in memory, not yet on stable storage */
	uint64_t corruptions;	 /* since the start, recovery included */
	uint64_t index_bytes;	 /* of memory */
	enum queue_journal_state state;
};
/* About a millisecond at a million messages. */
void queue_stats(const struct queue *queue, struct queue_stats *stats);

#endif
