/* What is given up is gone: each test does it in a child, which tries what it should not be able to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOBODY = 65534 };

static char top[64]; /* of the test: open/, shut/, each with a file */

/* In the child: 0 means all is as it should be, else the line that is not. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			return __LINE__;                                                                               \
	} while (0)

static void assert_child(int (*body)(void))
{
	int pipes[2], line = -1, status;
	pid_t pid;

	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		line = body();
		if (write(pipes[1], &line, sizeof(line)) != sizeof(line))
			_exit(2);
		_exit(0);
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &line, sizeof(line)), sizeof(line));
	close(pipes[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (line != 0)
		print_error("line %d of the child\n", line);
	assert_int_equal(line, 0);
	assert_int_equal(status, 0);
}

static const char *in_top(const char *name)
{
	static char paths[4][256];
	static unsigned next;
	char *path = paths[next++ % ARRAY_LEN(paths)];

	snprintf(path, sizeof(paths[0]), "%s/%s", top, name);
	return path;
}

static void make_file(const char *name)
{
	int fd = open(in_top(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
}

static int group_setup(void **state)
{
	(void)state;
	snprintf(top, sizeof(top), "/tmp/relayd-sandbox-XXXXXX");
	assert_non_null(mkdtemp(top));
	assert_int_equal(chmod(top, 0755), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(mkdir(in_top((const char *[]){"open", "shut", "seen"}[i]), 0777), 0);
	make_file("open/file");
	make_file("shut/file");
	make_file("seen/real");
	assert_int_equal(symlink(in_top("seen/real"), in_top("shut/link")), 0);
	return 0;
}

static int group_teardown(void **state)
{
	static const char *const names[] = {"open/file", "open/new",  "open/dir", "open/s", "shut/file",
					    "shut/link", "seen/real", "open",	  "shut",   "seen"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		remove(in_top(names[i]));
	return rmdir(top);
}

static bool can_open(const char *name, int flags)
{
	int fd = open(in_top(name), flags | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* ---- the user ---- */

static int drop_to_nobody(void)
{
	gid_t groups[8];
	struct err err;

	CHECK(sandbox_drop_user(NULL, NOBODY, NOBODY, NULL, 0, &err) == 0);
	CHECK(geteuid() == NOBODY && getuid() == NOBODY && getegid() == NOBODY);
	CHECK(getgroups(8, groups) == 1 && groups[0] == NOBODY);
	CHECK(setuid(0) != 0 && setgid(0) != 0);
	CHECK(sandbox_drop_user(NULL, NOBODY, NOBODY, NULL, 0, &err) == 0); /* that is who we are */
	CHECK(sandbox_drop_user(NULL, 1, 1, NULL, 0, &err) == ERR_PERMISSION);
	return 0;
}

static int drop_with_groups(void)
{
	const gid_t more[] = {4242};
	gid_t groups[64];
	bool found = false;
	int count;

	CHECK(sandbox_drop_user("nobody", NOBODY, NOBODY, more, 1, NULL) == 0);
	count = getgroups(64, groups);
	for (int i = 0; i < count; i++)
		found |= groups[i] == 4242;
	CHECK(found);
	return 0;
}

/* K11 */
static void root_becomes_somebody_for_good(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	assert_child(drop_to_nobody);
	assert_child(drop_with_groups);
}

/* ---- files ---- */

static int enter_files(void)
{
	struct sandbox_paths *paths = sandbox_paths_new();
	struct sandbox_options options = {.role = SANDBOX_DAEMON, .paths = paths, .no_seccomp = true};
	struct sandbox_report report;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener, folder;

	sandbox_paths_add(paths, in_top("open"), true);
	sandbox_paths_add(paths, "/dev/null", true);
	sandbox_paths_add(paths, in_top("not there"), true);
	sandbox_paths_add_file(paths, in_top("shut/link"));
	sandbox_enter(&options, &report);
	sandbox_paths_free(&paths);
	if (!report.landlock)
		return strstr(report.text, "no Landlock: ") ? 0 : __LINE__;
	CHECK(strstr(report.text, "files by Landlock (ABI "));
	CHECK(can_open("open/file", O_RDWR | O_TRUNC));
	CHECK(can_open("open/new", O_RDWR | O_CREAT | O_EXCL));
	CHECK(rename(in_top("open/new"), in_top("open/file")) == 0);
	CHECK(mkdir(in_top("open/dir"), 0700) == 0 && rmdir(in_top("open/dir")) == 0);
	CHECK(can_open("shut/link", O_RDONLY)); /* its folder, and where it leads to */
	CHECK(can_open("seen/real", O_RDONLY));
	CHECK(!can_open("shut/file", O_WRONLY) && errno == EACCES);
	CHECK(!can_open("seen/real", O_WRONLY) && errno == EACCES);
	CHECK(unlink(in_top("seen/real")) != 0 && errno == EACCES);
	CHECK(open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
	CHECK(open("/dev/null", O_RDWR | O_CLOEXEC) >= 0);
	/* Sockets in the spool, through the descriptor of the folder. */
	folder = open(in_top("open"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/s", folder);
	CHECK(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0);
	CHECK(unlinkat(folder, "s", 0) == 0);
	return 0;
}

static void only_named_paths_stay_open(void **state)
{
	(void)state;
	assert_child(enter_files);
}

static int enter_config(void)
{
	const char *files[] = {in_top("shut/link")};
	struct config config = {.spool = in_top("open"), .files = {1, files}};
	struct sandbox_paths *paths = sandbox_paths_new();
	struct sandbox_options options = {.role = SANDBOX_DAEMON, .paths = paths, .no_seccomp = true};
	struct sandbox_report report;

	sandbox_paths_add_config(paths, &config);
	sandbox_enter(&options, &report);
	sandbox_paths_free(&paths);
	if (!report.landlock)
		return 0;
	CHECK(open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC) >= 0 || errno == ENOENT);
	CHECK(open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0);
	CHECK(open("/proc/self/status", O_RDONLY | O_CLOEXEC) >= 0);
	CHECK(can_open("open/file", O_RDWR));
	CHECK(can_open("shut/link", O_RDONLY));
	CHECK(!can_open("shut/file", O_RDWR));
	CHECK(open("/root", O_RDONLY | O_CLOEXEC) < 0);
	return 0;
}

static void a_configuration_names_what_the_daemon_needs(void **state)
{
	(void)state;
	assert_child(enter_config);
}

/* ---- system calls ---- */

static int enter_daemon(void)
{
	struct sandbox_options options = {.role = SANDBOX_DAEMON};
	char *const arguments[] = {"true", NULL};
	struct sandbox_report report;
	struct rlimit core;
	int status;
	pid_t pid;

	sandbox_enter(&options, &report);
	CHECK(report.no_new_privs && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	CHECK(report.no_core && prctl(PR_GET_DUMPABLE) == 0);
	CHECK(getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_max == 0);
	CHECK(strstr(report.text, "Landlock off"));
	if (!report.seccomp)
		return sandbox_is_sanitized() || strstr(report.text, "no seccomp") ? 0 : __LINE__;
	CHECK(execve("/bin/true", arguments, NULL) < 0 && errno == EPERM);
	CHECK(chroot("/") < 0 && errno == EPERM);
	/* A user namespace has all privileges within. The kernel itself would say EINVAL to both of these. */
	CHECK(syscall(SYS_clone, CLONE_NEWUSER | CLONE_FS | SIGCHLD, NULL, NULL, NULL, 0) < 0 && errno == EPERM);
	CHECK(syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS);
	CHECK(ioctl(STDERR_FILENO, TIOCSTI, "x") < 0 && errno == EPERM);
	CHECK(ioctl(STDERR_FILENO, FIONREAD, &status) == 0 || errno != EPERM);
	CHECK(can_open("open/file", O_RDWR));
	CHECK(socket(AF_INET, SOCK_STREAM, 0) >= 0);
	pid = fork(); /* helpers are forked later, with a filter of their own */
	if (pid == 0) {
		options.role = SANDBOX_SYNC;
		sandbox_enter(&options, &report);
		_exit(report.seccomp ? 7 : 8);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
	return 0;
}

/* K11 */
static void a_daemon_starts_no_programs(void **state)
{
	(void)state;
	assert_child(enter_daemon);
}

static int enter_crypto(void)
{
	struct sandbox_options options = {.role = SANDBOX_CRYPTO};
	struct sandbox_report report;
	char *memory;
	int pair[2];
	char byte;

	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	sandbox_enter(&options, &report);
	if (!report.seccomp)
		return 0;
	CHECK(strstr(report.text, "allowed)"));
	memory = malloc(64 * 1024 * 1024);
	CHECK(memory);
	free(memory);
	CHECK(send(pair[0], "x", 1, 0) == 1 && recv(pair[1], &byte, 1, 0) == 1);
	CHECK(open("/etc/passwd", O_RDONLY) < 0 && errno == ENOSYS);
	CHECK(socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == ENOSYS);
	CHECK(fork() < 0 && errno == ENOSYS);
	CHECK(unlink(in_top("open/file")) < 0);
	return 0;
}

static void a_crypto_helper_computes_and_nothing_else(void **state)
{
	(void)state;
	assert_child(enter_crypto);
}

static int enter_sync(void)
{
	struct sandbox_options options = {.role = SANDBOX_SYNC};
	int folder = open(in_top("open"), O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;
	struct sandbox_report report;

	sandbox_enter(&options, &report);
	if (!report.seccomp)
		return 0;
	fd = openat(folder, "new", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK(posix_fallocate(fd, 0, 8192) == 0);
	CHECK(fdatasync(fd) == 0 && fsync(folder) == 0);
	CHECK(close(fd) == 0 && unlinkat(folder, "new", 0) == 0);
	CHECK(socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == ENOSYS);
	CHECK(fork() < 0);
	return 0;
}

static void a_sync_helper_works_on_files_alone(void **state)
{
	(void)state;
	assert_child(enter_sync);
}

static int enter_switched_off(void)
{
	struct sandbox_options options = {
	    .role = SANDBOX_CRYPTO, .no_landlock = true, .no_seccomp = true, .dumpable = true};
	struct sandbox_report report;

	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
	sandbox_enter(&options, &report);
	CHECK(!report.seccomp && !report.landlock);
	CHECK(prctl(PR_GET_DUMPABLE) == 1);
	CHECK(can_open("open/file", O_RDONLY));
	CHECK(strstr(report.text, "Landlock off, seccomp off"));
	return 0;
}

static void switches_leave_it_off(void **state)
{
	(void)state;
	assert_child(enter_switched_off);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(root_becomes_somebody_for_good),
	    cmocka_unit_test(only_named_paths_stay_open),
	    cmocka_unit_test(a_configuration_names_what_the_daemon_needs),
	    cmocka_unit_test(a_daemon_starts_no_programs),
	    cmocka_unit_test(a_crypto_helper_computes_and_nothing_else),
	    cmocka_unit_test(a_sync_helper_works_on_files_alone),
	    cmocka_unit_test(switches_leave_it_off),
	};
	return cmocka_run_group_tests_name("sandbox", tests, group_setup, group_teardown);
}
