#include "dkim/signature.h"

#include "base/base.h"
#include "dkim/canon.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>

enum { LINE_MAX_COLUMNS = 76 };

static const char *const signed_fields[] = {
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Reply-To",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    NULL,
};

enum { NAMES = ARRAY_LEN(signed_fields) - 1, NAME_FROM = 0 };

/* The instances of one name that are signed, the lowest of the header first. */
struct chosen {
	struct slice raw[DKIM_INSTANCES_MAX];
	size_t count;
	bool has_more;	  /* above those: naming one more would make the receiver hash it */
	bool is_left_out; /* as the caller wishes */
};

const char *const *dkim_signed_fields(void)
{
	return signed_fields;
}

static struct slice field_name(struct slice raw)
{
	ptrdiff_t colon = slice_find(raw, ':');
	struct slice name = slice_to(raw, colon < 0 ? 0 : (size_t)colon);

	while (name.len > 0 && (name.ptr[name.len - 1] == ' ' || name.ptr[name.len - 1] == '\t'))
		name.len--;
	return name;
}

static int name_index(struct slice name)
{
	for (int i = 0; i < NAMES; i++)
		if (slice_case_eq(name, slice_of_str(signed_fields[i])))
			return i;
	return -1;
}

static void choose(struct chosen chosen[NAMES], const struct dkim_message *message)
{
	memset(chosen, 0, NAMES * sizeof(*chosen));
	for (size_t i = 0; i < message->omit_count; i++) {
		int index = name_index(message->omit[i]);
		if (index >= 0 && index != NAME_FROM)
			chosen[index].is_left_out = true;
	}
	for (size_t i = message->field_count; i-- > 0;) {
		struct slice raw = message->fields[i].raw;
		int index = name_index(field_name(raw));
		if (index < 0 || chosen[index].is_left_out)
			continue;
		if (chosen[index].count < DKIM_INSTANCES_MAX)
			chosen[index].raw[chosen[index].count++] = raw;
		else
			chosen[index].has_more = true;
	}
}

/* The canonical fields in the order of h=; an instance that is named but absent gives nothing. */
static void gather(struct buf *data, const struct chosen chosen[NAMES])
{
	size_t max = DKIM_FIELD_MAX_BYTES;

	for (int i = 0; i < NAMES; i++)
		for (size_t k = 0; k < chosen[i].count; k++)
			max += chosen[i].raw[k].len + 2;
	buf_init(data, max);
	for (int i = 0; i < NAMES; i++)
		for (size_t k = 0; k < chosen[i].count; k++)
			BUG_ON(dkim_canon_field(data, DKIM_CANON_RELAXED, chosen[i].raw[k]) < 0);
}

/* A field being written: folds before a token that would go over the line. */
struct writer {
	struct buf *out;
	size_t column;
};

/* The limits on names and instances keep the text under its ceiling. */
static void put_text(struct writer *writer, struct slice text)
{
	BUG_ON(buf_append(writer->out, text) < 0);
	writer->column += text.len;
}

static void put(struct writer *writer, struct slice separator, struct slice token)
{
	if (writer->column + separator.len + token.len > LINE_MAX_COLUMNS) {
		put_text(writer, SLICE("\r\n "));
		writer->column = 1;
	} else {
		put_text(writer, separator);
	}
	put_text(writer, token);
}

static void put_tag(struct writer *writer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put_tag(struct writer *writer, const char *format, ...)
{
	char tag[512];
	va_list args;

	va_start(args, format);
	vsnprintf(tag, sizeof(tag), format, args);
	va_end(args);
	put(writer, SLICE(" "), slice_of_str(tag));
}

/* How often a name stands in h=: once more than it is signed. */
static size_t times_named(const struct chosen *chosen)
{
	if (chosen->is_left_out)
		return 0;
	return chosen->has_more ? chosen->count : chosen->count + 1;
}

static void put_names(struct writer *writer, const struct chosen chosen[NAMES])
{
	struct slice separator = SLICE(" ");
	size_t left = 0;
	char token[64];

	for (int i = 0; i < NAMES; i++)
		left += times_named(&chosen[i]);
	for (int i = 0; i < NAMES; i++)
		for (size_t k = 0; k < times_named(&chosen[i]); k++) {
			int len = snprintf(token, sizeof(token), "%s%s%s", separator.len ? "h=" : "", signed_fields[i],
					   --left > 0 ? ":" : ";");
			put(writer, separator, slice_of(token, (size_t)len));
			separator = SLICE("");
		}
}

static void write_unsigned(struct buf *out, const struct dkim_signer *signer, const struct dkim_message *message,
			   const struct chosen chosen[NAMES])
{
	struct writer writer = {out, 0};
	char hash[sodium_base64_ENCODED_LEN(DKIM_DIGEST_BYTES, sodium_base64_VARIANT_ORIGINAL)];

	put(&writer, SLICE(""), SLICE("DKIM-Signature: v=1;"));
	put_tag(&writer, "a=%s;", dkim_algorithm_name(signer->algorithm));
	put_tag(&writer, "c=relaxed/relaxed;");
	put_tag(&writer, "d=%.*s;", SLICE_ARG(message->domain));
	put_tag(&writer, "s=%.*s;", SLICE_ARG(signer->selector));
	put_tag(&writer, "t=%" PRId64 ";", message->signed_at_sec);
	if (message->expires_at_sec)
		put_tag(&writer, "x=%" PRId64 ";", message->expires_at_sec);
	put_names(&writer, chosen);
	sodium_bin2base64(hash, sizeof(hash), message->body_hash, DKIM_DIGEST_BYTES, sodium_base64_VARIANT_ORIGINAL);
	put_tag(&writer, "bh=%s;", hash);
	/* A line of its own, so that the signature's first line has a known length. */
	BUG_ON(buf_append(out, SLICE("\r\n b=")) < 0);
}

/* `data`: the canonical fields; the new field goes behind them without its CRLF (RFC 6376 section 3.7). */
static void digest_with(struct buf *data, struct dkim_signature *signature)
{
	size_t fields = buf_len(data);
	struct slice all;

	BUG_ON(dkim_canon_field(data, DKIM_CANON_RELAXED, buf_slice(&signature->text)) < 0);
	all = buf_slice(data);
	BUG_ON(gnutls_hash_fast(GNUTLS_DIG_SHA256, all.ptr, all.len - 2, signature->digest) < 0);
	buf_truncate(data, fields);
}

static int check(const struct dkim_signer *signers, size_t count, const struct dkim_message *message, struct err *err)
{
	if (count > DKIM_SIGNERS_MAX)
		return err_set(err, ERR_LIMIT, "more than %d DKIM signatures on one message", DKIM_SIGNERS_MAX);
	if (!dkim_is_domain(message->domain))
		return err_set(err, ERR_SYNTAX, "'%.*s' cannot be the domain of a DKIM signature",
			       SLICE_ARG(slice_to(message->domain, 255)));
	for (size_t i = 0; i < count; i++)
		if (!dkim_is_selector(signers[i].selector))
			return err_set(err, ERR_SYNTAX, "'%.*s' cannot be a DKIM selector",
				       SLICE_ARG(slice_to(signers[i].selector, 255)));
	if (message->signed_at_sec < 0 ||
	    (message->expires_at_sec && message->expires_at_sec <= message->signed_at_sec))
		return err_set(err, ERR_CONFIG, "a DKIM signature cannot expire before it is made");
	return 0;
}

int dkim_signature_prepare(struct dkim_signature *signatures, const struct dkim_signer *signers, size_t count,
			   const struct dkim_message *message, struct err *err)
{
	struct chosen chosen[NAMES];
	struct buf data;
	int rc = check(signers, count, message, err);

	if (rc < 0)
		return rc;
	choose(chosen, message);
	if (chosen[NAME_FROM].count == 0)
		return err_set(err, ERR_NOT_FOUND, "a message without From cannot be signed");
	gather(&data, chosen);
	for (size_t i = 0; i < count; i++) {
		signatures[i].algorithm = signers[i].algorithm;
		buf_init(&signatures[i].text, DKIM_FIELD_MAX_BYTES);
		write_unsigned(&signatures[i].text, &signers[i], message, chosen);
		digest_with(&data, &signatures[i]);
	}
	buf_fini(&data);
	return 0;
}

int dkim_signature_finish(const struct dkim_signature *prepared, struct slice signature, struct buf *out)
{
	char text[sodium_base64_ENCODED_LEN(DKIM_SIGNATURE_MAX_BYTES, sodium_base64_VARIANT_ORIGINAL)];
	struct slice left;
	size_t column = strlen(" b=");
	int rc;

	if (signature.len == 0 || signature.len > DKIM_SIGNATURE_MAX_BYTES)
		return ERR_LIMIT;
	sodium_bin2base64(text, sizeof(text), (const unsigned char *)signature.ptr, signature.len,
			  sodium_base64_VARIANT_ORIGINAL);
	left = slice_of_str(text);
	rc = buf_append(out, buf_slice(&prepared->text));
	while (rc == 0 && left.len > 0) {
		struct slice line = slice_to(left, LINE_MAX_COLUMNS - column);
		left = slice_from(left, line.len);
		rc = buf_append(out, line);
		if (rc == 0)
			rc = buf_append(out, left.len > 0 ? SLICE("\r\n ") : SLICE("\r\n"));
		column = 1;
	}
	return rc;
}

void dkim_signature_fini(struct dkim_signature *signature)
{
	buf_fini(&signature->text);
}
