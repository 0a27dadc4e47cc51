/*
 * dns/channel.h - packets to the servers and back, by c-ares
 *
 * Used by dns.c only. Knows servers, sockets, tries, TCP and EDNS; not what an answer means. c-ares knows no cancelling
 * of one question and cannot change its servers while questions are on the way; so there may be several channels of it
 * at a time: the current one, and retiring ones that live until their last question has ended.
 *
 * The callback comes from inside channels_ask(), channels_on_fd() and channels_tick(), from within c-ares, and must
 * only record what it is told.
 */
#ifndef DNS_CHANNEL_H
#define DNS_CHANNEL_H

#include "dns/dns.h"

struct channels;

/* `packet` is borrowed; empty: no answer, `why` says in words what happened (static). `is_trusted`: its AD bit counts.
 */
typedef void channels_cb(void *ctx, uint64_t token, struct slice packet, bool is_trusted, const char *why);

/* Copies what it needs of the options, borrows the rest. NULL: `err` says why. */
struct channels *channels_new(const struct dns_options *options, const struct dns_host *host, struct rng *rng,
			      channels_cb *cb, void *ctx, struct err *err);
/* No callback comes any more. Not from the callback. */
void channels_free(struct channels **channels);
/* `name` is normalized. One callback for each. */
void channels_ask(struct channels *channels, uint64_t token, const char *name, uint16_t type);
void channels_on_fd(struct channels *channels, int fd, bool readable, bool writable);
/* Time-outs. Call it every channels_tick_ms() while questions are on the way. */
void channels_tick(struct channels *channels);
int channels_tick_ms(const struct channels *channels);
/* Frees retired channels. Not from the callback. */
void channels_sweep(struct channels *channels);
/* Reads resolv.conf again, unless servers were given; on an error nothing changes. */
int channels_reload(struct channels *channels, struct err *err);
bool channels_is_trusted(const struct channels *channels);
const char *const *channels_search_list(const struct channels *channels, size_t *count, int *ndots);
void channels_format_servers(const struct channels *channels, char *out, size_t size);

#endif
