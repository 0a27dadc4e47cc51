/*
 * config/spoolcheck.h - would this spool be gone when the container is replaced?
 *
 * A queue lost on recreate is the most repeated loss among relays in containers. /proc/self/mountinfo tells what a
 * folder lies on (proc(5)).
 */
#ifndef CONFIG_SPOOLCHECK_H
#define CONFIG_SPOOLCHECK_H

#include "base/buf.h"
#include "base/err.h"

enum spool_kind {
	SPOOL_KEPT = 0,		/* nothing speaks against it */
	SPOOL_OVERLAY,		/* the writable layer of a container */
	SPOOL_TMPFS,		/* memory */
	SPOOL_ANONYMOUS_VOLUME, /* a Docker or Podman volume without a name: a new one for each container */
	SPOOL_EMPTY_DIR,	/* Kubernetes: gone with the pod */
};
/* "kept", "overlay", "tmpfs", "anonymous volume", "emptyDir". */
const char *spool_kind_name(enum spool_kind kind);

/* Pure. `path` is absolute, without symbolic links, "." and "..". Not found in `mountinfo`: SPOOL_KEPT. */
enum spool_kind spool_kind_of_mountinfo(struct slice mountinfo, const char *path);
/* Looks at the machine; `path` need not exist yet (its nearest existing parent counts). ERR_*: mountinfo cannot be
 * read; *kind is SPOOL_KEPT then. */
int spool_kind_of_path(const char *path, enum spool_kind *kind, struct err *err);
/* What it means and the lines for compose and Kubernetes that fix it; several lines, ends with a newline. */
void spool_kind_explain(enum spool_kind kind, const char *path, struct buf *out);

#endif
