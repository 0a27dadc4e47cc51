#include "relayd/policy_aliases.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

struct slice policy_local_name(const struct config *config, struct slice address)
{
	struct slice local, domain;

	if (smtp_split_address(address, &local, &domain) && !slice_case_eq(domain, policy_origin(config)))
		return (struct slice){0};
	return local;
}

int policy_complete(const struct config *config, struct slice address, struct policy_address *out)
{
	bool is_whole = address.len == 0 || smtp_split_address(address, NULL, NULL);
	struct slice origin = is_whole ? (struct slice){0} : policy_origin(config);
	int len = snprintf(out->text, sizeof(out->text), "%.*s%s%.*s", SLICE_ARG(address), is_whole ? "" : "@",
			   SLICE_ARG(origin));

	if (len < 0 || (size_t)len >= sizeof(out->text))
		return ERR_LIMIT;
	out->len = (size_t)len;
	return 0;
}

/* ---- The walk. */

struct walk {
	const struct config *config;
	const struct alias **followed; /* in the order in which they were met; the walk goes along it */
	size_t followed_count;
	struct policy_address *found;
	size_t found_count;
};

static int add_found(struct walk *walk, struct slice target)
{
	struct policy_address address;

	if (policy_complete(walk->config, target, &address) < 0)
		return ERR_SYNTAX;
	for (size_t i = 0; i < walk->found_count; i++)
		if (slice_case_eq(policy_address_slice(&walk->found[i]), policy_address_slice(&address)))
			return 0;
	if (walk->found_count == POLICY_ALIAS_MAX)
		return ERR_LIMIT;
	if ((walk->found_count & (walk->found_count - 1)) == 0)
		walk->found =
		    xreallocarray(walk->found, walk->found_count ? walk->found_count * 2 : 1, sizeof(*walk->found));
	walk->found[walk->found_count++] = address;
	return 0;
}

static int follow_later(struct walk *walk, const struct alias *alias)
{
	for (size_t i = 0; i < walk->followed_count; i++)
		if (walk->followed[i] == alias)
			return 0;
	if (walk->followed_count == POLICY_ALIAS_MAX)
		return ERR_LIMIT;
	if ((walk->followed_count & (walk->followed_count - 1)) == 0)
		walk->followed = xreallocarray(walk->followed, walk->followed_count ? walk->followed_count * 2 : 1,
					       sizeof(struct alias *));
	walk->followed[walk->followed_count++] = alias;
	return 0;
}

static int take_target(struct walk *walk, const struct alias *of, struct slice target)
{
	bool is_escaped = target.ptr[0] == '\\';
	struct slice name = is_escaped ? slice_from(target, 1) : policy_local_name(walk->config, target);
	const struct alias *alias = is_escaped || name.len == 0 ? NULL : aliases_find(walk->config->aliases, name);

	return alias && alias != of ? follow_later(walk, alias) : add_found(walk, is_escaped || alias ? name : target);
}

static int walk_along(struct walk *walk)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < walk->followed_count; i++) {
		const struct alias *alias = walk->followed[i];
		for (size_t t = 0; rc == 0 && t < alias->count; t++)
			rc = take_target(walk, alias, slice_of_str(alias->targets[t]));
	}
	return rc;
}

int policy_follow_alias(const struct config *config, struct slice name, policy_alias_cb *cb, void *ctx)
{
	struct walk walk = {.config = config};
	int rc;

	follow_later(&walk, aliases_find(config->aliases, name));
	rc = walk_along(&walk);
	for (size_t i = 0; rc == 0 && i < walk.found_count; i++)
		rc = cb(ctx, policy_address_slice(&walk.found[i]));
	free(walk.followed);
	free(walk.found);
	return rc;
}
