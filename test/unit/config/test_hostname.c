/* This machine's full name, from texts alone. */
#include "base/base.h"
#include "config/hostname.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char debian[] = "127.0.0.1\tlocalhost\n127.0.1.1\tmail.example.com\tmail\n::1 localhost ip6-localhost\n";
static const char docker[] = "127.0.0.1\tlocalhost\n172.17.0.2\trelay.example.com relay\n172.17.0.3 3f2a1b0c9d8e\n";

static const struct {
	const char *node, *hosts, *wanted;
} rows[] = {
    {"relay.example.net", debian, "relay.example.net"},
    {"relay.example.net.", "", "relay.example.net"},
    {"mail", debian, "mail.example.com"},
    {"MAIL", debian, "mail.example.com"},
    {"relay", docker, "relay.example.com"},
    {"3f2a1b0c9d8e", docker, "3f2a1b0c9d8e"},
    {"vm", debian, "vm"},
    {"vm", "127.0.0.1 localhost localhost.localdomain vm\n", "vm"},
    {"vm", "# 1.2.3.4 vm.example.com vm\n", "vm"},
    {"vm", "1.2.3.4 a.example.com # vm\n1.2.3.4 vm b.example.com", "b.example.com"},
    {"vm", "1.2.3.4\n\n \n1.2.3.4 vm.example.com vm", "vm.example.com"},
    {"", debian, "localhost"},
    {"not a name", debian, "localhost"},
    {"(none)", "", "localhost"},
};

static void the_name_is_chosen_without_a_resolver(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char out[CONFIG_HOSTNAME_MAX];
		config_hostname_choose(slice_of_str(rows[i].node), slice_of_str(rows[i].hosts), out);
		assert_string_equal(out, rows[i].wanted);
	}
}

static void every_machine_has_one(void **state)
{
	char out[CONFIG_HOSTNAME_MAX] = "";

	(void)state;
	config_hostname_find(out);
	assert_true(out[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_name_is_chosen_without_a_resolver),
	    cmocka_unit_test(every_machine_has_one),
	};
	return cmocka_run_group_tests_name("host name", tests, NULL, NULL);
}
