#include "relayd/capture.h"

#include "base/base.h"
#include "base/msgid.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Tells our syncs from those of the journal, which counts from 1, and of the others (bits 62 and 63). */
#define TOKEN_OURS (UINT64_C(1) << 61)
#define TOKEN_MASK (UINT64_C(7) << 61)

enum { PORTION_BYTES = 64 * 1024, NAME_MAX_CHARS = 48 };

struct captures {
	struct captures_options options;
	struct list captures;
	unsigned count;
	int folder_fd;	    /* -1: not yet opened */
	bool folder_is_new; /* its own name is not synced yet */
	uint64_t last_token;
};

/* One file after the other, as long as there are jobs. */
struct capture {
	struct destination_slot slot;
	struct list node;
	struct captures *owner;
	struct destination *destination;
	struct job *job;
	struct queue_content *content;
	char name[NAME_MAX_CHARS], temporary[NAME_MAX_CHARS + 8];
	int fd;
	uint64_t token;	      /* of the sync that is waited for; 0: none */
	bool is_renamed;      /* it is the folder's ... */
	bool waits_for_spool; /* ... or the spool's */
	bool has_ended;
	timer_id timer;
};

struct captures *captures_new(const struct captures_options *options)
{
	struct captures *captures = xcalloc(1, sizeof(*captures));

	captures->options = *options;
	captures->folder_fd = -1;
	list_init(&captures->captures);
	return captures;
}

unsigned captures_count(const struct captures *captures)
{
	return captures->count;
}

/* ---- the end ---- */

static void close_file(struct capture *c)
{
	if (c->content)
		queue_content_close(&c->content);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->token = 0;
}

static void drop_file(struct capture *c)
{
	if (c->fd >= 0 && !c->is_renamed)
		unlinkat(c->owner->folder_fd, c->temporary, 0);
	close_file(c);
}

static void end(struct capture *c)
{
	struct job *job = c->job;

	if (c->has_ended)
		return;
	c->has_ended = true;
	drop_file(c);
	timers_cancel(loop_timers(c->owner->options.loop), &c->timer);
	c->job = NULL;
	if (job)
		destination_on_job_done(c->destination, job, false);
	list_remove(&c->node);
	c->owner->count--;
	destination_on_closed(c->destination, &c->slot);
	loop_post(c->owner->options.loop, free, c);
}

void captures_abort(struct captures *captures)
{
	while (!list_is_empty(&captures->captures))
		end(CONTAINER_OF(captures->captures.next, struct capture, node));
}

void captures_free(struct captures **captures)
{
	if (!*captures)
		return;
	captures_abort(*captures);
	if ((*captures)->folder_fd >= 0)
		close((*captures)->folder_fd);
	free(*captures);
	*captures = NULL;
}

/* ---- outcomes ---- */

static void report(struct capture *c, const struct outcome *outcome)
{
	struct job *job = c->job;

	c->job = NULL;
	for (uint32_t i = 0; i < job->count; i++)
		destination_on_outcome(c->destination, job, i, outcome);
	destination_on_job_done(c->destination, job, outcome->kind == OUTCOME_DELIVERED);
}

static void defer(struct capture *c, const char *what, int error, struct outcome *outcome)
{
	*outcome = (struct outcome){.kind = OUTCOME_DEFERRED, .class = CLASS_OTHER, .stage = STAGE_DATA};
	snprintf(outcome->enhanced, sizeof(outcome->enhanced), "4.3.0");
	snprintf(outcome->host, sizeof(outcome->host), "capture");
	snprintf(outcome->text, sizeof(outcome->text), "%s: %s", what, strerror(error));
	drop_file(c);
	report(c, outcome);
}

/* The disk's trouble is nobody's fault: everything waits, and one is tried at the end of the back-off. */
static void fail(struct capture *c, const char *what, int error)
{
	struct destination *destination = c->destination;
	struct outcome outcome;

	defer(c, what, error, &outcome);
	end(c);
	destination_on_failed(destination, &outcome);
}

static void next(struct capture *c);

/* The queue cannot read it, and has told so. Others may be whole. */
static void pass_over(struct capture *c)
{
	struct outcome outcome;

	defer(c, "the message cannot be read from the queue", EIO, &outcome);
	next(c);
}

static void succeed(struct capture *c)
{
	struct outcome outcome = {.kind = OUTCOME_DELIVERED, .stage = STAGE_DOT};

	snprintf(outcome.enhanced, sizeof(outcome.enhanced), "2.0.0");
	snprintf(outcome.host, sizeof(outcome.host), "capture");
	snprintf(outcome.text, sizeof(outcome.text), "captured as " CAPTURE_FOLDER "/%s, not sent", c->name);
	destination_on_session(c->destination);
	report(c, &outcome);
	next(c);
}

/* ---- syncs ---- */

static void on_synced(struct capture *c, int result);

/* Its answer may come from inside. */
static void ask_for_sync(struct capture *c, int fd)
{
	const struct disk_async *async = c->owner->options.async;

	if (!async) {
		on_synced(c, disk_do_sync(fd));
		return;
	}
	c->token = TOKEN_OURS | ++c->owner->last_token;
	async->sync(async->ctx, fd, c->token);
}

static void on_synced(struct capture *c, int result)
{
	int folder = c->owner->folder_fd;

	c->token = 0;
	if (result != 0) {
		fail(c, "a captured message cannot be synced", -result);
	} else if (c->is_renamed && c->owner->folder_is_new && !c->waits_for_spool) {
		c->waits_for_spool = true;
		ask_for_sync(c, c->owner->options.spool_fd);
	} else if (c->is_renamed) {
		c->owner->folder_is_new &= !c->waits_for_spool;
		succeed(c);
	} else if (renameat(folder, c->temporary, folder, c->name) != 0) {
		fail(c, "a captured message cannot get its name", errno);
	} else {
		c->is_renamed = true;
		close_file(c);
		ask_for_sync(c, folder);
	}
}

bool captures_on_disk_done(struct captures *captures, const struct disk_done *done)
{
	if ((done->token & TOKEN_MASK) != TOKEN_OURS)
		return false;
	LIST_FOREACH (node, &captures->captures) {
		struct capture *c = CONTAINER_OF(node, struct capture, node);
		if (c->token == done->token) {
			on_synced(c, done->result);
			break;
		}
	}
	return true;
}

/* ---- writing ---- */

static int write_all(int fd, struct slice bytes)
{
	while (bytes.len > 0) {
		ssize_t n = write(fd, bytes.ptr, bytes.len);
		if (n < 0 && errno != EINTR)
			return -errno;
		bytes = slice_from(bytes, n > 0 ? (size_t)n : 0);
	}
	return 0;
}

static int write_head(const struct capture *c)
{
	const struct queue_envelope *envelope = &c->job->ticket->message.envelope;
	struct buf head;
	int rc;

	buf_init(&head, SIZE_MAX / 4);
	buf_printf(&head, "Return-Path: <%.*s>\r\n", SLICE_ARG(envelope->sender));
	for (uint32_t i = 0; i < c->job->count; i++)
		buf_printf(&head, "Delivered-To: %.*s\r\n", SLICE_ARG(job_recipient(c->job, i)->address));
	buf_append(&head, envelope->prefix);
	rc = write_all(c->fd, buf_slice(&head));
	buf_fini(&head);
	return rc;
}

/* 1: there is more; 0: that was all; or a negative errno, -EBADMSG when the queue cannot read it. */
static int write_portion(struct capture *c)
{
	char portion[PORTION_BYTES];
	const struct queue_message *message = &c->job->ticket->message;
	ssize_t n;
	int rc;

	if (message->is_inline)
		return write_all(c->fd, message->content);
	if (!c->content)
		c->content = queue_content_open(c->owner->options.queue, message->id, NULL);
	n = c->content ? queue_content_read(c->content, portion, sizeof(portion)) : -1;
	if (n <= 0)
		return n < 0 ? -EBADMSG : 0;
	rc = write_all(c->fd, slice_of(portion, (size_t)n));
	return rc < 0 ? rc : 1;
}

static void write_on(void *ctx)
{
	struct capture *c = ctx;
	struct loop *loop = c->owner->options.loop;
	int rc = write_portion(c);

	if (rc == -EBADMSG)
		pass_over(c);
	else if (rc < 0)
		fail(c, "a captured message cannot be written", -rc);
	else if (rc > 0)
		timers_set(loop_timers(loop), &c->timer, loop_now_ms(loop), write_on, c);
	else
		ask_for_sync(c, c->fd);
}

/* ---- beginning ---- */

static int open_folder(struct captures *captures)
{
	int spool = captures->options.spool_fd;

	if (captures->folder_fd >= 0)
		return 0;
	if (mkdirat(spool, CAPTURE_FOLDER, 0700) == 0)
		captures->folder_is_new = true;
	else if (errno != EEXIST)
		return -errno;
	captures->folder_fd = openat(spool, CAPTURE_FOLDER, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return captures->folder_fd < 0 ? -errno : 0;
}

static void make_names(struct capture *c)
{
	char id[MSGID_CHARS + 1], number[16] = "";

	msgid_format(c->job->ticket->message.id, id);
	if (c->job->indexes[0] > 0)
		snprintf(number, sizeof(number), "-%u", c->job->indexes[0] + 1);
	snprintf(c->name, sizeof(c->name), "%s%s.eml", id, number);
	snprintf(c->temporary, sizeof(c->temporary), ".%s.new", c->name);
}

/* A leftover of a crash is written anew. */
static int open_file(struct capture *c)
{
	int folder, rc;

	if (queue_may_accept(c->owner->options.queue) == ERR_NO_SPACE)
		return -ENOSPC;
	rc = open_folder(c->owner);
	if (rc < 0)
		return rc;
	folder = c->owner->folder_fd;
	unlinkat(folder, c->temporary, 0);
	c->is_renamed = c->waits_for_spool = false;
	c->fd = openat(folder, c->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return c->fd < 0 ? -errno : write_head(c);
}

static void next(struct capture *c)
{
	int rc;

	if (c->has_ended)
		return;
	c->job = destination_next_job(c->destination, &c->slot);
	if (!c->job) {
		end(c);
		return;
	}
	make_names(c);
	rc = open_file(c);
	if (rc < 0)
		fail(c, "there can be no file in " CAPTURE_FOLDER, -rc);
	else
		timers_set(loop_timers(c->owner->options.loop), &c->timer, loop_now_ms(c->owner->options.loop),
			   write_on, c);
}

static void begin(void *ctx)
{
	next(ctx);
}

/* ---- the driver ---- */

static struct destination_slot *driver_open(void *ctx, struct destination *destination)
{
	struct captures *captures = ctx;
	struct loop *loop = captures->options.loop;
	struct capture *c = xcalloc(1, sizeof(*c));

	c->owner = captures;
	c->destination = destination;
	c->fd = -1;
	list_append(&captures->captures, &c->node);
	captures->count++;
	timers_set(loop_timers(loop), &c->timer, loop_now_ms(loop), begin, c);
	return &c->slot;
}

/* One without a job ends by itself, so neither comes for long. */
static void driver_wake(struct destination_slot *slot)
{
	next(CONTAINER_OF(slot, struct capture, slot));
}

static void driver_quit(struct destination_slot *slot)
{
	end(CONTAINER_OF(slot, struct capture, slot));
}

struct destination_driver captures_driver(struct captures *captures)
{
	return (struct destination_driver){captures, driver_open, driver_wake, driver_quit, NULL};
}
