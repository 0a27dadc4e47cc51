#include "relayd/helper.h"

#include "base/base.h"
#include "base/list.h"
#include "relayd/helper_protocol.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uthash.h>

enum {
	REPORT_PATIENCE_MS = 20 * 1000,
	OUTSTANDING_MAX = 4, /* requests that one crypto helper has at a time */
	WAITING_MAX = 4096,
	TRIES_MAX = 3, /* a request that killed so many helpers is not repeated again */
	RESPAWN_WAIT_MS = 1000,
	ANSWERS_PER_TURN = 64,
};

struct process {
	struct list node;
	struct helpers *helpers;
	enum helper_kind kind;
	pid_t pid;
	int fd;
	struct watch *watch;
	struct list sent; /* requests, in order */
	unsigned sent_count, checks;
	bool is_ready, is_old;
};

struct request {
	UT_hash_handle hh;
	struct list node; /* in waiting, or in a process's sent */
	struct helpers *helpers;
	struct process *process;
	int tries;
	uint64_t token; /* disk tasks */
	helpers_sign_cb *sign_cb;
	auth_cb *verify_cb;
	void *ctx;
	timer_id timer; /* answers that come from here */
	struct helper_answer *answer;
	size_t packet_len;
	struct helper_request packet; /* last: only as much as is used is allocated */
};

struct helpers {
	struct helpers_options options;
	struct config *config;
	struct helper_report report; /* of the last load */
	uint32_t *first_of_domain;
	struct list processes;
	struct list waiting;
	unsigned waiting_count, disk_pending;
	struct request *by_id;
	uint64_t last_id;
	struct helper_secrets *inline_secrets;
	struct disk_async disk;
	timer_id respawn_timer;
};

static void dispatch(struct helpers *h);

/* ---- requests ---- */

static struct request *request_new(struct helpers *h, enum helper_task task, const void *data, size_t len)
{
	size_t packet_len = offsetof(struct helper_request, data) + len;
	struct request *r = xcalloc(1, offsetof(struct request, packet) + packet_len);

	r->helpers = h;
	r->packet_len = packet_len;
	r->packet.id = ++h->last_id;
	r->packet.task = task;
	r->packet.data_len = (uint32_t)len;
	if (len)
		memcpy((char *)&r->packet + offsetof(struct helper_request, data), data, len);
	list_node_init(&r->node);
	HASH_ADD_KEYPTR(hh, h->by_id, &r->packet.id, sizeof(r->packet.id), r);
	return r;
}

static void request_free(struct request *r)
{
	timers_cancel(loop_timers(r->helpers->options.loop), &r->timer);
	list_remove(&r->node);
	HASH_DEL(r->helpers->by_id, r);
	free(r->answer);
	sodium_memzero(&r->packet, r->packet_len);
	free(r);
}

static struct request *find(struct helpers *h, uint64_t id)
{
	struct request *r;
	HASH_FIND(hh, h->by_id, &id, sizeof(id), r);
	return r;
}

static bool is_disk_task(const struct request *r)
{
	return r->packet.task <= TASK_DISCARD;
}

/* Hands the answer to whoever asked; a cancelled one has no callback. */
static void give(struct request *r, int result, struct slice data)
{
	helpers_sign_cb *sign_cb = r->sign_cb;
	auth_cb *verify_cb = r->verify_cb;
	void *ctx = r->ctx;

	r->answer = NULL;
	request_free(r);
	if (sign_cb)
		sign_cb(ctx, (enum err_code)result, data);
	if (verify_cb)
		verify_cb(ctx, result == 0 ? AUTH_GOOD : result == ERR_PERMISSION ? AUTH_WRONG : AUTH_LATER, data);
}

static void give_disk(struct request *r, int result, int fd, uint32_t duration_us)
{
	struct helpers *h = r->helpers;
	struct disk_done done = {r->token, result, fd, duration_us};
	bool is_reported = r->packet.task != TASK_DISCARD;

	h->disk_pending--;
	request_free(r);
	if (is_reported)
		h->options.on_disk_done(h->options.disk_ctx, &done);
}

static void on_local_answer(void *ctx)
{
	struct request *r = ctx;
	struct helper_answer *answer = r->answer;

	if (is_disk_task(r)) {
		give_disk(r, answer->result, -1, 0);
		return;
	}
	r->answer = NULL;
	give(r, answer->result, slice_of(answer->data, answer->data_len));
	free(answer);
}

/* An answer that is known here and now comes later all the same: never from inside the call that asked. */
static void answer_locally(struct request *r, int result)
{
	if (!r->answer)
		r->answer = xcalloc(1, sizeof(*r->answer));
	r->answer->result = result;
	list_remove(&r->node);
	timers_set(loop_timers(r->helpers->options.loop), &r->timer, 0, on_local_answer, r);
}

/* ---- processes ---- */

static void process_free(struct process *p)
{
	while (list_pop(&p->sent))
		;
	loop_unwatch(p->helpers->options.loop, &p->watch);
	close(p->fd);
	kill(p->pid, SIGKILL);
	waitpid(p->pid, NULL, 0);
	list_remove(&p->node);
	free(p);
}

static void respawn(void *ctx);

static void on_death(struct process *p)
{
	struct helpers *h = p->helpers;
	bool was_needed = !p->is_old;

	log_event(h->options.log, was_needed ? LOG_WARN : LOG_DEBUG, "helper_ended",
		  LOG_STR("kind", p->kind == HELPER_SYNC ? "sync" : "crypto"), LOG_INT("pid", p->pid),
		  LOG_INT("requests", p->sent_count));
	for (struct list *node; (node = list_pop(&p->sent));) {
		struct request *r = CONTAINER_OF(node, struct request, node);
		r->process = NULL;
		if (is_disk_task(r)) {
			answer_locally(r, DISK_HELPER_DIED);
		} else if (++r->tries >= TRIES_MAX) {
			answer_locally(r, ERR_TEMPORARY);
		} else {
			list_prepend(&h->waiting, &r->node);
			h->waiting_count++;
		}
	}
	process_free(p);
	if (was_needed)
		timers_set(loop_timers(h->options.loop), &h->respawn_timer, loop_now_ms(h->options.loop), respawn, h);
}

static void retire_if_done(struct process *p)
{
	if (p->is_old && p->sent_count == 0)
		process_free(p);
}

static void on_report(struct process *p, const struct helper_report *report)
{
	if (report->result != 0) {
		log_event(p->helpers->options.log, LOG_ERROR, "helper_failed", LOG_STR("text", report->text));
		return; /* its end follows */
	}
	p->is_ready = true;
	dispatch(p->helpers);
}

static void on_answer(struct process *p, const struct helper_answer *answer, int fd)
{
	struct request *r = find(p->helpers, answer->id);

	if (!r || r->process != p) {
		if (fd >= 0)
			close(fd);
		return;
	}
	p->sent_count--;
	if (r->packet.task == TASK_VERIFY)
		p->checks--;
	if (is_disk_task(r))
		give_disk(r, answer->result, fd, answer->duration_us);
	else
		give(r, answer->result, slice_of(answer->data, answer->data_len));
}

static void on_readable(void *ctx, uint32_t events)
{
	struct process *p = ctx;
	struct helpers *h = p->helpers;
	union {
		struct helper_answer answer;
		struct helper_report report;
	} packet;

	(void)events;
	for (int i = 0; i < ANSWERS_PER_TURN; i++) {
		int fd;
		long n = helper_receive(p->fd, &packet, sizeof(packet), &fd, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			on_death(p);
			return;
		}
		if (p->kind == HELPER_CRYPTO && !p->is_ready)
			on_report(p, &packet.report);
		else
			on_answer(p, &packet.answer, fd);
	}
	dispatch(h);
	retire_if_done(p);
}

static struct process *spawn(struct helpers *h, enum helper_kind kind, const struct config *config)
{
	struct process *p;
	int pair[2], parent = getpid();
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return NULL;
	log_flush(h->options.log);
	pid = fork();
	if (pid == 0)
		helper_main(kind, pair[1], h->options.journal_fd, config, parent);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return NULL;
	}
	p = xcalloc(1, sizeof(*p));
	*p = (struct process){.helpers = h, .kind = kind, .pid = pid, .fd = pair[0], .is_ready = kind == HELPER_SYNC};
	list_node_init(&p->node);
	list_init(&p->sent);
	list_append(&h->processes, &p->node);
	p->watch = loop_watch(h->options.loop, p->fd, EPOLLIN, on_readable, p);
	return p;
}

/* Blocks until the helper has said how its start went. */
static int await_report(struct process *p, struct helper_report *report, struct err *err)
{
	struct pollfd ready = {.fd = p->fd, .events = POLLIN};
	int passed;

	if (poll(&ready, 1, REPORT_PATIENCE_MS) != 1 ||
	    helper_receive(p->fd, report, sizeof(*report), &passed, 0) != (long)sizeof(*report))
		return err_set(err, ERR_SYSTEM, "a helper process did not start");
	if (report->result != 0)
		return err_set(err, (enum err_code)report->result, "%s", report->text);
	p->is_ready = true;
	return 0;
}

static unsigned count_processes(const struct helpers *h, enum helper_kind kind)
{
	unsigned count = 0;

	for (const struct list *node = h->processes.next; node != &h->processes; node = node->next) {
		const struct process *p = CONTAINER_OF(node, struct process, node);
		count += p->kind == kind && !p->is_old;
	}
	return count;
}

/* Brings the helpers back to their number; one that died at once waits a little. */
static void respawn(void *ctx)
{
	struct helpers *h = ctx;
	bool failed = false;

	if (h->options.journal_fd >= 0 && count_processes(h, HELPER_SYNC) == 0)
		failed |= !spawn(h, HELPER_SYNC, h->config);
	for (unsigned n = count_processes(h, HELPER_CRYPTO); !h->inline_secrets && n < (unsigned)h->config->helpers;
	     n++)
		failed |= !spawn(h, HELPER_CRYPTO, h->config);
	if (failed)
		timers_set(loop_timers(h->options.loop), &h->respawn_timer,
			   loop_now_ms(h->options.loop) + RESPAWN_WAIT_MS, respawn, h);
}

/* ---- sending ---- */

static bool send_to(struct process *p, struct request *r, int fd)
{
	if (helper_send(p->fd, &r->packet, r->packet_len, fd, MSG_DONTWAIT) != 0)
		return false;
	r->process = p;
	list_remove(&r->node);
	list_append(&p->sent, &r->node);
	p->sent_count++;
	if (r->packet.task == TASK_VERIFY)
		p->checks++;
	return true;
}

static unsigned unchecked_count(const struct helpers *h)
{
	unsigned count = 0;

	for (const struct list *node = h->processes.next; node != &h->processes; node = node->next) {
		const struct process *p = CONTAINER_OF(node, struct process, node);
		count += p->kind == HELPER_CRYPTO && p->is_ready && !p->is_old && p->checks == 0;
	}
	return count;
}

/* The helper with the least to do that may take this. A password check leaves one free, if there are two. */
static struct process *choose(struct helpers *h, const struct request *r)
{
	bool is_check = r->packet.task == TASK_VERIFY;
	struct process *best = NULL;

	if (is_check && count_processes(h, HELPER_CRYPTO) > 1 && unchecked_count(h) < 2)
		return NULL;
	for (struct list *node = h->processes.next; node != &h->processes; node = node->next) {
		struct process *p = CONTAINER_OF(node, struct process, node);
		if (p->kind != HELPER_CRYPTO || !p->is_ready || p->is_old || p->sent_count >= OUTSTANDING_MAX)
			continue;
		if (!best || p->checks < best->checks ||
		    (p->checks == best->checks && p->sent_count < best->sent_count))
			best = p;
	}
	return best;
}

static void dispatch(struct helpers *h)
{
	LIST_FOREACH (node, &h->waiting) {
		struct request *r = CONTAINER_OF(node, struct request, node);
		struct process *p = choose(h, r);
		if (!p || !send_to(p, r, -1))
			continue;
		h->waiting_count--;
	}
}

static void submit(struct request *r)
{
	struct helpers *h = r->helpers;

	if (h->inline_secrets) {
		struct helper_request whole;
		memcpy(&whole, &r->packet, r->packet_len);
		r->answer = xcalloc(1, sizeof(*r->answer));
		helper_secrets_work(h->inline_secrets, &whole, r->answer);
		sodium_memzero(&whole, sizeof(whole));
		answer_locally(r, r->answer->result);
		return;
	}
	if (h->waiting_count >= WAITING_MAX) {
		answer_locally(r, ERR_LIMIT);
		return;
	}
	list_append(&h->waiting, &r->node);
	h->waiting_count++;
	dispatch(h);
}

uint64_t helpers_sign(struct helpers *h, uint32_t domain, uint32_t key, const unsigned char digest[DKIM_DIGEST_BYTES],
		      helpers_sign_cb *cb, void *ctx)
{
	struct request *r = request_new(h, TASK_SIGN, NULL, 0);

	r->sign_cb = cb;
	r->ctx = ctx;
	r->packet.domain = domain;
	r->packet.key = key;
	memcpy(r->packet.digest, digest, DKIM_DIGEST_BYTES);
	submit(r);
	return r->packet.id;
}

static void verify(void *ctx, struct slice user, struct slice password, auth_cb *cb, void *cb_ctx)
{
	struct helpers *h = ctx;
	char data[HELPER_DATA_MAX] = {0};
	bool fits = user.len + password.len <= sizeof(data);
	struct request *r;

	if (fits) {
		memcpy(data, user.ptr ? user.ptr : "", user.len);
		memcpy(data + user.len, password.ptr ? password.ptr : "", password.len);
	}
	r = request_new(h, TASK_VERIFY, data, fits ? user.len + password.len : 0);
	sodium_memzero(data, sizeof(data));
	r->packet.first_len = (uint32_t)(fits ? user.len : 0);
	r->verify_cb = cb;
	r->ctx = cb_ctx;
	submit(r);
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
	r->sign_cb = NULL;
	r->verify_cb = NULL;
	if (!r->process) {
		if (list_is_linked(&r->node))
			h->waiting_count--;
		request_free(r);
	}
}

/* ---- disk ---- */

static struct process *sync_process(struct helpers *h)
{
	for (struct list *node = h->processes.next; node != &h->processes; node = node->next) {
		struct process *p = CONTAINER_OF(node, struct process, node);
		if (p->kind == HELPER_SYNC)
			return p;
	}
	return NULL;
}

static void submit_disk(struct helpers *h, struct request *r, int fd)
{
	struct process *p = sync_process(h);

	h->disk_pending++;
	if (!p || !send_to(p, r, fd))
		answer_locally(r, DISK_HELPER_DIED);
}

static void disk_sync(void *ctx, int fd, uint64_t token)
{
	struct request *r = request_new(ctx, TASK_SYNC, NULL, 0);

	r->token = token;
	submit_disk(ctx, r, fd);
}

static void disk_prepare(void *ctx, const char *name, uint64_t size, uint64_t token)
{
	struct request *r = request_new(ctx, TASK_PREPARE, name, strlen(name) + 1);

	r->token = token;
	r->packet.size = size;
	submit_disk(ctx, r, -1);
}

static void disk_discard(void *ctx, const char *name, int fd)
{
	submit_disk(ctx, request_new(ctx, TASK_DISCARD, name, strlen(name) + 1), fd);
	if (fd >= 0)
		close(fd);
}

const struct disk_async *helpers_disk_async(struct helpers *h)
{
	return &h->disk;
}

unsigned helpers_disk_pending(const struct helpers *h)
{
	return h->disk_pending;
}

/* ---- beginning and end ---- */

static void index_keys(struct helpers *h, const struct config *config)
{
	uint32_t next = 0;

	free(h->first_of_domain);
	h->first_of_domain = xcalloc(config->dkim.domain_count, sizeof(uint32_t));
	for (size_t d = 0; d < config->dkim.domain_count; d++) {
		h->first_of_domain[d] = next;
		next += (uint32_t)config->dkim.domains[d].key_count;
	}
}

size_t helpers_user_count(const struct helpers *h)
{
	return h->report.user_count;
}

enum dkim_algorithm helpers_key_algorithm(const struct helpers *h, uint32_t domain, uint32_t key)
{
	return (enum dkim_algorithm)h->report.algorithms[h->first_of_domain[domain] + key];
}

static int load_inline(struct helpers *h, const struct config *config, struct err *err)
{
	struct helper_report report;
	struct helper_secrets *secrets = helper_secrets_load(config, &report);

	if (!secrets)
		return err_set(err, (enum err_code)report.result, "%s", report.text);
	helper_secrets_free(&h->inline_secrets);
	h->inline_secrets = secrets;
	h->report = report;
	return 0;
}

static void mark_crypto(struct helpers *h, bool old_ones)
{
	LIST_FOREACH (node, &h->processes) {
		struct process *p = CONTAINER_OF(node, struct process, node);
		if (p->kind == HELPER_CRYPTO)
			p->is_old = old_ones;
	}
}

/* New crypto helpers with the secrets of `config`; on an error they are gone again. */
static int start_crypto(struct helpers *h, const struct config *config, struct helper_report *report, struct err *err)
{
	int rc = 0;

	for (int64_t i = 0; rc == 0 && i < config->helpers; i++) {
		struct process *p = spawn(h, HELPER_CRYPTO, config);
		rc = p ? await_report(p, report, err) : err_set_errno(err, "cannot start a helper process");
	}
	return rc;
}

static void end_new_ones(struct helpers *h)
{
	LIST_FOREACH (node, &h->processes) {
		struct process *p = CONTAINER_OF(node, struct process, node);
		if (p->kind == HELPER_CRYPTO && !p->is_old)
			process_free(p);
	}
	mark_crypto(h, false);
}

static void retire_old_ones(struct helpers *h)
{
	LIST_FOREACH (node, &h->processes) {
		struct process *p = CONTAINER_OF(node, struct process, node);
		retire_if_done(p);
	}
}

int helpers_reload(struct helpers *h, struct config *config, struct err *err)
{
	struct helper_report report;
	struct config *old = h->config;
	int rc;

	if (config->helpers == 0) {
		rc = load_inline(h, config, err);
	} else {
		mark_crypto(h, true);
		rc = start_crypto(h, config, &report, err);
		if (rc != 0)
			end_new_ones(h);
	}
	if (rc != 0)
		return rc;
	if (config->helpers > 0) {
		h->report = report;
		helper_secrets_free(&h->inline_secrets);
	}
	index_keys(h, config);
	h->config = config_ref(config);
	config_free(&old);
	retire_old_ones(h);
	dispatch(h);
	return 0;
}

struct helpers *helpers_new(const struct helpers_options *options, struct config *config, struct err *err)
{
	struct helpers *h = xcalloc(1, sizeof(*h));

	h->options = *options;
	list_init(&h->processes);
	list_init(&h->waiting);
	h->disk = (struct disk_async){h, disk_sync, disk_prepare, disk_discard};
	if (options->journal_fd >= 0 && !spawn(h, HELPER_SYNC, config)) {
		err_set_errno(err, "cannot start a helper process");
		helpers_free(&h);
		return NULL;
	}
	if (helpers_reload(h, config, err) != 0)
		helpers_free(&h);
	return h;
}

void helpers_free(struct helpers **helpers)
{
	struct helpers *h = *helpers;
	struct request *r, *next;

	if (!h)
		return;
	timers_cancel(loop_timers(h->options.loop), &h->respawn_timer);
	LIST_FOREACH (node, &h->processes)
		process_free(CONTAINER_OF(node, struct process, node));
	HASH_ITER(hh, h->by_id, r, next)
	request_free(r);
	helper_secrets_free(&h->inline_secrets);
	free(h->first_of_domain);
	config_free(&h->config);
	free(h);
	*helpers = NULL;
}
