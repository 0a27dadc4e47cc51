/*
 * GET /v1/route - where mail to an address would go now, and why: the rules that change or refuse it, the route, and by
 * MX the hosts with what TLS they get, from real lookups
 *
 * One question at a time: recipients that an alias stands for, then the next hops of each, in order.
 */
#include "relayd/control_internal.h"

#include "base/base.h"
#include "config/words.h"
#include "relayd/policy.h"
#include "relayd/router.h"

#include <stdio.h>
#include <stdlib.h>

enum { RECIPIENTS_MAX = 20, HOSTS_MAX = 10 };

struct routing {
	struct control *control;
	struct http_stream *stream;
	struct policy_address sender;
	char from_domain[DESTINATION_NAME_MAX], *user;
	char *recipients[RECIPIENTS_MAX];
	size_t recipient_count, recipient; /* the one under way */
	struct scheduler_targets targets;  /* of it */
	size_t target;
	bool has_targets, is_waiting;
	uint64_t mx_id;
	struct mx_result *mx;
	struct tls_lookup *tls;
	json_t *document, *list; /* `list`: of the recipient's next hops */
};

static void routing_free(void *ctx)
{
	struct routing *routing = ctx;

	if (routing->mx_id)
		mx_cancel(routing->control->options.mx, &routing->mx_id);
	tls_lookup_free(&routing->tls);
	mx_result_free(&routing->mx);
	for (size_t i = 0; i < routing->recipient_count; i++)
		free(routing->recipients[i]);
	free(routing->user);
	json_decref(routing->document);
	free(routing);
}

static void wake(struct routing *routing)
{
	routing->is_waiting = false;
	http_stream_wake(routing->stream);
}

/* ---- TLS in words ---- */

static const char *level_of(const struct destination_id *id, const struct config_relayhost *relayhost)
{
	enum config_tls_level level = id->tls;

	if (level == CONFIG_TLS_UNSET && relayhost)
		level = relayhost->tls;
	if (level == CONFIG_TLS_UNSET)
		level = router_default_tls(id->kind);
	return config_tls_level_name(level);
}

static const char *mode_words(const struct tls_need *need)
{
	switch (need->mode) {
	case SMTP_CLIENT_TLS_NONE: return "never";
	case SMTP_CLIENT_TLS_OPPORTUNISTIC: return "if the server offers it";
	default: return "required";
	}
}

static json_t *tls_of_host(const struct routing *routing, size_t host)
{
	const struct control_options *o = &routing->control->options;
	const struct tls_facts *facts = tls_lookup_facts(routing->tls, host);
	struct tls_need need;

	tls_policy_decide(o->tls_policy(o->ctx), routing->targets.targets[routing->target].tls, NULL, facts, &need);
	if (need.is_refused)
		return json_pack("{s:s, s:s, s:o}", "tls", "refused", "basis", tls_basis_name(need.basis), "why",
				 control_str(need.why));
	return json_pack("{s:s, s:s, s:s}", "tls", mode_words(&need), "basis", tls_basis_name(need.basis), "why", "");
}

/* ---- one next hop ---- */

static void next_target(struct routing *routing)
{
	routing->target++;
}

static void add_relayhost(struct routing *routing, const struct destination_id *id)
{
	struct control *control = routing->control;
	const struct config_relayhost *relayhost =
	    config_find_relayhost(control_config(control), slice_of_str(id->name));
	const struct destination *d = destinations_find(control->options.destinations, id);
	bool is_paused = pauses_has(control->options.pauses, id->name);
	bool has_trouble = d && d->trouble.kind != OUTCOME_NONE;
	struct buf address;

	buf_init(&address, 1024);
	if (relayhost)
		config_endpoint_format(&relayhost->address, &address);
	json_array_append_new(routing->list,
			      json_pack("{s:s, s:o, s:o, s:s, s:s, s:o}", "kind", "relayhost", "name",
					control_str(id->name), "address", control_text(buf_slice(&address)), "tls",
					level_of(id, relayhost), "state",
					is_paused     ? "paused"
					: has_trouble ? "trouble"
						      : "up",
					"reason", control_str(has_trouble ? d->trouble.text : "")));
	buf_fini(&address);
	next_target(routing);
}

static json_t *host_of(const struct routing *routing, size_t h)
{
	const struct mx_host *host = &routing->mx->hosts[h];
	json_t *object = tls_of_host(routing, h), *addresses = json_array();

	for (size_t a = 0; a < host->address_count; a++) {
		char text[DNS_ADDRESS_TEXT];
		dns_address_format(&host->addresses[a], text);
		json_array_append_new(addresses, json_string(text));
	}
	json_object_set_new(object, "name", control_str(host->name));
	json_object_set_new(object, "preference", json_integer(host->preference));
	json_object_set_new(object, "addresses", addresses);
	return object;
}

static void add_mx(struct routing *routing, bool with_hosts)
{
	const struct destination_id *id = &routing->targets.targets[routing->target];
	const struct destination *d = destinations_find(routing->control->options.destinations, id);
	bool has_trouble = d && d->trouble.kind != OUTCOME_NONE;
	json_t *hosts = json_array();

	for (size_t h = 0; with_hosts && h < routing->mx->host_count && h < HOSTS_MAX; h++)
		json_array_append_new(hosts, host_of(routing, h));
	json_array_append_new(
	    routing->list,
	    json_pack("{s:s, s:o, s:s, s:s, s:o, s:b, s:o, s:s, s:o}", "kind", "mx", "name", control_str(id->name),
		      "tls", level_of(id, NULL), "status", mx_status_name(routing->mx->status), "text",
		      control_str(routing->mx->text), "authenticated", routing->mx->mx_secure, "hosts", hosts, "state",
		      has_trouble ? "trouble" : "up", "reason", control_str(has_trouble ? d->trouble.text : "")));
	tls_lookup_free(&routing->tls);
	mx_result_free(&routing->mx);
	next_target(routing);
}

static void on_tls(void *ctx)
{
	struct routing *routing = ctx;

	add_mx(routing, true);
	wake(routing);
}

static void on_mx(void *ctx, struct mx_result *result)
{
	struct routing *routing = ctx;
	const struct control_options *o = &routing->control->options;
	const struct destination_id *id = &routing->targets.targets[routing->target];
	struct tls_lookup_question question = {.next_hop = id->name,
					       .port = (uint16_t)control_config(routing->control)->delivery.port,
					       .wants_dane = tls_policy_wants_dane(id->tls, NULL),
					       .wants_sts = tls_policy_wants_sts(id->tls, NULL)};

	routing->mx_id = 0;
	routing->mx = result;
	if (result->status != MX_OK) {
		add_mx(routing, false);
		wake(routing);
		return;
	}
	routing->tls = tls_lookup_new(&o->tls, &question);
	for (size_t h = 0; h < result->host_count && h < HOSTS_MAX; h++) {
		const struct mx_host *host = &result->hosts[h];
		struct tls_lookup_host asked = {.name = host->name,
						.canonical = host->canonical,
						.is_name_secure = result->mx_secure,
						.is_secure = host->secure};
		tls_lookup_add_host(routing->tls, &asked);
	}
	tls_lookup_start(routing->tls, on_tls, routing);
}

/* Where nothing is sent. */
static json_t *end_of_road(const char *kind, const char *text, const struct destination *d)
{
	bool has_trouble = d && d->trouble.kind != OUTCOME_NONE;

	return json_pack("{s:s, s:s, s:o, s:s, s:s, s:o}", "kind", kind, "tls", "none", "text", control_str(text),
			 "name", kind, "state", has_trouble ? "trouble" : "up", "reason",
			 control_str(has_trouble ? d->trouble.text : ""));
}

static void begin_target(struct routing *routing)
{
	const struct destination_id *id = &routing->targets.targets[routing->target];

	if (id->kind == DESTINATION_CAPTURE) {
		json_array_append_new(routing->list,
				      end_of_road("capture", "kept in SPOOL/captured, not sent",
						  destinations_find(routing->control->options.destinations, id)));
		next_target(routing);
		return;
	}
	if (id->kind == DESTINATION_RELAYHOST) {
		add_relayhost(routing, id);
		return;
	}
	routing->is_waiting = true;
	routing->mx_id = mx_lookup(routing->control->options.mx, id->name, on_mx, routing);
}

/* ---- one recipient ---- */

static void why_route(const struct config *config, const struct config_route *route, size_t number, char *out,
		      size_t size)
{
	if (route && route->name && *route->name)
		snprintf(out, size, "route %zu (%s) fits first", number, route->name);
	else if (route)
		snprintf(out, size, "route %zu fits first", number);
	else
		snprintf(out, size, "%s, %s", config->route_count > 0 ? "no route fits" : "there are no routes",
			 config->relayhost_count > 0 ? "so it goes by the default relayhosts"
						     : "and no relayhosts, so it goes by MX");
}

static void begin_recipient(struct routing *routing)
{
	const struct config *config = control_config(routing->control);
	struct slice recipient = slice_of_str(routing->recipients[routing->recipient]);
	struct router_question question = {.sender = policy_address_slice(&routing->sender),
					   .from_domain = slice_of_str(routing->from_domain),
					   .user = slice_of_str(routing->user ? routing->user : ""),
					   .recipient = recipient};
	const struct config_route *route = NULL;
	bool is_discarded;
	json_t *object;
	char why[400];

	routing->targets = (struct scheduler_targets){0};
	router_decide(config, rng_system(), &question, &routing->targets, &route);
	why_route(config, route, route ? (size_t)(route - config->routes) + 1 : 0, why, sizeof(why));
	is_discarded = routing->targets.count == 0 && routing->targets.failure.kind == OUTCOME_DELIVERED;
	routing->list = json_array();
	object =
	    json_pack("{s:o, s:o, s:o, s:o}", "address", control_text(recipient), "why", control_str(why), "failure",
		      control_str(routing->targets.count || is_discarded ? "" : routing->targets.failure.text),
		      "next_hops", routing->list);
	if (is_discarded)
		json_array_append_new(routing->list, end_of_road("discard", routing->targets.failure.text, NULL));
	json_array_append_new(json_object_get(routing->document, "recipients"), object);
	routing->target = 0;
	routing->has_targets = true;
}

static enum http_more routing_next(void *ctx, struct buf *out)
{
	struct routing *routing = ctx;

	while (!routing->is_waiting && routing->recipient < routing->recipient_count) {
		if (!routing->has_targets)
			begin_recipient(routing);
		if (routing->target < routing->targets.count) {
			begin_target(routing);
		} else {
			routing->has_targets = false;
			routing->recipient++;
		}
	}
	if (routing->is_waiting)
		return HTTP_WAIT;
	if (control_dump(out, routing->document) != 0)
		buf_append_str(out, "{\"error\":\"the answer is too long\"}");
	buf_append_byte(out, '\n');
	return HTTP_END;
}

/* ---- the request ---- */

static void set_refusal(struct routing *routing, const char *what, const struct smtp_server_reply *reply)
{
	json_object_set_new(routing->document, "refused", json_sprintf("%s: %d %s", what, reply->code, reply->text));
}

/* As MAIL FROM and RCPT TO would be taken. */
static void ask_policy(struct routing *routing, const char *from, const char *to)
{
	static const struct user_options anybody;
	const struct config *config = control_config(routing->control);
	const struct smtp_server_reply *refusal = policy_sender(config, &anybody, slice_of_str(from), &routing->sender);
	struct policy_recipients found;
	const char *at;

	if (refusal) {
		set_refusal(routing, "the sender", refusal);
		return;
	}
	router_domain_of(policy_address_slice(&routing->sender), routing->from_domain, sizeof(routing->from_domain));
	policy_recipients_init(&found);
	refusal = policy_recipient(config, slice_of_str(to), &found);
	if (refusal)
		set_refusal(routing, "the recipient", refusal);
	at = buf_slice(&found.texts).ptr;
	for (size_t i = 0; !refusal && i < found.count && i < RECIPIENTS_MAX; i++) {
		routing->recipients[routing->recipient_count++] = xstrdup(at);
		at += strlen(at) + 1;
	}
	policy_recipients_fini(&found);
}

static bool is_mailbox(const char *what, const char *text, struct http_response *response)
{
	struct smtp_mailbox mailbox;
	const char *why;

	if (smtp_parse_mailbox(slice_of_str(text), SMTP_MAY_BE_UTF8 | SMTP_MAY_BE_BARE, &mailbox, &why) == 0)
		return true;
	control_refuse(response, 400, "%s: '%.64s' is no address: %s", what, text, why);
	return false;
}

void control_get_route(struct control *control, const struct http_request *request, json_t *body,
		       struct http_response *response)
{
	const char *to = http_request_query(request, "to"), *from = http_request_query(request, "from");
	const char *user = http_request_query(request, "user");
	struct routing *routing;

	(void)body;
	if (!to || !*to) {
		control_refuse(response, 400, "to is missing");
		return;
	}
	from = from && strcmp(from, "<>") != 0 ? from : "";
	if (!is_mailbox("to", to, response) || (*from && !is_mailbox("from", from, response)))
		return;
	routing = xcalloc(1, sizeof(*routing));
	routing->control = control;
	routing->user = user ? xstrdup(user) : NULL;
	routing->document = json_pack("{s:o, s:n, s:[]}", "to", control_str(to), "refused", "recipients");
	ask_policy(routing, from, to);
	json_object_set_new(routing->document, "sender", control_text(policy_address_slice(&routing->sender)));
	response->stream_next = routing_next;
	response->stream_free = routing_free;
	response->stream_ctx = routing;
	response->stream = &routing->stream;
}
