/* Questions over real sockets to a scripted server on a loopback port, UDP and TCP. */
#include "support_dns.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FORMERR = 1 };

static struct loop loop;
static char resolv_conf[64];
static int was_freed;
static struct packet held; /* the answer for held.example, which the server has not sent yet */

/* What the server does with a question; the name says it. */
static bool on_query(void *ctx, struct slice query, bool is_tcp, struct packet *reply, size_t *close_after)
{
	struct server **self = ctx;
	char name[DNS_NAME_MAX + 1];
	uint16_t id = query_id(query), type = query_type(query);
	unsigned flags = QR | RD | RA | AD;
	bool is_first = self == &loop.servers[0];

	query_name(query, name);
	packet_begin(reply, id, flags, name, type);
	if (strcmp(name, "silent.example") == 0 || (is_first && strcmp(name, "silent-first.example") == 0))
		return false;
	if (strcmp(name, "servfail.example") == 0 || (is_first && strcmp(name, "servfail-first.example") == 0))
		packet_begin(reply, id, flags | SERVFAIL, name, type);
	if (strcmp(name, "refused.example") == 0 || (is_first && strcmp(name, "refused-first.example") == 0))
		packet_begin(reply, id, flags | REFUSED, name, type);
	if (strcmp(name, "nxdomain.example") == 0) {
		packet_begin(reply, id, flags | NXDOMAIN, name, type);
		packet_add(reply, AUTHORITY, "example", DNS_SOA, 60, rdata_soa(60));
	}
	if (strcmp(name, "nodata.example") == 0)
		packet_add(reply, AUTHORITY, "example", DNS_SOA, 60, rdata_soa(60));
	if (strcmp(name, "garbage.example") == 0)
		memset(reply->bytes + 12, 0xc0, reply->len - 12);
	if (strcmp(name, "half.example") == 0) {
		packet_add(reply, ANSWER, name, type, 300, rdata_mx(10, "mx.example"));
		reply->len -= 4;
	}
	if (strcmp(name, "reflected.example") == 0) {
		reply->len = 0;
		packet_add_raw(reply, query.ptr, query.len);
	}
	if (strcmp(name, "noedns.example") == 0 && query_has_edns(query)) {
		packet_begin(reply, id, QR | RD | RA | FORMERR, name, type);
		return true;
	}
	if (strcmp(name, "wrongid.example") == 0 || strcmp(name, "spoofed.example") == 0 ||
	    strcmp(name, "otherquestion.example") == 0) {
		struct packet *forged = malloc(sizeof(*forged));
		bool is_other = name[0] == 'o';

		packet_begin(forged, (uint16_t)(name[0] == 'w' ? id + 1 : id), flags, is_other ? "x.example" : name,
			     type);
		packet_add(forged, ANSWER, is_other ? "x.example" : name, type, 300, rdata_mx(10, "evil.example"));
		if (name[0] == 's')
			server_spoof(*self, forged);
		else
			server_send(*self, forged);
		free(forged);
	}
	if (strncmp(name, "large", 5) == 0 && !is_tcp) {
		packet_begin(reply, id, flags | TC, name, type);
		return true;
	}
	if (strcmp(name, "large-full.example") == 0)
		for (int i = 0; reply->len + 60 < 65535; i++) {
			char host[32];
			snprintf(host, sizeof(host), "m%d.example", i);
			packet_add(reply, ANSWER, name, type, 300, rdata_mx(10, host));
		}
	if (strcmp(name, "large-cut.example") == 0) {
		packet_add(reply, ANSWER, name, type, 300, rdata_mx(10, "mx.example"));
		*close_after = 20;
	}
	if (strcmp(name, "held.example") == 0) {
		held = *reply;
		packet_add(&held, ANSWER, name, DNS_MX, 300, rdata_mx(10, "mx.example"));
		server_remember(*self);
		return false;
	}
	if (strcmp(name, "large-free.example") == 0) {
		dns_free(&loop.dns);
		was_freed = 1;
		return false;
	}
	if (strcmp(name, "large-truncated.example") == 0)
		packet_begin(reply, id, flags | TC, name, type);
	if (strcmp(name, "twice.example") == 0) {
		packet_add(reply, ANSWER, name, type, 300, rdata_mx(10, "mx.example"));
		server_send(*self, reply);
	}
	if (type == DNS_MX && reply->len == 12 + strlen(name) + 2 + 4 && reply->bytes[3] == ((RA | AD) & 0xff) &&
	    strcmp(name, "nodata.example") != 0)
		packet_add(reply, ANSWER, name, DNS_MX, 300, rdata_mx(10, "mx.example"));
	return true;
}

static void start_servers(size_t count)
{
	loop_init(&loop);
	for (size_t i = 0; i < count; i++)
		loop.servers[i] = server_new(on_query, &loop.servers[i]);
	loop.server_count = count;
}

static void start_dns(const struct dns_options *options)
{
	struct err err = {0};

	loop.dns = dns_new(options, &loop.host, loop.timers, clock_system(), rng_system(), &err);
	if (!loop.dns)
		fail_msg("%s", err.text);
}

static int start_with_timeout(int timeout_ms)
{
	const char *server;
	struct dns_options options = {.servers = &server, .server_count = 1, .timeout_ms = timeout_ms, .tries = 2};

	start_servers(1);
	server = server_address(loop.servers[0]);
	start_dns(&options);
	return 0;
}

/* So long that no stall of the machine makes a question be sent twice. */
static int setup(void **state)
{
	(void)state;
	return start_with_timeout(5000);
}

/* For questions that time out. */
static int setup_quick(void **state)
{
	(void)state;
	return start_with_timeout(100);
}

static int setup_plain(void **state)
{
	(void)state;
	start_servers(2);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_fini(&loop);
	if (resolv_conf[0])
		unlink(resolv_conf);
	resolv_conf[0] = '\0';
	return 0;
}

struct got {
	int calls;
	const struct dns_answer *answer;
};

static void on_got(void *ctx, const struct dns_answer *answer)
{
	struct got *got = ctx;

	got->calls++;
	dns_answer_unref(&got->answer);
	got->answer = dns_answer_ref(answer);
}

static const struct dns_answer *ask(const char *name, uint16_t type)
{
	static struct got got;

	dns_answer_unref(&got.answer);
	got = (struct got){0};
	if (!name)
		return NULL;
	dns_query(loop.dns, name, type, on_got, &got);
	assert_int_equal(got.calls, 0);
	loop_run_until(&loop, &got.calls);
	assert_int_equal(got.calls, 1);
	return got.answer;
}

static void expect_mx(const char *name, const char *host)
{
	const struct dns_answer *answer = ask(name, DNS_MX);

	if (answer->status != DNS_OK)
		fail_msg("%s: %s", name, answer->reason);
	assert_int_equal(answer->record_count, 1);
	assert_string_equal(answer->records[0].mx.host, host);
	ask(NULL, 0);
}

static void expect_status(const char *name, enum dns_status status)
{
	const struct dns_answer *answer = ask(name, DNS_MX);

	if (answer->status != status)
		fail_msg("%s: %s %s", name, dns_status_name(answer->status), answer->reason);
	assert_int_equal(answer->record_count, 0);
	assert_true(strlen(answer->reason) > 0);
	ask(NULL, 0);
}

static void a_question_and_its_answer(void **state)
{
	(void)state;
	expect_mx("good.example", "mx.example");
	assert_int_equal(server_udp_count(loop.servers[0]), 1);
	assert_int_equal(server_tcp_count(loop.servers[0]), 0);
	expect_status("nxdomain.example", DNS_NXDOMAIN);
	expect_status("nodata.example", DNS_NODATA);
}

/* H13 */
static void failures_of_all_kinds_are_temporary(void **state)
{
	(void)state;
	expect_status("servfail.example", DNS_TEMPORARY);
	expect_status("refused.example", DNS_TEMPORARY);
	expect_status("half.example", DNS_TEMPORARY);
	expect_status("reflected.example", DNS_TEMPORARY);
}

static void silence_ends_in_a_time_out_after_the_tries(void **state)
{
	(void)state;
	expect_status("silent.example", DNS_TEMPORARY);
	assert_int_equal(server_udp_count(loop.servers[0]), 2);
}

/* Its question does not match: as if it had not come. */
static void garbage_is_ignored_until_the_time_out(void **state)
{
	(void)state;
	expect_status("garbage.example", DNS_TEMPORARY);
	assert_int_equal(server_udp_count(loop.servers[0]), 2);
}

/* H16 */
static void forged_answers_are_ignored(void **state)
{
	(void)state;
	expect_mx("wrongid.example", "mx.example");
	expect_mx("spoofed.example", "mx.example");
	expect_mx("otherquestion.example", "mx.example");
	assert_int_equal(server_udp_count(loop.servers[0]), 3);
}

/* H16 */
static void a_second_answer_is_ignored(void **state)
{
	(void)state;
	expect_mx("twice.example", "mx.example");
	expect_mx("good.example", "mx.example");
}

/* H14 */
static void truncated_answers_are_asked_for_by_tcp(void **state)
{
	(void)state;
	expect_mx("large.example", "mx.example");
	assert_int_equal(server_udp_count(loop.servers[0]), 1);
	assert_int_equal(server_tcp_count(loop.servers[0]), 1);
}

/* H15 */
static void answers_of_64_kib_arrive_whole(void **state)
{
	const struct dns_answer *answer = ask("large-full.example", DNS_MX);

	(void)state;
	assert_int_equal(answer->status, DNS_OK);
	assert_true(answer->record_count > 1000);
	ask(NULL, 0);
}

/* H14 */
static void tcp_that_fails_is_temporary(void **state)
{
	(void)state;
	expect_status("large-cut.example", DNS_TEMPORARY);
	expect_status("large-truncated.example", DNS_TEMPORARY);
	server_stop_tcp(loop.servers[0]);
	expect_status("large.example", DNS_TEMPORARY);
}

/* H17 */
static void a_slow_question_holds_up_no_other(void **state)
{
	struct got slow = {0};

	(void)state;
	dns_query(loop.dns, "held.example", DNS_MX, on_got, &slow);
	for (int i = 0; i < 20; i++) {
		char name[32];
		snprintf(name, sizeof(name), "good%d.example", i);
		expect_mx(name, "mx.example");
	}
	assert_int_equal(slow.calls, 0);
	server_send_remembered(loop.servers[0], &held);
	loop_run_until(&loop, &slow.calls);
	assert_int_equal(slow.answer->status, DNS_OK);
	dns_answer_unref(&slow.answer);
}

static void servers_without_edns_are_asked_without(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		expect_mx("noedns.example", "mx.example");
		dns_flush(loop.dns);
	}
	/* With and without, the same twice on the channel that has learnt half of it, then without at once. */
	assert_int_equal(server_udp_count(loop.servers[0]), 5);
	expect_mx("good.example", "mx.example");
}

static void cancelled_on_the_way_nothing_comes(void **state)
{
	struct got got = {0}, other = {0};
	uint64_t id = dns_query(loop.dns, "good.example", DNS_MX, on_got, &got);

	(void)state;
	dns_cancel(loop.dns, &id);
	dns_query(loop.dns, "other.example", DNS_MX, on_got, &other);
	loop_run_until(&loop, &other.calls);
	assert_int_equal(got.calls, 0);
	dns_answer_unref(&other.answer);
	/* Its answer came all the same, and is kept. */
	expect_mx("good.example", "mx.example");
	assert_int_equal(server_udp_count(loop.servers[0]), 2);
}

/* c-ares calls back for each of them while it is destroyed. */
static void freed_on_the_way_nothing_comes(void **state)
{
	struct got got = {0};
	char name[32];

	(void)state;
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), i % 2 ? "silent.example" : "good%d.example", i);
		dns_query(loop.dns, name, DNS_MX, on_got, &got);
	}
	dns_query(loop.dns, "large.example", DNS_MX, on_got, &got);
	dns_free(&loop.dns);
	assert_int_equal(got.calls, 0);
}

/* The server frees the dns when the question has come by TCP: the connection is open, the answer is not there yet. */
static void freed_in_the_middle_of_tcp(void **state)
{
	struct got got = {0};

	(void)state;
	dns_query(loop.dns, "large-free.example", DNS_MX, on_got, &got);
	loop_run_until(&loop, &was_freed);
	assert_null(loop.dns);
	assert_int_equal(loop.watched_count, 0);
	assert_int_equal(got.calls, 0);
}

/* H16: One question is on the way all the time, so that the socket is never closed for want of them; its answer still
 * arrives when a new channel has long taken over. */
static void ports_change_after_a_thousand_questions(void **state)
{
	struct got slow = {0};
	unsigned first = 0;
	char name[32];

	(void)state;
	dns_free(&loop.dns);
	start_dns(&(struct dns_options){
	    .servers = (const char *[]){server_address(loop.servers[0])}, .server_count = 1, .timeout_ms = 60000});
	dns_query(loop.dns, "held.example", DNS_MX, on_got, &slow);
	for (int i = 0; i < 1100; i++) {
		snprintf(name, sizeof(name), "good%d.example", i);
		expect_mx(name, "mx.example");
		if (i == 0)
			first = server_last_port(loop.servers[0]);
		else if (i < 990)
			assert_int_equal(server_last_port(loop.servers[0]), first);
		else if (i > 1010)
			assert_int_not_equal(server_last_port(loop.servers[0]), first);
	}
	assert_int_equal(slow.calls, 0);
	server_send_remembered(loop.servers[0], &held);
	loop_run_until(&loop, &slow.calls);
	assert_int_equal(slow.answer->status, DNS_OK);
	dns_answer_unref(&slow.answer);
	/* The old channel is gone with it, and the new one serves. */
	expect_mx("last.example", "mx.example");
	assert_int_equal(loop.watched_count, 0);
}

static void the_second_server_answers_when_the_first_does_not(void **state)
{
	static const char *const names[] = {"servfail-first.example", "refused-first.example", "silent-first.example"};
	const char *servers[] = {server_address(loop.servers[0]), server_address(loop.servers[1])};
	struct dns_options options = {.servers = servers, .server_count = 2, .timeout_ms = 500, .tries = 2};
	char text[128], expected[128];

	(void)state;
	start_dns(&options);
	dns_format_servers(loop.dns, text, sizeof(text));
	snprintf(expected, sizeof(expected), "%s, %s", servers[0], servers[1]);
	assert_string_equal(text, expected);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		expect_mx(names[i], "mx.example");
		assert_int_equal(server_udp_count(loop.servers[0]), i + 1);
		assert_int_equal(server_udp_count(loop.servers[1]), i + 1);
	}
}

static void write_resolv_conf(const char *text)
{
	int fd;

	if (!resolv_conf[0]) {
		snprintf(resolv_conf, sizeof(resolv_conf), "/tmp/relayd-test-resolv-XXXXXX");
		fd = mkstemp(resolv_conf);
	} else {
		fd = open(resolv_conf, O_WRONLY | O_TRUNC | O_CREAT, 0600);
	}
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void resolv_conf_is_read_and_read_again(void **state)
{
	struct dns_options options = {.timeout_ms = 100, .tries = 1};
	const char *const *search;
	char text[128];
	struct err err = {0};
	size_t count;
	int ndots;

	(void)state;
	write_resolv_conf("nameserver 192.0.2.53\nsearch one.example two.example\noptions ndots:3\n");
	options.resolv_conf = resolv_conf;
	start_dns(&options);
	dns_format_servers(loop.dns, text, sizeof(text));
	assert_string_equal(text, "192.0.2.53:53");
	assert_false(dns_is_trusted(loop.dns));
	search = dns_search_list(loop.dns, &count, &ndots);
	assert_int_equal(count, 2);
	assert_string_equal(search[1], "two.example");
	assert_int_equal(ndots, 3);

	write_resolv_conf("nameserver 127.0.0.1\nnameserver ::1\nsearch three.example\n");
	assert_int_equal(dns_reload(loop.dns, &err), 0);
	dns_format_servers(loop.dns, text, sizeof(text));
	assert_string_equal(text, "127.0.0.1:53, [::1]:53");
	assert_true(dns_is_trusted(loop.dns));
	search = dns_search_list(loop.dns, &count, &ndots);
	assert_int_equal(count, 1);
	assert_string_equal(search[0], "three.example");
	assert_int_equal(ndots, 1);

	/* In the moment in which it is replaced, the old servers stay. */
	unlink(resolv_conf);
	assert_int_equal(dns_reload(loop.dns, &err), ERR_NOT_FOUND);
	assert_non_null(strstr(err.text, resolv_conf));
	dns_format_servers(loop.dns, text, sizeof(text));
	assert_string_equal(text, "127.0.0.1:53, [::1]:53");
	write_resolv_conf("nameserver 127.0.0.1\n");
}

static void a_missing_resolv_conf_means_this_host(void **state)
{
	struct dns_options options = {.resolv_conf = "/nonexistent/resolv.conf"};
	char text[128];

	(void)state;
	start_dns(&options);
	dns_format_servers(loop.dns, text, sizeof(text));
	assert_string_equal(text, "127.0.0.1:53");
}

static void bad_servers_are_refused_with_words(void **state)
{
	static const char *const bad[] = {"",
					  "dns.example.org",
					  "127.0.0.1:53:53",
					  "300.1.1.1",
					  "127.0.0.1:",
					  "127.0.0.1:65536",
					  "127.0.0.1:5x",
					  "[127.0.0.1]:53",
					  "[::1]53",
					  "[::1",
					  ":53",
					  "127.0.0.1 "};
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct dns_options options = {.servers = &bad[i], .server_count = 1};

		err = (struct err){0};
		loop.dns = dns_new(&options, &loop.host, loop.timers, clock_system(), rng_system(), &err);
		if (loop.dns)
			fail_msg("'%s' was taken", bad[i]);
		assert_true(strlen(err.text) > 0);
	}
}

static void servers_have_addresses_and_ports(void **state)
{
	static const char *const servers[] = {"192.0.2.1", "192.0.2.2:5353", "::1", "[::1]", "[2001:db8::1]:5353"};
	struct dns_options options = {.servers = servers, .server_count = ARRAY_LEN(servers)};
	char text[256];

	(void)state;
	start_dns(&options);
	dns_format_servers(loop.dns, text, sizeof(text));
	assert_string_equal(text, "192.0.2.1:53, 192.0.2.2:5353, [::1]:53, [::1]:53, [2001:db8::1]:5353");
	dns_format_servers(loop.dns, text, 20);
	assert_int_equal(strlen(text), 19);
	/* With servers given a reload changes none of them. */
	assert_int_equal(dns_reload(loop.dns, NULL), 0);
}

static bool is_ad(const char *const *servers, size_t count, enum dns_trust trust)
{
	struct dns_options options = {.servers = servers, .server_count = count, .trust = trust};
	bool ad;

	start_dns(&options);
	ad = ask("good.example", DNS_MX)->ad;
	assert_int_equal(ask("good.example", DNS_MX)->status, DNS_OK);
	assert_int_equal(dns_is_trusted(loop.dns), ad);
	ask(NULL, 0);
	dns_free(&loop.dns);
	return ad;
}

static void the_ad_bit_counts_when_the_way_is_trusted(void **state)
{
	const char *servers[] = {server_address(loop.servers[0]), "192.0.2.53"};

	(void)state;
	assert_true(is_ad(servers, 1, DNS_TRUST_LOOPBACK));
	assert_true(is_ad(servers, 1, DNS_TRUST_ALWAYS));
	assert_false(is_ad(servers, 1, DNS_TRUST_NEVER));
	/* One of them is somewhere else: nobody knows whose answer it is. */
	assert_false(is_ad(servers, 2, DNS_TRUST_LOOPBACK));
	assert_true(is_ad(servers, 2, DNS_TRUST_ALWAYS));
}

static void dockers_forwarder_is_no_trusted_resolver(void **state)
{
	const char *server = "127.0.0.11";
	struct dns_options options = {.servers = &server, .server_count = 1};

	(void)state;
	start_dns(&options);
	assert_false(dns_is_trusted(loop.dns));
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
#define TEST_QUICK(function) cmocka_unit_test_setup_teardown(function, setup_quick, teardown)
#define TEST_PLAIN(function) cmocka_unit_test_setup_teardown(function, setup_plain, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(a_question_and_its_answer),
	    TEST(failures_of_all_kinds_are_temporary),
	    TEST_QUICK(silence_ends_in_a_time_out_after_the_tries),
	    TEST_QUICK(garbage_is_ignored_until_the_time_out),
	    TEST(forged_answers_are_ignored),
	    TEST(a_second_answer_is_ignored),
	    TEST(truncated_answers_are_asked_for_by_tcp),
	    TEST(answers_of_64_kib_arrive_whole),
	    TEST(tcp_that_fails_is_temporary),
	    TEST(a_slow_question_holds_up_no_other),
	    TEST(servers_without_edns_are_asked_without),
	    TEST(cancelled_on_the_way_nothing_comes),
	    TEST(freed_on_the_way_nothing_comes),
	    TEST(freed_in_the_middle_of_tcp),
	    TEST(ports_change_after_a_thousand_questions),
	    TEST_PLAIN(the_second_server_answers_when_the_first_does_not),
	    TEST_PLAIN(resolv_conf_is_read_and_read_again),
	    TEST_PLAIN(a_missing_resolv_conf_means_this_host),
	    TEST_PLAIN(servers_have_addresses_and_ports),
	    TEST_PLAIN(bad_servers_are_refused_with_words),
	    TEST_PLAIN(the_ad_bit_counts_when_the_way_is_trusted),
	    TEST_PLAIN(dockers_forwarder_is_no_trusted_resolver),
	};

	return cmocka_run_group_tests_name("dns channel", tests, NULL, NULL);
}
