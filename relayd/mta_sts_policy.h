/*
 * relayd/mta_sts_policy.h - what a domain says of its mail hosts: the TXT record and the policy of MTA-STS (RFC 8461)
 *
 * Pure: text in, values out. Both texts come from strangers. Which policy holds, for how long, and where it comes from:
 * relayd/mta_sts.h.
 */
#ifndef RELAYD_MTA_STS_POLICY_H
#define RELAYD_MTA_STS_POLICY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

enum {
	MTA_STS_ID_MAX = 32,		   /* section 3.1 */
	MTA_STS_TEXT_MAX = 64 * 1024,	   /* section 3.3 */
	MTA_STS_PATTERNS_MAX = 256,	   /* ours: a policy with more is refused */
	MTA_STS_MAX_AGE_MAX_SEC = 31557600 /* section 3.2 */
};

/* ---- the record at _mta-sts.DOMAIN (section 3.1) ---- */

/* 1: an STSv1 record, its id is in `id`. 0: a TXT record of something else. ERR_SYNTAX: one of ours, but broken. */
int mta_sts_record_parse(struct slice text, char id[MTA_STS_ID_MAX + 1]);

/* ---- the policy (section 3.2) ---- */

enum mta_sts_mode { MTA_STS_NONE = 0, MTA_STS_TESTING, MTA_STS_ENFORCE };
/* "none", "testing", "enforce". */
const char *mta_sts_mode_name(enum mta_sts_mode mode);
bool mta_sts_mode_parse(struct slice word, enum mta_sts_mode *mode);

/* Immutable and counted. */
struct mta_sts_policy {
	unsigned references;
	enum mta_sts_mode mode;
	int64_t max_age_sec;
	size_t pattern_count; /* at least 1, unless mode is none */
	char **patterns;      /* lower case, no trailing dot: "mx.example.net", "*.example.net" */
	size_t bytes;	      /* of memory, about */
};

/* Lines end with LF or CRLF; unknown fields are passed over, of doubled ones the first counts. NULL with words: no
 * STSv1, no or bad mode, max_age or mx, too long, too many patterns. */
struct mta_sts_policy *mta_sts_policy_parse(struct slice text, struct err *err);
struct mta_sts_policy *mta_sts_policy_ref(struct mta_sts_policy *policy);
/* Sets *policy to NULL, accepts NULL. */
void mta_sts_policy_unref(struct mta_sts_policy **policy);
/* The same as text; mta_sts_policy_parse() takes it. */
void mta_sts_policy_format(const struct mta_sts_policy *policy, struct buf *out);
/* Is this host (A-labels, any case) one of the policy's? A wildcard stands for exactly one label (section 4.1). */
bool mta_sts_policy_lists(const struct mta_sts_policy *policy, const char *host);

#endif
