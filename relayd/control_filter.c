#include "relayd/control_filter.h"

#include "base/base.h"
#include "config/values.h"

#include <stdlib.h>

static const char *const names[] = {"state", "domain", "recipient", "sender",	"user",
				    "class", "reason", "age",	    "relayhost"};

bool control_filter_has_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

/* ---- from the request ---- */

static const char *state_word(int number)
{
	return message_state_name((enum message_state)number);
}

static const char *class_word(int number)
{
	return message_class_name((enum message_class)number);
}

static const char *reason_word(int number)
{
	return failure_class_name((enum failure_class)number);
}

/* One word of a vocabulary, `first` to `count` - 1. */
static int parse_word(const char *what, const char *word, const char *(*name)(int number), int first, int count,
		      struct http_response *response)
{
	struct buf known;

	for (int number = first; number < count; number++)
		if (strcmp(name(number), word) == 0)
			return number;
	buf_init(&known, 1024);
	for (int number = first; number < count; number++)
		buf_printf(&known, "%s%s", number > first ? ", " : "", name(number));
	control_refuse(response, 400, "unknown %s '%.64s'; there are %.*s", what, word, SLICE_ARG(buf_slice(&known)));
	buf_fini(&known);
	return ERR_SYNTAX;
}

static int parse_words(struct control_filter *filter, control_value *value, const void *ctx,
		       struct http_response *response)
{
	const char *state = value(ctx, "state"), *class = value(ctx, "class"), *reason = value(ctx, "reason");
	int number = 0;

	if (state && (number = parse_word("state", state, state_word, 0, STATE_COUNT, response)) < 0)
		return number;
	filter->has_state = state != NULL;
	filter->state = (enum message_state)number;
	if (class && (number = parse_word("class", class, class_word, 0, MESSAGE_CLASS_COUNT, response)) < 0)
		return number;
	filter->has_class = class != NULL;
	filter->class = (enum message_class)number;
	if (reason && (number = parse_word("reason", reason, reason_word, CLASS_GREYLIST, CLASS_COUNT, response)) < 0)
		return number;
	filter->has_reason = reason != NULL;
	filter->reason = (enum failure_class)number;
	return 0;
}

static int parse_age(struct control_filter *filter, const char *text, struct http_response *response)
{
	struct err why;

	if (text && config_duration_parse(slice_of_str(text), &filter->age_ms, &why) != 0) {
		control_refuse(response, 400, "age: '%.64s' %s", text, why.text);
		return ERR_SYNTAX;
	}
	return 0;
}

static int parse_domain(struct control_filter *filter, const char *text, struct http_response *response)
{
	if (!text)
		return 0;
	control_domain_init(&filter->domain, text);
	if (filter->domain.text[0])
		return 0;
	control_refuse(response, 400, "domain wants a name");
	return ERR_SYNTAX;
}

static char *copy(const char *text)
{
	return text ? xstrdup(text) : NULL;
}

int control_filter_init(struct control_filter *filter, control_value *value, const void *ctx,
			struct http_response *response)
{
	*filter = (struct control_filter){0};
	if (parse_words(filter, value, ctx, response) != 0 || parse_age(filter, value(ctx, "age"), response) != 0 ||
	    parse_domain(filter, value(ctx, "domain"), response) != 0)
		return ERR_SYNTAX;
	filter->recipient = copy(value(ctx, "recipient"));
	filter->sender = copy(value(ctx, "sender"));
	filter->user = copy(value(ctx, "user"));
	filter->relayhost = copy(value(ctx, "relayhost"));
	return 0;
}

void control_filter_fini(struct control_filter *filter)
{
	free(filter->recipient);
	free(filter->sender);
	free(filter->user);
	free(filter->relayhost);
	*filter = (struct control_filter){0};
}

/* ---- asking it ---- */

bool control_filter_wants_message(const struct control_filter *filter)
{
	return filter->domain.text[0] || filter->recipient || filter->sender || filter->user || filter->relayhost;
}

bool control_filter_is_empty(const struct control_filter *filter)
{
	return !filter->has_state && !filter->has_class && !filter->has_reason && filter->age_ms == 0 &&
	       !control_filter_wants_message(filter);
}

bool control_filter_takes_brief(const struct control_filter *filter, const struct queue_brief *brief, int64_t now_wall)
{
	return (!filter->has_state || brief->state == filter->state) &&
	       (!filter->has_class || brief->class == filter->class) &&
	       (!filter->has_reason || brief->reason == filter->reason) &&
	       (filter->age_ms == 0 || now_wall - brief->arrived_wall >= filter->age_ms);
}

static bool takes_sender(const struct control_filter *filter, struct slice sender)
{
	struct slice wanted = filter->sender ? slice_of_str(filter->sender) : sender;

	return slice_case_eq(sender, slice_eq(wanted, SLICE("<>")) ? SLICE("") : wanted);
}

static bool goes_by(struct control *control, const struct queue_message *message, uint32_t r, const char *relayhost)
{
	struct scheduler_targets targets;
	bool is_mx = strcmp(relayhost, "mx") == 0;

	control_route(control, &message->envelope, r, &targets);
	for (size_t i = 0; i < targets.count; i++) {
		const struct destination_id *id = &targets.targets[i];
		if (id->kind == DESTINATION_MX ? is_mx : strcmp(id->name, relayhost) == 0)
			return true;
	}
	return false;
}

static bool takes_recipient(const struct control_filter *filter, struct control *control,
			    const struct queue_message *message, uint32_t r)
{
	struct slice address = message->envelope.recipients[r].address;

	return message->status[r].state != QUEUE_FINAL && control_domain_matches(&filter->domain, address) &&
	       (!filter->recipient || slice_case_eq(address, slice_of_str(filter->recipient))) &&
	       (!filter->relayhost || goes_by(control, message, r, filter->relayhost));
}

bool control_filter_takes_message(const struct control_filter *filter, struct control *control,
				  const struct queue_message *message)
{
	if (!takes_sender(filter, message->envelope.sender) ||
	    (filter->user && !slice_eq(message->envelope.user, slice_of_str(filter->user))))
		return false;
	for (uint32_t r = 0; r < message->envelope.recipient_count; r++)
		if (takes_recipient(filter, control, message, r))
			return true;
	return false;
}

void control_filter_format(const struct control_filter *filter, struct buf *out)
{
	const struct {
		const char *name, *value;
	} parts[] = {{"state", filter->has_state ? message_state_name(filter->state) : NULL},
		     {"domain", filter->domain.text[0] ? filter->domain.text : NULL},
		     {"recipient", filter->recipient},
		     {"sender", filter->sender},
		     {"user", filter->user},
		     {"class", filter->has_class ? message_class_name(filter->class) : NULL},
		     {"reason", filter->has_reason ? failure_class_name(filter->reason) : NULL},
		     {"relayhost", filter->relayhost}};
	const char *gap = "";

	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		if (!parts[i].value)
			continue;
		buf_printf(out, "%s%s=%s", gap, parts[i].name, parts[i].value);
		gap = " ";
	}
	if (filter->age_ms > 0) {
		buf_printf(out, "%sage=", gap);
		config_duration_format(filter->age_ms, out);
	}
}
