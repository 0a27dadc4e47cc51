#include "relayd/next_hop.h"

/* It was in trouble, and something is on its way there to see whether it still is. */
static bool is_being_probed(const struct destination *d)
{
	return d->failures > 0 && (d->busy > 0 || d->ready_count > 0);
}

struct destination *next_hop_choose(struct destinations *destinations, const struct scheduler_targets *targets)
{
	struct destination *doubtful = NULL, *closed = NULL, *paused = NULL;
	int64_t closed_until = INT64_MAX;

	for (size_t i = 0; i < targets->count; i++) {
		int64_t until;
		struct destination *d = destinations_get(destinations, &targets->targets[i]);
		bool is_open = destination_is_open(d, &until);
		if (is_open && !is_being_probed(d))
			return d;
		if (is_open) {
			doubtful = doubtful ? doubtful : d;
		} else if (d->paused) {
			paused = paused ? paused : d;
		} else if (until < closed_until) {
			closed_until = until;
			closed = d;
		}
	}
	/* Back-off ends by itself, a pause does not. */
	return doubtful ? doubtful : closed ? closed : paused;
}
