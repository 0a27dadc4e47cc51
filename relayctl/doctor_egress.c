/* Doctor: the address that our mail comes from, its name, our EHLO name, blocklists. */
#include "relayctl/doctor_egress.h"

#include "base/base.h"

#include <stdio.h>

/* ---- our addresses ---- */

struct dns_address doctor_address(int family, const uint8_t *bytes)
{
	struct dns_address address = {.family = family == AF_INET ? DNS_IPV4 : DNS_IPV6};

	memcpy(address.bytes, bytes, family == AF_INET ? 4 : 16);
	return address;
}

const struct dns_address *doctor_source(const struct doctor *doctor, unsigned family, struct dns_address *memory)
{
	const struct config_source_addresses *bind = &doctor->config->delivery.bind;

	for (size_t i = 0; i < bind->count; i++) {
		if ((bind->items[i].family == AF_INET) != (family == DNS_IPV4))
			continue;
		*memory = doctor_address(bind->items[i].family, bind->items[i].bytes);
		return memory;
	}
	return NULL;
}

bool doctor_is_private(const struct dns_address *address)
{
	const uint8_t *b = address->bytes;

	if (address->family == DNS_IPV6)
		return (b[0] & 0xfe) == 0xfc;
	return b[0] == 10 || (b[0] == 172 && (b[1] & 0xf0) == 16) || (b[0] == 192 && b[1] == 168) ||
	       (b[0] == 100 && (b[1] & 0xc0) == 64);
}

static bool may_send_from(const struct doctor *doctor, const struct dns_address *address)
{
	return address->family == DNS_IPV4 ? doctor->config->delivery.ip != CONFIG_IP_6
					   : doctor->config->delivery.ip != CONFIG_IP_4;
}

static size_t keep_public(const struct doctor *doctor, struct dns_address *addresses, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
		if (!doctor_is_private(&addresses[i]) && may_send_from(doctor, &addresses[i]))
			addresses[kept++] = addresses[i];
	return kept;
}

static size_t take_bound(const struct doctor *doctor, struct dns_address *out)
{
	size_t count = 0;

	for (unsigned family = DNS_IPV4; family <= DNS_IPV6; family += DNS_IPV6 - DNS_IPV4)
		count += doctor_source(doctor, family, &out[count]) != NULL;
	return keep_public(doctor, out, count);
}

static size_t take_own(const struct doctor *doctor, struct dns_address *out)
{
	int count = dns_own_addresses(out, DOCTOR_EGRESS_MAX);

	return keep_public(doctor, out, (size_t)MAX(count, 0));
}

static size_t take_hostname(const struct doctor *doctor, struct dns_address *out)
{
	static const uint16_t types[] = {DNS_A, DNS_AAAA};
	size_t count = 0;

	for (size_t t = 0; t < ARRAY_LEN(types); t++) {
		const struct dns_answer *answer = lookup_ask(doctor->lookup, doctor->config->hostname, types[t]);
		for (size_t i = 0; answer->status == DNS_OK && i < answer->record_count && count < DOCTOR_EGRESS_MAX;
		     i++)
			out[count++] = answer->records[i].address;
		dns_answer_unref(&answer);
	}
	return keep_public(doctor, out, count);
}

const char *doctor_egress(const struct doctor *doctor, struct dns_address out[DOCTOR_EGRESS_MAX], size_t *count)
{
	memcpy(out, doctor->egress, sizeof(doctor->egress));
	*count = keep_public(doctor, out, doctor->egress_count);
	if (*count > 0)
		return "as others see us";
	*count = take_bound(doctor, out);
	if (*count > 0)
		return "of delivery.bind";
	*count = take_own(doctor, out);
	if (*count > 0)
		return "of this machine";
	*count = take_hostname(doctor, out);
	return "of our EHLO name";
}

/* ---- the EHLO name ---- */

static bool stands_in(const struct dns_address *address, const struct dns_address *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (dns_address_eq(address, &list[i]))
			return true;
	return false;
}

static void advise_address(struct doctor *doctor, const struct dns_address *address)
{
	char text[DNS_ADDRESS_TEXT];

	dns_address_format(address, text);
	doctor_advise(doctor, "publish: %s. IN %s %s", doctor->config->hostname,
		      address->family == DNS_IPV4 ? "A" : "AAAA", text);
}

void doctor_helo(struct doctor *doctor, const char *subject)
{
	const char *name = doctor->config->hostname, *basis;
	struct dns_address own[DOCTOR_EGRESS_MAX], named[DOCTOR_EGRESS_MAX];
	size_t own_count, named_count = take_hostname(doctor, named);
	char text[DNS_ADDRESS_TEXT];

	(void)subject;
	basis = doctor_egress(doctor, own, &own_count);
	if (!config_is_fqdn(slice_of_str(name))) {
		doctor_tell(doctor, DOCTOR_FAIL, name, "is no full name: receivers refuse it in EHLO");
		doctor_advise(doctor, "set hostname to this machine's name in DNS, such as relay.example.com");
		return;
	}
	if (named_count == 0) {
		doctor_tell(doctor, DOCTOR_FAIL, name, "has no public address in DNS: receivers distrust it in EHLO");
		if (own_count > 0 && dns_address_kind(&own[0]) == DNS_ADDRESS_GLOBAL)
			advise_address(doctor, &own[0]);
		else
			doctor_advise(doctor, "publish an A record with the address that mail comes from");
		return;
	}
	for (size_t i = 0; i < own_count; i++) {
		if (stands_in(&own[i], named, named_count))
			continue;
		dns_address_format(&own[i], text);
		doctor_tell(doctor, doctor->egress_count > 0 ? DOCTOR_FAIL : DOCTOR_WARN, name,
			    "is another machine in DNS: mail comes from %s (%s)", text, basis);
		advise_address(doctor, &own[i]);
		return;
	}
	dns_address_format(&named[0], text);
	doctor_tell(doctor, DOCTOR_OK, name, "is %s in DNS", text);
}

/* ---- the name of the address ---- */

/* Is it an address of that host? */
static bool leads_back(struct doctor *doctor, const char *host, const struct dns_address *address)
{
	const struct dns_answer *answer =
	    lookup_ask(doctor->lookup, host, address->family == DNS_IPV4 ? DNS_A : DNS_AAAA);
	bool is_there = false;

	for (size_t i = 0; answer->status == DNS_OK && i < answer->record_count; i++)
		is_there = is_there || dns_address_eq(&answer->records[i].address, address);
	dns_answer_unref(&answer);
	return is_there;
}

static void advise_ptr(struct doctor *doctor, const struct dns_address *address)
{
	doctor_advise(doctor, "have whoever gave you the address set its PTR record to %s%s", doctor->config->hostname,
		      address->family == DNS_IPV6 ? ", or set delivery.ip: \"4\"" : "");
}

static void judge_ptr(struct doctor *doctor, const struct dns_address *address, const char *text,
		      const struct dns_answer *answer)
{
	const char *name = answer->status == DNS_OK ? answer->records[0].name : NULL;

	for (size_t i = 0; name && i < answer->record_count; i++)
		if (strcasecmp(answer->records[i].name, doctor->config->hostname) == 0)
			name = answer->records[i].name;
	if (!name) {
		doctor_tell(doctor, DOCTOR_FAIL, text,
			    "has no name (PTR): Gmail and others refuse mail from it (5.7.25)");
		advise_ptr(doctor, address);
	} else if (!leads_back(doctor, name, address)) {
		doctor_tell(doctor, DOCTOR_FAIL, text, "is called %s (PTR), which is not its address", name);
		advise_ptr(doctor, address);
	} else if (strcasecmp(name, doctor->config->hostname) != 0) {
		doctor_tell(doctor, DOCTOR_WARN, text, "is called %s (PTR), but EHLO says %s", name,
			    doctor->config->hostname);
		doctor_advise(doctor, "set hostname: %s, or the PTR record to %s", name, doctor->config->hostname);
	} else {
		doctor_tell(doctor, DOCTOR_OK, text, "is called %s (PTR), and that is its address", name);
	}
}

void doctor_ptr(struct doctor *doctor, const char *subject)
{
	struct dns_address own[DOCTOR_EGRESS_MAX];
	char name[DNS_ADDRESS_REVERSE_TEXT], text[DNS_ADDRESS_TEXT];
	const struct dns_answer *answer;
	size_t count;

	doctor_egress(doctor, own, &count);
	if (count == 0)
		doctor_tell(doctor, DOCTOR_INFO, subject, "the address that mail comes from could not be found out");
	for (size_t i = 0; i < count; i++) {
		dns_address_format(&own[i], text);
		dns_address_format_reverse(&own[i], name);
		answer = doctor_ask(doctor, text, name, DNS_PTR);
		if (answer)
			judge_ptr(doctor, &own[i], text, answer);
		dns_answer_unref(&answer);
	}
}

/* ---- blocklists (RFC 5782) ---- */

static void ask_list(struct doctor *doctor, const struct dns_address *address, struct slice zone)
{
	char reverse[DNS_ADDRESS_REVERSE_TEXT], name[400], subject[400], text[DNS_ADDRESS_TEXT];
	const struct dns_answer *answer;
	const uint8_t *code;

	dns_address_format(address, text);
	dns_address_format_reverse(address, reverse);
	reverse[strlen(reverse) - strlen(address->family == DNS_IPV4 ? "in-addr.arpa" : "ip6.arpa")] = '\0';
	snprintf(name, sizeof(name), "%s%.*s", reverse, SLICE_ARG(slice_to(zone, 255)));
	snprintf(subject, sizeof(subject), "%s at %.*s", text, SLICE_ARG(slice_to(zone, 255)));
	answer = doctor_ask(doctor, subject, name, DNS_A);
	if (!answer)
		return;
	code = answer->status == DNS_OK ? answer->records[0].address.bytes : NULL;
	if (!code) {
		doctor_tell(doctor, DOCTOR_OK, subject, "is not listed");
	} else if (code[0] != 127 || code[1] == 255) {
		doctor_tell(doctor, DOCTOR_WARN, subject, "the list does not answer our resolver (%u.%u.%u.%u)",
			    code[0], code[1], code[2], code[3]);
		doctor_advise(doctor, "ask it by a resolver of your own, not a public one (dns.servers)");
	} else {
		doctor_tell(doctor, DOCTOR_WARN, subject, "is listed (%u.%u.%u.%u)", code[0], code[1], code[2],
			    code[3]);
		doctor_advise(doctor, "find the cause, then ask the list to remove it");
	}
	dns_answer_unref(&answer);
}

void doctor_blocklist(struct doctor *doctor, const char *subject)
{
	struct dns_address own[DOCTOR_EGRESS_MAX];
	struct slice left = slice_of_str(doctor->blocklists);
	size_t count;

	doctor_egress(doctor, own, &count);
	if (count == 0)
		doctor_tell(doctor, DOCTOR_INFO, subject, "the address that mail comes from could not be found out");
	while (left.len > 0) {
		ptrdiff_t comma = slice_find(left, ',');
		struct slice zone = slice_trim(comma < 0 ? left : slice_to(left, (size_t)comma));
		for (size_t i = 0; i < count && zone.len > 0; i++)
			ask_list(doctor, &own[i], zone);
		left = slice_from(left, comma < 0 ? left.len : (size_t)comma + 1);
	}
}
