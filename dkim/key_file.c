/* Private keys as files. */
#include "dkim/key.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The words of `inner` behind the path. */
static int with_path(const char *path, const struct err *inner, struct err *err)
{
	return err_set(err, inner->code, "%s: %s", path, inner->text);
}

static int read_all(int fd, struct buf *text)
{
	for (;;) {
		char *at = buf_reserve(text, 4096);
		ssize_t n;
		if (!at)
			return ERR_LIMIT;
		n = read(fd, at, 4096);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? ERR_IO : 0;
		buf_commit(text, (size_t)n);
	}
}

/* Allocated once, at its full size, so that no copy of a secret stays behind in a block that was outgrown. */
static void secret_init(struct buf *text)
{
	buf_init(text, DKIM_KEY_FILE_MAX_BYTES + 4096);
	BUG_ON(!buf_reserve(text, DKIM_KEY_FILE_MAX_BYTES + 4096));
}

static void secret_fini(struct buf *text)
{
	sodium_memzero(text->data, text->cap);
	buf_fini(text);
}

static int load_open_file(int fd, const char *path, const struct stat *st, struct dkim_key **key, struct err *err)
{
	struct buf text;
	struct err inner;
	int rc;

	secret_init(&text);
	rc = read_all(fd, &text);
	if (rc == ERR_IO)
		err_set_errno(err, "%s", path);
	else if (rc == ERR_LIMIT)
		err_set(err, ERR_LIMIT, "%s: too large for a private key", path);
	else {
		rc = dkim_key_load(buf_slice(&text), key, &inner);
		if (rc < 0)
			with_path(path, &inner, err);
		else if (st->st_mode & (S_IROTH | S_IWOTH))
			dkim_key_add_warning(*key, DKIM_KEY_WORLD_READABLE);
	}
	secret_fini(&text);
	return rc;
}

int dkim_key_load_file(const char *path, struct dkim_key **key, struct err *err)
{
	/* O_NONBLOCK: a FIFO must not stop us. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int rc;

	if (fd < 0)
		return err_set_errno(err, "%s", path);
	if (fstat(fd, &st) < 0)
		rc = err_set_errno(err, "%s", path);
	else if (!S_ISREG(st.st_mode))
		rc = err_set(err, ERR_UNSUPPORTED, "%s: not a regular file", path);
	else
		rc = load_open_file(fd, path, &st, key, err);
	close(fd);
	return rc;
}

static int write_all(int fd, struct slice bytes)
{
	while (bytes.len > 0) {
		ssize_t n = write(fd, bytes.ptr, bytes.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		bytes = slice_from(bytes, (size_t)n);
	}
	return 0;
}

static int sync_folder(const char *path)
{
	char *folder = xstrdup(path);
	char *slash = strrchr(folder, '/');
	int fd, rc;

	if (slash)
		slash[slash == folder] = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(folder);
	if (fd < 0)
		return -1;
	rc = fsync(fd);
	close(fd);
	return rc;
}

/* link() and not rename(): it refuses to replace what is there. */
static int write_under(const char *temporary, const char *path, mode_t mode, struct slice text, struct err *err)
{
	int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int rc = 0;

	if (fd < 0)
		return err_set_errno(err, "cannot write %s", path);
	if (write_all(fd, text) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0)
		rc = err_set_errno(err, "cannot write %s", path);
	else if (link(temporary, path) < 0)
		rc = err_set_errno(err, "%s", path);
	close(fd);
	unlink(temporary);
	if (rc == 0 && sync_folder(path) < 0)
		rc = err_set_errno(err, "%s: cannot sync its folder", path);
	return rc;
}

int dkim_key_write_file(struct dkim_key *key, const char *path, mode_t mode, struct err *err)
{
	size_t size = strlen(path) + 32;
	char *temporary = xmalloc(size);
	struct buf text;
	int rc;

	snprintf(temporary, size, "%s.%08x.new", path, randombytes_random());
	secret_init(&text);
	rc = dkim_key_export(key, &text, err);
	if (rc == 0)
		rc = write_under(temporary, path, mode, buf_slice(&text), err);
	secret_fini(&text);
	free(temporary);
	return rc;
}
