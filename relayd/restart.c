#include "relayd/restart.h"

#include <string.h>

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_endpoint(const struct config_endpoint *a, const struct config_endpoint *b)
{
	return a->port == b->port && same_text(a->host, b->host);
}

static bool same_endpoints(const struct config_endpoints *a, const struct config_endpoints *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (!same_endpoint(&a->items[i], &b->items[i]))
			return false;
	return true;
}

/* Their order does not matter, what is said of each can change; an address may stand there twice (port 0). */
static bool same_listeners(const struct config *a, const struct config *b)
{
	if (a->listener_count != b->listener_count)
		return false;
	for (size_t i = 0; i < a->listener_count; i++) {
		size_t in_a = 0, in_b = 0;
		for (size_t j = 0; j < a->listener_count; j++) {
			in_a += same_endpoint(&a->listeners[i].address, &a->listeners[j].address);
			in_b += same_endpoint(&a->listeners[i].address, &b->listeners[j].address);
		}
		if (in_a != in_b)
			return false;
	}
	return true;
}

void restart_find(const struct config *started, const struct config *now, struct buf *out)
{
	const struct {
		const char *key;
		bool same;
	} keys[] = {
	    {"spool", same_text(started->spool, now->spool)},
	    {"user", same_text(started->user, now->user)},
	    {"listen", same_listeners(started, now)},
	    {"http", same_endpoints(&started->http, &now->http)},
	    {"control_group", same_text(started->control_group, now->control_group)},
	    {"limits.queue_bytes", started->limits.queue_bytes == now->limits.queue_bytes},
	    {"limits.queue_messages", started->limits.queue_messages == now->limits.queue_messages},
	    {"dns",
	     same_endpoints(&started->dns.servers, &now->dns.servers) && started->dns.trust_ad == now->dns.trust_ad},
	    {"helpers", (started->helpers == 0) == (now->helpers == 0)},
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		if (!keys[i].same)
			buf_printf(out, "%s%s", buf_len(out) ? ", " : "", keys[i].key);
}
