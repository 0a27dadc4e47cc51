/* base64 and the server's side of PLAIN and LOGIN. The first octet chooses; lines of the rest are the client's. */
#include "base/base.h"
#include "smtp/sasl.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice take_line(struct slice *text)
{
	ptrdiff_t end = slice_find(*text, '\n');
	struct slice line = end < 0 ? *text : slice_to(*text, (size_t)end);

	*text = slice_from(*text, line.len + 1);
	return line;
}

static void try_base64(struct slice text)
{
	struct buf out, back;

	buf_init(&out, text.len * 2 + 4);
	buf_init(&back, text.len * 2 + 4);
	BUG_ON(sasl_base64_encode(&out, text) < 0);
	BUG_ON(sasl_base64_decode(&back, buf_slice(&out)) < 0 || !slice_eq(buf_slice(&back), text));
	buf_clear(&out);
	buf_clear(&back);
	/* There is one spelling only. */
	if (sasl_base64_decode(&out, text) == 0)
		BUG_ON(sasl_base64_encode(&back, buf_slice(&out)) < 0 || !slice_eq(buf_slice(&back), text));
	else
		BUG_ON(buf_len(&out));
	buf_fini(&out);
	buf_fini(&back);
}

static void check_complete(const struct sasl_server *sasl)
{
	BUG_ON(sasl->user.len == 0 || sasl->user.len > SASL_USER_MAX_BYTES);
	BUG_ON(sasl->password.len == 0 || sasl->password.len > SASL_PASSWORD_MAX_BYTES);
	BUG_ON(slice_find(sasl->password, '\0') >= 0);
	for (size_t i = 0; i < sasl->user.len; i++)
		BUG_ON((unsigned char)sasl->user.ptr[i] < ' ');
}

/* In clear, so that the fuzzer need not learn base64. */
static void try_exchange(uint8_t choice, struct slice text, bool is_encoded)
{
	struct sasl_server sasl;
	enum sasl_step step;
	struct buf line;

	sasl_server_init(&sasl, choice & 1 ? SASL_PLAIN : SASL_LOGIN);
	buf_init(&line, text.len * 2 + 4);
	for (bool is_first = true;; is_first = false) {
		struct slice given = {0};

		buf_clear(&line);
		if (!is_first || (choice & 2)) {
			given = take_line(&text);
			if (is_encoded) {
				BUG_ON(sasl_base64_encode(&line, given) < 0);
				given = buf_slice(&line);
			}
		}
		step = is_first ? sasl_server_begin(&sasl, choice & 2, given) : sasl_server_respond(&sasl, given);
		if (step != SASL_CHALLENGE)
			break;
		BUG_ON(!sasl_server_challenge(&sasl));
	}
	if (step == SASL_COMPLETE)
		check_complete(&sasl);
	sasl_server_fini(&sasl);
	buf_fini(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = slice_from(slice_of(data, size), 1);
	enum sasl_mechanism mechanism;

	if (size < 1)
		return 0;
	try_base64(text);
	try_exchange(data[0], text, false);
	try_exchange(data[0], text, true);
	if (sasl_mechanism_parse(text, &mechanism))
		BUG_ON(strlen(sasl_mechanism_name(mechanism)) != text.len);
	return 0;
}
