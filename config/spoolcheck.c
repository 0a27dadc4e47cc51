#include "config/spoolcheck.h"

#include "base/base.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#define MOUNTINFO_MAX_BYTES (4 * 1024 * 1024)

const char *spool_kind_name(enum spool_kind kind)
{
	switch (kind) {
	case SPOOL_KEPT: return "kept";
	case SPOOL_OVERLAY: return "overlay";
	case SPOOL_TMPFS: return "tmpfs";
	case SPOOL_ANONYMOUS_VOLUME: return "anonymous volume";
	case SPOOL_EMPTY_DIR: return "emptyDir";
	}
	return "unknown";
}

/* ---- One line of mountinfo (proc(5)): id parent major:minor root mount-point options [optional]... - type source ...
 */

struct mount {
	struct slice root, point, type;
};

static struct slice next_field(struct slice *line)
{
	ptrdiff_t blank = slice_find(*line, ' ');
	struct slice field = blank < 0 ? *line : slice_to(*line, (size_t)blank);

	*line = slice_from(*line, field.len + 1);
	return field;
}

static bool parse_mount(struct slice line, struct mount *mount)
{
	struct slice field;

	for (int i = 0; i < 3; i++)
		next_field(&line);
	mount->root = next_field(&line);
	mount->point = next_field(&line);
	do {
		field = next_field(&line);
	} while (line.len > 0 && !slice_eq(field, SLICE("-")));
	mount->type = next_field(&line);
	return mount->point.len > 0 && mount->type.len > 0;
}

/* One octet of a path in mountinfo, where blanks, tabs, newlines and backslashes stand as \040. */
static size_t unescape(struct slice text, char *octet)
{
	*octet = text.ptr[0];
	if (text.ptr[0] != '\\' || text.len < 4)
		return 1;
	*octet = (char)((text.ptr[1] - '0') * 64 + (text.ptr[2] - '0') * 8 + (text.ptr[3] - '0'));
	return 4;
}

/* How many octets of `path` the mount point covers, 0: it is not above it. */
static size_t covered(struct slice point, struct slice path)
{
	size_t at = 0;

	if (slice_eq(point, SLICE("/")))
		return 1;
	while (point.len > 0) {
		char octet;
		size_t len = unescape(point, &octet);
		if (at == path.len || path.ptr[at] != octet)
			return 0;
		at++;
		point = slice_from(point, len);
	}
	return at == path.len || path.ptr[at] == '/' ? at : 0;
}

/* ".../volumes/<64 hexadecimal digits>/_data": what Docker and Podman make when nobody gave a name. */
static bool is_anonymous_volume(struct slice root)
{
	static const char key[] = "/volumes/";
	const char *at = memmem(root.ptr, root.len, key, strlen(key));
	struct slice name;

	if (!at)
		return false;
	name = slice_from(root, (size_t)(at - root.ptr) + strlen(key));
	if (name.len < 65 || name.ptr[64] != '/')
		return false;
	for (size_t i = 0; i < 64; i++)
		if (!isxdigit((unsigned char)name.ptr[i]))
			return false;
	return true;
}

static enum spool_kind kind_of_mount(const struct mount *mount)
{
	static const char *const overlays[] = {"overlay", "aufs", "fuse.fuse-overlayfs", "unionfs"};

	if (memmem(mount->root.ptr, mount->root.len, "/kubernetes.io~empty-dir/", 25))
		return SPOOL_EMPTY_DIR;
	if (is_anonymous_volume(mount->root))
		return SPOOL_ANONYMOUS_VOLUME;
	if (slice_eq(mount->type, SLICE("tmpfs")) || slice_eq(mount->type, SLICE("ramfs")))
		return SPOOL_TMPFS;
	for (size_t i = 0; i < ARRAY_LEN(overlays); i++)
		if (slice_eq(mount->type, slice_of_str(overlays[i])))
			return SPOOL_OVERLAY;
	return SPOOL_KEPT;
}

/* The longest mount point counts, of equal ones the last, which hides the others. */
enum spool_kind spool_kind_of_mountinfo(struct slice mountinfo, const char *path)
{
	enum spool_kind kind = SPOOL_KEPT;
	size_t longest = 0;

	while (mountinfo.len > 0) {
		ptrdiff_t end = slice_find(mountinfo, '\n');
		struct slice line = end < 0 ? mountinfo : slice_to(mountinfo, (size_t)end);
		struct mount mount;
		size_t len;
		mountinfo = slice_from(mountinfo, line.len + 1);
		if (!parse_mount(line, &mount))
			continue;
		len = covered(mount.point, slice_of_str(path));
		if (len > 0 && len >= longest) {
			longest = len;
			kind = kind_of_mount(&mount);
		}
	}
	return kind;
}

/* ---- This machine. */

/* Without links; of what does not exist the nearest parent that does. */
static int resolve(const char *path, char out[PATH_MAX], struct err *err)
{
	char shorter[PATH_MAX];
	char *slash;

	if (path[0] != '/' || !slice_to_cstr(slice_of_str(path), shorter, sizeof(shorter)))
		return err_set(err, ERR_SYNTAX, "%.100s is no absolute path", path);
	while (!realpath(shorter, out)) {
		if (errno != ENOENT)
			return err_set_errno(err, "cannot look at %s", shorter);
		slash = strrchr(shorter, '/');
		if (slash == shorter)
			slash++;
		*slash = '\0';
	}
	return 0;
}

static int read_mountinfo(struct buf *text, struct err *err)
{
	int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;

	if (fd < 0)
		return err_set_errno(err, "cannot open /proc/self/mountinfo");
	while (n > 0) {
		char *at = buf_reserve(text, 16384);
		n = at ? read(fd, at, 16384) : 0;
		if (n > 0)
			buf_commit(text, (size_t)n);
	}
	if (n < 0)
		err_set_errno(err, "cannot read /proc/self/mountinfo");
	close(fd);
	return n < 0 ? ERR_IO : 0;
}

int spool_kind_of_path(const char *path, enum spool_kind *kind, struct err *err)
{
	char resolved[PATH_MAX];
	struct buf text;
	int rc;

	*kind = SPOOL_KEPT;
	rc = resolve(path, resolved, err);
	if (rc < 0)
		return rc;
	buf_init(&text, MOUNTINFO_MAX_BYTES);
	rc = read_mountinfo(&text, err);
	if (rc == 0)
		*kind = spool_kind_of_mountinfo(buf_slice(&text), resolved);
	buf_fini(&text);
	return rc;
}

/* ---- Words. */

static const char *meaning_of(enum spool_kind kind)
{
	switch (kind) {
	case SPOOL_OVERLAY:
		return "lies in the writable layer of a container, which goes when the container is replaced";
	case SPOOL_TMPFS: return "lies in memory (tmpfs), which goes at a restart";
	case SPOOL_ANONYMOUS_VOLUME: return "lies on a volume without a name: a new container gets a new, empty one";
	case SPOOL_EMPTY_DIR: return "lies on an emptyDir, which goes with the pod";
	case SPOOL_KEPT: break;
	}
	return "is on storage that stays";
}

void spool_kind_explain(enum spool_kind kind, const char *path, struct buf *out)
{
	buf_printf(out, "The spool %s %s.\n", path, meaning_of(kind));
	if (kind == SPOOL_KEPT)
		return;
	buf_append_str(out, "Mail that was accepted and not yet delivered would be lost with it.\n");
	if (kind != SPOOL_EMPTY_DIR)
		buf_printf(out,
			   "docker:     docker run -v relayd-spool:%s ...\n"
			   "compose:    services: {relayd: {volumes: [\"relayd-spool:%s\"]}}\n"
			   "            volumes: {relayd-spool: {}}\n",
			   path, path);
	buf_printf(out,
		   "kubernetes: a StatefulSet with volumeClaimTemplates:\n"
		   "            - metadata: {name: spool}\n"
		   "              spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Gi}}}\n"
		   "            and in the container volumeMounts: [{name: spool, mountPath: %s}]\n",
		   path);
	buf_append_str(out, "To run without that: ephemeral_spool: allow (RELAYD_EPHEMERAL_SPOOL=allow), or warn.\n");
}
