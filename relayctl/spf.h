/*
 * relayctl/spf.h - may this address send mail of that domain? (RFC 7208)
 *
 * For the doctor, which judges as receivers do. Own code, since the libraries for it ask DNS by themselves, of the
 * system's servers.
 *
 * LEFT OUT  %{p} is "unknown" (section 7.3 allows it), exp= is checked for nothing.
 * BOUNDS    10 lookups and 2 void ones (section 4.6.4), 10 hosts of an mx, 10 names of a ptr: so at most some 120
 *           questions.
 */
#ifndef RELAYCTL_SPF_H
#define RELAYCTL_SPF_H

#include "dns/message.h"

enum spf_result {
	SPF_NONE = 0, /* there is no record */
	SPF_NEUTRAL,
	SPF_PASS,
	SPF_FAIL,
	SPF_SOFTFAIL,
	SPF_TEMPERROR, /* a lookup failed */
	SPF_PERMERROR, /* the record is broken, or one that it includes */
};
/* "none", "neutral", "pass", "fail", "softfail", "temperror", "permerror". */
const char *spf_result_name(enum spf_result result);

struct spf_question {
	struct dns_address address;
	const char *domain; /* of MAIL FROM; A-labels */
	const char *helo;
	/* The answer to a question; one reference of it goes to spf_check(). */
	const struct dns_answer *(*ask)(void *ctx, const char *name, uint16_t type);
	/* Each domain whose record is looked at because another one includes or redirects to it. NULL: not told. */
	void (*on_visit)(void *ctx, const char *domain);
	void *ctx;
};

struct spf_verdict {
	enum spf_result result;
	unsigned lookups; /* of the 10 */
	char why[300];	  /* the term that decided, or what is wrong; printable as far as the record is */
};

void spf_check(const struct spf_question *question, struct spf_verdict *out);

#endif
