/* relayctl dkim - makes signing keys and prints their DNS records; works without a daemon. */
#include "base/base.h"
#include "dkim/key.h"
#include "dkim/record.h"
#include "relayctl/ctl.h"

#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

static int print_record(struct ctl *ctl, struct dkim_key *key, const char *domain, const char *selector,
			const char *file)
{
	struct buf zone, line, name;
	int rc;

	buf_init(&zone, 8192);
	buf_init(&line, 8192);
	buf_init(&name, 512);
	rc = dkim_record_format_zone(&zone, slice_of_str(selector), slice_of_str(domain), dkim_key_algorithm(key),
				     dkim_key_public(key));
	rc = rc ? rc : dkim_record_format_name(&name, slice_of_str(selector), slice_of_str(domain));
	dkim_record_format(&line, dkim_key_algorithm(key), dkim_key_public(key));
	if (rc == 0 && ctl->json) {
		json_t *document = json_pack(
		    "{s:s, s:s, s:s%, s:s%, s:s, s:i, s:s}", "domain", domain, "selector", selector, "name",
		    buf_slice(&name).ptr, buf_len(&name), "txt", buf_slice(&line).ptr, buf_len(&line), "algorithm",
		    dkim_algorithm_name(dkim_key_algorithm(key)), "bits", (int)dkim_key_bits(key), "file", file);
		ctl_print_json(document);
		json_decref(document);
	} else if (rc == 0) {
		printf("; key in %s; publish this record:\n%.*s", file, SLICE_ARG(buf_slice(&zone)));
	}
	buf_fini(&zone);
	buf_fini(&line);
	buf_fini(&name);
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
	if (!dkim_is_domain(slice_of_str(domain)) || !dkim_is_selector(slice_of_str(selector)))
		return ctl_usage("dkim keygen: '%s' is no domain or '%s' no selector", domain, selector);
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

static int show(struct ctl *ctl)
{
	const struct config *config = ctl_config(ctl);
	int rc = CTL_NO_MATCH;

	if (!config)
		return CTL_FAILED;
	for (size_t d = 0; d < config->dkim.domain_count; d++)
		for (size_t k = 0; k < config->dkim.domains[d].key_count; k++) {
			const struct config_dkim_key *entry = &config->dkim.domains[d].keys[k];
			struct dkim_key *key;
			struct err err;
			char *text;
			rc = config_secret_read(&entry->key, &text, &err);
			if (rc == 0) {
				rc = dkim_key_load(slice_of_str(text), &key, &err);
				config_secret_wipe(&text);
			}
			if (rc != 0)
				return ctl_failed("%s", err.text);
			rc = print_record(ctl, key, config->dkim.domains[d].domain, entry->selector,
					  entry->key.file ? entry->key.file : "(environment)");
			dkim_key_free(&key);
		}
	return rc == CTL_NO_MATCH ? (ctl_failed("no DKIM keys are configured"), CTL_NO_MATCH) : rc;
}

int cmd_dkim(struct ctl *ctl, int argc, char **argv)
{
	const char *type = "rsa", *file = NULL, *words[2] = {0};
	int count = 0;

	if (argc >= 2 && strcmp(argv[1], "show") == 0)
		return show(ctl);
	if (argc < 2 || strcmp(argv[1], "keygen") != 0)
		return ctl_usage("dkim keygen DOMAIN SELECTOR [--type rsa|ed25519] [--out FILE] | dkim show");
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--type") == 0 && i + 1 < argc)
			type = argv[++i];
		else if (strcmp(argv[i], "--out") == 0 && i + 1 < argc)
			file = argv[++i];
		else if (argv[i][0] != '-' && count < 2)
			words[count++] = argv[i];
		else
			return ctl_usage("dkim keygen: unknown argument '%s'", argv[i]);
	}
	if (count != 2)
		return ctl_usage("dkim keygen needs a domain and a selector");
	return keygen(ctl, words[0], words[1], type, file);
}
