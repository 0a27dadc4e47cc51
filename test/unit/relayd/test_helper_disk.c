/* The helper that syncs: what it is asked, and what is told when it cannot or dies. */
#include "support_helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void the_disk_is_served(void **state)
{
	struct rig *f = *state;
	struct stat st;
	int fd;

	f->disk->prepare(f->disk->ctx, "seg", 8192, 5);
	assert_int_equal(f->disk_answers, 0);
	assert_int_equal(helpers_disk_pending(f->helpers), 1);
	rig_turn_until(f, &f->disk_answers, 1);
	assert_int_equal(f->done.token, 5);
	assert_int_equal(f->done.result, 0);
	fd = f->done.fd;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 8192);
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);

	f->disk->prepare(f->disk->ctx, "seg", 8192, 6);
	rig_turn_until(f, &f->disk_answers, 2);
	assert_int_equal(f->done.result, -EEXIST);
	assert_int_equal(f->done.fd, -1);

	f->disk->sync(f->disk->ctx, fd, 7);
	f->disk->sync(f->disk->ctx, f->folder, 8);
	rig_turn_until(f, &f->disk_answers, 4);
	assert_int_equal(f->done.token, 8);
	assert_int_equal(f->done.result, 0);

	f->disk->discard(f->disk->ctx, "seg", fd);
	f->disk->sync(f->disk->ctx, f->folder, 9);
	rig_turn_until(f, &f->disk_answers, 5); /* discarding has no answer, but its turn */
	assert_int_equal(f->done.token, 9);
	assert_int_equal(helpers_disk_pending(f->helpers), 0);
	assert_int_equal(faccessat(f->folder, "seg", F_OK, 0), -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_sync_that_cannot_be_is_told(void **state)
{
	struct rig *f = *state;

	f->disk->sync(f->disk->ctx, -1, 1);
	rig_turn_until(f, &f->disk_answers, 1);
	assert_int_equal(f->done.result, -EBADF);
}

static void a_sync_whose_helper_dies_is_told_so_and_not_repeated(void **state)
{
	struct rig *f = *state;

	rig_signal_all(SYNC, SIGSTOP);
	f->disk->sync(f->disk->ctx, f->folder, 1);
	f->disk->sync(f->disk->ctx, f->folder, 2);
	f->prepare_on_death = true; /* as the journal does: it wants a new segment at once */
	rig_signal_all(SYNC, SIGKILL);
	rig_turn_until(f, &f->disk_answers, 3);
	assert_int_equal(f->done.token, 77);
	assert_int_equal(f->done.result, 0);
	close(f->done.fd);
	assert_int_equal(unlinkat(f->folder, "next", 0), 0);
	assert_int_equal(helpers_disk_pending(f->helpers), 0);
	assert_int_equal(helpers_count(f->helpers).replaced, 1);
	rig_find_one(SYNC);
}

static void a_preparation_without_a_descriptor_left_frees_the_name(void **state)
{
	struct rig *f = *state;
	struct rlimit limit, low;
	int probe = fcntl(0, F_DUPFD_CLOEXEC, 0);

	close(probe);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	low = (struct rlimit){(rlim_t)probe, limit.rlim_max};
	f->disk->prepare(f->disk->ctx, "seg", 4096, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	rig_turn_until(f, &f->disk_answers, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(f->done.result, -EMFILE);
	assert_int_equal(f->done.fd, -1);
	f->disk->prepare(f->disk->ctx, "seg", 4096, 2);
	rig_turn_until(f, &f->disk_answers, 2);
	assert_int_equal(f->done.result, 0);
	close(f->done.fd);
	unlinkat(f->folder, "seg", 0);
}

/* More than the socket holds at a time; the helper is stopped meanwhile. */
static void many_discards_wait_for_room(void **state)
{
	enum { FILES = 600 };
	struct rig *f = *state;
	char name[16];

	rig_signal_all(SYNC, SIGSTOP);
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		int fd = openat(f->folder, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		close(fd);
		f->disk->discard(f->disk->ctx, name, -1);
	}
	f->disk->sync(f->disk->ctx, f->folder, 1);
	assert_int_equal(helpers_disk_pending(f->helpers), FILES + 1);
	rig_signal_all(SYNC, SIGCONT);
	rig_turn_until(f, &f->disk_answers, 1);
	assert_int_equal(f->done.result, 0);
	assert_int_equal(helpers_disk_pending(f->helpers), 0);
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		assert_int_equal(faccessat(f->folder, name, F_OK, 0), -1);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
#define TEST_INLINE(name) {#name "_inline", name, rig_setup_inline, rig_teardown, NULL}
	    TEST(the_disk_is_served),
	    TEST_INLINE(the_disk_is_served),
	    TEST(a_sync_that_cannot_be_is_told),
	    TEST_INLINE(a_sync_that_cannot_be_is_told),
	    TEST(a_sync_whose_helper_dies_is_told_so_and_not_repeated),
	    TEST(a_preparation_without_a_descriptor_left_frees_the_name),
	    TEST(many_discards_wait_for_room),
	};
	return cmocka_run_group_tests_name("helpers, disk", tests, rig_group_setup, rig_group_teardown);
}
