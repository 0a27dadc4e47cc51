#include "relayctl/published.h"

#include "dkim/record.h"

#include <stdio.h>

const char *published_judge(const struct dns_answer *answer, struct dkim_key *key, char *text, size_t size)
{
	static const char *const words[] = {
	    [DKIM_RECORD_REVOKED] = "the published key is revoked (p= is empty)",
	    [DKIM_RECORD_OTHER_TYPE] = "the published key is of another type",
	    [DKIM_RECORD_OTHER_KEY] = "another key is published: receivers will reject our signatures",
	    [DKIM_RECORD_FORBIDS_SHA256] = "the record does not allow sha256 (h=)",
	    [DKIM_RECORD_FORBIDS_EMAIL] = "the record does not allow e-mail (s=)",
	    [DKIM_RECORD_TESTING] = "the record is marked as a test (t=y): receivers ignore the signature",
	};
	enum dkim_record_verdict verdict;
	struct dkim_record record;
	struct err err;

	if (answer->status != DNS_OK) {
		snprintf(text, size, "%s: %s",
			 answer->status == DNS_TEMPORARY ? "it cannot be looked up" : "nothing is published",
			 answer->reason);
		return text;
	}
	if (answer->record_count > 1) {
		snprintf(text, size, "%zu TXT records are published, receivers may take any of them",
			 answer->record_count);
		return text;
	}
	if (dkim_record_parse(answer->records[0].text, &record, &err) != 0) {
		snprintf(text, size, "what is published is no DKIM key: %s", err.text);
		return text;
	}
	verdict = dkim_record_compare(&record, dkim_key_algorithm(key), dkim_key_public(key));
	return verdict == DKIM_RECORD_MATCHES ? NULL : words[verdict];
}
