/*
 * Helper processes, or none, with a folder for the group of tests: the keys "rsa", "ed0", "ed1" and "ed2"; the users "app"
 * (rig_token), "many" (the same, with 7,000 octets of options) and "person" (the password "correct horse"); and the folder
 * "journal". The clock stands unless the test moves it.
 */
#ifndef SUPPORT_HELPER_H
#define SUPPORT_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "config/users.h"
#include "dkim/key.h"
#include "relayd/helper.h"

#include <sodium.h>
#include <string.h>
#include <sys/types.h>

enum { DATA_MAX = 12 * 1024, PIDS_MAX = 16 };

/* Names of the processes. */
#define CRYPTO "relayd: crypto"
#define SYNC "relayd: sync"

struct rig;

/* One question and what came of it. */
struct question {
	struct rig *rig;
	unsigned answers;
	int result;
	char data[DATA_MAX];
	size_t len;
	unsigned order; /* the how-manyth answer of all */
};

struct rig {
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

extern char rig_token[USERS_TOKEN_CHARS + 1];

/* For cmocka: the folder; in it two helpers for signatures and passwords, one, or none ("inline"). */
int rig_group_setup(void **state);
int rig_group_teardown(void **state);
int rig_setup(void **state);
int rig_setup_one(void **state);
int rig_setup_inline(void **state);
int rig_setup_with(void **state, unsigned helpers);
/* Sees to it that no child is left. */
int rig_teardown(void **state);

/* One that has no helpers yet: for a configuration of the test's own, then rig_start(), then rig_teardown(). */
struct rig *rig_new(void);
int rig_start(struct rig *rig, struct err *err);
/* A path in the folder; good for the next seven calls. */
const char *rig_in_top(const char *name);
/* `dkim`: domains, a comma between them, each of rig_domain_line(), which is good for the next three calls. */
struct config *rig_config(unsigned helpers, const char *dkim);
/* The domain's keys, by their names in the folder; `second` may be NULL. */
const char *rig_domain_line(const char *domain, const char *first, const char *second);

/* Turns until `*counter` is at least `wanted`; fails after twenty seconds. */
void rig_turn_until(struct rig *rig, const unsigned *counter, unsigned wanted);
int64_t rig_real_ms(void);

/* A signature by the key of that place in the configuration, and by which key ("ed0" is 0) it is. */
uint64_t rig_sign(struct rig *rig, struct question *q, uint32_t domain, uint32_t key);
bool rig_is_signed_by(const struct question *q, unsigned key);
void rig_check(struct rig *rig, struct question *q, const char *user, const char *password);

/* The living children of that name, and those that have none yet. */
unsigned rig_find_helpers(const char *name, pid_t pids[PIDS_MAX]);
/* The only one. */
pid_t rig_find_one(const char *name);
/* Never to a group, nor to everybody. */
void rig_send_signal(pid_t pid, int signo);
void rig_signal_all(const char *name, int signo);

void rig_assert_logged(struct rig *rig, const char *word);
/* All of a small file, as a string; how long it is. */
size_t rig_read_file(const char *path, char *out, size_t size);

#endif
