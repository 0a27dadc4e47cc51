/* relayctl/doctor_egress.h - the address that our mail comes from, and which addresses are seen from outside */
#ifndef RELAYCTL_DOCTOR_EGRESS_H
#define RELAYCTL_DOCTOR_EGRESS_H

#include "relayctl/doctor.h"

/*
 * Our public addresses, in the families that deliveries use: as receivers told us, else of delivery.bind, else of this
 * machine's interfaces, else of our EHLO name. Returns which of these, in words that stand behind an address.
 */
const char *doctor_egress(const struct doctor *doctor, struct dns_address out[DOCTOR_EGRESS_MAX], size_t *count);
/* The address of that family that deliveries bind to; NULL: any. */
const struct dns_address *doctor_source(const struct doctor *doctor, unsigned family, struct dns_address *memory);
/* As the configuration has it: AF_INET or AF_INET6, and its octets. */
struct dns_address doctor_address(int family, const uint8_t *bytes);
/* Not to be seen from outside (RFC 1918, RFC 6598, RFC 4193). */
bool doctor_is_private(const struct dns_address *address);

#endif
