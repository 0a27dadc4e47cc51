/* Messages that come again: before, while and after the first of them is safe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/dedupe.h"

#include <stdlib.h>
#include <string.h>

struct fixture {
	struct clock_virtual clock;
	struct dedupe *dedupe;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	clock_virtual_init(&f->clock, 0);
	f->dedupe = dedupe_new(&f->clock.clock);
	dedupe_configure(f->dedupe, 1000);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	dedupe_free(&f->dedupe);
	free(f);
	return 0;
}

struct client {
	struct fixture *fixture;
	struct dedupe_waiter waiter;
	struct dedupe_claim *claim;
	uint64_t first_id;
	unsigned told;
	bool asks_again;
	enum dedupe_answer answer;
};

static const unsigned char key_a[DEDUPE_KEY_BYTES] = {1}, key_b[DEDUPE_KEY_BYTES] = {2};

static enum dedupe_answer ask(struct client *client, const unsigned char *key)
{
	return client->answer =
		   dedupe_ask(client->fixture->dedupe, key, &client->claim, &client->first_id, &client->waiter);
}

static void on_settled(void *ctx, uint64_t id)
{
	struct client *client = ctx;

	client->told++;
	client->first_id = id;
	if (id == 0 && client->asks_again)
		ask(client, key_a);
}

static struct client new_client(void **state)
{
	return (struct client){.fixture = *state, .waiter.on_settled = on_settled};
}

static void start(struct client *client)
{
	list_node_init(&client->waiter.node);
	client->waiter.ctx = client;
}

static void what_was_taken_is_recognised_until_the_window_closes(void **state)
{
	struct fixture *f = *state;
	struct client first = new_client(state), again = new_client(state);

	start(&first);
	start(&again);
	assert_int_equal(ask(&first, key_a), DEDUPE_FIRST);
	dedupe_settle(&first.claim, 7);
	assert_null(first.claim);
	clock_virtual_advance(&f->clock, 999);
	assert_int_equal(ask(&again, key_a), DEDUPE_REPEATED);
	assert_int_equal(again.first_id, 7);
	assert_int_equal(ask(&again, key_b), DEDUPE_FIRST);
	dedupe_settle(&again.claim, 0);
	clock_virtual_advance(&f->clock, 1);
	assert_int_equal(ask(&again, key_a), DEDUPE_FIRST);
	dedupe_settle(&again.claim, 0);
	assert_int_equal(dedupe_count(f->dedupe), 0);
}

static void a_second_one_hears_of_the_first_when_it_is_safe_and_not_before(void **state)
{
	struct client first = new_client(state), second = new_client(state), gone = new_client(state);

	start(&first);
	start(&second);
	start(&gone);
	assert_int_equal(ask(&first, key_a), DEDUPE_FIRST);
	assert_int_equal(ask(&second, key_a), DEDUPE_UNDERWAY);
	assert_int_equal(ask(&gone, key_a), DEDUPE_UNDERWAY);
	dedupe_cancel(&gone.waiter);
	dedupe_cancel(&gone.waiter);
	assert_int_equal(second.told, 0);
	dedupe_settle(&first.claim, 9);
	assert_int_equal(second.told, 1);
	assert_int_equal(second.first_id, 9);
	assert_int_equal(gone.told, 0);
}

static void when_the_first_fails_one_of_the_others_takes_its_place(void **state)
{
	struct client first = new_client(state), second = new_client(state), third = new_client(state);

	start(&first);
	start(&second);
	start(&third);
	second.asks_again = third.asks_again = true;
	ask(&first, key_a);
	ask(&second, key_a);
	ask(&third, key_a);
	dedupe_settle(&first.claim, 0);
	assert_int_equal(second.answer, DEDUPE_FIRST);
	assert_int_equal(third.answer, DEDUPE_UNDERWAY);
	dedupe_settle(&second.claim, 5);
	assert_int_equal(third.told, 2);
	assert_int_equal(third.first_id, 5);
}

static void memory_is_bounded_and_the_oldest_are_forgotten(void **state)
{
	struct fixture *f = *state;
	unsigned char key[DEDUPE_KEY_BYTES] = {0};
	struct client client = new_client(state);

	start(&client);
	for (uint32_t i = 0; i < DEDUPE_SETTLED_MAX + 1000; i++) {
		memcpy(key, &i, sizeof(i));
		assert_int_equal(ask(&client, key), DEDUPE_FIRST);
		dedupe_settle(&client.claim, i + 1);
	}
	assert_int_equal(dedupe_count(f->dedupe), DEDUPE_SETTLED_MAX);
	assert_int_equal(ask(&client, key), DEDUPE_REPEATED);
	memset(key, 0, sizeof(key));
	assert_int_equal(ask(&client, key), DEDUPE_FIRST);
	dedupe_settle(&client.claim, 0);
}

static void switched_off_it_forgets_and_what_is_under_way_ends_well(void **state)
{
	struct fixture *f = *state;
	struct client first = new_client(state), second = new_client(state), under_way = new_client(state);

	start(&first);
	start(&second);
	start(&under_way);
	ask(&first, key_a);
	dedupe_settle(&first.claim, 3);
	ask(&under_way, key_b);
	ask(&second, key_b);
	dedupe_configure(f->dedupe, 0);
	assert_false(dedupe_is_on(f->dedupe));
	assert_int_equal(dedupe_count(f->dedupe), 0);
	dedupe_settle(&under_way.claim, 4);
	assert_int_equal(second.first_id, 4);
	assert_int_equal(dedupe_count(f->dedupe), 0);
}

static void the_owner_of_a_claim_may_go(void **state)
{
	struct client first = new_client(state);

	start(&first);
	ask(&first, key_a);
	assert_null(dedupe_claim_owner(first.claim));
	dedupe_claim_set_owner(first.claim, &first);
	assert_ptr_equal(dedupe_claim_owner(first.claim), &first);
	dedupe_claim_set_owner(first.claim, NULL);
	/* Never settled: freed with the rest. */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
	    TEST(what_was_taken_is_recognised_until_the_window_closes),
	    TEST(a_second_one_hears_of_the_first_when_it_is_safe_and_not_before),
	    TEST(when_the_first_fails_one_of_the_others_takes_its_place),
	    TEST(memory_is_bounded_and_the_oldest_are_forgotten),
	    TEST(switched_off_it_forgets_and_what_is_under_way_ends_well),
	    TEST(the_owner_of_a_claim_may_go),
	};

	return cmocka_run_group_tests_name("dedupe", tests, NULL, NULL);
}
