/* relayctl/published.h - is the DKIM key that DNS has the one that we sign with? */
#ifndef RELAYCTL_PUBLISHED_H
#define RELAYCTL_PUBLISHED_H

#include "dkim/key.h"
#include "dns/dns.h"

/* What is wrong, for people: static, or in `text`. NULL: receivers will verify our signatures. `answer` is that to the
 * TXT question for SELECTOR._domainkey.DOMAIN. */
const char *published_judge(const struct dns_answer *answer, struct dkim_key *key, char *text, size_t size);

#endif
