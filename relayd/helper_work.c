/* What runs inside a helper process, and inline with `helpers: 0`. */
#include "relayd/helper_protocol.h"

#include "base/base.h"
#include "config/users.h"
#include "dkim/key.h"
#include "queue/disk.h"
#include "relayd/sandbox.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* ---- keys and users ---- */

struct helper_secrets {
	struct users *users;
	struct dkim_key **keys; /* all domains' keys, one after the other */
	uint32_t key_count;
	uint32_t *first_of_domain, domain_count;
};

void helper_report_fini(struct helper_report *report)
{
	free(report->keys);
	report->keys = NULL;
	report->key_count = 0;
}

static void describe_key(const struct dkim_key *key, struct helper_key_report *out)
{
	struct slice public = dkim_key_public(key);

	*out = (struct helper_key_report){dkim_key_algorithm(key), dkim_key_bits(key), dkim_key_warnings(key), {0}};
	crypto_generichash(out->fingerprint, sizeof(out->fingerprint), (const unsigned char *)public.ptr, public.len,
			   NULL, 0);
}

static int load_key(struct helper_secrets *secrets, const struct config_dkim_domain *domain,
		    const struct config_dkim_key *entry, struct helper_report *report)
{
	struct dkim_key **key = &secrets->keys[secrets->key_count];
	struct err err;
	int rc;

	if (entry->key.file)
		rc = dkim_key_load_file(entry->key.file, key, &err);
	else
		rc = dkim_key_load(slice_of_str(entry->key.value), key, &err);
	if (rc != 0) {
		snprintf(report->text, sizeof(report->text), "dkim key of %.100s, selector %.100s: %.280s",
			 domain->domain, entry->selector, err.text);
		return rc;
	}
	describe_key(*key, &report->keys[secrets->key_count++]);
	report->key_count = secrets->key_count;
	return 0;
}

static size_t count_keys(const struct config *config)
{
	size_t count = 0;

	for (size_t d = 0; d < config->dkim.domain_count; d++)
		count += config->dkim.domains[d].key_count;
	return count;
}

static int load_keys(struct helper_secrets *secrets, const struct config *config, struct helper_report *report)
{
	int rc = 0;

	secrets->keys = xcalloc(count_keys(config) + 1, sizeof(struct dkim_key *));
	report->keys = xcalloc(count_keys(config) + 1, sizeof(*report->keys));
	secrets->first_of_domain = xcalloc(config->dkim.domain_count + 1, sizeof(uint32_t));
	secrets->domain_count = (uint32_t)config->dkim.domain_count;
	for (size_t d = 0; rc == 0 && d < config->dkim.domain_count; d++) {
		const struct config_dkim_domain *domain = &config->dkim.domains[d];
		secrets->first_of_domain[d] = secrets->key_count;
		for (size_t k = 0; rc == 0 && k < domain->key_count; k++)
			rc = load_key(secrets, domain, &domain->keys[k], report);
	}
	secrets->first_of_domain[secrets->domain_count] = secrets->key_count;
	return rc;
}

static int load_account(struct helper_secrets *secrets, const struct config *config, struct helper_report *report)
{
	struct err err;
	char *password;
	int rc = config_secret_read(&config->account.password, &password, &err);

	if (rc == 0) {
		rc =
		    users_add_account(secrets->users, slice_of_str(config->account.name), slice_of_str(password), &err);
		config_secret_wipe(&password);
	}
	if (rc != 0)
		snprintf(report->text, sizeof(report->text), "RELAYD_USERNAME, RELAYD_PASSWORD: %.400s", err.text);
	return rc;
}

static void count_users(struct helper_secrets *secrets, struct helper_report *report)
{
	report->user_count = users_count(secrets->users);
	for (size_t i = 0; i < report->user_count; i++)
		report->slow_count += users_entry(secrets->users, i).kind == USER_SECRET_ARGON2ID;
}

static int load_users(struct helper_secrets *secrets, const struct config *config, struct helper_report *report)
{
	struct config_errors *errors = xcalloc(1, sizeof(*errors));
	int rc = 0;

	secrets->users = users_new();
	config_errors_init(errors);
	if (config->users_file)
		rc = users_load(secrets->users, config->users_file, errors);
	if (rc == 0)
		rc = users_check(secrets->users, config, errors);
	if (rc != 0)
		snprintf(report->text, sizeof(report->text), "%.500s",
			 errors->kept_count ? errors->items[0].text : "users file");
	free(errors);
	if (rc == 0 && config->account.name)
		rc = load_account(secrets, config, report);
	if (rc == 0)
		count_users(secrets, report);
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
	size_t len = 0;
	uint32_t index;

	if (request->domain >= secrets->domain_count || request->data_len != DKIM_DIGEST_BYTES) {
		answer->result = ERR_NOT_FOUND;
		return;
	}
	index = secrets->first_of_domain[request->domain] + request->key;
	if (index >= secrets->first_of_domain[request->domain + 1]) {
		answer->result = ERR_NOT_FOUND;
		return;
	}
	answer->result = dkim_key_sign(secrets->keys[index], (const unsigned char *)request->data,
				       (unsigned char *)answer->data, &len);
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
	/* Half of the options would allow more than all of them. The users file has a lower limit of its own. */
	if (strlen(options->text) > sizeof(answer->data)) {
		answer->result = ERR_LIMIT;
		return;
	}
	answer->data_len = (uint32_t)strlen(options->text);
	memcpy(answer->data, options->text, answer->data_len);
}

static void begin_answer(const struct helper_request *request, struct helper_answer *answer)
{
	answer->id = request->id;
	answer->result = 0;
	answer->duration_us = answer->data_len = 0;
}

void helper_secrets_work(struct helper_secrets *secrets, const struct helper_request *request,
			 struct helper_answer *answer)
{
	begin_answer(request, answer);
	if (request->task == TASK_SIGN)
		sign(secrets, request, answer);
	else
		verify(secrets, request, answer);
}

/* ---- the disk ---- */

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

void helper_disk_work(int journal_fd, const struct helper_request *request, int passed_fd, struct helper_answer *answer,
		      int *made_fd)
{
	uint64_t began = now_us();

	*made_fd = -1;
	begin_answer(request, answer);
	switch (request->task) {
	case TASK_SYNC: answer->result = passed_fd < 0 ? -EBADF : disk_do_sync(passed_fd); break;
	case TASK_PREPARE: answer->result = disk_do_prepare(journal_fd, request->data, request->size, made_fd); break;
	default:
		disk_do_discard(journal_fd, request->data, passed_fd); /* closes it */
		passed_fd = -1;
	}
	if (passed_fd >= 0)
		close(passed_fd);
	answer->duration_us = (uint32_t)MIN(now_us() - began, (uint64_t)UINT32_MAX);
}

/* ---- the life of a helper ---- */

static int send_report(int fd, const struct helper_report *report)
{
	static struct helper_report_packet packet;
	uint32_t sent = 0;

	do {
		packet = (struct helper_report_packet){
		    .key_count = MIN(report->key_count - sent, (uint32_t)HELPER_KEYS_PER_PACKET)};
		if (packet.key_count)
			memcpy(packet.keys, report->keys + sent, packet.key_count * sizeof(packet.keys[0]));
		sent += packet.key_count;
		packet.is_last = sent == report->key_count;
		packet.result = report->result;
		packet.user_count = report->user_count;
		packet.slow_count = report->slow_count;
		memcpy(packet.text, report->text, sizeof(packet.text));
		if (helper_send(fd, &packet, sizeof(packet), -1) != 0)
			return -1;
	} while (!packet.is_last);
	return 0;
}

static struct helper_secrets *start_crypto(int fd, const struct config *config)
{
	struct helper_report report;
	struct helper_secrets *secrets = helper_secrets_load(config, &report);

	if (send_report(fd, &report) != 0 || !secrets)
		_exit(1);
	helper_report_fini(&report);
	return secrets;
}

static bool is_whole(const struct helper_request *request, ssize_t len)
{
	return len >= (ssize_t)offsetof(struct helper_request, data) &&
	       (size_t)len == offsetof(struct helper_request, data) + request->data_len &&
	       request->first_len <= request->data_len;
}

_Noreturn void helper_serve(enum helper_kind kind, int fd, int journal_fd, const struct config *config, bool no_seccomp)
{
	static struct helper_request request;
	static struct helper_answer answer;
	const struct sandbox_options sandbox = {.role = kind == HELPER_SYNC ? SANDBOX_SYNC : SANDBOX_CRYPTO,
						.no_seccomp = no_seccomp};
	struct helper_secrets *secrets = kind == HELPER_CRYPTO ? start_crypto(fd, config) : NULL;

	sandbox_enter(&sandbox, NULL);
	for (;;) {
		int passed_fd, made_fd = -1;
		ssize_t len = helper_receive(fd, &request, sizeof(request), &passed_fd);
		if (len <= 0)
			_exit(0);
		if (!is_whole(&request, len))
			_exit(1);
		if (secrets)
			helper_secrets_work(secrets, &request, &answer);
		else
			helper_disk_work(journal_fd, &request, passed_fd, &answer, &made_fd);
		sodium_memzero(request.data, request.data_len);
		if (helper_send(fd, &answer, offsetof(struct helper_answer, data) + answer.data_len, made_fd) != 0)
			_exit(0);
		if (made_fd >= 0)
			close(made_fd);
	}
}
