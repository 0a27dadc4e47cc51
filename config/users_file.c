/*
 * Changing the users file: always a whole new file that takes the place of the old one, so that a reader sees the old
 * or the new one, and a crash leaves one of them. The folder is locked meanwhile, since the file itself is replaced.
 */
#include "config/users_file.h"

#include "base/base.h"
#include "config/users.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARGON2_PASSES 2
#define ARGON2_MEMORY_BYTES (19 * 1024 * 1024)

static int read_fd(int fd, struct buf *text, struct err *err)
{
	ssize_t n = 1;

	while (n != 0) {
		char *at;
		if (buf_room(text) < 4096)
			return err_set(err, ERR_LIMIT, "is larger than %zu MiB", text->max / 1024 / 1024);
		at = buf_reserve(text, 4096);
		n = read(fd, at, 4096);
		if (n < 0 && errno != EINTR)
			return err_set_errno(err, "cannot read");
		if (n > 0)
			buf_commit(text, (size_t)n);
	}
	return 0;
}

int users_file_read(const char *path, struct buf *text, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int rc;

	if (fd < 0)
		return err_set_errno(err, "cannot open");
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		rc = err_set(err, ERR_CONFIG, "is not a regular file");
	else
		rc = read_fd(fd, text, err);
	close(fd);
	return rc;
}

/* ---- Secrets. */

void users_token_new(char token[USERS_TOKEN_CHARS + 1])
{
	uint8_t bytes[32];

	BUG_ON(sodium_init() < 0);
	randombytes_buf(bytes, sizeof(bytes));
	sodium_bin2base64(token, USERS_TOKEN_CHARS + 1, bytes, sizeof(bytes), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(bytes, sizeof(bytes));
}

void users_hash_token(struct slice token, struct buf *out)
{
	uint8_t hash[32];
	char text[sodium_base64_ENCODED_LEN(32, sodium_base64_VARIANT_ORIGINAL)];

	BUG_ON(sodium_init() < 0);
	crypto_generichash(hash, sizeof(hash), (const uint8_t *)token.ptr, token.len, NULL, 0);
	sodium_bin2base64(text, sizeof(text), hash, sizeof(hash), sodium_base64_VARIANT_ORIGINAL);
	buf_printf(out, "$b2$%s", text);
}

int users_hash_password(struct slice password, struct buf *out, struct err *err)
{
	char text[crypto_pwhash_STRBYTES];

	BUG_ON(sodium_init() < 0);
	if (password.len == 0)
		return err_set(err, ERR_SYNTAX, "the password is empty");
	if (crypto_pwhash_str(text, password.ptr, password.len, ARGON2_PASSES, ARGON2_MEMORY_BYTES) < 0)
		return err_set(err, ERR_SYSTEM, "no memory for Argon2id (19 MiB)");
	buf_append_str(out, text);
	return 0;
}

/* ---- Replacing the file. */

struct change {
	char path[PATH_MAX]; /* without links, so that a link stays one */
	char *name;	     /* in it, behind the last slash */
	int folder_fd;	     /* locked */
	bool exists;
	struct stat st;
	struct buf text;
};

static int resolve_path(struct change *change, const char *path, struct err *err)
{
	char *slash;

	if (!realpath(path, change->path)) {
		if (errno != ENOENT)
			return err_set_errno(err, "cannot find %s", path);
		if (!slice_to_cstr(slice_of_str(path), change->path, sizeof(change->path)))
			return err_set(err, ERR_LIMIT, "the path is too long");
	}
	slash = strrchr(change->path, '/');
	change->name = slash ? slash + 1 : change->path;
	return 0;
}

static int open_folder(struct change *change, struct err *err)
{
	char folder[PATH_MAX] = ".";
	size_t len = (size_t)(change->name - change->path);

	if (len > 0)
		slice_to_cstr(slice_of(change->path, len), folder, sizeof(folder));
	change->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (change->folder_fd < 0)
		return err_set_errno(err, "cannot open %s", folder);
	while (flock(change->folder_fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_set_errno(err, "cannot lock %s", folder);
	return 0;
}

static int begin(struct change *change, const char *path, struct err *err)
{
	struct err why;
	int rc;

	*change = (struct change){.folder_fd = -1};
	buf_init(&change->text, USERS_FILE_MAX_BYTES);
	rc = resolve_path(change, path, err);
	if (rc == 0)
		rc = open_folder(change, err);
	if (rc < 0)
		return rc;
	change->exists = stat(change->path, &change->st) == 0;
	if (!change->exists)
		return 0;
	rc = users_file_read(change->path, &change->text, &why);
	return rc < 0 ? err_set(err, why.code, "%.300s: %s", path, why.text) : 0;
}

static void end(struct change *change)
{
	if (change->text.data)
		sodium_memzero(change->text.data, change->text.cap);
	buf_fini(&change->text);
	if (change->folder_fd >= 0)
		close(change->folder_fd);
}

static int write_all(int fd, struct slice bytes)
{
	while (bytes.len > 0) {
		ssize_t n = write(fd, bytes.ptr, bytes.len);
		if (n < 0 && errno != EINTR)
			return -1;
		bytes = slice_from(bytes, n > 0 ? (size_t)n : 0);
	}
	return 0;
}

/* Owner first: a change of owner may take mode bits away. */
static int set_owner_and_mode(int fd, const struct change *change, const struct users_new_file *create)
{
	uid_t owner = change->exists ? change->st.st_uid : create->owner;
	gid_t group = change->exists ? change->st.st_gid : create->group;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	owner = owner == st.st_uid ? (uid_t)-1 : owner;
	group = group == st.st_gid ? (gid_t)-1 : group;
	if ((owner != (uid_t)-1 || group != (gid_t)-1) && fchown(fd, owner, group) < 0)
		return -1;
	return fchmod(fd, change->exists ? change->st.st_mode & 07777 : create->mode);
}

static int replace(struct change *change, const struct users_new_file *create, struct err *err)
{
	char temporary[NAME_MAX + 1];
	int fd, rc = 0;

	snprintf(temporary, sizeof(temporary), ".%.200s.%08x", change->name, randombytes_random());
	fd = openat(change->folder_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set_errno(err, "cannot write beside %s", change->path);
	if (set_owner_and_mode(fd, change, create) < 0)
		rc = err_set_errno(err, "cannot keep owner and mode of %s", change->path);
	else if (write_all(fd, buf_slice(&change->text)) < 0 || fsync(fd) < 0)
		rc = err_set_errno(err, "cannot write %s", change->path);
	close(fd);
	if (rc == 0 && renameat(change->folder_fd, temporary, change->folder_fd, change->name) < 0)
		rc = err_set_errno(err, "cannot replace %s", change->path);
	if (rc < 0)
		unlinkat(change->folder_fd, temporary, 0);
	else if (fsync(change->folder_fd) < 0)
		rc = err_set_errno(err, "cannot sync the folder of %s", change->path);
	return rc;
}

/* A line that would not be read again must not be written. */
static int check_text(const struct change *change, struct err *err)
{
	struct config_errors errors;
	struct users *users = users_new();
	int rc;

	config_errors_init(&errors);
	rc = users_parse(users, buf_slice(&change->text), change->path, &errors);
	users_free(&users);
	return rc < 0 ? err_set(err, ERR_SYNTAX, "%.400s", errors.items[0].text) : 0;
}

int users_file_add(const char *path, struct slice name, struct slice secret, struct slice options,
		   const struct users_new_file *create, struct err *err)
{
	struct change change;
	struct slice text;
	int rc;

	if (!users_name_is_valid(name))
		return err_set(err, ERR_SYNTAX, "a name has 1 to %d octets, no blanks, colons and control characters",
			       USERS_NAME_MAX_BYTES);
	rc = begin(&change, path, err);
	if (rc < 0)
		goto out;
	text = buf_slice(&change.text);
	if (text.len > 0 && text.ptr[text.len - 1] != '\n')
		buf_append_byte(&change.text, '\n');
	rc = buf_printf(&change.text, "%.*s:%.*s%s%.*s\n", SLICE_ARG(name), SLICE_ARG(secret), options.len ? ":" : "",
			SLICE_ARG(options));
	if (rc < 0)
		rc = err_set(err, ERR_LIMIT, "%s is full", path);
	if (rc == 0)
		rc = check_text(&change, err);
	if (rc == 0)
		rc = replace(&change, create, err);
out:
	end(&change);
	return rc;
}

/* Takes the line at `offset` out. */
static void cut_line(struct buf *text, size_t offset, size_t len)
{
	char *at = text->data + text->start + offset;

	memmove(at, at + len, buf_len(text) - offset - len);
	buf_truncate(text, buf_len(text) - len);
}

static size_t remove_lines(struct buf *text, struct slice name)
{
	size_t offset = 0, removed = 0;

	while (offset < buf_len(text)) {
		struct slice rest = slice_from(buf_slice(text), offset);
		ptrdiff_t end = slice_find(rest, '\n');
		size_t len = end < 0 ? rest.len : (size_t)end + 1;
		struct slice line = slice_trim(slice_to(rest, len));
		if (line.len > name.len && slice_has_prefix(line, name) && line.ptr[name.len] == ':') {
			cut_line(text, offset, len);
			removed++;
		} else {
			offset += len;
		}
	}
	return removed;
}

int users_file_remove(const char *path, struct slice name, size_t *removed, struct err *err)
{
	struct change change;
	size_t count = 0;
	int rc = begin(&change, path, err);

	if (rc < 0)
		goto out;
	if (!change.exists) {
		rc = err_set(err, ERR_NOT_FOUND, "%s does not exist", path);
		goto out;
	}
	if (users_name_is_valid(name))
		count = remove_lines(&change.text, name);
	if (count == 0)
		rc = err_set(err, ERR_NOT_FOUND, "%s has no user '%.*s'", path, (int)MIN(name.len, 64), name.ptr);
	else
		rc = replace(&change, NULL, err);
out:
	if (removed)
		*removed = rc == 0 ? count : 0;
	end(&change);
	return rc;
}
