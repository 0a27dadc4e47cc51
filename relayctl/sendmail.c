/*
 * relayctl sendmail, and relayctl under the names of sendmail, mailq and newaliases - what cron, at, PHP and mailers
 * call (sendmail(8))
 *
 * The message goes to relayd over submit.sock, or over TCP with RELAYD_SUBMIT, or, while the daemon of this machine is
 * away, into SPOOL/drop/. Exit codes are those of sysexits.h: 0 only after relayd's 250, or once the message is on
 * disk.
 */
#include "relayctl/sendmail.h"

#include "base/base.h"
#include "config/secret.h"
#include "config/values.h"
#include "relayctl/ctl.h"
#include "relayctl/drop.h"
#include "relayctl/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

/* Where messages go. */
struct way {
	struct submit_server server;
	const char *spool;
	char socket_path[4096], host[256];
	char *password;
};

int sendmail_complain(int code, const char *text)
{
	fprintf(stderr, "sendmail: %s\n", text);
	return code;
}

/* ---- where to ---- */

static const char *environment(const char *name)
{
	const char *value = getenv(name);
	return value && value[0] ? value : NULL;
}

static int find_credentials(struct way *way)
{
	struct config_secret secret = {environment("RELAYD_PASSWORD_FILE"), environment("RELAYD_PASSWORD")};
	struct err err;

	way->server.username = environment("RELAYD_USERNAME");
	if (!way->server.username)
		return EX_OK;
	if (secret.value)
		secret.file = NULL;
	if (config_secret_read(&secret, &way->password, &err) != 0)
		return sendmail_complain(EX_CONFIG, secret.file ? err.text
								: "RELAYD_USERNAME without RELAYD_PASSWORD or "
								  "RELAYD_PASSWORD_FILE");
	way->server.password = way->password;
	return EX_OK;
}

static int find_server(struct way *way, const char *submit)
{
	const struct config_endpoint_rules rules = {.default_port = 587, .may_be_name = true};
	const char *tls = environment("RELAYD_SUBMIT_TLS");
	struct config_endpoint endpoint;
	struct slice host;
	struct err err;

	if (config_endpoint_parse(slice_of_str(submit), &rules, &endpoint, &host, &err) != 0)
		return sendmail_complain(EX_CONFIG, "RELAYD_SUBMIT is not HOST:PORT");
	slice_to_cstr(host, way->host, sizeof(way->host));
	way->server.host = way->host;
	way->server.port = endpoint.port;
	way->server.ca_file = environment("RELAYD_SUBMIT_CA_FILE");
	if (tls && !submit_tls_parse(tls, &way->server.tls))
		return sendmail_complain(EX_CONFIG, "RELAYD_SUBMIT_TLS is none, opportunistic, required or verify");
	return find_credentials(way);
}

/* For a user who may not read the configuration it is where it is by default, without a word: cron would mail it. */
static const char *find_spool(struct ctl *ctl)
{
	const char *file = ctl->config_file ? ctl->config_file : environment("RELAYD_CONFIG");

	if (!environment("RELAYD_SPOOL") && access(file ? file : CONFIG_DEFAULT_FILE, R_OK) != 0 && errno == EACCES)
		return CONFIG_DEFAULT_SPOOL;
	return ctl_spool(ctl);
}

static int find_way(struct ctl *ctl, struct way *way)
{
	const char *submit = environment("RELAYD_SUBMIT");

	if (submit)
		return find_server(way, submit);
	way->spool = find_spool(ctl);
	snprintf(way->socket_path, sizeof(way->socket_path), "%s/submit.sock", way->spool);
	way->server.socket_path = way->socket_path;
	return EX_OK;
}

/* ---- a message ---- */

/* A bare name stays bare: relayd completes it. */
static const char *sender_of(const struct sendmail *s, char *out, size_t size)
{
	const struct passwd *entry = s->sender ? NULL : getpwuid(getuid());
	const char *given = s->sender ? s->sender : entry ? entry->pw_name : "unknown";
	size_t len = strlen(given);

	if (len >= 2 && given[0] == '<' && given[len - 1] == '>') {
		given++;
		len -= 2;
	}
	snprintf(out, size, "%.*s", (int)MIN(len, (size_t)1000), given);
	return out;
}

/* What sysexits.h has for a refusal. */
static int exit_code_of(int rc, const struct submit_result *result)
{
	switch (rc) {
	case 0: return EX_OK;
	case ERR_CONFIG: return EX_CONFIG;
	case ERR_PERMISSION: break;
	default: return EX_TEMPFAIL;
	}
	if (result->code == 552 || strcmp(result->enhanced, "5.3.4") == 0)
		return EX_DATAERR;
	if (result->stage == STAGE_RCPT && strncmp(result->enhanced, "5.7.", 4) != 0)
		return EX_NOUSER;
	return result->code >= 530 && result->code < 560 ? EX_NOPERM : EX_UNAVAILABLE;
}

static int leave_in_drop(const struct way *way, struct sendmail *s, struct submission *submission, struct err *err)
{
	sendmail_add_date(s);
	submission->message = buf_slice(&s->message);
	return drop_put(way->spool, submission, err);
}

static int deliver(const struct way *way, struct sendmail *s, const char *sender)
{
	struct submission submission = {sender,
					(const char *const *)s->recipients,
					s->recipient_count,
					buf_slice(&s->message),
					s->notify,
					s->ret,
					buf_len(&s->envid) ? buf_slice(&s->envid).ptr : NULL};
	struct submit_result result;
	struct err err;
	int rc = submit_message(&way->server, &submission, &result, &err);

	if (rc == ERR_CLOSED && way->spool && !result.id[0])
		rc = leave_in_drop(way, s, &submission, &err);
	if (rc != 0)
		sendmail_complain(EX_OK, err.text);
	if (rc != 0 && result.id[0])
		sendmail_complain(EX_OK, "the other recipients' message was accepted");
	return exit_code_of(rc, &result);
}

static int send_message(const struct way *way, struct sendmail *s)
{
	char sender[1300];
	int rc = sendmail_read_message(s);

	if (rc == EX_OK)
		rc = sendmail_prepare(s, sender_of(s, sender, sizeof(sender)));
	return rc == EX_OK ? deliver(way, s, sender) : rc;
}

/* ---- -bs ---- */

static int copy(int from, int to, bool *is_open)
{
	char bytes[16 * 1024];
	ssize_t n = read(from, bytes, sizeof(bytes));

	*is_open = n > 0;
	for (ssize_t done = 0, written; done < n; done += written) {
		written = write(to, bytes + done, (size_t)(n - done));
		if (written < 0)
			return -1;
	}
	return n < 0 ? -1 : 0;
}

/* SMTP from standard input to relayd and back, until relayd ends it. */
static int pass_on(int fd)
{
	struct pollfd ends[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	bool is_open = true;

	while (poll(ends, 2, -1) >= 0 || errno == EINTR) {
		if (ends[1].revents) {
			if (copy(fd, STDOUT_FILENO, &is_open) != 0)
				return EX_IOERR;
			if (!is_open)
				return EX_OK;
		}
		if (ends[0].fd >= 0 && ends[0].revents) {
			if (copy(STDIN_FILENO, fd, &is_open) != 0 || !is_open) {
				shutdown(fd, SHUT_WR);
				ends[0].fd = -1;
			}
		}
	}
	return EX_OSERR;
}

static int speak_smtp(const struct way *way)
{
	enum { CONNECT_MS = 30 * 1000 };
	struct err err;
	struct link *link = way->server.socket_path
				? link_open_unix(way->server.socket_path, &err)
				: link_open_tcp(way->server.host, way->server.port, CONNECT_MS, &err);
	int rc, flags;

	if (!link) {
		puts("421 4.3.2 relayd is not running; try again later\r");
		return sendmail_complain(EX_TEMPFAIL, err.text);
	}
	flags = fcntl(link_fd(link), F_GETFL);
	fcntl(link_fd(link), F_SETFL, flags & ~O_NONBLOCK);
	rc = pass_on(link_fd(link));
	link_close(&link);
	return rc;
}

/* ---- the queue ---- */

/* Members of `control_group` see it; for others this says whom to ask. */
static int ask_daemon(struct ctl *ctl, ctl_command *command, char *const argv[], int argc)
{
	char *words[3] = {0};
	int rc;

	if (access(ctl_socket(ctl), R_OK | W_OK) != 0 && errno == EACCES)
		return sendmail_complain(EX_NOPERM,
					 "the queue is for root, relayd's user and the members of control_group");
	memcpy(words, argv, (size_t)argc * sizeof(words[0]));
	rc = command(ctl, argc, words);
	return rc == CTL_OK || rc == CTL_NO_MATCH ? EX_OK : rc == CTL_UNREACHABLE ? EX_TEMPFAIL : EX_UNAVAILABLE;
}

static int run(struct ctl *ctl, struct sendmail *s)
{
	struct way way = {0};
	int rc = EX_OK;

	if (s->mode == SENDMAIL_QUEUE)
		return ask_daemon(ctl, cmd_queue, (char *[]){"queue"}, 1);
	if (s->mode == SENDMAIL_FLUSH)
		return ask_daemon(ctl, cmd_flush, (char *[]){"flush", "--yes"}, 2);
	if (s->mode == SENDMAIL_NOTHING)
		return EX_OK;
	rc = find_way(ctl, &way);
	if (rc == EX_OK)
		rc = s->mode == SENDMAIL_SMTP ? speak_smtp(&way) : send_message(&way, s);
	config_secret_wipe(&way.password);
	return rc;
}

static enum sendmail_mode mode_of_name(const char *program)
{
	const char *slash = strrchr(program, '/'), *name = slash ? slash + 1 : program;

	return strcmp(name, "mailq") == 0	 ? SENDMAIL_QUEUE
	       : strcmp(name, "newaliases") == 0 ? SENDMAIL_NOTHING
						 : SENDMAIL_MESSAGE;
}

int cmd_sendmail(struct ctl *ctl, int argc, char **argv)
{
	struct sendmail *s = xcalloc(1, sizeof(*s));
	int rc;

	buf_init(&s->message, SENDMAIL_MESSAGE_MAX_BYTES);
	buf_init(&s->envid, 1024);
	s->mode = mode_of_name(argv[0]);
	rc = sendmail_take_arguments(s, argc, argv);
	if (rc == EX_OK)
		rc = run(ctl, s);
	for (size_t i = 0; i < s->recipient_count; i++)
		free(s->recipients[i]);
	buf_fini(&s->envid);
	buf_fini(&s->message);
	free(s);
	return rc;
}
