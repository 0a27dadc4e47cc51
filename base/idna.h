/*
 * base/idna.h - the labels of a domain as DNS has them: U-labels become A-labels (RFC 5891, mapped as UTS 46 says)
 *
 * GnuTLS (with libidn2) does it, but for a relay too kindly: it drops what it does not like (a blank, "_", a soft hyphen,
 * a full-width "!") and tries the mapping of 2003 when that of 2008 refuses ("ß" becomes "ss" then). Either way mail
 * would go to a domain that nobody has written. Here such a domain is refused.
 */
#ifndef BASE_IDNA_H
#define BASE_IDNA_H

#include "base/buf.h"

/* Appends the domain; its ASCII labels stay what they are, of whatever kind. False: a label that is not ASCII is no
 * U-label, not even after mapping to lower case and NFC, or there is no room; `out` may have grown then. */
bool idna_append_ascii(struct buf *out, struct slice domain);

#endif
