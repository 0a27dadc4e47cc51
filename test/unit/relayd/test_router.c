/* Where a recipient goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "config/config.h"
#include "relayd/router.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct config *config;
static struct rng_seeded rng;
static struct scheduler_targets targets;
static const struct config_route *route;

static int setup(void **state)
{
	(void)state;
	rng_seeded_init(&rng, 7);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	config_free(&config);
	return 0;
}

static void load(const char *yaml)
{
	struct config_source source = {.default_hostname = "relay.example.org"};
	struct config_errors errors;

	if (config_load_text(&source, slice_of_str(yaml), &config, &errors) != 0)
		fail_msg("%s", errors.items[0].text);
}

static void ask(const char *sender, const char *from_domain, const char *user, const char *recipient)
{
	struct router_question question = {.sender = slice_of_str(sender),
					   .from_domain = slice_of_str(from_domain),
					   .user = slice_of_str(user),
					   .recipient = slice_of_str(recipient)};

	router_decide(config, &rng.rng, &question, &targets, &route);
}

static void ask_to(const char *recipient)
{
	ask("app@example.org", "example.org", "app", recipient);
}

static void expect(size_t place, enum destination_kind kind, const char *name)
{
	assert_true(place < targets.count);
	assert_int_equal(targets.targets[place].kind, kind);
	assert_string_equal(targets.targets[place].name, name);
}

/* ---- a user's own relayhost ---- */

static void a_users_relayhost_goes_before_all_routes(void **state)
{
	struct router_question question = {
	    .user = SLICE("app"), .recipient = SLICE("one@example.net"), .relayhost = SLICE("own")};

	(void)state;
	load("relayhosts: {main: {address: a.example.net}, own: {address: b.example.net, default: false}}\n"
	     "routes: [{via: mx}]\n");
	router_decide(config, &rng.rng, &question, &targets, &route);
	assert_int_equal(targets.count, 1);
	expect(0, DESTINATION_RELAYHOST, "own");
	assert_null(route);
	/* Gone since: no other account may stand in for it, and nothing is lost. */
	question.relayhost = SLICE("gone");
	router_decide(config, &rng.rng, &question, &targets, &route);
	assert_int_equal(targets.count, 0);
	assert_int_equal(targets.failure.kind, OUTCOME_DEFERRED);
	assert_non_null(strstr(targets.failure.text, "'gone'"));
}

/* ---- domains ---- */

static void domains_are_lower_case_a_labels(void **state)
{
	static const struct {
		const char *address, *domain;
	} good[] = {{"one@Example.NET", "example.net"},
		    {"\"a@b\"@example.net", "example.net"},
		    {"one@b\xC3\xBC"
		     "cher.example",
		     "xn--bcher-kva.example"},
		    {"one@xn--bcher-kva.example", "xn--bcher-kva.example"},
		    {"one@[192.0.2.1]", "[192.0.2.1]"},
		    {"one@[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"},
		    {"@example.net", "example.net"}};
	static const char *const bad[] = {"", "one", "one@", "one@a..b", "one@\xff\xff", "one@.example"};
	char domain[DESTINATION_NAME_MAX], small[8];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(router_domain_of(slice_of_str(good[i].address), domain, sizeof(domain)), 0);
		assert_string_equal(domain, good[i].domain);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(router_domain_of(slice_of_str(bad[i]), domain, sizeof(domain)), ERR_SYNTAX);
	assert_int_equal(router_domain_of(SLICE("one@example.net"), small, sizeof(small)), ERR_SYNTAX);
	assert_int_equal(router_domain_of(SLICE("one@[192.0.2.1]"), small, sizeof(small)), ERR_SYNTAX);
}

static void a_domain_that_is_too_long_fails(void **state)
{
	char address[600] = "one@";

	(void)state;
	load("");
	for (int i = 0; i < 50; i++)
		snprintf(address + strlen(address), sizeof(address) - strlen(address), "%s", "abcdefghi.");
	snprintf(address + strlen(address), sizeof(address) - strlen(address), "%s", "example");
	ask_to(address);
	assert_int_equal(targets.count, 0);
	assert_int_equal(targets.failure.kind, OUTCOME_FAILED);
	assert_string_equal(targets.failure.enhanced, "5.1.2");
}

/* ---- the default ---- */

static void without_relayhosts_mail_goes_by_mx(void **state)
{
	(void)state;
	load("");
	ask_to("one@Example.NET");
	assert_int_equal(targets.count, 1);
	expect(0, DESTINATION_MX, "example.net");
	assert_int_equal(targets.targets[0].tls, CONFIG_TLS_UNSET);
	assert_null(route);
}

static void relayhosts_come_by_priority(void **state)
{
	(void)state;
	load("relayhosts:\n"
	     "  third: {address: 'c.example:587', priority: 30}\n"
	     "  first: {address: 'a.example:587', priority: 10}\n"
	     "  special: {address: 'd.example:587', priority: 1, default: false}\n"
	     "  second: {address: 'b.example:587', priority: 20}\n");
	for (int i = 0; i < 20; i++) {
		ask_to("one@example.net");
		assert_int_equal(targets.count, 3);
		expect(0, DESTINATION_RELAYHOST, "first");
		expect(1, DESTINATION_RELAYHOST, "second");
		expect(2, DESTINATION_RELAYHOST, "third");
	}
}

static void equals_are_drawn_by_weight(void **state)
{
	enum { DRAWS = 4000 };
	unsigned heavy = 0, backup = 0;

	(void)state;
	load("relayhosts:\n"
	     "  light: {address: 'a.example:587', weight: 1}\n"
	     "  heavy: {address: 'b.example:587', weight: 3}\n"
	     "  backup: {address: 'c.example:587', priority: 99}\n");
	for (int i = 0; i < DRAWS; i++) {
		ask_to("one@example.net");
		assert_int_equal(targets.count, 3); /* the others follow, each once */
		assert_string_not_equal(targets.targets[0].name, targets.targets[1].name);
		heavy += strcmp(targets.targets[0].name, "heavy") == 0;
		backup += strcmp(targets.targets[2].name, "backup") == 0;
	}
	assert_in_range(heavy, DRAWS * 70 / 100, DRAWS * 80 / 100);
	assert_int_equal(backup, DRAWS);
}

static void only_relayhosts_by_name_means_mx_by_default(void **state)
{
	(void)state;
	load("relayhosts:\n  special: {address: 'd.example:587', default: false}\n");
	ask_to("one@example.net");
	assert_int_equal(targets.count, 1);
	expect(0, DESTINATION_MX, "example.net");
}

static void a_relayhost_takes_what_has_no_domain_of_dns(void **state)
{
	(void)state;
	load("relayhosts:\n  main: {address: 'a.example:587'}\n");
	ask_to("one@a..b");
	expect(0, DESTINATION_RELAYHOST, "main");
}

/* ---- routes ---- */

static const char routes_yaml[] = "relayhosts:\n"
				  "  main: {address: 'a.example:587'}\n"
				  "  ses: {address: 'b.example:587', default: false}\n"
				  "routes:\n"
				  "  - {name: partners, to: ['*.partner.example'], via: [mx], tls: dane}\n"
				  "  - {name: billing, from: ['@billing.example'], user: [billing], via: [ses, main]}\n"
				  "  - {name: bounces, from: ['<>'], via: [main]}\n"
				  "  - {name: shop, from: ['@shop.example'], via: [ses]}\n";

static void the_first_route_that_fits_decides(void **state)
{
	(void)state;
	load(routes_yaml);
	ask("a@billing.example", "billing.example", "billing", "one@x.partner.example");
	assert_string_equal(route->name, "partners");
	assert_int_equal(targets.count, 1);
	expect(0, DESTINATION_MX, "x.partner.example");
	assert_int_equal(targets.targets[0].tls, CONFIG_TLS_DANE);
	ask("a@billing.example", "billing.example", "billing", "one@partner.example"); /* not a subdomain */
	assert_string_equal(route->name, "billing");
	expect(0, DESTINATION_RELAYHOST, "ses");
	expect(1, DESTINATION_RELAYHOST, "main");
	assert_int_equal(targets.count, 2);
}

static void all_conditions_must_hold(void **state)
{
	(void)state;
	load(routes_yaml);
	ask("a@billing.example", "billing.example", "app", "one@example.net");
	assert_null(route);
	expect(0, DESTINATION_RELAYHOST, "main");
	ask("a@example.org", "example.org", "billing", "one@example.net");
	assert_null(route);
	ask("a@billing.example", "billing.example", "", "one@example.net");
	assert_null(route);
	ask("A@Billing.Example", "billing.example", "billing", "one@example.net");
	assert_string_equal(route->name, "billing");
}

/* A bounce of the shop's own goes where the shop's mail goes, by the domain of its From field. */
static void a_null_sender_counts_as_its_from_domain(void **state)
{
	(void)state;
	load(routes_yaml);
	ask("", "example.org", "app", "one@example.net");
	assert_string_equal(route->name, "bounces");
	config_free(&config);
	load("relayhosts:\n  main: {address: 'a.example:587'}\n  ses: {address: 'b.example:587', default: false}\n"
	     "routes:\n  - {name: shop, from: ['@shop.example'], via: [ses]}\n");
	ask("", "shop.example", "app", "one@example.net");
	assert_string_equal(route->name, "shop");
	ask("", "", "app", "one@example.net");
	assert_null(route);
	ask("a@example.org", "shop.example", "app", "one@example.net"); /* a sender that is there counts alone */
	assert_null(route);
}

static void a_route_by_mx_and_relayhost_keeps_its_order(void **state)
{
	(void)state;
	load("relayhosts:\n  main: {address: 'a.example:587'}\nroutes:\n  - {name: r, to: ['*'], via: [mx, main]}\n");
	ask_to("one@example.net");
	assert_int_equal(targets.count, 2);
	expect(0, DESTINATION_MX, "example.net");
	expect(1, DESTINATION_RELAYHOST, "main");
	ask_to("one@a..b"); /* the relayhost is left */
	assert_int_equal(targets.count, 1);
	expect(0, DESTINATION_RELAYHOST, "main");
}

static void the_route_may_be_left_out_of_the_answer(void **state)
{
	struct router_question question = {.recipient = SLICE("one@example.net")};

	(void)state;
	load("");
	router_decide(config, &rng.rng, &question, &targets, NULL);
	assert_int_equal(targets.count, 1);
}

static void more_relayhosts_than_targets_are_cut(void **state)
{
	char yaml[4096] = "relayhosts:\n", line[80];

	(void)state;
	for (int i = 0; i < 40; i++) {
		snprintf(line, sizeof(line), "  r%d: {address: 'r%d.example:587', priority: %d}\n", i, i, i);
		snprintf(yaml + strlen(yaml), sizeof(yaml) - strlen(yaml), "%s", line);
	}
	load(yaml);
	ask_to("one@example.net");
	assert_int_equal(targets.count, SCHEDULER_TARGETS_MAX);
	expect(SCHEDULER_TARGETS_MAX - 1, DESTINATION_RELAYHOST, "r15");
}

/* RFC 8689: TLS-Required: No. */
static void tls_is_optional_unless_the_operator_says_otherwise(void **state)
{
	struct queue_recipient recipients[] = {{.address = SLICE("one@a.example")},
					       {.address = SLICE("one@b.example")},
					       {.address = SLICE("one@c.example")},
					       {.address = SLICE("one@d.example")}};
	struct queue_envelope envelope = {.recipients = recipients, .recipient_count = 4, .flags = QUEUE_TLS_OPTIONAL};
	static const bool expected[] = {true, false, false, true};
	struct router_question question;

	(void)state;
	load("relayhosts: {own: {address: b.example.net, default: false, tls: opportunistic}}\n"
	     "routes: [{to: ['@a.example'], via: [mx], tls: opportunistic}, {to: ['@b.example'], via: [mx], tls: "
	     "required},\n"
	     "         {to: ['@c.example'], via: [own]}]\n");
	for (uint32_t i = 0; i < ARRAY_LEN(expected); i++) {
		question = router_question_of(&envelope, i);
		router_decide(config, &rng.rng, &question, &targets, &route);
		assert_int_equal(targets.targets[0].tls_optional, expected[i]);
	}
	envelope.flags = QUEUE_REQUIRETLS;
	question = router_question_of(&envelope, 0);
	router_decide(config, &rng.rng, &question, &targets, &route);
	assert_false(targets.targets[0].tls_optional);
}

static void default_tls(void **state)
{
	(void)state;
	assert_int_equal(router_default_tls(DESTINATION_MX), CONFIG_TLS_OPPORTUNISTIC);
	assert_int_equal(router_default_tls(DESTINATION_RELAYHOST), CONFIG_TLS_VERIFY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_users_relayhost_goes_before_all_routes),
	    TEST(domains_are_lower_case_a_labels),
	    TEST(a_domain_that_is_too_long_fails),
	    TEST(without_relayhosts_mail_goes_by_mx),
	    TEST(relayhosts_come_by_priority),
	    TEST(equals_are_drawn_by_weight),
	    TEST(only_relayhosts_by_name_means_mx_by_default),
	    TEST(a_relayhost_takes_what_has_no_domain_of_dns),
	    TEST(the_first_route_that_fits_decides),
	    TEST(all_conditions_must_hold),
	    TEST(a_null_sender_counts_as_its_from_domain),
	    TEST(a_route_by_mx_and_relayhost_keeps_its_order),
	    TEST(the_route_may_be_left_out_of_the_answer),
	    TEST(more_relayhosts_than_targets_are_cut),
	    TEST(tls_is_optional_unless_the_operator_says_otherwise),
	    TEST(default_tls),
	};
	return cmocka_run_group_tests_name("router", tests, NULL, NULL);
}
