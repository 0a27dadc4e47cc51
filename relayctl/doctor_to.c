/* Doctor: would mail to one address get there? Its MX hosts, a session with each, and what the domain asks of TLS. */
#include "base/base.h"
#include "relayctl/doctor_session.h"

#include <stdio.h>

enum { HOSTS_MAX = 3 };

static void tell_ready(struct doctor *doctor, const char *subject, const struct doctor_session *session)
{
	if (!session->tls_version[0])
		doctor_tell(doctor, DOCTOR_INFO, subject, "takes connections, without TLS");
	else if (session->is_verified)
		doctor_tell(doctor, DOCTOR_OK, subject,
			    "takes connections, %s, with a certificate that is trusted and its", session->tls_version);
	else
		doctor_tell(doctor, DOCTOR_INFO, subject, "takes connections, %s; its certificate is not trusted: %s",
			    session->tls_version, session->unverified);
}

static void visit(struct doctor *doctor, const struct mx_result *found)
{
	struct doctor_session sessions[HOSTS_MAX];
	size_t count = MIN(found->host_count, (size_t)HOSTS_MAX), good = 0;
	char subject[600], text[DNS_ADDRESS_TEXT];

	for (size_t i = 0; i < count; i++) {
		sessions[i] = (struct doctor_session){.doctor = doctor,
						      .address = &found->hosts[i].addresses[0],
						      .port = (uint16_t)doctor->config->delivery.port,
						      .mode = SMTP_CLIENT_TLS_OPPORTUNISTIC,
						      .tls = {.host = found->hosts[i].name,
							      .level = TLS_LEVEL_OPPORTUNISTIC,
							      .ca_file = doctor->config->delivery.ca_file,
							      .wants_verdict = true}};
		doctor_session_run(&sessions[i]);
		good += sessions[i].is_ready;
	}
	for (size_t i = 0; i < count; i++) {
		dns_address_format(sessions[i].address, text);
		snprintf(subject, sizeof(subject), "%s at %.255s[%s]", found->domain, found->hosts[i].name, text);
		if (sessions[i].is_ready)
			tell_ready(doctor, subject, &sessions[i]);
		else
			doctor_tell(doctor, good > 0 ? DOCTOR_WARN : DOCTOR_FAIL, subject, "%s", sessions[i].trouble);
	}
}

/* What is published; what is made of it, relayctl route says. */
static void tell_published(struct doctor *doctor, const struct mx_result *found)
{
	char name[300];
	const struct dns_answer *answer;
	struct buf text;

	buf_init(&text, 64 * 1024);
	snprintf(name, sizeof(name), "_mta-sts.%s", found->domain);
	if (doctor_ask_txt(doctor, found->domain, name, "v=STSv1", &text) == 1)
		doctor_tell(doctor, DOCTOR_INFO, found->domain, "publishes an MTA-STS policy");
	buf_fini(&text);
	snprintf(name, sizeof(name), "_%u._tcp.%.255s", (unsigned)doctor->config->delivery.port, found->hosts[0].name);
	answer = lookup_ask(doctor->lookup, name, DNS_TLSA);
	if (answer->status == DNS_OK && answer->ad)
		doctor_tell(doctor, DOCTOR_INFO, found->hosts[0].name, "has DANE records, which DNSSEC vouches for");
	else if (answer->status == DNS_OK)
		doctor_tell(
		    doctor, DOCTOR_INFO, found->hosts[0].name,
		    "has DANE records, which do not count: our DNS servers do not validate, or are not believed "
		    "(dns.trust_ad)");
	dns_answer_unref(&answer);
}

void doctor_to(struct doctor *doctor, const char *subject)
{
	struct slice address = slice_of_str(doctor->to);
	char domain[256];
	struct mx_result *found;

	(void)subject;
	slice_to_cstr(slice_from(address, (size_t)(slice_find_last(address, '@') + 1)), domain, sizeof(domain));
	found = lookup_mx(doctor->lookup, domain);
	if (found->status != MX_OK) {
		doctor_tell(doctor, DOCTOR_FAIL, doctor->to, "%s", found->text);
	} else {
		visit(doctor, found);
		if (!found->is_literal)
			tell_published(doctor, found);
	}
	mx_result_free(&found);
}
