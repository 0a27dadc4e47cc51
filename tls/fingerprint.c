#include "tls/fingerprint.h"

#include <ctype.h>

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static struct slice skip_label(struct slice text)
{
	static const struct slice labels[] = {SLICE("sha256 fingerprint="), SLICE("sha256:")};

	for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++)
		if (slice_has_case_prefix(text, labels[i]))
			return slice_trim(slice_from(text, labels[i].len));
	return text;
}

int tls_fingerprint_parse(struct slice text, struct tls_fingerprint *out, struct err *err)
{
	size_t digits = 0;

	text = skip_label(slice_trim(text));
	for (size_t i = 0; i < text.len; i++) {
		int value = hex_value(text.ptr[i]);

		if (value < 0 && (text.ptr[i] == ':' || text.ptr[i] == ' ') && digits && digits % 2 == 0)
			continue;
		if (value < 0)
			return err_set(err, ERR_SYNTAX, "a fingerprint is %d hexadecimal digits, colons allowed",
				       TLS_FINGERPRINT_CHARS);
		if (digits < TLS_FINGERPRINT_CHARS)
			out->bytes[digits / 2] = (uint8_t)(digits % 2 ? out->bytes[digits / 2] << 4 | value : value);
		digits++;
	}
	if (digits == 32 || digits == 40)
		return err_set(err, ERR_SYNTAX, "this is an %s fingerprint, but a SHA-256 one (%d digits) is needed",
			       digits == 32 ? "MD5" : "SHA-1", TLS_FINGERPRINT_CHARS);
	if (digits != TLS_FINGERPRINT_CHARS)
		return err_set(err, ERR_SYNTAX, "a fingerprint has %d hexadecimal digits, this one has %zu",
			       TLS_FINGERPRINT_CHARS, digits);
	return 0;
}

void tls_fingerprint_format(const struct tls_fingerprint *fingerprint, char out[TLS_FINGERPRINT_CHARS + 1])
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < TLS_FINGERPRINT_BYTES; i++) {
		out[2 * i] = hex[fingerprint->bytes[i] >> 4];
		out[2 * i + 1] = hex[fingerprint->bytes[i] & 15];
	}
	out[TLS_FINGERPRINT_CHARS] = '\0';
}
