#include "support_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

char rig_token[USERS_TOKEN_CHARS + 1];

static char top[64];
static unsigned char public_keys[3][crypto_sign_PUBLICKEYBYTES]; /* of ed0, ed1, ed2 */

const char *rig_in_top(const char *name)
{
	static char paths[8][128];
	static unsigned next;
	char *path = paths[next++ % ARRAY_LEN(paths)];

	snprintf(path, sizeof(paths[0]), "%s/%s", top, name);
	return path;
}

static void write_key(const char *name, enum dkim_algorithm algorithm, unsigned char *public)
{
	struct dkim_key *key;

	assert_int_equal(dkim_key_generate(algorithm, 1024, &key, NULL), 0);
	assert_int_equal(dkim_key_write_file(key, rig_in_top(name), 0600, NULL), 0);
	if (public)
		memcpy(public, dkim_key_public(key).ptr, crypto_sign_PUBLICKEYBYTES);
	dkim_key_free(&key);
}

static void add_user(const char *name, struct slice secret, const char *options)
{
	const struct users_new_file create = {0600, (uid_t)-1, (gid_t)-1};
	struct err err;

	if (users_file_add(rig_in_top("users"), slice_of_str(name), secret, slice_of_str(options), &create, &err) != 0)
		fail_msg("%s", err.text);
}

int rig_group_setup(void **state)
{
	struct buf secret, options;

	(void)state;
	if (sodium_init() < 0)
		return -1;
	snprintf(top, sizeof(top), "/tmp/relayd-helper-XXXXXX");
	assert_non_null(mkdtemp(top));
	assert_int_equal(mkdir(rig_in_top("journal"), 0700), 0);
	write_key("rsa", DKIM_RSA_SHA256, NULL);
	write_key("ed0", DKIM_ED25519_SHA256, public_keys[0]);
	write_key("ed1", DKIM_ED25519_SHA256, public_keys[1]);
	write_key("ed2", DKIM_ED25519_SHA256, public_keys[2]);
	buf_init(&secret, 1024);
	buf_init(&options, 64 * 1024);
	users_token_new(rig_token);
	users_hash_token(slice_of_str(rig_token), &secret);
	add_user("app", buf_slice(&secret), "from=@example.com:rate=100/m");
	while (buf_len(&options) < 7000)
		buf_append_str(&options, buf_len(&options) ? ":from=@a-rather-long-name.example.org"
							   : "from=@a-rather-long-name.example.org");
	buf_append_byte(&options, '\0');
	add_user("many", buf_slice(&secret), buf_slice(&options).ptr);
	buf_clear(&secret);
	assert_int_equal(users_hash_password(SLICE("correct horse"), &secret, NULL), 0);
	add_user("person", buf_slice(&secret), "");
	buf_fini(&secret);
	buf_fini(&options);
	return 0;
}

int rig_group_teardown(void **state)
{
	static const char *const names[] = {"rsa", "ed0", "ed1", "ed2", "users", "users.lock", "journal"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		remove(rig_in_top(names[i]));
	return rmdir(top);
}

/* ---- helpers ---- */

static size_t sink(void *ctx, struct slice bytes)
{
	struct rig *f = ctx;
	size_t len = MIN(bytes.len, sizeof(f->log_text) - 1 - f->log_len);

	memcpy(f->log_text + f->log_len, bytes.ptr, len);
	f->log_len += len;
	return bytes.len;
}

struct config *rig_config(unsigned helpers, const char *dkim)
{
	const struct config_source source = {.default_hostname = "relay.test"};
	struct config_errors *errors = xcalloc(1, sizeof(*errors));
	struct config *config = NULL;
	char text[4096];
	int len;

	len = snprintf(text, sizeof(text), "spool: %s\nusers: %s/users\nhelpers: %u\ndkim: {domains: {%s}}\n", top, top,
		       helpers, dkim);
	assert_true(len > 0 && (size_t)len < sizeof(text));
	if (config_load_text(&source, slice_of_str(text), &config, errors) != 0)
		fail_msg("%s", errors->items[0].text);
	free(errors);
	return config;
}

const char *rig_domain_line(const char *domain, const char *first, const char *second)
{
	static char lines[4][512];
	static unsigned next;
	char *line = lines[next++ % ARRAY_LEN(lines)];

	if (second)
		snprintf(line, sizeof(lines[0]), "%s: {s1: %s, s2: %s}", domain, rig_in_top(first), rig_in_top(second));
	else
		snprintf(line, sizeof(lines[0]), "%s: {s1: %s}", domain, rig_in_top(first));
	return line;
}

static void on_disk_done(void *ctx, const struct disk_done *done)
{
	struct rig *f = ctx;

	f->disk_answers++;
	f->done = *done;
	if (done->result == DISK_HELPER_DIED && f->prepare_on_death) {
		f->prepare_on_death = false;
		f->disk->prepare(f->disk->ctx, "next", 4096, 77);
	}
}

int rig_start(struct rig *f, struct err *err)
{
	const struct helpers_options options = {
	    .loop = f->loop, .log = f->log, .journal_fd = f->folder, .on_disk_done = on_disk_done, .disk_ctx = f};

	f->helpers = helpers_new(&options, f->config, err);
	if (!f->helpers)
		return -1;
	f->passwords = helpers_auth_backend(f->helpers);
	f->disk = helpers_disk_async(f->helpers);
	return 0;
}

struct rig *rig_new(void)
{
	struct rig *f = xcalloc(1, sizeof(*f));

	clock_virtual_init(&f->clock, 1000 * 1000);
	f->clock.mono = 1000 * 1000;
	f->loop = loop_new(&f->clock.clock);
	f->log = log_new(&f->clock.clock, sink, f);
	f->folder = open(rig_in_top("journal"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->folder >= 0);
	return f;
}

int rig_setup_with(void **state, unsigned helpers)
{
	struct rig *f = rig_new();
	struct err err;

	f->config = rig_config(helpers, rig_domain_line("a.test", "rsa", "ed0"));
	if (rig_start(f, &err) != 0)
		fail_msg("%s", err.text);
	*state = f;
	return 0;
}

int rig_setup(void **state)
{
	return rig_setup_with(state, 2);
}

int rig_setup_one(void **state)
{
	return rig_setup_with(state, 1);
}

int rig_setup_inline(void **state)
{
	return rig_setup_with(state, 0);
}

int rig_teardown(void **state)
{
	struct rig *f = *state;

	helpers_free(&f->helpers);
	loop_free(&f->loop);
	log_free(&f->log);
	config_free(&f->config);
	close(f->folder);
	free(f);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
	assert_int_equal(errno, ECHILD);
	return 0;
}

int64_t rig_real_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void rig_turn_until(struct rig *f, const unsigned *counter, unsigned wanted)
{
	int64_t until = rig_real_ms() + 20 * 1000;

	while (*counter < wanted) {
		assert_true(rig_real_ms() < until);
		loop_turn(f->loop, 20);
	}
}

/* ---- asking ---- */

static void note(struct question *q, int result, struct slice data)
{
	q->answers++;
	q->result = result;
	q->len = MIN(data.len, sizeof(q->data));
	if (q->len)
		memcpy(q->data, data.ptr, q->len);
	q->order = ++q->rig->answers;
}

static void on_signed(void *ctx, enum err_code result, struct slice signature)
{
	note(ctx, result, signature);
}

static void on_checked(void *ctx, enum auth_verdict verdict, struct slice options)
{
	note(ctx, (int)verdict, options);
}

static const unsigned char digest[DKIM_DIGEST_BYTES] = "a digest of thirty-two octets ..";

uint64_t rig_sign(struct rig *f, struct question *q, uint32_t domain, uint32_t key)
{
	*q = (struct question){.rig = f};
	return helpers_sign(f->helpers, domain, key, digest, on_signed, q);
}

void rig_check(struct rig *f, struct question *q, const char *user, const char *password)
{
	*q = (struct question){.rig = f};
	f->passwords.verify(f->passwords.ctx, slice_of_str(user), slice_of_str(password), on_checked, q);
}

bool rig_is_signed_by(const struct question *q, unsigned key)
{
	return q->answers == 1 && q->result == 0 && q->len == crypto_sign_BYTES &&
	       crypto_sign_verify_detached((const unsigned char *)q->data, digest, sizeof(digest), public_keys[key]) ==
		   0;
}

/* ---- the processes ---- */

size_t rig_read_file(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, out, size - 1) : 0;

	if (fd >= 0)
		close(fd);
	n = MAX(n, 0);
	out[n] = '\0';
	return (size_t)n;
}

/* /proc/PID/stat: "4711 (relayd: sync) S ..."; Z: a zombie. */
static bool has_name(pid_t pid, const char *name)
{
	char path[64], text[512], wanted[64], *found;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	snprintf(wanted, sizeof(wanted), "(%s) ", name);
	rig_read_file(path, text, sizeof(text));
	found = strstr(text, wanted);
	return found && found[strlen(wanted)] != 'Z';
}

/* A fresh fork has its parent's name, ours, for a moment. */
static bool is_nameless(pid_t pid)
{
	char name[16];

	assert_int_equal(prctl(PR_GET_NAME, name), 0);
	return has_name(pid, name);
}

unsigned rig_find_helpers(const char *name, pid_t pids[PIDS_MAX])
{
	char path[64], text[4096], *at = text;
	unsigned count = 0;
	long pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	rig_read_file(path, text, sizeof(text));
	while ((pid = strtol(at, &at, 10)) > 0)
		if ((has_name((pid_t)pid, name) || is_nameless((pid_t)pid)) && count < PIDS_MAX)
			pids[count++] = (pid_t)pid;
	return count;
}

/* Never to a group, nor to everybody: what fork() or a search says when it fails must not get here. */
void rig_send_signal(pid_t pid, int signo)
{
	assert_true(pid > 1);
	assert_int_equal(kill(pid, signo), 0);
}

pid_t rig_find_one(const char *name)
{
	pid_t pids[PIDS_MAX];

	assert_int_equal(rig_find_helpers(name, pids), 1);
	return pids[0];
}

void rig_signal_all(const char *name, int signo)
{
	pid_t pids[PIDS_MAX];
	unsigned count = rig_find_helpers(name, pids);

	for (unsigned i = 0; i < count; i++)
		rig_send_signal(pids[i], signo);
}

void rig_assert_logged(struct rig *f, const char *word)
{
	log_flush(f->log);
	f->log_text[f->log_len] = '\0';
	assert_non_null(strstr(f->log_text, word));
}
