/* Where mail goes: RFC 5321 section 5.1 and everything that DNS can say instead. In virtual time. */
#include "support_dns.h"

#include "dns/mx.h"

#include <stdio.h>
#include <stdlib.h>

static struct env *env;
static struct mx *mx;
static struct mx_options options;

static const char *const own_names[] = {"relay.example.com", "Alias.Example.COM."};
static struct dns_address own_addresses[3];

static void start(const char *zone)
{
	env = env_new(zone);
	mx = mx_new(env->dns, env->resolver, env->timers, &env->clock.clock, &env->rng.rng, &options);
}

static int setup(void **state)
{
	(void)state;
	dns_address_parse(SLICE("192.0.2.200"), &own_addresses[0]);
	dns_address_parse(SLICE("2001:db8::200"), &own_addresses[1]);
	dns_address_parse(SLICE("127.0.0.1"), &own_addresses[2]);
	options = (struct mx_options){.ip = DNS_IP_PREFER4,
				      .own_names = own_names,
				      .own_name_count = ARRAY_LEN(own_names),
				      .own_addresses = own_addresses,
				      .own_address_count = ARRAY_LEN(own_addresses)};
	return 0;
}

static void stop(void)
{
	mx_free(&mx);
	if (env)
		env_free(&env);
}

static int teardown(void **state)
{
	(void)state;
	stop();
	return 0;
}

struct got {
	int calls;
	struct mx_result *result;
};

static void on_got(void *ctx, struct mx_result *result)
{
	struct got *got = ctx;

	got->calls++;
	mx_result_free(&got->result);
	got->result = result;
}

/* Valid until the next one; NULL frees. */
static const struct mx_result *look(const char *domain)
{
	static struct got got;

	mx_result_free(&got.result);
	got.calls = 0;
	if (!domain)
		return NULL;
	assert_true(mx_lookup(mx, domain, on_got, &got) != 0);
	assert_int_equal(got.calls, 0);
	env_run(env);
	assert_int_equal(got.calls, 1);
	return got.result;
}

/* "10 mx.example [192.0.2.1 2001:db8::1], 20 ..." */
static const char *describe(const struct mx_result *result)
{
	static char out[65536];
	size_t len = 0;

	out[0] = '\0';
	for (size_t i = 0; i < result->host_count; i++) {
		const struct mx_host *host = &result->hosts[i];

		len += (size_t)snprintf(out + len, sizeof(out) - len, "%s%u %s [", i ? ", " : "", host->preference,
					host->name);
		for (size_t a = 0; a < host->address_count; a++) {
			char text[DNS_ADDRESS_TEXT];
			dns_address_format(&host->addresses[a], text);
			len += (size_t)snprintf(out + len, sizeof(out) - len, "%s%s", a ? " " : "", text);
		}
		len += (size_t)snprintf(out + len, sizeof(out) - len, "]");
	}
	return out;
}

static void expect_hosts(const char *domain, const char *hosts)
{
	const struct mx_result *result = look(domain);

	if (result->status != MX_OK)
		fail_msg("%s: %s (%s)", domain, mx_status_name(result->status), result->text);
	assert_string_equal(describe(result), hosts);
	assert_string_equal(result->text, "");
	look(NULL);
}

static void expect_status(const char *domain, enum mx_status status, const char *words)
{
	const struct mx_result *result = look(domain);

	if (result->status != status)
		fail_msg("%s: %s (%s)", domain, mx_status_name(result->status), result->text);
	if (!strstr(result->text, words))
		fail_msg("'%s' lacks '%s'", result->text, words);
	assert_int_equal(result->host_count, 0);
	look(NULL);
}

/* A zone, a domain, what is expected: hosts, or a status with words. */
static void expect_zone_hosts(const char *zone, const char *domain, const char *hosts)
{
	start(zone);
	expect_hosts(domain, hosts);
	stop();
}

static void expect_zone_status(const char *zone, const char *domain, enum mx_status status, const char *words)
{
	start(zone);
	expect_status(domain, status, words);
	stop();
}

static void hosts_come_by_preference(void **state)
{
	(void)state;
	expect_zone_hosts("d.example MX 20 b.example\nd.example MX 5 a.example\nd.example MX 300 c.example\n"
			  "a.example A 192.0.2.1\na.example AAAA 2001:db8::1\nb.example A 192.0.2.2\n"
			  "c.example AAAA 2001:db8::3",
			  "D.Example",
			  "5 a.example [192.0.2.1 2001:db8::1], 20 b.example [192.0.2.2], 300 c.example [2001:db8::3]");
}

static void equal_hosts_come_at_random(void **state)
{
	int firsts[4] = {0};

	(void)state;
	start("d.example MX 10 m0.example\nd.example MX 10 m1.example\nd.example MX 10 m2.example\n"
	      "d.example MX 5 m3.example\nm0.example A 192.0.2.1\nm1.example A 192.0.2.2\nm2.example A 192.0.2.3\n"
	      "m3.example A 192.0.2.4");
	for (int i = 0; i < 300; i++) {
		const struct mx_result *result = look("d.example");

		assert_int_equal(result->host_count, 4);
		assert_string_equal(result->hosts[0].name, "m3.example");
		firsts[result->hosts[1].name[1] - '0']++;
	}
	look(NULL);
	for (int i = 0; i < 3; i++)
		assert_in_range(firsts[i], 50, 150);
}

static void a_host_named_twice_counts_once_with_its_best_preference(void **state)
{
	(void)state;
	expect_zone_hosts("d.example MX 30 a.example\nd.example MX 20 b.example\nd.example MX 10 A.EXAMPLE\n"
			  "a.example A 192.0.2.1\nb.example A 192.0.2.2",
			  "d.example", "10 a.example [192.0.2.1], 20 b.example [192.0.2.2]");
}

/* H1, H2 */
static void null_mx_takes_no_mail(void **state)
{
	(void)state;
	start("d.example MX 0 .\nd.example A 192.0.2.1\ntwo.example MX 0 .\ntwo.example MX 10 a.example\n"
	      "a.example A 192.0.2.1\nten.example MX 10 .");
	expect_status("d.example", MX_NULL, "takes no mail");
	assert_int_equal(env_count_asked(env, "d.example", DNS_A), 0);
	expect_status("ten.example", MX_NULL, "takes no mail");
	expect_hosts("two.example", "10 a.example [192.0.2.1]");
	assert_string_equal(mx_status_enhanced(MX_NULL), "5.1.10");
}

/* H3 */
static void aliases_are_followed(void **state)
{
	const struct mx_result *result;

	(void)state;
	start("d.example CNAME real.example\nreal.example MX 10 mail.example\nmail.example CNAME host.example\n"
	      "host.example A 192.0.2.1\nalias.example CNAME web.example\nweb.example A 192.0.2.2");
	result = look("d.example");
	assert_string_equal(describe(result), "10 mail.example [192.0.2.1]");
	assert_string_equal(result->domain, "d.example");
	assert_string_equal(result->hosts[0].canonical, "host.example");
	/* An alias to a host without MX: its address. */
	result = look("alias.example");
	assert_true(result->is_implicit);
	assert_string_equal(describe(result), "0 alias.example [192.0.2.2]");
	assert_string_equal(result->hosts[0].canonical, "web.example");
	look(NULL);
}

/* H4 */
static void alias_loops_are_temporary(void **state)
{
	(void)state;
	expect_zone_status("d.example CNAME e.example\ne.example CNAME d.example", "d.example", MX_TEMPORARY,
			   "circles");
	expect_zone_status("d.example MX 10 a.example\na.example CNAME a.example", "d.example", MX_TEMPORARY,
			   "cannot be looked up now");
}

/* H5 */
static void addresses_where_no_mail_may_go_are_refused(void **state)
{
	static const char *const bad[] = {"A 127.0.0.1",  "A 127.1.2.3",       "AAAA ::1",     "A 0.0.0.0",
					  "AAAA ::",	  "A 169.254.169.254", "AAAA fe80::1", "A 224.0.0.1",
					  "AAAA ff02::1", "A 255.255.255.255", "A 240.0.0.1",  "AAAA ::ffff:127.0.0.1"};
	char zone[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(zone, sizeof(zone), "d.example MX 10 a.example\na.example %s", bad[i]);
		expect_zone_status(zone, "d.example", MX_LOOP, "loopback or other unusable");
		/* A better one is still used, and a worse one as well: such a host is not us, only broken. */
		snprintf(zone, sizeof(zone),
			 "d.example MX 10 a.example\na.example %s\nd.example MX 20 b.example\nb.example A 192.0.2.1",
			 bad[i]);
		expect_zone_hosts(zone, "d.example", "20 b.example [192.0.2.1]");
	}
	/* Without MX too; and private ones are where the mail of a company goes. */
	expect_zone_status("d.example A 127.0.0.1", "d.example", MX_LOOP, "loopback");
	expect_zone_hosts("d.example A 10.0.0.1\nd.example AAAA fd00::1", "d.example",
			  "0 d.example [10.0.0.1 fd00::1]");
}

static void loopback_is_fine_when_allowed(void **state)
{
	(void)state;
	options.allow_loopback = true;
	/* Also 127.0.0.1, although it is an address of ours. */
	expect_zone_hosts("d.example MX 10 a.example\na.example A 127.0.0.1\na.example AAAA ::1", "d.example",
			  "10 a.example [127.0.0.1 ::1]");
	expect_zone_status("d.example A 0.0.0.0", "d.example", MX_LOOP, "unusable");
	expect_zone_hosts("", "[127.0.0.1]", "0 [127.0.0.1] [127.0.0.1]");
}

/* H6 */
static void an_address_as_mx_host_is_no_host(void **state)
{
	(void)state;
	start("d.example MX 10 192.0.2.1\n192.0.2.1 A 192.0.2.1\ne.example MX 10 192.0.2.1\n"
	      "e.example MX 20 a.example\na.example A 192.0.2.9");
	expect_status("d.example", MX_UNRESOLVED, "none of the mail hosts");
	expect_hosts("e.example", "20 a.example [192.0.2.9]");
	assert_int_equal(env_count_asked(env, "192.0.2.1", DNS_A), 0);
}

/* H7 */
static void our_own_name_takes_its_preference_along(void **state)
{
	static const char zone[] = "d.example MX 10 a.example\nd.example MX 20 relay.example.com\n"
				   "d.example MX 20 b.example\nd.example MX 30 c.example\n"
				   "best.example MX 10 ALIAS.example.com\nbest.example MX 20 a.example\n"
				   "only.example MX 10 relay.example.com\n"
				   "gone.example MX 10 nowhere.example\ngone.example MX 20 relay.example.com\n"
				   "sick.example MX 10 sick-mx.example\nsick.example MX 20 relay.example.com\n"
				   "sick-mx.example SERVFAIL\n"
				   "relay.example.com A 192.0.2.77\n"
				   "a.example A 192.0.2.1\nb.example A 192.0.2.2\nc.example A 192.0.2.3";

	(void)state;
	start(zone);
	expect_hosts("d.example", "10 a.example [192.0.2.1]");
	assert_int_equal(env_count_asked(env, "c.example", DNS_A), 0);
	expect_status("best.example", MX_LOOP, "loops back");
	expect_status("only.example", MX_LOOP, "loops back");
	expect_status("gone.example", MX_LOOP, "loops back");
	/* The better host may come back. */
	expect_status("sick.example", MX_TEMPORARY, "cannot be looked up now");
	/* Our own name without MX. */
	expect_status("relay.example.com", MX_LOOP, "loops back");
	assert_string_equal(mx_status_enhanced(MX_LOOP), "5.4.6");
}

/* H7 */
static void our_own_address_takes_its_preference_along(void **state)
{
	(void)state;
	start("d.example MX 10 a.example\nd.example MX 20 b.example\nd.example MX 20 c.example\n"
	      "d.example MX 30 e.example\na.example A 192.0.2.1\nb.example A 192.0.2.2\nb.example A 192.0.2.200\n"
	      "c.example A 192.0.2.3\ne.example A 192.0.2.4\n"
	      "self.example A 192.0.2.200\nself6.example AAAA 2001:db8::200");
	expect_hosts("d.example", "10 a.example [192.0.2.1]");
	expect_status("self.example", MX_LOOP, "loops back");
	expect_status("self6.example", MX_LOOP, "loops back");
	expect_status("[192.0.2.200]", MX_LOOP, "this host");
	expect_status("[IPv6:2001:db8::200]", MX_LOOP, "this host");
}

/* H8 */
static char *large_zone(int hosts, int first_alive)
{
	size_t size = (size_t)hosts * 80 + 1, len = 0;
	char *zone = malloc(size);

	for (int i = 0; i < hosts; i++)
		len += (size_t)snprintf(zone + len, size - len, "d.example MX 10 m%d.example\n", i);
	for (int i = first_alive; i < hosts; i++)
		len += (size_t)snprintf(zone + len, size - len, "m%d.example A 192.0.2.%d\n", i, i % 199);
	return zone;
}

static void a_hundred_hosts_are_not_all_tried(void **state)
{
	char *zone = large_zone(100, 0);
	bool seen[100] = {false};
	size_t different = 0;

	(void)state;
	start(zone);
	for (int i = 0; i < 20; i++) {
		const struct mx_result *result = look("d.example");

		assert_int_equal(result->status, MX_OK);
		assert_int_equal(result->host_count, MX_HOSTS_AT_ONCE);
		assert_int_equal(result->hosts_left_out, 100 - MX_HOSTS_AT_ONCE);
		for (size_t h = 0; h < result->host_count; h++)
			seen[strtol(result->hosts[h].name + 1, NULL, 10)] = true;
	}
	look(NULL);
	for (int i = 0; i < 100; i++)
		different += seen[i];
	/* Another choice each time. */
	assert_true(different > 80);
	stop();
	free(zone);
}

/* The first sixteen have no address: the next are asked, up to 64. */
static void dead_hosts_in_front_do_not_hide_the_living(void **state)
{
	static char zone[8192];
	size_t len = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		len += (size_t)snprintf(zone + len, sizeof(zone) - len, "d.example MX %d m%d.example\n", i, i);
	snprintf(zone + len, sizeof(zone) - len, "m40.example A 192.0.2.40\nm70.example A 192.0.2.70\n");
	start(zone);
	expect_hosts("d.example", "40 m40.example [192.0.2.40]");
	assert_int_equal(env_count_asked(env, "m47.example", DNS_A), 1);
	assert_int_equal(env_count_asked(env, "m48.example", DNS_A), 0);
	stop();
	/* Beyond 64 it ends. */
	*strstr(zone, "m40.example A") = 'x';
	start(zone);
	expect_status("d.example", MX_UNRESOLVED, "none of the mail hosts");
	assert_int_equal(env_count_asked(env, "m63.example", DNS_A), 1);
	assert_int_equal(env_count_asked(env, "m64.example", DNS_A), 0);
}

/* H8 */
static void addresses_have_a_ceiling_in_all(void **state)
{
	static char zone[16384];
	const struct mx_result *result;
	size_t len = 0, addresses = 0;

	(void)state;
	for (int i = 0; i < 10; i++) {
		len += (size_t)snprintf(zone + len, sizeof(zone) - len, "d.example MX %d m%d.example\n", i, i);
		for (int a = 0; a < 20; a++)
			len += (size_t)snprintf(zone + len, sizeof(zone) - len, "m%d.example A 192.0.%d.%d\n", i, i, a);
	}
	start(zone);
	result = look("d.example");
	for (size_t i = 0; i < result->host_count; i++)
		addresses += result->hosts[i].address_count;
	assert_int_equal(addresses, MX_ADDRESSES_MAX);
	assert_string_equal(result->hosts[0].name, "m0.example");
	assert_int_equal(result->hosts[0].address_count, RESOLVER_ADDRESSES_MAX);
	look(NULL);
}

/* H9, H12 */
static void without_mx_the_domain_is_its_host(void **state)
{
	const struct mx_result *result;

	(void)state;
	start("d.example A 192.0.2.1\nd.example AAAA 2001:db8::1\nempty.example NODATA");
	result = look("d.example");
	assert_true(result->is_implicit);
	assert_string_equal(describe(result), "0 d.example [192.0.2.1 2001:db8::1]");
	look(NULL);
	expect_status("empty.example", MX_NO_DOMAIN, "neither mail hosts (MX) nor an address");
}

/* H10 */
static void mx_hosts_without_address_never_fall_back_to_the_domain(void **state)
{
	(void)state;
	start("d.example MX 10 gone.example\nd.example MX 20 empty.example\nempty.example NODATA\n"
	      "d.example A 192.0.2.1\ns.example MX 10 bad.example\nbad.example SERVFAIL\ns.example A 192.0.2.1\n"
	      "m.example MX 10 bad.example\nm.example MX 20 a.example\na.example A 192.0.2.1");
	expect_status("d.example", MX_UNRESOLVED, "none of the mail hosts of d.example (2) has an address");
	assert_string_equal(mx_status_enhanced(MX_UNRESOLVED), "5.4.4");
	expect_status("s.example", MX_TEMPORARY, "cannot be looked up now");
	assert_int_equal(env_count_asked(env, "d.example", DNS_A), 0);
	assert_int_equal(env_count_asked(env, "s.example", DNS_A), 0);
	/* One that fails does not hide another. */
	expect_hosts("m.example", "20 a.example [192.0.2.1]");
}

/* H11, H13 */
static void only_nxdomain_is_final(void **state)
{
	(void)state;
	start("sick.example SERVFAIL\nsick.example A 192.0.2.1\nmute.example SILENT\nmute.example A 192.0.2.1");
	expect_status("missing.example", MX_NO_DOMAIN, "does not exist");
	assert_string_equal(mx_status_enhanced(MX_NO_DOMAIN), "5.1.2");
	expect_status("sick.example", MX_TEMPORARY, "SERVFAIL");
	expect_status("mute.example", MX_TEMPORARY, "in time");
	assert_string_equal(mx_status_enhanced(MX_TEMPORARY), "4.4.3");
	/* Never the address as if there were no MX. */
	assert_int_equal(env_count_asked(env, "sick.example", DNS_A), 0);
	assert_int_equal(env_count_asked(env, "mute.example", DNS_A), 0);
}

/* H19 */
static void odd_hosts_are_left_out_or_taken_as_they_are(void **state)
{
	(void)state;
	start(
	    "d.example MX 10 a\\.b.example\nd.example MX 10 a\\032b.example\nd.example MX 10 -bad.example\n"
	    "d.example MX 10 sp\\255ce.example\nd.example MX 20 _dc-mx.12ab.example\n_dc-mx.12ab.example A 192.0.2.1\n"
	    "odd.example MX 10 a\\.b.example");
	expect_hosts("d.example", "20 _dc-mx.12ab.example [192.0.2.1]");
	expect_status("odd.example", MX_UNRESOLVED, "none of the mail hosts");
}

static void the_family_is_chosen_by_policy(void **state)
{
	static const char zone[] =
	    "d.example MX 10 a.example\na.example A 192.0.2.1\na.example AAAA 2001:db8::1\n"
	    "six.example MX 10 b.example\nb.example AAAA 2001:db8::2\nplain.example AAAA 2001:db8::3";

	(void)state;
	options.ip = DNS_IP_4;
	start(zone);
	expect_hosts("d.example", "10 a.example [192.0.2.1]");
	expect_status("six.example", MX_UNRESOLVED, "has an IPv4 address");
	expect_status("plain.example", MX_NO_DOMAIN, "nor an IPv4 address");
	/* A reload changes what comes. */
	options.ip = DNS_IP_6;
	mx_configure(mx, &options);
	expect_hosts("d.example", "10 a.example [2001:db8::1]");
	options.ip = DNS_IP_ANY;
	mx_configure(mx, &options);
	expect_hosts("d.example", "10 a.example [2001:db8::1 192.0.2.1]");
}

static void dnssec_is_told_for_mx_and_for_each_host(void **state)
{
	const struct mx_result *result;

	(void)state;
	start("d.example MX 10 a.example\nd.example MX 20 b.example\na.example A 192.0.2.1\nb.example A 192.0.2.2\n"
	      "b.example INSECURE\nplain.example A 192.0.2.3\ni.example MX 10 a.example\ni.example INSECURE");
	env->is_secure = true;
	result = look("d.example");
	assert_true(result->mx_secure);
	assert_true(result->hosts[0].secure);
	assert_false(result->hosts[1].secure);
	result = look("plain.example");
	assert_true(result->is_implicit);
	assert_true(result->mx_secure);
	assert_true(result->hosts[0].secure);
	result = look("i.example");
	assert_false(result->mx_secure);
	assert_true(result->hosts[0].secure);
	look(NULL);
}

/* H18: the least of all of them, clamped. */
static void results_say_when_to_ask_again(void **state)
{
	const struct mx_result *result;

	(void)state;
	start("d.example MX 10 a.example\na.example A 192.0.2.1\na.example TTL 90\n"
	      "zero.example MX 10 b.example\nzero.example TTL 0\nb.example A 192.0.2.1\n"
	      "huge.example MX 10 c.example\nhuge.example TTL 2147483648\nc.example A 192.0.2.1\n"
	      "long.example MX 10 e.example\nlong.example TTL 2147483647\ne.example A 192.0.2.1\n"
	      "e.example TTL 2147483647");
	result = look("d.example");
	assert_int_equal(result->expires_at_ms - env->clock.mono, 90 * 1000);
	result = look("zero.example");
	assert_int_equal(result->expires_at_ms - env->clock.mono, 30 * 1000);
	result = look("huge.example");
	assert_int_equal(result->expires_at_ms - env->clock.mono, 30 * 1000);
	result = look("long.example");
	assert_int_equal(result->expires_at_ms - env->clock.mono, 3600 * 1000);
	look(NULL);
}

/* H23 */
static void address_literals_are_their_own_host(void **state)
{
	const struct mx_result *result;

	(void)state;
	start("");
	result = look("[192.0.2.1]");
	assert_string_equal(describe(result), "0 [192.0.2.1] [192.0.2.1]");
	assert_true(result->is_literal);
	assert_string_equal(result->domain, "[192.0.2.1]");
	look(NULL);
	expect_hosts("[IPv6:2001:db8::1]", "0 [IPv6:2001:db8::1] [2001:db8::1]");
	expect_status("[127.0.0.1]", MX_LOOP, "no mail may go");
	expect_status("[IPv6:::1]", MX_LOOP, "no mail may go");
	expect_status("[192.0.2]", MX_NO_DOMAIN, "address literal");
	expect_status("[general:thing]", MX_NO_DOMAIN, "address literal");
	expect_status("[", MX_NO_DOMAIN, "address literal");
	expect_status("192.0.2.1", MX_NO_DOMAIN, "brackets");
	assert_int_equal(env->asked_count, 0);
}

/* H23 */
static void domains_become_a_labels(void **state)
{
	static const struct {
		const char *domain, *ascii;
	} good[] = {{"Example.ORG", "example.org"},
		    {"example.org.", "example.org"},
		    {"b\xc3\xbc"
		     "cher.example",
		     "xn--bcher-kva.example"},
		    {"B\xc3\x9c"
		     "CHER.example",
		     "xn--bcher-kva.example"},
		    {"xn--bcher-kva.example", "xn--bcher-kva.example"},
		    {"\xe4\xbe\x8b\xe3\x81\x88.\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88", "xn--r8jz45g.xn--zckzah"},
		    {"localhost", "localhost"},
		    {"under_score.example", "under_score.example"}};
	static const char *const bad[] = {
	    "",	    ".",       "a..b",	       ".example",     "a b.example", "a\\.b.example",
	    "-a.b", "1.2.3.4", "\xff.example", "\xc3.example", "a@b",	      "b\xc3\xbc!cher.example"};
	char out[256], label[80];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		if (!mx_domain_to_ascii(slice_of_str(good[i].domain), out))
			fail_msg("'%s' was refused", good[i].domain);
		assert_string_equal(out, good[i].ascii);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		if (mx_domain_to_ascii(slice_of_str(bad[i]), out))
			fail_msg("'%s' was taken as '%s'", bad[i], out);
		assert_string_equal(out, "");
	}
	memset(label, 'a', sizeof(label));
	assert_false(mx_domain_to_ascii(slice_of(label, 64), out));
	assert_true(mx_domain_to_ascii(slice_of(label, 63), out));
	assert_false(mx_domain_to_ascii(slice_of("a\0b", 3), out));
}

/* H23 */
static void an_idn_is_asked_for_as_a_labels(void **state)
{
	(void)state;
	start("xn--bcher-kva.example MX 10 a.example\na.example A 192.0.2.1");
	expect_hosts("b\xc3\xbc"
		     "cher.example",
		     "10 a.example [192.0.2.1]");
	expect_status("not a domain", MX_NO_DOMAIN, "not a domain name");
	expect_status("", MX_NO_DOMAIN, "not a domain name");
}

static void cancelled_in_each_state_nothing_comes(void **state)
{
	static const char *const domains[] = {"d.example", "[192.0.2.1]", "not a domain"};
	struct got got = {0};
	uint64_t id;

	(void)state;
	start("d.example MX 10 a.example\nd.example MX 20 b.example\na.example A 192.0.2.1\nb.example A 192.0.2.2");
	for (size_t i = 0; i < ARRAY_LEN(domains); i++) {
		id = mx_lookup(mx, domains[i], on_got, &got);
		mx_cancel(mx, &id);
		assert_int_equal(id, 0);
		mx_cancel(mx, &id);
		env_run(env);
	}
	/* The MX is known, the addresses are on their way. */
	dns_flush(env->dns);
	env->is_held = true;
	id = mx_lookup(mx, "d.example", on_got, &got);
	env_answer_held(env);
	env_run(env);
	assert_int_equal(env_count_asked(env, "b.example", DNS_AAAA), 1);
	mx_cancel(mx, &id);
	env_answer_held(env);
	env_run(env);
	/* Freed, and all that is below it, with some on the way. */
	dns_flush(env->dns);
	mx_lookup(mx, "d.example", on_got, &got);
	mx_lookup(mx, "[192.0.2.1]", on_got, &got);
	mx_free(&mx);
	env_answer_held(env);
	env_run(env);
	assert_int_equal(got.calls, 0);
}

struct again {
	int calls;
	uint64_t id;
};

static void on_look_again(void *ctx, struct mx_result *result)
{
	struct again *again = ctx;

	mx_result_free(&result);
	mx_cancel(mx, &again->id);
	if (++again->calls < 3)
		again->id = mx_lookup(mx, "d.example", on_look_again, again);
}

static void a_callback_may_look_up_and_cancel(void **state)
{
	struct again again = {0, 0};

	(void)state;
	start("d.example MX 10 a.example\na.example A 192.0.2.1");
	again.id = mx_lookup(mx, "d.example", on_look_again, &again);
	env_run(env);
	assert_int_equal(again.calls, 3);
}

/* H17: one that is slow, others go on. */
static void lookups_do_not_wait_for_each_other(void **state)
{
	struct got slow = {0};

	(void)state;
	start("d.example MX 10 a.example\na.example A 192.0.2.1\nslow.example MX 10 a.example");
	env->is_held = true;
	mx_lookup(mx, "slow.example", on_got, &slow);
	env->is_held = false;
	expect_hosts("d.example", "10 a.example [192.0.2.1]");
	assert_int_equal(slow.calls, 0);
	env_answer_held(env);
	env_run(env);
	assert_int_equal(slow.calls, 1);
	mx_result_free(&slow.result);
}

static void stale_answers_carry_mail_while_the_resolver_is_down(void **state)
{
	(void)state;
	start("d.example MX 10 a.example\na.example A 192.0.2.1");
	expect_hosts("d.example", "10 a.example [192.0.2.1]");
	env->zone = "d.example SERVFAIL\na.example SERVFAIL";
	env_advance(env, 30 * 60 * 1000);
	expect_hosts("d.example", "10 a.example [192.0.2.1]");
	env_advance(env, 60 * 60 * 1000);
	expect_status("d.example", MX_TEMPORARY, "SERVFAIL");
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(hosts_come_by_preference),
	    TEST(equal_hosts_come_at_random),
	    TEST(a_host_named_twice_counts_once_with_its_best_preference),
	    TEST(null_mx_takes_no_mail),
	    TEST(aliases_are_followed),
	    TEST(alias_loops_are_temporary),
	    TEST(addresses_where_no_mail_may_go_are_refused),
	    TEST(loopback_is_fine_when_allowed),
	    TEST(an_address_as_mx_host_is_no_host),
	    TEST(our_own_name_takes_its_preference_along),
	    TEST(our_own_address_takes_its_preference_along),
	    TEST(a_hundred_hosts_are_not_all_tried),
	    TEST(dead_hosts_in_front_do_not_hide_the_living),
	    TEST(addresses_have_a_ceiling_in_all),
	    TEST(without_mx_the_domain_is_its_host),
	    TEST(mx_hosts_without_address_never_fall_back_to_the_domain),
	    TEST(only_nxdomain_is_final),
	    TEST(odd_hosts_are_left_out_or_taken_as_they_are),
	    TEST(the_family_is_chosen_by_policy),
	    TEST(dnssec_is_told_for_mx_and_for_each_host),
	    TEST(results_say_when_to_ask_again),
	    TEST(address_literals_are_their_own_host),
	    TEST(domains_become_a_labels),
	    TEST(an_idn_is_asked_for_as_a_labels),
	    TEST(cancelled_in_each_state_nothing_comes),
	    TEST(a_callback_may_look_up_and_cancel),
	    TEST(lookups_do_not_wait_for_each_other),
	    TEST(stale_answers_carry_mail_while_the_resolver_is_down),
	};

	return cmocka_run_group_tests_name("dns mx", tests, NULL, NULL);
}
