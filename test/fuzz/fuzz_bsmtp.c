/* A file that somebody has put into SPOOL/drop/. What is read is written again as it stands for the same, what is cut
 * short wants more, and nothing of it leads out of the text. */
#include "base/base.h"
#include "smtp/bsmtp.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_equal(const struct smtp_transaction *a, const struct smtp_transaction *b)
{
	BUG_ON(!slice_eq(a->sender, b->sender) || !slice_eq(a->envid, b->envid));
	BUG_ON(a->content_bytes != b->content_bytes || a->has_8bit != b->has_8bit || a->ret != b->ret);
	BUG_ON(a->recipient_count != b->recipient_count);
	for (size_t i = 0; i < a->recipient_count; i++) {
		BUG_ON(!slice_eq(a->recipients[i].address, b->recipients[i].address));
		BUG_ON(!slice_eq(a->recipients[i].orcpt, b->recipients[i].orcpt));
		BUG_ON(a->recipients[i].notify != b->recipients[i].notify);
	}
}

static void write_again(const struct bsmtp *first)
{
	struct bsmtp second;
	const char *why;
	struct buf out;

	buf_init(&out, 4 * BSMTP_ENVELOPE_MAX_BYTES);
	BUG_ON(bsmtp_format(&out, &first->transaction) != 0);
	BUG_ON(bsmtp_parse(buf_slice(&out), &second, &why) != 1);
	BUG_ON(second.content_at != buf_len(&out));
	must_be_equal(&first->transaction, &second.transaction);
	bsmtp_fini(&second);
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = slice_of(data, size);
	struct bsmtp batch, part;
	const char *why = NULL;
	int rc = bsmtp_parse(text, &batch, &why);

	BUG_ON(rc < -1 || rc > 1 || (rc == -1 && !why));
	if (rc != 1) {
		BUG_ON(batch.recipients);
		return 0;
	}
	BUG_ON(batch.content_at > size || batch.transaction.recipient_count == 0 ||
	       batch.transaction.content_bytes == 0);
	for (size_t cut = batch.content_at; cut-- > 0 && cut + 100 > batch.content_at;)
		BUG_ON(bsmtp_parse(slice_to(text, cut), &part, &why) != 0);
	write_again(&batch);
	bsmtp_fini(&batch);
	return 0;
}
