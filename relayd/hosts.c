#include "relayd/hosts.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

enum { REST_FIRST_MS = 60 * 1000, REST_MAX_MS = 10 * 60 * 1000, REST_OF_HIDING_MS = 2 * 3600 * 1000 };

struct host_key {
	struct dns_address address;
	uint16_t port;
};

struct host {
	UT_hash_handle hh;
	struct host_key key;
	unsigned failures;
	int64_t failed_at_ms, until_ms;
};

struct hosts {
	struct host *by_key; /* the first failed longest ago */
};

struct hosts *hosts_new(void)
{
	return xcalloc(1, sizeof(struct hosts));
}

static void host_free(struct hosts *hosts, struct host *host)
{
	HASH_DEL(hosts->by_key, host);
	free(host);
}

void hosts_free(struct hosts **hosts)
{
	if (!*hosts)
		return;
	while ((*hosts)->by_key)
		host_free(*hosts, (*hosts)->by_key);
	free(*hosts);
	*hosts = NULL;
}

static struct host_key key_of(const struct dns_address *address, uint16_t port)
{
	struct host_key key;

	memset(&key, 0, sizeof(key));
	key.address = *address;
	key.port = port;
	return key;
}

static struct host *find(const struct hosts *hosts, const struct host_key *key)
{
	struct host *host;

	HASH_FIND(hh, hosts->by_key, key, sizeof(*key), host);
	return host;
}

void hosts_note_failed(struct hosts *hosts, const struct dns_address *address, uint16_t port, int64_t now_ms)
{
	struct host_key key = key_of(address, port);
	struct host *host = find(hosts, &key);
	unsigned failures = 0;

	if (host) {
		/* Those that fail together fail once; and a host that rested long begins anew. */
		failures = now_ms < host->until_ms		   ? host->failures - 1
			   : now_ms - host->until_ms < REST_MAX_MS ? host->failures
								   : 0;
		host_free(hosts, host);
	} else if (HASH_COUNT(hosts->by_key) >= HOSTS_REMEMBERED_MAX) {
		host_free(hosts, hosts->by_key);
	}
	host = xcalloc(1, sizeof(*host));
	host->key = key;
	host->failures = failures + 1;
	host->failed_at_ms = now_ms;
	host->until_ms = now_ms + MIN((int64_t)REST_FIRST_MS << MIN(failures, 8u), (int64_t)REST_MAX_MS);
	HASH_ADD(hh, hosts->by_key, key, sizeof(host->key), host);
}

void hosts_note_hid_others(struct hosts *hosts, const struct dns_address *address, uint16_t port, int64_t now_ms)
{
	struct host_key key = key_of(address, port);
	struct host *host = find(hosts, &key);

	if (host)
		host->until_ms = now_ms + REST_OF_HIDING_MS;
}

void hosts_note_good(struct hosts *hosts, const struct dns_address *address, uint16_t port)
{
	struct host_key key = key_of(address, port);
	struct host *host = find(hosts, &key);

	if (host)
		host_free(hosts, host);
}

int64_t hosts_failed_at_ms(const struct hosts *hosts, const struct dns_address *address, uint16_t port, int64_t now_ms)
{
	struct host_key key = key_of(address, port);
	const struct host *host = find(hosts, &key);

	return host && now_ms < host->until_ms ? MAX(host->failed_at_ms, INT64_C(1)) : 0;
}

size_t hosts_count(const struct hosts *hosts)
{
	return HASH_COUNT(hosts->by_key);
}
