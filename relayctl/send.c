/* relayctl send - submits a message and follows it to the next hop's reply. */
#include "base/base.h"
#include "relayctl/commands.h"
#include "relayctl/screen.h"
#include "relayctl/submit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RECIPIENTS_MAX = 100, FOLLOW_SEC = 30, LOOK_EACH_MS = 100 };

static int read_message(const char *path, struct buf *out)
{
	FILE *file = path ? fopen(path, "rb") : stdin;
	size_t n;

	if (!file)
		return ctl_failed("cannot open %s: %s", path, strerror(errno));
	do {
		char *at = buf_reserve(out, 65536);
		n = at ? fread(at, 1, 65536, file) : 0;
		buf_commit(out, n);
	} while (n > 0);
	if (path)
		fclose(file);
	return CTL_OK;
}

static bool has_header(struct slice message, const char *name)
{
	size_t len = strlen(name);

	while (message.len > 0 && message.ptr[0] != '\n' && message.ptr[0] != '\r') {
		ptrdiff_t end = slice_find(message, '\n');
		if (message.len > len && strncasecmp(message.ptr, name, len) == 0 && message.ptr[len] == ':')
			return true;
		message = slice_from(message, end < 0 ? message.len : (size_t)end + 1);
	}
	return false;
}

/* A bare text becomes a message: the fields that people leave out in a hurry. */
static void complete(struct buf *message, const char *from, const char *to)
{
	struct buf whole;

	if (has_header(buf_slice(message), "From") || has_header(buf_slice(message), "Subject"))
		return;
	buf_init(&whole, SIZE_MAX / 4);
	buf_printf(&whole, "From: <%s>\nTo: <%s>\nSubject: test by relayctl send\n\n", from, to);
	buf_append(&whole, buf_slice(message));
	buf_fini(message);
	*message = whole;
}

static bool is_waiting(const char *outcome)
{
	return strcmp(outcome, "none") == 0 || strcmp(outcome, "deferred") == 0;
}

static bool is_pending(json_t *message)
{
	json_t *recipient;
	size_t i;

	json_array_foreach(json_object_get(message, "recipients"), i, recipient)
	{
		if (is_waiting(text_of(recipient, "outcome")))
			return true;
	}
	return false;
}

static bool has_attempt(json_t *message)
{
	json_t *recipient;
	size_t i;

	json_array_foreach(json_object_get(message, "recipients"), i, recipient)
	{
		const char *outcome = json_string_value(json_object_get(recipient, "outcome"));
		if (outcome && strcmp(outcome, "none") == 0)
			return false;
	}
	return true;
}

/* As `show` says it. */
static void print_next_attempt(json_t *recipient)
{
	json_t *next = json_object_get(recipient, "next_attempt_sec");
	const char *why = text_of(recipient, "why");
	char wait[24];

	if (json_integer_value(next) > 0)
		printf("  next attempt in %s%s%s\n", ctl_format_age(json_integer_value(next), wait, sizeof(wait)),
		       why[0] ? ": " : "", why);
	else if (why[0])
		printf("  %s\n", why);
}

static void print_outcome(json_t *recipient)
{
	int64_t code = number_of(recipient, "code");

	if (strcmp(text_of(recipient, "outcome"), "none") == 0) {
		printf("%s: not attempted yet\n", text_of(recipient, "address"));
		return;
	}
	printf("%s: %s", text_of(recipient, "address"), text_of(recipient, "outcome"));
	if (text_of(recipient, "host")[0])
		printf(" %s", text_of(recipient, "host"));
	if (code > 0)
		printf(" %lld", (long long)code);
	printf(" %s\n", text_of(recipient, "text"));
}

static int report(struct ctl *ctl, json_t *message)
{
	json_t *recipient;
	size_t i;
	int rc = is_pending(message) ? CTL_PENDING : CTL_OK;

	if (ctl->json)
		ctl_print_json(message);
	json_array_foreach(json_object_get(message, "recipients"), i, recipient)
	{
		const char *outcome = text_of(recipient, "outcome");
		if (!ctl->json)
			print_outcome(recipient);
		if (!ctl->json && is_waiting(outcome))
			print_next_attempt(recipient);
		if (strcmp(outcome, "failed") == 0 || strcmp(outcome, "expired") == 0)
			rc = CTL_FAILED;
	}
	return rc;
}

/* Looks until every recipient has been attempted, at most FOLLOW_SEC. */
static int follow(struct ctl *ctl, const char *id)
{
	const struct timespec pause = {0, LOOK_EACH_MS * 1000000L};
	char path[64];
	json_t *message;
	int rc;

	snprintf(path, sizeof(path), "message?id=%s", id);
	for (int looked_ms = 0;; looked_ms += LOOK_EACH_MS) {
		rc = ctl_request(ctl, path, NULL, &message);
		if (rc != CTL_OK)
			return rc;
		if (has_attempt(message) || looked_ms >= FOLLOW_SEC * 1000) {
			rc = report(ctl, message);
			json_decref(message);
			return rc;
		}
		json_decref(message);
		nanosleep(&pause, NULL);
	}
}

static const char *submit_socket(struct ctl *ctl, char *out, size_t size)
{
	const char *control = ctl_socket(ctl), *slash = strrchr(control, '/');

	snprintf(out, size, "%.*s/submit.sock", slash ? (int)(slash - control) : 1, slash ? control : ".");
	return out;
}

int cmd_send(struct ctl *ctl, int argc, char **argv)
{
	const char *recipients[RECIPIENTS_MAX], *from = NULL, *file = NULL;
	struct submission submission = {.recipients = recipients};
	char socket_path[4096];
	struct submit_server server = {.socket_path = socket_path};
	struct submit_result result;
	struct buf message;
	struct err err;
	int rc;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--from") == 0 && i + 1 < argc)
			from = argv[++i];
		else if (strcmp(argv[i], "--to") == 0 && i + 1 < argc && submission.recipient_count < RECIPIENTS_MAX)
			recipients[submission.recipient_count++] = argv[++i];
		else if (argv[i][0] != '-' && !file)
			file = argv[i];
		else {
			ctl_usage("send: unexpected argument '%s'", argv[i]);
			return ctl_wrong_usage(argv[0]);
		}
	}
	if (!from || submission.recipient_count == 0)
		return ctl_wrong_usage(argv[0]);
	buf_init(&message, 1u << 30);
	rc = read_message(file, &message);
	if (rc == CTL_OK) {
		complete(&message, from, recipients[0]);
		submission.sender = from;
		submission.message = buf_slice(&message);
		submit_socket(ctl, socket_path, sizeof(socket_path));
		rc = submit_message(&server, &submission, &result, &err);
		if (rc != 0)
			ctl_failed("%s", err.text);
		rc = rc == 0 ? CTL_OK : rc == ERR_CLOSED ? CTL_UNREACHABLE : CTL_FAILED;
	}
	buf_fini(&message);
	if (rc != CTL_OK)
		return rc;
	if (!ctl->json)
		printf("accepted as %s\n", result.id);
	return follow(ctl, result.id);
}
