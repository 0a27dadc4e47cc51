/*
 * relayctl/spf_term.h - the terms of an SPF record, and the macros in their domains (RFC 7208 sections 5 to 7)
 *
 * Pure. Used by relayctl/spf.c only.
 */
#ifndef RELAYCTL_SPF_TERM_H
#define RELAYCTL_SPF_TERM_H

#include "dns/address.h"
#include "dns/name.h"

enum spf_term_kind { SPF_ALL = 0, SPF_INCLUDE, SPF_A, SPF_MX, SPF_PTR, SPF_IP, SPF_EXISTS, SPF_REDIRECT };

struct spf_term {
	enum spf_term_kind kind;
	char qualifier;		    /* '+', '-', '~', '?' */
	char *text;		    /* the term as it stands, for people */
	char *domain;		    /* with macros; NULL: the domain itself */
	struct dns_address address; /* SPF_IP */
	unsigned bits4, bits6;
};

struct spf_record {
	struct spf_term *terms; /* but for modifiers other than redirect */
	size_t count;
	char wrong[101]; /* the term that makes no sense */
};

/* What stands behind "v=spf1". False: it is broken, record->wrong. Either way the caller calls spf_record_fini(). */
bool spf_record_parse(struct slice text, struct spf_record *record);
void spf_record_fini(struct spf_record *record);

/* What macros stand for. */
struct spf_names {
	const char *sender_domain, *domain, *helo;
	const struct dns_address *address;
};
/* The domain of a term, normalized, macros expanded; `out` has DNS_NAME_MAX + 1 octets. False: it is none. */
bool spf_term_target(const struct spf_term *term, const struct spf_names *names, char *out);

#endif
