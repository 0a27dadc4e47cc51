#include "base/buf.h"

#include "base/base.h"
#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

void buf_init(struct buf *buf, size_t max)
{
	*buf = (struct buf){.max = max};
}

void buf_fini(struct buf *buf)
{
	free(buf->data);
	buf->data = NULL;
	buf->start = buf->end = buf->cap = 0;
}

void buf_reset(struct buf *buf)
{
	buf_fini(buf);
}

static void move_to_front(struct buf *buf, char *block)
{
	size_t used = buf_len(buf);

	if (used)
		memmove(block, buf->data + buf->start, used);
	buf->start = 0;
	buf->end = used;
}

/* Twice the ceiling is enough: see buf_reserve(). */
static void grow(struct buf *buf, size_t len)
{
	size_t used = buf_len(buf), cap = buf->cap ? buf->cap : 128;
	char *block;

	do
		cap *= 2;
	while (cap - used < len);
	if (buf->max < SIZE_MAX / 2 && cap > 2 * buf->max)
		cap = 2 * buf->max;
	if (buf->start == 0) {
		buf->data = xrealloc(buf->data, cap);
	} else {
		block = xmalloc(cap);
		move_to_front(buf, block);
		free(buf->data);
		buf->data = block;
	}
	buf->cap = cap;
}

/* Bytes are moved to the front only when at least as many have been consumed since, so that moving stays in proportion
 * to what passes through, however full the buffer is kept. With a block of twice the ceiling that is always so at its
 * end. */
char *buf_reserve(struct buf *buf, size_t len)
{
	size_t used = buf_len(buf);

	if (len > buf->max - used)
		return NULL;
	if (buf->data && buf->cap - buf->end >= len)
		return buf->data + buf->end;
	if (buf->data && buf->start >= used && buf->cap - used >= len)
		move_to_front(buf, buf->data);
	else
		grow(buf, len);
	return buf->data + buf->end;
}

void buf_commit(struct buf *buf, size_t len)
{
	BUG_ON(len > buf->cap - buf->end);
	buf->end += len;
}

int buf_append(struct buf *buf, struct slice bytes)
{
	char *at;

	if (bytes.len == 0)
		return 0;
	at = buf_reserve(buf, bytes.len);
	if (!at)
		return ERR_LIMIT;
	memcpy(at, bytes.ptr, bytes.len);
	buf->end += bytes.len;
	return 0;
}

int buf_append_str(struct buf *buf, const char *str)
{
	return buf_append(buf, slice_of_str(str));
}

int buf_append_byte(struct buf *buf, char byte)
{
	return buf_append(buf, slice_of(&byte, 1));
}

int buf_vprintf(struct buf *buf, const char *format, va_list args)
{
	va_list again;
	char small[512], *large;
	int len, rc;

	va_copy(again, args);
	len = vsnprintf(small, sizeof(small), format, args);
	BUG_ON(len < 0);
	if ((size_t)len < sizeof(small)) {
		va_end(again);
		return buf_append(buf, slice_of(small, (size_t)len));
	}
	large = xmalloc((size_t)len + 1);
	vsnprintf(large, (size_t)len + 1, format, again);
	va_end(again);
	rc = buf_append(buf, slice_of(large, (size_t)len));
	free(large);
	return rc;
}

int buf_printf(struct buf *buf, const char *format, ...)
{
	va_list args;
	int rc;

	va_start(args, format);
	rc = buf_vprintf(buf, format, args);
	va_end(args);
	return rc;
}

void buf_consume(struct buf *buf, size_t len)
{
	if (len >= buf_len(buf))
		buf_clear(buf);
	else
		buf->start += len;
}

void buf_truncate(struct buf *buf, size_t len)
{
	if (len < buf_len(buf))
		buf->end = buf->start + len;
}
