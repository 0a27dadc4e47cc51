/*
 * Crypto helpers. A pool belongs to one configuration: the numbers of domains and keys in requests mean something there
 * alone, so a request stays with its pool whatever is reloaded meanwhile.
 */
#include "relayd/helper_internal.h"

#include "base/base.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	OUTSTANDING_MAX = 8, /* requests that one helper has at a time: it never waits for us, and little is repeated */
	SIGNS_MAX = 4096,
	CHECKS_MAX = 256,
	TRIES_MAX = 3, /* a request that took so many helpers along is not repeated again */
	INLINE_PER_TURN = 8,
	START_PATIENCE_MS = 20 * 1000,
};

/* ---- who gets what ---- */

static unsigned live_count(const struct pool *pool)
{
	unsigned count = 0;

	for (const struct list *node = pool->processes.next; node != &pool->processes; node = node->next)
		count++;
	return count;
}

static struct process *choose_for_sign(struct pool *pool)
{
	struct process *best = NULL;
	bool is_only = live_count(pool) == 1;

	LIST_FOREACH (node, &pool->processes) {
		struct process *p = CONTAINER_OF(node, struct process, node);
		if (!p->is_ready || p->sent_count >= OUTSTANDING_MAX || (p->checks > 0 && !is_only))
			continue;
		if (!best || p->sent_count < best->sent_count)
			best = p;
	}
	return best;
}

/* One without a check; and another one must be left for signatures, if there are two. */
static struct process *choose_for_check(struct pool *pool)
{
	struct process *best = NULL;
	unsigned without = 0;

	LIST_FOREACH (node, &pool->processes) {
		struct process *p = CONTAINER_OF(node, struct process, node);
		if (!p->is_ready || p->checks > 0)
			continue;
		without++;
		if (p->sent_count < OUTSTANDING_MAX && (!best || p->sent_count < best->sent_count))
			best = p;
	}
	return without >= MIN(live_count(pool), 2u) ? best : NULL;
}

static void send_waiting(struct pool *pool, struct list *waiting, unsigned *count,
			 struct process *(*choose)(struct pool *pool))
{
	while (!list_is_empty(waiting)) {
		struct request *r = CONTAINER_OF(waiting->next, struct request, node);
		struct process *p;
		if (!r->sign_cb && !r->verify_cb) { /* cancelled while it waited */
			request_free(r);
			--*count;
			continue;
		}
		p = choose(pool);
		if (!p || !process_send(p, r, -1))
			return;
		--*count;
	}
}

static void work_inline(void *ctx);

void pool_dispatch(struct pool *pool)
{
	struct loop *loop = pool->helpers->options.loop;

	if (pool->secrets) {
		if (!pool->inline_posted && !pool->inline_timer && !list_is_empty(&pool->signs)) {
			pool->inline_posted = true;
			loop_post(loop, work_inline, pool);
		}
		return;
	}
	send_waiting(pool, &pool->signs, &pool->sign_count, choose_for_sign);
	send_waiting(pool, &pool->checks, &pool->check_count, choose_for_check);
}

void pool_submit(struct pool *pool, struct request *r)
{
	bool is_check = r->is_slow && !pool->secrets;

	r->pool = pool;
	if (is_check ? pool->check_count >= CHECKS_MAX : pool->sign_count >= SIGNS_MAX) {
		request_answer(r, ERR_LIMIT);
		return;
	}
	list_append(is_check ? &pool->checks : &pool->signs, &r->node);
	++*(is_check ? &pool->check_count : &pool->sign_count);
	pool_dispatch(pool);
}

/* ---- inline ---- */

static void on_inline_time(void *ctx)
{
	struct pool *pool = ctx;

	pool->inline_timer = 0;
	work_inline(pool);
}

static void work_on(struct pool *pool, struct request *r)
{
	struct helper_request *whole = xcalloc(1, sizeof(*whole));
	struct helper_answer *answer = &pool->helpers->packet.answer;
	bool is_wanted = r->sign_cb || r->verify_cb;

	memcpy(whole, &r->packet, r->packet_len);
	if (is_wanted)
		helper_secrets_work(pool->secrets, whole, answer);
	sodium_memzero(whole, sizeof(*whole));
	free(whole);
	if (is_wanted)
		request_tell(r, answer->result, slice_of(answer->data, answer->data_len));
	else
		request_free(r);
}

/* A few a turn: the others have their turn too. */
static void work_inline(void *ctx)
{
	struct pool *pool = ctx;
	struct loop *loop = pool->helpers->options.loop;
	struct list *node;

	pool->inline_posted = true; /* while callbacks ask for more */
	for (int i = 0; i < INLINE_PER_TURN && (node = list_pop(&pool->signs)); i++) {
		pool->sign_count--;
		work_on(pool, CONTAINER_OF(node, struct request, node));
	}
	pool->inline_posted = false;
	if (!list_is_empty(&pool->signs))
		timers_set(loop_timers(loop), &pool->inline_timer, loop_now_ms(loop), on_inline_time, pool);
	else
		pool_on_progress(pool);
}

/* ---- reports ---- */

static bool is_same_key(const struct helper_key_report *a, const struct helper_key_report *b)
{
	return a->algorithm == b->algorithm && memcmp(a->fingerprint, b->fingerprint, sizeof(a->fingerprint)) == 0;
}

static bool take_keys(struct process *p, const struct helper_report_packet *packet)
{
	struct helper_report *known = &p->pool->report;

	if (packet->key_count > HELPER_KEYS_PER_PACKET)
		return false;
	for (uint32_t i = 0; i < packet->key_count; i++, p->keys_reported++) {
		if (p->keys_reported < known->key_count) {
			if (is_same_key(&known->keys[p->keys_reported], &packet->keys[i]))
				continue;
			log_event(p->helpers->options.log, LOG_WARN, "helper_key_changed",
				  LOG_STR("text", "a DKIM key file has changed: reload"));
			return false;
		}
		if (known->is_final)
			return false;
		known->keys = xreallocarray(known->keys, known->key_count + 1, sizeof(*known->keys));
		known->keys[known->key_count++] = packet->keys[i];
	}
	return true;
}

bool pool_on_report(struct process *p, size_t len)
{
	const struct helper_report_packet *packet = &p->helpers->packet.report;
	struct helper_report *known = &p->pool->report;

	if (len != sizeof(*packet) || !take_keys(p, packet))
		return false;
	if (!packet->is_last)
		return true;
	known->result = packet->result;
	slice_to_cstr(slice_of(packet->text, strnlen(packet->text, sizeof(packet->text))), known->text,
		      sizeof(known->text));
	if (packet->result != 0) {
		log_event(p->helpers->options.log, LOG_ERROR, "helper_failed", LOG_STR("text", known->text));
		return false;
	}
	known->is_final = true;
	known->user_count = packet->user_count;
	known->slow_count = packet->slow_count;
	p->is_ready = true;
	return true;
}

/* ---- starting ---- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Blocks until the helper has said how its start went. */
static int await_ready(struct process *p, int64_t until_ms, struct err *err)
{
	struct helper_report *report = &p->pool->report;
	struct pollfd ready = {.fd = p->fd, .events = POLLIN};

	while (!p->is_ready) {
		int64_t wait = MAX(until_ms - now_ms(), 0);
		int count = poll(&ready, 1, (int)wait), fd = -1;
		ssize_t n =
		    count == 1 ? helper_receive(p->fd, &p->helpers->packet, sizeof(p->helpers->packet), &fd) : 0;
		if (count < 0 && errno == EINTR)
			continue;
		if (n > 0 && pool_on_report(p, (size_t)n))
			continue;
		if (report->result != 0)
			return err_set(err, (enum err_code)report->result, "%s", report->text);
		return err_set(err, ERR_SYSTEM, "a helper process did not start");
	}
	return 0;
}

static int start_processes(struct pool *pool, struct err *err)
{
	int64_t until = now_ms() + START_PATIENCE_MS;
	int rc = 0;

	for (int64_t i = 0; i < pool->config->helpers; i++) {
		struct process *p = process_start(pool->helpers, pool);
		if (!p)
			return err_set_errno(err, "cannot start a helper process");
		list_append(&pool->processes, &p->node);
	}
	LIST_FOREACH (node, &pool->processes)
		if (rc == 0)
			rc = await_ready(CONTAINER_OF(node, struct process, node), until, err);
	return rc;
}

static int start_inline(struct pool *pool, struct err *err)
{
	pool->secrets = helper_secrets_load(pool->config, &pool->report);
	if (pool->secrets)
		return 0;
	return err_set(err, (enum err_code)pool->report.result, "%s", pool->report.text);
}

static void index_keys(struct pool *pool)
{
	const struct config *config = pool->config;
	uint32_t next = 0;

	pool->first_of_domain = xcalloc(config->dkim.domain_count + 1, sizeof(uint32_t));
	for (size_t d = 0; d < config->dkim.domain_count; d++) {
		pool->first_of_domain[d] = next;
		next += (uint32_t)config->dkim.domains[d].key_count;
	}
}

struct pool *pool_new(struct helpers *h, struct config *config, struct err *err)
{
	struct pool *pool = xcalloc(1, sizeof(*pool));

	pool->helpers = h;
	pool->config = config_ref(config);
	list_node_init(&pool->node);
	list_init(&pool->processes);
	list_init(&pool->signs);
	list_init(&pool->checks);
	index_keys(pool);
	if ((config->helpers == 0 ? start_inline(pool, err) : start_processes(pool, err)) != 0)
		pool_free(&pool);
	return pool;
}

/* ---- death and end ---- */

static void respawn(void *ctx)
{
	struct pool *pool = ctx;
	struct helpers *h = pool->helpers;

	pool->respawn.timer = 0;
	while (live_count(pool) < (unsigned)pool->config->helpers) {
		struct process *p = process_start(h, pool);
		if (!p) {
			respawn_after_death(h, &pool->respawn, NULL, respawn, pool);
			return;
		}
		list_append(&pool->processes, &p->node);
	}
	watchdog_start(h);
}

static void give_up_waiting(struct list *waiting, unsigned *count)
{
	for (struct list *node; (node = list_pop(waiting));) {
		request_answer(CONTAINER_OF(node, struct request, node), ERR_TEMPORARY);
		--*count;
	}
}

/* In the order in which they were asked, before those that wait already. */
static void put_back(struct pool *pool, struct process *p)
{
	while (!list_is_empty(&p->sent)) {
		struct request *r = CONTAINER_OF(p->sent.prev, struct request, node);
		list_remove(&r->node);
		r->process = NULL;
		if (++r->tries >= TRIES_MAX) {
			request_answer(r, ERR_TEMPORARY);
			continue;
		}
		list_prepend(r->is_slow ? &pool->checks : &pool->signs, &r->node);
		++*(r->is_slow ? &pool->check_count : &pool->sign_count);
	}
}

void pool_on_death(struct pool *pool, struct process *p)
{
	put_back(pool, p);
	if (!pool->is_old) {
		respawn_after_death(pool->helpers, &pool->respawn, p, respawn, pool);
	} else if (list_is_empty(&pool->processes)) {
		give_up_waiting(&pool->signs, &pool->sign_count);
		give_up_waiting(&pool->checks, &pool->check_count);
	}
	pool_dispatch(pool);
}

static bool has_work(const struct pool *pool)
{
	if (pool->sign_count + pool->check_count > 0 || pool->inline_posted)
		return true;
	for (const struct list *node = pool->processes.next; node != &pool->processes; node = node->next)
		if (CONTAINER_OF(node, const struct process, node)->sent_count > 0)
			return true;
	return false;
}

void pool_on_progress(struct pool *pool)
{
	pool_dispatch(pool);
	if (pool->is_old && !has_work(pool))
		pool_free(&pool);
}

void pool_retire(struct pool *pool)
{
	pool->is_old = true;
	timers_cancel(loop_timers(pool->helpers->options.loop), &pool->respawn.timer);
	list_append(&pool->helpers->old_pools, &pool->node);
	pool_on_progress(pool);
}

void pool_free(struct pool **pool)
{
	struct pool *p = *pool;

	if (!p)
		return;
	*pool = NULL;
	list_remove(&p->node);
	timers_cancel(loop_timers(p->helpers->options.loop), &p->respawn.timer);
	timers_cancel(loop_timers(p->helpers->options.loop), &p->inline_timer);
	loop_unpost(p->helpers->options.loop, p);
	LIST_FOREACH (node, &p->processes) {
		struct process *process = CONTAINER_OF(node, struct process, node);
		while (list_pop(&process->sent))
			;
		process_close(process);
	}
	while (list_pop(&p->signs) || list_pop(&p->checks))
		;
	helper_secrets_free(&p->secrets);
	helper_report_fini(&p->report);
	free(p->first_of_domain);
	config_free(&p->config);
	free(p);
}
