#include "relayd/spool.h"

#include "base/base.h"
#include "base/buf.h"
#include "config/spoolcheck.h"
#include "queue/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_WAIT_MS = 60 * 1000, LOCK_EACH_MS = 100 };

int service_user_find(const struct config *config, struct service_user *user, struct err *err)
{
	struct passwd *entry;

	/* Only root can become somebody else; anybody else stays who he is. */
	*user = (struct service_user){NULL, geteuid(), getegid(), false};
	if (geteuid() != 0)
		return EX_OK;
	entry = getpwnam(config->user);
	if (!entry) {
		err_set(err, ERR_CONFIG,
			"user: there is no user '%s' on this machine; create it (useradd --system %s) or name another",
			config->user, config->user);
		return EX_CONFIG;
	}
	*user = (struct service_user){config->user, entry->pw_uid, entry->pw_gid, entry->pw_uid != 0};
	return EX_OK;
}

/* What is safe in a folder is not while the folder's own name may vanish in a power cut. A parent that only root may
 * open is left to the file system. */
static void sync_parent(const char *path)
{
	char parent[4096];
	const char *slash = strrchr(path, '/');
	int fd;

	if (!slash || !slice_to_cstr(slice_of(path, MAX((size_t)(slash - path), (size_t)1)), parent, sizeof(parent)))
		return;
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	fsync(fd);
	close(fd);
}

static int make_folder(const char *path, mode_t mode)
{
	if (mkdir(path, mode) != 0)
		return errno == EEXIST ? 0 : -1;
	sync_parent(path);
	return 0;
}

/* mkdir -p: parents 0755. */
static int make_folders(const char *path)
{
	char partial[4096];

	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		if (!slice_to_cstr(slice_of(path, (size_t)(slash - path)), partial, sizeof(partial)))
			return -1;
		if (make_folder(partial, 0755) != 0)
			return -1;
	}
	return make_folder(path, 0711);
}

static int exit_code_of(const struct err *err, int otherwise)
{
	return err->code == ERR_PERMISSION ? EX_NOPERM : otherwise;
}

static bool would_vanish(const struct config *config, enum spool_kind *kind)
{
	return config->ephemeral_spool != CONFIG_EPHEMERAL_ALLOW &&
	       spool_kind_of_path(config->spool, kind, NULL) == 0 && *kind != SPOOL_KEPT;
}

bool spool_would_be_refused(const struct config *config, struct err *err)
{
	enum spool_kind kind;

	if (config->ephemeral_spool != CONFIG_EPHEMERAL_REFUSE || !would_vanish(config, &kind))
		return false;
	err_set(err, ERR_CONFIG,
		"spool: %s lies on %s: queued mail would be lost when the container is replaced "
		"(ephemeral_spool: warn or allow accepts that)",
		config->spool, spool_kind_name(kind));
	return true;
}

static int check_vanishing(const struct config *config, struct log *log, struct err *err)
{
	enum spool_kind kind;
	struct buf words;

	if (!would_vanish(config, &kind))
		return EX_OK;
	if (!spool_would_be_refused(config, err)) {
		log_event(log, LOG_WARN, "spool_would_vanish", LOG_STR("path", config->spool),
			  LOG_STR("text", spool_kind_name(kind)));
		return EX_OK;
	}
	buf_init(&words, 16 * 1024);
	spool_kind_explain(kind, config->spool, &words);
	fprintf(stderr, "%.*s", SLICE_ARG(buf_slice(&words)));
	buf_fini(&words);
	return EX_CANTCREAT;
}

/* The sticky folder that sendmail fills while the daemon is away. What the service user has put in its place is not
 * touched: we may be root, and a link would lead anywhere. */
static int make_drop(int dir_fd, const struct service_user *user)
{
	int fd, rc;

	if (mkdirat(dir_fd, "drop", 01733) != 0 && errno != EEXIST)
		return -1;
	fd = openat(dir_fd, "drop", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -1;
	rc = user->must_drop ? fchown(fd, user->uid, user->gid) : 0;
	rc = rc ? rc : fchmod(fd, 01733);
	close(fd);
	return rc;
}

static int give_to_user(int dir_fd, const struct service_user *user)
{
	struct stat st;

	if (fstat(dir_fd, &st) != 0)
		return -1;
	if (user->must_drop && st.st_uid != user->uid && fchown(dir_fd, user->uid, user->gid) != 0)
		return -1;
	if ((st.st_mode & 07777) != 0711 && (geteuid() == 0 || st.st_uid == geteuid()))
		return fchmod(dir_fd, 0711);
	return 0;
}

static bool is_writable(int dir_fd)
{
	return faccessat(dir_fd, ".", R_OK | W_OK | X_OK, AT_EACCESS) == 0;
}

int spool_open(const struct config *config, const struct service_user *user, struct log *log, int *dir_fd,
	       struct err *err)
{
	int rc = check_vanishing(config, log, err);
	int fd;

	if (rc != EX_OK)
		return rc;
	if (make_folders(config->spool) != 0) {
		err_set_errno(err, "spool: cannot create %s", config->spool);
		return exit_code_of(err, EX_CANTCREAT);
	}
	fd = open(config->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		err_set_errno(err, "spool: cannot open %s", config->spool);
		return exit_code_of(err, EX_CANTCREAT);
	}
	/* The sync is for folders of an earlier start, too. */
	if (give_to_user(fd, user) != 0 || !is_writable(fd) || make_drop(fd, user) != 0 || fsync(fd) != 0) {
		err_set_errno(err, "spool: %s is not writable for %s", config->spool,
			      user->name ? user->name : "this user");
		close(fd);
		return exit_code_of(err, EX_IOERR);
	}
	*dir_fd = fd;
	return EX_OK;
}

/* Root makes the file; who starts it as the service user one day must be able to open it. With a second name it may be
 * any file: the folder is the service user's. */
static int take_lock(int dir_fd, const struct service_user *user, struct err *err)
{
	int fd = queue_lock(dir_fd, err);
	struct stat st;

	if (fd >= 0 && user->must_drop && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1)
		(void)!fchown(fd, user->uid, user->gid); /* without it we run all the same */
	return fd;
}

int spool_lock(int dir_fd, const struct service_user *user, struct log *log, int *lock_fd, struct err *err)
{
	const struct timespec pause = {0, LOCK_EACH_MS * 1000000L};

	for (int waited = 0;; waited += LOCK_EACH_MS) {
		*lock_fd = take_lock(dir_fd, user, err);
		if (*lock_fd >= 0)
			return EX_OK;
		if (*lock_fd != ERR_LOCKED)
			return exit_code_of(err, EX_IOERR);
		if (waited >= LOCK_WAIT_MS)
			return EX_TEMPFAIL;
		if (waited == 0) {
			log_event(log, LOG_INFO, "spool_locked",
				  LOG_STR("text", "another relayd has this spool; waiting up to 60 s for it to leave"));
			log_flush(log);
		}
		nanosleep(&pause, NULL);
	}
}
