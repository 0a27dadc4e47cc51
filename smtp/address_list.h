/*
 * smtp/address_list.h - the addresses of a From, Sender, To, Cc or Bcc field
 *
 * RFC 5322 §3.4 with its obsolete forms (§4.4) and UTF-8 (RFC 6532): display names, quoted strings, encoded words,
 * nested comments, groups, routes, blanks and foldings everywhere. Robust about what mailers get wrong (an unquoted
 * "@" or dot in a display name, an empty element, ";" or "," at the end), linear, no recursion. Where an address stands
 * for the name of a group, nobody knows who is meant: that cannot be read.
 *
 *     address_list_init(&list, field.body);
 *     while ((rc = address_list_next(&list, &address)) == 1) ...;
 */
#ifndef SMTP_ADDRESS_LIST_H
#define SMTP_ADDRESS_LIST_H

#include "base/err.h"
#include "base/slice.h"

enum { ADDRESS_MAX_BYTES = 1024 };

struct address_list {
	struct slice all;
	size_t at;
};

struct address {
	/* local@domain without blanks and comments, the local part quoted only where it must be; or a local part alone.
	 * NUL-terminated; never holds a NUL or a control. */
	char text[ADDRESS_MAX_BYTES + 1];
	size_t len;
	size_t local_len; /* of the local part, quotes included */
	bool has_domain;  /* then the domain begins at text + local_len + 1 */
	struct slice raw; /* the whole element in the field's body, display name and all */
	/* What stands for a display name, or behind the address, but has an "@" outside of quotes, as it is written in
	 * the field's body: some readers take that for the address. If it stands at both sides, all from the first to
	 * the last of it. Empty: nothing of the kind. */
	struct slice other;
	/* Where local part and domain stand in the field's body: to be replaced when a bare name gets its domain. */
	size_t spec_begin, spec_end;
};

void address_list_init(struct address_list *list, struct slice body);
/* 1: *out is the next address; 0: no more; ERR_SYNTAX: what follows cannot be read; ERR_LIMIT: one that is too long. */
int address_list_next(struct address_list *list, struct address *out);

#endif
