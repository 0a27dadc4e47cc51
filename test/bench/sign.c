/*
 * test/bench/sign.c - what a signature itself costs: the private-key operation of dkim/key.h, alone in one thread
 */
#include "test/bench/bench.h"

#include "dkim/key.h"

#include <getopt.h>
#include <sodium.h>

static void measure(const char *name, enum dkim_algorithm algorithm, unsigned bits, double seconds)
{
	unsigned char digest[DKIM_DIGEST_BYTES], signature[DKIM_SIGNATURE_MAX_BYTES];
	struct dkim_key *key = NULL;
	struct err err = {0};
	int64_t begin, cpu;
	uint64_t count = 0;
	size_t len;

	if (dkim_key_generate(algorithm, bits, &key, &err) < 0)
		die("%s: %s", name, err.text);
	memset(digest, 0x5a, sizeof(digest));
	begin = now_ns();
	cpu = cpu_us();
	for (; (double)(now_ns() - begin) < seconds * 1e9; count++) {
		digest[count % sizeof(digest)]++;
		if (dkim_key_sign(key, digest, signature, &len) < 0)
			die("%s: signing failed", name);
	}
	printf("%s_signs_per_s=%.1f\n%s_cpu_us=%.1f\n", name, (double)count * 1e9 / (double)(now_ns() - begin), name,
	       (double)(cpu_us() - cpu) / (double)count);
	dkim_key_free(&key);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"seconds", 1, NULL, 't'}, {NULL, 0, NULL, 0}};
	double seconds = 1;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c != 't')
			die("sign [--seconds N]");
		seconds = strtod(optarg, NULL);
	}
	if (sodium_init() < 0)
		die("libsodium cannot be initialised");
	measure("rsa_2048", DKIM_RSA_SHA256, 2048, seconds);
	measure("ed25519", DKIM_ED25519_SHA256, 0, seconds);
	return 0;
}
