/* The addresses of a host, in virtual time. */
#include "support_dns.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SECOND = 1000 };

static struct env *env;

static int teardown(void **state)
{
	(void)state;
	if (env)
		env_free(&env);
	return 0;
}

struct got {
	int calls;
	enum dns_status status;
	bool secure;
	int64_t expires_at_ms;
	char canonical[300], reason[200];
	char text[1024]; /* "192.0.2.1 2001:db8::1" */
	size_t count;
	char curl[200];
};

static void on_got(void *ctx, const struct resolver_result *result)
{
	struct got *got = ctx;
	size_t len = 0;

	got->calls++;
	got->status = result->status;
	got->secure = result->secure;
	got->expires_at_ms = result->expires_at_ms;
	got->count = result->address_count;
	got->text[0] = '\0';
	snprintf(got->canonical, sizeof(got->canonical), "%s", result->canonical);
	snprintf(got->reason, sizeof(got->reason), "%s", result->reason);
	for (size_t i = 0; i < result->address_count; i++) {
		char address[DNS_ADDRESS_TEXT];
		dns_address_format(&result->addresses[i], address);
		len += (size_t)snprintf(got->text + len, sizeof(got->text) - len, "%s%s", i ? " " : "", address);
	}
	if (!resolver_format_curl(result, "host.example", 443, got->curl, sizeof(got->curl)))
		got->curl[0] = '\0';
}

static struct got look(const char *name, enum dns_ip ip, bool is_configured_name)
{
	struct resolver_options options = {ip, is_configured_name};
	struct got got = {0};

	assert_true(resolver_lookup(env->resolver, name, &options, on_got, &got) != 0);
	assert_int_equal(got.calls, 0);
	env_run(env);
	assert_int_equal(got.calls, 1);
	return got;
}

static void expect(const char *name, enum dns_ip ip, const char *addresses)
{
	struct got got = look(name, ip, false);

	assert_int_equal(got.status, DNS_OK);
	assert_string_equal(got.text, addresses);
}

static void expect_configured(const char *name, const char *addresses)
{
	struct got got = look(name, DNS_IP_PREFER4, true);

	assert_string_equal(got.text, addresses);
}

static const char both[] = "h.example A 192.0.2.1\n"
			   "h.example AAAA 2001:db8::1\n"
			   "four.example A 192.0.2.4\n"
			   "six.example AAAA 2001:db8::6\n"
			   "none.example NODATA\n";

static void families_come_as_the_policy_says(void **state)
{
	(void)state;
	env = env_new(both);
	expect("h.example", DNS_IP_4, "192.0.2.1");
	expect("h.example", DNS_IP_6, "2001:db8::1");
	expect("h.example", DNS_IP_PREFER4, "192.0.2.1 2001:db8::1");
	expect("h.example", DNS_IP_ANY, "2001:db8::1 192.0.2.1");
	expect("four.example", DNS_IP_PREFER4, "192.0.2.4");
	expect("six.example", DNS_IP_PREFER4, "2001:db8::6");
}

static void a_family_that_is_not_wanted_is_not_asked_for(void **state)
{
	(void)state;
	env = env_new(both);
	look("h.example", DNS_IP_4, false);
	assert_int_equal(env_count_asked(env, "h.example", DNS_AAAA), 0);
	look("six.example", DNS_IP_6, false);
	assert_int_equal(env_count_asked(env, "six.example", DNS_A), 0);
}

static void without_addresses_it_says_why(void **state)
{
	struct got got;

	(void)state;
	env = env_new(both);
	got = look("none.example", DNS_IP_PREFER4, false);
	assert_int_equal(got.status, DNS_NODATA);
	got = look("six.example", DNS_IP_4, false);
	assert_int_equal(got.status, DNS_NODATA);
	assert_string_equal(got.reason, "it has no IPv4 address");
	got = look("missing.example", DNS_IP_PREFER4, false);
	assert_int_equal(got.status, DNS_NXDOMAIN);
	got = look("a..b", DNS_IP_PREFER4, false);
	assert_int_equal(got.status, DNS_NXDOMAIN);
	got = look("", DNS_IP_PREFER4, true);
	assert_int_equal(got.status, DNS_NXDOMAIN);
}

static void a_failure_is_told_only_when_nothing_was_found(void **state)
{
	struct got got;

	(void)state;
	env = env_new("bad.example SERVFAIL");
	got = look("bad.example", DNS_IP_PREFER4, false);
	assert_int_equal(got.status, DNS_TEMPORARY);
	assert_string_equal(got.reason, "SERVFAIL");
	assert_string_equal(got.canonical, "bad.example");
}

/* Answers in an order and manner that a test chooses: A first, AAAA later or never. */
static void one_family_waits_a_second_for_the_other(void **state)
{
	struct resolver_options options = {DNS_IP_PREFER4, false};
	struct packet *p = test_calloc(1, sizeof(*p));
	struct got got = {0};

	(void)state;
	env = env_new("");
	env->is_held = true;
	resolver_lookup(env->resolver, "h.example", &options, on_got, &got);
	env_run(env);
	assert_int_equal(env->asked_count, 2);
	packet_begin(p, 0, QR | RD | RA, "h.example", DNS_A);
	packet_add(p, ANSWER, "h.example", DNS_A, 300, rdata_address("192.0.2.1"));
	dns_transport_answer(env->dns, env->asked[0].token, packet_slice(p));
	env_advance(env, 999);
	assert_int_equal(got.calls, 0);
	env_advance(env, 1);
	assert_int_equal(got.calls, 1);
	assert_string_equal(got.text, "192.0.2.1");
	/* What comes too late harms nobody. */
	dns_transport_answer(env->dns, env->asked[1].token, (struct slice){0});
	env_run(env);
	assert_int_equal(got.calls, 1);
	test_free(p);
}

/* No address yet: no hurry. */
static void a_negative_answer_does_not_start_the_wait(void **state)
{
	struct resolver_options options = {DNS_IP_PREFER4, false};
	struct packet *p = test_calloc(1, sizeof(*p));
	struct got got = {0};

	(void)state;
	env = env_new("");
	env->is_held = true;
	resolver_lookup(env->resolver, "h.example", &options, on_got, &got);
	packet_begin(p, 0, QR | RD | RA, "h.example", DNS_A);
	dns_transport_answer(env->dns, env->asked[0].token, packet_slice(p));
	env_advance(env, 20 * SECOND);
	assert_int_equal(got.calls, 0);
	packet_begin(p, 0, QR | RD | RA, "h.example", DNS_AAAA);
	packet_add(p, ANSWER, "h.example", DNS_AAAA, 300, rdata_address("2001:db8::1"));
	dns_transport_answer(env->dns, env->asked[1].token, packet_slice(p));
	env_run(env);
	assert_string_equal(got.text, "2001:db8::1");
	test_free(p);
}

static void aliases_and_authentication_are_told(void **state)
{
	struct got got;

	(void)state;
	env = env_new("a.example CNAME h.example\nh.example A 192.0.2.1\nh.example AAAA 2001:db8::1\n"
		      "i.example A 192.0.2.2\ni.example INSECURE\ni.example TTL 60");
	env->is_secure = true;
	got = look("a.example", DNS_IP_PREFER4, false);
	assert_string_equal(got.canonical, "h.example");
	assert_true(got.secure);
	assert_int_equal(got.expires_at_ms, env->clock.mono + 300 * SECOND);
	got = look("i.example", DNS_IP_PREFER4, false);
	assert_false(got.secure);
	assert_string_equal(got.canonical, "i.example");
	assert_int_equal(got.expires_at_ms, env->clock.mono + 60 * SECOND);
}

static void many_addresses_are_drawn_at_random(void **state)
{
	static char zone[8192];
	bool was_first[60] = {false};
	size_t len = 0, firsts = 0;

	(void)state;
	for (int i = 0; i < 60; i++)
		len += (size_t)snprintf(zone + len, sizeof(zone) - len, "h.example A 192.0.2.%d\n", i);
	for (int i = 0; i < 3; i++)
		len += (size_t)snprintf(zone + len, sizeof(zone) - len, "h.example AAAA 2001:db8::%d\n", i);
	env = env_new(zone);
	for (int i = 0; i < 300; i++) {
		struct got got = look("h.example", DNS_IP_PREFER4, false);
		unsigned number;

		assert_int_equal(got.count, RESOLVER_ADDRESSES_MAX);
		/* Two places are kept for the other family. */
		assert_non_null(strstr(got.text, "2001:db8::"));
		assert_int_equal(sscanf(got.text, "192.0.2.%u", &number), 1);
		firsts += !was_first[number];
		was_first[number] = true;
	}
	assert_true(firsts > 40);
}

static void equal_addresses_count_once(void **state)
{
	(void)state;
	env = env_new("h.example A 192.0.2.1\nh.example A 192.0.2.1\nh.example AAAA ::ffff:192.0.2.1");
	expect("h.example", DNS_IP_PREFER4, "192.0.2.1");
}

static void configured_names_may_be_addresses(void **state)
{
	struct got got;

	(void)state;
	env = env_new("");
	expect_configured("192.0.2.1", "192.0.2.1");
	expect_configured("2001:db8::1", "2001:db8::1");
	expect_configured("[2001:db8::1]", "2001:db8::1");
	/* Written on purpose, whatever the policy. */
	got = look("2001:db8::1", DNS_IP_4, true);
	assert_string_equal(got.text, "2001:db8::1");
	assert_int_equal(env->asked_count, 0);
	/* From DNS it would be a name like others. */
	got = look("192.0.2.1", DNS_IP_4, false);
	assert_int_equal(got.status, DNS_NXDOMAIN);
}

static void configured_names_are_looked_for_in_the_hosts_file(void **state)
{
	struct got got;

	(void)state;
	env = env_new("mailpit.example A 192.0.2.99");
	env_write_hosts(env, "# comment 192.0.2.1 commented.example\n"
			     "127.0.0.1\tlocalhost\n"
			     "192.0.2.7 mailpit.example   Mailpit # 192.0.2.8\n"
			     "2001:db8::7 mailpit\n"
			     "nonsense mailpit\n"
			     "\n"
			     "192.0.2.9   last.example");
	expect_configured("MAILPIT", "192.0.2.7 2001:db8::7");
	expect_configured("mailpit.example.", "192.0.2.7");
	expect_configured("last.example", "192.0.2.9");
	got = look("mailpit", DNS_IP_6, true);
	assert_string_equal(got.text, "2001:db8::7");
	/* No IPv6 address in the file: what there is. */
	got = look("last.example", DNS_IP_6, true);
	assert_string_equal(got.text, "192.0.2.9");
	assert_int_equal(env->asked_count, 0);
	got = look("commented.example", DNS_IP_4, true);
	assert_int_equal(got.status, DNS_NXDOMAIN);
	/* The names of strangers are not. */
	expect("mailpit.example", DNS_IP_4, "192.0.2.99");
}

static void localhost_never_needs_dns(void **state)
{
	(void)state;
	env = env_new("");
	expect_configured("localhost", "127.0.0.1 ::1");
	expect_configured("app.localhost", "127.0.0.1 ::1");
	assert_int_equal(env->asked_count, 0);
	assert_int_equal(look("notlocalhost", DNS_IP_4, true).status, DNS_NXDOMAIN);
}

static void answers_come_ready_for_curl(void **state)
{
	(void)state;
	env = env_new(both);
	assert_string_equal(look("h.example", DNS_IP_PREFER4, false).curl, "host.example:443:192.0.2.1,[2001:db8::1]");
	assert_string_equal(look("none.example", DNS_IP_PREFER4, false).curl, "");
}

static void a_text_too_small_for_curl_is_refused(void **state)
{
	struct resolver_result result = {.address_count = 1};
	char out[40];

	(void)state;
	dns_address_parse(SLICE("192.0.2.1"), &result.addresses[0]);
	assert_true(resolver_format_curl(&result, "h.example", 443, out, 24));
	assert_string_equal(out, "h.example:443:192.0.2.1");
	assert_false(resolver_format_curl(&result, "h.example", 443, out, 23));
	assert_false(resolver_format_curl(&result, "h.example", 443, out, 5));
}

static void cancelled_in_each_state_nothing_comes(void **state)
{
	static const char *const names[] = {"h.example", "192.0.2.1", "a..b"};
	struct resolver_options options = {DNS_IP_PREFER4, true};
	struct got got = {0};
	uint64_t id;

	(void)state;
	env = env_new(both);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		id = resolver_lookup(env->resolver, names[i], &options, on_got, &got);
		resolver_cancel(env->resolver, &id);
		assert_int_equal(id, 0);
		resolver_cancel(env->resolver, &id);
		env_run(env);
	}
	/* While one family waits for the other. */
	env->is_held = true;
	dns_flush(env->dns);
	id = resolver_lookup(env->resolver, "h.example", &options, on_got, &got);
	env->is_held = false;
	look("four.example", DNS_IP_4, false);
	resolver_cancel(env->resolver, &id);
	env_advance(env, 10 * SECOND);
	assert_int_equal(got.calls, 0);
	/* Freed with some on the way. */
	env->is_held = true;
	resolver_lookup(env->resolver, "six.example", &options, on_got, &got);
	resolver_lookup(env->resolver, "192.0.2.1", &options, on_got, &got);
	env_free(&env);
	assert_int_equal(got.calls, 0);
}

struct self {
	uint64_t id;
	int calls;
};

static void on_cancel_self(void *ctx, const struct resolver_result *result)
{
	struct self *self = ctx;

	self->calls++;
	resolver_cancel(env->resolver, &self->id);
	assert_int_equal(result->address_count, 2);
}

static void a_callback_may_cancel_its_own_lookup(void **state)
{
	struct resolver_options options = {DNS_IP_PREFER4, false};
	struct self self = {0, 0};

	(void)state;
	env = env_new(both);
	self.id = resolver_lookup(env->resolver, "h.example", &options, on_cancel_self, &self);
	env_run(env);
	assert_int_equal(self.calls, 1);
}

static struct loop loop;
static char asked_names[4096];

/* Answers for mailpit.two.example, smtp.example, a.b.example; fails for what is below broken.example. */
static bool on_query(void *ctx, struct slice query, bool is_tcp, struct packet *reply, size_t *close_after)
{
	char name[DNS_NAME_MAX + 1];
	size_t len = strlen(asked_names);
	bool is_there;

	(void)ctx, (void)is_tcp, (void)close_after;
	query_name(query, name);
	snprintf(asked_names + len, sizeof(asked_names) - len, "%s%s", len ? " " : "", name);
	is_there = strcmp(name, "mailpit.two.example") == 0 || strcmp(name, "smtp.example") == 0 ||
		   strcmp(name, "a.b.example") == 0;
	packet_begin(reply, query_id(query), QR | RD | RA | (is_there ? 0 : NXDOMAIN), name, query_type(query));
	if (strstr(name, "broken.one.example"))
		packet_begin(reply, query_id(query), QR | RD | RA | SERVFAIL, name, query_type(query));
	else if (is_there)
		packet_add(reply, ANSWER, name, DNS_A, 300, rdata_address("192.0.2.1"));
	return true;
}

static void expect_search(struct resolver *resolver, const char *name, bool is_configured_name, const char *names,
			  enum dns_status status)
{
	struct resolver_options options = {DNS_IP_4, is_configured_name};
	struct got got = {0};

	asked_names[0] = '\0';
	dns_flush(loop.dns);
	resolver_lookup(resolver, name, &options, on_got, &got);
	loop_run_until(&loop, &got.calls);
	assert_string_equal(asked_names, names);
	assert_int_equal(got.status, status);
}

static void configured_names_are_completed_by_the_search_list(void **state)
{
	char path[] = "/tmp/relayd-test-search-XXXXXX";
	static const char text[] = "search one.example two.example\noptions ndots:2\n";
	const char *servers[1];
	struct dns_options options = {
	    .servers = servers, .server_count = 1, .resolv_conf = path, .timeout_ms = 1000, .tries = 2};
	struct resolver *resolver;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	loop_init(&loop);
	loop.servers[loop.server_count++] = server_new(on_query, NULL);
	servers[0] = server_address(loop.servers[0]);
	loop.dns = dns_new(&options, &loop.host, loop.timers, clock_system(), rng_system(), NULL);
	unlink(path);
	assert_non_null(loop.dns);
	resolver = resolver_new(loop.dns, loop.timers, clock_system(), rng_system(), "/dev/null");

	expect_search(resolver, "mailpit", true, "mailpit.one.example mailpit.two.example", DNS_OK);
	expect_search(resolver, "smtp.example", true, "smtp.example.one.example smtp.example.two.example smtp.example",
		      DNS_OK);
	expect_search(resolver, "a.b.example", true, "a.b.example", DNS_OK);
	expect_search(resolver, "c.b.example", true, "c.b.example c.b.example.one.example c.b.example.two.example",
		      DNS_NXDOMAIN);
	expect_search(resolver, "mailpit.", true, "mailpit", DNS_NXDOMAIN);
	/* A failure on the way is not the end, but what is left when nothing is found. */
	expect_search(resolver, "broken", true, "broken.one.example broken.one.example broken.two.example broken",
		      DNS_TEMPORARY);
	/* A stranger's name never. */
	expect_search(resolver, "mailpit", false, "mailpit", DNS_NXDOMAIN);
	resolver_free(&resolver);
	loop_fini(&loop);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_teardown(function, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(families_come_as_the_policy_says),
	    TEST(a_family_that_is_not_wanted_is_not_asked_for),
	    TEST(without_addresses_it_says_why),
	    TEST(a_failure_is_told_only_when_nothing_was_found),
	    TEST(one_family_waits_a_second_for_the_other),
	    TEST(a_negative_answer_does_not_start_the_wait),
	    TEST(aliases_and_authentication_are_told),
	    TEST(many_addresses_are_drawn_at_random),
	    TEST(equal_addresses_count_once),
	    TEST(configured_names_may_be_addresses),
	    TEST(configured_names_are_looked_for_in_the_hosts_file),
	    TEST(localhost_never_needs_dns),
	    TEST(answers_come_ready_for_curl),
	    TEST(a_text_too_small_for_curl_is_refused),
	    TEST(cancelled_in_each_state_nothing_comes),
	    TEST(a_callback_may_cancel_its_own_lookup),
	    TEST(configured_names_are_completed_by_the_search_list),
	};

	return cmocka_run_group_tests_name("dns resolver", tests, NULL, NULL);
}
