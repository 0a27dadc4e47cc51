/* What only shows when file and environment have been read: defaults that hang on other values, and mistakes that
 * no single value shows. */
#include "config/read.h"

#include "base/base.h"
#include "config/nearest.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#define IS_SET(origin) ((origin)->kind != CONFIG_FROM_DEFAULT)

void config_complain(struct config_reader *reader, const struct config_target *target, size_t offset,
		     const char *format, ...)
{
	struct config_target root = config_root_target(reader->config);
	const struct config_origin *origin = config_origin_at(target ? target : &root, offset);
	struct config_place place = config_place_of(reader->config, origin);
	char text[512];
	va_list args;

	if (origin->is_refused)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	config_errors_add(reader->errors, &place, "%s", text);
}

static bool is_refused(const struct config_target *target, size_t offset)
{
	return config_origin_at(target, offset)->is_refused;
}

/* ---- Defaults. */

/* "A class without a list uses default": once the operator has set that. */
static void complete_retry(struct config *config)
{
	struct config_target root = config_root_target(config);
	size_t others = offsetof(struct config, retry.steps) + CLASS_OTHER * sizeof(struct config_steps);

	if (!IS_SET(config_origin_at(&root, others)))
		return;
	for (size_t class = CLASS_NONE + 1; class < CLASS_OTHER; class ++)
		if (!IS_SET(config_origin_at(&root, offsetof(struct config, retry.steps) +
							class * sizeof(struct config_steps))))
			config->retry.steps[class] = config->retry.steps[CLASS_OTHER];
}

static void complete_relayhost(struct config_relayhost *relayhost)
{
	struct config_target target = config_relayhost_target(relayhost);

	if (!IS_SET(config_origin_at(&target, offsetof(struct config_relayhost, implicit))))
		relayhost->implicit = relayhost->address.port == 465 || relayhost->address.port == 2465;
}

static void complete_route(struct config_reader *reader, size_t index)
{
	struct config_route *route = &reader->config->routes[index];
	char name[32];

	if (route->name)
		return;
	snprintf(name, sizeof(name), "route %zu", index + 1);
	route->name = config_memory_copy(reader->config->memory, slice_of_str(name));
}

void config_complete(struct config_reader *reader)
{
	struct config *config = reader->config;

	complete_retry(config);
	for (size_t i = 0; i < config->relayhost_count; i++)
		complete_relayhost(&config->relayhosts[i]);
	for (size_t i = 0; i < config->route_count; i++)
		complete_route(reader, i);
}

/* ---- Listeners. */

/* The largest networks that are anybody's own are 10.0.0.0/8 and fc00::/7. */
static bool is_nearly_everybody(const struct config_network *network)
{
	return network->prefix_bits < (network->family == AF_INET ? 8 : 7);
}

static void check_trusted(struct config_reader *reader, const struct config_target *target,
			  const struct config_networks *trusted)
{
	for (size_t i = 0; i < trusted->count; i++) {
		struct buf text;
		if (!is_nearly_everybody(&trusted->items[i]))
			continue;
		buf_init(&text, 64);
		config_network_format(&trusted->items[i], &text);
		config_complain(reader, target, offsetof(struct config_listener, trusted),
				"%.*s trusts everybody, which makes an open relay: name your own networks",
				SLICE_ARG(buf_slice(&text)));
		buf_fini(&text);
	}
}

static void check_listener(struct config_reader *reader, struct config_listener *listener)
{
	struct config_target target = config_listener_target(listener);
	bool can_judge = !is_refused(&target, offsetof(struct config_listener, auth)) &&
			 !is_refused(&target, offsetof(struct config_listener, tls)) &&
			 !is_refused(&target, offsetof(struct config_listener, allow_plaintext_auth));

	check_trusted(reader, &target, &listener->trusted);
	if (can_judge && listener->auth == CONFIG_AUTH_REQUIRED && listener->trusted.count > 0)
		config_complain(reader, &target, offsetof(struct config_listener, trusted),
				"trusted does not go with auth: required; set auth: optional");
	if (can_judge && listener->auth == CONFIG_AUTH_REQUIRED && listener->tls == CONFIG_LISTEN_OFF &&
	    !listener->allow_plaintext_auth)
		config_complain(
		    reader, &target, offsetof(struct config_listener, tls),
		    "nobody could log in here: AUTH needs TLS (tls: starttls) or allow_plaintext_auth: true");
}

static bool same_address(const struct config_endpoint *a, const struct config_endpoint *b)
{
	return a->port != 0 && a->port == b->port && a->family == b->family &&
	       memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0 && a->host && b->host;
}

static void check_listeners(struct config_reader *reader)
{
	struct config *config = reader->config;

	for (size_t i = 0; i < config->listener_count; i++) {
		struct config_target target = config_listener_target(&config->listeners[i]);
		check_listener(reader, &config->listeners[i]);
		for (size_t j = 0; j < i; j++)
			if (same_address(&config->listeners[i].address, &config->listeners[j].address))
				config_complain(reader, &target, offsetof(struct config_listener, address),
						"another listener has the same address");
	}
}

/* ---- Relayhosts. */

static bool is_loopback(const struct config_endpoint *endpoint)
{
	static const uint8_t loopback6[16] = {[15] = 1};

	if (endpoint->family == AF_INET)
		return endpoint->bytes[0] == 127;
	if (endpoint->family == AF_INET6)
		return memcmp(endpoint->bytes, loopback6, sizeof(loopback6)) == 0;
	return slice_case_eq(slice_of_str(endpoint->host), SLICE("localhost"));
}

static bool is_from_variable(const struct config_target *target, size_t offset)
{
	return config_origin_at(target, offset)->kind == CONFIG_FROM_VARIABLE;
}

static void check_credentials(struct config_reader *reader, const struct config_relayhost *relayhost,
			      const struct config_target *target)
{
	bool has_password = config_secret_is_set(&relayhost->password);
	bool has_oauth2 = relayhost->oauth2.provider != CONFIG_OAUTH2_NONE;
	bool wants_password = relayhost->auth == CONFIG_RELAY_AUTH_PLAIN || relayhost->auth == CONFIG_RELAY_AUTH_LOGIN;

	if (relayhost->auth == CONFIG_RELAY_AUTH_NONE && (relayhost->username || has_password || has_oauth2))
		config_complain(reader, target, offsetof(struct config_relayhost, auth),
				"auth: none does not go with a username, a password or oauth2");
	else if (wants_password && !(relayhost->username && has_password))
		config_complain(reader, target, offsetof(struct config_relayhost, auth),
				"auth: %s needs username and password_file", config_relay_auth_name(relayhost->auth));
	else if (relayhost->username && !has_password && !has_oauth2)
		config_complain(reader, target, offsetof(struct config_relayhost, username), "username needs %s",
				is_from_variable(target, offsetof(struct config_relayhost, username))
				    ? "RELAYD_RELAYHOST_PASSWORD_FILE (a path) or RELAYD_RELAYHOST_PASSWORD beside it"
				    : "password_file");
	else if (has_password && !relayhost->username)
		config_complain(reader, target, offsetof(struct config_relayhost, password), "a password needs %s",
				is_from_variable(target, offsetof(struct config_relayhost, password))
				    ? "RELAYD_RELAYHOST_USERNAME beside it"
				    : "username");
	if (relayhost->tls == CONFIG_TLS_NONE && (relayhost->username || has_oauth2) &&
	    !is_loopback(&relayhost->address))
		config_complain(reader, target, offsetof(struct config_relayhost, tls),
				"with tls: none the password would cross the network in clear text: set tls: verify");
}

/* Is there what one of the two grants needs? */
static void check_grant(struct config_reader *reader, const struct config_oauth2 *oauth2,
			const struct config_target *target)
{
	const size_t at = offsetof(struct config_relayhost, oauth2.provider);

	if (config_secret_is_set(&oauth2->refresh_token))
		return;
	if (oauth2->provider == CONFIG_OAUTH2_GOOGLE)
		config_complain(reader, target, at, "oauth2 with provider: google needs refresh_token_file");
	else if (!config_secret_is_set(&oauth2->client_secret))
		config_complain(reader, target, at, "oauth2 needs client_secret_file or refresh_token_file");
	else if (oauth2->provider == CONFIG_OAUTH2_MICROSOFT && !oauth2->tenant && !oauth2->token_url)
		config_complain(reader, target, at,
				"oauth2 with provider: microsoft and no refresh_token_file needs tenant");
}

static void check_oauth2(struct config_reader *reader, const struct config_relayhost *relayhost,
			 const struct config_target *target)
{
	const struct config_oauth2 *oauth2 = &relayhost->oauth2;
	const size_t at = offsetof(struct config_relayhost, oauth2.provider);
	bool wants_oauth2 =
	    relayhost->auth == CONFIG_RELAY_AUTH_XOAUTH2 || relayhost->auth == CONFIG_RELAY_AUTH_OAUTHBEARER;

	if (oauth2->provider == CONFIG_OAUTH2_NONE) {
		if (wants_oauth2)
			config_complain(reader, target, offsetof(struct config_relayhost, auth),
					"auth: %s needs oauth2: {provider: ...}",
					config_relay_auth_name(relayhost->auth));
		else if (oauth2->client_id || oauth2->tenant || oauth2->token_url || oauth2->scope)
			config_complain(reader, target, at, "oauth2 needs provider: microsoft, google or other");
		return;
	}
	if (!relayhost->username)
		config_complain(reader, target, at, "oauth2 needs username");
	if (!oauth2->client_id)
		config_complain(reader, target, at, "oauth2 needs client_id");
	if (relayhost->auth == CONFIG_RELAY_AUTH_PLAIN || relayhost->auth == CONFIG_RELAY_AUTH_LOGIN)
		config_complain(reader, target, offsetof(struct config_relayhost, auth),
				"auth: %s does not go with oauth2: write auto, xoauth2 or oauthbearer",
				config_relay_auth_name(relayhost->auth));
	else if (config_secret_is_set(&relayhost->password))
		config_complain(reader, target, offsetof(struct config_relayhost, password),
				"password_file does not go with oauth2");
	check_grant(reader, oauth2, target);
	if (oauth2->provider == CONFIG_OAUTH2_OTHER && !oauth2->token_url)
		config_complain(reader, target, at, "oauth2 with provider: other needs token_url");
}

static void check_relayhosts(struct config_reader *reader)
{
	struct config *config = reader->config;

	for (size_t i = 0; i < config->relayhost_count; i++) {
		struct config_relayhost *relayhost = &config->relayhosts[i];
		struct config_target target = config_relayhost_target(relayhost);
		if (!relayhost->address.host)
			continue;
		check_credentials(reader, relayhost, &target);
		check_oauth2(reader, relayhost, &target);
		if (relayhost->implicit && relayhost->tls == CONFIG_TLS_NONE)
			config_complain(reader, &target, offsetof(struct config_relayhost, tls),
					"tls: none does not go with implicit TLS (the default on ports 465 and 2465)");
		if (relayhost->key && !relayhost->certificate)
			config_complain(reader, &target, offsetof(struct config_relayhost, key),
					"key needs certificate");
		if (relayhost->certificate && relayhost->tls == CONFIG_TLS_NONE)
			config_complain(reader, &target, offsetof(struct config_relayhost, certificate),
					"with tls: none no certificate is shown");
		if (relayhost->tls == CONFIG_TLS_DANE && relayhost->address.family != 0)
			config_complain(reader, &target, offsetof(struct config_relayhost, tls),
					"tls: dane needs the name of the host, not its address");
		if (relayhost->fingerprint && relayhost->tls != CONFIG_TLS_VERIFY)
			config_complain(reader, &target, offsetof(struct config_relayhost, fingerprint),
					"a fingerprint is looked at with tls: verify only");
	}
}

/* ---- Routes. */

static void resolve_via(struct config_reader *reader, struct config_route *route, struct config_via *via)
{
	const struct config *config = reader->config;
	struct config_target target = config_route_target(route);
	const struct config_relayhost *relayhost = config_find_relayhost(config, slice_of_str(via->name));
	struct nearest nearest;

	if (relayhost) {
		via->relayhost = (size_t)(relayhost - config->relayhosts);
		return;
	}
	nearest_init(&nearest, slice_of_str(via->name));
	nearest_offer(&nearest, "mx");
	for (size_t i = 0; i < config->relayhost_count; i++)
		nearest_offer(&nearest, config->relayhosts[i].name);
	if (nearest.best)
		config_complain(reader, &target, offsetof(struct config_route, via),
				"there is no relayhost '%.64s', did you mean '%.64s'?", via->name, nearest.best);
	else
		config_complain(reader, &target, offsetof(struct config_route, via), "there is no relayhost '%.64s'",
				via->name);
}

static bool has_condition(const struct config_route *route)
{
	return route->from.count > 0 || route->to.count > 0 || route->user.count > 0;
}

/* An end of the road: it has no company. */
static bool is_alone(const struct config_via *via)
{
	return via->kind == CONFIG_VIA_DISCARD || via->kind == CONFIG_VIA_CAPTURE;
}

static void check_route(struct config_reader *reader, struct config_route *route)
{
	struct config_target target = config_route_target(route);
	const size_t at = offsetof(struct config_route, via);

	if (route->via.count == 0 && IS_SET(config_origin_at(&target, at)))
		config_complain(reader, &target, at, "via is empty: name mx or a relayhost");
	for (size_t i = 0; i < route->via.count; i++) {
		struct config_via *via = &route->via.items[i];
		if (via->kind == CONFIG_VIA_RELAYHOST)
			resolve_via(reader, route, via);
		if (is_alone(via) && route->via.count > 1)
			config_complain(reader, &target, at, "%s stands alone", via->name);
	}
}

static void check_routes(struct config_reader *reader)
{
	struct config *config = reader->config;

	for (size_t i = 0; i < config->route_count; i++) {
		struct config_route *route = &config->routes[i];
		struct config_target target = config_route_target(route);
		check_route(reader, route);
		for (size_t j = 0; j < i; j++)
			if (strcmp(route->name, config->routes[j].name) == 0)
				config_complain(reader, &target, offsetof(struct config_route, name),
						"another route is named '%.64s'", route->name);
		if (!has_condition(route) && i + 1 < config->route_count && reader->errors->error_count == 0) {
			struct config_place place = config_place_of(config, &route->place);
			config_errors_warn(reader->errors, &place,
					   "this route takes everything: those behind it are never reached");
		}
	}
}

/* ---- The rest. */

static void check_dkim(struct config_reader *reader)
{
	struct config *config = reader->config;
	struct config_target root = config_root_target(config);
	bool default_is_there = !config->dkim.default_domain;

	for (size_t i = 0; i < config->dkim.domain_count; i++) {
		struct slice domain = slice_of_str(config->dkim.domains[i].domain);
		struct config_place place = config_place_of(config, &config->dkim.domains[i].place);
		default_is_there = default_is_there || slice_case_eq(domain, slice_of_str(config->dkim.default_domain));
		for (size_t j = 0; j < i; j++)
			if (slice_case_eq(domain, slice_of_str(config->dkim.domains[j].domain)))
				config_errors_add(reader->errors, &place, "the domain '%.*s' stands twice",
						  SLICE_ARG(domain));
	}
	if (!default_is_there)
		config_complain(reader, &root, offsetof(struct config, dkim.default_domain),
				"'%.100s' has no key: name it under dkim.domains", config->dkim.default_domain);
}

static void check_bind(struct config_reader *reader)
{
	struct config_target root = config_root_target(reader->config);
	const struct config_source_addresses *bind = &reader->config->delivery.bind;
	unsigned v4 = 0, v6 = 0;

	for (size_t i = 0; i < bind->count; i++) {
		v4 += bind->items[i].family == AF_INET;
		v6 += bind->items[i].family == AF_INET6;
	}
	if (v4 > 1 || v6 > 1)
		config_complain(reader, &root, offsetof(struct config, delivery.bind),
				"delivery.bind takes one address of each family");
}

static void check_retry(struct config_reader *reader)
{
	struct config_target root = config_root_target(reader->config);

	for (size_t class = CLASS_NONE + 1; class < CLASS_COUNT; class ++) {
		const struct config_steps *steps = &reader->config->retry.steps[class];
		size_t offset = offsetof(struct config, retry.steps) + class * sizeof(*steps);
		if (!IS_SET(config_origin_at(&root, offset)))
			continue;
		if (steps->count == 0 || steps->count > CONFIG_RETRY_STEPS_MAX)
			config_complain(reader, &root, offset, "a list of waits has 1 to %d of them",
					CONFIG_RETRY_STEPS_MAX);
	}
}

static void check_pairs(struct config_reader *reader)
{
	const struct config *config = reader->config;
	struct config_target root = config_root_target(reader->config);
	bool by_webhook = config->bounce.mode == CONFIG_BOUNCE_WEBHOOK || config->bounce.mode == CONFIG_BOUNCE_BOTH;

	if (config->tls.key && !config->tls.certificate)
		config_complain(reader, &root, offsetof(struct config, tls.key), "tls.key needs tls.certificate");
	if (by_webhook && !config->webhook.url)
		config_complain(reader, &root, offsetof(struct config, bounce.mode),
				"bounce.mode: %s needs webhook.url", config_bounce_mode_name(config->bounce.mode));
	if (config->webhook.url && !config_secret_is_set(&config->webhook.secret))
		config_complain(reader, &root, offsetof(struct config, webhook.url),
				"webhook.url needs webhook.secret_file");
	if (config->limits.message_size_bytes > config->limits.queue_bytes)
		config_complain(reader, &root, offsetof(struct config, limits.queue_bytes),
				"limits.queue_bytes is less than limits.message_size");
	if (!config->spool)
		config_complain(reader, &root, offsetof(struct config, spool), "spool wants a folder");
	if (!config->user)
		config_complain(reader, &root, offsetof(struct config, user), "user wants a name");
}

/* Names that a machine gives itself and DNS does not know. */
static bool is_private_name(struct slice name)
{
	static const char *const endings[] = {".localdomain", ".local", ".internal", ".lan"};

	for (size_t i = 0; i < ARRAY_LEN(endings); i++) {
		struct slice ending = slice_of_str(endings[i]);
		if (name.len > ending.len && slice_case_eq(slice_from(name, name.len - ending.len), ending))
			return true;
	}
	return false;
}

static void check_hostname(struct config_reader *reader)
{
	const struct config *config = reader->config;
	struct config_target root = config_root_target(reader->config);
	const size_t at = offsetof(struct config, hostname);
	struct slice name = slice_of_str(config->hostname);
	bool was_chosen = IS_SET(config_origin_at(&root, at));

	if (!config_uses_mx(config) || (config_is_fqdn(name) && (was_chosen || !is_private_name(name))))
		return;
	config_complain(reader, &root, at,
			"hostname is '%.100s', but mail that goes by MX needs this machine's full name in DNS, such as "
			"relay.example.com: set hostname (or RELAYD_HOSTNAME), or a relayhost",
			config->hostname);
}

static bool has_users(const struct config_reader *reader)
{
	const struct config *config = reader->config;
	struct stat st;

	if (config->account.name || reader->user_count >= 0)
		return config->account.name || reader->user_count > 0;
	return config->users_file && stat(config->users_file, &st) == 0 && st.st_size > 0;
}

static bool somebody_could_submit(const struct config_reader *reader)
{
	const struct config *config = reader->config;
	bool users_are_there = has_users(reader);

	for (size_t i = 0; i < config->listener_count; i++) {
		const struct config_listener *listener = &config->listeners[i];
		if (listener->trusted.count > 0)
			return true;
		if (users_are_there && (listener->tls != CONFIG_LISTEN_OFF || listener->allow_plaintext_auth))
			return true;
	}
	return false;
}

void config_check(struct config_reader *reader)
{
	struct config_place whole = config_place_of(reader->config, &(struct config_origin){0});

	check_listeners(reader);
	check_relayhosts(reader);
	check_routes(reader);
	check_dkim(reader);
	check_bind(reader);
	check_retry(reader);
	check_pairs(reader);
	config_check_files(reader);
	config_check_mail_changes(reader);
	/* These judge by the whole, so the whole must be right. */
	if (!reader->source->check_files || reader->errors->error_count > 0)
		return;
	check_hostname(reader);
	if (!somebody_could_submit(reader) && has_users(reader))
		config_errors_add(reader->errors, &whole,
				  "nobody could submit mail: no listener lets users log in (tls: starttls, or "
				  "allow_plaintext_auth: true), and no address is trusted");
	else if (!somebody_could_submit(reader))
		config_errors_add(
		    reader->errors, &whole,
		    "nobody could submit mail: there are no users (add one with relayctl user add NAME, or "
		    "RELAYD_USERNAME and RELAYD_PASSWORD), and no address is trusted (listen: trusted with "
		    "auth: optional, or RELAYD_TRUSTED)");
}
