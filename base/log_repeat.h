/*
 * base/log_repeat.h - which lines of a log only say again what has just been said; used by log.c alone
 *
 * Lines are known by two keys: of all that they say, and of their event. Of each key the first `burst` in a window of a
 * minute are written; the others are counted, and told as one line when the window ends. There is room for
 * LOG_REPEAT_KEYS at a time; what finds none (a crowd of clients) is counted by its event alone, so that the log grows
 * by some thousand lines a minute at most, whoever knocks.
 */
#ifndef BASE_LOG_REPEAT_H
#define BASE_LOG_REPEAT_H

#include <stdbool.h>
#include <stdint.h>

enum { LOG_REPEAT_KEYS = 256, LOG_REPEAT_EVENTS = 32, LOG_REPEAT_WINDOW_MS = 60 * 1000 };

struct log_repeat {
	uint64_t key;
	int64_t until_ms; /* 0: not in use */
	unsigned written;
	uint64_t count; /* of those that were not written */
	/* The owner's: what to say of them. Set at the first that is not written. */
	int level;
	const char *event;
	char *text;
};

struct log_repeats {
	unsigned burst;	 /* 0: everything is written */
	int64_t next_ms; /* no window ends before */
	struct log_repeat keys[LOG_REPEAT_KEYS], events[LOG_REPEAT_EVENTS];
};

/* NULL: write it. Otherwise it has been counted there. Take what is due first. */
struct log_repeat *log_repeats_count(struct log_repeats *repeats, uint64_t key, uint64_t event_key, int64_t now_ms);
/* One whose window has ended with lines that were not written: tell them, free `text` and set `count` to 0; again until
 * NULL. INT64_MAX: all. */
struct log_repeat *log_repeats_due(struct log_repeats *repeats, int64_t now_ms);

#endif
