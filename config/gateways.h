/*
 * config/gateways.h - is this client trusted? Default gateways are, only when they are named exactly
 *
 * In a container, connections from outside often arrive with the address of the default gateway (Docker's userland
 * proxy, masquerading). Trusting "172.16.0.0/12" would then trust the whole world.
 */
#ifndef CONFIG_GATEWAYS_H
#define CONFIG_GATEWAYS_H

#include "config/config.h"

#define CONFIG_GATEWAYS_MAX 16

struct config_gateways {
	size_t count;
	struct config_network items[CONFIG_GATEWAYS_MAX]; /* each one address */
};

/* Pure: the texts of /proc/net/route and /proc/net/ipv6_route; either may be empty. */
void config_gateways_parse(struct slice route, struct slice ipv6_route, struct config_gateways *gateways);
/* Reads both files of this machine; what cannot be read counts as empty. Call it at start, on reload and now and then:
 * routes change. */
void config_gateways_load(struct config_gateways *gateways);
/* `bytes`: 4 or 16, network order; a mapped IPv4 address counts as IPv4. False on a listener with auth required.
 * `gateways` may be NULL. */
bool config_trusts(const struct config_listener *listener, int family, const uint8_t *bytes,
		   const struct config_gateways *gateways);

#endif
