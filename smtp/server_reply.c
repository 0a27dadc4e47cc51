#include "smtp/server_reply.h"

#include "base/base.h"

#include "smtp/syntax.h"

#include <stdio.h>

enum { LINES_MAX = 16 };

static struct slice line_of(struct slice *text)
{
	ptrdiff_t end = slice_find(*text, '\n');
	struct slice line = end < 0 ? *text : slice_to(*text, (size_t)end);

	*text = slice_from(*text, end < 0 ? text->len : (size_t)end + 1);
	return line;
}

void smtp_server_reply_format(struct buf *out, const struct smtp_server_reply *reply)
{
	struct slice text = slice_of_str(reply->text);
	int count = 0;

	do {
		struct slice words = line_of(&text);
		bool is_last = text.len == 0 || ++count == LINES_MAX;
		char line[SMTP_REPLY_LINE_MAX_BYTES + 1];
		int len = snprintf(line, sizeof(line) - 2, "%03d%c%s%s%.*s", reply->code, is_last ? ' ' : '-',
				   reply->enhanced ? reply->enhanced : "", reply->enhanced && words.len ? " " : "",
				   (int)MIN(words.len, sizeof(line)), words.ptr ? words.ptr : "");

		if (len > (int)sizeof(line) - 3)
			len = (int)sizeof(line) - 3;
		for (int i = 4; i < len; i++)
			if (line[i] < ' ' || line[i] > '~')
				line[i] = '?';
		line[len] = '\r';
		line[len + 1] = '\n';
		buf_append(out, slice_of(line, (size_t)len + 2));
		if (is_last)
			break;
	} while (true);
}
