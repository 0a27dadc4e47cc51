#include "config/name_index.h"

#include "base/base.h"

void name_index_init(struct name_index *index, struct config_memory *memory, size_t count,
		     const char *(*name_of)(const void *owner, uint32_t entry), const void *owner)
{
	uint32_t slots = 8;

	BUG_ON(sodium_init() < 0 || count > UINT32_MAX / 8);
	while (slots < 2 * count)
		slots *= 2;
	*index = (struct name_index){.slots = config_memory_alloc(memory, slots * sizeof(uint32_t)),
				     .mask = slots - 1,
				     .name_of = name_of,
				     .owner = owner};
	crypto_shorthash_keygen(index->key);
}

static uint32_t hash(const struct name_index *index, struct slice name)
{
	unsigned char lower[NAME_INDEX_TEXT_MAX], out[crypto_shorthash_BYTES];
	uint32_t value;

	for (size_t i = 0; i < name.len; i++)
		lower[i] = (unsigned char)(name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? name.ptr[i] + 32 : name.ptr[i]);
	crypto_shorthash(out, lower, name.len, index->key);
	memcpy(&value, out, sizeof(value));
	return value;
}

/* The slot that has the name, or the free one where it would stand. */
static uint32_t *probe(const struct name_index *index, struct slice name)
{
	uint32_t at = hash(index, name);

	for (;; at++) {
		uint32_t *slot = &index->slots[at & index->mask];
		if (*slot == 0 || slice_case_eq(slice_of_str(index->name_of(index->owner, *slot - 1)), name))
			return slot;
	}
}

uint32_t name_index_find(const struct name_index *index, struct slice name)
{
	uint32_t *slot;

	if (name.len > NAME_INDEX_TEXT_MAX)
		return NAME_INDEX_NONE;
	slot = probe(index, name);
	return *slot ? *slot - 1 : NAME_INDEX_NONE;
}

uint32_t name_index_add(struct name_index *index, uint32_t entry)
{
	struct slice name = slice_of_str(index->name_of(index->owner, entry));
	uint32_t *slot;

	BUG_ON(name.len > NAME_INDEX_TEXT_MAX);
	slot = probe(index, name);
	if (*slot)
		return *slot - 1;
	*slot = entry + 1;
	return NAME_INDEX_NONE;
}
