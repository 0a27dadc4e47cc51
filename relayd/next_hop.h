/* relayd/next_hop.h - which of several next hops a recipient takes now */
#ifndef RELAYD_NEXT_HOP_H
#define RELAYD_NEXT_HOP_H

#include "relayd/scheduler.h"

/* The first that is open and not in doubt; else the first that is open; else the one that opens first, so that it is
 * tried then. `targets` has at least one. */
struct destination *next_hop_choose(struct destinations *destinations, const struct scheduler_targets *targets);

#endif
