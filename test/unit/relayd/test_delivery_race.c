/* From the addresses of a next hop to one connection: the order, the source, what fails at once, and the end in time.
 */
#include "support_relay.h"

#include "relayd/delivery.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIN_MS INT64_C(60000)

enum { CONNECTS_MAX = 256 };

/* A socket that was asked for. */
struct asked_socket {
	char address[DNS_ADDRESS_TEXT], source[DNS_ADDRESS_TEXT]; /* source "": none was asked for */
	int64_t at_ms;
	int far_end; /* -1: there was no route */
};

struct fixture {
	struct relay relay; /* its destinations stay idle: those below take their place */
	struct dns *dns;
	struct dns_transport transport;
	struct resolver *resolver;
	struct mx *mx;
	struct net *net;
	struct tls_policy *policy;
	struct deliveries *deliveries;
	struct destinations *destinations;
	char hosts[96];
	bool greets_nobody; /* connections stand, and nothing is ever said */
	size_t silent;	    /* but for the first ones, which do not stand */
	struct asked_socket asked[CONNECTS_MAX];
	size_t count;
};

/* ---- the network ---- */

/* Nobody answers the SYN: a socket whose sending side is full is never ready. */
static int silent_socket(int *far_end)
{
	char filling[4096] = {0};
	int fds[2], small = 1;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	while (send(fds[0], filling, sizeof(filling), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	*far_end = fds[1];
	return fds[0];
}

/* IPv4 is silent, and there is no route for IPv6. */
static int connect_nowhere(void *ctx, const struct dns_address *to, uint16_t port, const struct dns_address *source,
			   struct err *err)
{
	struct fixture *f = ctx;
	struct asked_socket *asked = &f->asked[f->count++];
	int fds[2];

	assert_int_equal(port, 25);
	assert_true(f->count <= CONNECTS_MAX);
	*asked = (struct asked_socket){.at_ms = clock_mono_ms(&f->relay.clock.clock), .far_end = -1};
	dns_address_format(to, asked->address);
	if (source)
		dns_address_format(source, asked->source);
	if (to->family == DNS_IPV6)
		return err_set(err, ERR_SYSTEM, "connect: Network is unreachable"), -1;
	if (!f->greets_nobody || f->count <= f->silent)
		return silent_socket(&asked->far_end);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	asked->far_end = fds[1];
	return fds[0];
}

static void ask_nobody(void *ctx, struct dns *dns, uint64_t token, const char *name, uint16_t type)
{
	(void)ctx, (void)dns, (void)token, (void)type;
	fail_msg("DNS is asked for %s", name);
}

/* ---- the fixture ---- */

static void on_health(void *ctx, struct destination *destination)
{
	(void)ctx, (void)destination;
}

static void make_resolver(struct fixture *f)
{
	struct timers *timers = loop_timers(f->relay.loop);
	struct dns_options options = {.transport = &f->transport, .trust = DNS_TRUST_NEVER};
	struct mx_options mx_options = {.ip = DNS_IP_PREFER4};
	const struct clock *clock = &f->relay.clock.clock;
	struct err err;

	f->transport = (struct dns_transport){ask_nobody, f};
	f->dns = dns_new(&options, NULL, timers, clock, &f->relay.rng.rng, &err);
	assert_non_null(f->dns);
	f->resolver = resolver_new(f->dns, timers, clock, &f->relay.rng.rng, f->hosts);
	f->mx = mx_new(f->dns, f->resolver, timers, clock, &f->relay.rng.rng, &mx_options);
}

static void make_deliveries(struct fixture *f)
{
	struct relay *relay = &f->relay;
	struct net_connector connector = {f, connect_nowhere};
	struct deliveries_options delivering = {.loop = relay->loop,
						.queue = relay->queue,
						.metrics = relay->metrics,
						.resolver = f->resolver,
						.mx = f->mx};
	struct destinations_options options = {.loop = relay->loop,
					       .queue = relay->queue,
					       .clock = &relay->clock.clock,
					       .connections_max = 200,
					       .per_destination_max = 20};
	struct err err;

	delivering.tls = (struct tls_sources){.dns = f->dns, loop_timers(relay->loop), &relay->clock.clock};
	delivering.net = f->net = net_new(relay->loop);
	net_set_connector(f->net, &connector);
	f->policy = tls_policy_new(relay->config, &err);
	assert_non_null(f->policy);
	f->deliveries = deliveries_new(&delivering);
	deliveries_configure(f->deliveries, relay->config, f->policy);
	scheduler_destination_events(relay->scheduler, &options.events);
	options.events.on_health = on_health;
	options.driver = deliveries_driver(f->deliveries);
	f->destinations = destinations_new(&options);
	scheduler_set_destinations(relay->scheduler, f->destinations);
}

/* `hosts`: what /etc/hosts would say of the relayhost, hub.test. */
static void start(struct fixture *f, const char *hosts, const char *delivery)
{
	char yaml[512];
	int fd;

	snprintf(yaml, sizeof(yaml), "relayhosts: {main: {address: \"hub.test:25\", tls: none}}\ndelivery: {%s}\n",
		 delivery);
	relay_init(&f->relay, yaml);
	snprintf(f->hosts, sizeof(f->hosts), "%s/hosts", f->relay.folder);
	fd = open(f->hosts, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, hosts, strlen(hosts)), strlen(hosts));
	close(fd);
	make_resolver(f);
	make_deliveries(f);
}

static int setup(void **state)
{
	*state = xcalloc(1, sizeof(struct fixture));
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	scheduler_stop(f->relay.scheduler);
	destinations_stop(f->destinations);
	deliveries_abort(f->deliveries);
	relay_turn(&f->relay);
	assert_int_equal(deliveries_count(f->deliveries), 0);
	deliveries_free(&f->deliveries);
	scheduler_set_destinations(f->relay.scheduler, f->relay.destinations);
	destinations_free(&f->destinations);
	tls_policy_free(&f->policy);
	mx_free(&f->mx);
	resolver_free(&f->resolver);
	dns_free(&f->dns);
	net_free(&f->net);
	for (size_t i = 0; i < f->count; i++)
		if (f->asked[i].far_end >= 0)
			close(f->asked[i].far_end);
	relay_fini(&f->relay);
	free(f);
	return 0;
}

static char *many_hosts(char *out, size_t size, unsigned count)
{
	size_t len = 0;

	for (unsigned i = 1; i <= count; i++)
		len += (size_t)snprintf(out + len, size - len, "192.0.2.%u hub.test\n", i);
	return out;
}

/* ---- */

static bool is_among(const struct fixture *f, size_t count, const char *address)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(f->asked[i].address, address) == 0)
			return true;
	return false;
}

/* Until the first attempt has failed; how many connections that took. */
static size_t fail_once(struct fixture *f)
{
	int64_t began = clock_mono_ms(&f->relay.clock.clock);

	relay_submit(&f->relay, "app@example.org", "one@a.example");
	while (f->relay.report_count == 0 && clock_mono_ms(&f->relay.clock.clock) - began < 30 * MIN_MS)
		relay_pass(&f->relay, 1000);
	assert_int_equal(f->relay.report_count, 1);
	assert_int_equal(f->relay.reports[0].outcome.kind, OUTCOME_DEFERRED);
	return f->count;
}

/* G34: 200 addresses, none of which answers: an attempt ends in time, and the next one begins with another. */
static void addresses_that_are_all_silent_are_given_up(void **state)
{
	struct fixture *f = *state;
	char hosts[200 * 32];
	int64_t began;
	size_t first;

	start(f, many_hosts(hosts, sizeof(hosts), 200), "connect_timeout: 100s, ip: \"4\"");
	began = clock_mono_ms(&f->relay.clock.clock);
	first = fail_once(f);
	assert_true(clock_mono_ms(&f->relay.clock.clock) - began <= 7 * MIN_MS);
	assert_in_range(first, 3, RESOLVER_ADDRESSES_MAX - 1);
	for (size_t i = 0; i < first; i++)
		assert_true(f->asked[i].at_ms - began < 5 * MIN_MS);
	relay_pass(&f->relay, 30 * MIN_MS);
	assert_true(f->count > first);
	assert_false(is_among(f, first, f->asked[first].address));
	/* Nobody is left out for good. */
	relay_pass(&f->relay, 60 * MIN_MS);
	for (unsigned i = 1; i <= RESOLVER_ADDRESSES_MAX; i++) {
		char address[32];
		snprintf(address, sizeof(address), "192.0.2.%u", i);
		assert_true(is_among(f, f->count, address));
	}
}

/* G1: a host that takes connections and never speaks uses up all the time; the next attempt begins with the other. */
static void a_host_without_a_banner_hides_no_other(void **state)
{
	struct fixture *f = *state;

	f->greets_nobody = true;
	start(f, "192.0.2.1 hub.test\n192.0.2.2 hub.test\n", "ip: \"4\"");
	fail_once(f);
	relay_pass(&f->relay, 60 * MIN_MS);
	assert_string_equal(f->asked[0].address, "192.0.2.1");
	assert_string_equal(f->asked[1].address, "192.0.2.2");
}

/* The host's next reply. */
static void say(struct fixture *f, size_t connection, const char *reply)
{
	assert_int_equal(write(f->asked[connection].far_end, reply, strlen(reply)), strlen(reply));
	relay_turn(&f->relay);
}

/* Neither does one that falls silent within the message, which uses up the time as well. */
static void a_host_that_falls_silent_at_rcpt_hides_no_other(void **state)
{
	struct fixture *f = *state;

	f->greets_nobody = true;
	start(f, "192.0.2.1 hub.test\n192.0.2.2 hub.test\n", "ip: \"4\"");
	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_turn(&f->relay);
	assert_int_equal(f->count, 1);
	say(f, 0, "220 hub.test ESMTP\r\n");
	say(f, 0, "250 hub.test\r\n");
	say(f, 0, "250 2.1.0 ok\r\n");
	relay_pass(&f->relay, 6 * MIN_MS);
	assert_int_equal(f->relay.report_count, 1);
	assert_int_equal(f->relay.reports[0].outcome.stage, STAGE_RCPT);
	relay_pass(&f->relay, 60 * MIN_MS);
	assert_string_equal(f->asked[0].address, "192.0.2.1");
	assert_string_equal(f->asked[1].address, "192.0.2.2");
}

/* It speaks at the last moment, and hangs up on EHLO: for HELO there is no time left. That is no reason to give up mail. */
static void a_session_that_is_to_begin_anew_when_time_is_over_is_put_off(void **state)
{
	struct fixture *f = *state;

	f->greets_nobody = true;
	f->silent = 1;
	start(f, "192.0.2.1 hub.test\n192.0.2.2 hub.test\n", "ip: \"4\"");
	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_pass(&f->relay, 5 * MIN_MS + 100);
	assert_int_equal(f->count, 2);
	assert_int_equal(f->relay.report_count, 0);
	say(f, 1, "220 hub.test ESMTP\r\n");
	close(f->asked[1].far_end);
	f->asked[1].far_end = -1;
	relay_pass(&f->relay, 100);
	assert_int_equal(f->relay.report_count, 1);
	assert_int_equal(f->relay.reports[0].outcome.kind, OUTCOME_DEFERRED);
	assert_int_equal(f->relay.reports[0].outcome.class, CLASS_CONNECT);
}

/* H20: the next address in the same moment. */
static void an_address_without_a_route_costs_no_time(void **state)
{
	struct fixture *f = *state;

	start(f, "2001:db8::1 hub.test\n192.0.2.1 hub.test\n", "ip: any");
	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_turn(&f->relay);
	assert_int_equal(f->count, 2);
	assert_string_equal(f->asked[0].address, "2001:db8::1");
	assert_string_equal(f->asked[1].address, "192.0.2.1");
	assert_int_equal(f->asked[1].at_ms, f->asked[0].at_ms);
	assert_int_equal(f->relay.report_count, 0);
}

/* H20: without IPv4 it is trouble of the destination, told at once. */
static void without_any_route_mail_waits(void **state)
{
	struct fixture *f = *state;

	start(f, "2001:db8::1 hub.test\n", "ip: any");
	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_turn(&f->relay);
	assert_int_equal(f->relay.report_count, 1);
	assert_int_equal(f->relay.reports[0].outcome.kind, OUTCOME_DEFERRED);
	assert_int_equal(f->relay.reports[0].outcome.class, CLASS_CONNECT);
}

/* G24: greylisters know us by our address. */
static void the_source_is_the_same_each_time(void **state)
{
	struct fixture *f = *state;

	start(f, "192.0.2.1 hub.test\n192.0.2.2 hub.test\n2001:db8::1 hub.test\n",
	      "bind: [192.0.2.99, \"2001:db8::99\"], ip: any");
	relay_submit(&f->relay, "app@example.org", "one@a.example");
	relay_pass(&f->relay, 60 * MIN_MS);
	assert_true(f->count > 6);
	for (size_t i = 0; i < f->count; i++)
		assert_string_equal(f->asked[i].source,
				    strchr(f->asked[i].address, ':') ? "2001:db8::99" : "192.0.2.99");
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(addresses_that_are_all_silent_are_given_up),
	    TEST(a_host_without_a_banner_hides_no_other),
	    TEST(a_host_that_falls_silent_at_rcpt_hides_no_other),
	    TEST(a_session_that_is_to_begin_anew_when_time_is_over_is_put_off),
	    TEST(an_address_without_a_route_costs_no_time),
	    TEST(without_any_route_mail_waits),
	    TEST(the_source_is_the_same_each_time),
	};

	return cmocka_run_group_tests_name("delivery race", tests, NULL, NULL);
}
