/* relayctl dkim - makes signing keys, prints their DNS records, compares them with what is published; without a daemon.
 */
#include "base/base.h"
#include "dkim/key.h"
#include "dkim/record.h"
#include "relayctl/commands.h"
#include "relayctl/lookup.h"
#include "relayctl/published.h"

#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

/* The record as an object. */
static int describe(struct dkim_key *key, const char *domain, const char *selector, const char *file, json_t **out)
{
	struct buf line, name;
	int rc;

	buf_init(&line, 8192);
	buf_init(&name, 512);
	rc = dkim_record_format_name(&name, slice_of_str(selector), slice_of_str(domain));
	rc = rc ? rc : dkim_record_format(&line, dkim_key_algorithm(key), dkim_key_public(key));
	if (rc == 0)
		*out = json_pack("{s:s, s:s, s:s%, s:s%, s:s, s:i, s:s}", "domain", domain, "selector", selector,
				 "name", buf_slice(&name).ptr, buf_len(&name), "txt", buf_slice(&line).ptr,
				 buf_len(&line), "algorithm", dkim_algorithm_name(dkim_key_algorithm(key)), "bits",
				 (int)dkim_key_bits(key), "file", file);
	buf_fini(&line);
	buf_fini(&name);
	return rc == 0 ? CTL_OK : ctl_failed("'%s' or '%s' cannot stand in DNS", selector, domain);
}

static int print_record(struct ctl *ctl, struct dkim_key *key, const char *domain, const char *selector,
			const char *file)
{
	json_t *document;
	struct buf zone;
	int rc;

	if (ctl->json) {
		rc = describe(key, domain, selector, file, &document);
		if (rc != CTL_OK)
			return rc;
		ctl_print_json(document);
		json_decref(document);
		return CTL_OK;
	}
	buf_init(&zone, 8192);
	rc = dkim_record_format_zone(&zone, slice_of_str(selector), slice_of_str(domain), dkim_key_algorithm(key),
				     dkim_key_public(key));
	if (rc == 0)
		printf("; key in %s; publish this record:\n%.*s", file, SLICE_ARG(buf_slice(&zone)));
	buf_fini(&zone);
	return rc == 0 ? CTL_OK : ctl_failed("'%s' or '%s' cannot stand in DNS", selector, domain);
}

/* The helper that signs runs as the service user. */
static void give_to_service_user(struct ctl *ctl, const char *file)
{
	const struct config *config = geteuid() == 0 ? ctl_config(ctl) : NULL;
	struct passwd *user = config ? getpwnam(config->user ? config->user : "relayd") : NULL;

	if (user && chown(file, user->pw_uid, user->pw_gid) != 0)
		fprintf(stderr, "relayctl: warning: cannot give %s to %s\n", file, user->pw_name);
}

static int keygen(struct ctl *ctl, const char *domain, const char *selector, const char *type, const char *file)
{
	enum dkim_algorithm algorithm;
	struct dkim_key *key;
	char name[600];
	struct err err;
	int rc;

	if (strcmp(type, "rsa") == 0)
		algorithm = DKIM_RSA_SHA256;
	else if (strcmp(type, "ed25519") == 0)
		algorithm = DKIM_ED25519_SHA256;
	else
		return ctl_usage("dkim keygen: --type is rsa or ed25519");
	if (!dkim_is_domain(slice_of_str(domain)))
		return ctl_usage("dkim keygen: '%s' is no domain, such as example.com", domain);
	if (!dkim_is_selector(slice_of_str(selector)))
		return ctl_usage("dkim keygen: '%s' is no selector: letters, digits, hyphens and dots", selector);
	if (!file) {
		snprintf(name, sizeof(name), "%s.%s.pem", selector, domain);
		file = name;
	}
	if (dkim_key_generate(algorithm, 0, &key, &err) != 0)
		return ctl_failed("%s", err.text);
	rc = dkim_key_write_file(key, file, 0600, &err);
	if (rc != 0) {
		dkim_key_free(&key);
		return ctl_failed("%s", err.text);
	}
	give_to_service_user(ctl, file);
	rc = print_record(ctl, key, domain, selector, file);
	dkim_key_free(&key);
	return rc;
}

/* ---- all keys of the configuration ---- */

typedef int key_visit(void *ctx, const char *domain, const char *selector, const char *file, struct dkim_key *key);

static int visit_key(const char *domain, const struct config_dkim_key *entry, key_visit *visit, void *ctx)
{
	struct dkim_key *key;
	struct err err;
	char *text;
	int rc = config_secret_read(&entry->key, &text, &err);

	if (rc == 0) {
		rc = dkim_key_load(slice_of_str(text), &key, &err);
		config_secret_wipe(&text);
	}
	if (rc != 0)
		return ctl_failed("%s", err.text);
	rc = visit(ctx, domain, entry->selector, entry->key.file ? entry->key.file : "(environment)", key);
	dkim_key_free(&key);
	return rc;
}

/* Of `domain`, or of all (NULL). The first that fails ends it; CTL_NO_MATCH: there is none. */
static int visit_keys(struct ctl *ctl, const char *domain, key_visit *visit, void *ctx)
{
	const struct config *config = ctl_config(ctl);
	bool any = false;
	int rc = CTL_OK;

	if (!config)
		return CTL_FAILED;
	for (size_t d = 0; d < config->dkim.domain_count; d++) {
		const struct config_dkim_domain *entry = &config->dkim.domains[d];
		if (domain && strcasecmp(domain, entry->domain) != 0)
			continue;
		for (size_t k = 0; k < entry->key_count && rc == CTL_OK; k++) {
			any = true;
			rc = visit_key(entry->domain, &entry->keys[k], visit, ctx);
		}
	}
	if (any)
		return rc;
	ctl_failed("no DKIM keys are configured%s%s", domain ? " for " : "", domain ? domain : "");
	return CTL_NO_MATCH;
}

/* ---- show ---- */

struct showing {
	struct ctl *ctl;
	json_t *list; /* NULL: as text */
};

static int show_key(void *ctx, const char *domain, const char *selector, const char *file, struct dkim_key *key)
{
	struct showing *showing = ctx;
	json_t *document = NULL;
	int rc;

	if (!showing->list)
		return print_record(showing->ctl, key, domain, selector, file);
	rc = describe(key, domain, selector, file, &document);
	if (rc == CTL_OK)
		json_array_append_new(showing->list, document);
	return rc;
}

static int show(struct ctl *ctl, const char *domain)
{
	struct showing showing = {ctl, ctl->json ? json_array() : NULL};
	int rc = visit_keys(ctl, domain, show_key, &showing);

	if (rc == CTL_OK && ctl->json)
		ctl_print_json(showing.list);
	json_decref(showing.list);
	return rc;
}

/* ---- check: is published what we sign with? ---- */

struct checking {
	struct ctl *ctl;
	struct lookup *lookup;
	json_t *list; /* NULL: as text */
	bool has_failed;
};

static int check_key(void *ctx, const char *domain, const char *selector, const char *file, struct dkim_key *key)
{
	struct checking *checking = ctx;
	const struct dns_answer *answer;
	const char *wrong;
	struct buf name;
	char text[700];

	buf_init(&name, 512);
	if (dkim_record_format_name(&name, slice_of_str(selector), slice_of_str(domain)) != 0 ||
	    buf_append_byte(&name, '\0') != 0) {
		buf_fini(&name);
		return ctl_failed("'%s' or '%s' cannot stand in DNS", selector, domain);
	}
	answer = lookup_ask(checking->lookup, buf_slice(&name).ptr, DNS_TXT);
	wrong = published_judge(answer, key, text, sizeof(text));
	checking->has_failed |= wrong != NULL;
	if (checking->list)
		json_array_append_new(checking->list,
				      json_pack("{s:s, s:s, s:s, s:s, s:b, s:s}", "domain", domain, "selector",
						selector, "name", buf_slice(&name).ptr, "file", file, "ok", !wrong,
						"text", wrong ? wrong : ""));
	else
		printf("%s %.*s: %s\n", wrong ? "BAD" : "ok ",
		       SLICE_ARG(slice_to(buf_slice(&name), buf_len(&name) - 1)),
		       wrong ? wrong : "is published, and is our key");
	if (wrong && !checking->list)
		print_record(checking->ctl, key, domain, selector, file);
	dns_answer_unref(&answer);
	buf_fini(&name);
	return CTL_OK;
}

static int check(struct ctl *ctl, const char *domain)
{
	struct checking checking = {.ctl = ctl, .list = ctl->json ? json_array() : NULL};
	const struct config *config = ctl_config(ctl);
	struct err err;
	int rc = config ? CTL_OK : CTL_FAILED;

	checking.lookup = config ? lookup_new(config, 0, &err) : NULL;
	if (config && !checking.lookup)
		rc = ctl_failed("%s", err.text);
	if (rc == CTL_OK)
		rc = visit_keys(ctl, domain, check_key, &checking);
	if (rc == CTL_OK && ctl->json)
		ctl_print_json(checking.list);
	lookup_free(&checking.lookup);
	json_decref(checking.list);
	return rc == CTL_OK && checking.has_failed ? CTL_FAILED : rc;
}

/* ---- the command ---- */

int cmd_dkim(struct ctl *ctl, int argc, char **argv)
{
	const char *type = "rsa", *file = NULL, *words[3];
	const struct ctl_option options[] = {{"--type", &type, NULL}, {"--out", &file, NULL}};
	int count = ctl_parse(argc, argv, options, ARRAY_LEN(options), words, ARRAY_LEN(words));

	if (count < 0)
		return CTL_USAGE;
	if (count == 3 && strcmp(words[0], "keygen") == 0)
		return keygen(ctl, words[1], words[2], type, file);
	if ((count == 1 || count == 2) && strcmp(words[0], "show") == 0)
		return show(ctl, count == 2 ? words[1] : NULL);
	if ((count == 1 || count == 2) && strcmp(words[0], "check") == 0)
		return check(ctl, count == 2 ? words[1] : NULL);
	return ctl_wrong_usage("dkim");
}
