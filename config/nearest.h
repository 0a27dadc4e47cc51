/*
 * config/nearest.h - "did you mean ...?"
 *
 * For config/ and the command line of relayctl.
 */
#ifndef CONFIG_NEAREST_H
#define CONFIG_NEAREST_H

#include "base/slice.h"

/* Keeps the best of the candidates that are offered to it. */
struct nearest {
	struct slice wanted;
	const char *best; /* NULL: nothing is near enough */
	const char *any;  /* the nearest, however far; NULL: nothing was offered */
	unsigned distance, any_distance;
};

void nearest_init(struct nearest *nearest, struct slice wanted);
/* `candidate` must live as long as the answer is used. */
void nearest_offer(struct nearest *nearest, const char *candidate);

#endif
