/* What becomes of addresses and of a header by the operator's rules. Pure: a configuration in, texts out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "relayd/policy.h"
#include "relayd/policy_header.h"

#include <stdio.h>
#include <stdlib.h>

static struct config *config;

static int teardown(void **state)
{
	(void)state;
	config_free(&config);
	return 0;
}

static void load(const char *yaml)
{
	struct config_source source = {.file = "f", .default_hostname = "relay.test"};
	struct config_errors errors;

	config_free(&config);
	if (config_load_text(&source, slice_of_str(yaml), &config, &errors) != 0)
		fail_msg("%s", errors.items[0].text);
}

/* The files of the configuration, by their text. */
static void set_aliases(const char *text)
{
	struct config_errors errors;

	config_errors_init(&errors);
	config->aliases = aliases_parse(config->memory, slice_of_str(text), "a", &errors);
	assert_non_null(config->aliases);
}

static const struct address_map *map_of(enum address_map_kind kind, const char *text)
{
	struct config_errors errors;
	struct address_map *map;

	config_errors_init(&errors);
	map = address_map_parse(config->memory, kind, slice_of_str(text), "m", &errors);
	assert_non_null(map);
	return map;
}

/* ---- Senders. */

static void expect_sender(const char *submitted, const char *sent)
{
	struct policy_address out;
	const struct smtp_server_reply *refusal = policy_sender(config, NULL, slice_of_str(submitted), &out);

	assert_null(refusal);
	assert_string_equal(out.text, sent);
	assert_int_equal(out.len, strlen(sent));
}

static void senders_are_completed_and_replaced_once(void **state)
{
	(void)state;
	load("origin: corp.example\n");
	expect_sender("root", "root@corp.example");
	expect_sender("", "");
	expect_sender("\"a b\"@example.com", "\"a b\"@example.com");
	config->rewrite.from = map_of(ADDRESS_MAP_REPLACES, "root@corp.example ops@example.com\n"
							    "@example.com @example.net\n* relay@example.org\n");
	expect_sender("root", "ops@example.com");
	expect_sender("Ann.Lee+x@EXAMPLE.com", "Ann.Lee+x@example.net");
	expect_sender("\"a b\"@example.com", "\"a b\"@example.net");
	expect_sender("x@elsewhere.example", "relay@example.org");
	expect_sender("", "");
}

static void a_user_is_asked_about_the_complete_address_before_it_is_replaced(void **state)
{
	struct user_options *options = user_options_parse(SLICE("from=app@corp.example"), NULL);
	struct policy_address out;

	(void)state;
	load("origin: corp.example\n");
	config->rewrite.from = map_of(ADDRESS_MAP_REPLACES, "* relay@example.org\n");
	assert_null(policy_sender(config, options, SLICE("app"), &out));
	assert_string_equal(out.text, "relay@example.org");
	assert_null(policy_sender(config, options, SLICE(""), &out));
	assert_int_equal(policy_sender(config, options, SLICE("relay@example.org"), &out)->code, 553);
	user_options_free(&options);
}

static void what_gets_too_long_is_refused(void **state)
{
	char local[SMTP_ADDRESS_MAX_BYTES + 1] = {0}, map[400], whole[SMTP_ADDRESS_MAX_BYTES + 1];
	struct policy_recipients made;
	struct policy_address out;

	(void)state;
	load("origin: corp.example\n");
	memset(local, 'a', SMTP_ADDRESS_MAX_BYTES - 10);
	assert_int_equal(policy_sender(config, NULL, slice_of_str(local), &out)->code, 553);
	local[200] = '\0';
	snprintf(whole, sizeof(whole), "%s@b.example", local);
	snprintf(map, sizeof(map), "@b.example @%.60s.%.60s.example\n", local, local);
	config->rewrite.from = config->rewrite.recipient = map_of(ADDRESS_MAP_REPLACES, map);
	assert_int_equal(policy_sender(config, NULL, slice_of_str(whole), &out)->code, 553);
	policy_recipients_init(&made);
	assert_int_equal(policy_recipient(config, slice_of_str(whole), &made)->code, 553);
	policy_recipients_fini(&made);
}

static bool may_write(const struct user_options *options, const char *fields)
{
	struct submit_header_options header_options = {.hostname = SLICE("relay.test"),
						       .origin = policy_origin(config),
						       .sender = SLICE("a@corp.example"),
						       .rng = rng_system()};
	struct submit_header header;
	bool may;

	assert_int_equal(submit_header_make(&header, slice_of_str(fields), &header_options), 0);
	may = policy_names(config, options, &header) == NULL;
	submit_header_fini(&header);
	return may;
}

static void a_user_is_asked_about_all_in_whose_name_it_writes(void **state)
{
	struct user_options *options = user_options_parse(SLICE("from=@corp.example"), NULL);

	(void)state;
	load("origin: corp.example\n");
	assert_true(may_write(options, "From: a@corp.example, b@corp.example\r\nSender: c\r\n"));
	assert_true(may_write(options, "Subject: the sender is added\r\n"));
	assert_false(may_write(options, "From: boss@victim.example\r\n"));
	assert_false(may_write(options, "From: a@corp.example, boss@victim.example\r\n"));
	assert_false(may_write(options, "From: a@corp.example\r\nSender: boss@victim.example\r\n"));
	assert_false(may_write(options, "From: a@corp.example\r\nResent-From: boss@victim.example\r\n"));
	assert_true(may_write(NULL, "From: a@corp.example, boss@victim.example\r\nSender: boss@victim.example\r\n"));
	user_options_free(&options);
}

/* ---- Recipients. */

/* `addresses` joined by blanks. */
static void expect_recipients(const char *submitted, const char *addresses)
{
	struct policy_recipients made;
	const struct smtp_server_reply *refusal;
	struct buf found;
	const char *at;

	policy_recipients_init(&made);
	buf_init(&found, 1 << 20);
	refusal = policy_recipient(config, slice_of_str(submitted), &made);
	if (refusal)
		fail_msg("%s: %s", submitted, refusal->text);
	at = buf_slice(&made.texts).ptr;
	for (size_t i = 0; i < made.count; i++, at += strlen(at) + 1)
		buf_printf(&found, "%s%s", i ? " " : "", at);
	if (!slice_eq(buf_slice(&found), slice_of_str(addresses)))
		fail_msg("%s: %.*s", submitted, SLICE_ARG(buf_slice(&found)));
	buf_fini(&found);
	policy_recipients_fini(&made);
}

static unsigned expect_refused(const char *submitted, int code, const char *enhanced, const char *word)
{
	struct policy_recipients made;
	const struct smtp_server_reply *refusal;
	unsigned suppressed;

	policy_recipients_init(&made);
	refusal = policy_recipient(config, slice_of_str(submitted), &made);
	assert_non_null(refusal);
	assert_int_equal(refusal->code, code);
	assert_string_equal(refusal->enhanced, enhanced);
	if (!strstr(refusal->text, word))
		fail_msg("%s", refusal->text);
	suppressed = made.suppressed;
	policy_recipients_fini(&made);
	return suppressed;
}

static void without_rules_recipients_stay_octet_for_octet(void **state)
{
	(void)state;
	load("");
	expect_recipients("Ann@Example.COM", "Ann@Example.COM");
	expect_recipients("\"a@b\"@[192.0.2.1]", "\"a@b\"@[192.0.2.1]");
	expect_recipients("root", "root@relay.test");
	load("origin: corp.example\n");
	set_aliases("root: ann@example.net\n");
	expect_recipients("Other@CORP.example", "Other@CORP.example");
}

static void aliases_are_followed_to_their_ends(void **state)
{
	(void)state;
	load("origin: corp.example\n");
	set_aliases("postmaster: Root\n"
		    "root: ann@example.net, ops, ops@Corp.Example, \\root\n"
		    "ops: bob@example.net, ann@example.net, carol\n"
		    "self: self, ann@example.net\n"
		    "a: b\nb: c, ann@example.net\nc: a\n"
		    "lost: lost2\nlost2: lost\n"
		    "void: /dev/null\n");
	expect_recipients("POSTMASTER", "ann@example.net root@corp.example bob@example.net carol@corp.example");
	expect_recipients("root@corp.example", "ann@example.net root@corp.example bob@example.net carol@corp.example");
	expect_recipients("root@example.com", "root@example.com");
	expect_recipients("self", "self@corp.example ann@example.net");
	expect_recipients("a", "ann@example.net");
	expect_refused("lost", 550, "5.1.1", "aliases");
	expect_refused("void", 550, "5.1.1", "aliases");
}

static void an_alias_for_too_many_is_refused(void **state)
{
	struct buf text;

	(void)state;
	load("origin: corp.example\n");
	buf_init(&text, 1 << 20);
	buf_append_str(&text, "all: half, rest\nhalf: ");
	for (int i = 0; i < POLICY_ALIAS_MAX; i++)
		buf_printf(&text, "%su%d@example.net", i ? ", " : "", i);
	buf_append_str(&text, "\nrest: one-more\n");
	buf_append_byte(&text, '\0');
	set_aliases(buf_slice(&text).ptr);
	expect_refused("all", 550, "5.1.4", "1000");
	buf_fini(&text);
}

/* Each name leads to all of the next level: without an end to it, 10^6 ways. */
static void a_web_of_aliases_costs_no_more_than_its_file(void **state)
{
	struct buf text;

	(void)state;
	load("origin: corp.example\n");
	buf_init(&text, 1 << 20);
	for (int level = 0; level < 6; level++)
		for (int i = 0; i < 10; i++) {
			buf_printf(&text, "n%d-%d: ", level, i);
			for (int j = 0; j < 10; j++)
				buf_printf(&text, "%sn%d-%d", j ? ", " : "", level + 1, j);
			buf_append_byte(&text, '\n');
		}
	for (int i = 0; i < 10; i++)
		buf_printf(&text, "n6-%d: ann@example.net\n", i);
	buf_append_byte(&text, '\0');
	set_aliases(buf_slice(&text).ptr);
	expect_recipients("n0-0", "ann@example.net");
	buf_fini(&text);
}

static void recipients_are_replaced_behind_the_aliases(void **state)
{
	(void)state;
	load("origin: corp.example\n");
	set_aliases("root: ann@old.example, bob@example.net\n");
	config->rewrite.recipient = map_of(ADDRESS_MAP_REPLACES, "@old.example @new.example\n"
								 "@new.example nobody@example.org\n"
								 "info@corp.example desk@example.net\n");
	expect_recipients("root", "ann@new.example bob@example.net");
	expect_recipients("info", "desk@example.net");
	expect_recipients("Info@corp.example", "desk@example.net");
}

static void who_is_suppressed_is_refused_and_counted(void **state)
{
	(void)state;
	load("origin: corp.example\n");
	set_aliases("root: gone@example.net, bob@example.net\nnone: gone@example.net, x@dead.example\n");
	config->suppressed = map_of(ADDRESS_MAP_LISTS, "gone@example.net\n@dead.example\n");
	assert_int_equal(expect_refused("Gone@Example.net", 550, "5.7.1", "suppress"), 1);
	assert_int_equal(expect_refused("none", 550, "5.7.1", "suppress"), 2);
	expect_recipients("root", "bob@example.net");
}

static void only_those_that_are_allowed_are_written_to(void **state)
{
	(void)state;
	load("origin: corp.example\nallowed_recipients: ['@example.com', ann@example.net]\n");
	set_aliases("root: ann@example.net, bob@example.net\nops: ann@example.net\n");
	expect_recipients("x@example.com", "x@example.com");
	expect_recipients("ops", "ann@example.net");
	expect_refused("bob@example.net", 550, "5.7.1", "allowed_recipients");
	expect_refused("root", 550, "5.7.1", "allowed_recipients");
	expect_refused("other", 550, "5.7.1", "allowed_recipients");
}

static void expect_bounce(const char *sender, const char *recipient)
{
	struct slice to = policy_bounce_recipient(config, slice_of_str(sender));

	assert_true(slice_eq(to, slice_of_str(recipient)));
}

static void bounces_keep_to_the_same_rules(void **state)
{
	(void)state;
	load("allowed_recipients: ['@example.com']\n");
	config->suppressed = map_of(ADDRESS_MAP_LISTS, "gone@example.com\n");
	expect_bounce("app@example.com", "app@example.com");
	expect_bounce("gone@example.com", "");
	expect_bounce("app@example.net", "");
	load("redirect: staging@example.com\nallowed_recipients: ['@example.org']\n");
	expect_bounce("app@example.net", "staging@example.com");
}

/* ---- The header. */

#define REST "Date: x\r\nMessage-ID: <1@x>\r\n"

static struct rng_seeded seeded;
static struct slice names[8];
static size_t name_count;
static struct slice redirected[8];
static size_t redirected_count;

static void expect_header(const char *before, const char *after, const char *from_domain)
{
	struct submit_header_options options = {.hostname = SLICE("relay.test"),
						.origin = policy_origin(config),
						.id = SLICE("0123456789ABC"),
						.sender = SLICE("app@example.com"),
						.hide_client = true,
						.rng = &seeded.rng};
	struct policy_header_options edit = {config, names, name_count, redirected, redirected_count};
	struct submit_header header;
	struct policy_header edited;
	struct slice *removed = policy_removed_fields(config, &options.remove_count);
	struct buf block;

	rng_seeded_init(&seeded, 1);
	options.remove = removed;
	buf_init(&block, 1 << 20);
	buf_append_str(&block, before);
	if (submit_header_make(&header, buf_slice(&block), &options) != 0)
		fail_msg("%s", header.refusal.text);
	policy_header_edit(&edited, &header, &edit);
	if (!slice_eq(header.kept, slice_of_str(after)))
		fail_msg("%s\nbecame\n%.*s", before, SLICE_ARG(header.kept));
	if (!slice_eq(header.from_domain, slice_of_str(from_domain)))
		fail_msg("%.*s", SLICE_ARG(header.from_domain));
	assert_true(edited.is_changed == !slice_eq(header.kept, slice_of_str(before)) || header.completed_from);
	assert_true(edited.is_changed || header.kept.ptr != edited.text.data);
	policy_header_fini(&edited);
	submit_header_fini(&header);
	buf_fini(&block);
	free(removed);
}

static void without_rules_a_header_stays(void **state)
{
	(void)state;
	load("");
	name_count = redirected_count = 0;
	expect_header("From: A <a@example.com>\r\nTo: root\r\nSubject:  x \r\n" REST,
		      "From: A <a@example.com>\r\nTo: root\r\nSubject:  x \r\n" REST, "example.com");
}

static void bare_names_of_recipients_get_their_domain(void **state)
{
	(void)state;
	load("origin: corp.example\n");
	names[0] = SLICE("root");
	names[1] = SLICE("www");
	name_count = 2;
	redirected_count = 0;
	expect_header(
	    "From: a@example.com\r\nTo: root, Acme, Inc. <b@example.com>,\r\n WWW (web)\r\nCc: \"W\" <www>; ops\r\n"
	    "X-To: root\r\n" REST,
	    "From: a@example.com\r\nTo: root@corp.example, Acme, Inc. <b@example.com>,\r\n WWW@corp.example (web)\r\n"
	    "Cc: \"W\" <www@corp.example>; ops\r\nX-To: root\r\n" REST,
	    "example.com");
	/* What cannot be read stays. */
	expect_header("From: a@example.com\r\nTo: root <<, root\r\n" REST,
		      "From: a@example.com\r\nTo: root <<, root\r\n" REST, "example.com");
	name_count = 0;
	expect_header("From: a@example.com\r\nTo: root\r\nSender: cron (x)\r\n" REST,
		      "From: a@example.com\r\nTo: root\r\nSender: cron@corp.example (x)\r\n" REST, "example.com");
}

/* A header of nothing but names costs no more than a thousand of them, and nothing of it is lost. */
static void an_endless_list_of_names_is_completed_in_part(void **state)
{
	struct buf before, after;

	(void)state;
	load("origin: corp.example\n");
	names[0] = SLICE("root");
	name_count = 1;
	redirected_count = 0;
	buf_init(&before, 1 << 20);
	buf_init(&after, 1 << 20);
	buf_append_str(&before, "From: a@example.com\r\nTo: ");
	buf_append_str(&after, "From: a@example.com\r\nTo: ");
	for (int i = 0; i < 5000; i++) {
		buf_append_str(&before, "root,");
		buf_append_str(&after, i < 1000 ? "root@corp.example," : "root,");
	}
	buf_append_str(&before, "last\r\nSubject: x\r\n" REST);
	buf_append_str(&after, "last\r\nSubject: x\r\n" REST);
	buf_append_byte(&before, '\0');
	buf_append_byte(&after, '\0');
	expect_header(buf_slice(&before).ptr, buf_slice(&after).ptr, "example.com");
	buf_fini(&before);
	buf_fini(&after);
	name_count = 0;
}

static void authors_are_replaced_and_kept_as_reply_to(void **state)
{
	static const char rules[] = "root@corp.example ops@example.net\n@example.com @verified.example\n";

	(void)state;
	name_count = redirected_count = 0;
	load("origin: corp.example\n");
	config->rewrite.from = map_of(ADDRESS_MAP_REPLACES, rules);
	expect_header(
	    "From: \"A, B\" <a@example.com>,\r\n c@example.org (C)\r\nSender: a@example.com\r\n" REST,
	    "From: \"A, B\" <a@verified.example>,\r\n c@example.org (C)\r\nSender: a@verified.example\r\n" REST
	    "Reply-To: \"A, B\" <a@example.com>,\r\n c@example.org (C)\r\n",
	    "verified.example");
	/* A bare one is completed first. Whoever has a Reply-To keeps it. */
	expect_header("From: root\r\nreply-to: x@example.com\r\n" REST,
		      "From: ops@example.net\r\nreply-to: x@example.com\r\n" REST, "example.net");
	expect_header("From: a@example.org\r\n" REST, "From: a@example.org\r\n" REST, "example.org");
	load("origin: corp.example\nrewrite: {keep_reply_to: false}\n");
	config->rewrite.from = map_of(ADDRESS_MAP_REPLACES, rules);
	expect_header("From: a@example.com\r\n" REST, "From: a@verified.example\r\n" REST, "verified.example");
}

static void fields_are_removed_and_set(void **state)
{
	(void)state;
	name_count = redirected_count = 0;
	load("headers: {remove: [x-mailer, X-Originating-IP], set: [\"X-Env: staging\", \"List-Id: <a.example>\"]}\n");
	expect_header("From: a@b\r\nX-Mailer: x\r\n folded\r\nX-MAILER: y\r\nx-env: prod\r\nSubject: s\r\n" REST,
		      "From: a@b\r\nSubject: s\r\n" REST "X-Env: staging\r\nList-Id: <a.example>\r\n", "b");
}

static void loops_end_although_received_is_removed(void **state)
{
	struct submit_header_options options = {
	    .hostname = SLICE("relay.test"), .sender = SLICE("a@b"), .rng = &seeded.rng};
	struct submit_header header;
	struct buf block;
	struct slice *removed;

	(void)state;
	load("headers: {remove: [Received]}\n");
	buf_init(&block, 1 << 16);
	buf_append_str(&block, "From: a@b\r\n");
	for (int i = 0; i < 100; i++)
		buf_append_str(&block, "Received: x\r\n");
	removed = policy_removed_fields(config, &options.remove_count);
	options.remove = removed;
	assert_int_equal(submit_header_make(&header, buf_slice(&block), &options), ERR_SYNTAX);
	assert_int_equal(header.refusal.code, 554);
	submit_header_fini(&header);
	buf_fini(&block);
	free(removed);
}

static void subjects_get_their_prefix_once(void **state)
{
	static const char *const stays[] = {" [Staging] x", " Re: [Staging] x", " RE: Fwd: [Staging]",
					    " =?utf-8?B?W1N0YWdpbmddIFTDpHN0?=", " =?utf-8?q?Re:_[Staging]_x?="};

	(void)state;
	name_count = redirected_count = 0;
	load("headers: {subject_prefix: \"[Staging] \"}\n");
	expect_header("From: a@b\r\nSubject: Re: x\r\n y\r\nSubject: second\r\n" REST,
		      "From: a@b\r\nSubject: [Staging] Re: x\r\n y\r\nSubject: second\r\n" REST, "b");
	expect_header("From: a@b\r\nsubject:x\r\n" REST, "From: a@b\r\nSubject: [Staging] x\r\n" REST, "b");
	expect_header("From: a@b\r\nSubject:\r\n" REST, "From: a@b\r\nSubject: [Staging]\r\n" REST, "b");
	expect_header("From: a@b\r\n" REST, "From: a@b\r\n" REST "Subject: [Staging]\r\n", "b");
	expect_header("From: a@b\r\nSubject: =?utf-8?q?T=C3=A4st?=\r\n" REST,
		      "From: a@b\r\nSubject: [Staging] =?utf-8?q?T=C3=A4st?=\r\n" REST, "b");
	for (size_t i = 0; i < ARRAY_LEN(stays); i++) {
		char text[200];
		snprintf(text, sizeof(text), "From: a@b\r\nSubject:%s\r\n" REST, stays[i]);
		expect_header(text, text, "b");
	}
	load("headers: {subject_prefix: \"[T\xc3\xa4st]\"}\n");
	expect_header("From: a@b\r\nSubject: x\r\n" REST,
		      "From: a@b\r\nSubject: =?utf-8?Q?=5BT=C3=A4st=5D?= x\r\n" REST, "b");
	/* White space between two encoded words is not seen: the blank goes inside. */
	expect_header("From: a@b\r\nSubject: =?utf-8?q?x?=\r\n" REST,
		      "From: a@b\r\nSubject: =?utf-8?Q?=5BT=C3=A4st=5D_?= =?utf-8?q?x?=\r\n" REST, "b");
	expect_header("From: a@b\r\nSubject: =?utf-8?Q?=5BT=C3=A4st=5D?= x\r\n" REST,
		      "From: a@b\r\nSubject: =?utf-8?Q?=5BT=C3=A4st=5D?= x\r\n" REST, "b");
}

static void true_recipients_are_told_when_all_is_redirected(void **state)
{
	(void)state;
	load("redirect: staging@example.com\n");
	redirected[0] = SLICE("a@example.net");
	redirected[1] = SLICE("\"b c\"@example.net");
	redirected_count = 2;
	name_count = 0;
	/* What claims to be one goes. */
	expect_header("From: a@b\r\nX-Relayd-Original-To: liar@example.org\r\n" REST,
		      "From: a@b\r\n" REST "X-Relayd-Original-To: a@example.net,\r\n \"b c\"@example.net\r\n", "b");
	redirected_count = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_teardown(senders_are_completed_and_replaced_once, teardown),
	    cmocka_unit_test_teardown(a_user_is_asked_about_the_complete_address_before_it_is_replaced, teardown),
	    cmocka_unit_test_teardown(a_user_is_asked_about_all_in_whose_name_it_writes, teardown),
	    cmocka_unit_test_teardown(what_gets_too_long_is_refused, teardown),
	    cmocka_unit_test_teardown(without_rules_recipients_stay_octet_for_octet, teardown),
	    cmocka_unit_test_teardown(aliases_are_followed_to_their_ends, teardown),
	    cmocka_unit_test_teardown(an_alias_for_too_many_is_refused, teardown),
	    cmocka_unit_test_teardown(a_web_of_aliases_costs_no_more_than_its_file, teardown),
	    cmocka_unit_test_teardown(recipients_are_replaced_behind_the_aliases, teardown),
	    cmocka_unit_test_teardown(who_is_suppressed_is_refused_and_counted, teardown),
	    cmocka_unit_test_teardown(only_those_that_are_allowed_are_written_to, teardown),
	    cmocka_unit_test_teardown(bounces_keep_to_the_same_rules, teardown),
	    cmocka_unit_test_teardown(without_rules_a_header_stays, teardown),
	    cmocka_unit_test_teardown(bare_names_of_recipients_get_their_domain, teardown),
	    cmocka_unit_test_teardown(an_endless_list_of_names_is_completed_in_part, teardown),
	    cmocka_unit_test_teardown(authors_are_replaced_and_kept_as_reply_to, teardown),
	    cmocka_unit_test_teardown(fields_are_removed_and_set, teardown),
	    cmocka_unit_test_teardown(loops_end_although_received_is_removed, teardown),
	    cmocka_unit_test_teardown(subjects_get_their_prefix_once, teardown),
	    cmocka_unit_test_teardown(true_recipients_are_told_when_all_is_redirected, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
