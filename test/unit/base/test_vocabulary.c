#include "support_base.h"

#include "base/err.h"
#include "base/outcome.h"
#include "base/vocabulary.h"

#include <stdlib.h>

/* The words and their numbers are Contract (log, metrics, JSON, journal): a change here breaks operators or spools. */
static void outcomes(void **state)
{
	static const char *const words[] = {"none", "delivered", "deferred", "failed", "expired", "deleted"};
	(void)state;

	for (unsigned i = 0; i < ARRAY_LEN(words); i++)
		assert_string_equal(outcome_kind_name(i), words[i]);
	assert_int_equal(OUTCOME_DELETED, ARRAY_LEN(words) - 1);
}

static void classes(void **state)
{
	static const char *const words[] = {"none",   "greylist", "throttle", "auth", "mailbox",
					    "policy", "connect",  "dns",      "tls",  "other"};
	(void)state;

	for (unsigned i = 0; i < ARRAY_LEN(words); i++)
		assert_string_equal(failure_class_name(i), words[i]);
	assert_int_equal(CLASS_COUNT, ARRAY_LEN(words));
}

static void states(void **state)
{
	static const char *const words[] = {"ready", "inflight", "deferred", "held"};
	(void)state;

	for (unsigned i = 0; i < ARRAY_LEN(words); i++)
		assert_string_equal(message_state_name(i), words[i]);
	assert_int_equal(STATE_COUNT, ARRAY_LEN(words));
}

static void message_classes(void **state)
{
	static const char *const words[] = {"default", "transactional", "bulk"};
	enum message_class parsed = MESSAGE_CLASS_COUNT;
	(void)state;

	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		assert_string_equal(message_class_name(i), words[i]);
		assert_true(message_class_parse(slice_of_str(words[i]), &parsed));
		assert_int_equal(parsed, i);
	}
	assert_int_equal(MESSAGE_CLASS_COUNT, ARRAY_LEN(words));
}

static void other_words_are_none(void **state)
{
	enum message_class message_class = MESSAGE_BULK;
	(void)state;

	assert_false(message_class_parse(SLICE(""), &message_class));
	assert_false(message_class_parse(SLICE("Default"), &message_class));
	assert_false(message_class_parse(SLICE("defaul"), &message_class));
	assert_false(message_class_parse(SLICE("default\0"), &message_class));
	assert_false(message_class_parse(SLICE("bulk "), &message_class));
	assert_int_equal(message_class, MESSAGE_BULK);
}

/* What an old or damaged journal may hold. */
static void numbers_past_the_end_are_unknown(void **state)
{
	(void)state;
	assert_string_equal(outcome_kind_name(6), "unknown");
	assert_string_equal(failure_class_name(CLASS_COUNT), "unknown");
	assert_string_equal(message_state_name(STATE_COUNT), "unknown");
	assert_string_equal(message_class_name(MESSAGE_CLASS_COUNT), "unknown");
	assert_string_equal(delivery_stage_name(STAGE_COUNT), "unknown");
	assert_string_equal(failure_class_name((enum failure_class) - 1), "unknown");
}

static void each_stage_and_error_has_a_name_of_its_own(void **state)
{
	(void)state;
	for (int i = 0; i < STAGE_COUNT; i++)
		for (int k = 0; k < i; k++)
			assert_string_not_equal(delivery_stage_name(i), delivery_stage_name(k));
	for (int i = ERR_SYSTEM; i <= 0; i++) {
		assert_string_not_equal(err_code_name(i), "unknown");
		for (int k = ERR_SYSTEM; k < i; k++)
			assert_string_not_equal(err_code_name(i), err_code_name(k));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(outcomes),
	    cmocka_unit_test(classes),
	    cmocka_unit_test(states),
	    cmocka_unit_test(message_classes),
	    cmocka_unit_test(other_words_are_none),
	    cmocka_unit_test(numbers_past_the_end_are_unknown),
	    cmocka_unit_test(each_stage_and_error_has_a_name_of_its_own),
	};
	return cmocka_run_group_tests_name("vocabulary", tests, NULL, NULL);
}
