/*
 * base/buf.h - bytes that grow, with a mandatory ceiling
 *
 * Embedded (init/fini). Bytes are appended at the end and consumed at the front; consuming is cheap (an offset moves).
 * A failed append changes nothing and returns ERR_LIMIT.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/slice.h"

#include <stdarg.h>

struct buf {
	char *data; /* allocated block */
	size_t start, end, cap, max;
};

/* `max`: the most bytes it may hold at a time. Allocates nothing yet. */
void buf_init(struct buf *buf, size_t max);
void buf_fini(struct buf *buf);
/* Empties it and gives its memory back. */
void buf_reset(struct buf *buf);
/* Empties it and keeps its memory for the next use. */
static inline void buf_clear(struct buf *buf)
{
	buf->start = buf->end = 0;
}
static inline size_t buf_len(const struct buf *buf)
{
	return buf->end - buf->start;
}
static inline size_t buf_room(const struct buf *buf)
{
	return buf->max - buf_len(buf);
}
/* Valid until the buffer is next changed. */
static inline struct slice buf_slice(const struct buf *buf)
{
	return (struct slice){buf->data ? buf->data + buf->start : NULL, buf->end - buf->start};
}

int buf_append(struct buf *buf, struct slice bytes);
int buf_append_str(struct buf *buf, const char *str);
int buf_append_byte(struct buf *buf, char byte);
int buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *buf, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
/* Drops `len` bytes (at most all) from the front. */
void buf_consume(struct buf *buf, size_t len);
/* Cuts to the first `len` bytes. */
void buf_truncate(struct buf *buf, size_t len);
/* Room for at least `len` more bytes to be written at the returned address, then buf_commit(). NULL: over the ceiling.
 */
char *buf_reserve(struct buf *buf, size_t len);
void buf_commit(struct buf *buf, size_t len);

#endif
