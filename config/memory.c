#include "config/memory.h"

#include "base/base.h"

#include <sodium.h>
#include <stdlib.h>

#define CHUNK_BYTES 8192

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(max_align_t) char bytes[];
};

struct config_memory {
	struct chunk *chunks; /* the first is the one that is filled */
};

struct config_memory *config_memory_new(void)
{
	return xcalloc(1, sizeof(struct config_memory));
}

void config_memory_free(struct config_memory **memory)
{
	if (!*memory)
		return;
	for (struct chunk *chunk = (*memory)->chunks, *next; chunk; chunk = next) {
		next = chunk->next;
		sodium_memzero(chunk->bytes, chunk->used);
		free(chunk);
	}
	free(*memory);
	*memory = NULL;
}

void *config_memory_alloc(struct config_memory *memory, size_t size)
{
	const size_t align = _Alignof(max_align_t);
	struct chunk *chunk = memory->chunks;
	void *at;

	BUG_ON(size > SIZE_MAX / 2);
	size = (MAX(size, 1) + align - 1) / align * align;
	if (!chunk || chunk->size - chunk->used < size) {
		size_t room = MAX(size, CHUNK_BYTES);
		chunk = xcalloc(1, sizeof(*chunk) + room);
		chunk->size = room;
		chunk->next = memory->chunks;
		memory->chunks = chunk;
	}
	at = chunk->bytes + chunk->used;
	chunk->used += size;
	return at;
}

char *config_memory_copy(struct config_memory *memory, struct slice text)
{
	char *copy = config_memory_alloc(memory, text.len + 1);

	if (text.len)
		memcpy(copy, text.ptr, text.len);
	return copy;
}

void *config_memory_grow(struct config_memory *memory, void *array, size_t count, size_t size)
{
	void *grown;

	if (count > 0 && (count & (count - 1)) != 0)
		return array;
	grown = config_memory_alloc(memory, MAX(count * 2, 1) * size);
	if (count > 0)
		memcpy(grown, array, count * size);
	return grown;
}
