/* The spool as it is found at the start: made, repaired, or refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/spool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

struct fixture {
	char folder[64], spool[96], victim[96];
	struct config config;
	struct service_user user;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	snprintf(f->folder, sizeof(f->folder), "/tmp/relayd-spool-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->spool, sizeof(f->spool), "%s/spool", f->folder);
	snprintf(f->victim, sizeof(f->victim), "%s/victim", f->folder);
	assert_int_equal(mkdir(f->victim, 0700), 0);
	f->config = (struct config){.spool = f->spool, .ephemeral_spool = CONFIG_EPHEMERAL_ALLOW};
	f->user = (struct service_user){NULL, geteuid(), getegid(), geteuid() == 0};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char drop[128];

	snprintf(drop, sizeof(drop), "%s/drop", f->spool);
	if (unlink(drop) != 0)
		rmdir(drop);
	rmdir(f->spool);
	rmdir(f->victim);
	assert_int_equal(rmdir(f->folder), 0);
	free(f);
	return 0;
}

static int open_it(struct fixture *f, struct err *err)
{
	int fd = -1, rc = spool_open(&f->config, &f->user, NULL, &fd, err);

	if (fd >= 0)
		close(fd);
	return rc;
}

static mode_t mode_of(const char *folder, const char *name)
{
	char path[256];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(lstat(path, &st), 0);
	return st.st_mode & 07777;
}

static void modes_are_made_and_repaired(void **state)
{
	struct fixture *f = *state;
	char drop[128];
	struct err err;

	assert_int_equal(open_it(f, &err), EX_OK);
	assert_int_equal(mode_of(f->spool, ""), 0711);
	assert_int_equal(mode_of(f->spool, "drop"), 01733);
	snprintf(drop, sizeof(drop), "%s/drop", f->spool);
	assert_int_equal(chmod(drop, 0777), 0);
	assert_int_equal(chmod(f->spool, 0755), 0);
	assert_int_equal(open_it(f, &err), EX_OK);
	assert_int_equal(mode_of(f->spool, ""), 0711);
	assert_int_equal(mode_of(f->spool, "drop"), 01733);
}

/* The spool is the service user's, and root opens it: who has taken the service over must not get more that way. */
static void a_link_in_place_of_drop_is_not_followed(void **state)
{
	struct fixture *f = *state;
	char drop[128];
	struct err err;

	assert_int_equal(mkdir(f->spool, 0711), 0);
	snprintf(drop, sizeof(drop), "%s/drop", f->spool);
	assert_int_equal(symlink(f->victim, drop), 0);
	assert_int_equal(open_it(f, &err), EX_IOERR);
	assert_int_equal(mode_of(f->folder, "victim"), 0700);
}

static void lock_it(struct fixture *f)
{
	int dir_fd = -1, lock_fd = -1;
	struct err err;

	assert_int_equal(spool_open(&f->config, &f->user, NULL, &dir_fd, &err), EX_OK);
	assert_int_equal(spool_lock(dir_fd, &f->user, NULL, &lock_fd, &err), EX_OK);
	close(lock_fd);
	close(dir_fd);
}

static uid_t owner_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_uid;
}

/* So that the service user can start it too, where root has started it before. */
static void the_lock_is_the_users(void **state)
{
	struct fixture *f = *state;
	char lock[128], other[128];

	if (geteuid() != 0)
		skip();
	f->user.uid = 12345;
	lock_it(f);
	snprintf(lock, sizeof(lock), "%s/lock", f->spool);
	assert_int_equal(owner_of(lock), 12345);
	/* Not a file of others that the user has put there by another name. */
	snprintf(other, sizeof(other), "%s/roots", f->victim);
	assert_int_equal(unlink(lock), 0);
	close(open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(link(other, lock), 0);
	lock_it(f);
	assert_int_equal(owner_of(other), 0);
	unlink(other);
	unlink(lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(modes_are_made_and_repaired, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_link_in_place_of_drop_is_not_followed, setup, teardown),
	    cmocka_unit_test_setup_teardown(the_lock_is_the_users, setup, teardown),
	};

	return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
