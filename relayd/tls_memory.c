#include "relayd/tls_memory.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

enum { NAME_MAX_CHARS = 253 + 6, SAVE_WITHIN_MS = 1000, RENEW_AFTER_SEC = 86400 };

struct host {
	int64_t seen_sec;    /* the last verified certificate */
	int64_t missing_sec; /* since when it has been without TLS; 0: it has not */
	UT_hash_handle hh;
	char name[]; /* "mx.example.net:25" */
};

struct tls_memory {
	struct tls_memory_options options;
	struct memo *memo;
	struct host *hosts; /* that of the oldest certificate first, about */
	size_t missing;	    /* hosts without the TLS that they should have */
};

static int64_t now_sec(const struct tls_memory *memory)
{
	return clock_wall_ms(memory->options.clock) / 1000;
}

static void changed(struct tls_memory *memory)
{
	if (memory->memo)
		memo_changed(memory->memo, SAVE_WITHIN_MS);
}

/* ---- the map ---- */

static void end_missing(struct tls_memory *memory, struct host *host)
{
	if (!host->missing_sec)
		return;
	host->missing_sec = 0;
	if (--memory->missing == 0 && memory->options.on_stripped)
		memory->options.on_stripped(memory->options.ctx, NULL);
}

static void forget(struct tls_memory *memory, struct host *host)
{
	end_missing(memory, host);
	HASH_DEL(memory->hosts, host);
	free(host);
}

static struct host *find(const struct tls_memory *memory, const char *name)
{
	struct host *host;

	HASH_FIND_STR(memory->hosts, name, host);
	return host;
}

static struct host *add(struct tls_memory *memory, const char *name)
{
	size_t len = strlen(name);
	struct host *host = xcalloc(1, sizeof(*host) + len + 1);

	if (HASH_COUNT(memory->hosts) >= TLS_MEMORY_HOSTS_MAX)
		forget(memory, memory->hosts);
	memcpy(host->name, name, len);
	HASH_ADD_STR(memory->hosts, name, host);
	return host;
}

static void format_name(char out[NAME_MAX_CHARS + 1], const char *name, uint16_t port)
{
	snprintf(out, NAME_MAX_CHARS + 1, "%.253s:%u", name, port);
}

/* ---- the disk ---- */

static json_t *save(void *ctx)
{
	const struct tls_memory *memory = ctx;
	json_t *document = json_object();

	for (const struct host *host = memory->hosts; host; host = host->hh.next)
		json_object_set_new(document, host->name,
				    json_pack("[I, I]", (json_int_t)host->seen_sec, (json_int_t)host->missing_sec));
	return document;
}

static void load(struct tls_memory *memory)
{
	json_t *document = memo_read(memory->memo), *entry;
	int64_t now = now_sec(memory);
	json_int_t seen, missing;
	const char *name;

	json_object_foreach(document, name, entry)
	{
		struct host *host;

		if (strlen(name) > NAME_MAX_CHARS || json_unpack(entry, "[I, I]", &seen, &missing) != 0)
			continue;
		host = add(memory, name);
		host->seen_sec = MIN((int64_t)seen, now);
		host->missing_sec = missing > 0 ? MIN((int64_t)missing, now) : 0;
		memory->missing += host->missing_sec > 0;
	}
	json_decref(document);
}

/* ---- the whole ---- */

struct tls_memory *tls_memory_new(const struct tls_memory_options *options)
{
	struct tls_memory *memory = xcalloc(1, sizeof(*memory));

	memory->options = *options;
	if (options->memos) {
		memory->memo = memo_new(options->memos, "tls-seen.json", save, memory);
		load(memory);
	}
	return memory;
}

void tls_memory_free(struct tls_memory **memory)
{
	struct tls_memory *m = *memory;
	struct host *host, *next;

	*memory = NULL;
	if (!m)
		return;
	HASH_ITER(hh, m->hosts, host, next)
	{
		HASH_DEL(m->hosts, host);
		free(host);
	}
	free(m);
}

static bool is_beyond_patience(const struct tls_memory *memory, const struct host *host)
{
	return host->missing_sec && now_sec(memory) - host->missing_sec > TLS_MEMORY_PATIENCE_SEC;
}

static void give_up(struct tls_memory *memory, struct host *host)
{
	log_event(memory->options.log, LOG_WARN, "tls_forgotten", LOG_STR("host", host->name),
		  LOG_INT("seconds", now_sec(memory) - host->missing_sec),
		  LOG_STR("text", "it has had no TLS for so long that mail goes there in clear text again"));
	forget(memory, host);
	changed(memory);
}

bool tls_memory_expects(struct tls_memory *memory, const char *name, uint16_t port)
{
	char key[NAME_MAX_CHARS + 1];
	struct host *host;

	format_name(key, name, port);
	host = find(memory, key);
	if (!host)
		return false;
	if (is_beyond_patience(memory, host)) {
		give_up(memory, host);
		return false;
	}
	return now_sec(memory) - host->seen_sec <= TLS_MEMORY_SEC;
}

void tls_memory_note_verified(struct tls_memory *memory, const char *name, uint16_t port)
{
	char key[NAME_MAX_CHARS + 1];
	struct host *host;

	format_name(key, name, port);
	host = find(memory, key);
	if (host && !host->missing_sec && now_sec(memory) - host->seen_sec < RENEW_AFTER_SEC)
		return;
	if (!host)
		host = add(memory, key);
	end_missing(memory, host);
	host->seen_sec = now_sec(memory);
	HASH_DEL(memory->hosts, host);
	HASH_ADD_STR(memory->hosts, name, host);
	changed(memory);
}

void tls_memory_note_missing(struct tls_memory *memory, const char *name, uint16_t port)
{
	char key[NAME_MAX_CHARS + 1], text[NAME_MAX_CHARS + 160];
	struct host *host;

	format_name(key, name, port);
	host = find(memory, key);
	if (!host)
		return;
	snprintf(text, sizeof(text),
		 "%s has shown a verified certificate before and is without TLS now: somebody may have taken it away; "
		 "mail waits for %d hours",
		 host->name, TLS_MEMORY_PATIENCE_SEC / 3600);
	if (memory->options.on_stripped)
		memory->options.on_stripped(memory->options.ctx, text);
	if (host->missing_sec)
		return;
	host->missing_sec = now_sec(memory);
	memory->missing++;
	log_event(memory->options.log, LOG_WARN, "tls_stripped", LOG_STR("host", host->name), LOG_STR("text", text));
	changed(memory);
}

void tls_memory_look(struct tls_memory *memory)
{
	struct host *host, *next;

	if (memory->missing == 0)
		return;
	HASH_ITER(hh, memory->hosts, host, next)
	if (is_beyond_patience(memory, host))
		give_up(memory, host);
}

size_t tls_memory_count(const struct tls_memory *memory)
{
	return HASH_COUNT(memory->hosts);
}
