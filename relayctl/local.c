/* relayctl config, version, verify, journal - what needs no daemon. */
#include "base/base.h"
#include "config/print.h"
#include "queue/verify.h"
#include "relayctl/commands.h"
#include "relayctl/screen.h"

#include <curl/curl.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>

int cmd_config(struct ctl *ctl, int argc, char **argv)
{
	const struct config *config;
	struct buf text;

	if (argc > 1)
		return ctl_wrong_usage(argv[0]);
	config = ctl_config(ctl);
	if (!config)
		return CTL_FAILED;
	if (ctl->json) {
		json_t *document = config_print_json(config);
		ctl_print_json(document);
		json_decref(document);
		return CTL_OK;
	}
	buf_init(&text, 8 << 20);
	if (config_print_yaml(config, &text) == 0)
		fwrite(buf_slice(&text).ptr, 1, buf_len(&text), stdout);
	buf_fini(&text);
	return CTL_OK;
}

int cmd_version(struct ctl *ctl, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	if (ctl->json) {
		json_t *document =
		    json_pack("{s:s, s:s, s:s}", "version", RELAYD_VERSION, "gnutls", gnutls_check_version(NULL),
			      "libcurl", curl_version_info(CURLVERSION_NOW)->version);
		ctl_print_json(document);
		json_decref(document);
	} else {
		printf("relayctl %s\n", RELAYD_VERSION);
	}
	return CTL_OK;
}

struct printing {
	json_t *lines; /* NULL: as text */
};

static void on_line(void *ctx, bool bad, const char *line)
{
	struct printing *printing = ctx;

	if (printing->lines)
		json_array_append_new(printing->lines, json_pack("{s:b, s:s}", "bad", bad, "text", line));
	else
		printf("%s%s\n", bad ? "! " : "", line);
}

int cmd_verify(struct ctl *ctl, int argc, char **argv)
{
	struct printing printing = {ctl->json ? json_array() : NULL};
	struct verify_summary s;
	struct err err;
	int rc;

	if (argc > 2)
		return ctl_wrong_usage(argv[0]);
	rc = verify_spool(argc == 2 ? argv[1] : ctl_spool(ctl), on_line, &printing, &s, &err);
	if (rc != 0 && rc != ERR_CORRUPT) {
		json_decref(printing.lines);
		return ctl_failed("%s", err.text);
	}
	if (ctl->json) {
		json_t *document = json_pack(
		    "{s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "sound", rc == 0, "lines",
		    printing.lines, "segments", (json_int_t)s.segments, "records", (json_int_t)s.records, "bytes",
		    (json_int_t)s.bytes, "messages", (json_int_t)s.messages, "recipients", (json_int_t)s.recipients,
		    "corrupt_ranges", (json_int_t)s.corrupt_ranges, "suspect_ranges", (json_int_t)s.suspect_ranges,
		    "messages_broken", (json_int_t)s.messages_broken, "torn_bytes", (json_int_t)s.torn_bytes);
		ctl_print_json(document);
		json_decref(document);
	} else {
		printf("%s: %llu message%s for %llu recipient%s, %llu record%s in %llu segment%s\n",
		       rc == 0 ? "sound" : "DAMAGED", (unsigned long long)s.messages, plural((int64_t)s.messages),
		       (unsigned long long)s.recipients, plural((int64_t)s.recipients), (unsigned long long)s.records,
		       plural((int64_t)s.records), (unsigned long long)s.segments, plural((int64_t)s.segments));
	}
	return rc == 0 ? CTL_OK : CTL_FAILED;
}

int cmd_journal(struct ctl *ctl, int argc, char **argv)
{
	struct printing printing = {ctl->json ? json_array() : NULL};
	struct err err;
	int rc;

	if (argc < 2 || argc > 3 || strcmp(argv[1], "dump") != 0)
		return ctl_wrong_usage(argv[0]);
	rc = verify_dump(argc == 3 ? argv[2] : ctl_spool(ctl), on_line, &printing, &err);
	if (printing.lines) {
		ctl_print_json(printing.lines);
		json_decref(printing.lines);
	}
	return rc == 0 ? CTL_OK : ctl_failed("%s", err.text);
}
