/*
 * smtp/syntax.h - the grammar of SMTP's command arguments: mailboxes, paths, domains, parameters, xtext
 *
 * RFC 5321 §4.1.2 and §4.1.3, RFC 6531 §3.3 (UTF-8 in addresses), RFC 3461 §4 (DSN parameters). Pure functions over
 * borrowed bytes; nothing is copied, nothing is cut: an address is taken octet by octet as it was written, or refused.
 * All of it is linear in the length of the input.
 *
 * AN ADDRESS in this house is what stands between the angle brackets, as it was written: a quoted local part keeps its
 * quotes and backslashes ("\"a b\"@example.com"). Putting it in brackets gives a path again. smtp_format_mailbox()
 * makes one of an unquoted local part.
 *
 * LENIENT on purpose: labels may hold "_" (container names do); a local part may be longer than 64 octets as long as
 * the path keeps to 256 (RFC 5321 §4.5.3.1: limits are what must at least be supported); a source route is skipped and
 * never passed on (RFC 5321 appendix C).
 * STRICT on purpose: no controls, no bare specials, no "a@b@c", no empty label, no dot at the end of the domain, no
 * broken UTF-8, address literals only of IPv4 and IPv6 and only valid ones.
 */
#ifndef SMTP_SYNTAX_H
#define SMTP_SYNTAX_H

#include "base/buf.h"
#include "base/err.h"

/* RFC 5321 §4.5.3.1. Octets; lines count their CRLF. */
enum {
	SMTP_PATH_MAX_BYTES = 256, /* with the brackets */
	SMTP_ADDRESS_MAX_BYTES = SMTP_PATH_MAX_BYTES - 2,
	SMTP_LOCAL_PART_MAX_BYTES = 64, /* what everybody must support; longer ones are taken */
	SMTP_DOMAIN_MAX_BYTES = 255,
	SMTP_LABEL_MAX_BYTES = 63,
	SMTP_COMMAND_LINE_MAX_BYTES = 512,
	/* MAIL and RCPT may be longer by what the extensions add: SIZE 26 (RFC 1870), BODY 17 (RFC 6152), SMTPUTF8 10
	 * (RFC 6531), AUTH 500 (RFC 4954), RET and ENVID 107, NOTIFY and ORCPT 500 (RFC 3461), REQUIRETLS 11. */
	SMTP_PATH_LINE_MAX_BYTES = 512 + 26 + 17 + 10 + 500 + 107 + 500 + 11,
	SMTP_AUTH_LINE_MAX_BYTES = 12288, /* RFC 4954 §4 */
	SMTP_REPLY_LINE_MAX_BYTES = 512,
	SMTP_TEXT_LINE_MAX_BYTES = 1000,
	SMTP_ENVID_MAX_BYTES = 100,
	SMTP_ORCPT_MAX_BYTES = 500,
};

/* ---- Octets and UTF-8 ------------------------------------------------------------------------------------------- */

/* Well-formed UTF-8 of RFC 3629: nothing overlong, no surrogates, nothing over U+10FFFF. ASCII is. */
bool smtp_is_utf8(struct slice text);
/* RFC 5322's atom, with UTF-8 (RFC 6532); not empty. */
bool smtp_is_atom(struct slice text);

/* ---- Mailboxes and paths ---------------------------------------------------------------------------------------- */

/* What a mailbox may be. */
enum smtp_mailbox_flag {
	SMTP_MAY_BE_UTF8 = 1,  /* SMTPUTF8 was given; otherwise octets over 127 are ERR_UNSUPPORTED */
	SMTP_MAY_BE_EMPTY = 2, /* "<>" */
	SMTP_MAY_BE_BARE = 4,  /* a local part alone: "root". "postmaster" alone always may (RFC 5321 §4.1.1.3) */
};

/* All slices lie in the parsed text. */
struct smtp_mailbox {
	struct slice address; /* the whole; empty: <> */
	struct slice local;   /* as written, with its quotes */
	struct slice domain;  /* as written, an address literal with its brackets; empty: bare, or <> */
	bool is_quoted, is_literal;
	bool is_utf8; /* somewhere in it stands an octet over 127 */
};

/*
 * `text` is a mailbox from its first octet to its last. ERR_SYNTAX; ERR_LIMIT (longer than SMTP_ADDRESS_MAX_BYTES, or a
 * domain or label that is too long); ERR_UNSUPPORTED (UTF-8 that was not allowed). `why` (may be NULL) gets a static
 * phrase for the reply, such as "the domain has an empty label".
 */
int smtp_parse_mailbox(struct slice text, unsigned flags, struct smtp_mailbox *out, const char **why);
/* "<" [source route ":"] mailbox ">" from the front of *text, which then begins behind it. Errors as above. */
int smtp_parse_path(struct slice *text, unsigned flags, struct smtp_mailbox *out, const char **why);

/* Where the domain of an address begins: at the last "@" outside quotes. Cuts without judging; false: there is none
 * (then `local` is all). Either may be NULL. */
bool smtp_split_address(struct slice address, struct slice *local, struct slice *domain);
/* Appends local@domain, the local part quoted where it must be; without a domain the local part alone. `local` is
 * unquoted: what a user or file name is. ERR_SYNTAX: octets that no quoting can carry (controls, broken UTF-8). */
int smtp_format_mailbox(struct buf *out, struct slice local, struct slice domain);
/* Appends "<address>". The address is as smtp_parse_mailbox() took it. */
int smtp_format_path(struct buf *out, struct slice address);

/* ---- Domains ---------------------------------------------------------------------------------------------------- */

/* Dot-separated labels of letters, digits, "-" and "_"; with SMTP_MAY_BE_UTF8 U-labels too. One label is enough. */
bool smtp_is_domain(struct slice text, unsigned flags);
/* "[192.0.2.1]", "[IPv6:2001:db8::1]". */
bool smtp_is_address_literal(struct slice text);
/* Appends an address as a literal: text is "192.0.2.1" or "2001:db8::1" (as inet_ntop() makes them). ERR_SYNTAX. */
int smtp_format_literal(struct buf *out, struct slice address);

/* ---- Parameters ------------------------------------------------------------------------------------------------- */

/* SP keyword ["=" value], RFC 5321 §4.1.2 esmtp-param; values may hold UTF-8 (RFC 6531 §3.3). */
struct smtp_param {
	struct slice keyword;
	struct slice value; /* empty when has_value is false, never empty when it is true */
	bool has_value;
};

/* The next one from the front of *text. 1: in *out; 0: only blanks were left; ERR_SYNTAX. */
int smtp_next_param(struct slice *text, struct smtp_param *out);

/* 1*20DIGIT of RFC 1870 §3. ERR_SYNTAX; ERR_LIMIT: digits, but more than 2^64-1 or more than twenty. */
int smtp_parse_size(struct slice text, uint64_t *size);

/* NOTIFY of RFC 3461 §4.1, in bits that are the same in smtp/client.h and queue/queue.h. */
enum {
	SMTP_DSN_NEVER = 1,
	SMTP_DSN_SUCCESS = 2,
	SMTP_DSN_FAILURE = 4,
	SMTP_DSN_DELAY = 8,
};
/* RET of RFC 3461 §4.3, in the same numbers as there. */
enum smtp_dsn_ret { SMTP_DSN_RET_NONE = 0, SMTP_DSN_RET_FULL = 1, SMTP_DSN_RET_HDRS = 2 };

/* "NEVER", or a comma list of the others, each once. ERR_SYNTAX. */
int smtp_parse_notify(struct slice text, unsigned *bits);
int smtp_parse_ret(struct slice text, enum smtp_dsn_ret *ret);
/* addr-type ";" xtext; for "utf-8" also utf-8-addr-xtext and -unitext (RFC 6533 §3). Is the form right? */
bool smtp_is_orcpt(struct slice text, unsigned flags);
/* xtext of printable ASCII and blanks alone, at most SMTP_ENVID_MAX_BYTES (RFC 3461 §4.4): it will stand in a DSN. */
bool smtp_is_envid(struct slice text);

/* ---- xtext (RFC 3461 §4) ---------------------------------------------------------------------------------------- */

/* Printable ASCII without "=" and "+", and "+HH". May be empty. */
bool smtp_is_xtext(struct slice text);
/* Appends. */
int smtp_xtext_encode(struct buf *out, struct slice bytes);
/* Appends the octets it stands for, whatever they are: they came from a stranger. ERR_SYNTAX: `out` is unchanged. */
int smtp_xtext_decode(struct buf *out, struct slice xtext);

#endif
