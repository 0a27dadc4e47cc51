/* What the checks of the doctor ask DNS. */
#include "relayctl/doctor.h"

const struct dns_answer *doctor_ask(struct doctor *doctor, const char *subject, const char *name, uint16_t type)
{
	const struct dns_answer *answer = lookup_ask(doctor->lookup, name, type);
	char word[16];

	if (answer->status != DNS_TEMPORARY)
		return answer;
	doctor_tell(doctor, DOCTOR_FAIL, subject, "%s %s cannot be looked up: %s", dns_type_name(type, word), name,
		    answer->reason);
	dns_answer_unref(&answer);
	return NULL;
}

/* "v=spf1" must be all of the first word (RFC 7208 section 4.5), "v=DMARC1" too. */
static bool has_version(struct slice text, struct slice version)
{
	struct slice rest = slice_from(text, version.len);

	return slice_has_case_prefix(text, version) &&
	       (rest.len == 0 || rest.ptr[0] == ' ' || rest.ptr[0] == ';' || rest.ptr[0] == '\t');
}

int doctor_ask_txt(struct doctor *doctor, const char *subject, const char *name, const char *version, struct buf *text)
{
	const struct dns_answer *answer = doctor_ask(doctor, subject, name, DNS_TXT);
	int count = 0;

	if (!answer)
		return -1;
	buf_clear(text);
	for (size_t i = 0; answer->status == DNS_OK && i < answer->record_count; i++)
		if (has_version(answer->records[i].text, slice_of_str(version)) && count++ == 0)
			buf_append(text, answer->records[i].text);
	dns_answer_unref(&answer);
	return count;
}
