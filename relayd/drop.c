#include "relayd/drop.h"

#include "base/base.h"
#include "smtp/bsmtp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	LOOK_EACH_MS = 30 * 1000, /* where inotify does not see what comes: network file systems */
	RETRY_MS = 10 * 1000,
	UNFINISHED_MS = 60 * 1000,	   /* a file that is shorter than it says may still be written for so long */
	LEFTOVER_MS = 24 * 60 * 60 * 1000, /* a name with a dot */
	PIECE_BYTES = 16 * 1024,
	ENVELOPE_STEP_BYTES = 16 * 1024,
	CLOSE_PATIENCE_MS = 5 * 1000,
	SAME_NAMES_MAX = 1000,
};

/* The file under way, and the client's side of its session. */
struct pickup {
	char name[NAME_MAX + 1];
	struct stat st;
	int fd; /* -1: none is under way */
	struct buf envelope;
	struct bsmtp batch;
	struct stream *stream;
	struct smtp_client *client;
	timer_id timer;
	uint64_t sent; /* of the content */
	bool feeding, is_settled;
	bool too_many_recipients; /* for the limit that the configuration sets: more will not do next time */
	uint32_t accepted, refused, deferred;
	struct smtp_reply last; /* of the last result, or why the session failed */
};

struct drop {
	struct drop_options options;
	int dir_fd, notify_fd;
	struct watch *watch;
	timer_id timer;
	DIR *scan;	 /* NULL: not looking */
	bool look_again; /* something came meanwhile */
	bool some_wait;	 /* seen in this look: files to be tried again soon */
	bool closed;	 /* nothing is taken at all now: the others need not be tried */
	bool stopping;
	struct pickup pickup;
};

static void go_on(void *ctx);
static void look(void *ctx);

/* ---- files ---- */

/* Under this name, or one like it that nothing has yet: what was moved before stays. */
static int move_to(struct drop *drop, const char *name, int folder, const char *prefix)
{
	char aside[NAME_MAX + 1];
	struct stat st;

	snprintf(aside, sizeof(aside), "%s%.200s", prefix, name);
	for (unsigned n = 2; fstatat(folder, aside, &st, AT_SYMLINK_NOFOLLOW) == 0; n++) {
		if (n > SAME_NAMES_MAX)
			return -1;
		snprintf(aside, sizeof(aside), "%s%.200s.%u", prefix, name, n);
	}
	return renameat(drop->dir_fd, name, folder, aside);
}

static int move_aside(struct drop *drop, const char *name)
{
	int spool = drop->options.spool_fd;

	if (mkdirat(spool, "quarantine", 0700) != 0 && errno != EEXIST)
		return -1;
	if (move_to(drop, name, spool, "quarantine/drop-") == 0)
		return 0;
	/* A kernel whose Landlock knows no moves between folders: at least it is not looked at again. */
	return move_to(drop, name, drop->dir_fd, ".refused-");
}

/* There is nothing in links, pipes and sockets that a person could miss. */
static void refuse(struct drop *drop, const char *name, const struct stat *st, const char *why)
{
	bool is_kept = S_ISREG(st->st_mode) || S_ISDIR(st->st_mode);
	bool gone = (is_kept ? move_aside(drop, name) : unlinkat(drop->dir_fd, name, 0)) == 0;

	if (!gone && errno == ENOENT)
		return; /* its owner has taken it back */
	log_event(drop->options.log, LOG_ERROR, "drop_refused", LOG_STR("file", name), LOG_INT("uid", st->st_uid),
		  LOG_STR("moved", !gone     ? "no: it cannot be moved; remove it by hand"
				   : is_kept ? "aside"
					     : "no: it is removed"),
		  LOG_STR("text", why));
}

static bool is_older(struct drop *drop, const struct stat *st, int64_t age_ms)
{
	return clock_wall_ms(drop->options.clock) - (int64_t)st->st_mtim.tv_sec * 1000 > age_ms;
}

static void remove_leftover(struct drop *drop, const char *name)
{
	struct stat st;

	if (strncmp(name, ".tmp-", 5) != 0 || fstatat(drop->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
	    !is_older(drop, &st, LEFTOVER_MS) || unlinkat(drop->dir_fd, name, 0) != 0)
		return;
	log_event(drop->options.log, LOG_INFO, "drop_leftover", LOG_STR("file", name), LOG_INT("uid", st.st_uid));
}

/* Unlinks what was handed in, and nothing that has taken its name since. */
static void remove_accepted(struct drop *drop)
{
	struct pickup *p = &drop->pickup;
	struct stat st;

	if (fstatat(drop->dir_fd, p->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == p->st.st_ino)
		unlinkat(drop->dir_fd, p->name, 0);
}

/* ---- the end of a file ---- */

static void release(struct drop *drop)
{
	struct pickup *p = &drop->pickup;

	timers_cancel(loop_timers(drop->options.loop), &p->timer);
	smtp_client_free(&p->client);
	bsmtp_fini(&p->batch);
	buf_fini(&p->envelope);
	if (p->fd >= 0)
		close(p->fd);
	*p = (struct pickup){.fd = -1};
}

/* What became of the file; once. */
static void settle(struct drop *drop)
{
	struct pickup *p = &drop->pickup;
	struct log *log = drop->options.log;

	p->is_settled = true;
	if (p->accepted > 0) {
		remove_accepted(drop);
		log_event(log, LOG_INFO, "drop_taken", LOG_STR("file", p->name), LOG_INT("uid", p->st.st_uid),
			  LOG_STR("text", p->last.text));
	} else if (p->refused > 0 && p->deferred == 0) {
		refuse(drop, p->name, &p->st, p->last.text);
	} else {
		drop->some_wait = true;
		drop->closed = p->deferred == 0 || p->last.code == 421 || p->last.code == 452;
		log_event(log, LOG_WARN, "drop_deferred", LOG_STR("file", p->name), LOG_INT("code", p->last.code),
			  LOG_INT("uid", p->st.st_uid), LOG_STR("text", p->last.text));
	}
}

static void end_pickup(struct drop *drop)
{
	struct pickup *p = &drop->pickup;

	if (!p->is_settled)
		settle(drop);
	stream_close_gently(&p->stream, CLOSE_PATIENCE_MS);
	release(drop);
	loop_post(drop->options.loop, go_on, drop);
}

/* ---- the session ---- */

static void on_result(struct drop *drop, uint32_t i, const struct smtp_client_result *result)
{
	struct pickup *p = &drop->pickup;
	bool is_final = result->cause == SMTP_CLIENT_UNDELIVERABLE || result->too_many_recipients ||
			(result->cause == SMTP_CLIENT_REPLIED && result->reply.code >= 500);

	p->too_many_recipients |= result->too_many_recipients;
	if (result->cause == SMTP_CLIENT_REPLIED && result->reply.code < 300 && result->stage == STAGE_DOT)
		p->accepted++;
	else if (is_final || p->too_many_recipients)
		p->refused++;
	else
		p->deferred++;
	if (result->cause != SMTP_CLIENT_ABORTED)
		p->last = result->reply;
	if (is_final)
		log_event(drop->options.log, LOG_WARN, "drop_rejected", LOG_ADDR("from", p->batch.transaction.sender),
			  LOG_ADDR("rcpt", p->batch.recipients[i].address), LOG_INT("code", result->reply.code),
			  LOG_STR("file", p->name), LOG_INT("uid", p->st.st_uid), LOG_STR("text", result->reply.text));
	/* Nothing is sent to some while others are deferred: with the file they would be lost. */
	if (result->cause == SMTP_CLIENT_REPLIED && result->stage == STAGE_RCPT &&
	    (!is_final || result->too_many_recipients))
		smtp_client_abort(p->client, "another recipient cannot be taken now");
}

static void feed(struct drop *drop)
{
	struct pickup *p = &drop->pickup;
	char piece[PIECE_BYTES];
	size_t room;

	while (p->feeding && (room = smtp_client_body_room(p->client)) > 0) {
		uint64_t left = p->batch.transaction.content_bytes - p->sent;
		ssize_t n = pread(p->fd, piece, (size_t)MIN(MIN((uint64_t)room, left), (uint64_t)sizeof(piece)),
				  (off_t)(p->batch.content_at + p->sent));
		if (n > 0) {
			p->sent += smtp_client_body(p->client, slice_of(piece, (size_t)n));
			continue;
		}
		if (left == 0)
			smtp_client_body_end(p->client);
		else
			smtp_client_abort(p->client, "the file has become shorter");
		p->feeding = false;
	}
}

/* False: it is over. */
static bool handle(struct drop *drop, const struct smtp_client_event *event)
{
	struct pickup *p = &drop->pickup;

	switch (event->type) {
	case SMTP_CLIENT_NEED_TLS: break; /* never asked for */
	case SMTP_CLIENT_READY:
		if (p->is_settled)
			return false;
		smtp_client_send(p->client, &p->batch.transaction);
		break;
	case SMTP_CLIENT_RESULT: on_result(drop, event->recipient, &event->result); break;
	case SMTP_CLIENT_NEED_BODY: p->feeding = true; break;
	case SMTP_CLIENT_TRANSACTION_DONE:
		p->feeding = false;
		settle(drop);
		smtp_client_quit(p->client);
		break;
	case SMTP_CLIENT_FAILED:
	case SMTP_CLIENT_CLOSED:
		if (!p->is_settled)
			p->last = event->result.reply;
		return false;
	}
	return true;
}

static void pump(void *ctx)
{
	struct drop *drop = ctx;
	struct pickup *p = &drop->pickup;
	struct timers *timers = loop_timers(drop->options.loop);
	struct smtp_client_event event;
	struct slice output;

	smtp_client_tick(p->client, loop_now_ms(drop->options.loop));
	do {
		while (smtp_client_next(p->client, &event))
			if (!handle(drop, &event)) {
				end_pickup(drop);
				return;
			}
		feed(drop);
		output = smtp_client_output(p->client);
		if (output.len == 0 || stream_unsent(p->stream) > SMTP_CLIENT_OUTPUT_MAX)
			break;
		stream_write(p->stream, output);
		smtp_client_output_sent(p->client, output.len);
	} while (true);
	if (smtp_client_deadline_ms(p->client) == INT64_MAX)
		timers_cancel(timers, &p->timer);
	else
		timers_set(timers, &p->timer, smtp_client_deadline_ms(p->client), pump, drop);
}

static size_t on_input(void *ctx, struct slice bytes)
{
	struct drop *drop = ctx;

	smtp_client_input(drop->pickup.client, bytes);
	pump(drop);
	return bytes.len;
}

static void on_end(void *ctx, const char *why)
{
	struct drop *drop = ctx;

	smtp_client_eof(drop->pickup.client, why[0] ? why : NULL);
	pump(drop);
}

static void begin_session(struct drop *drop)
{
	struct pickup *p = &drop->pickup;
	const struct net_peer peer = {.is_unix = true, .uid = p->st.st_uid, .gid = p->st.st_gid};
	const struct smtp_client_options client = {.helo_name = "localhost", .tls = SMTP_CLIENT_TLS_NONE};
	const struct stream_events events = {drop, NULL, on_input, pump, NULL, on_end};
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
		smtp_reply_set(&p->last, 0, "", "no descriptors are left");
		end_pickup(drop);
		return;
	}
	p->stream = stream_new(drop->options.net, ends[0], &events);
	p->client = smtp_client_new(&client, loop_now_ms(drop->options.loop));
	submissions_begin(drop->options.submissions, drop->options.service(drop->options.ctx), ends[1], &peer,
			  SUBMISSION_OF_DROP);
	pump(drop);
}

/* ---- the begin of a file ---- */

/* Reads as much as the envelope needs. Each look begins at its front, so each has twice as much before it: ten thousand
 * recipients would cost a third of a second otherwise. 1, 0: it ends too early, -1: `why`. */
static int read_envelope(struct pickup *p, const char **why)
{
	int rc = 0;

	buf_init(&p->envelope, BSMTP_ENVELOPE_MAX_BYTES);
	while (rc == 0) {
		size_t len = MAX(buf_len(&p->envelope), (size_t)ENVELOPE_STEP_BYTES);
		char *at = buf_reserve(&p->envelope, len);
		ssize_t n = at ? pread(p->fd, at, len, (off_t)buf_len(&p->envelope)) : -1;
		if (n == 0)
			return 0;
		if (n < 0) {
			*why = at ? "it cannot be read" : "its envelope is too long";
			return -1;
		}
		buf_commit(&p->envelope, (size_t)n);
		rc = bsmtp_parse(buf_slice(&p->envelope), &p->batch, why);
	}
	return rc;
}

/* NULL; "" : not whole yet; or what is wrong with it. */
static const char *judge(struct drop *drop)
{
	struct pickup *p = &drop->pickup;
	const char *why = "";
	int64_t left;
	int rc;

	if (!S_ISREG(p->st.st_mode))
		return "it is not a regular file";
	if (p->st.st_nlink != 1)
		return "it has more than one link";
	rc = read_envelope(p, &why);
	if (rc < 0)
		return why;
	left = p->st.st_size - (int64_t)p->batch.content_at;
	if (rc == 1 && p->batch.transaction.content_bytes == (uint64_t)left)
		return NULL;
	if (rc == 1 && p->batch.transaction.content_bytes < (uint64_t)left)
		return "it is longer than its SIZE";
	return is_older(drop, &p->st, UNFINISHED_MS) ? "it is shorter than its SIZE, or has no envelope" : "";
}

/* False: no session was begun for it, the next may come. */
static bool begin(struct drop *drop, const char *name)
{
	struct pickup *p = &drop->pickup;
	const char *why;

	if (fstatat(drop->dir_fd, name, &p->st, AT_SYMLINK_NOFOLLOW) != 0)
		return false;
	p->fd = openat(drop->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (p->fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
		drop->some_wait = true;
		return false;
	}
	slice_to_cstr(slice_of_str(name), p->name, sizeof(p->name));
	why = p->fd < 0			  ? "it cannot be opened as a file"
	      : fstat(p->fd, &p->st) != 0 ? "it cannot be looked at"
					  : judge(drop);
	if (!why) {
		begin_session(drop);
		return true;
	}
	if (why[0])
		refuse(drop, name, &p->st, why);
	else
		drop->some_wait = true;
	release(drop);
	return false;
}

/* ---- looking ---- */

static void end_look(struct drop *drop)
{
	closedir(drop->scan);
	drop->scan = NULL;
	if (drop->stopping)
		return;
	if (drop->look_again)
		loop_post(drop->options.loop, look, drop);
	else
		timers_set(loop_timers(drop->options.loop), &drop->timer,
			   loop_now_ms(drop->options.loop) + (drop->some_wait ? RETRY_MS : LOOK_EACH_MS), look, drop);
}

/* One entry a call; the loop sees to it that a turn ends. */
static void go_on(void *ctx)
{
	struct drop *drop = ctx;
	struct dirent *entry = drop->stopping || drop->closed ? NULL : readdir(drop->scan);

	if (!entry) {
		end_look(drop);
		return;
	}
	if (entry->d_name[0] == '.')
		remove_leftover(drop, entry->d_name);
	else if (begin(drop, entry->d_name))
		return;
	loop_post(drop->options.loop, go_on, drop);
}

static void look(void *ctx)
{
	struct drop *drop = ctx;
	int fd;

	if (drop->scan) {
		drop->look_again = true;
		return;
	}
	drop->look_again = drop->some_wait = drop->closed = false;
	fd = openat(drop->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	drop->scan = fd >= 0 ? fdopendir(fd) : NULL;
	if (drop->scan) {
		go_on(drop);
		return;
	}
	if (fd >= 0)
		close(fd);
	timers_set(loop_timers(drop->options.loop), &drop->timer, loop_now_ms(drop->options.loop) + RETRY_MS, look,
		   drop);
}

static void on_notify(void *ctx, uint32_t events)
{
	struct drop *drop = ctx;
	char news[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

	(void)events;
	if (read(drop->notify_fd, news, sizeof(news)) > 0)
		look(drop);
}

static void watch_folder(struct drop *drop)
{
	char path[32];

	drop->notify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (drop->notify_fd < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", drop->dir_fd);
	if (inotify_add_watch(drop->notify_fd, path, IN_MOVED_TO | IN_CLOSE_WRITE) >= 0)
		drop->watch = loop_watch(drop->options.loop, drop->notify_fd, EPOLLIN, on_notify, drop);
}

struct drop *drop_new(const struct drop_options *options, struct err *err)
{
	struct drop *drop;
	int fd = openat(options->spool_fd, "drop", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0) {
		err_set_errno(err, "spool: cannot open drop/");
		return NULL;
	}
	drop = xcalloc(1, sizeof(*drop));
	drop->options = *options;
	drop->dir_fd = fd;
	drop->notify_fd = -1;
	drop->pickup.fd = -1;
	watch_folder(drop);
	loop_post(drop->options.loop, look, drop);
	return drop;
}

void drop_stop(struct drop *drop)
{
	drop->stopping = true;
	loop_unwatch(drop->options.loop, &drop->watch);
	timers_cancel(loop_timers(drop->options.loop), &drop->timer);
}

void drop_free(struct drop **drop)
{
	struct drop *d = *drop;

	if (!d)
		return;
	drop_stop(d);
	stream_close(&d->pickup.stream);
	release(d);
	loop_unpost(d->options.loop, d);
	if (d->scan)
		closedir(d->scan);
	if (d->notify_fd >= 0)
		close(d->notify_fd);
	close(d->dir_fd);
	free(d);
	*drop = NULL;
}
