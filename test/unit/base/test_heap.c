#include "support_base.h"

#include "base/heap.h"
#include "base/random.h"

#include <string.h>

enum { IDS = 500 };

/* What the heap should hold, and where it says each entry is. */
struct model {
	bool is_in[IDS];
	int64_t key[IDS];
	uint32_t position[IDS];
	uint32_t count;
};

static void on_moved(void *ctx, uint32_t id, uint32_t position)
{
	struct model *model = ctx;
	model->position[id] = position;
}

static int64_t smallest(const struct model *model)
{
	int64_t key = INT64_MAX;

	for (uint32_t id = 0; id < IDS; id++)
		if (model->is_in[id] && model->key[id] < key)
			key = model->key[id];
	return key;
}

static void check(const struct heap *heap, const struct model *model)
{
	const struct heap_entry *first = heap_peek(heap);

	assert_int_equal(heap->count, model->count);
	assert_int_equal(first != NULL, model->count > 0);
	if (first)
		assert_int_equal(first->key, smallest(model));
	for (uint32_t id = 0; id < IDS; id++) {
		if (!model->is_in[id]) {
			assert_int_equal(model->position[id], HEAP_NONE);
			continue;
		}
		assert_true(model->position[id] < heap->count);
		assert_int_equal(heap->entries[model->position[id]].id, id);
		assert_int_equal(heap->entries[model->position[id]].key, model->key[id]);
	}
}

static void forget(struct model *model, uint32_t id)
{
	model->is_in[id] = false;
	model->count--;
}

static void one_step(struct heap *heap, struct model *model, struct rng *random, uint64_t key_range)
{
	uint32_t id = (uint32_t)rng_below(random, IDS);
	int64_t key = (int64_t)(rng_below(random, key_range) - key_range / 2);

	if (!model->is_in[id]) {
		model->is_in[id] = true;
		model->key[id] = key;
		model->count++;
		heap_push(heap, key, id);
	} else if (rng_below(random, 3) == 0) {
		forget(model, id);
		heap_remove_at(heap, model->position[id]);
	} else if (rng_below(random, 3) == 0) {
		forget(model, heap_peek(heap)->id);
		heap_pop(heap);
	} else {
		model->key[id] = key;
		heap_update_at(heap, model->position[id], key);
	}
}

static void random_steps(uint64_t key_range)
{
	static struct model model;
	struct rng_seeded random;
	struct heap heap;

	memset(&model, 0, sizeof(model));
	memset(model.position, 0xff, sizeof(model.position));
	rng_seeded_init(&random, key_range);
	heap_init(&heap, on_moved, &model);
	for (int i = 0; i < 20000; i++) {
		one_step(&heap, &model, &random.rng, key_range);
		check(&heap, &model);
	}
	heap_fini(&heap);
}

static void random_operations(void **state)
{
	(void)state;
	random_steps(UINT64_MAX);
}

static void random_operations_with_many_equal_keys(void **state)
{
	(void)state;
	random_steps(5);
}

static void comes_out_sorted(void **state)
{
	static struct model model;
	struct rng_seeded random;
	struct heap heap;
	int64_t last = INT64_MIN;
	(void)state;

	rng_seeded_init(&random, 1);
	heap_init(&heap, on_moved, &model);
	for (uint32_t id = 0; id < IDS; id++)
		heap_push(&heap, (int64_t)rng_u64(&random.rng), id);
	for (uint32_t left = IDS; left > 0; left--) {
		assert_true(heap_peek(&heap)->key >= last);
		last = heap_peek(&heap)->key;
		heap_pop(&heap);
	}
	assert_null(heap_peek(&heap));
	heap_fini(&heap);
}

static void the_extreme_keys(void **state)
{
	static struct model model;
	struct heap heap;
	(void)state;

	heap_init(&heap, on_moved, &model);
	heap_push(&heap, INT64_MAX, 0);
	heap_push(&heap, INT64_MIN, 1);
	heap_push(&heap, 0, 2);
	assert_int_equal(heap_peek(&heap)->id, 1);
	heap_update_at(&heap, model.position[1], INT64_MAX);
	assert_int_equal(heap_peek(&heap)->id, 2);
	heap_update_at(&heap, model.position[0], INT64_MIN);
	assert_int_equal(heap_peek(&heap)->id, 0);
	heap_fini(&heap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(random_operations),
	    cmocka_unit_test(random_operations_with_many_equal_keys),
	    cmocka_unit_test(comes_out_sorted),
	    cmocka_unit_test(the_extreme_keys),
	};
	return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
