/* What TLS a host needs, for each level and all that may be published; and what a handshake is worth. */
#include "base/base.h"
#include "relayd/tls_policy.h"
#include "tls/dane.h"
#include "tls/selfsigned.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static char folder[64], pem[96];

static int group_setup(void **state)
{
	const struct tls_selfsigned_options options = {.hostname = "mx.test",
						       .now_wall_ms = (int64_t)time(NULL) * 1000};

	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/relayd-policy-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(pem, sizeof(pem), "%s/mx.pem", folder);
	return tls_selfsigned_ensure(AT_FDCWD, pem, &options, NULL, NULL);
}

static int group_teardown(void **state)
{
	(void)state;
	unlink(pem);
	return rmdir(folder);
}

/* A configuration whose only authority is the certificate of mx.test, with a relayhost of each kind. */
static struct config *make_config(void)
{
	const struct config_source source = {.default_hostname = "relay.test"};
	struct config_errors errors;
	struct config *config;
	char text[1024];

	snprintf(text, sizeof(text),
		 "delivery: {ca_file: %s}\n"
		 "relayhosts:\n"
		 "  plain: {address: \"mx.test:25\", tls: none}\n"
		 "  maybe: {address: \"mx.test:25\", tls: opportunistic}\n"
		 "  sure: {address: mx.test}\n"
		 "  implicit: {address: \"mx.test:465\"}\n"
		 "  pinned: {address: mx.test, fingerprint: \"%064d\"}\n"
		 "  dane: {address: mx.test, tls: dane}\n",
		 pem, 7);
	if (config_load_text(&source, slice_of_str(text), &config, &errors) != 0)
		fail_msg("%s", errors.items[0].text);
	return config;
}

static int setup(void **state)
{
	struct config *config = make_config();
	struct err err;

	*state = tls_policy_new(config, &err);
	config_free(&config);
	if (!*state)
		fail_msg("%s", err.text);
	return 0;
}

static int teardown(void **state)
{
	tls_policy_free((struct tls_policy **)state);
	return 0;
}

/* ---- facts ---- */

enum records { NO_RECORDS, USABLE, UNUSABLE, BROKEN };

struct situation {
	struct tls_facts facts;
	struct dns_answer answer;
	struct dns_record record;
	char rdata[3 + 32];
};

/* One TLSA record; `digest` NULL: of nobody. */
static void set_record(struct situation *s, uint8_t usage, uint8_t selector, uint8_t matching, const uint8_t *digest)
{
	memset(s->rdata, 0, sizeof(s->rdata));
	s->rdata[0] = (char)usage;
	s->rdata[1] = (char)selector;
	s->rdata[2] = (char)matching;
	if (digest)
		memcpy(s->rdata + 3, digest, 32);
	s->record.tlsa.rdata = slice_of(s->rdata, sizeof(s->rdata));
	s->answer = (struct dns_answer){.type = DNS_TLSA, .ad = true, .records = &s->record, .record_count = 1};
	s->facts.dane = TLS_DANE_RECORDS;
	s->facts.tlsa = &s->answer;
	s->facts.base = "mx.test";
}

static void situation_init(struct situation *s, enum records records, enum tls_sts sts, bool sts_lists_host,
			   bool is_remembered)
{
	*s = (struct situation){.facts = {.host = "mx.test",
					  .next_hop = "example.test",
					  .sts = sts,
					  .sts_lists_host = sts_lists_host,
					  .is_remembered = is_remembered,
					  .why = "the server failed (SERVFAIL)"}};
	switch (records) {
	case NO_RECORDS: break;
	case USABLE: set_record(s, 3, 1, 1, NULL); break;
	case UNUSABLE: set_record(s, 1, 1, 1, NULL); break; /* PKIX-EE: RFC 7672 section 3.1.3 */
	case BROKEN: s->facts.dane = TLS_DANE_BROKEN; break;
	}
}

/* ---- before the connection ---- */

struct row {
	enum config_tls_level level;
	enum records records;
	enum tls_sts sts;
	bool listed, remembered;
	/* either */
	enum failure_class refused;
	/* or */
	enum smtp_client_tls mode;
	enum tls_level session;
	enum tls_basis basis;
};

#define NONE CONFIG_TLS_NONE
#define MAYBE CONFIG_TLS_OPPORTUNISTIC
#define MUST CONFIG_TLS_REQUIRED
#define VERIFY CONFIG_TLS_VERIFY
#define DANE CONFIG_TLS_DANE
#define NO_STS TLS_STS_NONE, false
#define TESTING TLS_STS_TESTING
#define ENFORCE TLS_STS_ENFORCE
#define CLEAR CLASS_NONE, SMTP_CLIENT_TLS_NONE, TLS_LEVEL_OPPORTUNISTIC, TLS_BASIS_LEVEL
#define TRIES CLASS_NONE, SMTP_CLIENT_TLS_OPPORTUNISTIC, TLS_LEVEL_OPPORTUNISTIC, TLS_BASIS_LEVEL
#define ENCRYPTS(basis) CLASS_NONE, SMTP_CLIENT_TLS_REQUIRED, TLS_LEVEL_OPPORTUNISTIC, TLS_BASIS_##basis
#define VERIFIES(basis) CLASS_NONE, SMTP_CLIENT_TLS_REQUIRED, TLS_LEVEL_VERIFY, TLS_BASIS_##basis
#define MATCHES CLASS_NONE, SMTP_CLIENT_TLS_REQUIRED, TLS_LEVEL_DANE, TLS_BASIS_DANE
#define REFUSED(class) CLASS_##class, 0, 0, 0

/* clang-format off */
static const struct row by_mx[] = {
    /* level, TLSA, MTA-STS, lists the host, remembered     what follows */
    {CONFIG_TLS_UNSET, NO_RECORDS, NO_STS, false,           TRIES},
    {NONE,   NO_RECORDS, NO_STS,           true,            CLEAR},
    {NONE,   USABLE,     ENFORCE, true,    true,            CLEAR},
    {NONE,   BROKEN,     ENFORCE, false,   false,           CLEAR},

    {MAYBE,  NO_RECORDS, NO_STS,           false,           TRIES},
    {MAYBE,  NO_RECORDS, NO_STS,           true,            ENCRYPTS(MEMORY)},
    {MAYBE,  NO_RECORDS, TLS_STS_UNKNOWN, false, false,     TRIES},
    {MAYBE,  NO_RECORDS, TESTING, true,    false,           TRIES},
    {MAYBE,  NO_RECORDS, TESTING, false,   false,           TRIES},
    {MAYBE,  NO_RECORDS, TESTING, false,   true,            ENCRYPTS(MEMORY)},
    {MAYBE,  NO_RECORDS, ENFORCE, true,    false,           VERIFIES(STS)},
    {MAYBE,  NO_RECORDS, ENFORCE, true,    true,            VERIFIES(STS)},
    {MAYBE,  NO_RECORDS, ENFORCE, false,   false,           REFUSED(TLS)},
    {MAYBE,  USABLE,     NO_STS,           false,           MATCHES},
    {MAYBE,  USABLE,     NO_STS,           true,            MATCHES},
    {MAYBE,  USABLE,     ENFORCE, true,    false,           MATCHES},
    {MAYBE,  USABLE,     ENFORCE, false,   false,           MATCHES}, /* DANE wins over MTA-STS (RFC 8461 section 2) */
    {MAYBE,  UNUSABLE,   NO_STS,           false,           ENCRYPTS(DANE_UNUSABLE)},
    {MAYBE,  UNUSABLE,   NO_STS,           true,            ENCRYPTS(DANE_UNUSABLE)},
    {MAYBE,  UNUSABLE,   ENFORCE, true,    false,           VERIFIES(STS)},
    {MAYBE,  UNUSABLE,   ENFORCE, false,   false,           REFUSED(TLS)},
    {MAYBE,  BROKEN,     NO_STS,           false,           REFUSED(DNS)},
    {MAYBE,  BROKEN,     ENFORCE, true,    true,            REFUSED(DNS)},

    {MUST,   NO_RECORDS, NO_STS,           false,           ENCRYPTS(LEVEL)},
    {MUST,   NO_RECORDS, NO_STS,           true,            ENCRYPTS(LEVEL)},
    {MUST,   NO_RECORDS, TESTING, false,   false,           ENCRYPTS(LEVEL)},
    {MUST,   NO_RECORDS, ENFORCE, true,    false,           VERIFIES(STS)},
    {MUST,   NO_RECORDS, ENFORCE, false,   false,           REFUSED(TLS)},
    {MUST,   USABLE,     NO_STS,           false,           MATCHES},
    {MUST,   UNUSABLE,   NO_STS,           false,           ENCRYPTS(LEVEL)},
    {MUST,   BROKEN,     NO_STS,           false,           REFUSED(DNS)},

    {VERIFY, NO_RECORDS, NO_STS,           false,           VERIFIES(LEVEL)},
    {VERIFY, NO_RECORDS, TESTING, false,   false,           VERIFIES(LEVEL)},
    {VERIFY, NO_RECORDS, ENFORCE, true,    false,           VERIFIES(STS)},
    {VERIFY, NO_RECORDS, ENFORCE, false,   false,           REFUSED(TLS)},
    {VERIFY, USABLE,     NO_STS,           false,           MATCHES},
    {VERIFY, UNUSABLE,   NO_STS,           false,           VERIFIES(LEVEL)}, /* no less than what was configured */
    {VERIFY, BROKEN,     NO_STS,           false,           REFUSED(DNS)},

    {DANE,   NO_RECORDS, NO_STS,           false,           REFUSED(TLS)},
    {DANE,   NO_RECORDS, ENFORCE, true,    false,           REFUSED(TLS)},
    {DANE,   USABLE,     NO_STS,           false,           MATCHES},
    {DANE,   USABLE,     ENFORCE, false,   false,           MATCHES},
    {DANE,   UNUSABLE,   NO_STS,           false,           REFUSED(TLS)},
    {DANE,   BROKEN,     NO_STS,           false,           REFUSED(DNS)},
};
/* clang-format on */

static void assert_row(const struct tls_policy *policy, const struct config_relayhost *relayhost, const struct row *row,
		       size_t number)
{
	struct situation s;
	struct tls_need need;

	situation_init(&s, row->records, row->sts, row->listed, row->remembered);
	tls_policy_decide(policy, row->level, relayhost, &s.facts, &need);
	if (need.is_refused != (row->refused != CLASS_NONE) || need.class != row->refused)
		fail_msg("row %zu: refused %d, class %s", number, need.is_refused, failure_class_name(need.class));
	assert_int_equal(need.is_refused, need.why[0] != '\0');
	if (need.is_refused)
		return;
	if (need.mode != row->mode || need.session.level != row->session || need.basis != row->basis)
		fail_msg("row %zu: mode %d, session %d, %s", number, need.mode, need.session.level,
			 tls_basis_name(need.basis));
	assert_int_equal(need.credentials != NULL, need.mode != SMTP_CLIENT_TLS_NONE);
	assert_string_equal(need.session.server_name, "mx.test");
	assert_true(need.session.level == TLS_LEVEL_OPPORTUNISTIC || !need.session.resume);
}

static void the_table_by_mx(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(by_mx); i++)
		assert_row(*state, NULL, &by_mx[i], i);
}

/* Whatever comes together: clear text only where nobody has asked for more. */
static void clear_text_only_where_nothing_asks_for_more(void **state)
{
	struct situation s;
	struct tls_need need;
	unsigned clear = 0;

	for (int n = 0; n < 6 * 4 * 4 * 2 * 2; n++) {
		enum config_tls_level level = (enum config_tls_level)(n % 6);
		enum records records = (enum records)(n / 6 % 4);
		enum tls_sts sts = (enum tls_sts)(n / 24 % 4);
		bool listed = n / 96 % 2, remembered = n / 192 % 2;
		bool may = level == NONE || ((level == MAYBE || level == CONFIG_TLS_UNSET) && records == NO_RECORDS &&
					     sts != TLS_STS_ENFORCE && !remembered);

		situation_init(&s, records, sts, listed, remembered);
		tls_policy_decide(*state, level, NULL, &s.facts, &need);
		bool does = !need.is_refused &&
			    (need.mode == SMTP_CLIENT_TLS_NONE || need.mode == SMTP_CLIENT_TLS_OPPORTUNISTIC);
		assert_int_equal(does, may);
		assert_int_equal(tls_policy_may_go_clear(&need) || level == NONE, does);
		clear += does;
	}
	assert_true(clear > 0);
}

/* ---- what the server's offer makes of it ---- */

enum after_ehlo { GOES_CLEAR, ASKS_FOR_TLS, GIVES_UP };

/* The SMTP machine with that need, and a server that offers STARTTLS or does not. */
static enum after_ehlo after_ehlo(const struct tls_need *need, bool offers_starttls)
{
	const struct smtp_client_options options = {.helo_name = "relay.test", .tls = need->mode};
	struct smtp_client *client = smtp_client_new(&options, 0);
	enum after_ehlo result = GOES_CLEAR;
	struct smtp_client_event event;
	bool is_ready = false;

	smtp_client_tick(client, 0);
	smtp_client_input(client, SLICE("220 mx.test\r\n"));
	assert_false(smtp_client_next(client, &event));
	smtp_client_output_sent(client, smtp_client_output(client).len); /* EHLO */
	smtp_client_input(client,
			  offers_starttls ? SLICE("250-mx.test\r\n250 STARTTLS\r\n") : SLICE("250 mx.test\r\n"));
	while (smtp_client_next(client, &event)) {
		is_ready |= event.type == SMTP_CLIENT_READY;
		if (event.type != SMTP_CLIENT_FAILED)
			continue;
		assert_int_equal(event.result.stage, STAGE_TLS);
		result = GIVES_UP;
	}
	if (slice_has_prefix(smtp_client_output(client), SLICE("STARTTLS")))
		result = ASKS_FOR_TLS;
	assert_int_equal(is_ready, result == GOES_CLEAR);
	smtp_client_free(&client);
	return result;
}

/* Each row once more: with STARTTLS offered and not, and with a handshake that fails. */
static void the_offer_and_the_handshake(void **state)
{
	unsigned clear = 0, waits = 0;

	for (size_t i = 0; i < ARRAY_LEN(by_mx); i++) {
		const struct row *row = &by_mx[i];
		bool is_opportunistic = row->mode == SMTP_CLIENT_TLS_OPPORTUNISTIC;
		struct situation s;
		struct tls_need need;

		situation_init(&s, row->records, row->sts, row->listed, row->remembered);
		tls_policy_decide(*state, row->level, NULL, &s.facts, &need);
		if (need.is_refused)
			continue;
		if (row->mode == SMTP_CLIENT_TLS_NONE) {
			assert_int_equal(after_ehlo(&need, true), GOES_CLEAR);
			assert_int_equal(after_ehlo(&need, false), GOES_CLEAR);
			continue;
		}
		assert_int_equal(after_ehlo(&need, true), ASKS_FOR_TLS);
		assert_int_equal(after_ehlo(&need, false), is_opportunistic ? GOES_CLEAR : GIVES_UP);
		assert_int_equal(tls_policy_may_go_clear(&need), is_opportunistic);
		clear += is_opportunistic;
		waits += !is_opportunistic;
	}
	assert_true(clear > 0 && waits > 0);
}

static const struct config_relayhost *relayhost(const struct config *config, const char *name)
{
	const struct config_relayhost *found = config_find_relayhost(config, slice_of_str(name));

	assert_non_null(found);
	return found;
}

static void relayhosts_follow_their_own_level(void **state)
{
	struct config *config = make_config();
	struct tls_policy *policy = tls_policy_new(config, NULL);
	/* clang-format off */
	static const struct {
		const char *name;
		struct row row;
	} rows[] = {
	    {"plain", {CONFIG_TLS_UNSET, USABLE, NO_STS, true, CLEAR}},
	    {"maybe", {CONFIG_TLS_UNSET, NO_RECORDS, NO_STS, false, TRIES}},
	    {"maybe", {CONFIG_TLS_UNSET, NO_RECORDS, NO_STS, true, ENCRYPTS(MEMORY)}},
	    {"maybe", {CONFIG_TLS_UNSET, NO_RECORDS, ENFORCE, false, false, TRIES}}, /* MTA-STS is for MX */
	    {"maybe", {CONFIG_TLS_UNSET, USABLE, NO_STS, false, MATCHES}},
	    {"sure",  {CONFIG_TLS_UNSET, USABLE, NO_STS, false, VERIFIES(LEVEL)}}, /* the operator's word */
	    {"sure",  {CONFIG_TLS_UNSET, BROKEN, NO_STS, false, VERIFIES(LEVEL)}},
	    {"sure",  {MUST, NO_RECORDS, NO_STS, false, ENCRYPTS(LEVEL)}}, /* a route may say otherwise */
	    {"implicit", {CONFIG_TLS_UNSET, NO_RECORDS, NO_STS, false, CLASS_NONE, SMTP_CLIENT_TLS_IMPLICIT,
			  TLS_LEVEL_VERIFY, TLS_BASIS_LEVEL}},
	    {"pinned", {CONFIG_TLS_UNSET, NO_RECORDS, NO_STS, false, CLASS_NONE, SMTP_CLIENT_TLS_REQUIRED,
			TLS_LEVEL_FINGERPRINT, TLS_BASIS_LEVEL}},
	    {"dane",  {CONFIG_TLS_UNSET, USABLE, NO_STS, false, MATCHES}},
	    {"dane",  {CONFIG_TLS_UNSET, NO_RECORDS, NO_STS, false, REFUSED(TLS)}},
	};
	/* clang-format on */

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_row(policy, relayhost(config, rows[i].name), &rows[i].row, i);
	tls_policy_free(&policy);
	config_free(&config);
}

static void dane_without_a_trusted_resolver_says_so(void **state)
{
	struct situation s;
	struct tls_need need;

	situation_init(&s, NO_RECORDS, TLS_STS_NONE, false, false);
	tls_policy_decide(*state, DANE, NULL, &s.facts, &need);
	assert_non_null(strstr(need.why, "dns.trust_ad"));
	s.facts.is_resolver_trusted = true;
	tls_policy_decide(*state, DANE, NULL, &s.facts, &need);
	assert_non_null(strstr(need.why, "mx.test has no TLSA records"));
}

static void what_has_to_be_asked(void **state)
{
	struct config *config = make_config();

	(void)state;
	assert_true(tls_policy_wants_dane(CONFIG_TLS_UNSET, NULL));
	assert_true(tls_policy_wants_sts(CONFIG_TLS_UNSET, NULL));
	assert_false(tls_policy_wants_dane(NONE, NULL));
	assert_false(tls_policy_wants_sts(NONE, NULL));
	assert_true(tls_policy_wants_dane(DANE, NULL));
	assert_false(tls_policy_wants_sts(DANE, NULL));
	assert_false(tls_policy_wants_dane(CONFIG_TLS_UNSET, relayhost(config, "sure")));
	assert_true(tls_policy_wants_dane(CONFIG_TLS_UNSET, relayhost(config, "dane")));
	assert_false(tls_policy_wants_sts(MAYBE, relayhost(config, "maybe")));
	config_free(&config);
}

/* ---- after the handshake ---- */

/* Both ends in memory; the server has the certificate of mx.test. */
static enum tls_status handshake(struct tls_session *client, struct tls_session *server, struct err *err)
{
	enum tls_status status = TLS_AGAIN, other = TLS_AGAIN;

	for (int i = 0; i < 20 && (status == TLS_AGAIN || other == TLS_AGAIN); i++) {
		struct slice out;

		if (status == TLS_AGAIN)
			status = tls_session_handshake(client, err);
		out = tls_session_output(client);
		tls_session_output_sent(client, tls_session_input(server, out));
		if (other == TLS_AGAIN)
			other = tls_session_handshake(server, NULL);
		out = tls_session_output(server);
		tls_session_output_sent(server, tls_session_input(client, out));
	}
	return status;
}

struct ends {
	struct tls_credentials *credentials;
	struct tls_session *client, *server;
	enum tls_status status;
	struct err err;
};

static void connect_ends(struct ends *ends, const struct tls_need *need)
{
	struct tls_server_credentials_options options = {.certificate_file = pem};

	ends->credentials = tls_credentials_new_server(&options, NULL);
	assert_non_null(ends->credentials);
	ends->server = tls_session_new_server(ends->credentials);
	ends->client = tls_session_new_client(need->credentials, &need->session);
	ends->status = handshake(ends->client, ends->server, &ends->err);
}

static void ends_free(struct ends *ends)
{
	tls_session_free(&ends->client);
	tls_session_free(&ends->server);
	tls_credentials_unref(&ends->credentials);
}

/* What becomes of a handshake; REFUSED also when it fails by itself. */
static enum tls_verdict judge(const struct tls_policy *policy, enum config_tls_level level,
			      const struct tls_facts *facts, struct err *why)
{
	enum tls_verdict verdict = TLS_VERDICT_REFUSED;
	struct tls_need need;
	struct ends ends;

	tls_policy_decide(policy, level, NULL, facts, &need);
	assert_false(need.is_refused);
	connect_ends(&ends, &need);
	*why = ends.err;
	if (ends.status == TLS_OK)
		verdict = tls_policy_judge(&need, facts, ends.client, why);
	ends_free(&ends);
	return verdict;
}

static void a_certificate_is_worth_what_its_name_is_worth(void **state)
{
	struct situation s;
	struct err why;

	situation_init(&s, NO_RECORDS, TLS_STS_NONE, false, false);
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_VERIFIED);
	assert_non_null(strstr(why.text, "mx.test"));
	assert_int_equal(judge(*state, VERIFY, &s.facts, &why), TLS_VERDICT_VERIFIED);
	s.facts.is_name_secure = true;
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_AUTHENTICATED);
	assert_string_equal(why.text, "");
	situation_init(&s, NO_RECORDS, TLS_STS_ENFORCE, true, false);
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_AUTHENTICATED);
	situation_init(&s, NO_RECORDS, TLS_STS_TESTING, true, false);
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_AUTHENTICATED);
	situation_init(&s, NO_RECORDS, TLS_STS_TESTING, false, false);
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_VERIFIED);
}

static void a_wrong_name_counts_where_somebody_asks(void **state)
{
	struct situation s;
	struct err why;

	situation_init(&s, NO_RECORDS, TLS_STS_NONE, false, false);
	s.facts.host = "other.test";
	s.facts.is_name_secure = true;
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_ENCRYPTED);
	assert_non_null(strstr(why.text, "mx.test"));
	assert_int_equal(judge(*state, MUST, &s.facts, &why), TLS_VERDICT_ENCRYPTED);
	assert_int_equal(judge(*state, VERIFY, &s.facts, &why), TLS_VERDICT_REFUSED);
	s.facts.sts = TLS_STS_ENFORCE;
	s.facts.sts_lists_host = true;
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_REFUSED);
}

static void fingerprint_of_mx(const struct tls_policy *policy, uint8_t digest[32])
{
	struct situation s;
	struct tls_need need;
	struct ends ends;
	struct tls_fingerprint fingerprint;

	situation_init(&s, NO_RECORDS, TLS_STS_NONE, false, false);
	tls_policy_decide(policy, MAYBE, NULL, &s.facts, &need);
	connect_ends(&ends, &need);
	assert_true(tls_session_peer_fingerprint(ends.client, &fingerprint));
	memcpy(digest, fingerprint.bytes, 32);
	ends_free(&ends);
}

static void dane_is_by_record_alone(void **state)
{
	struct situation s;
	uint8_t digest[32];
	struct err why;

	fingerprint_of_mx(*state, digest);
	situation_init(&s, NO_RECORDS, TLS_STS_ENFORCE, false, false);
	set_record(&s, 3, 0, 1, digest);
	s.facts.host = "other.test"; /* an EE record is not about names (RFC 7672 section 3.1.1) */
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_AUTHENTICATED);
	assert_int_equal(judge(*state, DANE, &s.facts, &why), TLS_VERDICT_AUTHENTICATED);
	digest[5] ^= 1;
	set_record(&s, 3, 0, 1, digest);
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_REFUSED);
	assert_non_null(strstr(why.text, "TLSA"));
	/* Trusted authorities are no way around the records. */
	s.facts.host = "mx.test";
	s.facts.is_name_secure = true;
	assert_int_equal(judge(*state, VERIFY, &s.facts, &why), TLS_VERDICT_REFUSED);
	set_record(&s, 0, 0, 1, digest);
	s.facts.sts = TLS_STS_NONE;
	s.facts.host = "other.test";
	assert_int_equal(judge(*state, MAYBE, &s.facts, &why), TLS_VERDICT_ENCRYPTED);
}

/* A relayhost that asks for a certificate is shown ours. */
static void a_relayhost_is_shown_our_certificate(void **state)
{
	const struct config_source source = {.default_hostname = "relay.test"};
	struct config_errors errors;
	struct config *config;
	struct tls_policy *policy;
	char text[1024];
	struct err err;

	(void)state;
	for (int shows = 0; shows < 2; shows++) {
		struct tls_server_credentials_options asking = {.certificate_file = pem, .client_ca_file = pem};
		struct situation s;
		struct tls_need need;
		struct ends ends = {0};

		snprintf(text, sizeof(text), "relayhosts: {a: {address: mx.test, tls: required%s%s}}\n",
			 shows ? ", certificate: " : "", shows ? pem : "");
		assert_int_equal(config_load_text(&source, slice_of_str(text), &config, &errors), 0);
		policy = tls_policy_new(config, &err);
		assert_non_null(policy);
		situation_init(&s, NO_RECORDS, TLS_STS_NONE, false, false);
		tls_policy_decide(policy, CONFIG_TLS_UNSET, &config->relayhosts[0], &s.facts, &need);
		ends.credentials = tls_credentials_new_server(&asking, NULL);
		ends.server = tls_session_new_server(ends.credentials);
		ends.client = tls_session_new_client(need.credentials, &need.session);
		handshake(ends.client, ends.server, &ends.err);
		assert_int_equal(tls_session_peer_chain_count(ends.server), shows);
		ends_free(&ends);
		tls_policy_free(&policy);
		config_free(&config);
	}
	snprintf(text, sizeof(text), "relayhosts: {a: {address: mx.test, certificate: %s/missing.pem}}\n", folder);
	assert_int_equal(config_load_text(&source, slice_of_str(text), &config, &errors), 0);
	assert_null(tls_policy_new(config, &err));
	assert_non_null(strstr(err.text, "missing.pem"));
	config_free(&config);
}

static void a_policy_lives_as_long_as_its_connections(void **state)
{
	struct tls_policy *policy = tls_policy_ref(*state), *second = policy;
	struct situation s;
	struct tls_need need;

	tls_policy_free(&second);
	assert_null(second);
	situation_init(&s, NO_RECORDS, TLS_STS_NONE, false, false);
	tls_policy_decide(policy, MAYBE, NULL, &s.facts, &need);
	assert_non_null(need.credentials);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(the_table_by_mx, setup, teardown),
	    cmocka_unit_test_setup_teardown(clear_text_only_where_nothing_asks_for_more, setup, teardown),
	    cmocka_unit_test_setup_teardown(the_offer_and_the_handshake, setup, teardown),
	    cmocka_unit_test(relayhosts_follow_their_own_level),
	    cmocka_unit_test_setup_teardown(dane_without_a_trusted_resolver_says_so, setup, teardown),
	    cmocka_unit_test(what_has_to_be_asked),
	    cmocka_unit_test_setup_teardown(a_certificate_is_worth_what_its_name_is_worth, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_wrong_name_counts_where_somebody_asks, setup, teardown),
	    cmocka_unit_test_setup_teardown(dane_is_by_record_alone, setup, teardown),
	    cmocka_unit_test(a_relayhost_is_shown_our_certificate),
	    cmocka_unit_test_setup_teardown(a_policy_lives_as_long_as_its_connections, setup, teardown),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
