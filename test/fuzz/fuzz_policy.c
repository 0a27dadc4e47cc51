/*
 * The operator's files and a stranger's header, against each other.
 *
 * The first octet of the input says what the rest is: 'a' aliases(5), each name of which is then written to; 'm' a map
 * of addresses, 'l' a list; anything else a header, edited by rules that the octet chooses. No crash, no hang, bounded
 * answers; every mistake told in printable words; an edited header is as well-formed as it was, and a subject has its
 * prefix once.
 */
#include "base/base.h"
#include "config/config.h"
#include "config/memory.h"
#include "relayd/policy.h"
#include "relayd/policy_header.h"
#include "smtp/header.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RULES = 5 };

/* Made once: a configuration costs more than what is tried with it. Maps and aliases change from run to run, and live
 * in a memory of the run. */
static struct config *config_of(size_t number)
{
	static const char *const rules[RULES] = {
	    "origin: corp.example\n",
	    "headers: {subject_prefix: \"[T\xc3\xa4st]\"}\n",
	    "headers: {subject_prefix: \"[Test]\", set: ['X-Env: x'], remove: [x-mailer, Received]}\n",
	    "redirect: staging@example.com\nrewrite: {keep_reply_to: false}\n",
	    "",
	};
	static struct config *configs[RULES];
	struct config_source source = {.file = "f", .default_hostname = "relay.example.com"};
	struct config_errors errors;

	if (!configs[number])
		BUG_ON(config_load_text(&source, slice_of_str(rules[number]), &configs[number], &errors) != 0);
	configs[number]->aliases = NULL;
	configs[number]->rewrite.from = configs[number]->rewrite.recipient = configs[number]->suppressed = NULL;
	return configs[number];
}

static void look_at_errors(const struct config_errors *errors)
{
	for (size_t i = 0; i < errors->kept_count; i++)
		for (const char *text = errors->items[i].text; *text; text++)
			BUG_ON((uint8_t)*text < ' ');
}

/* ---- addresses ---- */

static void look_at_address(struct slice address)
{
	BUG_ON(address.len > SMTP_ADDRESS_MAX_BYTES);
	for (size_t i = 0; i < address.len; i++)
		BUG_ON(address.ptr[i] == '\r' || address.ptr[i] == '\n' || address.ptr[i] == '\0');
}

static void write_to(const struct config *config, struct slice recipient)
{
	struct policy_recipients made;
	const struct smtp_server_reply *refusal;
	const char *at;

	if (recipient.len > SMTP_ADDRESS_MAX_BYTES)
		return;
	policy_recipients_init(&made);
	refusal = policy_recipient(config, recipient, &made);
	BUG_ON(refusal ? refusal->code < 500 : made.count == 0);
	BUG_ON(made.count > POLICY_ALIAS_MAX);
	at = buf_slice(&made.texts).ptr;
	for (size_t i = 0; i < made.count; i++, at += strlen(at) + 1)
		look_at_address(slice_of_str(at));
	policy_recipients_fini(&made);
}

/* The words of the text: what stands in a file is what is asked for. */
static bool next_word(struct slice *text, struct slice *word)
{
	size_t len = 0;

	while (text->len && ((uint8_t)text->ptr[0] <= ' ' || strchr(":,\"", text->ptr[0])))
		*text = slice_from(*text, 1);
	while (len < text->len && (uint8_t)text->ptr[len] > ' ' && !strchr(":,\"", text->ptr[len]))
		len++;
	*word = slice_to(*text, len);
	*text = slice_from(*text, len);
	return len > 0;
}

static void try_aliases(struct slice text)
{
	struct config_memory *memory = config_memory_new();
	struct config *config = config_of(0);
	struct config_errors errors;
	struct slice word;

	config_errors_init(&errors);
	config->aliases = aliases_parse(memory, text, "a", &errors);
	BUG_ON((config->aliases == NULL) != (errors.error_count > 0));
	look_at_errors(&errors);
	for (int words = 0; words < 20 && config->aliases && next_word(&text, &word); words++)
		write_to(config, word);
	config_memory_free(&memory);
}

static void try_map(struct slice text, enum address_map_kind kind)
{
	struct config_memory *memory = config_memory_new();
	struct config *config = config_of(RULES - 1);
	struct config_errors errors;
	struct policy_address out;
	struct address_map *map;
	struct slice word;

	config_errors_init(&errors);
	map = address_map_parse(memory, kind, text, "m", &errors);
	BUG_ON((map == NULL) != (errors.error_count > 0));
	look_at_errors(&errors);
	if (kind == ADDRESS_MAP_REPLACES)
		config->rewrite.from = config->rewrite.recipient = map;
	else
		config->suppressed = map;
	for (int words = 0; words < 20 && map && next_word(&text, &word); words++) {
		write_to(config, word);
		if (policy_sender(config, NULL, slice_to(word, SMTP_ADDRESS_MAX_BYTES), &out) == NULL)
			look_at_address(policy_address_slice(&out));
	}
	config_memory_free(&memory);
}

/* ---- headers ---- */

static bool is_clean(struct slice block)
{
	for (size_t i = 0; i < block.len; i++)
		if (block.ptr[i] == '\0' || (block.ptr[i] == '\n' && (i == 0 || block.ptr[i - 1] != '\r')) ||
		    (block.ptr[i] == '\r' && (i + 1 == block.len || block.ptr[i + 1] != '\n')))
			return false;
	return true;
}

/* What a scanner would give: fields alone. */
static bool is_block(struct slice block)
{
	struct header_scanner scan;
	size_t taken;
	bool is_all;

	header_scanner_init(&scan, 64 * 1024);
	header_scanner_input(&scan, block, &taken);
	header_scanner_end(&scan);
	is_all = header_scanner_block(&scan).len == block.len && scan.end == HEADER_END_CONTENT && !scan.had_mbox;
	header_scanner_fini(&scan);
	return is_all;
}

static size_t count_of(struct slice block, struct slice name)
{
	struct header_field field;
	size_t count = 0;

	while (header_next_field(&block, &field))
		count += slice_case_eq(field.name, name);
	return count;
}

static void edit(struct config *config, struct slice block, struct buf *out)
{
	static const struct slice names[] = {{"root", 4}, {"www", 3}};
	static const struct slice redirected[] = {{"a@example.net", 13}, {"b@example.net", 13}};
	struct rng_seeded rng;
	struct submit_header_options options = {.hostname = SLICE("relay.example.com"),
						.origin = policy_origin(config),
						.id = SLICE("0123456789ABC"),
						.sender = SLICE("app@example.com"),
						.hide_client = true,
						.rng = &rng.rng};
	struct policy_header_options rules = {config, names, ARRAY_LEN(names), redirected,
					      config->redirect ? ARRAY_LEN(redirected) : 0};
	struct policy_header edited = {0};
	struct submit_header header;
	struct slice *removed = policy_removed_fields(config, &options.remove_count);

	rng_seeded_init(&rng, 1);
	options.remove = removed;
	if (submit_header_make(&header, block, &options) == 0) {
		policy_header_edit(&edited, &header, &rules);
		BUG_ON(header.from_domain.len == 0);
		BUG_ON(!is_clean(header.kept) || !is_block(header.kept));
		BUG_ON(config->headers.set.count && count_of(header.kept, SLICE("X-Env")) != 1);
		BUG_ON(config->headers.remove.count && count_of(header.kept, SLICE("X-Mailer")) != 0);
		BUG_ON(count_of(header.kept, SLICE("X-Relayd-Original-To")) != (config->redirect ? 1 : 0));
		buf_append(out, header.kept);
	}
	policy_header_fini(&edited);
	submit_header_fini(&header);
	free(removed);
}

static struct slice first_subject(struct slice block)
{
	struct header_field field;

	return header_find_field(block, SLICE("Subject"), &field) ? field.body : (struct slice){0};
}

static void try_header(struct slice block, uint8_t choice)
{
	struct config_memory *memory = config_memory_new();
	struct config *config = config_of(choice % (RULES - 1));
	struct config_errors errors;
	struct buf once, twice;

	config_errors_init(&errors);
	if (choice & 8)
		config->rewrite.from = address_map_parse(
		    memory, ADDRESS_MAP_REPLACES, SLICE("* @verified.example\na@example.com long.name@other.example\n"),
		    "m", &errors);
	buf_init(&once, 2 << 20);
	buf_init(&twice, 2 << 20);
	if (is_clean(block) && is_block(block))
		edit(config, block, &once);
	if (buf_len(&once) > 0)
		edit(config, buf_slice(&once), &twice);
	if (buf_len(&twice) > 0)
		BUG_ON(!slice_eq(first_subject(buf_slice(&once)), first_subject(buf_slice(&twice))));
	buf_fini(&once);
	buf_fini(&twice);
	config_memory_free(&memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice rest = slice_from(slice_of(data, size), 1);

	if (size < 1 || size > 32 * 1024)
		return 0;
	switch (data[0]) {
	case 'a': try_aliases(rest); break;
	case 'm': try_map(rest, ADDRESS_MAP_REPLACES); break;
	case 'l': try_map(rest, ADDRESS_MAP_LISTS); break;
	default: try_header(rest, data[0]);
	}
	return 0;
}
