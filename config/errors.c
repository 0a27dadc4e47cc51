#include "config/errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void config_errors_init(struct config_errors *errors)
{
	memset(errors, 0, sizeof(*errors));
}

/* Texts go to a terminal and into a log of lines. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

static struct config_mistake *last_warning(struct config_errors *errors)
{
	for (size_t i = errors->kept_count; i > 0; i--)
		if (errors->items[i - 1].is_warning)
			return &errors->items[i - 1];
	return NULL;
}

const char *config_errors_first(const struct config_errors *errors)
{
	for (size_t i = 0; i < errors->kept_count; i++)
		if (!errors->items[i].is_warning)
			return errors->items[i].text;
	return "";
}

__attribute__((format(printf, 4, 0))) static void
add(struct config_errors *errors, bool is_warning, const struct config_place *place, const char *format, va_list args)
{
	struct config_mistake *mistake = NULL;
	int used;

	if (is_warning)
		errors->warning_count++;
	else
		errors->error_count++;
	if (errors->kept_count < CONFIG_MISTAKES_MAX)
		mistake = &errors->items[errors->kept_count++];
	else if (!is_warning)
		mistake = last_warning(errors);
	if (!mistake)
		return;
	mistake->is_warning = is_warning;
	mistake->line = place->line;
	mistake->column = place->column;
	/* A very long path must not push out what is said about it. */
	if (place->line)
		used = snprintf(mistake->text, sizeof(mistake->text), "%.300s:%u:%u: ", place->source, place->line,
				place->column);
	else
		used = snprintf(mistake->text, sizeof(mistake->text), "%.300s: ", place->source);
	vsnprintf(mistake->text + used, sizeof(mistake->text) - (size_t)used, format, args);
	make_printable(mistake->text);
}

void config_errors_add(struct config_errors *errors, const struct config_place *place, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	add(errors, false, place, format, args);
	va_end(args);
}

void config_errors_warn(struct config_errors *errors, const struct config_place *place, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	add(errors, true, place, format, args);
	va_end(args);
}

static bool stands_before(const struct config_mistake *a, const struct config_mistake *b)
{
	uint32_t line_a = a->line ? a->line : UINT32_MAX, line_b = b->line ? b->line : UINT32_MAX;

	return line_a != line_b ? line_a < line_b : a->column < b->column;
}

/* Insertion: few, and stable. */
void config_errors_sort(struct config_errors *errors)
{
	for (size_t i = 1; i < errors->kept_count; i++) {
		struct config_mistake moved = errors->items[i];
		size_t at = i;
		for (; at > 0 && stands_before(&moved, &errors->items[at - 1]); at--)
			errors->items[at] = errors->items[at - 1];
		errors->items[at] = moved;
	}
}
