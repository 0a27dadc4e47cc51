#include "relayd/router.h"

#include "base/base.h"
#include "dkim/select.h"
#include "relayd/outcome.h"

#include <ctype.h>
#include <stdio.h>

int router_domain_of(struct slice address, char *out, size_t size)
{
	ptrdiff_t at = slice_find_last(address, '@');
	struct slice domain = slice_from(address, (size_t)(at + 1));
	char ascii[DKIM_DOMAIN_MAX_BYTES + 1];

	if (at < 0 || domain.len == 0)
		return ERR_SYNTAX;
	if (domain.ptr[0] == '[') {
		if (!slice_to_cstr(domain, out, size))
			return ERR_SYNTAX;
		for (char *c = out; *c; c++)
			*c = (char)tolower((unsigned char)*c);
		return 0;
	}
	if (dkim_domain_to_ascii(domain, ascii) != 0 || strlen(ascii) >= size)
		return ERR_SYNTAX;
	snprintf(out, size, "%s", ascii);
	return 0;
}

enum config_tls_level router_default_tls(enum destination_kind kind)
{
	return kind == DESTINATION_MX ? CONFIG_TLS_OPPORTUNISTIC : CONFIG_TLS_VERIFY;
}

static bool names_user(const struct config_texts *users, struct slice user)
{
	for (size_t i = 0; i < users->count; i++)
		if (slice_eq(slice_of_str(users->items[i]), user))
			return true;
	return false;
}

static bool sender_matches(const struct config_patterns *patterns, const struct router_question *question)
{
	char address[DESTINATION_NAME_MAX + 2];

	if (config_patterns_match(patterns, question->sender))
		return true;
	if (question->sender.len > 0 || question->from_domain.len == 0)
		return false;
	snprintf(address, sizeof(address), "@%.*s", SLICE_ARG(question->from_domain));
	return config_patterns_match(patterns, slice_of_str(address));
}

static bool route_matches(const struct config_route *route, const struct router_question *question)
{
	return (route->from.count == 0 || sender_matches(&route->from, question)) &&
	       (route->to.count == 0 || config_patterns_match(&route->to, question->recipient)) &&
	       (route->user.count == 0 || names_user(&route->user, question->user));
}

/* `route` NULL: the default. */
static void add_target(struct scheduler_targets *out, enum destination_kind kind, const struct config_route *route,
		       const char *name)
{
	struct destination_id *target;

	if (out->count == SCHEDULER_TARGETS_MAX)
		return;
	target = &out->targets[out->count++];
	target->kind = kind;
	target->tls = route ? route->tls : CONFIG_TLS_UNSET;
	snprintf(target->name, sizeof(target->name), "%s", name);
	if (route && route->rate.count > 0)
		snprintf(target->route, sizeof(target->route), "%.*s", DESTINATION_ROUTE_MAX - 1, route->name);
}

static void add_mx(struct scheduler_targets *out, const struct config_route *route, struct slice recipient)
{
	struct outcome_place place = {STAGE_ROUTE, "", false, 0};
	char domain[DESTINATION_NAME_MAX];

	if (router_domain_of(recipient, domain, sizeof(domain)) == 0)
		add_target(out, DESTINATION_MX, route, domain);
	else if (out->count == 0)
		outcome_of_fault(&out->failure, &place, OUTCOME_FAILED, CLASS_DNS, "5.1.2",
				 "the recipient's domain is not a valid domain name");
}

/* The end of the road, and a good one. */
static void discard(struct scheduler_targets *out, const struct config_route *route)
{
	out->failure = (struct outcome){.kind = OUTCOME_DELIVERED, .stage = STAGE_ROUTE};
	snprintf(out->failure.enhanced, sizeof(out->failure.enhanced), "2.0.0");
	snprintf(out->failure.host, sizeof(out->failure.host), "discard");
	snprintf(out->failure.text, sizeof(out->failure.text), "discarded by %.200s, not sent", route->name);
}

static void follow_route(const struct config_route *route, struct slice recipient, struct scheduler_targets *out)
{
	for (size_t i = 0; i < route->via.count; i++) {
		const struct config_via *via = &route->via.items[i];
		if (via->kind == CONFIG_VIA_MX)
			add_mx(out, route, recipient);
		else if (via->kind == CONFIG_VIA_RELAYHOST)
			add_target(out, DESTINATION_RELAYHOST, route, via->name);
		else if (via->kind == CONFIG_VIA_CAPTURE)
			add_target(out, DESTINATION_CAPTURE, route, "captured");
		else
			discard(out, route);
	}
}

/* Among the default relayhosts that are not in `used`, those of the lowest priority; one of them by weight. -1: none.
 */
static ptrdiff_t draw_relayhost(const struct config *config, struct rng *rng, const bool *used)
{
	int64_t priority = INT64_MAX, weights = 0;
	uint64_t drawn;

	for (size_t i = 0; i < config->relayhost_count; i++)
		if (config->relayhosts[i].is_default && !used[i])
			priority = MIN(priority, config->relayhosts[i].priority);
	for (size_t i = 0; i < config->relayhost_count; i++)
		if (config->relayhosts[i].is_default && !used[i] && config->relayhosts[i].priority == priority)
			weights += config->relayhosts[i].weight;
	drawn = rng_below(rng, (uint64_t)weights);
	for (size_t i = 0; i < config->relayhost_count; i++) {
		if (!config->relayhosts[i].is_default || used[i] || config->relayhosts[i].priority != priority)
			continue;
		if (drawn < (uint64_t)config->relayhosts[i].weight || weights == 0)
			return (ptrdiff_t)i;
		drawn -= (uint64_t)config->relayhosts[i].weight;
	}
	return -1;
}

static void follow_default(const struct config *config, struct rng *rng, struct slice recipient,
			   struct scheduler_targets *out)
{
	enum { RELAYHOSTS_MAX = 256 };
	bool used[RELAYHOSTS_MAX] = {false};
	ptrdiff_t drawn;

	if (config->relayhost_count <= RELAYHOSTS_MAX)
		while (out->count < SCHEDULER_TARGETS_MAX && (drawn = draw_relayhost(config, rng, used)) >= 0) {
			used[drawn] = true;
			add_target(out, DESTINATION_RELAYHOST, NULL, config->relayhosts[drawn].name);
		}
	if (out->count == 0)
		add_mx(out, NULL, recipient);
}

/* The user's own. One that the operator has taken away since is waited for: the mail is not lost, and may not go out
 * under another account. */
static void follow_user(const struct config *config, struct slice name, struct scheduler_targets *out)
{
	const struct config_relayhost *relayhost = config_find_relayhost(config, name);
	struct outcome_place place = {STAGE_ROUTE, "", false, 0};
	char text[160];

	if (relayhost) {
		add_target(out, DESTINATION_RELAYHOST, NULL, relayhost->name);
		return;
	}
	snprintf(text, sizeof(text), "the relayhost '%.*s' of the user who sent this is not configured any more",
		 (int)MIN(name.len, 64u), name.ptr);
	outcome_of_fault(&out->failure, &place, OUTCOME_DEFERRED, CLASS_OTHER, "4.3.5", text);
}

struct router_question router_question_of(const struct queue_envelope *envelope, uint32_t recipient)
{
	return (struct router_question){.sender = envelope->sender,
					.from_domain = envelope->from_domain,
					.user = envelope->user,
					.recipient = envelope->recipients[recipient].address,
					.relayhost = envelope->relayhost,
					.tls_optional = envelope->flags & QUEUE_TLS_OPTIONAL};
}

/* The sender's "TLS-Required: No" stands above what the recipient's domain asks for, not above the operator's word. A
 * relayhost is the operator's word, and reads the field itself. */
static void relax_tls(struct scheduler_targets *out)
{
	for (size_t i = 0; i < out->count; i++) {
		struct destination_id *id = &out->targets[i];
		if (id->kind != DESTINATION_MX || (id->tls != CONFIG_TLS_UNSET && id->tls != CONFIG_TLS_OPPORTUNISTIC))
			continue;
		id->tls = CONFIG_TLS_UNSET;
		id->tls_optional = true;
	}
}

static void decide(const struct config *config, struct rng *rng, const struct router_question *question,
		   struct scheduler_targets *out, const struct config_route **route)
{
	if (question->relayhost.len > 0) {
		follow_user(config, question->relayhost, out);
		return;
	}
	for (size_t i = 0; i < config->route_count; i++) {
		if (!route_matches(&config->routes[i], question))
			continue;
		*route = &config->routes[i];
		follow_route(&config->routes[i], question->recipient, out);
		return;
	}
	follow_default(config, rng, question->recipient, out);
}

void router_decide(const struct config *config, struct rng *rng, const struct router_question *question,
		   struct scheduler_targets *out, const struct config_route **route)
{
	const struct config_route *decided = NULL;

	*out = (struct scheduler_targets){0};
	decide(config, rng, question, out, &decided);
	if (question->tls_optional)
		relax_tls(out);
	if (route)
		*route = decided;
}
