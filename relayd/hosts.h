/*
 * relayd/hosts.h - hosts that were no good a short while ago, for all destinations together
 *
 * A host that refused the connection, was silent, or turned us away is tried behind all others for a while: a minute
 * after the first time, twice as long after each further one, at most ten minutes. Two hours when others had no turn,
 * because it took so long to fail or broke off within a message: those come first the next time. It is never left out.
 * Bounded: the 4,096 that failed last. Pure: times are given, monotonic.
 */
#ifndef RELAYD_HOSTS_H
#define RELAYD_HOSTS_H

#include "dns/address.h"

struct hosts;

enum { HOSTS_REMEMBERED_MAX = 4096 };

struct hosts *hosts_new(void);
/* Accepts NULL, sets NULL. */
void hosts_free(struct hosts **hosts);

void hosts_note_failed(struct hosts *hosts, const struct dns_address *address, uint16_t port, int64_t now_ms);
/* It has failed, and others had no turn. */
void hosts_note_hid_others(struct hosts *hosts, const struct dns_address *address, uint16_t port, int64_t now_ms);
void hosts_note_good(struct hosts *hosts, const struct dns_address *address, uint16_t port);
/* When it failed last, if it is to be tried behind the others now; 0: it is not. */
int64_t hosts_failed_at_ms(const struct hosts *hosts, const struct dns_address *address, uint16_t port, int64_t now_ms);
size_t hosts_count(const struct hosts *hosts);

#endif
