/* Doctor: what a sender domain publishes of itself: DMARC, and where its bounces go. */
#include "base/base.h"
#include "dkim/select.h"
#include "relayctl/doctor.h"

#include <stdio.h>

/* ---- DMARC (RFC 7489) ---- */

struct dmarc {
	char place[256];		  /* the domain that has the record */
	char policy[16];		  /* for the domain asked about: none, quarantine, reject */
	bool has_policy, has_strict_dkim; /* p= is there; adkim=s */
};

static struct slice tag_of(struct slice record, struct slice name)
{
	while (record.len > 0) {
		ptrdiff_t end = slice_find(record, ';');
		struct slice tag = slice_trim(end < 0 ? record : slice_to(record, (size_t)end));
		ptrdiff_t equals = slice_find(tag, '=');
		if (equals > 0 && slice_case_eq(slice_trim(slice_to(tag, (size_t)equals)), name))
			return slice_trim(slice_from(tag, (size_t)equals + 1));
		record = slice_from(record, end < 0 ? record.len : (size_t)end + 1);
	}
	return (struct slice){0};
}

static void read_record(struct slice record, bool is_parent, struct dmarc *out)
{
	struct slice policy = tag_of(record, SLICE("p")), sub = tag_of(record, SLICE("sp"));

	out->has_policy = policy.len > 0;
	slice_to_cstr(is_parent && sub.len > 0 ? sub : policy, out->policy, sizeof(out->policy));
	out->has_strict_dkim = slice_case_eq(tag_of(record, SLICE("adkim")), SLICE("s"));
}

/* The domain's own record, else that of the nearest parent that has one (as DMARCbis walks the tree), never of a
 * top-level domain. The count of records, of which there must be one; 0: none; -1: a lookup failed, which was told. */
static int find_record(struct doctor *doctor, const char *domain, struct dmarc *out)
{
	char name[300];
	struct buf text;
	int count = 0;

	buf_init(&text, 64 * 1024);
	for (const char *at = domain; at && strchr(at, '.') && count == 0; at = strchr(at, '.'), at += at != NULL) {
		snprintf(name, sizeof(name), "_dmarc.%s", at);
		count = doctor_ask_txt(doctor, domain, name, "v=DMARC1", &text);
		snprintf(out->place, sizeof(out->place), "%s", at);
	}
	if (count == 1)
		read_record(buf_slice(&text), strcmp(out->place, domain) != 0, out);
	buf_fini(&text);
	return count;
}

/* Does our signature count for the From domain? Relaxed: both below the same parent; here, one below the other, which
 * is what a key is chosen by. */
static bool is_aligned(const char *signer, const char *domain, bool is_strict)
{
	size_t a = strlen(signer), b = strlen(domain);

	if (!slice_has_case_suffix(slice_of_str(domain), slice_of_str(signer)))
		return false;
	return a == b || (!is_strict && domain[b - a - 1] == '.');
}

static void tell_alignment(struct doctor *doctor, const char *domain, const struct dmarc *dmarc)
{
	const struct config_dkim_domain *signer = doctor_signer(doctor, domain);
	bool is_enforced = strcasecmp(dmarc->policy, "none") != 0;
	char d[DKIM_DOMAIN_MAX_BYTES + 1] = "";

	if (signer)
		dkim_domain_to_ascii(slice_of_str(signer->domain), d);
	if (signer && is_aligned(d, domain, dmarc->has_strict_dkim)) {
		doctor_tell(doctor, DOCTOR_OK, domain, "p=%s (of %s); our signature is aligned, d=%s", dmarc->policy,
			    dmarc->place, d);
	} else if (signer) {
		doctor_tell(doctor, is_enforced ? DOCTOR_FAIL : DOCTOR_WARN, domain,
			    "p=%s (of %s), but our signature does not count for it: d=%s is not aligned%s",
			    dmarc->policy, dmarc->place, d, dmarc->has_strict_dkim ? " (adkim=s)" : "");
		doctor_advise(doctor, "make a key of its own: relayctl dkim keygen %s s1", domain);
	} else {
		doctor_tell(doctor, config_uses_mx(doctor->config) && is_enforced ? DOCTOR_WARN : DOCTOR_INFO, domain,
			    "p=%s (of %s) hangs on SPF, or on signatures that the relayhost makes with d=%s: no key of "
			    "ours signs for it",
			    dmarc->policy, dmarc->place, domain);
	}
}

void doctor_dmarc(struct doctor *doctor, const char *domain)
{
	static const struct slice proposal = SLICE("v=DMARC1; p=none");
	char name[300];
	struct dmarc dmarc = {0};
	int count = find_record(doctor, domain, &dmarc);

	if (count < 0)
		return;
	if (count == 1 && dmarc.has_policy) {
		tell_alignment(doctor, domain, &dmarc);
		return;
	}
	snprintf(name, sizeof(name), "_dmarc.%s", count == 0 ? domain : dmarc.place);
	if (count == 0)
		doctor_tell(doctor, DOCTOR_WARN, domain,
			    "no DMARC record: large receivers want one from those who send much");
	else if (count > 1)
		doctor_tell(doctor, DOCTOR_FAIL, domain, "%s has %d DMARC records: receivers pass all of them over",
			    name, count);
	else
		doctor_tell(doctor, DOCTOR_FAIL, domain, "the record at %s has no policy (p=): it is passed over",
			    name);
	if (count > 1)
		doctor_advise(doctor, "leave one of them");
	else
		doctor_publish(doctor, name, proposal);
}

/* ---- bounces ---- */

static bool has_address(struct doctor *doctor, const char *domain)
{
	const struct dns_answer *v4 = lookup_ask(doctor->lookup, domain, DNS_A);
	const struct dns_answer *v6 = lookup_ask(doctor->lookup, domain, DNS_AAAA);
	bool is_there = v4->status == DNS_OK || v6->status == DNS_OK;

	dns_answer_unref(&v4);
	dns_answer_unref(&v6);
	return is_there;
}

static void judge_mx(struct doctor *doctor, const char *domain, const struct dns_answer *answer)
{
	const struct dns_record *first = answer->records;

	for (size_t i = 0; i < answer->record_count; i++)
		if (answer->records[i].mx.preference < first->mx.preference)
			first = &answer->records[i];
	if (first->mx.host[0] == '\0') {
		doctor_tell(doctor, DOCTOR_WARN, domain,
			    "it takes no mail (null MX): bounces and answers are lost, and "
			    "some receivers refuse such senders");
		doctor_advise(doctor, "send from a domain that takes mail, or publish an MX record");
	} else if (!has_address(doctor, first->mx.host)) {
		doctor_tell(doctor, DOCTOR_WARN, domain, "its MX host %s has no address", first->mx.host);
		doctor_advise(doctor, "publish its address, or another MX record");
	} else {
		doctor_tell(doctor, DOCTOR_OK, domain, "takes mail, by MX %s", first->mx.host);
	}
}

void doctor_bounces(struct doctor *doctor, const char *domain)
{
	const struct dns_answer *answer = doctor_ask(doctor, domain, domain, DNS_MX);

	if (!answer)
		return;
	if (answer->status == DNS_OK) {
		judge_mx(doctor, domain, answer);
	} else if (answer->status == DNS_NXDOMAIN) {
		doctor_tell(doctor, DOCTOR_FAIL, domain, "there is no such domain: receivers refuse such senders");
		doctor_advise(doctor, "send from a domain that exists");
	} else if (has_address(doctor, domain)) {
		doctor_tell(doctor, DOCTOR_OK, domain, "takes mail, by its own address (no MX record)");
	} else {
		doctor_tell(doctor, DOCTOR_WARN, domain,
			    "has neither MX nor address: bounces are lost, and many receivers refuse such senders");
		doctor_advise(doctor, "publish an MX record");
	}
	dns_answer_unref(&answer);
}
