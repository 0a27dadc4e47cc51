/*
 * dkim/body_hash.h - SHA-256 of a body's canonical form, while the body arrives (the bh= tag)
 *
 * One object per message under way (about 500 bytes), usable again after _final(). Runs at memory speed on ordinary
 * mail: what is canonical already goes to the hash in place.
 */
#ifndef DKIM_BODY_HASH_H
#define DKIM_BODY_HASH_H

#include "dkim/canon.h"
#include "dkim/dkim.h"

struct dkim_body_hash;

struct dkim_body_hash *dkim_body_hash_new(enum dkim_canon canon);
/* Accepts NULL in *hash; sets it to NULL. */
void dkim_body_hash_free(struct dkim_body_hash **hash);
/* The next piece, cut anywhere: after dot-unstuffing, with CRLF as line ends. */
void dkim_body_hash_update(struct dkim_body_hash *hash, struct slice piece);
/* Ends this body and makes the object ready for another. */
void dkim_body_hash_final(struct dkim_body_hash *hash, unsigned char out[DKIM_DIGEST_BYTES]);

#endif
