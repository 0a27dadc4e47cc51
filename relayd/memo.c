#include "relayd/memo.h"

#include "base/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MEMOS_MAX = 8, AGAIN_MS = 10 * 1000 };

/* Tells our syncs from those of the journal, which counts from 1. */
#define TOKEN_OURS (UINT64_C(1) << 63)
#define TOKEN_FOLDER (TOKEN_OURS | UINT64_C(0xFFFF))

struct memo {
	struct memos *owner;
	const char *name;
	json_t *(*save)(void *ctx);
	void *ctx;
	timer_id timer;
	int64_t due_ms;
	bool is_dirty, is_writing, has_failed;
	int fd; /* of the new file while it is synced */
};

struct memos {
	struct memos_options options;
	struct memo memos[MEMOS_MAX];
	unsigned count;
};

struct memos *memos_new(const struct memos_options *options)
{
	struct memos *memos = xcalloc(1, sizeof(*memos));

	memos->options = *options;
	return memos;
}

struct memo *memo_new(struct memos *memos, const char *name, json_t *(*save)(void *ctx), void *ctx)
{
	struct memo *memo = &memos->memos[memos->count++];

	BUG_ON(memos->count > MEMOS_MAX);
	*memo = (struct memo){.owner = memos, .name = name, .save = save, .ctx = ctx, .fd = -1};
	return memo;
}

/* ---- reading ---- */

static ssize_t read_all(int fd, char *out, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len < size && (n = read(fd, out + len, size - len)) > 0)
		len += (size_t)n;
	return n < 0 ? -1 : (ssize_t)len;
}

json_t *memo_read(struct memo *memo)
{
	int fd = openat(memo->owner->options.spool_fd, memo->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	json_error_t error = {.text = "cannot be read"};
	json_t *document = NULL;
	char *text;
	ssize_t len;

	if (fd < 0)
		return NULL;
	text = xmalloc(MEMO_MAX_BYTES);
	len = read_all(fd, text, MEMO_MAX_BYTES);
	if (len >= 0)
		document = json_loadb(text, (size_t)len, JSON_REJECT_DUPLICATES, &error);
	if (!document)
		log_event(memo->owner->options.log, LOG_WARN, "memo_unreadable", LOG_STR("file", memo->name),
			  LOG_STR("text", error.text));
	free(text);
	close(fd);
	return document;
}

/* ---- writing ---- */

static void fresh_name(const struct memo *memo, char *out, size_t size)
{
	snprintf(out, size, "%s.new", memo->name);
}

/* Begins a new file, with all of the document in the page cache. */
static int write_fresh(struct memo *memo)
{
	json_t *document = memo->save(memo->ctx);
	char *text = json_dumps(document, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0;
	char name[64];
	int fd;

	json_decref(document);
	fresh_name(memo, name, sizeof(name));
	unlinkat(memo->owner->options.spool_fd, name, 0);
	fd = openat(memo->owner->options.spool_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0 && (!text || len > MEMO_MAX_BYTES || write(fd, text, len) != (ssize_t)len)) {
		close(fd);
		fd = -1;
	}
	free(text);
	return fd;
}

static void begin_write(void *ctx);

static void arm(struct memo *memo, int64_t at_ms)
{
	memo->due_ms = at_ms;
	timers_set(loop_timers(memo->owner->options.loop), &memo->timer, at_ms, begin_write, memo);
}

static void on_failure(struct memo *memo, const char *why)
{
	if (!memo->has_failed)
		log_event(memo->owner->options.log, LOG_WARN, "memo_unwritten", LOG_STR("file", memo->name),
			  LOG_STR("text", why));
	memo->has_failed = memo->is_dirty = true;
}

/* The new file is on stable storage, or could not be put there. */
static void end_write(struct memo *memo, int result)
{
	char name[64];
	int folder = memo->owner->options.spool_fd;

	fresh_name(memo, name, sizeof(name));
	close(memo->fd);
	memo->fd = -1;
	memo->is_writing = false;
	if (result == 0 && renameat(folder, name, folder, memo->name) == 0)
		memo->has_failed = false;
	else
		on_failure(memo, result == 0 ? "cannot be renamed" : strerror(-result));
}

static bool is_asynchronous(const struct memo *memo)
{
	return memo->owner->options.async != NULL;
}

static void begin_write(void *ctx)
{
	struct memo *memo = ctx;
	const struct disk_async *async = memo->owner->options.async;
	int64_t again_ms = loop_now_ms(memo->owner->options.loop) + AGAIN_MS;

	if (memo->is_writing)
		return; /* its end looks again */
	memo->fd = write_fresh(memo);
	memo->is_dirty = false;
	if (memo->fd < 0) {
		on_failure(memo, "cannot be written");
		arm(memo, again_ms);
		return;
	}
	memo->is_writing = true;
	if (is_asynchronous(memo)) {
		async->sync(async->ctx, memo->fd, TOKEN_OURS | (uint64_t)(memo - memo->owner->memos));
		return;
	}
	end_write(memo, disk_do_sync(memo->fd));
	if (memo->is_dirty)
		arm(memo, again_ms);
}

bool memos_on_disk_done(struct memos *memos, const struct disk_done *done)
{
	uint64_t at = done->token & ~TOKEN_OURS;
	struct memo *memo;

	if (!(done->token & TOKEN_OURS))
		return false;
	if (!memos || at >= memos->count || !memos->memos[at].is_writing)
		return true;
	memo = &memos->memos[at];
	end_write(memo, done->result);
	/* The name too; whether it gets there in time makes no difference to what stands in the file. */
	memos->options.async->sync(memos->options.async->ctx, memos->options.spool_fd, TOKEN_FOLDER);
	if (memo->is_dirty)
		arm(memo, memo->has_failed ? loop_now_ms(memos->options.loop) + AGAIN_MS : memo->due_ms);
	return true;
}

void memo_changed(struct memo *memo, int64_t within_ms)
{
	int64_t at_ms = loop_now_ms(memo->owner->options.loop) + within_ms;

	if (memo->is_dirty && memo->due_ms <= at_ms)
		return;
	memo->is_dirty = true;
	memo->due_ms = at_ms;
	if (!memo->is_writing)
		arm(memo, at_ms);
}

/* ---- the end ---- */

/* A sync under way counts for nothing: its answer would come too late. */
static void write_last(struct memo *memo)
{
	timers_cancel(loop_timers(memo->owner->options.loop), &memo->timer);
	if (!memo->is_dirty && !memo->is_writing)
		return;
	if (memo->is_writing)
		close(memo->fd);
	memo->fd = write_fresh(memo);
	if (memo->fd >= 0)
		end_write(memo, disk_do_sync(memo->fd));
}

void memos_free(struct memos **memos)
{
	if (!*memos)
		return;
	for (unsigned i = 0; i < (*memos)->count; i++)
		write_last(&(*memos)->memos[i]);
	free(*memos);
	*memos = NULL;
}
