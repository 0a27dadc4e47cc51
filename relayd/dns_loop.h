/*
 * relayd/dns_loop.h - DNS in our event loop: the resolver's descriptors, and what the configuration says of it
 */
#ifndef RELAYD_DNS_LOOP_H
#define RELAYD_DNS_LOOP_H

#include "config/config.h"
#include "dns/dns.h"
#include "relayd/loop.h"

struct dns_loop;

/* NULL, with words: no resolver to be had. */
struct dns_loop *dns_loop_new(struct loop *loop, const struct config *config, const struct clock *clock,
			      struct rng *rng, struct err *err);
void dns_loop_free(struct dns_loop **dns_loop);
struct dns *dns_loop_dns(struct dns_loop *dns_loop);

#endif
