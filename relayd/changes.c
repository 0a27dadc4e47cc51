#include "relayd/changes.h"

#include "base/base.h"

#include <stdlib.h>
#include <sys/stat.h>

/* Zero for a file that is not there. */
struct state {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec modified, changed;
};

struct changes {
	const struct config_texts *files;
	struct state *first, *last; /* at the beginning, at the last look */
};

static struct state look_at(const char *path)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return (struct state){0};
	return (struct state){st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim};
}

static bool same(const struct state *a, const struct state *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->modified.tv_sec == b->modified.tv_sec &&
	       a->modified.tv_nsec == b->modified.tv_nsec && a->changed.tv_sec == b->changed.tv_sec &&
	       a->changed.tv_nsec == b->changed.tv_nsec;
}

struct changes *changes_new(const struct config_texts *files)
{
	struct changes *changes = xcalloc(1, sizeof(*changes));

	changes->files = files;
	changes->first = xcalloc(files->count, sizeof(struct state));
	changes->last = xcalloc(files->count, sizeof(struct state));
	for (size_t i = 0; i < files->count; i++)
		changes->first[i] = changes->last[i] = look_at(files->items[i]);
	return changes;
}

void changes_free(struct changes **changes)
{
	if (!*changes)
		return;
	free((*changes)->first);
	free((*changes)->last);
	free(*changes);
	*changes = NULL;
}

bool changes_look(struct changes *changes)
{
	bool changed = false, settled = true;

	for (size_t i = 0; i < changes->files->count; i++) {
		struct state now = look_at(changes->files->items[i]);
		changed |= !same(&now, &changes->first[i]);
		settled &= same(&now, &changes->last[i]);
		changes->last[i] = now;
	}
	return changed && settled;
}
