/* What a destination publishes about its TLS: DNS answers as the test says, with and without DNSSEC. */
#include "base/base.h"
#include "base/buf.h"
#include "base/random.h"
#include "relayd/tls_lookup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

enum { NOTHING = 0, SECURE, INSECURE, BOGUS, SILENT, NAMES_MAX = 8 };

struct fixture {
	struct clock_virtual clock;
	struct timers *timers;
	struct rng_seeded rng;
	struct dns_transport transport;
	struct dns *dns;
	struct tls_sources sources;
	/* What there is below a name; names that are not here do not exist. */
	struct {
		const char *name;
		int kind;
	} zone[NAMES_MAX];
	char asked[NAMES_MAX][80]; /* in this order */
	unsigned asked_count;
	struct tls_lookup *lookup;
	unsigned done;
};

static int kind_of(const struct fixture *f, const char *name)
{
	for (unsigned i = 0; i < NAMES_MAX && f->zone[i].name; i++)
		if (strcmp(f->zone[i].name, name) == 0)
			return f->zone[i].kind;
	return NOTHING;
}

static void put_name(struct buf *packet, const char *name)
{
	for (const char *label = name; *label;) {
		size_t len = strcspn(label, ".");
		buf_append_byte(packet, (char)len);
		buf_append(packet, slice_of(label, len));
		label += len + (label[len] == '.');
	}
	buf_append_byte(packet, 0);
}

static void ask(void *ctx, struct dns *dns, uint64_t token, const char *name, uint16_t type)
{
	struct fixture *f = ctx;
	int kind = kind_of(f, name);
	struct buf packet;

	assert_int_equal(type, DNS_TLSA);
	assert_true(f->asked_count < NAMES_MAX);
	snprintf(f->asked[f->asked_count++], sizeof(f->asked[0]), "%s", name);
	if (kind == SILENT)
		return;
	buf_init(&packet, 4096);
	buf_append(&packet, slice_of("\0\0\201", 3));
	buf_append_byte(&packet, (char)(0x80 | (kind == SECURE ? 0x20 : 0) |
					(kind == BOGUS	   ? 2
					 : kind == NOTHING ? 3
							   : 0)));
	buf_append(&packet, slice_of("\0\1\0", 3));
	buf_append_byte(&packet, kind == SECURE || kind == INSECURE);
	buf_append(&packet, slice_of("\0\0\0\0", 4));
	put_name(&packet, name);
	buf_append(&packet, slice_of("\0\064\0\1", 4));
	if (kind == SECURE || kind == INSECURE) {
		buf_append(&packet, slice_of("\300\014\0\064\0\1\0\0\0\036\0\043\3\1\1", 15));
		for (int i = 0; i < 32; i++)
			buf_append_byte(&packet, (char)i);
	}
	dns_transport_answer(dns, token, buf_slice(&packet));
	buf_fini(&packet);
}

static void pass(struct fixture *f, int64_t ms)
{
	clock_virtual_advance(&f->clock, ms);
	do
		timers_run(f->timers, clock_mono_ms(&f->clock.clock));
	while (timers_next_at_ms(f->timers) <= clock_mono_ms(&f->clock.clock));
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	const struct dns_options options = {.transport = &f->transport, .trust = DNS_TRUST_ALWAYS};

	clock_virtual_init(&f->clock, 1790000000000);
	rng_seeded_init(&f->rng, 1);
	f->timers = timers_new();
	f->transport = (struct dns_transport){ask, f};
	f->dns = dns_new(&options, NULL, f->timers, &f->clock.clock, &f->rng.rng, NULL);
	f->sources = (struct tls_sources){.dns = f->dns, .timers = f->timers, .clock = &f->clock.clock};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	tls_lookup_free(&f->lookup);
	dns_free(&f->dns);
	timers_free(&f->timers);
	free(f);
	return 0;
}

static void on_done(void *ctx)
{
	((struct fixture *)ctx)->done++;
}

/* Asks for one host, mx.example, aliases leading to `canonical`. */
static const struct tls_facts *look(struct fixture *f, const char *canonical, bool is_name_secure, bool is_secure)
{
	const struct tls_lookup_question question = {.next_hop = "example", .port = 25, .wants_dane = true};
	const struct tls_lookup_host host = {
	    .name = "mx.example", .canonical = canonical, .is_name_secure = is_name_secure, .is_secure = is_secure};

	f->lookup = tls_lookup_new(&f->sources, &question);
	assert_int_equal(tls_lookup_add_host(f->lookup, &host), 0);
	tls_lookup_start(f->lookup, on_done, f);
	assert_int_equal(f->done, 0); /* never from inside */
	pass(f, 0);
	assert_int_equal(f->done, 1);
	return tls_lookup_facts(f->lookup, 0);
}

static void secure_records_count(void **state)
{
	struct fixture *f = *state;
	const struct tls_facts *facts;

	f->zone[0].name = "_25._tcp.mx.example";
	f->zone[0].kind = SECURE;
	facts = look(f, "mx.example", true, true);
	assert_int_equal(facts->dane, TLS_DANE_RECORDS);
	assert_int_equal(facts->tlsa->record_count, 1);
	assert_string_equal(facts->base, "mx.example");
	assert_string_equal(facts->host, "mx.example");
	assert_string_equal(facts->next_hop, "example");
	assert_true(facts->is_name_secure);
	assert_int_equal(f->asked_count, 1);
}

static void nothing_is_asked_of_insecure_hosts(void **state)
{
	struct fixture *f = *state;

	f->zone[0].name = "_25._tcp.mx.example";
	f->zone[0].kind = BOGUS;
	for (int i = 0; i < 3; i++) {
		f->done = 0;
		assert_int_equal(look(f, NULL, i == 1, i == 2)->dane, TLS_DANE_NONE);
		assert_int_equal(f->asked_count, 0);
		tls_lookup_free(&f->lookup);
	}
}

/* H21 */
static void insecure_and_missing_records_do_not_count(void **state)
{
	struct fixture *f = *state;
	const struct tls_facts *facts;

	f->zone[0].name = "_25._tcp.mx.example";
	f->zone[0].kind = INSECURE;
	facts = look(f, NULL, true, true);
	assert_int_equal(facts->dane, TLS_DANE_NONE);
	assert_null(facts->tlsa);
	tls_lookup_free(&f->lookup);
	dns_flush(f->dns);
	f->zone[0].name = NULL;
	f->done = 0;
	assert_int_equal(look(f, NULL, true, true)->dane, TLS_DANE_NONE);
	assert_int_equal(f->asked_count, 2);
}

/* H21 */
static void bogus_records_are_broken(void **state)
{
	struct fixture *f = *state;
	const struct tls_facts *facts;

	f->zone[0].name = "_25._tcp.mx.example";
	f->zone[0].kind = BOGUS;
	facts = look(f, NULL, true, true);
	assert_int_equal(facts->dane, TLS_DANE_BROKEN);
	assert_true(facts->why[0] != '\0');
}

/* RFC 7672 section 2.2.2: below where the aliases lead first, then below the name itself. */
static void aliases_lead_to_the_base_domain(void **state)
{
	struct fixture *f = *state;
	const struct tls_facts *facts;

	f->zone[0].name = "_25._tcp.real.example";
	f->zone[0].kind = SECURE;
	facts = look(f, "real.example", true, true);
	assert_int_equal(facts->dane, TLS_DANE_RECORDS);
	assert_string_equal(facts->base, "real.example");
	assert_string_equal(facts->host, "mx.example");
	assert_int_equal(f->asked_count, 1);
	tls_lookup_free(&f->lookup);

	f->zone[0].name = "_25._tcp.mx.example";
	dns_flush(f->dns);
	f->done = 0;
	facts = look(f, "real.example", true, true);
	assert_int_equal(facts->dane, TLS_DANE_RECORDS);
	assert_string_equal(facts->base, "mx.example");
	assert_string_equal(f->asked[1], "_25._tcp.real.example");
	assert_string_equal(f->asked[2], "_25._tcp.mx.example");
	tls_lookup_free(&f->lookup);

	f->zone[1].name = "_25._tcp.real.example";
	f->zone[1].kind = BOGUS;
	dns_flush(f->dns);
	f->done = 0;
	assert_int_equal(look(f, "real.example", true, true)->dane, TLS_DANE_BROKEN);
	assert_int_equal(f->asked_count, 4);
}

static void trailing_dots_go(void **state)
{
	struct fixture *f = *state;
	const struct tls_lookup_question question = {.port = 465, .wants_dane = true};
	const struct tls_lookup_host host = {"smtp.example.", "smtp.example", true, true};
	const struct tls_facts *facts;

	f->zone[0].name = "_465._tcp.smtp.example";
	f->zone[0].kind = SECURE;
	f->lookup = tls_lookup_new(&f->sources, &question);
	tls_lookup_add_host(f->lookup, &host);
	tls_lookup_start(f->lookup, on_done, f);
	pass(f, 0);
	facts = tls_lookup_facts(f->lookup, 0);
	assert_string_equal(facts->host, "smtp.example");
	assert_string_equal(facts->base, "smtp.example");
	assert_null(facts->next_hop);
	assert_int_equal(f->asked_count, 1);
}

static void all_hosts_are_waited_for(void **state)
{
	struct fixture *f = *state;
	const struct tls_lookup_question question = {.next_hop = "example", .port = 25, .wants_dane = true};

	f->zone[0].name = "_25._tcp.a.example";
	f->zone[0].kind = SECURE;
	f->zone[1].name = "_25._tcp.b.example";
	f->zone[1].kind = SILENT;
	f->lookup = tls_lookup_new(&f->sources, &question);
	tls_lookup_add_host(f->lookup, &(struct tls_lookup_host){"a.example", NULL, true, true});
	assert_int_equal(tls_lookup_add_host(f->lookup, &(struct tls_lookup_host){"b.example", NULL, true, true}), 1);
	tls_lookup_start(f->lookup, on_done, f);
	pass(f, 0);
	assert_int_equal(f->asked_count, 2);
	assert_int_equal(f->done, 0);
	tls_lookup_free(&f->lookup);
	pass(f, 60 * 1000);
	assert_int_equal(f->done, 0);
}

static void levels_that_do_not_ask(void **state)
{
	struct fixture *f = *state;
	const struct tls_lookup_question question = {.next_hop = "example", .port = 25};

	f->lookup = tls_lookup_new(&f->sources, &question);
	tls_lookup_add_host(f->lookup, &(struct tls_lookup_host){"a.example", NULL, true, true});
	tls_lookup_start(f->lookup, on_done, f);
	assert_int_equal(f->done, 0);
	pass(f, 0);
	assert_int_equal(f->done, 1);
	assert_int_equal(f->asked_count, 0);
	assert_int_equal(tls_lookup_facts(f->lookup, 0)->dane, TLS_DANE_NONE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(secure_records_count),
	    TEST(nothing_is_asked_of_insecure_hosts),
	    TEST(insecure_and_missing_records_do_not_count),
	    TEST(bogus_records_are_broken),
	    TEST(aliases_lead_to_the_base_domain),
	    TEST(trailing_dots_go),
	    TEST(all_hosts_are_waited_for),
	    TEST(levels_that_do_not_ask),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
