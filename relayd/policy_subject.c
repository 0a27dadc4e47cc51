#include "relayd/policy_subject.h"

#include "base/base.h"
#include "smtp/encoded_word.h"
#include "smtp/syntax.h"

/* What mailers put in front of an answered or forwarded subject. */
static struct slice skip_reply_words(struct slice text)
{
	static const char *const words[] = {"re:", "aw:", "fw:", "fwd:", "wg:", "sv:", "antw:"};
	size_t i = 0;

	while (i < ARRAY_LEN(words)) {
		struct slice word = slice_of_str(words[i]);
		text = slice_trim(text);
		if (slice_has_case_prefix(text, word)) {
			text = slice_from(text, word.len);
			i = 0;
		} else {
			i++;
		}
	}
	return text;
}

static bool has_prefix(struct slice body, struct slice prefix)
{
	struct buf text;
	bool has;

	buf_init(&text, 4096);
	encoded_word_read(&text, slice_to(body, 4096));
	has = slice_has_prefix(skip_reply_words(buf_slice(&text)), prefix);
	buf_fini(&text);
	return has;
}

/* A prefix that an encoded word would swallow its blank of carries the blank inside. */
static void put_encoded(struct buf *out, struct slice prefix)
{
	struct buf with_blank;

	buf_init(&with_blank, prefix.len + 1);
	buf_append(&with_blank, prefix);
	buf_append_byte(&with_blank, ' ');
	encoded_word_write(out, buf_slice(&with_blank));
	buf_fini(&with_blank);
}

bool policy_subject_put(struct buf *out, struct slice prefix, struct slice body)
{
	prefix = slice_trim(prefix);
	if (prefix.len == 0 || has_prefix(body, prefix))
		return false;
	buf_append_str(out, "Subject: ");
	if (slice_is_ascii(prefix))
		buf_append(out, prefix);
	else if (slice_has_prefix(slice_trim(body), SLICE("=?")))
		put_encoded(out, prefix);
	else
		encoded_word_write(out, prefix);
	if (body.len > 0 && body.ptr[0] != ' ' && body.ptr[0] != '\t' && body.ptr[0] != '\r')
		buf_append_byte(out, ' ');
	buf_append(out, body);
	buf_append(out, SLICE("\r\n"));
	return true;
}
