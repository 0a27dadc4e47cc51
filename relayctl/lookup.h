/*
 * relayctl/lookup.h - one DNS question at a time, waiting for the answer; by the servers of the configuration
 */
#ifndef RELAYCTL_LOOKUP_H
#define RELAYCTL_LOOKUP_H

#include "config/config.h"
#include "dns/dns.h"

struct lookup;

/* `tries`: of each question at each server; 0: three. NULL, with words: no resolver to be had. */
struct lookup *lookup_new(const struct config *config, int tries, struct err *err);
void lookup_free(struct lookup **lookup);
/* The caller's reference. Fourteen seconds for each server at the worst, six with two tries: then its status is DNS_TEMPORARY. */
const struct dns_answer *lookup_ask(struct lookup *lookup, const char *name, uint16_t type);

#endif
