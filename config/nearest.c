#include "config/nearest.h"

#include "base/base.h"

#include <ctype.h>

#define LENGTH_MAX 64

static char lower(char c)
{
	return (char)tolower((unsigned char)c);
}

/* Letters added, lost, changed, or two neighbours swapped (optimal string alignment). */
static unsigned distance_of(struct slice a, struct slice b)
{
	unsigned rows[3][LENGTH_MAX + 1];
	unsigned *before = rows[0], *last = rows[1], *row = rows[2];

	for (unsigned j = 0; j <= b.len; j++)
		last[j] = j;
	for (unsigned i = 1; i <= a.len; i++) {
		row[0] = i;
		for (unsigned j = 1; j <= b.len; j++) {
			char x = lower(a.ptr[i - 1]), y = lower(b.ptr[j - 1]);
			row[j] = MIN(MIN(last[j], row[j - 1]) + 1, last[j - 1] + (x != y));
			if (i > 1 && j > 1 && x == lower(b.ptr[j - 2]) && lower(a.ptr[i - 2]) == y)
				row[j] = MIN(row[j], before[j - 2] + 1);
		}
		unsigned *oldest = before;
		before = last;
		last = row;
		row = oldest;
	}
	return last[b.len];
}

void nearest_init(struct nearest *nearest, struct slice wanted)
{
	*nearest = (struct nearest){.wanted = wanted, .any_distance = UINT32_MAX};
	/* A third of the letters may be wrong, at least one. */
	nearest->distance = (unsigned)MAX(wanted.len / 3, 1) + 1;
}

void nearest_offer(struct nearest *nearest, const char *candidate)
{
	struct slice text = slice_of_str(candidate);
	unsigned distance;

	if (nearest->wanted.len > LENGTH_MAX || text.len > LENGTH_MAX)
		return;
	distance = distance_of(nearest->wanted, text);
	if (distance < nearest->any_distance) {
		nearest->any_distance = distance;
		nearest->any = candidate;
	}
	if (distance < nearest->distance) {
		nearest->distance = distance;
		nearest->best = candidate;
	}
}
