/* What the tests of the queue share: a spool in a temporary folder, messages, outcomes. */
#ifndef TEST_QUEUE_SUPPORT_SPOOL_H
#define TEST_QUEUE_SUPPORT_SPOOL_H

#include "base/clock.h"
#include "base/random.h"
#include "queue/journal.h"
#include "queue/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SPOOL_WALL_MS 1790000000000

struct spool {
	char folder[64];
	int fd;
	struct disk *disk;
	struct clock_virtual clock;
	struct rng_seeded rng;
	struct queue_options options;
	struct queue_report report;
	struct queue *queue;
	unsigned corruptions, notes, states;
	char last_corruption[512];
};

/* An empty spool on the real disk, inline, with small segments. Not opened yet. */
void spool_init(struct spool *spool);
void spool_open(struct spool *spool);
/* Gracefully. */
void spool_close(struct spool *spool);
/* As if the process were killed: nothing more is written. */
void spool_kill(struct spool *spool);
void spool_fini(struct spool *spool);
/* Turns until everything is synced and marked; moves the clock as deadlines ask. */
void spool_settle(struct spool *spool);

/* Envelope of `recipients` addresses "r0@example.org", ... */
struct queue_envelope spool_envelope(struct spool *spool, struct queue_recipient *recipients, size_t count);
/* Submits `content` and turns until it is accepted; the id. */
uint64_t spool_submit(struct spool *spool, size_t recipients, struct slice content);
/* Takes all due recipients of all due messages; how many. */
size_t spool_take_all(struct spool *spool);
void spool_result(struct spool *spool, uint64_t id, uint32_t index, enum outcome_kind kind, int64_t next_wall);
/* The whole content through a reader; freed by the caller. */
char *spool_content(struct spool *spool, uint64_t id, size_t *len);
void spool_assert_content(struct spool *spool, uint64_t id, struct slice expected);

#endif
