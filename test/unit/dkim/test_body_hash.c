#include "support_dkim.h"

#include "dkim/body_hash.h"

#include <gnutls/crypto.h>

static void digest_of_canonical(struct slice body, bool is_relaxed, unsigned char *digest)
{
	struct buf canonical;

	buf_init(&canonical, body.len + 2);
	plain_body(&canonical, body, is_relaxed);
	assert_int_equal(
	    gnutls_hash_fast(GNUTLS_DIG_SHA256, canonical.data ? canonical.data : "", buf_len(&canonical), digest), 0);
	buf_fini(&canonical);
}

static const char body[] = "Dear all,\r\n\r\n  an indented line\twith a tab,  and trailing blanks \t\r\n"
			   "a line that is long enough for whole blocks to go through in one piece, and ends here\r\n"
			   "\xc3\xa4\xc3\xb6 8-bit\r\n \r\n.\r\n\r\n\r\n";

static void hash_pieces(struct dkim_body_hash *hash, size_t piece, unsigned char *digest)
{
	struct slice all = SLICE(body);

	for (size_t at = 0; at < all.len; at += piece)
		dkim_body_hash_update(hash, slice_to(slice_from(all, at), piece));
	dkim_body_hash_final(hash, digest);
}

static void pieces_of_any_size_give_the_same_hash(void **state)
{
	struct dkim_body_hash *hash = dkim_body_hash_new(DKIM_CANON_RELAXED);
	unsigned char wanted[DKIM_DIGEST_BYTES], digest[DKIM_DIGEST_BYTES];
	(void)state;

	digest_of_canonical(SLICE(body), true, wanted);
	for (size_t piece = 1; piece <= sizeof(body); piece++) {
		hash_pieces(hash, piece, digest);
		assert_memory_equal(digest, wanted, sizeof(digest));
	}
	dkim_body_hash_free(&hash);
	assert_null(hash);
	dkim_body_hash_free(&hash);
}

static void each_form_has_its_own_hash(void **state)
{
	struct dkim_body_hash *relaxed = dkim_body_hash_new(DKIM_CANON_RELAXED);
	struct dkim_body_hash *simple = dkim_body_hash_new(DKIM_CANON_SIMPLE);
	unsigned char a[DKIM_DIGEST_BYTES], b[DKIM_DIGEST_BYTES];
	(void)state;

	hash_pieces(relaxed, 1000, a);
	hash_pieces(simple, 1000, b);
	assert_memory_not_equal(a, b, sizeof(a));
	dkim_body_hash_free(&relaxed);
	dkim_body_hash_free(&simple);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(pieces_of_any_size_give_the_same_hash),
	    cmocka_unit_test(each_form_has_its_own_hash),
	};
	return cmocka_run_group_tests_name("body hash", tests, NULL, NULL);
}
