/* What runs inside a helper process, and inline with `helpers: 0`. */
#include "base/base.h"
#include "config/users.h"
#include "dkim/key.h"
#include "queue/disk.h"
#include "relayd/helper_protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- packets ---- */

int helper_send(int fd, const void *packet, size_t len, int pass_fd, int flags)
{
	struct iovec part = {(void *)(uintptr_t)packet, len};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {{0}};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	ssize_t n;

	if (pass_fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.space);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &pass_fd, sizeof(int));
	}
	do
		n = sendmsg(fd, &message, flags | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -1 : 0;
}

long helper_receive(int fd, void *packet, size_t size, int *passed_fd, int flags)
{
	struct iovec part = {packet, size};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr message = {
	    .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};
	struct cmsghdr *header;
	ssize_t n;

	*passed_fd = -1;
	do
		n = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	header = n >= 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(passed_fd, CMSG_DATA(header), sizeof(int));
	return n;
}

/* ---- keys and users ---- */

struct helper_secrets {
	struct users *users;
	struct dkim_key **keys; /* all domains' keys, one after the other */
	uint32_t key_count;
	uint32_t *first_of_domain;
	uint32_t domain_count;
};

static int load_key(struct helper_secrets *secrets, const struct config_dkim_domain *domain,
		    const struct config_dkim_key *entry, struct helper_report *report)
{
	struct dkim_key *key;
	struct err err;
	char *text;
	int rc;

	if (secrets->key_count == HELPER_KEYS_MAX) {
		snprintf(report->text, sizeof(report->text), "dkim: more than %d keys", HELPER_KEYS_MAX);
		return ERR_LIMIT;
	}
	rc = config_secret_read(&entry->key, &text, &err);
	if (rc == 0) {
		rc = dkim_key_load(slice_of_str(text), &key, &err);
		config_secret_wipe(&text);
	}
	if (rc != 0) {
		snprintf(report->text, sizeof(report->text), "dkim key of %s, selector %s: %s%s%.350s", domain->domain,
			 entry->selector, entry->key.file && !strstr(err.text, entry->key.file) ? entry->key.file : "",
			 entry->key.file && !strstr(err.text, entry->key.file) ? ": " : "", err.text);
		return rc;
	}
	report->algorithms[secrets->key_count] = (uint8_t)dkim_key_algorithm(key);
	secrets->keys[secrets->key_count++] = key;
	return 0;
}

static int load_keys(struct helper_secrets *secrets, const struct config *config, struct helper_report *report)
{
	int rc = 0;

	secrets->keys = xcalloc(HELPER_KEYS_MAX, sizeof(*secrets->keys));
	secrets->first_of_domain = xcalloc(config->dkim.domain_count, sizeof(uint32_t));
	secrets->domain_count = (uint32_t)config->dkim.domain_count;
	for (size_t d = 0; rc == 0 && d < config->dkim.domain_count; d++) {
		secrets->first_of_domain[d] = secrets->key_count;
		for (size_t k = 0; rc == 0 && k < config->dkim.domains[d].key_count; k++)
			rc = load_key(secrets, &config->dkim.domains[d], &config->dkim.domains[d].keys[k], report);
	}
	report->key_count = secrets->key_count;
	return rc;
}

static int load_users(struct helper_secrets *secrets, const struct config *config, struct helper_report *report)
{
	struct config_errors errors;
	struct err err;
	char *password;
	int rc = 0;

	secrets->users = users_new();
	config_errors_init(&errors);
	if (config->users_file)
		rc = users_load(secrets->users, config->users_file, &errors);
	if (rc != 0) {
		snprintf(report->text, sizeof(report->text), "%.500s",
			 errors.kept_count ? errors.items[0].text : "users file");
		return rc;
	}
	if (config->account.name) {
		rc = config_secret_read(&config->account.password, &password, &err);
		if (rc == 0) {
			rc = users_add_account(secrets->users, slice_of_str(config->account.name),
					       slice_of_str(password), &err);
			config_secret_wipe(&password);
		}
		if (rc != 0)
			snprintf(report->text, sizeof(report->text), "RELAYD_USERNAME, RELAYD_PASSWORD: %.400s",
				 err.text);
	}
	report->user_count = users_count(secrets->users);
	return rc;
}

struct helper_secrets *helper_secrets_load(const struct config *config, struct helper_report *report)
{
	struct helper_secrets *secrets = xcalloc(1, sizeof(*secrets));

	memset(report, 0, sizeof(*report));
	report->result = load_keys(secrets, config, report);
	if (report->result == 0)
		report->result = load_users(secrets, config, report);
	if (report->result != 0)
		helper_secrets_free(&secrets);
	return secrets;
}

void helper_secrets_free(struct helper_secrets **secrets)
{
	struct helper_secrets *s = *secrets;

	if (!s)
		return;
	for (uint32_t k = 0; k < s->key_count; k++)
		dkim_key_free(&s->keys[k]);
	free(s->keys);
	free(s->first_of_domain);
	users_free(&s->users);
	free(s);
	*secrets = NULL;
}

static void sign(struct helper_secrets *secrets, const struct helper_request *request, struct helper_answer *answer)
{
	uint32_t index = request->domain < secrets->domain_count
			     ? secrets->first_of_domain[request->domain] + request->key
			     : UINT32_MAX;
	size_t len = 0;

	if (index >= secrets->key_count) {
		answer->result = ERR_NOT_FOUND;
		return;
	}
	answer->result = dkim_key_sign(secrets->keys[index], request->digest, (unsigned char *)answer->data, &len);
	answer->data_len = (uint32_t)len;
}

static void verify(struct helper_secrets *secrets, const struct helper_request *request, struct helper_answer *answer)
{
	const struct user_options *options = NULL;
	struct slice user = slice_of(request->data, request->first_len);
	struct slice password = slice_of(request->data + request->first_len, request->data_len - request->first_len);

	if (!users_verify(secrets->users, user, password, &options)) {
		answer->result = ERR_PERMISSION;
		return;
	}
	answer->data_len = (uint32_t)MIN(strlen(options->text), sizeof(answer->data));
	memcpy(answer->data, options->text, answer->data_len);
}

void helper_secrets_work(struct helper_secrets *secrets, const struct helper_request *request,
			 struct helper_answer *answer)
{
	answer->id = request->id;
	answer->result = 0;
	answer->data_len = 0;
	if (request->task == TASK_SIGN)
		sign(secrets, request, answer);
	else
		verify(secrets, request, answer);
}

/* ---- processes ---- */

/* Nothing of the daemon's stays open; the socket is 3, the journal's folder 4. */
static void keep_only(int fd, int journal_fd)
{
	int high_fd = fcntl(fd, F_DUPFD, 10), high_journal = journal_fd >= 0 ? fcntl(journal_fd, F_DUPFD, 10) : -1;

	dup2(high_fd, 3);
	if (high_journal >= 0)
		dup2(high_journal, 4);
	syscall(SYS_close_range, high_journal >= 0 ? 5u : 4u, ~0u, 0u);
}

static void settle_in(enum helper_kind kind, int parent_pid)
{
	const struct rlimit none = {0, 0};
	sigset_t all;

	prctl(PR_SET_NAME, kind == HELPER_SYNC ? "relayd: sync" : "relayd: crypto");
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent_pid)
		_exit(0);
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
}

static uint64_t now_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static void work_on_disk(int journal_fd, const struct helper_request *request, int passed_fd,
			 struct helper_answer *answer, int *made_fd)
{
	uint64_t began = now_us();

	*made_fd = -1;
	answer->id = request->id;
	answer->data_len = 0;
	switch (request->task) {
	case TASK_SYNC: answer->result = disk_do_sync(passed_fd); break;
	case TASK_PREPARE: answer->result = disk_do_prepare(journal_fd, request->data, request->size, made_fd); break;
	default:
		disk_do_discard(journal_fd, request->data, passed_fd);
		passed_fd = -1;
		answer->result = 0;
	}
	if (passed_fd >= 0)
		close(passed_fd);
	answer->duration_us = (uint32_t)(now_us() - began);
}

static _Noreturn void serve(enum helper_kind kind, struct helper_secrets *secrets)
{
	static struct helper_request request;
	static struct helper_answer answer;

	for (;;) {
		int passed_fd, made_fd = -1;
		long n = helper_receive(3, &request, sizeof(request), &passed_fd, 0);
		if (n <= 0)
			_exit(0);
		if (kind == HELPER_SYNC)
			work_on_disk(4, &request, passed_fd, &answer, &made_fd);
		else
			helper_secrets_work(secrets, &request, &answer);
		sodium_memzero(request.data, request.data_len);
		if (helper_send(3, &answer, offsetof(struct helper_answer, data) + answer.data_len, made_fd, 0) != 0)
			_exit(0);
		if (made_fd >= 0)
			close(made_fd);
	}
}

_Noreturn void helper_main(enum helper_kind kind, int fd, int journal_fd, const struct config *config, int parent_pid)
{
	static struct helper_report report;
	struct helper_secrets *secrets = NULL;

	keep_only(fd, kind == HELPER_SYNC ? journal_fd : -1);
	settle_in(kind, parent_pid);
	if (kind == HELPER_CRYPTO) {
		secrets = helper_secrets_load(config, &report);
		if (helper_send(3, &report, sizeof(report), -1, 0) != 0 || !secrets)
			_exit(1);
	}
	serve(kind, secrets);
}
