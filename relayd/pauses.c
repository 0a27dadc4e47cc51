#include "relayd/pauses.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_CHARS = 32 };

struct pause {
	char name[NAME_MAX_CHARS + 1];
	int64_t since_wall;
};

struct pauses {
	const struct clock *clock;
	struct memo *memo;
	struct pause *items;
	size_t count;
};

static json_t *save(void *ctx)
{
	const struct pauses *pauses = ctx;
	json_t *document = json_object();

	for (size_t i = 0; i < pauses->count; i++)
		json_object_set_new(document, pauses->items[i].name, json_integer(pauses->items[i].since_wall));
	return document;
}

static void add(struct pauses *pauses, const char *name, int64_t since_wall)
{
	struct pause *pause;

	pauses->items = xreallocarray(pauses->items, pauses->count + 1, sizeof(*pauses->items));
	pause = &pauses->items[pauses->count++];
	pause->since_wall = since_wall;
	slice_to_cstr(slice_of_str(name), pause->name, sizeof(pause->name));
}

static void load(struct pauses *pauses)
{
	json_t *document = memo_read(pauses->memo), *since;
	const char *name;

	json_object_foreach(document, name, since)
	{
		if (pauses->count < PAUSES_MAX && strlen(name) <= NAME_MAX_CHARS && json_is_integer(since))
			add(pauses, name, MAX((int64_t)json_integer_value(since), INT64_C(1)));
	}
	json_decref(document);
}

struct pauses *pauses_new(struct memos *memos, const struct clock *clock)
{
	struct pauses *pauses = xcalloc(1, sizeof(*pauses));

	pauses->clock = clock;
	if (memos) {
		pauses->memo = memo_new(memos, "paused.json", save, pauses);
		load(pauses);
	}
	return pauses;
}

void pauses_free(struct pauses **pauses)
{
	if (!*pauses)
		return;
	free((*pauses)->items);
	free(*pauses);
	*pauses = NULL;
}

static struct pause *find(const struct pauses *pauses, const char *relayhost)
{
	for (size_t i = 0; pauses && i < pauses->count; i++)
		if (strcmp(pauses->items[i].name, relayhost) == 0)
			return &pauses->items[i];
	return NULL;
}

bool pauses_set(struct pauses *pauses, const char *relayhost, bool paused)
{
	struct pause *known = find(pauses, relayhost);

	if (paused == (known != NULL) || (paused && pauses->count == PAUSES_MAX))
		return false;
	if (paused)
		add(pauses, relayhost, clock_wall_ms(pauses->clock));
	else
		*known = pauses->items[--pauses->count];
	if (pauses->memo)
		memo_changed(pauses->memo, 0);
	return true;
}

bool pauses_has(const struct pauses *pauses, const char *relayhost)
{
	return find(pauses, relayhost) != NULL;
}

size_t pauses_count(const struct pauses *pauses)
{
	return pauses ? pauses->count : 0;
}

int64_t pauses_since_wall(const struct pauses *pauses, const char *relayhost)
{
	const struct pause *pause = find(pauses, relayhost);

	return pause ? pause->since_wall : 0;
}
