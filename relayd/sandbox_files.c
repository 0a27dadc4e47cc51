/*
 * Landlock by system call: glibc has no wrappers, and the numbers of newer rights are not in older headers. What a
 * kernel does not know is masked out by its ABI number (Documentation/userspace-api/landlock.rst, "compatibility").
 */
#include "relayd/sandbox_internal.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/landlock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATHS_MAX = 4096 };

#define RIGHT_REFER (1ULL << 13)     /* ABI 2 */
#define RIGHT_TRUNCATE (1ULL << 14)  /* ABI 3 */
#define RIGHT_IOCTL_DEV (1ULL << 15) /* ABI 5 */

#define RIGHTS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
/* Of a file alone; a rule for a file must not name more. */
#define RIGHTS_OF_FILE                                                                                                 \
	(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE | RIGHT_TRUNCATE |  \
	 RIGHT_IOCTL_DEV)
#define RIGHTS_WRITE                                                                                                   \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |              \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | RIGHT_REFER |      \
	 RIGHT_TRUNCATE)
/* Everything of ABI 1, bits 0 to 12: also what we grant to nobody. */
#define RIGHTS_ABI_1 ((1ULL << 13) - 1)

struct sandbox_path {
	char *path;
	bool writable;
};

struct sandbox_paths {
	struct sandbox_path *items;
	size_t count;
};

struct sandbox_paths *sandbox_paths_new(void)
{
	return xcalloc(1, sizeof(struct sandbox_paths));
}

void sandbox_paths_free(struct sandbox_paths **paths)
{
	if (!*paths)
		return;
	for (size_t i = 0; i < (*paths)->count; i++)
		free((*paths)->items[i].path);
	free((*paths)->items);
	free(*paths);
	*paths = NULL;
}

static struct sandbox_path *find(struct sandbox_paths *paths, const char *path)
{
	for (size_t i = 0; i < paths->count; i++)
		if (strcmp(paths->items[i].path, path) == 0)
			return &paths->items[i];
	return NULL;
}

void sandbox_paths_add(struct sandbox_paths *paths, const char *path, bool writable)
{
	struct sandbox_path *known = find(paths, path);

	if (known) {
		known->writable |= writable;
		return;
	}
	if (paths->count == PATHS_MAX)
		return;
	paths->items = xreallocarray(paths->items, paths->count + 1, sizeof(*paths->items));
	paths->items[paths->count++] = (struct sandbox_path){xstrdup(path), writable};
}

static void add_folder_of(struct sandbox_paths *paths, const char *file)
{
	char *copy = xstrdup(file);

	sandbox_paths_add(paths, dirname(copy), false);
	free(copy);
}

void sandbox_paths_add_file(struct sandbox_paths *paths, const char *file)
{
	char resolved[PATH_MAX], *folder;

	add_folder_of(paths, file);
	if (!realpath(file, resolved) || strcmp(resolved, file) == 0)
		return;
	/* Certificates of ACME clients and secrets of Kubernetes are links into a folder that changes: its parent too.
	 */
	add_folder_of(paths, resolved);
	folder = dirname(resolved);
	if (strcmp(dirname(folder), "/") != 0)
		sandbox_paths_add(paths, folder, false);
}

void sandbox_paths_add_config(struct sandbox_paths *paths, const struct config *config)
{
	static const char *const always[] = {"/etc",
					     "/usr",
					     "/lib",
					     "/lib64",
					     "/run",
					     "/proc",
					     "/sys/devices/system/cpu",
					     "/dev/urandom",
					     "/var/lib/ca-certificates"};

	for (size_t i = 0; i < ARRAY_LEN(always); i++)
		sandbox_paths_add(paths, always[i], false);
	sandbox_paths_add(paths, "/dev/null", true);
	sandbox_paths_add(paths, config->spool, true);
	for (size_t i = 0; i < config->files.count; i++)
		sandbox_paths_add_file(paths, config->files.items[i]);
}

/* ---- the kernel's side ---- */

struct ruleset_attr {
	uint64_t handled_access_fs;
};

static int create_ruleset(const struct ruleset_attr *attr, size_t size, uint32_t flags)
{
	long rc = syscall(SYS_landlock_create_ruleset, attr, size, flags);

	return rc < 0 ? -errno : (int)rc;
}

static uint64_t rights_of_abi(int abi)
{
	uint64_t rights = RIGHTS_ABI_1;

	if (abi >= 2)
		rights |= RIGHT_REFER;
	if (abi >= 3)
		rights |= RIGHT_TRUNCATE;
	if (abi >= 5)
		rights |= RIGHT_IOCTL_DEV;
	return rights;
}

/* A path that is not there needs no right. */
static int add_rule(int ruleset, const struct sandbox_path *item, uint64_t handled)
{
	struct landlock_path_beneath_attr rule = {.allowed_access = RIGHTS_READ | (item->writable ? RIGHTS_WRITE : 0)};
	struct stat st;
	long rc = 0;

	rule.parent_fd = open(item->path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return 0;
	if (fstat(rule.parent_fd, &st) == 0 && !S_ISDIR(st.st_mode))
		rule.allowed_access &= RIGHTS_OF_FILE;
	rule.allowed_access &= handled;
	rc = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	if (rc < 0)
		rc = -errno;
	close(rule.parent_fd);
	return (int)rc;
}

int sandbox_restrict_files(const struct sandbox_paths *paths, int *abi)
{
	struct ruleset_attr attr;
	int ruleset, rc = 0;

	*abi = create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (*abi < 0)
		return *abi;
	attr.handled_access_fs = rights_of_abi(*abi);
	ruleset = create_ruleset(&attr, sizeof(attr), 0);
	if (ruleset < 0)
		return ruleset;
	for (size_t i = 0; rc == 0 && i < paths->count; i++)
		rc = add_rule(ruleset, &paths->items[i], attr.handled_access_fs);
	if (rc == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		rc = -errno;
	close(ruleset);
	return rc;
}
