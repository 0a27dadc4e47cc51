#include "relayctl/ctl.h"

#include "base/base.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ANSWER_MAX_BYTES = 64 << 20, LINE_MAX_BYTES = 4 << 20, SILENCE_MAX_SEC = 30 };

static void __attribute__((format(printf, 1, 0))) complain(const char *format, va_list args)
{
	fputs("relayctl: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

int ctl_usage(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(format, args);
	va_end(args);
	return CTL_USAGE;
}

int ctl_failed(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(format, args);
	va_end(args);
	return CTL_FAILED;
}

const struct config *ctl_config(struct ctl *ctl)
{
	extern char **environ;
	struct config_source source = {
	    .file = ctl->config_file, .file_is_named = ctl->config_file != NULL, .environ = environ};
	struct config_errors errors;

	if (ctl->config || ctl->config_is_bad)
		return ctl->config;
	ctl->config_is_bad = config_load(&source, &ctl->config, &errors) != 0;
	if (ctl->config_is_bad)
		for (size_t i = 0; i < errors.kept_count; i++)
			if (!errors.items[i].is_warning)
				fprintf(stderr, "relayctl: %s\n", errors.items[i].text);
	return ctl->config;
}

const char *ctl_spool(struct ctl *ctl)
{
	const char *named = getenv("RELAYD_SPOOL");
	const struct config *config;

	if (!ctl->config_file && named && *named)
		return named;
	config = ctl_config(ctl);
	return config ? config->spool : CONFIG_DEFAULT_SPOOL;
}

const char *ctl_socket(struct ctl *ctl)
{
	struct buf path;

	if (ctl->socket)
		return ctl->socket;
	if (!ctl->socket_path) {
		buf_init(&path, 4096);
		buf_printf(&path, "%s/control.sock", ctl_spool(ctl));
		ctl->socket_path = xmemdup(buf_slice(&path).ptr, buf_len(&path));
		buf_fini(&path);
	}
	return ctl->socket_path;
}

/* ---- requests ---- */

struct transfer {
	CURL *curl;
	struct buf text;   /* the answer, or what of it is no whole line yet */
	ctl_line *on_line; /* NULL: one document */
	void *ctx;
	curl_off_t octets; /* up and down, when something was last heard */
	time_t heard;
	bool was_enough, is_nonsense, is_silent;
};

static bool is_good(CURL *curl)
{
	long status = 0;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	return status == 200 || status == 503; /* 503: an answer too, of health */
}

static void hand_over(struct transfer *transfer, struct slice line)
{
	json_t *object;

	if (slice_trim(line).len == 0)
		return;
	object = json_loadb(line.ptr, line.len, 0, NULL);
	transfer->is_nonsense = !object;
	transfer->was_enough = object && !transfer->on_line(transfer->ctx, object);
	json_decref(object);
}

static void hand_over_lines(struct transfer *transfer)
{
	ptrdiff_t end;

	while (!transfer->was_enough && !transfer->is_nonsense &&
	       (end = slice_find(buf_slice(&transfer->text), '\n')) >= 0) {
		hand_over(transfer, slice_to(buf_slice(&transfer->text), (size_t)end));
		buf_consume(&transfer->text, (size_t)end + 1);
	}
}

static size_t on_body(char *bytes, size_t size, size_t count, void *ctx)
{
	struct transfer *transfer = ctx;

	if (buf_append(&transfer->text, slice_of(bytes, size * count)) != 0)
		return 0;
	if (transfer->on_line && is_good(transfer->curl))
		hand_over_lines(transfer);
	return transfer->was_enough || transfer->is_nonsense ? 0 : size * count;
}

/* Long work shows signs of life now and then. */
static int on_progress(void *ctx, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
	struct transfer *transfer = ctx;
	time_t now = time(NULL);

	(void)down_total;
	(void)up_total;
	if (down + up != transfer->octets || transfer->heard == 0) {
		transfer->octets = down + up;
		transfer->heard = now;
	}
	transfer->is_silent = now - transfer->heard > SILENCE_MAX_SEC;
	return transfer->is_silent;
}

static void begin_transfer(struct transfer *transfer, struct ctl *ctl, const char *path, const char *body)
{
	CURL *curl = transfer->curl = curl_easy_init();
	struct buf url;

	BUG_ON(!curl);
	buf_init(&transfer->text, transfer->on_line ? LINE_MAX_BYTES : ANSWER_MAX_BYTES);
	buf_init(&url, 1 << 20);
	buf_printf(&url, "http://relayd/v1/%s%c", path, '\0');
	curl_easy_setopt(curl, CURLOPT_URL, buf_slice(&url).ptr);
	buf_fini(&url);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, ctl_socket(ctl));
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(curl, CURLOPT_XFERINFODATA, transfer);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
	if (body)
		curl_easy_setopt(curl, CURLOPT_COPYPOSTFIELDS, body);
}

static int unreachable(struct ctl *ctl, CURLcode rc, CURL *curl)
{
	const char *socket = ctl_socket(ctl);
	long errnum = 0;

	curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &errnum);
	if (errnum == ENOENT)
		ctl_failed("cannot reach relayd: there is no %s (is it running? -c and -s name another place)", socket);
	else if (errnum == ECONNREFUSED)
		ctl_failed("cannot reach relayd: nobody listens on %s (is it running?)", socket);
	else if (errnum == EACCES)
		ctl_failed("cannot reach relayd: %s is for root, relayd's user and the members of control_group",
			   socket);
	else
		ctl_failed("cannot reach relayd at %s: %s (is it running?)", socket, curl_easy_strerror(rc));
	return CTL_UNREACHABLE;
}

static int judge(struct ctl *ctl, CURLcode rc, struct transfer *transfer, json_t **answer)
{
	struct slice text = buf_slice(&transfer->text);
	json_t *document;
	long status = 0;

	if (transfer->was_enough)
		return CTL_OK;
	if (transfer->is_nonsense)
		return ctl_failed("relayd's answer makes no sense");
	if (rc == CURLE_WRITE_ERROR)
		return ctl_failed("relayd's answer is too long");
	if (transfer->is_silent) {
		ctl_failed("relayd at %s says nothing for %d seconds", ctl_socket(ctl), SILENCE_MAX_SEC);
		return CTL_UNREACHABLE;
	}
	if (rc != CURLE_OK)
		return unreachable(ctl, rc, transfer->curl);
	document = json_loadb(text.ptr ? text.ptr : "", text.len, 0, NULL);
	if (is_good(transfer->curl) && (document || answer == NULL)) {
		if (answer)
			*answer = document;
		else
			json_decref(document);
		return CTL_OK;
	}
	curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
	ctl_failed("%s", json_is_object(document) && json_string_value(json_object_get(document, "error"))
			     ? json_string_value(json_object_get(document, "error"))
			     : "the request was refused");
	json_decref(document);
	if (status == 403) /* as if the socket's mode had said it */
		return CTL_UNREACHABLE;
	return status == 404 ? CTL_NO_MATCH : status == 400 ? CTL_USAGE : CTL_FAILED;
}

static int perform(struct ctl *ctl, const char *path, json_t *body, struct transfer *transfer, json_t **answer)
{
	char *body_text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	CURLcode rc;
	int result;

	begin_transfer(transfer, ctl, path, body_text);
	rc = curl_easy_perform(transfer->curl);
	result = judge(ctl, rc, transfer, answer);
	curl_easy_cleanup(transfer->curl);
	buf_fini(&transfer->text);
	free(body_text);
	return result;
}

int ctl_request(struct ctl *ctl, const char *path, json_t *body, json_t **answer)
{
	struct transfer transfer = {0};

	*answer = NULL;
	return perform(ctl, path, body, &transfer, answer);
}

int ctl_stream(struct ctl *ctl, const char *path, json_t *body, ctl_line *on_line, void *ctx)
{
	struct transfer transfer = {.on_line = on_line, .ctx = ctx};

	return perform(ctl, path, body, &transfer, NULL);
}

void ctl_append_encoded(struct buf *path, const char *value)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.@";

	for (; *value; value++) {
		if (strchr(plain, *value))
			buf_append_byte(path, *value);
		else
			buf_printf(path, "%%%02X", (unsigned char)*value);
	}
}

void ctl_add_query(struct buf *path, const char *name, const char *value)
{
	buf_printf(path, "%c%s=", slice_find(buf_slice(path), '?') < 0 ? '?' : '&', name);
	ctl_append_encoded(path, value);
}

void ctl_print_json(json_t *document)
{
	json_dumpf(document, stdout, JSON_INDENT(2));
	fputc('\n', stdout);
}

const char *ctl_format_age(int64_t seconds, char *out, size_t size)
{
	if (seconds < 0)
		seconds = 0;
	if (seconds < 60)
		snprintf(out, size, "%llds", (long long)seconds);
	else if (seconds < 3600)
		snprintf(out, size, "%lldm", (long long)seconds / 60);
	else if (seconds < 2 * 86400)
		snprintf(out, size, "%lldh", (long long)seconds / 3600);
	else
		snprintf(out, size, "%lldd", (long long)seconds / 86400);
	return out;
}

const char *ctl_format_bytes(int64_t bytes, char *out, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_LEN(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(out, size, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
	return out;
}
