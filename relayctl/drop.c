#include "relayctl/drop.h"

#include "base/base.h"
#include "base/random.h"
#include "smtp/bsmtp.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { NAME_BYTES = 16, RESERVE_BYTES = 5 * 64 * 1024 * 1024 /* the journal's four segments, and one for us */ };

static int write_all(int fd, struct slice bytes)
{
	while (bytes.len > 0) {
		ssize_t n = write(fd, bytes.ptr, bytes.len);
		if (n < 0)
			return -1;
		bytes = slice_from(bytes, (size_t)n);
	}
	return 0;
}

static int format_envelope(struct buf *out, const struct submission *s, size_t content_bytes)
{
	struct smtp_client_recipient *recipients = xcalloc(s->recipient_count, sizeof(*recipients));
	struct smtp_transaction transaction = {.sender = slice_of_str(s->sender),
					       .recipients = recipients,
					       .recipient_count = s->recipient_count,
					       .content_bytes = content_bytes,
					       .ret = s->ret,
					       .envid = slice_of_str(s->envid)};
	int rc;

	for (size_t i = 0; i < s->recipient_count; i++)
		recipients[i] =
		    (struct smtp_client_recipient){.address = slice_of_str(s->recipients[i]), .notify = s->notify};
	rc = bsmtp_format(out, &transaction);
	free(recipients);
	return rc;
}

/* The folder cannot be opened for reading, and so not synced: syncfs() does it by way of the file. */
static int put(int dir, const char *temporary, const char *name, struct slice envelope, struct slice content)
{
	int fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int rc;

	if (fd < 0)
		return -1;
	rc = write_all(fd, envelope) == 0 && write_all(fd, content) == 0 && fchmod(fd, 0644) == 0 && fsync(fd) == 0
		 ? 0
		 : -1;
	if (rc == 0)
		rc = renameat(dir, temporary, dir, name);
	if (rc != 0)
		unlinkat(dir, temporary, 0);
	if (rc == 0 && syncfs(fd) != 0) {
		unlinkat(dir, name, 0);
		rc = -1;
	}
	close(fd);
	return rc;
}

static bool has_room(int dir, size_t bytes)
{
	struct statvfs fs;

	return fstatvfs(dir, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize > (uint64_t)RESERVE_BYTES + bytes;
}

int drop_put(const char *spool, const struct submission *submission, struct err *err)
{
	unsigned char random[NAME_BYTES];
	char path[4096], temporary[8 + 2 * NAME_BYTES], *name = temporary + 5;
	struct buf memory, envelope;
	struct slice content;
	int dir, rc;

	snprintf(path, sizeof(path), "%s/drop", spool);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_set_errno(err, "relayd is away, and %s cannot be opened", path);
	buf_init(&memory, SIZE_MAX / 4);
	buf_init(&envelope, BSMTP_ENVELOPE_MAX_BYTES);
	content = submit_crlf(submission->message, &memory);
	rng_system()->fill(rng_system(), random, sizeof(random));
	snprintf(temporary, sizeof(temporary), ".tmp-");
	sodium_bin2hex(name, 2 * NAME_BYTES + 1, random, sizeof(random));
	rc = format_envelope(&envelope, submission, content.len);
	if (rc != 0)
		err_set(err, ERR_SYNTAX, "an address cannot be written down, or there are too many");
	else if (!has_room(dir, content.len))
		rc = err_set(err, ERR_NO_SPACE, "relayd is away, and %s has no room", path);
	else if (put(dir, temporary, name, buf_slice(&envelope), content) != 0)
		rc = err_set_errno(err, "relayd is away, and the message cannot be left in %s", path);
	buf_fini(&envelope);
	buf_fini(&memory);
	close(dir);
	return rc;
}
