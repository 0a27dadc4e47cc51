/*
 * The real disk. Files are found below directory descriptors that are opened once, so that nothing depends on the
 * working directory, and never through links: the spool may lie where others can write.
 */
#include "queue/disk.h"

#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

struct done_node {
	struct disk_done done;
	struct done_node *next;
};

struct disk_real {
	struct disk disk; /* first */
	int dir_fd[DISK_AREA_COUNT];
	bool has_async, read_only;
	struct disk_async async;
	struct done_node *first, **last; /* inline: what has ended and was not yet asked for */
};

static const char *const area_names[DISK_AREA_COUNT] = {"journal", "quarantine"};

static struct disk_real *real_of(struct disk *disk)
{
	return CONTAINER_OF(disk, struct disk_real, disk);
}

static int real_list(struct disk *disk, enum disk_area area, disk_list_cb *cb, void *ctx)
{
	int fd = openat(real_of(disk)->dir_fd[area], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	int rc = 0;

	if (!dir) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		return rc;
	}
	while (rc == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = cb(ctx, entry->d_name);
	}
	if (rc == 0 && errno != 0)
		rc = -errno;
	closedir(dir);
	return rc;
}

/* O_NONBLOCK: opening a FIFO must not wait for its other end. */
static int real_open(struct disk *disk, enum disk_area area, const char *name, int *fd, uint64_t *size)
{
	int mode = real_of(disk)->read_only ? O_RDONLY : O_RDWR;
	int opened = openat(real_of(disk)->dir_fd[area], name, mode | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	int rc = 0;

	if (opened < 0)
		return errno == ELOOP || errno == EISDIR || errno == ENXIO ? -EINVAL : -errno;
	if (fstat(opened, &st) < 0)
		rc = -errno;
	else if (!S_ISREG(st.st_mode))
		rc = -EINVAL;
	else if (st.st_nlink > 1 && !real_of(disk)->read_only)
		rc = -EMLINK;
	if (rc < 0) {
		close(opened);
		return rc;
	}
	*fd = opened;
	*size = (uint64_t)st.st_size;
	return 0;
}

static int create_allocated(int dir_fd, const char *name, uint64_t size, int *fd)
{
	int opened = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int rc = 0;

	if (opened < 0)
		return -errno;
	if (size > 0) {
		do
			rc = posix_fallocate(opened, 0, (off_t)size);
		while (rc == EINTR);
	}
	if (rc != 0) {
		unlinkat(dir_fd, name, 0);
		close(opened);
		return -rc;
	}
	*fd = opened;
	return 0;
}

static int real_create(struct disk *disk, enum disk_area area, const char *name, uint64_t size, int *fd)
{
	return create_allocated(real_of(disk)->dir_fd[area], name, size, fd);
}

static int real_unlink(struct disk *disk, enum disk_area area, const char *name)
{
	return unlinkat(real_of(disk)->dir_fd[area], name, 0) < 0 ? -errno : 0;
}

static ssize_t real_read(struct disk *disk, int fd, void *out, size_t len, uint64_t offset)
{
	size_t got = 0;

	(void)disk;
	while (got < len) {
		ssize_t n = pread(fd, (char *)out + got, len - got, (off_t)(offset + got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static int real_write(struct disk *disk, int fd, const void *bytes, size_t len, uint64_t offset)
{
	size_t put = 0;

	(void)disk;
	while (put < len) {
		ssize_t n = pwrite(fd, (const char *)bytes + put, len - put, (off_t)(offset + put));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		put += (size_t)n;
	}
	return 0;
}

static int real_truncate(struct disk *disk, int fd, uint64_t size)
{
	(void)disk;
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static void real_close(struct disk *disk, int fd)
{
	(void)disk;
	close(fd);
}

static int real_free_bytes(struct disk *disk, uint64_t *bytes)
{
	struct statvfs st;

	if (fstatvfs(real_of(disk)->dir_fd[DISK_JOURNAL], &st) < 0)
		return -errno;
	*bytes = (uint64_t)st.f_bavail * st.f_frsize;
	return 0;
}

static int real_sync_now(struct disk *disk, int fd)
{
	(void)disk;
	return disk_do_sync(fd);
}

static int real_sync_dir(struct disk *disk, enum disk_area area)
{
	return fsync(real_of(disk)->dir_fd[area]) < 0 ? -errno : 0;
}

static int real_area_fd(struct disk *disk, enum disk_area area)
{
	return real_of(disk)->dir_fd[area];
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static void post_done(struct disk_real *real, struct disk_done done)
{
	struct done_node *node = xcalloc(1, sizeof(*node));

	node->done = done;
	*real->last = node;
	real->last = &node->next;
}

static void real_sync(struct disk *disk, int fd, uint64_t token)
{
	struct disk_real *real = real_of(disk);
	uint64_t began = now_us();
	int rc;

	if (real->has_async) {
		real->async.sync(real->async.ctx, fd, token);
		return;
	}
	rc = disk_do_sync(fd);
	post_done(real, (struct disk_done){token, rc, -1, (uint32_t)(now_us() - began)});
}

static void real_prepare(struct disk *disk, const char *name, uint64_t size, uint64_t token)
{
	struct disk_real *real = real_of(disk);
	uint64_t began = now_us();
	int fd = -1, rc;

	if (real->has_async) {
		real->async.prepare(real->async.ctx, name, size, token);
		return;
	}
	rc = disk_do_prepare(real->dir_fd[DISK_JOURNAL], name, size, &fd);
	post_done(real, (struct disk_done){token, rc, fd, (uint32_t)(now_us() - began)});
}

static void real_discard(struct disk *disk, const char *name, int fd)
{
	struct disk_real *real = real_of(disk);

	if (real->has_async)
		real->async.discard(real->async.ctx, name, fd);
	else
		disk_do_discard(real->dir_fd[DISK_JOURNAL], name, fd);
}

static bool real_next_done(struct disk *disk, struct disk_done *done)
{
	struct disk_real *real = real_of(disk);
	struct done_node *node = real->first;

	if (!node)
		return false;
	*done = node->done;
	real->first = node->next;
	if (!real->first)
		real->last = &real->first;
	free(node);
	return true;
}

static int open_area(int spool_fd, const char *name, struct err *err)
{
	int fd;

	if (mkdirat(spool_fd, name, 0700) == 0) {
		if (fsync(spool_fd) < 0)
			return err_set_errno(err, "cannot sync the spool after creating %s", name);
	} else if (errno != EEXIST) {
		return err_set_errno(err, "cannot create %s in the spool", name);
	}
	fd = openat(spool_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_set_errno(err, "cannot open %s in the spool", name);
	return fd;
}

int disk_open_journal_dir(int spool_fd, struct err *err)
{
	return open_area(spool_fd, area_names[DISK_JOURNAL], err);
}

static bool overwrites_in_place(int fd)
{
	struct statfs st;

	return fstatfs(fd, &st) == 0 && (st.f_type == EXT4_SUPER_MAGIC || st.f_type == XFS_SUPER_MAGIC);
}

static const struct disk real_operations = {
    .list = real_list,
    .open = real_open,
    .create = real_create,
    .unlink = real_unlink,
    .read = real_read,
    .write = real_write,
    .truncate = real_truncate,
    .close = real_close,
    .free_bytes = real_free_bytes,
    .sync_now = real_sync_now,
    .sync_dir = real_sync_dir,
    .sync = real_sync,
    .area_fd = real_area_fd,
    .prepare = real_prepare,
    .discard = real_discard,
    .next_done = real_next_done,
};

static struct disk_real *real_alloc(void)
{
	struct disk_real *real = xcalloc(1, sizeof(*real));

	real->disk = real_operations;
	real->last = &real->first;
	for (int area = 0; area < DISK_AREA_COUNT; area++)
		real->dir_fd[area] = -1;
	return real;
}

struct disk *disk_real_new_readonly(int spool_fd, struct err *err)
{
	struct disk_real *real = real_alloc();
	struct disk *disk = &real->disk;

	real->read_only = true;
	for (int area = 0; area < DISK_AREA_COUNT; area++)
		real->dir_fd[area] =
		    openat(spool_fd, area_names[area], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (real->dir_fd[DISK_JOURNAL] < 0) {
		err_set_errno(err, "cannot open journal in the spool");
		disk_real_free(&disk);
	}
	return disk;
}

struct disk *disk_real_new(int spool_fd, const struct disk_async *async, struct err *err)
{
	struct disk_real *real = real_alloc();
	struct disk *disk = &real->disk;

	if (async) {
		real->has_async = true;
		real->async = *async;
	}
	for (int area = 0; area < DISK_AREA_COUNT; area++) {
		real->dir_fd[area] = open_area(spool_fd, area_names[area], err);
		if (real->dir_fd[area] < 0) {
			disk_real_free(&disk);
			return NULL;
		}
	}
	disk->overwrites_in_place = overwrites_in_place(real->dir_fd[DISK_JOURNAL]);
	return disk;
}

void disk_real_free(struct disk **disk)
{
	struct disk_real *real;
	struct disk_done done;

	if (!*disk)
		return;
	real = real_of(*disk);
	while (real_next_done(*disk, &done))
		if (done.fd >= 0)
			close(done.fd);
	for (int area = 0; area < DISK_AREA_COUNT; area++)
		if (real->dir_fd[area] >= 0)
			close(real->dir_fd[area]);
	free(real);
	*disk = NULL;
}

int disk_real_journal_fd(const struct disk *disk)
{
	return real_of((struct disk *)disk)->dir_fd[DISK_JOURNAL];
}

static bool is_directory(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

int disk_do_sync(int fd)
{
	/* The names in a directory are no data to ext4: its fdatasync() may leave them out. */
	int rc = is_directory(fd) ? fsync(fd) : fdatasync(fd);

	/* Not even EINTR is tried again: what a sync left undone is only known to the one who begins a new file. */
	return rc < 0 ? -errno : 0;
}

int disk_do_prepare(int journal_fd, const char *name, uint64_t size, int *fd)
{
	int rc = create_allocated(journal_fd, name, size, fd);

	if (rc < 0)
		return rc;
	if (fsync(*fd) < 0 || fsync(journal_fd) < 0) {
		rc = -errno;
		unlinkat(journal_fd, name, 0);
		close(*fd);
		*fd = -1;
	}
	return rc;
}

void disk_do_discard(int journal_fd, const char *name, int fd)
{
	unlinkat(journal_fd, name, 0);
	if (fd >= 0)
		close(fd);
}
