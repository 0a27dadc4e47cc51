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

char *buf_reserve(struct buf *buf, size_t len)
{
	size_t used = buf_len(buf);

	if (len > buf->max - used)
		return NULL;
	if (buf->cap - buf->end >= len)
		return buf->data + buf->end;
	if (buf->start > 0) {
		memmove(buf->data, buf->data + buf->start, used);
		buf->start = 0;
		buf->end = used;
	}
	if (buf->cap - used < len) {
		size_t cap = buf->cap ? buf->cap : 256;
		while (cap - used < len)
			cap *= 2;
		buf->data = xrealloc(buf->data, cap);
		buf->cap = cap;
	}
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
	char small[512];
	int len;
	char *at;

	va_copy(again, args);
	len = vsnprintf(small, sizeof(small), format, args);
	BUG_ON(len < 0);
	if ((size_t)len < sizeof(small)) {
		va_end(again);
		return buf_append(buf, slice_of(small, (size_t)len));
	}
	at = buf_reserve(buf, (size_t)len + 1);
	if (at) {
		vsnprintf(at, (size_t)len + 1, format, again);
		buf->end += (size_t)len;
	}
	va_end(again);
	return at ? 0 : ERR_LIMIT;
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
