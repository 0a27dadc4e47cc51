/* relayctl reload, pause, resume, drain - what is done to the daemon as a whole, or to its way to a relayhost. */
#include "base/base.h"
#include "relayctl/commands.h"
#include "relayctl/screen.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { STOP_PATIENCE_SEC = 60, LOOK_EACH_MS = 50 };

int cmd_reload(struct ctl *ctl, int argc, char **argv)
{
	json_t *answer, *body;
	const char *keys;
	int rc;

	if (ctl_parse(argc, argv, NULL, 0, NULL, 0) < 0)
		return CTL_USAGE;
	body = json_object();
	rc = ctl_request(ctl, "reload", body, &answer);
	json_decref(body);
	if (rc == CTL_USAGE) /* the configuration is at fault, not the command */
		return CTL_FAILED;
	if (rc != CTL_OK)
		return rc;
	if (ctl->json)
		ctl_print_json(answer);
	else
		puts("reloaded");
	keys = json_string_value(json_object_get(answer, "needs_restart"));
	if (!ctl->json && keys && keys[0])
		printf("needs a restart: %s\n", keys);
	json_decref(answer);
	return CTL_OK;
}

/* ---- relayhosts ---- */

static int change_pause(struct ctl *ctl, int argc, char **argv, const char *done)
{
	json_t *answer, *body;
	const char *name;
	struct buf path;
	int rc = ctl_parse(argc, argv, NULL, 0, &name, 1);

	if (rc != 1)
		return rc < 0 ? CTL_USAGE : ctl_wrong_usage(argv[0]);
	buf_init(&path, 4096);
	buf_append_str(&path, "relayhosts/");
	ctl_append_encoded(&path, name);
	buf_printf(&path, "/%s%c", argv[0], '\0');
	body = json_object();
	rc = ctl_request(ctl, buf_slice(&path).ptr, body, &answer);
	json_decref(body);
	buf_fini(&path);
	if (rc != CTL_OK)
		return rc;
	if (ctl->json)
		ctl_print_json(answer);
	else
		printf("%s %s%s\n", name, json_is_true(json_object_get(answer, "changed")) ? "is " : "was already ",
		       done);
	json_decref(answer);
	return CTL_OK;
}

int cmd_pause(struct ctl *ctl, int argc, char **argv)
{
	return change_pause(ctl, argc, argv, "paused");
}

int cmd_resume(struct ctl *ctl, int argc, char **argv)
{
	return change_pause(ctl, argc, argv, "in use");
}

/* ---- drain ---- */

struct draining {
	struct ctl *ctl;
	bool shows_progress;
	json_t *last;
};

static bool on_line(void *ctx, json_t *line)
{
	struct draining *draining = ctx;

	json_decref(draining->last);
	draining->last = json_incref(line);
	if (draining->shows_progress)
		fprintf(stderr, "\r%lld message%s left\033[K", (long long)number_of(line, "left"),
			plural(number_of(line, "left")));
	return true;
}

/* Everything is attempted now, once nothing new comes in: so the first line was awaited. */
static bool on_first_line(void *ctx, json_t *line)
{
	on_line(ctx, line);
	return false;
}

static bool is_there(struct ctl *ctl)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool there;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", ctl_socket(ctl));
	there = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
	if (fd >= 0)
		close(fd);
	return there;
}

static int wait_for_stop(struct ctl *ctl)
{
	const struct timespec pause = {0, LOOK_EACH_MS * 1000000L};

	for (int waited_ms = 0; waited_ms < STOP_PATIENCE_SEC * 1000; waited_ms += LOOK_EACH_MS) {
		if (!is_there(ctl))
			return CTL_OK;
		nanosleep(&pause, NULL);
	}
	return ctl_failed("relayd has not stopped yet");
}

static int ask_drain(struct ctl *ctl, const char *timeout, struct draining *draining)
{
	json_t *body = json_object(), *nothing = json_object(), *answer = NULL;
	int rc;

	if (timeout)
		json_object_set_new(body, "timeout", json_string(timeout));
	rc = ctl_stream(ctl, "drain", body, on_first_line, draining);
	if (rc == CTL_OK && !json_object_get(draining->last, "drained"))
		rc = ctl_request(ctl, "flush", nothing, &answer);
	if (rc == CTL_OK && !json_object_get(draining->last, "drained"))
		rc = ctl_stream(ctl, "drain", body, on_line, draining);
	if (draining->shows_progress)
		fputs("\r\033[K", stderr);
	json_decref(answer);
	json_decref(nothing);
	json_decref(body);
	return rc;
}

static int report(struct draining *draining)
{
	json_t *last = draining->last;
	int64_t left = number_of(last, "left"), held = number_of(last, "held");

	if (!json_object_get(last, "drained"))
		return ctl_failed("relayd has broken off");
	if (draining->ctl->json)
		ctl_print_json(last);
	else if (left + held > 0)
		printf("stopped; %lld message%s left, %lld of them held; the spool keeps what is left\n",
		       (long long)(left + held), left + held == 1 ? " is" : "s are", (long long)held);
	else
		puts("stopped; nothing is left");
	return left + held > 0 ? CTL_PENDING : CTL_OK;
}

int cmd_drain(struct ctl *ctl, int argc, char **argv)
{
	const char *timeout = NULL;
	const struct ctl_option options[] = {{"--timeout", &timeout, NULL}};
	struct draining draining = {.ctl = ctl, .shows_progress = isatty(STDERR_FILENO)};
	int rc;

	if (ctl_parse(argc, argv, options, ARRAY_LEN(options), NULL, 0) < 0)
		return CTL_USAGE;
	rc = ask_drain(ctl, timeout, &draining);
	if (rc == CTL_OK && json_object_get(draining.last, "drained"))
		rc = wait_for_stop(ctl);
	if (rc == CTL_OK)
		rc = report(&draining);
	json_decref(draining.last);
	return rc;
}
