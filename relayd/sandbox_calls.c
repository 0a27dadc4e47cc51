/*
 * The daemon gets a list of what is forbidden: its libraries may do this and that in versions to come, and a relay that
 * stops working after an update is worse than one more harmless call. The helpers do little, and get a list of what is
 * allowed; anything else looks as if the kernel did not have it (ENOSYS), which is what libraries fall back on.
 */
#include "relayd/sandbox_internal.h"

#include "base/base.h"

#include <errno.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>

/* Which argument of clone(2) has the flags. */
#ifdef __s390__
enum { CLONE_FLAGS_ARGUMENT = 1 };
#else
enum { CLONE_FLAGS_ARGUMENT = 0 };
#endif

/* To start programs, to look into other processes, to change the machine, and large interfaces with a history. */
static const char *const forbidden[] = {
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "kcmp",
    "pidfd_getfd",
    "mount",
    "umount",
    "umount2",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "open_tree",
    "mount_setattr",
    "pivot_root",
    "chroot",
    "setns",
    "unshare",
    "bpf",
    "perf_event_open",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "create_module",
    "reboot",
    "swapon",
    "swapoff",
    "add_key",
    "request_key",
    "keyctl",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "personality",
    "acct",
    "quotactl",
    "quotactl_fd",
    "iopl",
    "ioperm",
    "open_by_handle_at",
    "name_to_handle_at",
    "modify_ldt",
    "lookup_dcookie",
    "nfsservctl",
    "syslog",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "stime",
    "sethostname",
    "setdomainname",
    "vhangup",
    "migrate_pages",
    "move_pages",
    "fanotify_init",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setgroups",
    "setfsuid",
    "setfsgid",
    "vmsplice",
    "mknod",
    "mknodat",
};

/* To wait for requests, compute, answer, and end; abort() and malloc() included. */
static const char *const common[] = {
    "read",
    "write",
    "recvmsg",
    "sendmsg",
    "recvfrom",
    "sendto",
    "close",
    "poll",
    "ppoll",
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "mlock",
    "mlock2",
    "munlock",
    "futex",
    "futex_time64",
    "getrandom",
    "clock_gettime",
    "clock_gettime64",
    "gettimeofday",
    "nanosleep",
    "clock_nanosleep",
    "sched_yield",
    "getpid",
    "gettid",
    "getppid",
    "tgkill",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "exit",
    "exit_group",
    "restart_syscall",
    "fstat",
    "newfstatat",
    "fcntl",
    "writev",
};

/* disk_do_sync(), disk_do_prepare(), disk_do_discard(); posix_fallocate() writes where a file system cannot allocate.
 */
static const char *const disk[] = {
    "openat",	 "unlinkat", "unlink",	 "fsync",   "fdatasync", "fallocate",
    "ftruncate", "pread64",  "pwrite64", "fstatfs", "fstat64",	 "statx",
};

/* A name that this machine does not have is passed over. */
static unsigned add_calls(scmp_filter_ctx filter, uint32_t action, const char *const *names, size_t count)
{
	unsigned added = 0;

	for (size_t i = 0; i < count; i++) {
		int number = seccomp_syscall_resolve_name(names[i]);
		if (number >= 0 && seccomp_rule_add(filter, action, number, 0) == 0)
			added++;
	}
	return added;
}

/* Whoever makes a user namespace has all privileges in it, and so much more of the kernel to attack. The flags of
 * clone3() lie in memory, where no filter sees them: it must look absent, and the library goes back to clone(). */
static unsigned forbid_namespaces(scmp_filter_ctx filter)
{
	static const uint64_t flags[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID,   CLONE_NEWNET,
					 CLONE_NEWIPC,	CLONE_NEWUTS, CLONE_NEWCGROUP};
	unsigned added = 0;

	for (size_t i = 0; i < ARRAY_LEN(flags); i++)
		added += seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
					  SCMP_CMP(CLONE_FLAGS_ARGUMENT, SCMP_CMP_MASKED_EQ, flags[i], flags[i])) == 0;
	return (added > 0) + (seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0);
}

/* To type on the terminal that the daemon was started from: the kernel looks at 32 bits of the number alone. */
static unsigned forbid_typing(scmp_filter_ctx filter)
{
	static const uint64_t numbers[] = {TIOCSTI, TIOCLINUX};
	unsigned added = 0;

	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		added += seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
					  SCMP_CMP(1, SCMP_CMP_MASKED_EQ, UINT32_MAX, numbers[i])) == 0;
	return added > 0;
}

static void fill(scmp_filter_ctx filter, enum sandbox_role role, unsigned *count)
{
	if (role == SANDBOX_DAEMON) {
		*count = add_calls(filter, SCMP_ACT_ERRNO(EPERM), forbidden, ARRAY_LEN(forbidden));
		*count += forbid_namespaces(filter) + forbid_typing(filter);
		return;
	}
	*count = add_calls(filter, SCMP_ACT_ALLOW, common, ARRAY_LEN(common));
	if (role == SANDBOX_SYNC)
		*count += add_calls(filter, SCMP_ACT_ALLOW, disk, ARRAY_LEN(disk));
}

int sandbox_restrict_calls(enum sandbox_role role, unsigned *count)
{
	scmp_filter_ctx filter = seccomp_init(role == SANDBOX_DAEMON ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(ENOSYS));
	int rc;

	if (!filter)
		return -ENOMEM;
	/* no_new_privs is set by sandbox_enter(); where that failed, root may load a filter all the same. */
	seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0);
	seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
	fill(filter, role, count);
	rc = seccomp_load(filter);
	seccomp_release(filter);
	return rc;
}
