/* The section of relayd.yaml that changes mail when it is taken: what no single value shows, and the files. */
#include "config/read.h"

#include "base/base.h"

#include <unistd.h>

enum { BCC_MAX = 100, FIELDS_MAX = 100, PREFIX_MAX_BYTES = 200, FIELD_MAX_BYTES = 2000 };

/* ---- Header fields. */

/* Without them a message means something else, or nothing. */
static bool is_vital(struct slice name)
{
	static const char *const vital[] = {"From", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"};

	for (size_t i = 0; i < ARRAY_LEN(vital); i++)
		if (slice_case_eq(name, slice_of_str(vital[i])))
			return true;
	return false;
}

/* relayd's own. */
static bool is_ours(struct slice name)
{
	static const char *const ours[] = {"Date",	  "Message-ID", "Received",  "DKIM-Signature",
					   "Return-Path", "Bcc",	"Resent-Bcc"};

	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		if (slice_case_eq(name, slice_of_str(ours[i])))
			return true;
	return slice_has_case_prefix(name, SLICE("X-Relayd-"));
}

static bool is_printable_ascii(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if ((text.ptr[i] < ' ' && text.ptr[i] != '\t') || text.ptr[i] == 0x7f)
			return false;
	return true;
}

static void check_removed(struct config_reader *reader)
{
	const struct config_texts *remove = &reader->config->headers.remove;
	const size_t at = offsetof(struct config, headers.remove);

	if (remove->count > FIELDS_MAX)
		config_complain(reader, NULL, at, "headers.remove takes at most %d names", FIELDS_MAX);
	for (size_t i = 0; i < remove->count; i++)
		if (is_vital(slice_of_str(remove->items[i])))
			config_complain(reader, NULL, at, "a message is none without its %s%s", remove->items[i],
					slice_case_eq(slice_of_str(remove->items[i]), SLICE("From"))
					    ? ": rewrite.from_file replaces it"
					    : "");
}

static void check_set(struct config_reader *reader)
{
	const struct config_texts *set = &reader->config->headers.set;
	const size_t at = offsetof(struct config, headers.set);

	if (set->count > FIELDS_MAX)
		config_complain(reader, NULL, at, "headers.set takes at most %d fields", FIELDS_MAX);
	for (size_t i = 0; i < set->count; i++) {
		struct slice field = slice_of_str(set->items[i]);
		struct slice name = slice_to(field, (size_t)slice_find(field, ':'));
		if (is_vital(name) || is_ours(name))
			config_complain(reader, NULL, at, "%.*s cannot be set here", SLICE_ARG(name));
		else if (!is_printable_ascii(field) || field.len > FIELD_MAX_BYTES)
			config_complain(reader, NULL, at, "%.*s: a value has at most %d printable ASCII characters",
					SLICE_ARG(name), FIELD_MAX_BYTES);
	}
}

static void check_subject_prefix(struct config_reader *reader)
{
	struct slice prefix = slice_of_str(reader->config->headers.subject_prefix);
	bool is_good = prefix.len <= PREFIX_MAX_BYTES;

	for (size_t i = 0; i < prefix.len; i++)
		is_good = is_good && (uint8_t)prefix.ptr[i] >= ' ' && prefix.ptr[i] != 0x7f;
	if (!is_good)
		config_complain(reader, NULL, offsetof(struct config, headers.subject_prefix),
				"headers.subject_prefix has at most %d octets, and no control characters",
				PREFIX_MAX_BYTES);
}

/* ---- Files. */

/* Its place is that of the key; a mistake in the file has a place of its own. An unreadable one was told. */
static bool may_read(const struct config_reader *reader, const char *path, size_t offset)
{
	struct config_target root = config_root_target(reader->config);

	return reader->source->check_files && path && !config_origin_at(&root, offset)->is_refused &&
	       access(path, R_OK) == 0;
}

static const struct address_map *read_map(struct config_reader *reader, enum address_map_kind kind, const char *path,
					  size_t offset)
{
	if (!may_read(reader, path, offset))
		return NULL;
	return address_map_load(reader->config->memory, kind, path, reader->errors);
}

static void read_files(struct config_reader *reader)
{
	struct config *config = reader->config;

	if (may_read(reader, config->aliases_file, offsetof(struct config, aliases_file)))
		config->aliases = aliases_load(config->memory, config->aliases_file, reader->errors);
	config->rewrite.from = read_map(reader, ADDRESS_MAP_REPLACES, config->rewrite.from_file,
					offsetof(struct config, rewrite.from_file));
	config->rewrite.recipient = read_map(reader, ADDRESS_MAP_REPLACES, config->rewrite.recipient_file,
					     offsetof(struct config, rewrite.recipient_file));
	config->suppressed =
	    read_map(reader, ADDRESS_MAP_LISTS, config->suppress_file, offsetof(struct config, suppress_file));
}

void config_check_mail_changes(struct config_reader *reader)
{
	if (reader->config->bcc.count > BCC_MAX)
		config_complain(reader, NULL, offsetof(struct config, bcc), "bcc takes at most %d mailboxes", BCC_MAX);
	check_removed(reader);
	check_set(reader);
	check_subject_prefix(reader);
	read_files(reader);
}
