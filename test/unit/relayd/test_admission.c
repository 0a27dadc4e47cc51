/* Who is let in, and who makes room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/admission.h"

static const struct admission_limits usual = {.sessions = 6, .per_address = 3, .per_user = 2, .memory_bytes = 1000};

static struct net_peer from(uint8_t last)
{
	return (struct net_peer){.address = {DNS_IPV4, {192, 0, 2, last}}, .port = 4711};
}

static struct net_peer local(uid_t uid)
{
	return (struct net_peer){.is_unix = true, .uid = uid};
}

static enum admission_answer ask(struct admission *admission, struct net_peer peer, struct admission_seat **victim)
{
	return admission_ask(admission, &peer, victim);
}

static void enter(struct admission *admission, struct admission_seat *seat, struct net_peer peer)
{
	struct admission_seat *victim;

	assert_int_equal(ask(admission, peer, &victim), ADMISSION_OK);
	admission_enter(admission, seat, &peer);
}

static void leave_all(struct admission **admission, struct admission_seat *seats, size_t count)
{
	for (size_t i = 0; i < count; i++)
		admission_leave(&seats[i]);
	assert_int_equal(admission_count(*admission), 0);
	assert_int_equal(admission_memory_bytes(*admission), 0);
	admission_free(admission);
}

static void the_longest_silent_stranger_of_an_address_makes_room(void **state)
{
	struct admission *admission = admission_new(&usual);
	struct admission_seat seats[4], *victim;

	(void)state;
	for (int i = 0; i < 3; i++)
		enter(admission, &seats[i], from(1));
	enter(admission, &seats[3], from(2));
	admission_touch(&seats[0]);
	assert_int_equal(ask(admission, from(1), &victim), ADMISSION_ADDRESS_FULL);
	assert_ptr_equal(victim, &seats[1]);
	assert_int_equal(ask(admission, from(2), &victim), ADMISSION_OK);
	assert_null(victim);
	admission_leave(&seats[1]);
	assert_int_equal(ask(admission, from(1), &victim), ADMISSION_OK);
	leave_all(&admission, seats, 4);
}

static struct net_peer from_ipv6(uint8_t network, uint8_t last)
{
	return (struct net_peer){
	    .address = {DNS_IPV6, {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, network, last, 0, 0, 0, 0, 0, 0, last}},
	    .port = 4711};
}

/* Who has one address of it has all. */
static void an_ipv6_client_is_its_64(void **state)
{
	struct admission *admission = admission_new(&usual);
	struct admission_seat seats[4], *victim;

	(void)state;
	for (uint8_t i = 0; i < 3; i++)
		enter(admission, &seats[i], from_ipv6(1, i));
	assert_int_equal(ask(admission, from_ipv6(1, 9), &victim), ADMISSION_ADDRESS_FULL);
	assert_ptr_equal(victim, &seats[0]);
	enter(admission, &seats[3], from_ipv6(2, 9));
	leave_all(&admission, seats, 4);
}

static void the_longest_silent_stranger_of_all_makes_room(void **state)
{
	struct admission *admission = admission_new(&usual);
	struct admission_seat seats[6], *victim;

	(void)state;
	for (uint8_t i = 0; i < 6; i++)
		enter(admission, &seats[i], from(i));
	admission_touch(&seats[0]);
	assert_int_equal(ask(admission, from(9), &victim), ADMISSION_FULL);
	assert_ptr_equal(victim, &seats[1]);
	leave_all(&admission, seats, 6);
}

static void who_has_logged_in_or_is_being_checked_is_never_sent_away(void **state)
{
	struct admission *admission = admission_new(&usual);
	struct admission_seat seats[3], *victim;

	(void)state;
	for (int i = 0; i < 3; i++)
		enter(admission, &seats[i], from(1));
	assert_true(admission_login(&seats[0], "app"));
	admission_set_busy(&seats[1], true);
	admission_know(&seats[2]);
	admission_touch(&seats[2]);
	assert_int_equal(ask(admission, from(1), &victim), ADMISSION_ADDRESS_FULL);
	assert_null(victim);
	admission_set_busy(&seats[1], false);
	ask(admission, from(1), &victim);
	assert_ptr_equal(victim, &seats[1]);
	leave_all(&admission, seats, 3);
}

static void local_users_count_by_uid(void **state)
{
	struct admission *admission = admission_new(&usual);
	struct admission_seat seats[4], *victim;

	(void)state;
	for (int i = 0; i < 3; i++)
		enter(admission, &seats[i], local(1000));
	assert_int_equal(ask(admission, local(1000), &victim), ADMISSION_ADDRESS_FULL);
	enter(admission, &seats[3], local(1001));
	leave_all(&admission, seats, 4);
}

static void a_user_has_so_many_sessions_and_no_more(void **state)
{
	struct admission *admission = admission_new(&usual);
	struct admission_seat seats[3];

	(void)state;
	for (uint8_t i = 0; i < 3; i++)
		enter(admission, &seats[i], from(i));
	assert_true(admission_login(&seats[0], "app"));
	assert_true(admission_login(&seats[0], "app"));
	assert_true(admission_login(&seats[1], "app"));
	assert_false(admission_login(&seats[2], "app"));
	assert_true(admission_login(&seats[2], "other"));
	admission_logout(&seats[0]);
	assert_true(admission_login(&seats[2], "app"));
	assert_false(admission_login(&seats[0], "app"));
	leave_all(&admission, seats, 3);
}

static void memory_is_added_up_over_all(void **state)
{
	struct admission *admission = admission_new(&usual);
	struct admission_seat seats[2];

	(void)state;
	enter(admission, &seats[0], from(1));
	enter(admission, &seats[1], from(2));
	admission_set_memory(&seats[0], 600);
	assert_true(admission_has_memory(admission));
	admission_set_memory(&seats[1], 400);
	assert_false(admission_has_memory(admission));
	admission_set_memory(&seats[0], 599);
	assert_true(admission_has_memory(admission));
	assert_int_equal(admission_memory_bytes(admission), 999);
	leave_all(&admission, seats, 2);
}

static void limits_that_shrink_send_nobody_away_by_themselves(void **state)
{
	struct admission *admission = admission_new(&usual);
	struct admission_limits small = {.sessions = 1, .per_address = 1, .per_user = 1, .memory_bytes = 1};
	struct admission_seat seats[3], *victim;

	(void)state;
	for (int i = 0; i < 3; i++)
		enter(admission, &seats[i], from(1));
	admission_configure(admission, &small);
	assert_int_equal(admission_count(admission), 3);
	assert_int_equal(ask(admission, from(1), &victim), ADMISSION_ADDRESS_FULL);
	assert_non_null(victim);
	leave_all(&admission, seats, 3);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_longest_silent_stranger_of_an_address_makes_room),
	    cmocka_unit_test(an_ipv6_client_is_its_64),
	    cmocka_unit_test(the_longest_silent_stranger_of_all_makes_room),
	    cmocka_unit_test(who_has_logged_in_or_is_being_checked_is_never_sent_away),
	    cmocka_unit_test(local_users_count_by_uid),
	    cmocka_unit_test(a_user_has_so_many_sessions_and_no_more),
	    cmocka_unit_test(memory_is_added_up_over_all),
	    cmocka_unit_test(limits_that_shrink_send_nobody_away_by_themselves),
	};

	return cmocka_run_group_tests_name("admission", tests, NULL, NULL);
}
