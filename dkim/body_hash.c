#include "dkim/body_hash.h"

#include "base/base.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>

struct dkim_body_hash {
	gnutls_hash_hd_t sha256;
	struct dkim_body_canon canon;
};

/* GnuTLS refuses SHA-256 only when its self-tests have failed: nothing could be signed or encrypted then. */
struct dkim_body_hash *dkim_body_hash_new(enum dkim_canon canon)
{
	struct dkim_body_hash *hash = xcalloc(1, sizeof(*hash));

	BUG_ON(gnutls_hash_init(&hash->sha256, GNUTLS_DIG_SHA256) < 0);
	dkim_body_canon_init(&hash->canon, canon);
	return hash;
}

void dkim_body_hash_free(struct dkim_body_hash **hash)
{
	if (!*hash)
		return;
	gnutls_hash_deinit((*hash)->sha256, NULL);
	free(*hash);
	*hash = NULL;
}

static void on_canonical(void *ctx, struct slice bytes)
{
	struct dkim_body_hash *hash = ctx;
	BUG_ON(gnutls_hash(hash->sha256, bytes.ptr, bytes.len) < 0);
}

void dkim_body_hash_update(struct dkim_body_hash *hash, struct slice piece)
{
	dkim_body_canon_update(&hash->canon, piece, on_canonical, hash);
}

void dkim_body_hash_final(struct dkim_body_hash *hash, unsigned char out[DKIM_DIGEST_BYTES])
{
	dkim_body_canon_final(&hash->canon, on_canonical, hash);
	gnutls_hash_output(hash->sha256, out);
}
