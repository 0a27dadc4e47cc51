#include "dkim/dkim.h"

enum { LABEL_MAX_BYTES = 63, SELECTOR_MAX_BYTES = 190, DOMAIN_MAX_BYTES = 253 };

const char *dkim_algorithm_name(enum dkim_algorithm algorithm)
{
	switch (algorithm) {
	case DKIM_RSA_SHA256: return "rsa-sha256";
	case DKIM_ED25519_SHA256: return "ed25519-sha256";
	case DKIM_ALGORITHM_COUNT: break;
	}
	return "unknown";
}

const char *dkim_algorithm_key_type(enum dkim_algorithm algorithm)
{
	switch (algorithm) {
	case DKIM_RSA_SHA256: return "rsa";
	case DKIM_ED25519_SHA256: return "ed25519";
	case DKIM_ALGORITHM_COUNT: break;
	}
	return "unknown";
}

static bool is_label_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static bool is_name(struct slice text, size_t max_bytes)
{
	size_t label = 0;

	if (text.len == 0 || text.len > max_bytes)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] == '.') {
			if (label == 0)
				return false;
			label = 0;
		} else if (!is_label_char(text.ptr[i]) || ++label > LABEL_MAX_BYTES) {
			return false;
		}
	}
	return label > 0;
}

bool dkim_is_selector(struct slice text)
{
	return is_name(text, SELECTOR_MAX_BYTES);
}

bool dkim_is_domain(struct slice text)
{
	return is_name(text, DOMAIN_MAX_BYTES);
}
