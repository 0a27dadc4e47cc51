#include "relayctl/submit.h"

#include "base/base.h"
#include "base/buf.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { REPLY_TIMEOUT_SEC = 120, REPLY_LINE_MAX = 2048 };

struct dialog {
	FILE *in;
	int fd;
	char reply[REPLY_LINE_MAX]; /* the last line */
	int code;
};

/* A socket path may be longer than sun_path: it is reached through its folder's descriptor. */
static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *slash = strrchr(path, '/');
	struct timeval patience = {REPLY_TIMEOUT_SEC, 0};
	char folder[4096];
	int dir = -1, fd;

	if (slash && slice_to_cstr(slice_of(path, (size_t)(slash - path + 1)), folder, sizeof(folder)))
		dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir, slash ? slash + 1 : path);
	if (dir < 0)
		snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		close(fd);
		fd = -1;
	}
	if (dir >= 0)
		close(dir);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

static int send_all(int fd, struct slice bytes)
{
	while (bytes.len > 0) {
		ssize_t n = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
		if (n <= 0)
			return -1;
		bytes = slice_from(bytes, (size_t)n);
	}
	return 0;
}

/* Reads one reply; its code class must be `wanted`. */
static int expect(struct dialog *d, char wanted, struct err *err)
{
	do {
		if (!fgets(d->reply, sizeof(d->reply), d->in))
			return err_set(err, ERR_CLOSED, "relayd closed the connection");
	} while (strlen(d->reply) > 3 && d->reply[3] == '-');
	d->reply[strcspn(d->reply, "\r\n")] = '\0';
	if (d->reply[0] == wanted)
		return 0;
	return err_set(err, d->reply[0] == '5' ? ERR_PERMISSION : ERR_TEMPORARY, "%s", d->reply);
}

static int command(struct dialog *d, char wanted, struct err *err, const char *format, const char *argument)
{
	struct buf line;
	int rc;

	buf_init(&line, 4096);
	buf_printf(&line, "%s%s%s\r\n", format, argument, strchr(format, '<') ? ">" : "");
	rc = send_all(d->fd, buf_slice(&line)) == 0 ? expect(d, wanted, err)
						    : err_set(err, ERR_CLOSED, "relayd closed the connection");
	buf_fini(&line);
	return rc;
}

/* Line by line: CRLF line ends, leading dots doubled (RFC 5321 section 4.5.2), the final dot. */
static int send_content(int fd, struct slice message)
{
	struct buf out;
	int rc;

	buf_init(&out, SIZE_MAX / 4);
	while (message.len > 0) {
		ptrdiff_t end = slice_find(message, '\n');
		struct slice line = end < 0 ? message : slice_to(message, (size_t)end);
		message = end < 0 ? slice_from(message, message.len) : slice_from(message, (size_t)end + 1);
		if (line.len > 0 && line.ptr[line.len - 1] == '\r')
			line.len--;
		if (line.len > 0 && line.ptr[0] == '.')
			buf_append_byte(&out, '.');
		buf_append(&out, line);
		buf_append_str(&out, "\r\n");
	}
	buf_append_str(&out, ".\r\n");
	rc = send_all(fd, buf_slice(&out));
	buf_fini(&out);
	return rc;
}

static int converse(struct dialog *d, const struct submission *s, char id[14], struct err *err)
{
	const char *queued;
	int rc = expect(d, '2', err);

	rc = rc ? rc : command(d, '2', err, "EHLO ", "localhost");
	rc = rc ? rc : command(d, '2', err, "MAIL FROM:<", s->sender);
	for (size_t i = 0; rc == 0 && i < s->recipient_count; i++)
		rc = command(d, '2', err, "RCPT TO:<", s->recipients[i]);
	rc = rc ? rc : command(d, '3', err, "DATA", "");
	if (rc == 0 && send_content(d->fd, s->message) != 0)
		rc = err_set(err, ERR_CLOSED, "relayd closed the connection");
	rc = rc ? rc : expect(d, '2', err);
	if (rc != 0)
		return rc;
	queued = strstr(d->reply, "queued as ");
	snprintf(id, 14, "%.13s", queued ? queued + strlen("queued as ") : "");
	send_all(d->fd, SLICE("QUIT\r\n"));
	return 0;
}

int submit_message(const char *socket_path, const struct submission *submission, char id[14], struct err *err)
{
	struct dialog d = {.fd = connect_to(socket_path)};
	int rc;

	if (d.fd < 0)
		return err_set_errno(err, "cannot reach relayd at %s", socket_path), ERR_CLOSED;
	d.in = fdopen(d.fd, "r");
	BUG_ON(!d.in);
	rc = converse(&d, submission, id, err);
	fclose(d.in);
	return rc;
}
