/* Doctor: this machine: configuration, spool. */
#include "base/base.h"
#include "base/clock.h"
#include "config/spoolcheck.h"
#include "relayctl/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* ---- the configuration, with the files that it names ---- */

void doctor_config(struct doctor *doctor, const char *subject)
{
	extern char **environ;
	struct config_source source = {.file = doctor->ctl->config_file,
				       .file_is_named = doctor->ctl->config_file != NULL,
				       .environ = environ,
				       .check_files = true,
				       .check_users = true};
	const char *file = doctor->config->file ? doctor->config->file : subject;
	struct config_errors errors;
	struct config *config = NULL;

	config_load(&source, &config, &errors);
	for (size_t i = 0; i < errors.kept_count; i++)
		doctor_tell(doctor, errors.items[i].is_warning ? DOCTOR_WARN : DOCTOR_FAIL, subject, "%s",
			    errors.items[i].text);
	if (errors.kept_count == 0)
		doctor_tell(doctor, DOCTOR_OK, file, "makes sense, and what it names can be read");
	config_free(&config);
}

/* ---- the spool ---- */

enum { FREE_PERCENT_MIN = 10, SYNC_SLOW_MS = 100 };

/* A file without a name, gone when it is closed. */
static int try_sync(const char *path, int64_t *took_ms)
{
	int fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), why;
	int64_t began = clock_mono_ms(clock_system());

	if (fd < 0)
		return errno;
	errno = 0;
	why = write(fd, "relayd", 6) == 6 && fdatasync(fd) == 0 ? 0 : errno ? errno : EIO;
	*took_ms = clock_mono_ms(clock_system()) - began;
	close(fd);
	return why;
}

static void check_kind(struct doctor *doctor, const char *path)
{
	enum spool_kind kind;
	struct err err;

	if (spool_kind_of_path(path, &kind, &err) != 0) {
		doctor_tell(doctor, DOCTOR_WARN, path, "what it lies on cannot be found out: %s", err.text);
	} else if (kind != SPOOL_KEPT) {
		doctor_tell(doctor, DOCTOR_FAIL, path, "lies on %s: queued mail is lost when the container is replaced",
			    spool_kind_name(kind));
		doctor_advise(doctor,
			      "compose: a named volume, volumes: [\"spool:%s\"]; Kubernetes: a PersistentVolumeClaim",
			      path);
	} else {
		doctor_tell(doctor, DOCTOR_OK, path, "lies on a file system that stays");
	}
}

static void check_room(struct doctor *doctor, const char *path)
{
	struct statvfs fs;
	char room[24];
	unsigned blocks = 100, inodes = 100;

	if (statvfs(path, &fs) != 0)
		return;
	if (fs.f_blocks > 0)
		blocks = (unsigned)(100.0 * (double)fs.f_bavail / (double)fs.f_blocks);
	if (fs.f_files > 0)
		inodes = (unsigned)(100.0 * (double)fs.f_favail / (double)fs.f_files);
	ctl_format_bytes((int64_t)(fs.f_bavail * fs.f_frsize), room, sizeof(room));
	if (blocks < FREE_PERCENT_MIN || inodes < FREE_PERCENT_MIN) {
		doctor_tell(doctor, DOCTOR_WARN, path, "%s are free (%u %%), and %u %% of the inodes", room, blocks,
			    inodes);
		doctor_advise(doctor, "make room: with less than four segments of 64 MiB new mail gets 452");
	} else {
		doctor_tell(doctor, DOCTOR_OK, path, "%s are free (%u %%)", room, blocks);
	}
}

static void check_sync(struct doctor *doctor, const char *path)
{
	int64_t took_ms = 0;
	int why = try_sync(path, &took_ms);

	if (why == EACCES || why == EPERM)
		doctor_tell(doctor, DOCTOR_INFO, path, "only root and relayd's user can try whether it syncs");
	else if (why == EOPNOTSUPP || why == EISDIR)
		doctor_tell(doctor, DOCTOR_INFO, path, "its file system has no nameless files to try a sync with");
	else if (why != 0)
		doctor_tell(doctor, DOCTOR_FAIL, path, "cannot be written: %s", strerror(why));
	else if (took_ms > SYNC_SLOW_MS)
		doctor_tell(doctor, DOCTOR_WARN, path, "a sync took %lld ms: each client waits so long for its 250",
			    (long long)took_ms);
	else
		doctor_tell(doctor, DOCTOR_OK, path, "can be written and synced, in %lld ms", (long long)took_ms);
}

void doctor_spool(struct doctor *doctor, const char *subject)
{
	const char *path = doctor->config->spool;
	struct stat st;

	(void)subject;
	check_kind(doctor, path);
	if (stat(path, &st) != 0) {
		doctor_tell(doctor, errno == ENOENT ? DOCTOR_INFO : DOCTOR_WARN, path, "%s%s", strerror(errno),
			    errno == ENOENT ? ": relayd makes it at its first start" : "");
		return;
	}
	check_room(doctor, path);
	check_sync(doctor, path);
}
