#include "support_dkim.h"

#include "base/base.h"
#include "dkim/body_hash.h"
#include "dkim/canon.h"
#include "dkim/key.h"
#include "dkim/signature.h"

#include <stdio.h>
#include <stdlib.h>

enum { FIELDS_MAX = 20000 };

/* A message and who signs it; the fields are the lines of `header`, folded ones whole. */
struct letter {
	struct dkim_field fields[FIELDS_MAX];
	size_t field_count;
	unsigned char body_hash[DKIM_DIGEST_BYTES];
	struct dkim_message message;
	struct buf text; /* the whole message as a receiver sees it, after sign() */
};

static void split_header(struct letter *letter, struct slice header)
{
	while (header.len > 0) {
		size_t len = (size_t)slice_find(header, '\n') + 1;
		while (len < header.len && (header.ptr[len] == ' ' || header.ptr[len] == '\t'))
			len += (size_t)slice_find(slice_from(header, len), '\n') + 1;
		letter->fields[letter->field_count++].raw = slice_to(header, len);
		header = slice_from(header, len);
	}
}

static struct letter *letter_new(struct slice header, struct slice body)
{
	struct letter *letter = xcalloc(1, sizeof(*letter));
	struct dkim_body_hash *hash = dkim_body_hash_new(DKIM_CANON_RELAXED);

	split_header(letter, header);
	dkim_body_hash_update(hash, body);
	dkim_body_hash_final(hash, letter->body_hash);
	dkim_body_hash_free(&hash);
	letter->message = (struct dkim_message){.fields = letter->fields,
						.field_count = letter->field_count,
						.body_hash = letter->body_hash,
						.domain = SLICE("football.example.com"),
						.signed_at_sec = 1528637909};
	buf_init(&letter->text, 32u << 20);
	return letter;
}

static void letter_free(struct letter *letter)
{
	buf_fini(&letter->text);
	free(letter);
}

static const struct dkim_signer both[] = {{{"brisbane", 8}, DKIM_ED25519_SHA256}, {{"test", 4}, DKIM_RSA_SHA256}};

static void sign_one(const struct dkim_signature *prepared, struct buf *out)
{
	const char *pem = prepared->algorithm == DKIM_RSA_SHA256 ? rfc8463_rsa_pem : rfc8463_ed25519_pem;
	unsigned char signature[DKIM_SIGNATURE_MAX_BYTES];
	struct dkim_key *key = NULL;
	size_t len = 0;

	assert_int_equal(dkim_key_load(slice_of_str(pem), &key, NULL), 0);
	assert_int_equal(dkim_key_sign(key, prepared->digest, signature, &len), 0);
	assert_int_equal(dkim_signature_finish(prepared, slice_of(signature, len), out), 0);
	dkim_key_free(&key);
}

/* Both signatures, then header and body: letter->text. */
static void sign(struct letter *letter, struct slice header, struct slice body)
{
	struct dkim_signature signatures[2];
	struct err err;

	assert_int_equal(dkim_signature_prepare(signatures, both, 2, &letter->message, &err), 0);
	for (int i = 0; i < 2; i++) {
		sign_one(&signatures[i], &letter->text);
		dkim_signature_fini(&signatures[i]);
		dkim_signature_fini(&signatures[i]);
	}
	buf_append(&letter->text, header);
	buf_append(&letter->text, SLICE("\r\n"));
	buf_append(&letter->text, body);
}

static void assert_both(const struct buf *text, enum verdict verdict)
{
	assert_int_equal(verify_message(buf_slice(text), 0, rfc8463_ed25519_public), verdict);
	assert_int_equal(verify_message(buf_slice(text), 1, rfc8463_rsa_public), verdict);
}

static struct letter *signed_letter(struct slice header, struct slice body)
{
	struct letter *letter = letter_new(header, body);

	sign(letter, header, body);
	return letter;
}

/* The signed message with `old` replaced once. */
static void altered(struct buf *out, const struct buf *text, struct slice old, struct slice new)
{
	struct slice all = buf_slice(text);
	const char *at = memmem(all.ptr, all.len, old.ptr, old.len);

	assert_non_null(at);
	buf_clear(out);
	buf_append(out, slice_to(all, (size_t)(at - all.ptr)));
	buf_append(out, new);
	buf_append(out, slice_from(all, (size_t)(at - all.ptr) + old.len));
}

static void both_signatures_verify(void **state)
{
	struct letter *letter = signed_letter(slice_of_str(rfc_header), slice_of_str(rfc_body));
	(void)state;

	assert_both(&letter->text, PASS);
	letter_free(letter);
}

static void the_field_is_as_expected(void **state)
{
	static const char wanted[] = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
				     " d=football.example.com; s=brisbane; t=1528637909; x=1529242709; h=From:\r\n"
				     " From:To:To:Cc:Subject:Subject:Date:Date:Reply-To:Message-ID:Message-ID:\r\n"
				     " In-Reply-To:References:MIME-Version:Content-Type:Content-Transfer-Encoding:\r\n"
				     " List-Unsubscribe:List-Unsubscribe-Post;\r\n"
				     " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
				     " b=";
	struct letter *letter = letter_new(slice_of_str(rfc_header), slice_of_str(rfc_body));
	struct dkim_signature signature;
	(void)state;

	letter->message.expires_at_sec = 1528637909 + 7 * 86400;
	assert_int_equal(dkim_signature_prepare(&signature, both, 1, &letter->message, NULL), 0);
	assert_int_equal(signature.algorithm, DKIM_ED25519_SHA256);
	assert_int_equal(buf_len(&signature.text), strlen(wanted));
	assert_memory_equal(buf_slice(&signature.text).ptr, wanted, strlen(wanted));
	dkim_signature_fini(&signature);
	letter_free(letter);
}

static void changes_that_mail_systems_make_do_no_harm(void **state)
{
	struct letter *letter = signed_letter(slice_of_str(rfc_header), slice_of_str(rfc_body));
	struct buf text;
	(void)state;

	buf_init(&text, 1 << 20);
	altered(&text, &letter->text, SLICE("From: Joe"), SLICE("Received: by mx\r\nFROM :\r\n\tJoe"));
	assert_both(&text, PASS);
	altered(&text, &letter->text, SLICE("Joe.\r\n"), SLICE("Joe. \t\r\n\r\n\r\n"));
	assert_both(&text, PASS);
	altered(&text, &letter->text, SLICE("\r\nSubject: Is"),
		SLICE("\r\nX-Spam: no\r\nReturn-Path: <a@b>\r\nSubject: Is"));
	assert_both(&text, PASS);
	buf_fini(&text);
	letter_free(letter);
}

static void a_changed_message_fails(void **state)
{
	struct letter *letter = signed_letter(slice_of_str(rfc_header), slice_of_str(rfc_body));
	struct buf text;
	(void)state;

	buf_init(&text, 1 << 20);
	altered(&text, &letter->text, SLICE("dinner"), SLICE("Dinner"));
	assert_both(&text, BAD_SIGNATURE);
	altered(&text, &letter->text, SLICE("Joe."), SLICE("Joe"));
	assert_both(&text, BAD_BODY);
	altered(&text, &letter->text, SLICE("t=1528637909"), SLICE("t=1528637908"));
	assert_int_equal(verify_message(buf_slice(&text), 0, rfc8463_ed25519_public), BAD_SIGNATURE);
	assert_int_equal(verify_message(buf_slice(&text), 1, rfc8463_rsa_public), PASS);
	buf_fini(&text);
	letter_free(letter);
}

/* K3: Whichever of the signed names is added, present before or not, above or below: the signature breaks. */
static void nobody_can_add_a_signed_field(void **state)
{
	struct letter *letter = signed_letter(slice_of_str(rfc_header), slice_of_str(rfc_body));
	struct buf text;
	char with[200];
	size_t count = 0;
	(void)state;

	buf_init(&text, 1 << 20);
	for (const char *const *name = dkim_signed_fields(); *name; name++, count++) {
		snprintf(with, sizeof(with), "\r\n%s: added\r\nFrom: Joe", *name);
		altered(&text, &letter->text, SLICE("\r\nFrom: Joe"), slice_of_str(with));
		assert_both(&text, BAD_SIGNATURE);
		snprintf(with, sizeof(with), "5F8J@football.example.com>\r\n%s: added\r\n", *name);
		altered(&text, &letter->text, SLICE("5F8J@football.example.com>\r\n"), slice_of_str(with));
		assert_both(&text, BAD_SIGNATURE);
	}
	assert_int_equal(count, 14);
	buf_fini(&text);
	letter_free(letter);
}

/* RFC 6376 section 5.4.2: the lowest instance is the first in h=. */
static void instances_go_from_the_bottom_up(void **state)
{
	static const char header[] =
	    "To: first@example.net\r\nFrom: joe@football.example.com\r\nTo: second@example.net\r\n"
	    "TO : third@example.net\r\n";
	struct letter *letter = signed_letter(SLICE(header), SLICE("Hi.\r\n"));
	struct buf text;
	char *h = tag_of(letter->text.data ? buf_slice(&letter->text) : SLICE(""), "h");
	(void)state;

	buf_init(&text, 1 << 20);
	assert_int_equal(strncmp(h, "From:From:To:To:To:To:Cc:Subject:", 33), 0);
	free(h);
	assert_both(&letter->text, PASS);
	altered(&text, &letter->text, SLICE("To: first"), SLICE("To: other"));
	assert_both(&text, BAD_SIGNATURE);
	altered(&text, &letter->text, SLICE("To: second@example.net\r\nTO : third@example.net\r\n"),
		SLICE("TO : third@example.net\r\nTo: second@example.net\r\n"));
	assert_both(&text, BAD_SIGNATURE);
	buf_fini(&text);
	letter_free(letter);
}

static void omitted_fields_may_change_and_appear(void **state)
{
	static const struct slice omit[] = {{"date", 4}, {"MESSAGE-ID", 10}, {"X-Unknown", 9}, {"From", 4}};
	struct letter *letter = letter_new(slice_of_str(rfc_header), slice_of_str(rfc_body));
	struct buf text;
	char *h;
	(void)state;

	buf_init(&text, 1 << 20);
	letter->message.omit = omit;
	letter->message.omit_count = 4;
	sign(letter, slice_of_str(rfc_header), slice_of_str(rfc_body));
	h = tag_of(buf_slice(&letter->text), "h");
	assert_null(strstr(h, "Date"));
	assert_null(strstr(h, "Message-ID"));
	assert_int_equal(strncmp(h, "From:From:", 10), 0);
	free(h);
	assert_both(&letter->text, PASS);
	altered(&text, &letter->text, SLICE("Message-ID: <2003"), SLICE("Date: now\r\nMessage-ID: <2004"));
	assert_both(&text, PASS);
	altered(&text, &letter->text, SLICE("Message-ID: <2003"), SLICE("Cc: x\r\nMessage-ID: <2003"));
	assert_both(&text, BAD_SIGNATURE);
	buf_fini(&text);
	letter_free(letter);
}

static void the_last_names_may_be_omitted(void **state)
{
	static const struct slice omit[] = {{"List-Unsubscribe-Post", 21}, {"List-Unsubscribe", 16}};
	struct letter *letter = letter_new(slice_of_str(rfc_header), slice_of_str(rfc_body));
	char *h;
	(void)state;

	letter->message.omit = omit;
	letter->message.omit_count = 2;
	sign(letter, slice_of_str(rfc_header), slice_of_str(rfc_body));
	h = tag_of(buf_slice(&letter->text), "h");
	assert_string_equal(h + strlen(h) - 25, "Content-Transfer-Encoding");
	free(h);
	assert_both(&letter->text, PASS);
	letter_free(letter);
}

/* K6 */
static void never_trace_fields_or_a_length(void **state)
{
	static const char header[] =
	    "Received: by a\r\nReturn-Path: <a@b>\r\nBcc: x\r\nDKIM-Signature: v=1; old\r\nFrom: a@b\r\n";
	struct letter *letter = letter_new(SLICE(header), SLICE("x\r\n"));
	struct dkim_signature signature;
	struct slice text;
	char *l, *h;
	(void)state;

	assert_int_equal(dkim_signature_prepare(&signature, both, 1, &letter->message, NULL), 0);
	text = buf_slice(&signature.text);
	l = tag_of(text, "l");
	h = tag_of(text, "h");
	assert_null(l);
	assert_null(strstr(h, "Received"));
	assert_null(strstr(h, "Return-Path"));
	assert_null(strstr(h, "Bcc"));
	assert_null(strstr(h, "DKIM-Signature"));
	free(h);
	dkim_signature_fini(&signature);
	letter_free(letter);
}

/* K3 */
static void an_older_signature_stays_and_does_not_matter(void **state)
{
	static const char header[] =
	    "DKIM-Signature: v=1; a=rsa-sha256; d=other.example; h=From; b=abcd\r\nFrom: a@b\r\n";
	struct letter *letter = signed_letter(SLICE(header), SLICE("x\r\n"));
	struct buf text;
	(void)state;

	buf_init(&text, 1 << 20);
	assert_both(&letter->text, PASS);
	altered(&text, &letter->text, SLICE("h=From; b=abcd"), SLICE("h=From; b=efgh"));
	assert_both(&text, PASS);
	buf_fini(&text);
	letter_free(letter);
}

static void folded_8_bit_and_empty_fields(void **state)
{
	static const char header[] =
	    "Subject: Gr\xc3\xbc\xc3\x9f"
	    "e  \t an\r\n\t alle \r\nFrom:\r\n  \"J\xc3\xb6rg\" <joe@football.example.com>\r\nTo: \r\n"
	    "References:\r\n\t<a@b>\r\n\t<c@d>\r\nCc:\r\n";
	static const char body[] = " \r\nline  with   blanks \r\n\r\n.\r\n \r\n";
	struct letter *letter = signed_letter(SLICE(header), SLICE(body));
	(void)state;

	assert_both(&letter->text, PASS);
	letter_free(letter);
}

static void assert_lines_fit(struct slice text, size_t columns)
{
	while (text.len > 0) {
		ptrdiff_t end = slice_find(text, '\n');
		assert_true(end > 0 && text.ptr[end - 1] == '\r');
		assert_true((size_t)end - 1 <= columns);
		text = slice_from(text, (size_t)end + 1);
	}
}

/* One below the limit is still protected against another one, and verifies. */
static void as_many_instances_as_the_limit(void **state)
{
	struct buf header, text;
	struct letter *letter;
	(void)state;

	buf_init(&header, 1 << 20);
	buf_init(&text, 2 << 20);
	buf_append_str(&header, "From: joe@football.example.com\r\n");
	for (int i = 0; i < DKIM_INSTANCES_MAX; i++)
		buf_printf(&header, "Cc: t%d@example.net\r\n", i);
	letter = signed_letter(buf_slice(&header), SLICE("x\r\n"));
	assert_both(&letter->text, PASS);
	altered(&text, &letter->text, SLICE("\r\nFrom: joe"), SLICE("\r\nCc: added\r\nFrom: joe"));
	assert_both(&text, BAD_SIGNATURE);
	buf_fini(&text);
	letter_free(letter);
	buf_fini(&header);
}

/* The longest of everything: signers, names, instances, RSA 4096. */
static void the_field_is_bounded_and_folded(void **state)
{
	unsigned char fake[DKIM_SIGNATURE_MAX_BYTES];
	struct dkim_signature signature;
	struct dkim_signer signer = {{NULL, 63}, DKIM_RSA_SHA256};
	struct buf header, field;
	struct letter *letter;
	char label[64];
	(void)state;

	memset(fake, 0xff, sizeof(fake));
	memset(label, 'a', sizeof(label));
	signer.selector.ptr = label;
	buf_init(&header, 1 << 20);
	buf_init(&field, DKIM_FIELD_MAX_BYTES);
	for (const char *const *name = dkim_signed_fields(); *name; name++)
		for (int i = 0; i < DKIM_INSTANCES_MAX; i++)
			buf_printf(&header, "%s: %d\r\n", *name, i);
	letter = letter_new(buf_slice(&header), SLICE("x\r\n"));
	letter->message.expires_at_sec = INT64_MAX;
	assert_int_equal(dkim_signature_prepare(&signature, &signer, 1, &letter->message, NULL), 0);
	assert_int_equal(dkim_signature_finish(&signature, slice_of(fake, sizeof(fake)), &field), 0);
	assert_true(buf_len(&field) < 6000);
	assert_lines_fit(buf_slice(&field), 78);
	buf_fini(&field);
	dkim_signature_fini(&signature);
	letter_free(letter);
	buf_fini(&header);
}

/* K5 */
static void ten_thousand_fields_of_one_name(void **state)
{
	struct buf header, text;
	struct letter *letter;
	char *h;
	unsigned count = 0;
	(void)state;

	buf_init(&header, 1 << 20);
	buf_init(&text, 2 << 20);
	buf_append_str(&header, "From: joe@football.example.com\r\n");
	for (int i = 0; i < 10000; i++)
		buf_printf(&header, "To: t%d@example.net\r\n", i);
	letter = signed_letter(buf_slice(&header), SLICE("x\r\n"));
	h = tag_of(buf_slice(&letter->text), "h");
	for (const char *at = h; (at = strstr(at, ":To")); at++)
		count++;
	free(h);
	/* Named as often as hashed and no more: else a receiver would hash one more than we did. */
	assert_int_equal(count, DKIM_INSTANCES_MAX);
	assert_both(&letter->text, PASS);
	altered(&text, &letter->text, SLICE("t9990@"), SLICE("tx@"));
	assert_both(&text, BAD_SIGNATURE);
	altered(&text, &letter->text, SLICE("t10@"), SLICE("tx@"));
	assert_both(&text, PASS);
	buf_fini(&text);
	letter_free(letter);
	buf_fini(&header);
}

/* K5 */
static void a_field_of_a_mebibyte(void **state)
{
	struct buf header;
	struct letter *letter;
	(void)state;

	buf_init(&header, 2 << 20);
	buf_append_str(&header, "From: joe@football.example.com\r\nReferences:");
	for (int i = 0; i < 80000; i++)
		buf_append_str(&header, "\r\n <a@example>");
	buf_append_str(&header, "\r\n");
	letter = signed_letter(buf_slice(&header), SLICE("x\r\n"));
	assert_both(&letter->text, PASS);
	letter_free(letter);
	buf_fini(&header);
}

static int prepare_with(const struct letter *letter, struct dkim_signer signer, struct slice domain, int64_t t,
			int64_t x, struct err *err)
{
	struct dkim_message message = letter->message;
	struct dkim_signature signature;
	int rc;

	message.domain = domain;
	message.signed_at_sec = t;
	message.expires_at_sec = x;
	rc = dkim_signature_prepare(&signature, &signer, 1, &message, err);
	if (rc == 0)
		dkim_signature_fini(&signature);
	return rc;
}

static void what_cannot_be_signed_is_refused_with_the_reason(void **state)
{
	struct letter *letter = letter_new(slice_of_str(rfc_header), slice_of_str(rfc_body));
	struct letter *no_from = letter_new(SLICE("To: a\r\nFrom\r\nX-From: a\r\n"), SLICE("x\r\n"));
	struct dkim_signer good = {{"s", 1}, DKIM_RSA_SHA256}, bad = {{"s; d=evil.example", 17}, DKIM_RSA_SHA256};
	struct dkim_signature signatures[9];
	struct dkim_signer many[9];
	struct err err;
	(void)state;

	assert_int_equal(prepare_with(letter, good, SLICE("example.com"), 1, 0, &err), 0);
	assert_int_equal(prepare_with(no_from, good, SLICE("example.com"), 1, 0, &err), ERR_NOT_FOUND);
	assert_string_equal(err.text, "a message without From cannot be signed");
	assert_int_equal(prepare_with(letter, bad, SLICE("example.com"), 1, 0, &err), ERR_SYNTAX);
	assert_string_equal(err.text, "'s; d=evil.example' cannot be a DKIM selector");
	assert_int_equal(prepare_with(letter, good, SLICE("b\xc3\xbc.example"), 1, 0, &err), ERR_SYNTAX);
	assert_int_equal(prepare_with(letter, good, SLICE(""), 1, 0, &err), ERR_SYNTAX);
	assert_int_equal(prepare_with(letter, good, SLICE("example.com"), 10, 10, &err), ERR_CONFIG);
	assert_int_equal(prepare_with(letter, good, SLICE("example.com"), -1, 10, &err), ERR_CONFIG);
	for (int i = 0; i < 9; i++)
		many[i] = good;
	assert_int_equal(dkim_signature_prepare(signatures, many, 9, &letter->message, &err), ERR_LIMIT);
	letter_free(letter);
	letter_free(no_from);
}

static void finish_refuses_impossible_signatures_and_a_full_buffer(void **state)
{
	struct letter *letter = letter_new(slice_of_str(rfc_header), slice_of_str(rfc_body));
	unsigned char octets[DKIM_SIGNATURE_MAX_BYTES + 1] = {0};
	struct dkim_signature signature;
	struct buf field;
	(void)state;

	assert_int_equal(dkim_signature_prepare(&signature, both, 1, &letter->message, NULL), 0);
	buf_init(&field, 100);
	assert_int_equal(dkim_signature_finish(&signature, slice_of(octets, 64), &field), ERR_LIMIT);
	assert_int_equal(dkim_signature_finish(&signature, slice_of(octets, 0), &field), ERR_LIMIT);
	assert_int_equal(dkim_signature_finish(&signature, slice_of(octets, sizeof(octets)), &field), ERR_LIMIT);
	buf_fini(&field);
	dkim_signature_fini(&signature);
	letter_free(letter);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(both_signatures_verify),
	    cmocka_unit_test(the_field_is_as_expected),
	    cmocka_unit_test(changes_that_mail_systems_make_do_no_harm),
	    cmocka_unit_test(a_changed_message_fails),
	    cmocka_unit_test(nobody_can_add_a_signed_field),
	    cmocka_unit_test(instances_go_from_the_bottom_up),
	    cmocka_unit_test(omitted_fields_may_change_and_appear),
	    cmocka_unit_test(the_last_names_may_be_omitted),
	    cmocka_unit_test(never_trace_fields_or_a_length),
	    cmocka_unit_test(an_older_signature_stays_and_does_not_matter),
	    cmocka_unit_test(folded_8_bit_and_empty_fields),
	    cmocka_unit_test(as_many_instances_as_the_limit),
	    cmocka_unit_test(the_field_is_bounded_and_folded),
	    cmocka_unit_test(ten_thousand_fields_of_one_name),
	    cmocka_unit_test(a_field_of_a_mebibyte),
	    cmocka_unit_test(what_cannot_be_signed_is_refused_with_the_reason),
	    cmocka_unit_test(finish_refuses_impossible_signatures_and_a_full_buffer),
	};
	return cmocka_run_group_tests_name("signature", tests, NULL, NULL);
}
