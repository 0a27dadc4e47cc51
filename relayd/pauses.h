/*
 * relayd/pauses.h - the relayhosts that an operator has paused; kept over restarts
 *
 * A paused relayhost gets no new message; what is on its way there ends as it ends. Its mail goes to the next one of
 * its route, or waits in order. A name stays paused while it is not in the configuration.
 */
#ifndef RELAYD_PAUSES_H
#define RELAYD_PAUSES_H

#include "base/clock.h"
#include "relayd/memo.h"

#include <stddef.h>

struct pauses;

/* Reads what was paused before. `memos` NULL: kept nowhere. Borrowed, outlives the pauses' last change. */
struct pauses *pauses_new(struct memos *memos, const struct clock *clock);
/* After the memos. Accepts NULL, sets NULL. */
void pauses_free(struct pauses **pauses);

enum { PAUSES_MAX = 1024 };

/* False: it was so already, or there are PAUSES_MAX. Tell the destinations next: destinations_apply_pauses(). */
bool pauses_set(struct pauses *pauses, const char *relayhost, bool paused);
/* Accepts NULL: nothing is paused. */
bool pauses_has(const struct pauses *pauses, const char *relayhost);
size_t pauses_count(const struct pauses *pauses);
/* Since when, in wall milliseconds; 0: it is not. */
int64_t pauses_since_wall(const struct pauses *pauses, const char *relayhost);

#endif
