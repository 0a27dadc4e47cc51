/*
 * The daemon's side of the helpers: requests, processes, and what is common to both kinds. Who gets what is in
 * helper_pool.c (signatures, passwords) and helper_disk.c.
 *
 * A request is in one place at a time: waiting in a pool, sent to a process, or answered and about to be told.
 * Processes are closed at once but freed at the end of the turn, since their death is often found in the middle of
 * their work.
 */
#include "relayd/helper_internal.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	ANSWERS_PER_TURN = 64,
	SILENT_MAX_MS = 30 * 1000,
	WATCH_EACH_MS = 5 * 1000,
	REAP_EACH_MS = 20,
	END_PATIENCE_MS = 5 * 1000,
};

/* ---- requests ---- */

struct request *request_new(struct helpers *h, enum helper_task task, const void *data, size_t len)
{
	size_t packet_len = offsetof(struct helper_request, data) + len;
	struct request *r = xcalloc(1, offsetof(struct request, packet) + packet_len);

	r->helpers = h;
	r->packet_len = packet_len;
	r->fd = -1;
	r->packet.id = ++h->last_id;
	r->packet.task = task;
	r->packet.data_len = (uint32_t)len;
	if (len)
		memcpy((char *)&r->packet + offsetof(struct helper_request, data), data, len);
	list_node_init(&r->node);
	HASH_ADD_KEYPTR(hh, h->by_id, &r->packet.id, sizeof(r->packet.id), r);
	return r;
}

void request_free(struct request *r)
{
	list_remove(&r->node);
	HASH_DEL(r->helpers->by_id, r);
	sodium_memzero(&r->packet, r->packet_len);
	free(r);
}

/* Hands the answer to whoever asked; a cancelled one has no callback. */
void request_tell(struct request *r, int result, struct slice data)
{
	helpers_sign_cb *sign_cb = r->sign_cb;
	auth_cb *verify_cb = r->verify_cb;
	void *ctx = r->ctx;

	request_free(r);
	if (sign_cb)
		sign_cb(ctx, (enum err_code)result, data);
	if (verify_cb)
		verify_cb(ctx, result == 0 ? AUTH_GOOD : result == ERR_PERMISSION ? AUTH_WRONG : AUTH_LATER, data);
}

static void tell_answered(void *ctx)
{
	struct helpers *h = ctx;
	uint64_t last = h->last_id; /* what is asked and answered meanwhile has its own time */

	h->answers_posted = false;
	while (!list_is_empty(&h->answered)) {
		struct request *r = CONTAINER_OF(h->answered.next, struct request, node);
		if (r->packet.id > last)
			break;
		list_remove(&r->node);
		if (r->pool)
			request_tell(r, r->result, SLICE(""));
		else
			disk_finish(r, r->result);
	}
}

void request_answer(struct request *r, int result)
{
	struct helpers *h = r->helpers;

	r->result = result;
	r->process = NULL;
	list_remove(&r->node);
	list_append(&h->answered, &r->node);
	if (h->answers_posted)
		return;
	h->answers_posted = true;
	loop_post(h->options.loop, tell_answered, h);
}

static struct request *find(struct helpers *h, uint64_t id)
{
	struct request *r;

	HASH_FIND(hh, h->by_id, &id, sizeof(id), r);
	return r;
}

/* ---- the end of processes ---- */

static void reap(void *ctx)
{
	struct helpers *h = ctx;
	unsigned left = 0;

	for (unsigned i = 0; i < h->zombie_count; i++)
		if (waitpid(h->zombies[i], NULL, WNOHANG) == 0)
			h->zombies[left++] = h->zombies[i];
	h->zombie_count = left;
	if (left > 0)
		timers_set(loop_timers(h->options.loop), &h->zombie_timer, loop_now_ms(h->options.loop) + REAP_EACH_MS,
			   reap, h);
}

/* Waiting for it here could block: it may still be in the disk's hands, or busy giving memory back. */
static void leave_to_reaper(struct helpers *h, pid_t pid)
{
	if (h->zombie_count == ZOMBIES_MAX)
		waitpid(h->zombies[--h->zombie_count], NULL, 0);
	h->zombies[h->zombie_count++] = pid;
	reap(h);
}

static void bury(void *ctx)
{
	struct helpers *h = ctx;
	struct list *node;

	h->bury_posted = false;
	while ((node = list_pop(&h->graveyard)))
		free(CONTAINER_OF(node, struct process, node));
}

void process_close(struct process *p)
{
	kill(p->pid, SIGKILL);
	process_end(p);
}

void process_end(struct process *p)
{
	struct helpers *h = p->helpers;

	BUG_ON(p->fd < 0);
	loop_unwatch(h->options.loop, &p->watch);
	close(p->fd);
	p->fd = -1;
	leave_to_reaper(h, p->pid);
	list_remove(&p->node);
	list_append(&h->graveyard, &p->node);
	if (h->bury_posted)
		return;
	h->bury_posted = true;
	loop_post(h->options.loop, bury, h);
}

void respawn_after_death(struct helpers *h, struct respawn *respawn, const struct process *p, timer_cb *cb, void *ctx)
{
	int64_t now = loop_now_ms(h->options.loop), pause = 0;

	if (p && p->is_ready && now - p->started_at_ms >= LIVED_LONG_MS)
		respawn->quick_deaths = 0;
	else if (respawn->quick_deaths++ > 0)
		pause = MIN((int64_t)PAUSE_FIRST_MS << MIN(respawn->quick_deaths - 2, 16u), (int64_t)PAUSE_MAX_MS);
	/* Several that die together: the first one's replacement brings all back. */
	if (respawn->timer == 0)
		respawn->timer = timers_add(loop_timers(h->options.loop), now + pause, cb, ctx);
}

static void on_death(struct process *p)
{
	struct helpers *h = p->helpers;
	struct pool *pool = p->pool;

	log_event(h->options.log, LOG_WARN, "helper_ended",
		  LOG_STR("kind", helper_kind_name(pool ? HELPER_CRYPTO : HELPER_SYNC)), LOG_INT("pid", p->pid),
		  LOG_INT("requests", p->sent_count));
	h->replaced++;
	process_close(p); /* first, so that nothing is sent to it again */
	if (pool)
		pool_on_death(pool, p);
	else
		disk_on_death(h, p);
}

/* ---- talking to them ---- */

static void on_answer(struct process *p, size_t len, int fd)
{
	const struct helper_answer *answer = &p->helpers->packet.answer;
	struct request *r = find(p->helpers, answer->id);

	if (len != offsetof(struct helper_answer, data) + answer->data_len || !r || r->process != p) {
		if (fd >= 0)
			close(fd);
		return;
	}
	p->sent_count--;
	p->checks -= r->is_slow;
	p->progress_at_ms = loop_now_ms(p->helpers->options.loop);
	if (!r->pool) {
		r->fd = fd;
		r->duration_us = answer->duration_us;
		disk_finish(r, answer->result);
		return;
	}
	if (fd >= 0)
		close(fd);
	request_tell(r, answer->result, slice_of(answer->data, answer->data_len));
}

/* False: it has nothing more to say, for now or for ever. */
static bool read_one(struct process *p)
{
	struct helpers *h = p->helpers;
	int fd;
	ssize_t n = helper_receive(p->fd, &h->packet, sizeof(h->packet), &fd);

	if (n < 0 && errno == EAGAIN)
		return false;
	if (n >= (ssize_t)offsetof(struct helper_answer, data) && p->is_ready) {
		on_answer(p, (size_t)n, fd);
		return p->fd >= 0;
	}
	if (fd >= 0)
		close(fd);
	if (n > 0 && !p->is_ready && pool_on_report(p, (size_t)n))
		return true;
	on_death(p);
	return false;
}

static void on_readable(void *ctx, uint32_t events)
{
	struct process *p = ctx;
	struct pool *pool = p->pool;

	(void)events;
	/* Without anything outstanding there is nothing more to read, and no need to ask. */
	for (int i = 0; i < ANSWERS_PER_TURN; i++)
		if (!read_one(p) || (p->is_ready && p->sent_count == 0))
			break;
	if (pool)
		pool_on_progress(pool);
	else
		disk_on_progress(p->helpers);
}

bool process_send(struct process *p, struct request *r, int fd)
{
	if (helper_send(p->fd, &r->packet, r->packet_len, fd) != 0)
		return false;
	r->process = p;
	list_remove(&r->node);
	list_append(&p->sent, &r->node);
	if (p->sent_count++ == 0)
		p->progress_at_ms = loop_now_ms(p->helpers->options.loop);
	p->checks += r->is_slow;
	if (p->pool)
		watchdog_start(p->helpers);
	return true;
}

struct process *process_start(struct helpers *h, struct pool *pool)
{
	const struct helper_spawn_options options = {.kind = pool ? HELPER_CRYPTO : HELPER_SYNC,
						     .journal_fd = h->options.journal_fd,
						     .config = pool ? pool->config : NULL,
						     .argv = h->options.argv,
						     .no_seccomp = h->options.no_seccomp};
	struct process *p;
	pid_t pid;
	int fd;

	log_flush(h->options.log); /* or the child would have its lines too */
	fd = helper_spawn(&options, &pid);
	if (fd < 0)
		return NULL;
	p = xcalloc(1, sizeof(*p));
	*p = (struct process){.helpers = h, .pool = pool, .pid = pid, .fd = fd, .is_ready = !pool};
	p->started_at_ms = loop_now_ms(h->options.loop);
	list_node_init(&p->node);
	list_init(&p->sent);
	p->watch = loop_watch(h->options.loop, fd, EPOLLIN, on_readable, p);
	return p;
}

/* ---- the watchdog ---- */

static bool kill_the_silent(struct helpers *h, struct pool *pool)
{
	int64_t now = loop_now_ms(h->options.loop);
	bool is_busy = false;

	LIST_FOREACH (node, &pool->processes) {
		struct process *p = CONTAINER_OF(node, struct process, node);
		int64_t since = p->is_ready ? p->progress_at_ms : p->started_at_ms;
		if (p->is_ready && p->sent_count == 0)
			continue;
		is_busy = true;
		if (now - since < SILENT_MAX_MS)
			continue;
		log_event(h->options.log, LOG_ERROR, "helper_silent", LOG_INT("pid", p->pid));
		kill(p->pid, SIGKILL); /* its end comes as any other's */
	}
	return is_busy;
}

static void on_watch(void *ctx)
{
	struct helpers *h = ctx;
	bool is_busy = h->pool && kill_the_silent(h, h->pool);

	h->watchdog = 0;
	LIST_FOREACH (node, &h->old_pools)
		is_busy |= kill_the_silent(h, CONTAINER_OF(node, struct pool, node));
	if (is_busy)
		watchdog_start(h);
}

void watchdog_start(struct helpers *h)
{
	if (!h->watchdog)
		timers_set(loop_timers(h->options.loop), &h->watchdog, loop_now_ms(h->options.loop) + WATCH_EACH_MS,
			   on_watch, h);
}

/* ---- asking ---- */

uint64_t helpers_sign(struct helpers *h, uint32_t domain, uint32_t key, const unsigned char digest[DKIM_DIGEST_BYTES],
		      helpers_sign_cb *cb, void *ctx)
{
	struct request *r = request_new(h, TASK_SIGN, digest, DKIM_DIGEST_BYTES);

	r->sign_cb = cb;
	r->ctx = ctx;
	r->packet.domain = domain;
	r->packet.key = key;
	pool_submit(h->pool, r);
	return r->packet.id;
}

static void verify(void *ctx, struct slice user, struct slice password, auth_cb *cb, void *cb_ctx)
{
	struct helpers *h = ctx;
	char data[HELPER_REQUEST_MAX] = {0};
	bool fits = user.len <= sizeof(data) && password.len <= sizeof(data) - user.len;
	size_t len = fits ? user.len + password.len : 0;
	struct request *r;

	if (fits && user.len)
		memcpy(data, user.ptr, user.len);
	if (fits && password.len)
		memcpy(data + user.len, password.ptr, password.len);
	r = request_new(h, TASK_VERIFY, data, len);
	sodium_memzero(data, len);
	r->packet.first_len = (uint32_t)(fits ? user.len : 0);
	r->verify_cb = cb;
	r->ctx = cb_ctx;
	r->is_slow = h->pool->report.slow_count > 0;
	r->pool = h->pool;
	if (fits)
		pool_submit(h->pool, r);
	else
		request_answer(r, ERR_PERMISSION);
}

struct auth_backend helpers_auth_backend(struct helpers *h)
{
	return (struct auth_backend){h, verify};
}

void helpers_cancel(struct helpers *h, uint64_t *id)
{
	struct request *r = *id ? find(h, *id) : NULL;

	*id = 0;
	if (!r)
		return;
	/* One that is sent or about to be told stays where it is, and is counted there. */
	r->sign_cb = NULL;
	r->verify_cb = NULL;
}

/* ---- beginning and end ---- */

size_t helpers_user_count(const struct helpers *h)
{
	const struct pool *pool = h->staged ? h->staged : h->pool;

	return pool->report.user_count;
}

struct helpers_key_info helpers_key_info(const struct helpers *h, uint32_t domain, uint32_t key)
{
	const struct pool *pool = h->pool;
	const struct helper_key_report *report;

	BUG_ON(domain >= pool->config->dkim.domain_count || key >= pool->config->dkim.domains[domain].key_count);
	report = &pool->report.keys[pool->first_of_domain[domain] + key];
	return (struct helpers_key_info){(enum dkim_algorithm)report->algorithm, report->bits, report->warnings};
}

enum dkim_algorithm helpers_key_algorithm(const struct helpers *h, uint32_t domain, uint32_t key)
{
	return helpers_key_info(h, domain, key).algorithm;
}

struct helpers_counts helpers_count(const struct helpers *h)
{
	struct helpers_counts counts = {.waiting = h->pool->sign_count + h->pool->check_count, .replaced = h->replaced};

	for (const struct list *node = h->pool->processes.next; node != &h->pool->processes; node = node->next)
		counts.ready += CONTAINER_OF(node, const struct process, node)->is_ready;
	return counts;
}

int helpers_stage(struct helpers *h, struct config *config, struct err *err)
{
	struct err own;

	if (!err)
		err = &own;
	err->code = ERR_NONE;
	helpers_unstage(h);
	h->staged = pool_new(h, config, err);
	return h->staged ? 0 : (int)err->code;
}

void helpers_unstage(struct helpers *h)
{
	pool_free(&h->staged);
}

void helpers_commit(struct helpers *h)
{
	struct pool *old = h->pool;

	if (!h->staged)
		return;
	h->pool = h->staged;
	h->staged = NULL;
	if (old)
		pool_retire(old);
}

int helpers_reload(struct helpers *h, struct config *config, struct err *err)
{
	int rc = helpers_stage(h, config, err);

	helpers_commit(h);
	return rc;
}

struct helpers *helpers_new(const struct helpers_options *options, struct config *config, struct err *err)
{
	struct helpers *h = xcalloc(1, sizeof(*h));

	h->options = *options;
	list_init(&h->old_pools);
	list_init(&h->answered);
	list_init(&h->graveyard);
	disk_init(h);
	if (options->journal_fd >= 0)
		h->options.journal_fd = fcntl(options->journal_fd, F_DUPFD_CLOEXEC, 3);
	if (options->journal_fd >= 0 && h->options.journal_fd < 0)
		err_set_errno(err, "the journal's folder");
	else if (disk_start(h, config->helpers == 0, err) == 0 && helpers_reload(h, config, err) == 0)
		return h;
	helpers_free(&h);
	return NULL;
}

/* A sync under way has its time; nobody is waited for longer. */
static void await_zombies(struct helpers *h)
{
	for (int waited = 0; h->zombie_count > 0 && waited < END_PATIENCE_MS; waited++) {
		timers_cancel(loop_timers(h->options.loop), &h->zombie_timer);
		reap(h);
		if (h->zombie_count > 0)
			poll(NULL, 0, 1);
	}
}

void helpers_free(struct helpers **helpers)
{
	struct helpers *h = *helpers;
	struct request *r, *next;

	if (!h)
		return;
	*helpers = NULL;
	pool_free(&h->staged);
	pool_free(&h->pool);
	LIST_FOREACH (node, &h->old_pools) {
		struct pool *pool = CONTAINER_OF(node, struct pool, node);
		pool_free(&pool);
	}
	disk_fini(h);
	HASH_ITER(hh, h->by_id, r, next)
	{
		if (r->fd >= 0)
			close(r->fd);
		request_free(r);
	}
	await_zombies(h);
	timers_cancel(loop_timers(h->options.loop), &h->zombie_timer);
	timers_cancel(loop_timers(h->options.loop), &h->watchdog);
	loop_unpost(h->options.loop, h);
	bury(h);
	if (h->options.journal_fd >= 0)
		close(h->options.journal_fd);
	sodium_memzero(&h->packet, sizeof(h->packet));
	free(h);
}
