/* Helper processes: their answers, their deaths, their replacement; and the same without processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "config/users.h"
#include "dkim/key.h"
#include "relayd/helper.h"
#include "relayd/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DATA_MAX = 12 * 1024, PIDS_MAX = 16 };

struct fixture;

/* One question and what came of it. */
struct question {
	struct fixture *f;
	unsigned answers;
	int result;
	char data[DATA_MAX];
	size_t len;
	unsigned order; /* the how-manyth answer of all */
};

struct fixture {
	struct clock_virtual clock;
	struct loop *loop;
	struct log *log;
	struct config *config;
	struct helpers *helpers;
	struct auth_backend passwords;
	const struct disk_async *disk;
	int folder;
	unsigned answers, disk_answers;
	struct disk_done done; /* the last */
	bool prepare_on_death;
	char log_text[64 * 1024];
	size_t log_len;
};

static char top[64], token[USERS_TOKEN_CHARS + 1];
static unsigned char public_keys[3][crypto_sign_PUBLICKEYBYTES]; /* of ed0, ed1, ed2 */

static const char *in_top(const char *name)
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
	assert_int_equal(dkim_key_write_file(key, in_top(name), 0600, NULL), 0);
	if (public)
		memcpy(public, dkim_key_public(key).ptr, crypto_sign_PUBLICKEYBYTES);
	dkim_key_free(&key);
}

static void add_user(const char *name, struct slice secret, const char *options)
{
	const struct users_new_file create = {0600, (uid_t)-1, (gid_t)-1};
	struct err err;

	if (users_file_add(in_top("users"), slice_of_str(name), secret, slice_of_str(options), &create, &err) != 0)
		fail_msg("%s", err.text);
}

static int group_setup(void **state)
{
	struct buf secret, options;

	(void)state;
	if (sodium_init() < 0)
		return -1;
	snprintf(top, sizeof(top), "/tmp/relayd-helper-XXXXXX");
	assert_non_null(mkdtemp(top));
	assert_int_equal(mkdir(in_top("journal"), 0700), 0);
	write_key("rsa", DKIM_RSA_SHA256, NULL);
	write_key("ed0", DKIM_ED25519_SHA256, public_keys[0]);
	write_key("ed1", DKIM_ED25519_SHA256, public_keys[1]);
	write_key("ed2", DKIM_ED25519_SHA256, public_keys[2]);
	buf_init(&secret, 1024);
	buf_init(&options, 64 * 1024);
	users_token_new(token);
	users_hash_token(slice_of_str(token), &secret);
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

static int group_teardown(void **state)
{
	static const char *const names[] = {"rsa", "ed0", "ed1", "ed2", "users", "users.lock", "journal"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		remove(in_top(names[i]));
	return rmdir(top);
}

/* ---- the fixture ---- */

static size_t sink(void *ctx, struct slice bytes)
{
	struct fixture *f = ctx;
	size_t len = MIN(bytes.len, sizeof(f->log_text) - 1 - f->log_len);

	memcpy(f->log_text + f->log_len, bytes.ptr, len);
	f->log_len += len;
	return bytes.len;
}

static struct config *config_of(unsigned helpers, const char *dkim)
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

static const char *domain_line(const char *domain, const char *first, const char *second)
{
	static char lines[4][512];
	static unsigned next;
	char *line = lines[next++ % ARRAY_LEN(lines)];

	if (second)
		snprintf(line, sizeof(lines[0]), "%s: {s1: %s, s2: %s}", domain, in_top(first), in_top(second));
	else
		snprintf(line, sizeof(lines[0]), "%s: {s1: %s}", domain, in_top(first));
	return line;
}

static void on_disk_done(void *ctx, const struct disk_done *done)
{
	struct fixture *f = ctx;

	f->disk_answers++;
	f->done = *done;
	if (done->result == DISK_HELPER_DIED && f->prepare_on_death) {
		f->prepare_on_death = false;
		f->disk->prepare(f->disk->ctx, "next", 4096, 77);
	}
}

static int start(struct fixture *f, struct err *err)
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

static struct fixture *fixture_new(void)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	clock_virtual_init(&f->clock, 1000 * 1000);
	f->clock.mono = 1000 * 1000;
	f->loop = loop_new(&f->clock.clock);
	f->log = log_new(&f->clock.clock, sink, f);
	f->folder = open(in_top("journal"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->folder >= 0);
	return f;
}

static int setup_with(void **state, unsigned helpers)
{
	struct fixture *f = fixture_new();
	struct err err;

	f->config = config_of(helpers, domain_line("a.test", "rsa", "ed0"));
	if (start(f, &err) != 0)
		fail_msg("%s", err.text);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, 2);
}

static int setup_one(void **state)
{
	return setup_with(state, 1);
}

static int setup_inline(void **state)
{
	return setup_with(state, 0);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

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

static int64_t real_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void turn_until(struct fixture *f, const unsigned *counter, unsigned wanted)
{
	int64_t until = real_ms() + 20 * 1000;

	while (*counter < wanted) {
		assert_true(real_ms() < until);
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
	q->order = ++q->f->answers;
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

static uint64_t sign(struct fixture *f, struct question *q, uint32_t domain, uint32_t key)
{
	*q = (struct question){.f = f};
	return helpers_sign(f->helpers, domain, key, digest, on_signed, q);
}

static void check(struct fixture *f, struct question *q, const char *user, const char *password)
{
	*q = (struct question){.f = f};
	f->passwords.verify(f->passwords.ctx, slice_of_str(user), slice_of_str(password), on_checked, q);
}

static bool is_signed_by(const struct question *q, unsigned key)
{
	return q->answers == 1 && q->result == 0 && q->len == crypto_sign_BYTES &&
	       crypto_sign_verify_detached((const unsigned char *)q->data, digest, sizeof(digest), public_keys[key]) ==
		   0;
}

/* ---- the processes ---- */

static size_t read_file(const char *path, char *out, size_t size)
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
	read_file(path, text, sizeof(text));
	found = strstr(text, wanted);
	return found && found[strlen(wanted)] != 'Z';
}

/* A fresh fork has its parent's name, for a moment. */
static bool is_nameless(pid_t pid)
{
	return has_name(pid, "test_helper");
}

/* The living children of that name, and those that have none yet. */
static unsigned find_helpers(const char *name, pid_t pids[PIDS_MAX])
{
	char path[64], text[4096], *at = text;
	unsigned count = 0;
	long pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	read_file(path, text, sizeof(text));
	while ((pid = strtol(at, &at, 10)) > 0)
		if ((has_name((pid_t)pid, name) || is_nameless((pid_t)pid)) && count < PIDS_MAX)
			pids[count++] = (pid_t)pid;
	return count;
}

/* Never to a group, nor to everybody: what fork() or a search says when it fails must not get here. */
static void send_signal(pid_t pid, int signo)
{
	assert_true(pid > 1);
	assert_int_equal(kill(pid, signo), 0);
}

static pid_t find_one(const char *name)
{
	pid_t pids[PIDS_MAX];

	assert_int_equal(find_helpers(name, pids), 1);
	return pids[0];
}

static void signal_all(const char *name, int signo)
{
	pid_t pids[PIDS_MAX];
	unsigned count = find_helpers(name, pids);

	for (unsigned i = 0; i < count; i++)
		send_signal(pids[i], signo);
}

static void assert_logged(struct fixture *f, const char *word)
{
	log_flush(f->log);
	f->log_text[f->log_len] = '\0';
	assert_non_null(strstr(f->log_text, word));
}

#define CRYPTO "relayd: crypto"
#define SYNC "relayd: sync"

/* ---- signatures and passwords; with and without processes ---- */

static void both_algorithms_sign(void **state)
{
	struct fixture *f = *state;
	struct question rsa, ed;

	sign(f, &rsa, 0, 0);
	sign(f, &ed, 0, 1);
	assert_int_equal(f->answers, 0); /* never from inside */
	turn_until(f, &f->answers, 2);
	assert_int_equal(rsa.result, 0);
	assert_int_equal(rsa.len, 128);
	assert_true(is_signed_by(&ed, 0));
	assert_int_equal(helpers_key_algorithm(f->helpers, 0, 0), DKIM_RSA_SHA256);
	assert_int_equal(helpers_key_info(f->helpers, 0, 0).bits, 1024);
	assert_true(helpers_key_info(f->helpers, 0, 0).warnings & DKIM_KEY_SMALL);
	assert_int_equal(helpers_key_algorithm(f->helpers, 0, 1), DKIM_ED25519_SHA256);
}

/* RSA PKCS#1 v1.5 and Ed25519 have but one right signature. */
static void inline_and_helper_give_the_same(void **state)
{
	struct fixture *f = *state, *inline_f = fixture_new();
	struct question here[2], there[2];

	inline_f->config = config_of(0, domain_line("a.test", "rsa", "ed0"));
	assert_int_equal(start(inline_f, NULL), 0);
	for (uint32_t key = 0; key < 2; key++) {
		sign(inline_f, &here[key], 0, key);
		sign(f, &there[key], 0, key);
	}
	turn_until(inline_f, &inline_f->answers, 2);
	turn_until(f, &f->answers, 2);
	for (int key = 0; key < 2; key++) {
		assert_int_equal(here[key].len, there[key].len);
		assert_memory_equal(here[key].data, there[key].data, here[key].len);
	}
	helpers_free(&inline_f->helpers);
	loop_free(&inline_f->loop);
	log_free(&inline_f->log);
	config_free(&inline_f->config);
	close(inline_f->folder);
	free(inline_f);
}

static void unknown_keys_are_not_found(void **state)
{
	struct fixture *f = *state;
	struct question a, b, c;

	sign(f, &a, 7, 0);
	sign(f, &b, 0, 2);
	sign(f, &c, UINT32_MAX, UINT32_MAX);
	turn_until(f, &f->answers, 3);
	assert_int_equal(a.result, ERR_NOT_FOUND);
	assert_int_equal(b.result, ERR_NOT_FOUND);
	assert_int_equal(c.result, ERR_NOT_FOUND);
}

static void passwords_are_right_or_wrong(void **state)
{
	struct fixture *f = *state;
	static char endless[64 * 1024];
	struct question good, person, wrong, nobody, empty, overlong;

	memset(endless, 'x', sizeof(endless) - 1);
	check(f, &good, "app", token);
	check(f, &person, "person", "correct horse");
	check(f, &wrong, "app", "correct horse");
	check(f, &nobody, "nobody", token);
	check(f, &empty, "", "");
	check(f, &overlong, "app", endless);
	assert_int_equal(f->answers, 0);
	turn_until(f, &f->answers, 6);
	assert_int_equal(good.result, AUTH_GOOD);
	assert_true(slice_eq(slice_of(good.data, good.len), SLICE("from=@example.com:rate=100/m")));
	assert_int_equal(person.result, AUTH_GOOD);
	assert_int_equal(person.len, 0);
	assert_int_equal(wrong.result, AUTH_WRONG);
	assert_int_equal(nobody.result, AUTH_WRONG);
	assert_int_equal(empty.result, AUTH_WRONG);
	assert_int_equal(overlong.result, AUTH_WRONG);
	assert_int_equal(helpers_user_count(f->helpers), 3);
}

/* Cut options would allow more than the whole. */
static void long_options_arrive_whole(void **state)
{
	struct fixture *f = *state;
	struct user_options *options;
	struct question q;

	check(f, &q, "many", token);
	turn_until(f, &f->answers, 1);
	assert_int_equal(q.result, AUTH_GOOD);
	assert_true(q.len >= 7000);
	options = user_options_parse(slice_of(q.data, q.len), NULL);
	assert_non_null(options);
	assert_true(options->from.count > 150);
	user_options_free(&options);
}

static void a_cancelled_question_is_never_answered(void **state)
{
	struct fixture *f = *state;
	struct question gone[20], last;
	uint64_t ids[20], none = 0, stale;

	for (int i = 0; i < 20; i++)
		ids[i] = sign(f, &gone[i], 0, 0); /* some are with a helper, the others wait */
	stale = ids[0];
	for (int i = 0; i < 20; i++) {
		helpers_cancel(f->helpers, &ids[i]);
		assert_int_equal(ids[i], 0);
	}
	helpers_cancel(f->helpers, &none);
	sign(f, &last, 0, 1);
	turn_until(f, &last.answers, 1);
	for (int i = 0; i < 5; i++)
		loop_turn(f->loop, 0);
	assert_int_equal(f->answers, 1);
	helpers_cancel(f->helpers, &stale);
}

static void too_many_are_refused_and_the_rest_is_answered(void **state)
{
	enum { FLOOD = 5000 };
	struct fixture *f = *state;
	struct question *flood = xcalloc(FLOOD, sizeof(*flood));
	unsigned refused = 0, good = 0;

	for (int i = 0; i < FLOOD; i++)
		sign(f, &flood[i], 0, 1);
	turn_until(f, &f->answers, FLOOD);
	for (int i = 0; i < FLOOD; i++) {
		assert_int_equal(flood[i].answers, 1);
		refused += flood[i].result == ERR_LIMIT;
		good += is_signed_by(&flood[i], 0);
	}
	assert_true(refused > 0);
	assert_int_equal(refused + good, FLOOD);
	free(flood);
}

/* ---- the disk ---- */

static void the_disk_is_served(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	int fd;

	f->disk->prepare(f->disk->ctx, "seg", 8192, 5);
	assert_int_equal(f->disk_answers, 0);
	assert_int_equal(helpers_disk_pending(f->helpers), 1);
	turn_until(f, &f->disk_answers, 1);
	assert_int_equal(f->done.token, 5);
	assert_int_equal(f->done.result, 0);
	fd = f->done.fd;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 8192);
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);

	f->disk->prepare(f->disk->ctx, "seg", 8192, 6);
	turn_until(f, &f->disk_answers, 2);
	assert_int_equal(f->done.result, -EEXIST);
	assert_int_equal(f->done.fd, -1);

	f->disk->sync(f->disk->ctx, fd, 7);
	f->disk->sync(f->disk->ctx, f->folder, 8);
	turn_until(f, &f->disk_answers, 4);
	assert_int_equal(f->done.token, 8);
	assert_int_equal(f->done.result, 0);

	f->disk->discard(f->disk->ctx, "seg", fd);
	f->disk->sync(f->disk->ctx, f->folder, 9);
	turn_until(f, &f->disk_answers, 5); /* discarding has no answer, but its turn */
	assert_int_equal(f->done.token, 9);
	assert_int_equal(helpers_disk_pending(f->helpers), 0);
	assert_int_equal(faccessat(f->folder, "seg", F_OK, 0), -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_sync_that_cannot_be_is_told(void **state)
{
	struct fixture *f = *state;

	f->disk->sync(f->disk->ctx, -1, 1);
	turn_until(f, &f->disk_answers, 1);
	assert_int_equal(f->done.result, -EBADF);
}

static void a_sync_whose_helper_dies_is_told_so_and_not_repeated(void **state)
{
	struct fixture *f = *state;

	signal_all(SYNC, SIGSTOP);
	f->disk->sync(f->disk->ctx, f->folder, 1);
	f->disk->sync(f->disk->ctx, f->folder, 2);
	f->prepare_on_death = true; /* as the journal does: it wants a new segment at once */
	signal_all(SYNC, SIGKILL);
	turn_until(f, &f->disk_answers, 3);
	assert_int_equal(f->done.token, 77);
	assert_int_equal(f->done.result, 0);
	close(f->done.fd);
	assert_int_equal(unlinkat(f->folder, "next", 0), 0);
	assert_int_equal(helpers_disk_pending(f->helpers), 0);
	assert_int_equal(helpers_count(f->helpers).replaced, 1);
	find_one(SYNC);
}

static void a_preparation_without_a_descriptor_left_frees_the_name(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit, low;
	int probe = fcntl(0, F_DUPFD_CLOEXEC, 0);

	close(probe);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	low = (struct rlimit){(rlim_t)probe, limit.rlim_max};
	f->disk->prepare(f->disk->ctx, "seg", 4096, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	turn_until(f, &f->disk_answers, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(f->done.result, -EMFILE);
	assert_int_equal(f->done.fd, -1);
	f->disk->prepare(f->disk->ctx, "seg", 4096, 2);
	turn_until(f, &f->disk_answers, 2);
	assert_int_equal(f->done.result, 0);
	close(f->done.fd);
	unlinkat(f->folder, "seg", 0);
}

/* More than the socket holds at a time; the helper is stopped meanwhile. */
static void many_discards_wait_for_room(void **state)
{
	enum { FILES = 600 };
	struct fixture *f = *state;
	char name[16];

	signal_all(SYNC, SIGSTOP);
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		int fd = openat(f->folder, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		close(fd);
		f->disk->discard(f->disk->ctx, name, -1);
	}
	f->disk->sync(f->disk->ctx, f->folder, 1);
	assert_int_equal(helpers_disk_pending(f->helpers), FILES + 1);
	signal_all(SYNC, SIGCONT);
	turn_until(f, &f->disk_answers, 1);
	assert_int_equal(f->done.result, 0);
	assert_int_equal(helpers_disk_pending(f->helpers), 0);
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		assert_int_equal(faccessat(f->folder, name, F_OK, 0), -1);
	}
}

/* ---- death ---- */

static void the_work_of_a_killed_helper_is_done_by_another(void **state)
{
	enum { COUNT = 40 };
	struct fixture *f = *state;
	struct question questions[COUNT];

	signal_all(CRYPTO, SIGSTOP); /* in the middle of work, for certain */
	for (int i = 0; i < COUNT; i++)
		sign(f, &questions[i], 0, 1);
	signal_all(CRYPTO, SIGKILL);
	turn_until(f, &f->answers, COUNT);
	for (int i = 0; i < COUNT; i++)
		assert_true(is_signed_by(&questions[i], 0));
	assert_int_equal(helpers_count(f->helpers).replaced, 2);
	assert_logged(f, "helper_ended");
}

/* A stopped helper that is ready: it runs only while nobody listens to it, so it never gets hold of a request. */
static pid_t await_stopped(struct fixture *f)
{
	pid_t pids[PIDS_MAX];
	int status;

	while (find_helpers(CRYPTO, pids) != 1)
		loop_turn(f->loop, 0); /* it is being forked; nothing is ready meanwhile */
	do {
		send_signal(pids[0], SIGCONT);
		usleep(2000);
		send_signal(pids[0], SIGSTOP);
		assert_int_equal(waitpid(pids[0], &status, WUNTRACED), pids[0]);
		assert_true(WIFSTOPPED(status));
		loop_turn(f->loop, 0);
	} while (helpers_count(f->helpers).ready == 0);
	return pids[0];
}

static void a_request_that_takes_three_helpers_along_is_given_up(void **state)
{
	struct fixture *f = *state;
	struct question q;
	pid_t pid = await_stopped(f);

	sign(f, &q, 0, 1);
	for (unsigned death = 1; death <= 3; death++) {
		assert_int_equal(q.answers, 0);
		send_signal(pid, SIGKILL);
		while (helpers_count(f->helpers).replaced < death)
			loop_turn(f->loop, 0);
		clock_virtual_advance(&f->clock, 2000); /* over the pause */
		if (death < 3)
			pid = await_stopped(f);
	}
	turn_until(f, &q.answers, 1);
	assert_int_equal(q.result, ERR_TEMPORARY);
}

static void helpers_that_die_at_once_are_not_replaced_without_end(void **state)
{
	struct fixture *f = *state;
	unsigned replaced;

	assert_int_equal(rename(in_top("ed0"), in_top("away")), 0);
	signal_all(CRYPTO, SIGKILL);
	while (helpers_count(f->helpers).replaced < 3 || helpers_count(f->helpers).ready > 0)
		loop_turn(f->loop, 20);
	/* The clock stands: the pause is not over. */
	for (int i = 0; i < 10; i++)
		loop_turn(f->loop, 5);
	replaced = helpers_count(f->helpers).replaced;
	assert_true(replaced <= 6);
	assert_logged(f, "helper_failed");
	assert_logged(f, "ed0");
	assert_int_equal(rename(in_top("away"), in_top("ed0")), 0);
	clock_virtual_advance(&f->clock, 60 * 1000);
	while (helpers_count(f->helpers).ready < 2) {
		loop_turn(f->loop, 20);
		clock_virtual_advance(&f->clock, 1000);
	}
}

static void a_silent_helper_is_killed_and_its_work_done_by_another(void **state)
{
	struct fixture *f = *state;
	struct question a, b;

	signal_all(CRYPTO, SIGSTOP);
	sign(f, &a, 0, 1);
	sign(f, &b, 0, 1);
	loop_turn(f->loop, 0);
	assert_int_equal(f->answers, 0);
	for (int seconds = 0; seconds < 40; seconds += 5) {
		clock_virtual_advance(&f->clock, 5000);
		loop_turn(f->loop, 0);
	}
	turn_until(f, &f->answers, 2);
	assert_true(is_signed_by(&a, 0) && is_signed_by(&b, 0));
	assert_logged(f, "helper_silent");
}

/* Both are stopped, then one goes on: what can be answered then? With a check at each, or with a signature behind a
 * check, no signature could come first whichever goes on. */
static void a_password_never_takes_the_last_free_helper(void **state)
{
	struct fixture *f = *state;
	struct question first, second, signature;
	bool came_first = false;
	pid_t pids[PIDS_MAX];

	for (unsigned goes_on = 0; goes_on < 2; goes_on++) {
		unsigned before = f->answers;
		assert_int_equal(find_helpers(CRYPTO, pids), 2);
		signal_all(CRYPTO, SIGSTOP);
		check(f, &first, "person", "correct horse");
		check(f, &second, "person", "correct horse");
		sign(f, &signature, 0, 1);
		send_signal(pids[goes_on], SIGCONT);
		turn_until(f, &f->answers, before + 1);
		came_first |= signature.answers == 1 && first.answers + second.answers == 0;
		signal_all(CRYPTO, SIGCONT);
		turn_until(f, &f->answers, before + 3);
	}
	assert_true(came_first);
}

static void signatures_wait_rather_than_queue_behind_a_password(void **state)
{
	enum { SIGNATURES = 40 };
	struct fixture *f = *state;
	struct question password, signatures[SIGNATURES];
	unsigned waiting;

	signal_all(CRYPTO, SIGSTOP);
	for (int i = 0; i < SIGNATURES; i++)
		sign(f, &signatures[i], 0, 1);
	waiting = helpers_count(f->helpers).waiting;
	assert_true(waiting > 0 && waiting < SIGNATURES);
	signal_all(CRYPTO, SIGCONT);
	turn_until(f, &f->answers, SIGNATURES);

	signal_all(CRYPTO, SIGSTOP);
	check(f, &password, "person", "correct horse");
	for (int i = 0; i < SIGNATURES; i++)
		sign(f, &signatures[i], 0, 1);
	/* With both they had so many places; now they have those of one. */
	assert_int_equal(helpers_count(f->helpers).waiting - waiting, (SIGNATURES - waiting) / 2);
	signal_all(CRYPTO, SIGCONT);
	turn_until(f, &f->answers, 2 * SIGNATURES + 1);
}

static void one_helper_alone_does_everything(void **state)
{
	struct fixture *f = *state;
	struct question password, signature;

	check(f, &password, "person", "correct horse");
	sign(f, &signature, 0, 1);
	turn_until(f, &f->answers, 2);
	assert_int_equal(password.result, AUTH_GOOD);
	assert_true(is_signed_by(&signature, 0));
}

/* ---- reload ---- */

static void after_a_reload_old_questions_get_the_old_key(void **state)
{
	struct fixture *f = *state;
	struct config *fresh = config_of(2, domain_line("z.test", "ed2", "ed1"));
	struct question old[30], new;
	pid_t pids[PIDS_MAX];

	signal_all(CRYPTO, SIGSTOP);
	for (int i = 0; i < 30; i++)
		sign(f, &old[i], 0, 1); /* ed0; most of them wait */
	assert_int_equal(helpers_reload(f->helpers, fresh, NULL), 0);
	sign(f, &new, 0, 1); /* ed1 */
	turn_until(f, &new.answers, 1);
	assert_true(is_signed_by(&new, 1));
	assert_int_equal(f->answers, 1);
	signal_all(CRYPTO, SIGCONT);
	turn_until(f, &f->answers, 31);
	for (int i = 0; i < 30; i++)
		assert_true(is_signed_by(&old[i], 0));
	while (find_helpers(CRYPTO, pids) > 2) {
		loop_turn(f->loop, 20);
		clock_virtual_advance(&f->clock, 20);
	}
	assert_int_equal(helpers_key_algorithm(f->helpers, 0, 0), DKIM_ED25519_SHA256);
	config_free(&fresh);
}

static void a_bad_reload_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct config *bad = config_of(2, domain_line("z.test", "ed1", "missing"));
	struct question q;
	struct err err;
	pid_t pids[PIDS_MAX];

	assert_int_equal(helpers_reload(f->helpers, bad, &err), ERR_NOT_FOUND);
	assert_non_null(strstr(err.text, "missing"));
	assert_non_null(strstr(err.text, "z.test"));
	sign(f, &q, 0, 1);
	turn_until(f, &q.answers, 1);
	assert_true(is_signed_by(&q, 0));
	while (find_helpers(CRYPTO, pids) > 2) {
		loop_turn(f->loop, 20);
		clock_virtual_advance(&f->clock, 20);
	}
	config_free(&bad);
}

static void what_is_staged_serves_only_when_it_is_committed(void **state)
{
	struct fixture *f = *state;
	struct config *fresh = config_of(2, domain_line("z.test", "ed2", "ed1"));
	struct question q;

	assert_int_equal(helpers_stage(f->helpers, fresh, NULL), 0);
	sign(f, &q, 0, 1);
	turn_until(f, &q.answers, 1);
	assert_true(is_signed_by(&q, 0));
	helpers_unstage(f->helpers);
	helpers_commit(f->helpers); /* nothing */
	sign(f, &q, 0, 1);
	turn_until(f, &q.answers, 1);
	assert_true(is_signed_by(&q, 0));
	assert_int_equal(helpers_stage(f->helpers, fresh, NULL), 0);
	helpers_commit(f->helpers);
	sign(f, &q, 0, 1);
	turn_until(f, &q.answers, 1);
	assert_true(is_signed_by(&q, 1));
	config_free(&fresh);
}

static void a_replacement_must_have_the_same_keys(void **state)
{
	struct fixture *f = *state;
	struct question q;
	pid_t pids[PIDS_MAX];

	assert_int_equal(rename(in_top("ed0"), in_top("away")), 0);
	assert_int_equal(rename(in_top("ed1"), in_top("ed0")), 0);
	assert_int_equal(find_helpers(CRYPTO, pids), 2);
	send_signal(pids[0], SIGKILL);
	while (helpers_count(f->helpers).replaced < 2)
		loop_turn(f->loop, 20);
	assert_logged(f, "helper_key_changed");
	for (int i = 0; i < 5; i++) {
		sign(f, &q, 0, 1);
		turn_until(f, &q.answers, 1);
		assert_true(is_signed_by(&q, 0));
	}
	assert_int_equal(rename(in_top("ed0"), in_top("ed1")), 0);
	assert_int_equal(rename(in_top("away"), in_top("ed0")), 0);
}

static void a_start_with_a_bad_users_file_says_where(void **state)
{
	struct fixture *f = fixture_new();
	int fd = open(in_top("users.bad"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct err err;

	(void)state;
	assert_int_equal(write(fd, "app:plain text\n", 15), 15);
	close(fd);
	assert_int_equal(rename(in_top("users"), in_top("users.good")), 0);
	assert_int_equal(rename(in_top("users.bad"), in_top("users")), 0);
	for (unsigned helpers = 0; helpers < 3; helpers += 2) {
		f->config = config_of(helpers, domain_line("a.test", "ed0", NULL));
		assert_int_equal(start(f, &err), -1);
		assert_int_equal(err.code, ERR_CONFIG);
		assert_non_null(strstr(err.text, "users:1:"));
		config_free(&f->config);
	}
	assert_int_equal(rename(in_top("users.good"), in_top("users")), 0);
	loop_free(&f->loop);
	log_free(&f->log);
	close(f->folder);
	free(f);
}

static void many_domains_keep_their_order(void **state)
{
	enum { DOMAINS = 70 }; /* more than fit in one packet of the report */
	struct fixture *f = fixture_new();
	struct buf text;
	struct question q;
	char line[160];

	(void)state;
	buf_init(&text, 64 * 1024);
	for (int d = 0; d < DOMAINS; d++) {
		snprintf(line, sizeof(line), "%sd%d.test: {s: %s/%s}", d ? ", " : "", d, top, d == 69 ? "ed2" : "ed0");
		buf_append_str(&text, line);
	}
	buf_append_byte(&text, '\0');
	f->config = config_of(2, buf_slice(&text).ptr);
	assert_int_equal(start(f, NULL), 0);
	sign(f, &q, 69, 0);
	turn_until(f, &q.answers, 1);
	assert_true(is_signed_by(&q, 2));
	buf_fini(&text);
	*state = f;
	teardown(state);
}

/* ---- what a helper is ---- */

static unsigned count_fds(pid_t pid)
{
	char path[64];
	struct dirent *entry;
	unsigned count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

static void a_helper_keeps_nothing_of_the_daemons(void **state)
{
	struct fixture *f = *state;
	char path[64], status[4096];
	pid_t pids[PIDS_MAX], sync = find_one(SYNC);
	struct question q;

	sign(f, &q, 0, 1);
	f->disk->sync(f->disk->ctx, f->folder, 1);
	turn_until(f, &q.answers, 1);
	turn_until(f, &f->disk_answers, 1); /* both are settled in */
	assert_int_equal(find_helpers(CRYPTO, pids), 2);
	if (geteuid() != 0)
		skip();				 /* it is not dumpable: only root can look */
	assert_int_equal(count_fds(pids[0]), 4); /* 0, 1, 2, socket */
	assert_int_equal(count_fds(sync), 5);	 /* and the journal's folder */
	snprintf(path, sizeof(path), "/proc/%d/status", (int)sync);
	read_file(path, status, sizeof(status));
	assert_non_null(strstr(status, "NoNewPrivs:\t1"));
	if (!sandbox_is_sanitized())
		assert_non_null(strstr(status, "Seccomp:\t2"));
}

static void signals_of_the_group_do_not_end_it(void **state)
{
	struct fixture *f = *state;
	struct question q;

	signal_all(CRYPTO, SIGTERM);
	signal_all(CRYPTO, SIGINT);
	signal_all(CRYPTO, SIGHUP);
	signal_all(SYNC, SIGTERM);
	sign(f, &q, 0, 1);
	f->disk->sync(f->disk->ctx, f->folder, 1);
	turn_until(f, &q.answers, 1);
	turn_until(f, &f->disk_answers, 1);
	assert_int_equal(helpers_count(f->helpers).replaced, 0);
}

static void assert_it_dies(pid_t pid)
{
	int64_t until = real_ms() + 10 * 1000;

	while (waitpid(pid, NULL, WNOHANG) == 0) {
		if (real_ms() > until)
			send_signal(pid, SIGKILL);
		assert_true(real_ms() <= until);
		usleep(1000);
	}
}

/* In a process of its own, which is then killed: the helpers must go too, whatever they are doing, and nothing that
 * they inherited may live on. They are stopped, so that they don't see the closed socket. */
static void helpers_die_with_the_daemon(void **state)
{
	pid_t pids[PIDS_MAX] = {0}, daemon;
	int report[2], lock[2];
	unsigned count;
	char byte;

	(void)state;
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	assert_int_equal(pipe2(report, O_CLOEXEC), 0);
	assert_int_equal(pipe2(lock, O_CLOEXEC), 0); /* ends when nobody has its writing end any more */
	daemon = fork();
	assert_true(daemon >= 0);
	if (daemon == 0) {
		void *inner;
		setup_with(&inner, 2);
		count = find_helpers(CRYPTO, pids);
		pids[count++] = find_one(SYNC);
		for (unsigned i = 0; i < count; i++)
			send_signal(pids[i], SIGSTOP);
		if (write(report[1], pids, sizeof(pids)) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	close(lock[1]);
	assert_int_equal(read(report[0], pids, sizeof(pids)), sizeof(pids));
	send_signal(daemon, SIGKILL);
	assert_int_equal(waitpid(daemon, NULL, 0), daemon);
	assert_int_equal(read(lock[0], &byte, 1), 0);
	for (int i = 0; i < 3; i++)
		assert_it_dies(pids[i]); /* ours now */
	close(lock[0]);
	close(report[0]);
	close(report[1]);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_ONE(name) cmocka_unit_test_setup_teardown(name, setup_one, teardown)
#define TEST_INLINE(name) {#name "_inline", name, setup_inline, teardown, NULL}
	    TEST(both_algorithms_sign),
	    TEST_INLINE(both_algorithms_sign),
	    TEST(inline_and_helper_give_the_same),
	    TEST(unknown_keys_are_not_found),
	    TEST_INLINE(unknown_keys_are_not_found),
	    TEST(passwords_are_right_or_wrong),
	    TEST_INLINE(passwords_are_right_or_wrong),
	    TEST(long_options_arrive_whole),
	    TEST_INLINE(long_options_arrive_whole),
	    TEST(a_cancelled_question_is_never_answered),
	    TEST_INLINE(a_cancelled_question_is_never_answered),
	    TEST(too_many_are_refused_and_the_rest_is_answered),
	    TEST_INLINE(too_many_are_refused_and_the_rest_is_answered),
	    TEST(the_disk_is_served),
	    TEST_INLINE(the_disk_is_served),
	    TEST(a_sync_that_cannot_be_is_told),
	    TEST_INLINE(a_sync_that_cannot_be_is_told),
	    TEST(a_sync_whose_helper_dies_is_told_so_and_not_repeated),
	    TEST(a_preparation_without_a_descriptor_left_frees_the_name),
	    TEST(many_discards_wait_for_room),
	    TEST(the_work_of_a_killed_helper_is_done_by_another),
	    TEST_ONE(a_request_that_takes_three_helpers_along_is_given_up),
	    TEST(helpers_that_die_at_once_are_not_replaced_without_end),
	    TEST(a_silent_helper_is_killed_and_its_work_done_by_another),
	    TEST(a_password_never_takes_the_last_free_helper),
	    TEST(signatures_wait_rather_than_queue_behind_a_password),
	    TEST_ONE(one_helper_alone_does_everything),
	    TEST(after_a_reload_old_questions_get_the_old_key),
	    TEST(a_bad_reload_changes_nothing),
	    TEST(what_is_staged_serves_only_when_it_is_committed),
	    TEST(a_replacement_must_have_the_same_keys),
	    cmocka_unit_test(a_start_with_a_bad_users_file_says_where),
	    cmocka_unit_test(many_domains_keep_their_order),
	    TEST(a_helper_keeps_nothing_of_the_daemons),
	    TEST(signals_of_the_group_do_not_end_it),
	    cmocka_unit_test(helpers_die_with_the_daemon),
	};
	return cmocka_run_group_tests_name("helpers", tests, group_setup, group_teardown);
}
