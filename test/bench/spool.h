/*
 * test/bench/spool.h - a queue on the real disk without the daemon around it: a loop, a syncer, messages
 *
 * Syncs are done by a process of their own, as in the daemon, so that the next batch gathers while one runs. Any
 * trouble ends the program.
 */
#ifndef TEST_BENCH_SPOOL_H
#define TEST_BENCH_SPOOL_H

#include "test/bench/bench.h"

#include "queue/queue.h"

#include <poll.h>
#include <sys/wait.h>

enum {
	STALL_GOAL_US = 5000,
	MESSAGES_PER_TURN = 256, /* the daemon looks at as many events */
};

/* What a call did. Wall time alone says little: a busy machine makes any call long. */
struct work {
	int64_t wall_us, cpu_us;
	int64_t write_us; /* of wall, in the disk's write() */
	uint64_t written, read;
	long preempted, waited;
};

/* One kind of call that the loop makes. */
struct stall {
	uint64_t calls, over_goal, over_goal_cpu;
	struct work longest, most_cpu;
};

struct bench {
	uint64_t segment_bytes;
	int spool_fd;
	int syncer_fd;
	pid_t syncer;
	struct disk_async async;
	struct disk *disk;
	struct queue *queue;
	uint64_t submitted, committed, syncs, sync_us; /* sync_us: as the syncer measured */
	bool is_unwatched; /* the eight system calls of a watched turn would slow the journal */
	struct stall turn, done;
	struct disk plain;   /* the disk's own functions */
	struct work current; /* of the call under way, as far as the disk goes */
};

/* ---- The syncer ------------------------------------------------------------------------------------------------- */

enum sync_task { SYNC_SYNC, SYNC_PREPARE, SYNC_DISCARD };

struct sync_request {
	enum sync_task task;
	uint64_t token, size;
	char name[256];
};

/* False: the other end has gone. */
static inline bool packet_send(int fd, const void *packet, size_t len, int pass_fd)
{
	struct iovec part = {(void *)(uintptr_t)packet, len};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {{0}};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (pass_fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.space);
		control.header = (struct cmsghdr){
		    .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), &pass_fd, sizeof(int));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)len;
}

/* False: nothing there (with MSG_DONTWAIT), or the other end has gone. */
static inline bool packet_receive(int fd, void *packet, size_t len, int *passed_fd, int flags)
{
	struct iovec part = {packet, len};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr message = {
	    .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};
	struct cmsghdr *header;

	*passed_fd = -1;
	if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC | flags) != (ssize_t)len)
		return false;
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(passed_fd, CMSG_DATA(header), sizeof(int));
	return true;
}

static inline _Noreturn void syncer_run(int fd, int journal_fd)
{
	struct sync_request request;
	bool is_heard = true;
	int file;

	while (is_heard && packet_receive(fd, &request, sizeof(request), &file, 0)) {
		struct disk_done done = {.token = request.token, .fd = -1};
		int64_t began = now_ns();
		switch (request.task) {
		case SYNC_SYNC: done.result = disk_do_sync(file); break;
		case SYNC_PREPARE:
			done.result = disk_do_prepare(journal_fd, request.name, request.size, &done.fd);
			break;
		case SYNC_DISCARD: disk_do_discard(journal_fd, request.name, file); continue;
		}
		done.duration_us = (uint32_t)((now_ns() - began) / 1000);
		is_heard = packet_send(fd, &done, sizeof(done), done.fd);
		if (file >= 0)
			close(file);
		if (done.fd >= 0)
			close(done.fd);
	}
	_exit(0);
}

static inline void ask(struct bench *b, const struct sync_request *request, int fd)
{
	if (!packet_send(b->syncer_fd, request, sizeof(*request), fd))
		die("the syncer takes no request: %s", strerror(errno));
}

static inline void ask_sync(void *ctx, int fd, uint64_t token)
{
	struct bench *b = ctx;
	struct sync_request request = {.task = SYNC_SYNC, .token = token};

	ask(b, &request, fd);
}

static inline void ask_prepare(void *ctx, const char *name, uint64_t size, uint64_t token)
{
	struct bench *b = ctx;
	struct sync_request request = {.task = SYNC_PREPARE, .token = token, .size = size};

	snprintf(request.name, sizeof(request.name), "%s", name);
	ask(b, &request, -1);
}

static inline void ask_discard(void *ctx, const char *name, int fd)
{
	struct bench *b = ctx;
	struct sync_request request = {.task = SYNC_DISCARD};

	snprintf(request.name, sizeof(request.name), "%s", name);
	ask(b, &request, fd);
	if (fd >= 0)
		close(fd);
}

static inline void syncer_start(struct bench *b)
{
	struct err err = {0};
	int pair[2], journal_fd = disk_open_journal_dir(b->spool_fd, &err);

	if (journal_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		die("cannot start the syncer: %s", journal_fd < 0 ? err.text : strerror(errno));
	b->async = (struct disk_async){b, ask_sync, ask_prepare, ask_discard};
	b->syncer = fork();
	if (b->syncer < 0)
		die("fork: %s", strerror(errno));
	if (b->syncer == 0) {
		close(pair[0]);
		syncer_run(pair[1], journal_fd);
	}
	close(journal_fd);
	close(pair[1]);
	b->syncer_fd = pair[0];
}

/* ---- The queue and its loop ------------------------------------------------------------------------------------- */

static inline void on_synced(void *ctx, uint32_t duration_us)
{
	struct bench *b = ctx;

	b->syncs++;
	b->sync_us += duration_us;
}

static inline void on_state(void *ctx, enum queue_journal_state state, const char *reason)
{
	(void)ctx;
	if (state != QUEUE_OK)
		die("the journal is %s: %s", queue_journal_state_name(state), reason);
}

static inline void on_corruption(void *ctx, uint64_t id, const char *text)
{
	(void)ctx;
	(void)id;
	die("damage: %s", text);
}

/* There is one disk a process, and its functions know nothing but the disk. */
static struct bench *watched;

static inline int watched_write(struct disk *disk, int fd, const void *bytes, size_t len, uint64_t offset)
{
	int64_t began = now_ns();
	int rc = watched->plain.write(disk, fd, bytes, len, offset);

	watched->current.write_us += (now_ns() - began) / 1000;
	watched->current.written += len;
	return rc;
}

static inline ssize_t watched_read(struct disk *disk, int fd, void *out, size_t len, uint64_t offset)
{
	watched->current.read += len;
	return watched->plain.read(disk, fd, out, len, offset);
}

static inline void watch_disk(struct bench *b)
{
	watched = b;
	b->plain = *b->disk;
	b->disk->write = watched_write;
	b->disk->read = watched_read;
}

/* The helper's process is there before the clock starts, as in the daemon. */
static inline void bench_open(struct bench *b, struct queue_report *report)
{
	struct queue_options options = {
	    .clock = clock_system(),
	    .rng = rng_system(),
	    .segment_bytes = b->segment_bytes,
	    .notify = {.ctx = b, .on_synced = on_synced, .on_state = on_state, .on_corruption = on_corruption}};
	struct err err = {0};

	b->disk = disk_real_new(b->spool_fd, &b->async, &err);
	if (b->disk && !b->is_unwatched)
		watch_disk(b);
	options.disk = b->disk;
	b->queue = b->disk ? queue_open(&options, report, &err) : NULL;
	if (!b->queue)
		die("cannot open the queue: %s", err.text);
}

/* ---- How long calls take ---- */

struct moment {
	struct rusage usage;
	int64_t wall_ns, cpu_ns;
};

static inline int64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline void moment_take(struct bench *b, struct moment *moment)
{
	b->current = (struct work){0};
	getrusage(RUSAGE_THREAD, &moment->usage);
	moment->cpu_ns = thread_cpu_ns();
	moment->wall_ns = now_ns();
}

static inline void stall_note(struct bench *b, struct stall *stall, const struct moment *before)
{
	struct work *work = &b->current;
	struct rusage after;

	work->wall_us = (now_ns() - before->wall_ns) / 1000;
	work->cpu_us = (thread_cpu_ns() - before->cpu_ns) / 1000;
	getrusage(RUSAGE_THREAD, &after);
	work->preempted = after.ru_nivcsw - before->usage.ru_nivcsw;
	work->waited = after.ru_nvcsw - before->usage.ru_nvcsw;
	stall->calls++;
	stall->over_goal += work->wall_us > STALL_GOAL_US;
	stall->over_goal_cpu += work->cpu_us > STALL_GOAL_US;
	if (work->wall_us > stall->longest.wall_us)
		stall->longest = *work;
	if (work->cpu_us > stall->most_cpu.cpu_us)
		stall->most_cpu = *work;
}

static inline void work_print(const struct work *work, const char *figure, const char *name, const char *which)
{
	printf("%s_%s_%s_us=%lld\n", figure, name, which, (long long)work->wall_us);
	printf("%s_%s_%s_cpu_us=%lld\n", figure, name, which, (long long)work->cpu_us);
	printf("%s_%s_%s_write_us=%lld\n", figure, name, which, (long long)work->write_us);
	printf("%s_%s_%s_written=%llu\n", figure, name, which, (unsigned long long)work->written);
	printf("%s_%s_%s_read=%llu\n", figure, name, which, (unsigned long long)work->read);
	printf("%s_%s_%s_lost_cpu=%ld\n", figure, name, which, work->preempted);
	printf("%s_%s_%s_waited=%ld\n", figure, name, which, work->waited);
}

static inline void stall_print(const struct stall *stall, const char *figure, const char *name)
{
	printf("%s_%s_calls=%llu\n", figure, name, (unsigned long long)stall->calls);
	printf("%s_%s_over_5ms=%llu\n", figure, name, (unsigned long long)stall->over_goal);
	printf("%s_%s_over_5ms_of_cpu=%llu\n", figure, name, (unsigned long long)stall->over_goal_cpu);
	work_print(&stall->longest, figure, name, "longest");
	work_print(&stall->most_cpu, figure, name, "most_cpu");
}

static inline void turn(struct bench *b)
{
	struct moment before;

	if (b->is_unwatched) {
		queue_turn(b->queue);
		return;
	}
	moment_take(b, &before);
	queue_turn(b->queue);
	stall_note(b, &b->turn, &before);
}

static inline void hand_over(struct bench *b, const struct disk_done *done)
{
	struct moment before;

	if (b->is_unwatched) {
		queue_on_disk_done(b->queue, done);
		return;
	}
	moment_take(b, &before);
	queue_on_disk_done(b->queue, done);
	stall_note(b, &b->done, &before);
}

/* The syncer's answers; waits for one when `may_wait`, no longer than the queue likes. */
static inline void take_answers(struct bench *b, bool may_wait)
{
	struct pollfd poll_fd = {.fd = b->syncer_fd, .events = POLLIN};
	int64_t wait_ms = queue_next_deadline_ms(b->queue) - clock_mono_ms(clock_system());
	struct disk_done done;
	int fd;

	if (may_wait && wait_ms > 0)
		poll(&poll_fd, 1, (int)MIN(wait_ms, 1000));
	if (poll_fd.revents & POLLHUP)
		die("the syncer has gone");
	while (packet_receive(b->syncer_fd, &done, sizeof(done), &fd, MSG_DONTWAIT)) {
		done.fd = fd;
		hand_over(b, &done);
	}
}

static inline void until_synced(struct bench *b)
{
	turn(b);
	while (!queue_is_synced(b->queue)) {
		take_answers(b, true);
		turn(b);
	}
}

static inline void bench_close(struct bench *b)
{
	int status;

	queue_stop(b->queue);
	until_synced(b);
	queue_close(&b->queue);
	disk_real_free(&b->disk);
	close(b->syncer_fd);
	if (waitpid(b->syncer, &status, 0) != b->syncer || status != 0)
		die("the syncer failed");
}

/* ---- Messages --------------------------------------------------------------------------------------------------- */

/* The number, and noise that differs from message to message. */
static inline void content_make(char *out, size_t size, uint64_t number)
{
	struct rng_seeded rng;
	char head[32];

	rng_seeded_init(&rng, number);
	rng.rng.fill(&rng.rng, out, size);
	snprintf(head, sizeof(head), BENCH_FIELD "%020llu\r\n", (unsigned long long)number);
	memcpy(out, head, strlen(head));
}

static inline struct slice recipient_make(char *out, size_t size, uint64_t number)
{
	snprintf(out, size, "recipient%07llu@example.net", (unsigned long long)number);
	return slice_of_str(out);
}

static inline void on_commit(void *ctx, uint64_t id, enum err_code result)
{
	struct bench *b = ctx;

	(void)id;
	if (result != 0)
		die("a message was refused: %s", err_code_name(result));
	b->committed++;
}

static inline void submit(struct bench *b, const char *content, size_t size)
{
	static const char received[] =
	    "Received: from app.example.com ([192.0.2.1])\r\n\tby relay.example.com with ESMTPSA "
	    "(TLS_AES_256_GCM_SHA384)"
	    "\r\n\tid 0123456789ABC for <recipient@example.net>;\r\n\tMon, 01 Jan 2024 00:00:00 +0000\r\n";
	int64_t now_wall = clock_wall_ms(clock_system());
	char address[64];
	struct queue_recipient recipient = {.address = recipient_make(address, sizeof(address), b->submitted)};
	struct queue_envelope envelope = {.sender = SLICE("bounces+4711@app.example.com"),
					  .user = SLICE("app"),
					  .listener = SLICE("127.0.0.1:587"),
					  .client = SLICE("[192.0.2.1]:4711 helo=app.example.com"),
					  .message_id = SLICE("<20240101000000.4711@app.example.com>"),
					  .from_domain = SLICE("app.example.com"),
					  .prefix = slice_of(received, sizeof(received) - 1),
					  .arrived_wall = now_wall,
					  .expires_wall = now_wall + 5LL * 86400 * 1000,
					  .recipients = &recipient,
					  .recipient_count = 1};
	struct err err = {0};
	struct queue_upload *upload = queue_upload_begin(b->queue, &err);
	int rc;

	if (!upload)
		die("no upload: %s", err.text);
	rc = queue_upload_append(upload, slice_of(content, size));
	if (rc == 0)
		rc = queue_upload_commit(&upload, &envelope, on_commit, b);
	if (rc < 0)
		die("a message was not taken: %s", err_code_name(rc));
	b->submitted++;
}

#define FILL_SIZE 1024

/* As fast as it goes, until all are on stable storage. */
static inline void fill(struct bench *b, uint64_t messages)
{
	uint64_t until = b->submitted + messages;
	int64_t began = now_ns();
	char content[FILL_SIZE];

	while (b->committed < until) {
		for (int i = 0; i < MESSAGES_PER_TURN && b->submitted < until && queue_may_accept(b->queue) == 0; i++) {
			content_make(content, sizeof(content), b->submitted);
			submit(b, content, sizeof(content));
		}
		turn(b);
		take_answers(b, b->submitted == until || queue_may_accept(b->queue) != 0);
	}
	printf("fill_per_s=%.0f\n", (double)messages * 1e9 / (double)(now_ns() - began));
	until_synced(b);
}

#endif
