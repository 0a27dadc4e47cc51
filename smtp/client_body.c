/* Content on its way out. Ordinary text is copied line-wise by memmem(); only a dot at the start of a line costs more.
 */
#include "smtp/client_internal.h"

/* What may be queued on top of the content: the end of DATA, a command. */
enum { SPARE_BYTES = 256 };

size_t smtp_client_body_room(const struct smtp_client *c)
{
	size_t room = buf_room(&c->out);

	if (!c->tx.is_body_wanted || room <= SPARE_BYTES)
		return 0;
	room -= SPARE_BYTES;
	/* Stuffing may double it: "." -> "..". */
	return c->tx.is_bdat ? room : room / 2;
}

/* RFC 5321 §4.5.2. A dot after a bare LF is doubled too: such content is refused at submission, but if it ever came
 * here, no lenient receiver should see an end of data in it. */
static size_t stuff(char *out, struct slice in, char last)
{
	char *at = out;

	if (in.len && last == '\n' && in.ptr[0] == '.')
		*at++ = '.';
	while (in.len) {
		const char *dot = memmem(in.ptr, in.len, "\n.", 2);
		size_t len = dot ? (size_t)(dot - in.ptr) + 1 : in.len;

		memcpy(at, in.ptr, len);
		at += len;
		if (dot)
			*at++ = '.';
		in = slice_from(in, len);
	}
	return (size_t)(at - out);
}

size_t smtp_client_body(struct smtp_client *c, struct slice content)
{
	struct tx *tx = &c->tx;
	uint64_t announced = tx->is_body_wanted ? tx->what->content_bytes : 0;
	char *at;

	content = slice_to(content, smtp_client_body_room(c));
	if (content.len == 0)
		return 0;
	if (announced && content.len > announced - tx->body_bytes) {
		smtp_client_abort(c, "the content is longer than it was announced");
		return content.len;
	}
	if (tx->is_bdat) {
		/* The last octet waits for body_end(): until then the server cannot have the whole message. */
		tx->is_last_held = tx->body_bytes + content.len == announced;
		client_queue(c, slice_to(content, content.len - tx->is_last_held));
	} else {
		if (buf_len(&c->out) == 0)
			c->progress_at_ms = c->now_ms;
		at = buf_reserve(&c->out, 2 * content.len);
		BUG_ON(!at);
		buf_commit(&c->out, stuff(at, content, tx->body_last));
	}
	tx->body_last = content.ptr[content.len - 1];
	tx->body_bytes += content.len;
	return content.len;
}

void smtp_client_body_end(struct smtp_client *c)
{
	struct tx *tx = &c->tx;

	if (!tx->is_body_wanted)
		return;
	/* Never a complete message that is not the one that was accepted. */
	if (tx->what->content_bytes && tx->body_bytes < tx->what->content_bytes) {
		smtp_client_abort(c, "the content is shorter than it was announced");
		return;
	}
	if (tx->is_bdat)
		client_queue(c, slice_of(&tx->body_last, tx->is_last_held));
	else
		client_queue(c, tx->body_last == '\n' ? SLICE(".\r\n") : SLICE("\r\n.\r\n"));
	tx_body_ended(c);
}
