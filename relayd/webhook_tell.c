/* Which events are to be told, and which of them matter most. */
#include "relayd/webhook.h"

#include "base/base.h"

static bool is_wanted(const struct webhook *webhook, enum outcome_kind kind)
{
	switch (kind) {
	case OUTCOME_DELIVERED: return webhook_wants(webhook, CONFIG_EVENT_DELIVERED);
	case OUTCOME_DEFERRED: return webhook_wants(webhook, CONFIG_EVENT_DEFERRED);
	case OUTCOME_FAILED: return webhook_wants(webhook, CONFIG_EVENT_FAILED);
	case OUTCOME_EXPIRED:
		return webhook_wants(webhook, CONFIG_EVENT_EXPIRED) || webhook_wants(webhook, CONFIG_EVENT_FAILED);
	case OUTCOME_DELETED: return webhook_wants(webhook, CONFIG_EVENT_DELETED);
	case OUTCOME_NONE: break;
	}
	return false;
}

int webhook_tell_outcome(struct webhook *webhook, const struct event_outcome *event, bool must_be_told, bool *is_told,
			 void (*cb)(void *ctx, enum err_code result), void *ctx)
{
	enum outcome_kind kind = event->outcome->kind;
	bool unused, *told = is_told ? is_told : &unused;
	struct buf text;
	int rc;

	*told = must_be_told || is_wanted(webhook, kind);
	if (!*told)
		return 0;
	buf_init(&text, EVENT_MAX_BYTES);
	rc = event_put_outcome(&text, event);
	if (rc == 0)
		rc =
		    webhook_tell(webhook, buf_slice(&text), kind == OUTCOME_FAILED || kind == OUTCOME_EXPIRED, cb, ctx);
	buf_fini(&text);
	return rc;
}

void webhook_tell_alert(struct webhook *webhook, struct event_alert *alert)
{
	struct buf text;

	if (!webhook_wants(webhook, CONFIG_EVENT_ALERT))
		return;
	alert->relay = webhook_relay_name(webhook);
	buf_init(&text, EVENT_MAX_BYTES);
	if (event_put_alert(&text, alert) == 0)
		webhook_tell(webhook, buf_slice(&text), true, NULL, NULL);
	buf_fini(&text);
}
