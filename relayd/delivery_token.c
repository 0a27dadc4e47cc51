/* The access token of a relayhost with oauth2: asked for before anything is connected, and once more when it is
 * refused. */
#include "relayd/delivery_internal.h"

#include "config/secret.h"

#include <stdio.h>

bool delivery_wants_token(const struct config_relayhost *relayhost)
{
	return relayhost && relayhost->oauth2.provider != CONFIG_OAUTH2_NONE;
}

static void on_token(void *ctx, const char *token, uint64_t number, const char *why)
{
	struct delivery *d = ctx;
	char text[512];

	d->token_request = 0;
	config_secret_wipe(&d->token);
	if (!token) {
		snprintf(text, sizeof(text), "no access token: %.400s", why);
		delivery_candidate_fault(d, STAGE_AUTH, CLASS_AUTH, text);
		delivery_fail_destination(d);
		return;
	}
	d->token = xstrdup(token);
	d->token_number = number;
	if (d->current)
		delivery_retry_current(d);
	else
		delivery_find_hosts(d);
}

void delivery_ask_token(struct delivery *d)
{
	d->token_request = oauth2_ask(d->owner->options.oauth2, d->destination->id.name, on_token, d);
}

bool delivery_renew_token(struct delivery *d, const struct smtp_client_result *result)
{
	bool is_refusal =
	    result->cause == SMTP_CLIENT_REPLIED && result->stage == STAGE_AUTH && result->reply.code >= 500;

	if (!is_refusal || !d->token || d->has_renewed_token ||
	    !oauth2_on_refused(d->owner->options.oauth2, d->destination->id.name, d->token_number))
		return false;
	d->has_renewed_token = true;
	delivery_drop_connection(d);
	delivery_ask_token(d);
	return true;
}

void delivery_drop_token(struct delivery *d)
{
	if (d->token_request)
		oauth2_cancel(d->owner->options.oauth2, &d->token_request);
	config_secret_wipe(&d->token);
}
