#include "smtp/encoded_word.h"

#include "base/base.h"

#include <sodium.h>
#include <stdio.h>

/* ---- Writing. */

static const char head[] = "=?utf-8?Q?", tail[] = "?=";

/* RFC 2047 section 5 (3): what is safe even in a phrase. */
static bool stands_for_itself(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c && strchr("!*+-/", c));
}

/* Octets of the character at the front of valid UTF-8. */
static size_t character_length(struct slice text)
{
	size_t len = 1;

	while (len < text.len && ((unsigned char)text.ptr[len] & 0xc0) == 0x80)
		len++;
	return len;
}

static size_t encode(struct slice character, char out[16])
{
	size_t len = 0;

	for (size_t i = 0; i < character.len && len + 3 < 16; i++) {
		char c = character.ptr[i];
		if (stands_for_itself(c) || c == ' ')
			out[len++] = c == ' ' ? '_' : c;
		else
			len += (size_t)snprintf(out + len, 4, "=%02X", (unsigned char)c);
	}
	return len;
}

void encoded_word_write(struct buf *out, struct slice text)
{
	const size_t most = ENCODED_WORD_MAX_CHARS - strlen(head) - strlen(tail);
	size_t used = 0;

	buf_append_str(out, head);
	while (text.len) {
		char code[16];
		struct slice character = slice_to(text, character_length(text));
		size_t len = encode(character, code);
		if (used + len > most) {
			buf_printf(out, "%s\r\n %s", tail, head);
			used = 0;
		}
		buf_append(out, slice_of(code, len));
		used += len;
		text = slice_from(text, character.len);
	}
	buf_append_str(out, tail);
}

/* ---- Reading. */

struct word {
	struct slice charset, text;
	char encoding; /* 'B' or 'Q' */
};

/* The part up to `end` from the front of *rest, which then begins behind it. */
static bool cut(struct slice *rest, char end, struct slice *part)
{
	ptrdiff_t at = slice_find(*rest, end);

	if (at < 0)
		return false;
	*part = slice_to(*rest, (size_t)at);
	*rest = slice_from(*rest, (size_t)at + 1);
	return true;
}

/* "=?charset?B?text?=" from the front of *text. */
static bool take_word(struct slice *text, struct word *word)
{
	struct slice rest = slice_from(*text, 2), encoding;

	if (!slice_has_prefix(*text, SLICE("=?")) || !cut(&rest, '?', &word->charset) || !cut(&rest, '?', &encoding) ||
	    !cut(&rest, '?', &word->text) || rest.len == 0 || rest.ptr[0] != '=' || encoding.len != 1)
		return false;
	word->encoding = encoding.ptr[0] & ~0x20; /* upper case */
	*text = slice_from(rest, 1);
	return word->encoding == 'B' || word->encoding == 'Q';
}

static void put_octet(struct buf *out, const struct word *word, unsigned char octet)
{
	char two[2] = {(char)(0xc0 | octet >> 6), (char)(0x80 | (octet & 0x3f))};

	if (octet >= 0x80 && slice_case_eq(word->charset, SLICE("iso-8859-1")))
		buf_append(out, slice_of(two, 2));
	else
		buf_append_byte(out, (char)octet);
}

static int hex_value(char c)
{
	const char *digits = "0123456789ABCDEF", *at = c ? strchr(digits, c >= 'a' && c <= 'f' ? c - 32 : c) : NULL;

	return at ? (int)(at - digits) : -1;
}

static void read_q(struct buf *out, const struct word *word)
{
	for (size_t i = 0; i < word->text.len; i++) {
		char c = word->text.ptr[i];
		int high = c == '=' && i + 2 < word->text.len ? hex_value(word->text.ptr[i + 1]) : -1;
		int low = high >= 0 ? hex_value(word->text.ptr[i + 2]) : -1;
		if (low >= 0)
			i += 2;
		put_octet(out, word, low >= 0 ? (unsigned char)(high * 16 + low) : c == '_' ? ' ' : (unsigned char)c);
	}
}

static void read_b(struct buf *out, const struct word *word)
{
	unsigned char octets[1024];
	size_t len = 0;

	if (sodium_base642bin(octets, sizeof(octets), word->text.ptr, word->text.len, NULL, &len, NULL,
			      sodium_base64_VARIANT_ORIGINAL) != 0)
		return;
	for (size_t i = 0; i < len; i++)
		put_octet(out, word, octets[i]);
}

static bool is_known(const struct word *word)
{
	static const char *const charsets[] = {"utf-8", "us-ascii", "iso-8859-1"};

	for (size_t i = 0; i < ARRAY_LEN(charsets); i++)
		if (slice_case_eq(word->charset, slice_of_str(charsets[i])))
			return true;
	return false;
}

static bool is_white(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* White space between two encoded words is none (RFC 2047 section 6.2). */
static bool joins_next_word(struct slice text)
{
	struct word word;

	while (text.len && is_white(text.ptr[0]))
		text = slice_from(text, 1);
	return take_word(&text, &word);
}

void encoded_word_read(struct buf *out, struct slice body)
{
	body = slice_trim(body);
	while (body.len) {
		struct slice rest = body;
		struct word word;
		if (body.ptr[0] == '=' && take_word(&rest, &word) && is_known(&word)) {
			if (word.encoding == 'B')
				read_b(out, &word);
			else
				read_q(out, &word);
			body = rest;
			while (body.len && is_white(body.ptr[0]) && joins_next_word(body))
				body = slice_from(body, 1);
			continue;
		}
		if (body.ptr[0] != '\r' && body.ptr[0] != '\n')
			buf_append_byte(out, body.ptr[0]);
		body = slice_from(body, 1);
	}
}
