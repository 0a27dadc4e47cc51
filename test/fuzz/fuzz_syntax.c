/* The grammar of addresses and parameters: what is taken can be written and is taken again, unchanged. */
#include "base/base.h"
#include "smtp/address_list.h"
#include "smtp/syntax.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_mailbox(struct slice text, unsigned flags)
{
	struct smtp_mailbox box, again;
	struct slice local, domain, path;
	const char *why = NULL;
	struct buf out;

	if (smtp_parse_mailbox(text, flags, &box, &why) < 0) {
		BUG_ON(!why);
		return;
	}
	BUG_ON(!slice_eq(box.address, text) || text.len > SMTP_ADDRESS_MAX_BYTES || !smtp_is_utf8(text));
	BUG_ON(box.is_utf8 && !(flags & SMTP_MAY_BE_UTF8));
	BUG_ON(smtp_split_address(text, &local, &domain) != (box.domain.len > 0));
	BUG_ON(!slice_eq(local, box.local) || !slice_eq(domain, box.domain));
	buf_init(&out, 1000);
	BUG_ON(smtp_format_path(&out, text) < 0);
	path = buf_slice(&out);
	BUG_ON(smtp_parse_path(&path, flags, &again, NULL) < 0);
	BUG_ON(path.len || !slice_eq(again.address, text));
	buf_fini(&out);
}

static void try_path(struct slice text, unsigned flags)
{
	struct smtp_mailbox box;
	struct smtp_param param;
	const char *why = NULL;
	size_t before = text.len;

	if (smtp_parse_path(&text, flags, &box, &why) == 0) {
		BUG_ON(text.len >= before);
		if (box.address.len)
			try_mailbox(box.address, flags);
	}
	while (smtp_next_param(&text, &param) == 1) {
		uint64_t number;
		unsigned bits;
		enum smtp_dsn_ret ret;

		BUG_ON(param.keyword.len == 0 || param.has_value != (param.value.len > 0));
		smtp_parse_size(param.value, &number);
		smtp_parse_notify(param.value, &bits);
		smtp_parse_ret(param.value, &ret);
		smtp_is_orcpt(param.value, flags);
		smtp_is_envid(param.value);
	}
}

static void try_xtext(struct slice text)
{
	struct buf out, back;

	buf_init(&out, text.len * 3);
	buf_init(&back, text.len);
	BUG_ON(smtp_xtext_encode(&out, text) < 0);
	BUG_ON(!smtp_is_xtext(buf_slice(&out)));
	BUG_ON(smtp_xtext_decode(&back, buf_slice(&out)) < 0 || !slice_eq(buf_slice(&back), text));
	buf_clear(&back);
	BUG_ON((smtp_xtext_decode(&back, text) == 0) != smtp_is_xtext(text));
	buf_fini(&out);
	buf_fini(&back);
}

/* An unquoted local part, whatever it is: written, it is one mailbox, or it cannot be written. */
static void try_format(struct slice local)
{
	struct smtp_mailbox box;
	struct buf out;

	buf_init(&out, 2 * local.len + 100);
	if (smtp_format_mailbox(&out, local, SLICE("example.com")) == 0 && buf_len(&out) <= SMTP_ADDRESS_MAX_BYTES) {
		BUG_ON(smtp_parse_mailbox(buf_slice(&out), SMTP_MAY_BE_UTF8, &box, NULL) < 0);
		BUG_ON(!slice_eq(box.domain, SLICE("example.com")));
	}
	buf_fini(&out);
}

static void try_list(struct slice text)
{
	struct address_list list;
	struct address address;
	size_t at = 0;

	address_list_init(&list, text);
	while (address_list_next(&list, &address) == 1) {
		struct slice all = slice_of(address.text, address.len);
		BUG_ON(list.at <= at || address.spec_end > text.len || slice_find(all, '\0') >= 0);
		at = list.at;
		BUG_ON(address.has_domain != (address.len > address.local_len));
		if (address.len <= SMTP_ADDRESS_MAX_BYTES)
			BUG_ON(smtp_parse_mailbox(all, SMTP_MAY_BE_UTF8 | SMTP_MAY_BE_BARE, &(struct smtp_mailbox){0},
						  NULL) < 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice text = slice_from(slice_of(data, size), 1);

	if (size < 1)
		return 0;
	try_mailbox(text, data[0]);
	try_path(text, data[0]);
	try_xtext(text);
	try_format(text);
	try_list(text);
	BUG_ON(slice_is_ascii(text) && !smtp_is_utf8(text));
	BUG_ON(smtp_is_domain(text, 0) && !smtp_is_domain(text, SMTP_MAY_BE_UTF8));
	BUG_ON(smtp_is_domain(text, 0) && smtp_is_address_literal(text));
	return 0;
}
