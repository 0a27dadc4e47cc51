/* The processes of the doctor's checks: their findings, their order, and an end for those that hang or break. */
#include "base/base.h"
#include "config/config.h"
#include "relayctl/doctor_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	struct config *config;
	struct doctor doctor;
	struct doctor_runner *runner;
	char told[4000]; /* a line for each finding: "check subject level found" */
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	const struct config_source source = {.file = "test.yaml"};
	struct config_errors errors;

	assert_int_equal(config_load_text(&source, SLICE("dns: {servers: [127.0.0.1]}\n"), &f->config, &errors), 0);
	f->doctor.config = f->config;
	f->runner = doctor_runner_new(&f->doctor);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	doctor_runner_free(&f->runner);
	config_free(&f->config);
	free(f);
	return 0;
}

static void on_finding(void *ctx, json_t *finding)
{
	struct fixture *f = ctx;
	size_t len = strlen(f->told);

	snprintf(
	    f->told + len, sizeof(f->told) - len, "%s %s %s %s\n", json_string_value(json_object_get(finding, "check")),
	    json_string_value(json_object_get(finding, "subject")),
	    json_string_value(json_object_get(finding, "level")), json_string_value(json_object_get(finding, "found")));
}

static const char *run(struct fixture *f)
{
	doctor_runner_run(f->runner, on_finding, f);
	return f->told;
}

/* ---- checks ---- */

static void two_findings(struct doctor *doctor, const char *subject)
{
	doctor_tell(doctor, DOCTOR_OK, subject, "first\n\033[31m");
	doctor_tell(doctor, DOCTOR_WARN, "another", "second");
}

static void tell_bytes(struct doctor *doctor, const char *subject)
{
	(void)subject;
	doctor_tell(doctor, DOCTOR_INFO, "\xff/sp\xc3\xb6l", "\xc3\xb6\xc3\x80\x7f\xe2\x80\xae\xf0\x9f");
}

_Noreturn static void hang(struct doctor *doctor, const char *subject)
{
	doctor_tell(doctor, DOCTOR_OK, subject, "before");
	doctor_tell(doctor, DOCTOR_OK, subject, "never written");
	fflush(doctor->out);
	while (true)
		pause();
}

static void break_down(struct doctor *doctor, const char *subject)
{
	(void)doctor;
	(void)subject;
	_exit(3);
}

static void find_egress(struct doctor *doctor, const char *subject)
{
	struct dns_address address;

	assert_true(dns_address_parse(slice_of_str(subject), &address));
	doctor_found_egress(doctor, &address);
	doctor_found_egress(doctor, &address);
}

static void tell_egress(struct doctor *doctor, const char *subject)
{
	doctor_tell(doctor, DOCTOR_INFO, subject, "%zu", doctor->egress_count);
}

/* ---- tests ---- */

static void findings_are_printable_and_in_order(void **state)
{
	static const struct doctor_check check = {.name = "two", .limit_sec = 60, .run = two_findings};
	struct fixture *f = *state;

	doctor_runner_add(f->runner, &check, "a");
	doctor_runner_add(f->runner, &check, "b");
	assert_string_equal(run(f), "two a ok first??[31m\ntwo another warn second\n"
				    "two b ok first??[31m\ntwo another warn second\n");
}

static void bytes_that_are_no_text_are_shown_as_such(void **state)
{
	static const struct doctor_check check = {.name = "bytes", .limit_sec = 60, .run = tell_bytes};
	struct fixture *f = *state;

	doctor_runner_add(f->runner, &check, "a");
	assert_string_equal(run(f), "bytes ?/sp\xc3\xb6l info \xc3\xb6\xc3\x80??????\n");
}

static void a_check_that_hangs_is_ended(void **state)
{
	static const struct doctor_check hanging = {.name = "hanging", .limit_sec = 1, .run = hang};
	static const struct doctor_check two = {.name = "two", .limit_sec = 60, .run = two_findings};
	struct fixture *f = *state;

	doctor_runner_add(f->runner, &hanging, "a");
	doctor_runner_add(f->runner, &two, "b");
	assert_string_equal(run(f), "hanging a ok before\nhanging a fail it was not over after 1 seconds\n"
				    "two b ok first??[31m\ntwo another warn second\n");
}

static void a_check_that_breaks_is_told(void **state)
{
	static const struct doctor_check check = {.name = "broken", .limit_sec = 60, .run = break_down};
	struct fixture *f = *state;

	doctor_runner_add(f->runner, &check, "a");
	assert_string_equal(run(f), "broken a fail the check itself failed (wait status 768)\n");
}

static void many_run_although_few_do_at_a_time(void **state)
{
	static const struct doctor_check check = {.name = "two", .limit_sec = 60, .run = two_findings};
	struct fixture *f = *state;
	size_t lines = 0;

	for (int i = 0; i < 40; i++)
		doctor_runner_add(f->runner, &check, "x");
	for (const char *at = run(f); *at; at++)
		lines += *at == '\n';
	assert_int_equal(lines, 80);
}

static void addresses_are_known_to_those_that_need_them(void **state)
{
	static const struct doctor_check gives = {
	    .name = "gives", .limit_sec = 60, .gives_egress = true, .run = find_egress};
	static const struct doctor_check needs = {
	    .name = "needs", .limit_sec = 60, .needs_egress = true, .run = tell_egress};
	struct fixture *f = *state;

	doctor_runner_add(f->runner, &needs, "x");
	doctor_runner_add(f->runner, &gives, "192.0.2.1");
	doctor_runner_add(f->runner, &gives, "2001:db8::1");
	assert_string_equal(run(f), "needs x info 2\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(findings_are_printable_and_in_order, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(bytes_that_are_no_text_are_shown_as_such, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_check_that_hangs_is_ended, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_check_that_breaks_is_told, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(many_run_although_few_do_at_a_time, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(addresses_are_known_to_those_that_need_them, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("doctor run", tests, NULL, NULL);
}
