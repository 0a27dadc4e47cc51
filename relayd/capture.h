/*
 * relayd/capture.h - `via: capture`: messages become .eml files in SPOOL/captured instead of being sent
 *
 * The driver of the destination of kind DESTINATION_CAPTURE (relayd/destination.h), so that captured mail waits in
 * lines, is parked and backs off like any other. One file for the recipients of one message that are served together:
 * ID.eml, or ID-N.eml where N is the first of them, when it is not the first of the message. It begins with Return-Path
 * and a Delivered-To for each recipient, and is then what would have been sent, octet for octet.
 *
 * A recipient is delivered when its file is complete, synced, and has its name for good (the folder is synced too); a
 * crash before that writes the same file again. Folder 0700, files 0600, the service user's. They are the operator's to
 * remove. With the journal's reserve touched nothing is captured: the messages wait.
 *
 * The loop never waits for the disk: a message is written in portions, one a turn, and the sync helper syncs.
 */
#ifndef RELAYD_CAPTURE_H
#define RELAYD_CAPTURE_H

#include "queue/queue.h"
#include "relayd/destination.h"

#define CAPTURE_FOLDER "captured"

struct captures;

/* All borrowed. */
struct captures_options {
	struct loop *loop;
	struct queue *queue;
	int spool_fd;
	const struct disk_async *async; /* whose sync is asked for; NULL: it is done at once, and blocks */
};

struct captures *captures_new(const struct captures_options *options);
/* Files that are not complete go; their recipients wait again, untried. Accepts NULL, sets NULL. */
void captures_free(struct captures **captures);
struct destination_driver captures_driver(struct captures *captures);
/* The helper's answer, if it is one of ours; false: it is somebody else's. */
bool captures_on_disk_done(struct captures *captures, const struct disk_done *done);
/* Files under way. */
unsigned captures_count(const struct captures *captures);
/* Breaks all off, as captures_free() does. */
void captures_abort(struct captures *captures);

#endif
