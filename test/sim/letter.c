#include "test/sim/letter.h"

#include "base/base.h"

enum { LETTER_MAX = 1 << 20 };

void letter_write(const struct truth_message *message, struct buf *out)
{
	static const char *const lines[] = {
	    "Lorem ipsum dolor sit amet, consetetur sadipscing elitr, sed diam nonumy eirmod.\r\n",
	    ".\r\n",
	    "..and so on\r\n",
	    "tempor invidunt ut labore et dolore magna aliquyam erat, sed diam voluptua.\r\n",
	    "\r\n",
	};
	unsigned line = message->serial;

	buf_printf(out, "From: <%s>\r\nSubject: message %u\r\nMessage-ID: <%u@sender.test>\r\n\r\n%s", message->sender,
		   message->serial, message->serial, message->is_8bit ? "gr\xc3\xbc\xc3\x9f\x65\r\n" : "");
	while (buf_len(out) < message->bytes)
		buf_append_str(out, lines[line++ % ARRAY_LEN(lines)]);
	buf_printf(out, "message %u ends here\r\n", message->serial);
}

bool letter_is_whole(const struct truth_message *message, struct slice content)
{
	struct slice prefix = SLICE(LETTER_PREFIX);
	struct buf letter;
	bool is_whole;

	buf_init(&letter, LETTER_MAX);
	letter_write(message, &letter);
	is_whole = slice_has_prefix(content, prefix) && slice_eq(slice_from(content, prefix.len), buf_slice(&letter));
	buf_fini(&letter);
	return is_whole;
}
