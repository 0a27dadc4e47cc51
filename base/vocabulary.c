#include "base/vocabulary.h"

#include "base/base.h"
#include "base/outcome.h"

static const char *const outcome_names[] = {"none", "delivered", "deferred", "failed", "expired", "deleted"};
static const char *const class_names[] = {"none",   "greylist", "throttle", "auth", "mailbox",
					  "policy", "connect",	"dns",	    "tls",  "other"};
static const char *const state_names[] = {"ready", "inflight", "deferred", "held"};
static const char *const message_class_names[] = {"default", "transactional", "bulk"};

static const char *name_of(const char *const *names, size_t count, unsigned value)
{
	return value < count ? names[value] : "unknown";
}

static bool value_of(const char *const *names, size_t count, struct slice word, unsigned *value)
{
	for (size_t i = 0; i < count; i++)
		if (slice_eq(slice_of_str(names[i]), word)) {
			*value = (unsigned)i;
			return true;
		}
	return false;
}

const char *outcome_kind_name(enum outcome_kind kind)
{
	return name_of(outcome_names, ARRAY_LEN(outcome_names), kind);
}

const char *failure_class_name(enum failure_class class)
{
	return name_of(class_names, ARRAY_LEN(class_names), class);
}

const char *message_state_name(enum message_state state)
{
	return name_of(state_names, ARRAY_LEN(state_names), state);
}

const char *message_class_name(enum message_class class)
{
	return name_of(message_class_names, ARRAY_LEN(message_class_names), class);
}

bool message_class_parse(struct slice word, enum message_class *class)
{
	unsigned value = 0;
	bool known = value_of(message_class_names, ARRAY_LEN(message_class_names), word, &value);
	if (known)
		*class = value;
	return known;
}

const char *delivery_stage_name(enum delivery_stage stage)
{
	static const char *const names[STAGE_COUNT] = {"none", "route", "dns",	"connect", "greeting", "tls",
						       "auth", "mail",	"rcpt", "data",	   "dot",      "queue"};
	return name_of(names, STAGE_COUNT, stage);
}
