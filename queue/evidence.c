/*
 * What a start copies to the quarantine before it changes anything: damaged ranges, files without a sound header, and
 * messages that cannot be sent, with whatever pieces of them are left. The name tells what it is; so a start that is
 * cut short and done again finds what it has saved already.
 */
#include "queue/recovery.h"

#include "base/base.h"
#include "base/msgid.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define COPY_BYTES (256 * 1024)
#define NAMES_MAX 1000 /* for one piece of evidence */

struct part {
	int fd;
	uint64_t offset, bytes;
};

struct evidence {
	struct disk *disk;
	char name[96]; /* without its end */
	char file[128];
	struct part *parts;
	uint32_t count;
	uint64_t bytes;
};

static void add_part(struct evidence *evidence, int fd, uint64_t offset, uint64_t bytes)
{
	evidence->parts = xreallocarray(evidence->parts, evidence->count + 1, sizeof(evidence->parts[0]));
	evidence->parts[evidence->count++] = (struct part){fd, offset, bytes};
	evidence->bytes += bytes;
}

/* Goes over all octets in order; a value other than 0 ends it and is returned. */
typedef int octets_cb(struct evidence *evidence, int fd, const char *octets, size_t len, uint64_t at);

static int each_octet(struct evidence *evidence, int fd, octets_cb *cb)
{
	uint64_t at = 0;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < evidence->count; i++) {
		const struct part *part = &evidence->parts[i];
		uint64_t offset = part->offset, end = part->offset + part->bytes;
		struct scan scan;
		scan_init(&scan, evidence->disk, part->fd, 0, end);
		while (rc == 0 && offset < end) {
			size_t len = (size_t)MIN(end - offset, (uint64_t)COPY_BYTES);
			rc = cb(evidence, fd, scan_bytes(&scan, offset, len), len, at);
			offset += len;
			at += len;
		}
		scan_fini(&scan);
	}
	return rc;
}

static int write_octets(struct evidence *evidence, int fd, const char *octets, size_t len, uint64_t at)
{
	return evidence->disk->write(evidence->disk, fd, octets, len, at);
}

/* 1: they differ. */
static int compare_octets(struct evidence *evidence, int fd, const char *octets, size_t len, uint64_t at)
{
	char *copy = xmalloc(len);
	ssize_t n = evidence->disk->read(evidence->disk, fd, copy, len, at);
	bool same = n == (ssize_t)len && memcmp(copy, octets, len) == 0;

	free(copy);
	return !same;
}

/* 1: opened for writing; 0: the evidence is there from an earlier start; or an error. A shorter file is a copy that was
 * cut short; another one is of a journal that stood here before, or garbled by a power cut: neither is this one. */
static int open_copy(struct evidence *evidence, int *fd)
{
	struct disk *disk = evidence->disk;

	for (int number = 1; number <= NAMES_MAX; number++) {
		uint64_t size;
		int rc;
		snprintf(evidence->file, sizeof(evidence->file), "%s.bin", evidence->name);
		if (number > 1)
			snprintf(evidence->file, sizeof(evidence->file), "%s-%d.bin", evidence->name, number);
		rc = disk->open(disk, DISK_QUARANTINE, evidence->file, fd, &size);
		if (rc == -ENOENT)
			rc = disk->create(disk, DISK_QUARANTINE, evidence->file, 0, fd);
		else if (rc == 0 && size >= evidence->bytes) {
			bool is_this = size == evidence->bytes && each_octet(evidence, *fd, compare_octets) == 0;
			disk->close(disk, *fd);
			if (is_this)
				return 0;
			continue;
		}
		return rc < 0 ? rc : 1;
	}
	return -EEXIST;
}

static int copy(struct evidence *evidence)
{
	struct disk *disk = evidence->disk;
	int fd, rc = open_copy(evidence, &fd);

	if (rc <= 0)
		return rc;
	rc = each_octet(evidence, fd, write_octets);
	if (rc == 0)
		rc = disk->sync_now(disk, fd);
	disk->close(disk, fd);
	return rc;
}

/* Frees the parts. Where there is no room for all, the first will do: a start must not fail for want of it. */
static int save(struct recovery *recovery, struct evidence *evidence)
{
	int rc = copy(evidence);

	if (rc < 0 && err_code_of_errno(-rc) == ERR_NO_SPACE && evidence->count > 1) {
		evidence->disk->unlink(evidence->disk, DISK_QUARANTINE, evidence->file);
		evidence->count = 1;
		evidence->bytes = evidence->parts[0].bytes;
		recovery_tell_corruption(recovery, 0, "the quarantine has no room for the pieces of a broken message");
		rc = copy(evidence);
	}
	free(evidence->parts);
	return rc;
}

static int save_range(struct recovery *recovery, const struct recovery_range *range)
{
	struct evidence evidence = {.disk = recovery->disk};

	snprintf(evidence.name, sizeof(evidence.name), "segment-%u-%" PRIu64 "-%" PRIu64, range->segment, range->offset,
		 range->bytes);
	add_part(&evidence, range->fd, range->offset, range->bytes);
	return save(recovery, &evidence);
}

static int save_leftover(struct recovery *recovery, const struct recovery_leftover *leftover)
{
	struct evidence evidence = {.disk = recovery->disk};
	struct scan scan;

	scan_init(&scan, recovery->disk, leftover->fd, 0, leftover->size);
	add_part(&evidence, leftover->fd, 0, scan_last_nonzero(&scan, 0));
	scan_fini(&scan);
	snprintf(evidence.name, sizeof(evidence.name), "file-%s", leftover->name);
	return save(recovery, &evidence);
}

static void add_record(struct recovery *recovery, struct evidence *evidence, struct record_place place, uint32_t length)
{
	const struct segment *segment = place.segment ? segments_find(recovery->segments, place.segment) : NULL;

	if (segment)
		add_part(evidence, segment->fd, (uint64_t)place.at8 * RECORD_ALIGN, record_bytes(length));
}

/* A damaged MESSAGE leaves pieces that nobody asks for any more. */
static int save_orphans(struct recovery *recovery, uint64_t id)
{
	struct evidence evidence = {.disk = recovery->disk};
	char id_text[MSGID_CHARS + 1];
	uint32_t count;
	const struct index_place *pieces = replay_orphans(recovery, id, &count);

	msgid_format(id, id_text);
	snprintf(evidence.name, sizeof(evidence.name), "pieces-%s", id_text);
	for (uint32_t i = 0; i < count; i++)
		add_record(recovery, &evidence, pieces[i].at, pieces[i].length);
	return evidence.count > 0 ? save(recovery, &evidence) : 0;
}

/* Its MESSAGE, and the pieces that are there. */
static int save_broken(struct recovery *recovery, const struct recovery_broken *broken)
{
	struct evidence evidence = {.disk = recovery->disk};
	char id[MSGID_CHARS + 1];

	msgid_format(broken->id, id);
	snprintf(evidence.name, sizeof(evidence.name), "message-%s", id);
	add_record(recovery, &evidence, broken->message, broken->length);
	for (uint32_t i = 0; broken->extra && i < broken->extra->piece_count; i++)
		add_record(recovery, &evidence, broken->extra->pieces[i].at, broken->extra->pieces[i].length);
	return evidence.count > 0 ? save(recovery, &evidence) : 0;
}

static void tell_leftover(const struct recovery *recovery, const struct recovery_leftover *leftover)
{
	char text[128];

	recovery->report->suspect_ranges++;
	snprintf(text, sizeof(text), "journal/%s has no sound header, but is not empty: torn or damaged",
		 leftover->name);
	recovery_tell_corruption(recovery, 0, text);
}

int evidence_save(struct recovery *recovery, struct err *err)
{
	bool any = recovery->range_count > 0 || recovery->broken_count > 0;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < recovery->range_count; i++)
		rc = save_range(recovery, &recovery->ranges[i]);
	for (uint32_t i = 0; rc == 0 && i < recovery->range_count; i++)
		if (recovery->ranges[i].id)
			rc = save_orphans(recovery, recovery->ranges[i].id);
	for (uint32_t i = 0; rc == 0 && i < recovery->leftover_count; i++) {
		if (!recovery->leftovers[i].is_evidence)
			continue;
		tell_leftover(recovery, &recovery->leftovers[i]);
		rc = save_leftover(recovery, &recovery->leftovers[i]);
		any = true;
	}
	for (uint32_t i = 0; rc == 0 && i < recovery->broken_count; i++)
		rc = save_broken(recovery, &recovery->broken[i]);
	if (rc == 0 && any)
		rc = recovery->disk->sync_dir(recovery->disk, DISK_QUARANTINE);
	if (rc < 0)
		return err_set(err, err_code_of_errno(-rc), "damaged parts cannot be copied to the quarantine: %s",
			       strerror(-rc));
	return 0;
}
