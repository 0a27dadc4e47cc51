#include "relayd/memory_file.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* "relayd 1 " and the XXH3 of all that follows the first line. */
enum { HEADER_BYTES = 9 + 16 + 1 };

static void format_header(struct slice lines, char out[HEADER_BYTES + 1])
{
	snprintf(out, HEADER_BYTES + 1, "relayd 1 %016llx\n",
		 (unsigned long long)XXH3_64bits(lines.len ? lines.ptr : "", lines.len));
}

/* The whole file, to be freed; NULL with words. */
static char *read_file(int dir_fd, const char *name, size_t *len, struct err *err)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0) {
		err_set_errno(err, "cannot read %s", name);
		return NULL;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > MEMORY_FILE_MAX + HEADER_BYTES) {
		err_set(err, ERR_LIMIT, "%s is not a file of ours", name);
		close(fd);
		return NULL;
	}
	text = xmalloc((size_t)st.st_size + 1);
	for (*len = 0; *len < (size_t)st.st_size; *len += (size_t)n) {
		n = read(fd, text + *len, (size_t)st.st_size - *len);
		if (n <= 0)
			break;
	}
	close(fd);
	return text;
}

static int load(int dir_fd, const char *name, memory_file_line *on_line, void *ctx, struct err *err)
{
	char header[HEADER_BYTES + 1];
	struct slice lines;
	size_t len = 0;
	char *text = read_file(dir_fd, name, &len, err);

	if (!text)
		return err->code;
	lines = slice_from(slice_of(text, len), HEADER_BYTES);
	format_header(lines, header);
	if (len < HEADER_BYTES || memcmp(text, header, HEADER_BYTES) != 0) {
		free(text);
		return err_set(err, ERR_CORRUPT, "%s is damaged", name);
	}
	while (lines.len) {
		ptrdiff_t end = slice_find(lines, '\n');
		size_t line_len = end < 0 ? lines.len : (size_t)end;

		on_line(ctx, slice_to(lines, line_len));
		lines = slice_from(lines, line_len + 1);
	}
	free(text);
	return 0;
}

static void format_name(char *out, size_t size, const char *name, const char *suffix)
{
	snprintf(out, size, "%s.%s", name, suffix);
}

int memory_file_load(int dir_fd, const char *name, memory_file_line *on_line, void *ctx, struct err *err)
{
	struct err words, older_words;
	char older[64];
	int rc = load(dir_fd, name, on_line, ctx, &words);

	if (rc == 0)
		return 0;
	format_name(older, sizeof(older), name, "old");
	if (load(dir_fd, older, on_line, ctx, &older_words) == 0)
		return 0;
	return rc == ERR_NOT_FOUND ? 0 : err_set(err, words.code, "%s", words.text);
}

static bool write_all(int fd, struct slice bytes)
{
	while (bytes.len) {
		ssize_t n = write(fd, bytes.ptr, bytes.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		bytes = slice_from(bytes, (size_t)n);
	}
	return true;
}

int memory_file_save(int dir_fd, const char *name, struct slice lines, struct err *err)
{
	char header[HEADER_BYTES + 1], fresh[64], older[64];
	bool good;
	int fd;

	if (lines.len > MEMORY_FILE_MAX)
		return err_set(err, ERR_LIMIT, "%s would be larger than 8 MiB", name);
	format_header(lines, header);
	format_name(fresh, sizeof(fresh), name, "new");
	format_name(older, sizeof(older), name, "old");
	unlinkat(dir_fd, fresh, 0);
	fd = openat(dir_fd, fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set_errno(err, "cannot create %s", fresh);
	good = write_all(fd, slice_of(header, HEADER_BYTES)) && write_all(fd, lines);
	if (close(fd) != 0 || !good) {
		err_set_errno(err, "cannot write %s", fresh);
		unlinkat(dir_fd, fresh, 0);
		return err ? (int)err->code : ERR_IO;
	}
	if (renameat(dir_fd, name, dir_fd, older) != 0 && errno != ENOENT)
		return err_set_errno(err, "cannot rename %s", name);
	if (renameat(dir_fd, fresh, dir_fd, name) != 0)
		return err_set_errno(err, "cannot rename %s", fresh);
	return 0;
}
