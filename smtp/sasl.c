#include "smtp/sasl.h"

#include "base/base.h"
#include "base/base64.h"

#include <sodium.h>
#include <stdlib.h>

/* A name, a password and an authorisation identity with their separators; reserved at once, so that no secret stays
 * behind in memory that was outgrown. */
enum { MEMORY_BYTES = SASL_USER_MAX_BYTES * 2 + SASL_PASSWORD_MAX_BYTES + 16 };

/* ---- base64 ----------------------------------------------------------------------------------------------------- */

int sasl_base64_encode(struct buf *out, struct slice bytes)
{
	size_t size = sodium_base64_encoded_len(bytes.len, sodium_base64_VARIANT_ORIGINAL);
	char *at = buf_reserve(out, size - 1);
	char *text;

	if (!at)
		return ERR_LIMIT;
	/* It writes a NUL behind the text, for which the buffer may have no room. */
	text = xmalloc(size);
	sodium_bin2base64(text, size, (const unsigned char *)bytes.ptr, bytes.len, sodium_base64_VARIANT_ORIGINAL);
	memcpy(at, text, size - 1);
	buf_commit(out, size - 1);
	sodium_memzero(text, size);
	free(text);
	return 0;
}

int sasl_base64_decode(struct buf *out, struct slice text)
{
	size_t padding = 0, size, len;
	char *at;

	if (text.len % 4)
		return ERR_SYNTAX;
	if (text.len == 0)
		return 0;
	while (padding < 2 && text.ptr[text.len - 1 - padding] == '=')
		padding++;
	size = text.len / 4 * 3 - padding;
	at = buf_reserve(out, size);
	if (!at)
		return ERR_LIMIT;
	if (!base64_decode(text, BASE64_PADDED, NULL, at, size, &len))
		return ERR_SYNTAX;
	buf_commit(out, len);
	return 0;
}

/* ---- Mechanisms ------------------------------------------------------------------------------------------------- */

static const char *const names[] = {[SASL_PLAIN] = "PLAIN", [SASL_LOGIN] = "LOGIN"};

const char *sasl_mechanism_name(enum sasl_mechanism mechanism)
{
	return names[mechanism];
}

bool sasl_mechanism_parse(struct slice word, enum sasl_mechanism *mechanism)
{
	for (int i = 0; i < SASL_MECHANISM_COUNT; i++) {
		if (!slice_case_eq(word, slice_of_str(names[i])))
			continue;
		*mechanism = (enum sasl_mechanism)i;
		return true;
	}
	return false;
}

void sasl_server_init(struct sasl_server *sasl, enum sasl_mechanism mechanism)
{
	*sasl = (struct sasl_server){.mechanism = mechanism};
	buf_init(&sasl->memory, MEMORY_BYTES);
	buf_reserve(&sasl->memory, MEMORY_BYTES);
}

void sasl_server_fini(struct sasl_server *sasl)
{
	if (sasl->memory.data)
		sodium_memzero(sasl->memory.data, sasl->memory.cap);
	buf_fini(&sasl->memory);
	sasl->user = sasl->password = (struct slice){0};
}

const char *sasl_server_challenge(const struct sasl_server *sasl)
{
	if (sasl->mechanism == SASL_PLAIN)
		return "";
	return sasl->has_user ? "UGFzc3dvcmQ6" : "VXNlcm5hbWU6";
}

/* A name that goes into logs, queue and metrics. */
static bool is_user(struct slice user)
{
	for (size_t i = 0; i < user.len; i++)
		if ((unsigned char)user.ptr[i] < ' ' || user.ptr[i] == 0x7f)
			return false;
	return user.len > 0 && user.len <= SASL_USER_MAX_BYTES;
}

static bool is_password(struct slice password)
{
	return password.len > 0 && password.len <= SASL_PASSWORD_MAX_BYTES && slice_find(password, '\0') < 0;
}

/* RFC 4616 §2: [authzid] NUL authcid NUL passwd */
static enum sasl_step take_plain(struct sasl_server *sasl, struct slice message)
{
	ptrdiff_t first = slice_find(message, '\0'), second;
	struct slice identity, rest;

	if (first < 0)
		return SASL_MALFORMED;
	identity = slice_to(message, (size_t)first);
	rest = slice_from(message, (size_t)first + 1);
	second = slice_find(rest, '\0');
	if (second < 0)
		return SASL_MALFORMED;
	sasl->user = slice_to(rest, (size_t)second);
	sasl->password = slice_from(rest, (size_t)second + 1);
	if (!is_user(sasl->user) || !is_password(sasl->password))
		return SASL_MALFORMED;
	if (identity.len && !slice_eq(identity, sasl->user))
		return SASL_OTHER_IDENTITY;
	return SASL_COMPLETE;
}

static enum sasl_step take_login(struct sasl_server *sasl, struct slice answer)
{
	if (sasl->has_user) {
		sasl->password = answer;
		return is_password(answer) ? SASL_COMPLETE : SASL_MALFORMED;
	}
	sasl->user = answer;
	sasl->has_user = true;
	return is_user(answer) ? SASL_CHALLENGE : SASL_MALFORMED;
}

static enum sasl_step take(struct sasl_server *sasl, struct slice text)
{
	size_t before = buf_len(&sasl->memory);
	int rc = sasl_base64_decode(&sasl->memory, text);

	if (rc == ERR_SYNTAX)
		return SASL_UNDECODABLE;
	if (rc < 0)
		return SASL_MALFORMED;
	text = slice_from(buf_slice(&sasl->memory), before);
	return sasl->mechanism == SASL_PLAIN ? take_plain(sasl, text) : take_login(sasl, text);
}

enum sasl_step sasl_server_begin(struct sasl_server *sasl, bool has_initial, struct slice initial)
{
	if (!has_initial)
		return SASL_CHALLENGE;
	return take(sasl, slice_eq(initial, SLICE("=")) ? (struct slice){0} : initial);
}

enum sasl_step sasl_server_respond(struct sasl_server *sasl, struct slice line)
{
	return slice_eq(line, SLICE("*")) ? SASL_CANCELLED : take(sasl, line);
}
