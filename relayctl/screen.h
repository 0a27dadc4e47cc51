/*
 * relayctl/screen.h - output for people: colours, widths, ages
 *
 * On a terminal lines are cut to its width and words may be coloured (not with NO_COLOR set, nor TERM=dumb); in a pipe
 * everything is whole and plain.
 */
#ifndef RELAYCTL_SCREEN_H
#define RELAYCTL_SCREEN_H

#include "relayctl/ctl.h"

#include <stdio.h>

enum colour { COLOUR_NONE = 0, COLOUR_BOLD, COLOUR_DIM, COLOUR_RED, COLOUR_GREEN, COLOUR_YELLOW, COLOUR_CYAN };

struct screen {
	FILE *out;
	int width; /* columns; 0: no limit */
	int height;
	bool has_colour;
	bool wraps;	 /* nothing is cut: the terminal breaks long lines */
	int column;	 /* of the line under way */
	int line_count;	 /* finished */
	const char *end; /* of each line: "" or, in a full-screen view, what clears the rest */
};

/* Of standard output. */
void screen_init(struct screen *screen, const struct ctl *ctl);
/* Appends to the line; what is past the width is left out. Control characters become '?'. */
void screen_print(struct screen *screen, enum colour colour, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Blanks up to this column (from 0); at least one when something stands there already. */
void screen_to(struct screen *screen, int column);
void screen_newline(struct screen *screen);

/* What stands in a document: "" and 0 where it is missing. */
const char *text_of(json_t *object, const char *key);
int64_t number_of(json_t *object, const char *key);
/* The age in seconds that stands there as "4m"; "-" when it is none. */
const char *age_of(json_t *object, const char *key, char out[24]);
/* "", or "s". */
const char *plural(int64_t count);

#endif
