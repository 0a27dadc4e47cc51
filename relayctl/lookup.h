/*
 * relayctl/lookup.h - one question to DNS at a time, waiting for the answer; by the servers of the configuration
 */
#ifndef RELAYCTL_LOOKUP_H
#define RELAYCTL_LOOKUP_H

#include "config/config.h"
#include "dns/mx.h"

struct lookup;

/* `tries`: of each question at each server; 0: three. NULL, with words: no resolver to be had. */
struct lookup *lookup_new(const struct config *config, int tries, struct err *err);
void lookup_free(struct lookup **lookup);
/* The caller's reference. Fourteen seconds for each server at the worst, six with two tries: then its status is DNS_TEMPORARY. */
const struct dns_answer *lookup_ask(struct lookup *lookup, const char *name, uint16_t type);
/* Where the mail of a domain goes, as a delivery finds it; mx_result_free(). */
struct mx_result *lookup_mx(struct lookup *lookup, const char *domain);
/* The addresses of a host that an operator wrote, as a delivery finds them. `reason` is valid until the
 * next question, `canonical` is NULL. */
void lookup_host(struct lookup *lookup, const char *host, struct resolver_result *out);
/* Which servers it asks, as text, and whether their AD bit is believed. */
void lookup_format_servers(const struct lookup *lookup, char *out, size_t size);
bool lookup_is_trusted(const struct lookup *lookup);

#endif
