/* A queue on the fault disk without faults: for tests that prepare a spool, damage or copy it, and open it again. */
#ifndef TEST_QUEUE_SUPPORT_BOX_H
#define TEST_QUEUE_SUPPORT_BOX_H

#include "base/clock.h"
#include "queue/journal.h"
#include "support_fault_disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define BOX_WALL_MS 1790000000000

struct box {
	struct fault_disk disk;
	struct clock_virtual clock;
	struct rng_seeded rng;
	struct queue_options options;
	struct queue_report report;
	struct err err;
	struct queue *queue;
	unsigned told; /* corruptions */
	char last_told[512];
};

void box_init(struct box *box, uint64_t segment_bytes);
/* With a copy of another box's disk; its queue, if it has one, is left alone. */
void box_copy(struct box *box, const struct box *from);
void box_fini(struct box *box);
/* For cmocka: the state is a box from the heap. */
int box_teardown(void **state);
/* False: it does not open; `err` says why. */
bool box_open(struct box *box);
/* As a kill: nothing more is written. */
void box_kill(struct box *box);
/* Turns and ends of the disk's operations until nothing is to be done; the clock moves as deadlines ask. */
void box_settle(struct box *box);
/* Until nothing is in memory only; the clock stands. */
void box_sync(struct box *box);
/* Commits and syncs; the id. */
uint64_t box_submit(struct box *box, uint32_t recipients, struct slice content);
void box_result(struct box *box, uint64_t id, uint32_t index, enum outcome_kind kind);
/* -1: not there; 0: there, but it cannot be read whole; 1: there and equal. */
int box_check(struct box *box, uint64_t id, struct slice content);
uint64_t box_count(struct box *box);
/* Some file of the quarantine holds these bytes. */
bool box_quarantined(struct box *box, struct slice bytes);

#endif
