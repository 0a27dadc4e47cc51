/*
 * Runs numbered tasks in several processes, each task whole in one of them: a simulation has one thread and shares
 * nothing. What a task prints comes in one piece when it is done.
 */
#ifndef TEST_SIM_POOL_H
#define TEST_SIM_POOL_H

#include <stdbool.h>

/* False: it has failed, and has said why. */
typedef bool pool_task(void *ctx, unsigned number);

/* Tasks 0 .. count-1 in about that order, in JOBS processes (default: one for each processor). How many failed: a
 * process that dies counts as one, and its task is named. */
unsigned pool_run(unsigned count, pool_task *task, void *ctx);

#endif
