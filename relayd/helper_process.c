/*
 * A forked helper begins as a copy of the daemon. Before it does anything else it lets go of all that the daemon has:
 * after a kill -9 of the daemon, a helper that held on to the spool's lock or to a listening socket would keep both
 * from the next one.
 */
#include "relayd/helper_protocol.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SOCKET_FD = 3, JOURNAL_FD = 4 };

const char *helper_kind_name(enum helper_kind kind)
{
	return kind == HELPER_SYNC ? "sync" : "crypto";
}

/* ---- packets ---- */

int helper_send(int fd, const void *packet, size_t len, int pass_fd)
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
		n = sendmsg(fd, &message, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -1 : 0;
}

ssize_t helper_receive(int fd, void *packet, size_t size, int *passed_fd)
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
		n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return n;
	/* A descriptor that finds no room here (EMFILE) is dropped by the kernel: none came, and that is all. */
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
	    header->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(passed_fd, CMSG_DATA(header), sizeof(int));
	if (message.msg_flags & MSG_TRUNC) {
		if (*passed_fd >= 0)
			close(*passed_fd);
		*passed_fd = -1;
		errno = EMSGSIZE;
		return -1;
	}
	return n;
}

/* ---- the child ---- */

static void close_from(unsigned first)
{
	struct rlimit limit;

	if (syscall(SYS_close_range, first, ~0u, 0u) == 0)
		return;
	/* Before Linux 5.9, or where a container's filter does not know the call. */
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		limit.rlim_cur = 65536;
	for (unsigned fd = first; fd < MIN(limit.rlim_cur, (rlim_t)1024 * 1024); fd++)
		close((int)fd);
}

/* Standard error stays: a helper that finds a bug says so there. False: no descriptors. */
static bool keep_only(int fd, int journal_fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int high = fcntl(fd, F_DUPFD_CLOEXEC, 16), high_journal = -1;

	if (journal_fd >= 0)
		high_journal = fcntl(journal_fd, F_DUPFD_CLOEXEC, 16);
	if (high < 0 || (journal_fd >= 0 && high_journal < 0))
		return false;
	for (int i = 0; i < 2; i++)
		if (null < 0 || dup2(null, i) != i)
			close(i);
	if (dup2(high, SOCKET_FD) != SOCKET_FD)
		return false;
	if (high_journal >= 0 && dup2(high_journal, JOURNAL_FD) != JOURNAL_FD)
		return false;
	close_from(high_journal >= 0 ? JOURNAL_FD + 1 : SOCKET_FD + 1);
	return true;
}

/* Those of the terminal and of the service manager go to the whole group: the daemon decides when it ends, and its end
 * is ours, by the closed socket. */
static void reset_signals(void)
{
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2};
	sigset_t none;

	for (int signo = 1; signo < SIGRTMIN; signo++)
		if (signo != SIGKILL && signo != SIGSTOP)
			signal(signo, SIG_DFL);
	for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
		signal(ignored[i], SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The arguments lie behind each other; what ps shows is that memory. */
static void set_title(enum helper_kind kind, char **argv)
{
	char title[32];
	size_t room;
	int last = 0;

	snprintf(title, sizeof(title), "relayd: %s", helper_kind_name(kind));
	prctl(PR_SET_NAME, title);
	if (!argv || !argv[0])
		return;
	while (argv[last + 1] && argv[last + 1] == argv[last] + strlen(argv[last]) + 1)
		last++;
	room = (size_t)(argv[last] + strlen(argv[last]) - argv[0]);
	memset(argv[0], 0, room);
	memcpy(argv[0], title, MIN(strlen(title), room));
}

/* PDEATHSIG comes after all changes of user, which would clear it; and the daemon may have died before it was set. */
static bool bind_to_parent(pid_t parent)
{
	return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
}

static _Noreturn void live(const struct helper_spawn_options *options, int fd, pid_t parent)
{
	bool is_sync = options->kind == HELPER_SYNC;

	reset_signals();
	if (!bind_to_parent(parent) || !keep_only(fd, is_sync ? options->journal_fd : -1))
		_exit(1);
	set_title(options->kind, options->argv);
	helper_serve(options->kind, SOCKET_FD, is_sync ? JOURNAL_FD : -1, options->config, options->no_seccomp);
}

int helper_spawn(const struct helper_spawn_options *options, pid_t *pid)
{
	pid_t parent = getpid();
	int pair[2], errnum;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return -1;
	*pid = fork();
	if (*pid == 0)
		live(options, pair[1], parent);
	errnum = errno;
	close(pair[1]);
	if (*pid > 0 && fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0)
		return pair[0];
	close(pair[0]);
	errno = errnum;
	return -1;
}
