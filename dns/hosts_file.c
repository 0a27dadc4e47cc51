#include "dns/hosts_file.h"

#include <stdio.h>

enum { FILE_MAX_BYTES = 1024 * 1024 };

static struct slice next_word(struct slice *line)
{
	size_t start = 0, end;

	while (start < line->len && (line->ptr[start] == ' ' || line->ptr[start] == '\t'))
		start++;
	end = start;
	while (end < line->len && line->ptr[end] != ' ' && line->ptr[end] != '\t')
		end++;
	struct slice word = slice_of(line->ptr + start, end - start);
	*line = slice_from(*line, end);
	return word;
}

/* "ADDRESS NAME NAME ... # comment" (hosts(5)). */
static bool line_has(struct slice line, const char *name, struct dns_address *address)
{
	ptrdiff_t comment = slice_find(line, '#');
	struct slice word;

	line = slice_trim(comment < 0 ? line : slice_to(line, (size_t)comment));
	if (!dns_address_parse(next_word(&line), address))
		return false;
	while ((word = next_word(&line)).len)
		if (slice_case_eq(word, slice_of_str(name)))
			return true;
	return false;
}

size_t hosts_file_find(const char *path, const char *name, struct dns_address *out, size_t max)
{
	FILE *file = fopen(path, "re");
	char line[4096];
	size_t count = 0, total = 0;

	if (!file)
		return 0;
	while (count < max && total < FILE_MAX_BYTES && fgets(line, sizeof(line), file)) {
		struct slice text = slice_of_str(line);

		total += text.len;
		if (line_has(text, name, &out[count]))
			count++;
	}
	fclose(file);
	return count;
}
