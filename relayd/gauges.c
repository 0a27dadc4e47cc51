#include "relayd/gauges.h"

static void set(const struct gauges *g, enum metric metric, const char *label, double value)
{
	series_set(metrics_series(g->metrics, metric, label, NULL, NULL), value);
}

static void collect_queue(const struct gauges *g)
{
	struct queue_stats stats;
	int64_t now = clock_wall_ms(g->clock);

	queue_stats(g->queue, &stats);
	for (int state = 0; state < STATE_COUNT; state++) {
		const char *name = message_state_name((enum message_state)state);
		int64_t oldest = stats.oldest_arrived_wall[state];
		set(g, METRIC_QUEUE_MESSAGES, name, (double)stats.messages[state]);
		set(g, METRIC_QUEUE_RECIPIENTS, name, (double)stats.recipients[state]);
		set(g, METRIC_QUEUE_BYTES, name, (double)stats.bytes[state]);
		set(g, METRIC_QUEUE_OLDEST_AGE, name, oldest ? (double)(now - oldest) / 1000 : 0);
	}
	set(g, METRIC_JOURNAL_BYTES, NULL, (double)stats.journal_bytes);
	set(g, METRIC_JOURNAL_FREE_BYTES, NULL, (double)stats.free_bytes);
	set(g, METRIC_JOURNAL_ERRORS, NULL, (double)stats.errors);
}

void gauges_collect(void *ctx)
{
	const struct gauges *g = ctx;

	collect_queue(g);
	set(g, METRIC_CONNECTIONS, "out", destinations_connection_count(g->destinations));
	set(g, METRIC_LOG_LINES_DROPPED, NULL, (double)log_dropped_count(g->log));
	set(g, METRIC_LOOP_TURN_MAX, NULL, (double)loop_take_longest_turn_us(g->loop) / 1e6);
}
