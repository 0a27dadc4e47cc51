#include "relayctl/screen.h"

#include "base/base.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { TEXT_MAX = 4096 };

static const char *const escapes[] = {
    [COLOUR_NONE] = "",		 [COLOUR_BOLD] = "\033[1m",    [COLOUR_DIM] = "\033[2m",   [COLOUR_RED] = "\033[31m",
    [COLOUR_GREEN] = "\033[32m", [COLOUR_YELLOW] = "\033[33m", [COLOUR_CYAN] = "\033[36m",
};

static bool wants_colour(void)
{
	const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");

	return !(no_color && *no_color) && term && *term && strcmp(term, "dumb") != 0;
}

void screen_init(struct screen *screen, const struct ctl *ctl)
{
	struct winsize size;

	*screen = (struct screen){.out = stdout, .end = ""};
	if (!ctl->is_terminal)
		return;
	screen->has_colour = wants_colour();
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
		screen->width = size.ws_col;
		screen->height = size.ws_row;
	}
}

/* How many octets stand in the column at `text`: a character of UTF-8. */
static size_t char_length(const char *text)
{
	size_t len = 1;

	while (((unsigned char)text[len] & 0xC0) == 0x80)
		len++;
	return len;
}

static bool is_full(const struct screen *screen)
{
	return screen->width > 0 && !screen->wraps && screen->column >= screen->width;
}

void screen_print(struct screen *screen, enum colour colour, const char *format, ...)
{
	bool coloured = screen->has_colour && colour != COLOUR_NONE;
	char text[TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (coloured)
		fputs(escapes[colour], screen->out);
	for (const char *at = text; *at && !is_full(screen); screen->column++) {
		size_t len = utf8_visible(slice_of_str(at));
		if (len == 0)
			fputc('?', screen->out); /* it might move the cursor, or turn the text round */
		else
			fwrite(at, 1, len, screen->out);
		at += len ? len : char_length(at);
	}
	if (coloured)
		fputs("\033[0m", screen->out);
}

void screen_to(struct screen *screen, int column)
{
	if (screen->column >= column && screen->column > 0)
		column = screen->column + 1;
	if (column > screen->column)
		screen_print(screen, COLOUR_NONE, "%*s", column - screen->column, "");
}

void screen_newline(struct screen *screen)
{
	fprintf(screen->out, "%s\n", screen->end);
	screen->column = 0;
	screen->line_count++;
}

/* ---- documents ---- */

const char *text_of(json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

int64_t number_of(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

const char *age_of(json_t *object, const char *key, char out[24])
{
	json_t *value = json_object_get(object, key);

	return json_is_integer(value) ? ctl_format_age(json_integer_value(value), out, 24) : "-";
}

const char *plural(int64_t count)
{
	return count == 1 ? "" : "s";
}
