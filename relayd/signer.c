#include "relayd/signer.h"

#include "base/base.h"
#include "dkim/select.h"

#include <stdlib.h>

enum { SIGN_TIMEOUT_MS = 10 * 1000, DAY_MS = 24 * 3600 * 1000 };

struct signer {
	struct loop *loop;
	struct helpers *helpers;
	struct metrics *metrics;
	const struct clock *clock;
	struct config *config;
	struct dkim_domains *domains; /* ids are indexes of config->dkim.domains */
	struct series *ok[DKIM_ALGORITHM_COUNT], *failed[DKIM_ALGORITHM_COUNT];
};

struct signing {
	struct signer *signer;
	signer_cb *cb;
	void *ctx;
	timer_id timer;
	size_t count, answered;
	struct dkim_signature signatures[DKIM_SIGNERS_MAX];
	struct buf finished[DKIM_SIGNERS_MAX];
	uint64_t requests[DKIM_SIGNERS_MAX];
	struct request {
		struct signing *signing;
		size_t index;
	} slots[DKIM_SIGNERS_MAX];
};

struct signer *signer_new(struct loop *loop, struct helpers *helpers, struct metrics *metrics,
			  const struct clock *clock)
{
	struct signer *signer = xcalloc(1, sizeof(*signer));

	*signer = (struct signer){.loop = loop, .helpers = helpers, .metrics = metrics, .clock = clock};
	for (int a = 0; a < DKIM_ALGORITHM_COUNT; a++) {
		signer->ok[a] = metrics_series(metrics, METRIC_DKIM_SIGNATURES, dkim_algorithm_name(a), "ok", NULL);
		signer->failed[a] =
		    metrics_series(metrics, METRIC_DKIM_SIGNATURES, dkim_algorithm_name(a), "failed", NULL);
	}
	return signer;
}

void signer_free(struct signer **signer)
{
	if (!*signer)
		return;
	dkim_domains_free(&(*signer)->domains);
	config_free(&(*signer)->config);
	free(*signer);
	*signer = NULL;
}

int signer_configure(struct signer *signer, struct config *config, struct err *err)
{
	struct dkim_domains *domains = dkim_domains_new();
	struct config *old = signer->config;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < config->dkim.domain_count; i++)
		rc = dkim_domains_add(domains, slice_of_str(config->dkim.domains[i].domain), (uint32_t)i, err);
	if (rc == 0 && config->dkim.default_domain)
		rc = dkim_domains_set_default(domains, slice_of_str(config->dkim.default_domain));
	if (rc != 0) {
		dkim_domains_free(&domains);
		return ERR_CONFIG;
	}
	dkim_domains_free(&signer->domains);
	signer->domains = domains;
	signer->config = config_ref(config);
	config_free(&old);
	return 0;
}

static void signing_free(struct signing *signing)
{
	timers_cancel(loop_timers(signing->signer->loop), &signing->timer);
	for (size_t i = 0; i < signing->count; i++) {
		helpers_cancel(signing->signer->helpers, &signing->requests[i]);
		dkim_signature_fini(&signing->signatures[i]);
		buf_fini(&signing->finished[i]);
	}
	free(signing);
}

void signer_cancel(struct signing **signing)
{
	if (*signing)
		signing_free(*signing);
	*signing = NULL;
}

static void finish(struct signing *signing, enum err_code result)
{
	signer_cb *cb = signing->cb;
	void *ctx = signing->ctx;
	struct buf all;

	buf_init(&all, DKIM_SIGNERS_MAX * DKIM_FIELD_MAX_BYTES);
	for (size_t i = 0; result == 0 && i < signing->count; i++)
		buf_append(&all, buf_slice(&signing->finished[i]));
	signing_free(signing);
	cb(ctx, result, buf_slice(&all));
	buf_fini(&all);
}

static void on_timeout(void *ctx)
{
	finish(ctx, ERR_TEMPORARY);
}

static void on_signed(void *ctx, enum err_code result, struct slice signature)
{
	struct request *request = ctx;
	struct signing *signing = request->signing;
	struct dkim_signature *prepared = &signing->signatures[request->index];

	signing->requests[request->index] = 0;
	if (result == 0)
		result = (enum err_code)dkim_signature_finish(prepared, signature, &signing->finished[request->index]);
	series_add(
	    result == 0 ? signing->signer->ok[prepared->algorithm] : signing->signer->failed[prepared->algorithm], 1);
	if (result != 0 || ++signing->answered == signing->count)
		finish(signing, result);
}

struct signing *signer_sign(struct signer *signer, const struct signer_message *message, signer_cb *cb, void *ctx,
			    int *result)
{
	const struct config_dkim_domain *domain;
	struct dkim_signer signers[DKIM_SIGNERS_MAX];
	int64_t now = clock_wall_ms(signer->clock);
	struct dkim_message to_sign = {.fields = message->fields,
				       .field_count = message->field_count,
				       .body_hash = message->body_hash,
				       .signed_at_sec = now / 1000,
				       .expires_at_sec = (message->expires_wall + DAY_MS) / 1000 + 1,
				       .omit = message->omit,
				       .omit_count = message->omit_count};
	struct signing *signing;
	uint32_t id;
	size_t count;

	*result = 0;
	if (!dkim_domains_find(signer->domains, message->from_domain, &to_sign.domain, &id))
		return NULL;
	domain = &signer->config->dkim.domains[id];
	count = MIN(domain->key_count, (size_t)DKIM_SIGNERS_MAX);
	for (size_t i = 0; i < count; i++)
		signers[i] = (struct dkim_signer){slice_of_str(domain->keys[i].selector),
						  helpers_key_algorithm(signer->helpers, id, (uint32_t)i)};
	signing = xcalloc(1, sizeof(*signing));
	*signing = (struct signing){.signer = signer, .cb = cb, .ctx = ctx, .count = count};
	*result = dkim_signature_prepare(signing->signatures, signers, count, &to_sign, NULL);
	if (*result != 0) {
		free(signing);
		return NULL;
	}
	for (size_t i = 0; i < count; i++) {
		buf_init(&signing->finished[i], DKIM_FIELD_MAX_BYTES);
		signing->slots[i] = (struct request){signing, i};
		signing->requests[i] = helpers_sign(signer->helpers, id, (uint32_t)i, signing->signatures[i].digest,
						    on_signed, &signing->slots[i]);
	}
	timers_set(loop_timers(signer->loop), &signing->timer, loop_now_ms(signer->loop) + SIGN_TIMEOUT_MS, on_timeout,
		   signing);
	return signing;
}
