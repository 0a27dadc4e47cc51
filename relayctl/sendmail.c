/*
 * relayctl sendmail, and relayctl under the name of sendmail - what cron, at, PHP and mailers call (sendmail(8))
 *
 * Takes LF and CRLF, mixed, from standard input and hands the message to relayd over submit.sock. Bare names get the
 * host name of the configuration, or of RELAYD_HOSTNAME. Exit codes are those of sysexits.h: 0 only after relayd's 250.
 */
#include "base/base.h"
#include "config/hostname.h"
#include "relayctl/ctl.h"
#include "relayctl/submit.h"
#include "smtp/address_list.h"
#include "smtp/header.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

enum { RECIPIENTS_MAX = 1000, MESSAGE_MAX_BYTES = 1 << 30 };

struct sendmail {
	const char *sender;    /* -f, -r; NULL: the user who calls */
	const char *full_name; /* -F */
	bool from_header;      /* -t */
	bool ignore_dots;      /* -i, -oi: a lone dot is content */
	struct buf message;
	char *recipients[RECIPIENTS_MAX];
	size_t recipient_count;
	char hostname[CONFIG_HOSTNAME_MAX];
};

static int complain(int code, const char *text)
{
	fprintf(stderr, "sendmail: %s\n", text);
	return code;
}

/* ---- arguments ---- */

static int add_recipients(struct sendmail *s, struct slice text)
{
	struct address_list list;
	struct address address;
	struct buf whole;
	int rc;

	address_list_init(&list, text);
	while ((rc = address_list_next(&list, &address)) == 1) {
		if (s->recipient_count == RECIPIENTS_MAX)
			return complain(EX_USAGE, "too many recipients");
		buf_init(&whole, 2 * ADDRESS_MAX_BYTES);
		buf_append(&whole, slice_of(address.text, address.len));
		if (!address.has_domain)
			buf_printf(&whole, "@%s", s->hostname);
		s->recipients[s->recipient_count++] = xmemdup(buf_slice(&whole).ptr, buf_len(&whole));
		buf_fini(&whole);
	}
	return rc == 0 ? EX_OK : complain(EX_DATAERR, "an address cannot be read");
}

/* "-fx" or "-f x". */
static const char *value_of(int argc, char **argv, int *at)
{
	if (argv[*at][2] != '\0')
		return argv[*at] + 2;
	return *at + 1 < argc ? argv[++*at] : "";
}

/* One option; what is not known is ignored, as all sendmails do. Returns EX_OK or why not. */
static int take_option(struct sendmail *s, int argc, char **argv, int *at)
{
	const char *option = argv[*at];

	switch (option[1]) {
	case 'f':
	case 'r': s->sender = value_of(argc, argv, at); return EX_OK;
	case 'F': s->full_name = value_of(argc, argv, at); return EX_OK;
	case 't': s->from_header = true; return EX_OK;
	case 'i': s->ignore_dots = true; return EX_OK;
	case 'o':
		if (strcmp(option, "-oi") == 0)
			s->ignore_dots = true;
		return EX_OK;
	case 'b':
		if (strcmp(option, "-bm") == 0)
			return EX_OK;
		return complain(
		    EX_USAGE,
		    "this mode is not supported (-bs and -bp are not there yet); use relayctl queue for the queue");
	default: return EX_OK;
	}
}

static int take_arguments(struct sendmail *s, int argc, char **argv)
{
	bool options_over = false;
	int rc = EX_OK;

	for (int i = 1; rc == EX_OK && i < argc; i++) {
		if (!options_over && strcmp(argv[i], "--") == 0)
			options_over = true;
		else if (!options_over && argv[i][0] == '-' && argv[i][1])
			rc = take_option(s, argc, argv, &i);
		else
			rc = add_recipients(s, slice_of_str(argv[i]));
	}
	return rc;
}

/* ---- the message ---- */

/* Without -i a lone dot ends the message. */
static int read_message(struct sendmail *s)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	int rc = EX_OK;

	while (rc == EX_OK && (len = getline(&line, &size, stdin)) >= 0) {
		if (!s->ignore_dots &&
		    (strcmp(line, ".\n") == 0 || strcmp(line, ".\r\n") == 0 || strcmp(line, ".") == 0))
			break;
		if (len > 0 && line[len - 1] == '\n')
			len -= len > 1 && line[len - 2] == '\r' ? 2 : 1;
		if (buf_append(&s->message, slice_of(line, (size_t)len)) < 0 || buf_append_str(&s->message, "\r\n") < 0)
			rc = complain(EX_UNAVAILABLE, "the message is too large");
	}
	free(line);
	return rc == EX_OK && ferror(stdin) ? complain(EX_IOERR, "cannot read the message") : rc;
}

static int recipients_from_header(struct sendmail *s, struct slice header)
{
	static const char *const names[] = {"To", "Cc", "Bcc"};
	struct header_field field;
	int rc = EX_OK;

	while (rc == EX_OK && header_next_field(&header, &field))
		for (size_t i = 0; i < ARRAY_LEN(names); i++)
			if (slice_case_eq(field.name, slice_of_str(names[i])))
				rc = add_recipients(s, field.body);
	return rc;
}

static bool has_from(struct slice header)
{
	struct header_field field;
	return header_find_field(header, SLICE("From"), &field);
}

static const char *caller_name(void)
{
	struct passwd *entry = getpwuid(getuid());
	return entry ? entry->pw_name : "unknown";
}

/* -F names the From that is added when there is none. */
static void add_from(struct sendmail *s, const char *sender)
{
	struct buf whole;

	buf_init(&whole, MESSAGE_MAX_BYTES);
	buf_append_str(&whole, "From: ");
	for (const char *c = s->full_name ? s->full_name : ""; *c; c++)
		if ((unsigned char)*c >= ' ' && *c != '"' && *c != '\\')
			buf_printf(&whole, "%s%c%s", c == s->full_name ? "\"" : "", *c, c[1] ? "" : "\" ");
	buf_printf(&whole, "<%s>\r\n", sender);
	buf_append(&whole, buf_slice(&s->message));
	buf_fini(&s->message);
	s->message = whole;
}

static int prepare(struct sendmail *s, const char *sender)
{
	struct header_scanner scanner;
	size_t taken;
	int rc = EX_OK;
	bool lacks_from;

	header_scanner_init(&scanner, HEADER_BLOCK_MAX_BYTES);
	if (header_scanner_input(&scanner, buf_slice(&s->message), &taken) == HEADER_MORE)
		header_scanner_end(&scanner);
	if (s->from_header)
		rc = recipients_from_header(s, header_scanner_block(&scanner));
	lacks_from = !has_from(header_scanner_block(&scanner)) && sender[0];
	header_scanner_fini(&scanner);
	if (rc == EX_OK && lacks_from && s->full_name)
		add_from(s, sender);
	if (rc == EX_OK && s->recipient_count == 0)
		rc = complain(EX_USAGE, "no recipients: name them, or use -t");
	return rc;
}

static int deliver(struct ctl *ctl, struct sendmail *s, const char *sender)
{
	struct submission submission = {sender, (const char *const *)s->recipients, s->recipient_count,
					buf_slice(&s->message)};
	char path[4096], id[14];
	struct err err;
	int rc;

	snprintf(path, sizeof(path), "%s/submit.sock", ctl_spool(ctl));
	rc = submit_message(path, &submission, id, &err);
	if (rc == 0)
		return EX_OK;
	return complain(rc == ERR_PERMISSION ? EX_UNAVAILABLE : EX_TEMPFAIL, err.text);
}

static void find_hostname(struct ctl *ctl, struct sendmail *s)
{
	const struct config *config = ctl_config(ctl);

	if (config)
		slice_to_cstr(slice_of_str(config->hostname), s->hostname, sizeof(s->hostname));
	else
		config_hostname_find(s->hostname);
}

static const char *full_sender(struct sendmail *s, char *out, size_t size)
{
	const char *given = s->sender ? s->sender : caller_name();

	if (strcmp(given, "<>") == 0)
		given = "";
	snprintf(out, size, "%s%s%s", given, given[0] && !strchr(given, '@') ? "@" : "",
		 given[0] && !strchr(given, '@') ? s->hostname : "");
	return out;
}

int cmd_sendmail(struct ctl *ctl, int argc, char **argv)
{
	struct sendmail *s = xcalloc(1, sizeof(*s));
	char sender[1024];
	int rc;

	buf_init(&s->message, MESSAGE_MAX_BYTES);
	find_hostname(ctl, s);
	rc = take_arguments(s, argc, argv);
	if (rc == EX_OK)
		rc = read_message(s);
	if (rc == EX_OK)
		rc = prepare(s, full_sender(s, sender, sizeof(sender)));
	if (rc == EX_OK)
		rc = deliver(ctl, s, sender);
	for (size_t i = 0; i < s->recipient_count; i++)
		free(s->recipients[i]);
	buf_fini(&s->message);
	free(s);
	return rc;
}
