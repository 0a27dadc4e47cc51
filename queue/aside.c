/*
 * Damaged messages while the daemon runs. Such a message is held at once, so that nothing of it is sent; its raw bytes
 * are copied to the quarantine, file and directory are synced in the background, and then it is DONE, so that its
 * segment can be freed. If the copy fails the message stays held, and is tried again when it is next met.
 */
#include "base/msgid.h"
#include "queue/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define RETRY_MS 10000 /* no copy is tried so soon after one that failed */

struct aside {
	uint64_t id, token;
	int fd;
	char name[64];
	bool in_directory; /* the file is synced, the directory is being */
	struct aside *next;
};

static int copy_raw(struct queue *queue, struct record_place place, uint32_t length, int fd, uint64_t *at)
{
	const struct segment *segment = place.segment ? segments_find(&queue->segments, place.segment) : NULL;
	size_t len = record_bytes(length);
	char *raw;
	ssize_t n;
	int rc;

	if (!segment)
		return 0;
	raw = xmalloc(len);
	n = queue->disk->read(queue->disk, segment->fd, raw, len, (uint64_t)place.at8 * RECORD_ALIGN);
	rc = n > 0 ? queue->disk->write(queue->disk, fd, raw, (size_t)n, *at) : 0;
	*at += n > 0 ? (uint64_t)n : 0;
	free(raw);
	return rc;
}

static int copy_message(struct queue *queue, struct slot *slot, int fd)
{
	uint64_t at = 0;
	int rc = copy_raw(queue, slot->message, slot->length, fd, &at);

	for (uint32_t i = 0; rc == 0 && i < slot_piece_count(slot); i++)
		rc = copy_raw(queue, slot->u.extra->pieces[i].at, slot->u.extra->pieces[i].length, fd, &at);
	return rc;
}

static bool is_under_way(const struct queue *queue, uint64_t id)
{
	for (const struct aside *aside = queue->asides; aside; aside = aside->next)
		if (aside->id == id)
			return true;
	return false;
}

/* Half a copy is no evidence; with a new one at each try they would fill the disk. */
static void copy_failed(struct queue *queue, const char *name)
{
	queue->disk->unlink(queue->disk, DISK_QUARANTINE, name);
	queue->aside_not_before_ms = clock_mono_ms(queue->options.clock) + RETRY_MS;
	queue_tell_note(queue, "a damaged message could not be copied to the quarantine; it stays held");
}

static void begin_copy(struct queue *queue, struct slot *slot)
{
	struct aside *aside = xcalloc(1, sizeof(*aside));
	char id[MSGID_CHARS + 1];
	int rc;

	aside->id = slot->id;
	msgid_format(slot->id, id);
	snprintf(aside->name, sizeof(aside->name), "message-%s-%08" PRIx32 ".bin", id,
		 (uint32_t)rng_u64(queue->options.rng));
	rc = queue->disk->create(queue->disk, DISK_QUARANTINE, aside->name, 0, &aside->fd);
	if (rc == 0) {
		rc = copy_message(queue, slot, aside->fd);
		if (rc < 0)
			queue->disk->close(queue->disk, aside->fd);
	}
	if (rc < 0) {
		copy_failed(queue, aside->name);
		free(aside);
		return;
	}
	aside->token = journal_token(queue->journal);
	aside->next = queue->asides;
	queue->asides = aside;
	queue->disk->sync(queue->disk, aside->fd, aside->token);
}

void aside_put(struct queue *queue, struct slot *slot, const char *what)
{
	if (is_under_way(queue, slot->id))
		return;
	if (!(slot->flags & SLOT_CORRUPT)) {
		schedule_forget_list(queue, slot);
		index_change_begin(queue->index, slot);
		slot->flags = (uint8_t)((slot->flags | SLOT_HELD | SLOT_CORRUPT) & ~SLOT_POPPED);
		index_change_end(queue->index, slot);
		queue_tell_corruption(queue, slot->id, what);
	}
	if (clock_mono_ms(queue->options.clock) >= queue->aside_not_before_ms)
		begin_copy(queue, slot);
}

static void end_aside(struct queue *queue, struct aside *aside, bool is_safe)
{
	struct aside **link = &queue->asides;
	struct slot *slot = queue_find(queue, aside->id);

	while (*link != aside)
		link = &(*link)->next;
	*link = aside->next;
	queue->disk->close(queue->disk, aside->fd);
	free(aside);
	if (slot && is_safe)
		queue_finish(queue, slot);
}

bool aside_on_done(struct queue *queue, const struct disk_done *done)
{
	struct aside *aside = queue->asides;

	while (aside && aside->token != done->token)
		aside = aside->next;
	if (!aside)
		return false;
	if (done->result < 0)
		copy_failed(queue, aside->name);
	if (done->result < 0 || aside->in_directory) {
		end_aside(queue, aside, done->result == 0);
		return true;
	}
	aside->in_directory = true;
	aside->token = journal_token(queue->journal);
	queue->disk->sync(queue->disk, queue->disk->area_fd(queue->disk, DISK_QUARANTINE), aside->token);
	return true;
}

void aside_free_all(struct queue *queue)
{
	while (queue->asides)
		end_aside(queue, queue->asides, false);
}
