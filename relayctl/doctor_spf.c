/* Doctor: may our addresses, or our relayhosts, send mail of a sender domain? As receivers evaluate it. */
#include "base/base.h"
#include "relayctl/doctor_egress.h"
#include "relayctl/spf.h"

#include <stdio.h>

static const struct dns_answer *ask(void *ctx, const char *name, uint16_t type)
{
	return lookup_ask(ctx, name, type);
}

static void evaluate(const struct doctor *doctor, const char *domain, const struct dns_address *address,
		     struct spf_verdict *out)
{
	const struct spf_question question = {
	    .address = *address, .domain = domain, .helo = doctor->config->hostname, .ask = ask, .ctx = doctor->lookup};

	spf_check(&question, out);
}

/* ---- the record to publish ---- */

/* Where new mechanisms go: before the term that takes all, or redirects; else at the end. */
static size_t place_of_end(struct slice record)
{
	for (size_t i = 0; i < record.len; i++) {
		struct slice rest = slice_from(record, i + 1);
		if (record.ptr[i] != ' ')
			continue;
		if (rest.len && strchr("+-~?", rest.ptr[0]))
			rest = slice_from(rest, 1);
		if (slice_has_case_prefix(rest, SLICE("redirect=")) ||
		    (slice_has_case_prefix(rest, SLICE("all")) && (rest.len == 3 || rest.ptr[3] == ' ')))
			return i;
	}
	return record.len;
}

/* The domain's record with `additions` (" ip4:192.0.2.1"), or a new one; for the finding told last. */
static void publish_with(struct doctor *doctor, const char *domain, const struct buf *additions)
{
	struct buf old, new;
	int count;
	size_t end;

	buf_init(&old, 64 * 1024);
	buf_init(&new, 64 * 1024);
	count = doctor_ask_txt(doctor, domain, domain, "v=spf1", &old);
	end = place_of_end(buf_slice(&old));
	if (count == 1) {
		buf_append(&new, slice_to(buf_slice(&old), end));
		buf_append(&new, buf_slice(additions));
		buf_append(&new, slice_from(buf_slice(&old), end));
	} else if (count == 0) {
		buf_printf(&new, "v=spf1%.*s ~all", SLICE_ARG(buf_slice(additions)));
	}
	if (count > 1)
		doctor_advise(doctor, "make one record of them");
	else if (count >= 0)
		doctor_publish(doctor, domain, buf_slice(&new));
	buf_fini(&old);
	buf_fini(&new);
}

static void append_address(struct buf *additions, const struct dns_address *address)
{
	char text[DNS_ADDRESS_TEXT];

	dns_address_format(address, text);
	buf_printf(additions, " ip%d:%s", address->family, text);
}

/* ---- mail that goes by MX comes from our addresses ---- */

static enum doctor_level level_of(enum spf_result result)
{
	switch (result) {
	case SPF_PASS: return DOCTOR_OK;
	case SPF_FAIL:
	case SPF_TEMPERROR:
	case SPF_PERMERROR: return DOCTOR_FAIL;
	default: return DOCTOR_WARN;
	}
}

/* Can a further mechanism mend it? */
static bool is_mendable(enum spf_result result)
{
	return result != SPF_PASS && result != SPF_TEMPERROR && result != SPF_PERMERROR;
}

static void check_direct(struct doctor *doctor, const char *domain)
{
	struct dns_address own[DOCTOR_EGRESS_MAX];
	struct spf_verdict verdicts[DOCTOR_EGRESS_MAX];
	char text[DNS_ADDRESS_TEXT];
	struct buf additions;
	size_t count;
	const char *basis = doctor_egress(doctor, own, &count);

	if (count == 0)
		doctor_tell(doctor, DOCTOR_INFO, domain, "the address that mail comes from could not be found out");
	buf_init(&additions, 4096);
	for (size_t i = 0; i < count; i++) {
		evaluate(doctor, domain, &own[i], &verdicts[i]);
		if (is_mendable(verdicts[i].result))
			append_address(&additions, &own[i]);
	}
	for (size_t i = 0; i < count; i++) {
		dns_address_format(&own[i], text);
		doctor_tell(doctor, level_of(verdicts[i].result), domain, "%s for %s (%s): %s; %u of 10 lookups",
			    spf_result_name(verdicts[i].result), text, basis, verdicts[i].why, verdicts[i].lookups);
		if (is_mendable(verdicts[i].result))
			publish_with(doctor, domain, &additions);
		else if (verdicts[i].result == SPF_PERMERROR)
			doctor_advise(doctor, "mend the record: until then receivers take it for broken");
	}
	buf_fini(&additions);
}

/* ---- mail that goes through a relayhost comes from its addresses ---- */

static const struct provider {
	const char *host;    /* the end of it */
	const char *include; /* what the provider's documents ask for */
	bool
	    has_own_sender; /* the envelope's sender is in a domain of the provider's, unless it was set up otherwise */
} providers[] = {
    {".amazonaws.com", "amazonses.com", true},
    {".sendgrid.net", "sendgrid.net", true},
    {".mailgun.org", "mailgun.org", false},
    {".postmarkapp.com", "spf.mtasv.net", true},
    {".brevo.com", "spf.brevo.com", true},
    {".mailjet.com", "spf.mailjet.com", true},
    {".sparkpostmail.com", "_spf.sparkpostmail.com", true},
    {".mandrillapp.com", "spf.mandrillapp.com", true},
    {".smtp2go.com", "spf.smtp2go.com", true},
    {".office365.com", "spf.protection.outlook.com", false},
    {".mail.protection.outlook.com", "spf.protection.outlook.com", false},
    {".gmail.com", "_spf.google.com", false},
    {".fastmail.com", "spf.messagingengine.com", false},
};

static const struct provider *find_provider(const char *host)
{
	for (size_t i = 0; i < ARRAY_LEN(providers); i++)
		if (slice_has_case_suffix(slice_of_str(host), slice_of_str(providers[i].host)))
			return &providers[i];
	return NULL;
}

struct search {
	struct lookup *lookup;
	const char *wanted;
	bool is_found;
};

static const struct dns_answer *search_ask(void *ctx, const char *name, uint16_t type)
{
	return ask(((struct search *)ctx)->lookup, name, type);
}

static void search_visit(void *ctx, const char *domain)
{
	struct search *search = ctx;

	search->is_found |= strcasecmp(domain, search->wanted) == 0;
}

/* Does its record lead to that of the provider? For an address that stands in no record all of it is walked through. */
static bool includes(const struct doctor *doctor, const char *domain, const char *wanted, struct spf_verdict *verdict)
{
	struct search search = {doctor->lookup, wanted, false};
	const struct spf_question question = {.address = {.family = DNS_IPV4, .bytes = {240, 0, 0, 1}},
					      .domain = domain,
					      .helo = doctor->config->hostname,
					      .ask = search_ask,
					      .on_visit = search_visit,
					      .ctx = &search};

	spf_check(&question, verdict);
	return search.is_found;
}

static void check_provider(struct doctor *doctor, const char *domain, const struct config_relayhost *relayhost,
			   const struct provider *provider)
{
	struct spf_verdict verdict;
	struct buf addition;

	if (includes(doctor, domain, provider->include, &verdict)) {
		doctor_tell(doctor, verdict.result == SPF_PERMERROR ? DOCTOR_FAIL : DOCTOR_OK, domain,
			    "includes %s, as %s wants it%s%s", provider->include, relayhost->address.host,
			    verdict.result == SPF_PERMERROR ? ", but is broken: " : "",
			    verdict.result == SPF_PERMERROR ? verdict.why : "");
		return;
	}
	doctor_tell(doctor, provider->has_own_sender ? DOCTOR_INFO : DOCTOR_WARN, domain, "does not include %s, %s %s",
		    provider->include,
		    provider->has_own_sender ? "which counts only with a sender domain of your own at"
					     : "as is wanted by",
		    relayhost->address.host);
	buf_init(&addition, 300);
	buf_printf(&addition, " include:%s", provider->include);
	publish_with(doctor, domain, &addition);
	buf_fini(&addition);
}

/* Not seen from outside: what it sends from is another address. */
static bool is_near(const struct dns_address *address)
{
	return dns_address_kind(address) != DNS_ADDRESS_GLOBAL || doctor_is_private(address);
}

/* A host that sends by itself, as inside a company; otherwise only its people know where it sends from. */
static void check_host(struct doctor *doctor, const char *domain, const struct config_relayhost *relayhost)
{
	const char *name = relayhost->name, *host = relayhost->address.host;
	struct resolver_result found;
	struct spf_verdict verdict = {0};

	lookup_host(doctor->lookup, host, &found);
	if (found.status != DNS_OK)
		return; /* told by the check of the relayhost */
	evaluate(doctor, domain, &found.addresses[0], &verdict);
	if (verdict.result == SPF_PASS)
		doctor_tell(doctor, DOCTOR_OK, domain, "pass for relayhost %s (%s): %s; %u of 10 lookups", name, host,
			    verdict.why, verdict.lookups);
	else if (verdict.result == SPF_PERMERROR || verdict.result == SPF_TEMPERROR)
		doctor_tell(doctor, DOCTOR_FAIL, domain, "%s: %s", spf_result_name(verdict.result), verdict.why);
	else if (verdict.result == SPF_NONE)
		doctor_tell(doctor, DOCTOR_WARN, domain, "none: %s", verdict.why);
	else
		doctor_tell(doctor, DOCTOR_INFO, domain,
			    "does not name relayhost %s (%s) itself: right if it sends from elsewhere", name, host);
	if (is_near(&found.addresses[0]) && verdict.result != SPF_PASS)
		doctor_advise(doctor, "the record must name the addresses that %s (%s) sends from", name, host);
	else if (verdict.result != SPF_PASS)
		doctor_advise(doctor, "ask the people of %s what it wants in SPF records", host);
}

void doctor_spf(struct doctor *doctor, const char *domain)
{
	const struct config *config = doctor->config;

	if (config_uses_mx(config))
		check_direct(doctor, domain);
	for (size_t i = 0; i < config->relayhost_count; i++) {
		const struct config_relayhost *relayhost = &config->relayhosts[i];
		const struct provider *provider = find_provider(relayhost->address.host);
		if (provider)
			check_provider(doctor, domain, relayhost, provider);
		else
			check_host(doctor, domain, relayhost);
	}
}
