/*
 * relayd/policy_aliases.h - following aliases to the addresses behind them; private to relayd/policy*.c
 *
 * Targets that are names, or addresses of origin, are looked up again. Each alias is followed once per recipient, so
 * circles end and the work is bounded by the file; an alias that names itself ("root: root, joe@example.com") or an
 * escaped name ("\root") means that very address.
 */
#ifndef RELAYD_POLICY_ALIASES_H
#define RELAYD_POLICY_ALIASES_H

#include "relayd/policy.h"

/* `name` is an alias. Calls back for each address that it stands for, without repeating any. ERR_LIMIT: more than
 * POLICY_ALIAS_MAX; ERR_SYNTAX: one is too long; what the callback returns other than 0 ends it too. */
typedef int policy_alias_cb(void *ctx, struct slice address);
int policy_follow_alias(const struct config *config, struct slice name, policy_alias_cb *cb, void *ctx);

/* The local part of an address of origin; empty: it is none. */
struct slice policy_local_name(const struct config *config, struct slice address);
/* "name" or "name@domain" into "name@domain". ERR_LIMIT: too long. */
int policy_complete(const struct config *config, struct slice address, struct policy_address *out);

#endif
