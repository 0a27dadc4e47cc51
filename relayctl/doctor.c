/* relayctl doctor - is all that mail from here needs as it should be? This file: which checks there are, and the command.
 */
#include "relayctl/doctor.h"

#include "base/base.h"
#include "config/users.h"
#include "dns/mx.h"
#include "relayctl/commands.h"
#include "relayctl/doctor_run.h"
#include "relayctl/screen.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- the checks, in the order in which they are told ---- */

static bool uses_mx(const struct doctor *doctor)
{
	return config_uses_mx(doctor->config);
}

static bool has_blocklists(const struct doctor *doctor)
{
	return doctor->blocklists != NULL;
}

static bool has_recipient(const struct doctor *doctor)
{
	return doctor->to != NULL;
}

static const struct doctor_check checks[] = {
    {.name = "config", .limit_sec = 10, .run = doctor_config},
    {.name = "spool", .limit_sec = 10, .run = doctor_spool},
    {.name = "secrets", .limit_sec = 10, .run = doctor_secrets},
    {.name = "certificate", .limit_sec = 10, .run = doctor_certificate},
    {.name = "listen", .limit_sec = 10, .run = doctor_listen},
    {.name = "resolver", .limit_sec = 40, .run = doctor_resolver},
    {.name = "daemon", .limit_sec = 40, .run = doctor_daemon},
    {.name = "clock", .limit_sec = 60, .run = doctor_clock},
    {.name = "relayhost", .scope = DOCTOR_RELAYHOST, .limit_sec = 100, .run = doctor_relayhost},
    {.name = "port25", .limit_sec = 60, .gives_egress = true, .run = doctor_port25, .applies = uses_mx},
    {.name = "helo", .limit_sec = 30, .needs_egress = true, .run = doctor_helo, .applies = uses_mx},
    {.name = "ptr", .limit_sec = 30, .needs_egress = true, .run = doctor_ptr, .applies = uses_mx},
    {.name = "blocklist", .limit_sec = 60, .needs_egress = true, .run = doctor_blocklist, .applies = has_blocklists},
    {.name = "dkim", .scope = DOCTOR_DOMAIN, .limit_sec = 30, .run = doctor_dkim},
    {.name = "dmarc", .scope = DOCTOR_DOMAIN, .limit_sec = 30, .run = doctor_dmarc},
    {.name = "spf", .scope = DOCTOR_DOMAIN, .limit_sec = 60, .needs_egress = true, .run = doctor_spf},
    {.name = "bounces", .scope = DOCTOR_DOMAIN, .limit_sec = 30, .run = doctor_bounces},
    {.name = "to", .limit_sec = 120, .run = doctor_to, .applies = has_recipient},
};

const char *doctor_level_name(enum doctor_level level)
{
	static const char *const names[] = {"ok", "info", "warn", "fail"};

	return names[level];
}

/* ---- sender domains ---- */

struct domains {
	size_t count;
	char (*names)[256];
};

static void add_domain(struct domains *domains, struct slice text)
{
	char name[256];

	if (!mx_domain_to_ascii(text, name) || name[0] == '[')
		return;
	for (size_t i = 0; i < domains->count; i++)
		if (strcmp(domains->names[i], name) == 0)
			return;
	domains->names = xreallocarray(domains->names, domains->count + 1, sizeof(*domains->names));
	memcpy(domains->names[domains->count++], name, sizeof(name));
}

static void add_of_patterns(struct domains *domains, const struct config_patterns *patterns)
{
	for (size_t i = 0; i < patterns->count; i++) {
		struct slice text = slice_of_str(patterns->items[i].text);
		if (patterns->items[i].kind == CONFIG_PATTERN_ADDRESS)
			add_domain(domains, slice_from(text, (size_t)(slice_find_last(text, '@') + 1)));
		else if (patterns->items[i].kind == CONFIG_PATTERN_DOMAIN)
			add_domain(domains, text);
	}
}

/* What users may send from. A file that cannot be read is told of by the check of the configuration. */
static void add_of_users(struct domains *domains, const char *path)
{
	struct config_errors errors = {0};
	struct users *users = users_new();

	if (access(path, R_OK) == 0 && users_load(users, path, &errors) == 0)
		for (size_t i = 0; i < users_count(users); i++)
			add_of_patterns(domains, &users_entry(users, i).options->from);
	users_free(&users);
}

static void find_domains(const struct config *config, struct domains *domains)
{
	for (size_t i = 0; i < config->dkim.domain_count; i++)
		add_domain(domains, slice_of_str(config->dkim.domains[i].domain));
	if (config->origin)
		add_domain(domains, slice_of_str(config->origin));
	for (size_t i = 0; i < config->route_count; i++)
		add_of_patterns(domains, &config->routes[i].from);
	if (config->users_file)
		add_of_users(domains, config->users_file);
}

/* ---- telling ---- */

struct telling {
	struct screen screen;
	json_t *list; /* NULL: as text */
	size_t counts[DOCTOR_LEVEL_COUNT];
};

static enum doctor_level level_of(json_t *finding)
{
	for (enum doctor_level level = DOCTOR_OK; level < DOCTOR_FAIL; level++)
		if (strcmp(text_of(finding, "level"), doctor_level_name(level)) == 0)
			return level;
	return DOCTOR_FAIL;
}

/* In zone-file form, a long value cut into strings of at most 255 octets (RFC 1035 section 3.3); then also as it is
 * given to a web form. */
static void print_record(struct screen *screen, json_t *record)
{
	const char *value = text_of(record, "value");
	struct slice left = slice_of_str(value);

	screen_to(screen, 6);
	screen_print(screen, COLOUR_NONE, "publish: %s. IN TXT ", text_of(record, "name"));
	if (left.len > 255)
		screen_print(screen, COLOUR_NONE, "( ");
	for (; left.len > 0; left = slice_from(left, 255))
		screen_print(screen, COLOUR_NONE, "\"%.*s\" ", SLICE_ARG(slice_to(left, 255)));
	if (strlen(value) > 255)
		screen_print(screen, COLOUR_NONE, ")");
	screen_newline(screen);
	if (strlen(value) <= 255)
		return;
	screen_to(screen, 6);
	screen_print(screen, COLOUR_NONE, "in one piece: %s", value);
	screen_newline(screen);
}

static void print_finding(struct screen *screen, json_t *finding)
{
	static const enum colour colours[] = {COLOUR_GREEN, COLOUR_CYAN, COLOUR_YELLOW, COLOUR_RED};
	enum doctor_level level = level_of(finding);
	const char *subject = text_of(finding, "subject"), *advice = text_of(finding, "advice");

	screen_print(screen, colours[level], "%s", level == DOCTOR_FAIL ? "FAIL" : doctor_level_name(level));
	screen_to(screen, 6);
	screen_print(screen, COLOUR_BOLD, "%s", text_of(finding, "check"));
	screen_to(screen, 18);
	screen_print(screen, COLOUR_NONE, "%s%s%s", subject, subject[0] ? ": " : "", text_of(finding, "found"));
	screen_newline(screen);
	if (advice[0]) {
		screen_to(screen, 6);
		screen_print(screen, COLOUR_NONE, "%s", advice);
		screen_newline(screen);
	}
	if (json_object_get(finding, "record"))
		print_record(screen, json_object_get(finding, "record"));
}

static void on_finding(void *ctx, json_t *finding)
{
	struct telling *telling = ctx;

	telling->counts[level_of(finding)]++;
	if (telling->list)
		json_array_append(telling->list, finding);
	else
		print_finding(&telling->screen, finding);
	fflush(stdout);
}

static int conclude(struct telling *telling, bool is_strict)
{
	size_t failed = telling->counts[DOCTOR_FAIL], warned = telling->counts[DOCTOR_WARN];
	bool is_good = failed == 0 && !(is_strict && warned > 0);

	if (telling->list) {
		json_t *document = json_pack("{s:b, s:I, s:I, s:O}", "ok", is_good, "failed", (json_int_t)failed,
					     "warned", (json_int_t)warned, "checks", telling->list);
		ctl_print_json(document);
		json_decref(document);
		json_decref(telling->list);
	} else {
		screen_print(&telling->screen, is_good ? COLOUR_GREEN : COLOUR_RED,
			     "%zu failed, %zu to look at, %zu good", failed, warned, telling->counts[DOCTOR_OK]);
		screen_newline(&telling->screen);
	}
	return is_good ? CTL_OK : CTL_FAILED;
}

/* ---- the command ---- */

static void add_check(struct doctor_runner *runner, const struct doctor *doctor, const struct doctor_check *check,
		      const struct domains *domains)
{
	if (check->applies && !check->applies(doctor))
		return;
	switch (check->scope) {
	case DOCTOR_ONCE: doctor_runner_add(runner, check, ""); break;
	case DOCTOR_DOMAIN:
		for (size_t i = 0; i < domains->count; i++)
			doctor_runner_add(runner, check, domains->names[i]);
		break;
	case DOCTOR_RELAYHOST:
		for (size_t i = 0; i < doctor->config->relayhost_count; i++)
			doctor_runner_add(runner, check, doctor->config->relayhosts[i].name);
		break;
	}
}

/* What no check says. */
static void tell_note(struct telling *telling, const char *check, enum doctor_level level, const char *found,
		      const char *advice)
{
	json_t *finding = doctor_finding_new(check, "", level, found);

	json_object_set_new(finding, "advice", json_string(advice));
	on_finding(telling, finding);
	json_decref(finding);
}

static void examine(struct doctor *doctor, const struct domains *domains, struct telling *telling)
{
	struct doctor_runner *runner = doctor_runner_new(doctor);

	if (domains->count == 0)
		tell_note(telling, "domains", DOCTOR_INFO, "no sender domain is known from the configuration",
			  "name one: relayctl doctor DOMAIN");
	for (size_t i = 0; i < ARRAY_LEN(checks); i++)
		add_check(runner, doctor, &checks[i], domains);
	doctor_runner_run(runner, on_finding, telling);
	doctor_runner_free(&runner);
}

int cmd_doctor(struct ctl *ctl, int argc, char **argv)
{
	struct doctor doctor = {.ctl = ctl};
	struct telling telling = {0};
	struct domains domains = {0};
	bool is_strict = false;
	const char *domain;
	const struct ctl_option options[] = {
	    {"--to", &doctor.to, NULL}, {"--blocklist", &doctor.blocklists, NULL}, {"--strict", NULL, &is_strict}};
	int count = ctl_parse(argc, argv, options, ARRAY_LEN(options), &domain, 1);

	if (count < 0)
		return CTL_USAGE;
	if (count == 1)
		add_domain(&domains, slice_of_str(domain));
	if (count == 1 && domains.count == 0)
		return ctl_usage("doctor: '%s' is no domain", domain);
	telling.list = ctl->json ? json_array() : NULL;
	screen_init(&telling.screen, ctl);
	telling.screen.wraps = true;
	doctor.config = ctl_config(ctl);
	if (!doctor.config) {
		tell_note(&telling, "config", DOCTOR_FAIL, "the configuration has mistakes: relayd would not start",
			  "they stand on standard error");
	} else {
		if (count == 0)
			find_domains(doctor.config, &domains);
		examine(&doctor, &domains, &telling);
	}
	free(domains.names);
	return conclude(&telling, is_strict);
}
