/* The sync helper, seen from the daemon. Its requests are done in the order in which they are asked. */
#include "relayd/helper_internal.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file was made, but there was no descriptor left for it here: its name must be free for the next try. */
static int undo_preparation(struct request *r)
{
	r->helpers->disk.discard(r->helpers, r->packet.data, -1);
	return -EMFILE;
}

void disk_finish(struct request *r, int result)
{
	struct helpers *h = r->helpers;
	bool is_reported = r->packet.task != TASK_DISCARD, is_preparation = r->packet.task == TASK_PREPARE;
	struct disk_done done = {r->token, result, r->fd, r->duration_us};

	if (is_preparation && result == 0 && r->fd < 0)
		done.result = undo_preparation(r);
	if (r->fd >= 0 && (!is_preparation || result != 0)) {
		close(r->fd);
		done.fd = -1;
	}
	h->disk_pending--;
	request_free(r);
	if (is_reported)
		h->options.on_disk_done(h->options.disk_ctx, &done);
}

/* ---- asking ---- */

/* Takes r->fd. */
static void work_inline(struct request *r)
{
	struct helper_request *whole = xcalloc(1, sizeof(*whole));
	struct helper_answer *answer = xcalloc(1, sizeof(*answer));

	memcpy(whole, &r->packet, r->packet_len);
	helper_disk_work(r->helpers->options.journal_fd, whole, r->fd, answer, &r->fd);
	r->duration_us = answer->duration_us;
	request_answer(r, answer->result);
	free(whole);
	free(answer);
}

/* False: it has to wait. */
static bool send_or_fail(struct helpers *h, struct request *r)
{
	bool is_sent = h->disk_process && process_send(h->disk_process, r, r->fd);

	if (!is_sent && h->disk_process && errno == EAGAIN)
		return false;
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
	if (!is_sent)
		request_answer(r, DISK_HELPER_DIED);
	return true;
}

void disk_on_progress(struct helpers *h)
{
	while (!list_is_empty(&h->disk_waiting))
		if (!send_or_fail(h, CONTAINER_OF(h->disk_waiting.next, struct request, node)))
			break;
}

/* Takes fd, which may be -1. */
static void submit(struct helpers *h, struct request *r, int fd)
{
	h->disk_pending++;
	r->fd = fd;
	if (h->disk_is_inline)
		work_inline(r);
	else if (!list_is_empty(&h->disk_waiting) || !send_or_fail(h, r))
		list_append(&h->disk_waiting, &r->node);
}

static void sync_file(void *ctx, int fd, uint64_t token)
{
	struct request *r = request_new(ctx, TASK_SYNC, NULL, 0);

	r->token = token;
	submit(ctx, r, fcntl(fd, F_DUPFD_CLOEXEC, 3)); /* without one the helper says EBADF */
}

static void prepare(void *ctx, const char *name, uint64_t size, uint64_t token)
{
	struct request *r = request_new(ctx, TASK_PREPARE, name, strlen(name) + 1);

	r->token = token;
	r->packet.size = size;
	submit(ctx, r, -1);
}

static void discard(void *ctx, const char *name, int fd)
{
	submit(ctx, request_new(ctx, TASK_DISCARD, name, strlen(name) + 1), fd);
}

const struct disk_async *helpers_disk_async(struct helpers *h)
{
	return &h->disk;
}

unsigned helpers_disk_pending(const struct helpers *h)
{
	return h->disk_pending;
}

/* ---- beginning, death, end ---- */

void disk_init(struct helpers *h)
{
	h->disk = (struct disk_async){h, sync_file, prepare, discard};
	list_init(&h->disk_waiting);
}

static int start_process(struct helpers *h)
{
	h->disk_process = process_start(h, NULL);
	return h->disk_process ? 0 : -1;
}

int disk_start(struct helpers *h, bool is_inline, struct err *err)
{
	h->disk_is_inline = is_inline && h->options.journal_fd >= 0;
	if (h->options.journal_fd < 0 || is_inline || start_process(h) == 0)
		return 0;
	return err_set_errno(err, "cannot start a helper process");
}

static void respawn(void *ctx)
{
	struct helpers *h = ctx;

	h->disk_respawn.timer = 0;
	if (!h->disk_process && start_process(h) != 0)
		respawn_after_death(h, &h->disk_respawn, NULL, respawn, h);
	disk_on_progress(h);
}

static void fail_all(struct list *requests)
{
	for (struct list *node; (node = list_pop(requests));)
		request_answer(CONTAINER_OF(node, struct request, node), DISK_HELPER_DIED);
}

/* The journal answers a failed sync with a new segment: whoever makes it must be there by then. It is: a death is found
 * among the turn's events, timers come next, and requests are answered at the turn's end. */
void disk_on_death(struct helpers *h, struct process *p)
{
	h->disk_process = NULL;
	respawn_after_death(h, &h->disk_respawn, p, respawn, h);
	fail_all(&p->sent);
	fail_all(&h->disk_waiting);
}

void disk_fini(struct helpers *h)
{
	struct process *p = h->disk_process;

	timers_cancel(loop_timers(h->options.loop), &h->disk_respawn.timer);
	while (list_pop(&h->disk_waiting))
		;
	if (!p)
		return;
	h->disk_process = NULL;
	while (list_pop(&p->sent))
		;
	process_end(p);
}
