#include "config/secret.h"

#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Up to one octet more than is allowed, to see that there is more. */
static int read_all(int fd, const char *path, char *text, size_t *len, struct err *err)
{
	ssize_t n;

	*len = 0;
	do {
		n = read(fd, text + *len, CONFIG_SECRET_MAX_BYTES + 1 - *len);
		if (n < 0 && errno != EINTR)
			return err_set_errno(err, "cannot read %s", path);
		if (n > 0)
			*len += (size_t)n;
	} while (n != 0 && *len <= CONFIG_SECRET_MAX_BYTES);
	if (*len > CONFIG_SECRET_MAX_BYTES)
		return err_set(err, ERR_LIMIT, "%s is larger than %d KiB", path, CONFIG_SECRET_MAX_BYTES / 1024);
	return 0;
}

static int check_text(const char *path, char *text, size_t len, struct err *err)
{
	if (len > 0 && text[len - 1] == '\n')
		len--;
	if (len > 0 && text[len - 1] == '\r')
		len--;
	text[len] = '\0';
	if (len == 0)
		return err_set(err, ERR_CONFIG, "%s is empty", path);
	if (strlen(text) != len)
		return err_set(err, ERR_CONFIG, "%s has a NUL in it", path);
	return 0;
}

int config_read_secret(const char *path, char **text, struct err *err)
{
	/* Not blocking, should it be a FIFO. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	size_t len;
	int rc;

	*text = NULL;
	if (fd < 0)
		return err_set_errno(err, "cannot open %s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(err, ERR_CONFIG, "%s is not a regular file", path);
	}
	*text = xmalloc(CONFIG_SECRET_MAX_BYTES + 2);
	(*text)[CONFIG_SECRET_MAX_BYTES + 1] = '\0';
	rc = read_all(fd, path, *text, &len, err);
	close(fd);
	if (rc == 0)
		rc = check_text(path, *text, len, err);
	if (rc < 0) {
		sodium_memzero(*text, CONFIG_SECRET_MAX_BYTES + 2);
		free(*text);
		*text = NULL;
	}
	return rc;
}

int config_secret_read(const struct config_secret *secret, char **text, struct err *err)
{
	*text = NULL;
	if (secret->file)
		return config_read_secret(secret->file, text, err);
	if (!secret->value)
		return err_set(err, ERR_NOT_FOUND, "no secret is configured");
	*text = xstrdup(secret->value);
	return 0;
}

void config_secret_wipe(char **text)
{
	if (!*text)
		return;
	sodium_memzero(*text, strlen(*text));
	free(*text);
	*text = NULL;
}
