/* relayctl flush, hold, release, delete, bounce - what is done to messages. */
#include "base/base.h"
#include "relayctl/commands.h"
#include "relayctl/screen.h"

#include <stdio.h>
#include <unistd.h>

enum { BAR_WIDTH = 30 };

struct work {
	struct ctl *ctl;
	const char *action, *done, *passive; /* "flush", "attempting", "attempted" */
	bool means_all;			     /* nothing was named: nothing there is no failure */
	bool is_dry_run;
	bool shows_bar, has_bar;
	json_t *result;
};

/* ---- progress ---- */

static void draw_bar(struct work *work, json_t *progress)
{
	int64_t total = MAX(number_of(progress, "total"), INT64_C(1)),
		looked = MIN(number_of(progress, "looked"), total);
	int filled = (int)(looked * BAR_WIDTH / total);

	fprintf(stderr, "\r[%.*s%*s] %3d %%  %lld message%s %s", filled, "##############################",
		BAR_WIDTH - filled, "", (int)(looked * 100 / total), (long long)number_of(progress, "count"),
		plural(number_of(progress, "count")), work->done);
	fflush(stderr);
	work->has_bar = true;
}

static bool on_line(void *ctx, json_t *line)
{
	struct work *work = ctx;

	if (json_object_get(line, "looked")) {
		if (work->shows_bar)
			draw_bar(work, line);
		return true;
	}
	json_decref(work->result);
	work->result = json_incref(line);
	return true;
}

/* ---- one request ---- */

static int report(struct work *work)
{
	int64_t count = number_of(work->result, "count"), busy = number_of(work->result, "busy"),
		failed = number_of(work->result, "failed");

	if (work->ctl->json)
		ctl_print_json(work->result);
	else
		printf("%s %lld message%s\n", work->done, (long long)count, plural(count));
	if (busy > 0)
		fprintf(stderr, "relayctl: %lld message%s left alone, attempts are under way: try again\n",
			(long long)busy, busy == 1 ? " was" : "s were");
	if (failed > 0)
		return ctl_failed("%lld message%s could not be %s: %s", (long long)failed, plural(failed),
				  work->passive, json_string_value(json_object_get(work->result, "error")));
	if (busy > 0)
		return CTL_PENDING;
	return count == 0 && !work->means_all ? CTL_NO_MATCH : CTL_OK;
}

static int ask_daemon(struct work *work, json_t *body)
{
	int rc = ctl_stream(work->ctl, work->action, body, on_line, work);

	if (work->has_bar)
		fputs("\r\033[K", stderr);
	work->has_bar = false;
	if (rc == CTL_OK && !work->result)
		rc = ctl_failed("relayd has broken off");
	return rc;
}

static int act(struct work *work, json_t *body)
{
	int rc;

	work->shows_bar = isatty(STDERR_FILENO);
	json_object_set_new(body, "progress", json_boolean(!json_object_get(body, "id")));
	if (json_object_get(body, "id"))
		json_object_del(body, "progress");
	rc = ask_daemon(work, body);
	if (rc == CTL_OK)
		rc = report(work);
	json_decref(work->result);
	json_decref(body);
	return rc;
}

/* ---- many: ask before ---- */

static bool says_yes(void)
{
	char line[16];

	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

static int count_matches(struct work *work, json_t *body, int64_t *count)
{
	json_t *question = json_copy(body);
	int rc;

	json_object_set_new(question, "dry_run", json_true());
	rc = ask_daemon(work, question);
	*count = number_of(work->result, "count");
	json_decref(question);
	json_decref(work->result);
	work->result = NULL;
	return rc;
}

/* CTL_OK: go on. */
static int confirm(struct work *work, json_t *body)
{
	int64_t count;
	int rc = count_matches(work, body, &count);

	if (rc != CTL_OK)
		return rc;
	if (count == 0 && !work->means_all) {
		ctl_failed("nothing matches");
		return CTL_NO_MATCH;
	}
	if (count <= 1)
		return CTL_OK;
	if (!isatty(STDIN_FILENO))
		return ctl_usage("that is %lld messages: --yes says that you mean it", (long long)count);
	fprintf(stderr, "%s %lld messages? [y/N] ", work->action, (long long)count);
	return says_yes() ? CTL_OK : ctl_failed("nothing was done");
}

static int tell_count(struct work *work, json_t *body)
{
	int64_t count;
	int rc = count_matches(work, body, &count);

	if (rc != CTL_OK)
		return rc;
	if (work->ctl->json)
		printf("{\"count\": %lld}\n", (long long)count);
	else
		printf("%lld message%s would be %s\n", (long long)count, plural(count), work->passive);
	return count == 0 && !work->means_all ? CTL_NO_MATCH : CTL_OK;
}

static int act_on_many(struct work *work, const struct ctl_filter *filter, bool all, bool must_ask)
{
	json_t *body = json_object();
	int rc = CTL_OK;

	for (size_t i = 0; ctl_filter_names[i]; i++)
		if (filter->values[i])
			json_object_set_new(body, ctl_filter_names[i], json_string(filter->values[i]));
	if (all)
		json_object_set_new(body, "all", json_true());
	if (work->is_dry_run)
		rc = tell_count(work, body);
	else if (must_ask)
		rc = confirm(work, body);
	if (rc == CTL_OK && !work->is_dry_run)
		return act(work, body);
	json_decref(body);
	return rc;
}

/* ---- the commands ---- */

static int run(struct ctl *ctl, int argc, char **argv, const char *done, bool may_mean_all)
{
	struct work work = {.ctl = ctl, .action = argv[0], .done = done, .passive = may_mean_all ? "attempted" : done};
	struct ctl_option options[CTL_FILTER_MAX + 3];
	struct ctl_filter filter;
	bool yes = false, all = false;
	const char *id;
	size_t count = ctl_filter_options(&filter, options);
	int words;

	options[count++] = (struct ctl_option){"--yes", NULL, &yes};
	options[count++] = (struct ctl_option){"--all", NULL, &all};
	options[count++] = (struct ctl_option){"--dry-run", NULL, &work.is_dry_run};
	words = ctl_parse(argc, argv, options, count, &id, 1);
	if (words < 0)
		return CTL_USAGE;
	if (words + !ctl_filter_is_empty(&filter) + all > 1 || (words == 1 && work.is_dry_run) ||
	    (words == 0 && ctl_filter_is_empty(&filter) && !all && !may_mean_all))
		return ctl_wrong_usage(argv[0]);
	if (words == 1)
		return act(&work, json_pack("{s:s}", "id", id));
	work.means_all = ctl_filter_is_empty(&filter);
	/* An attempt more harms nobody: scripts need not say yes to it. */
	return act_on_many(&work, &filter, all, !yes && !(may_mean_all && !isatty(STDIN_FILENO)));
}

int cmd_flush(struct ctl *ctl, int argc, char **argv)
{
	return run(ctl, argc, argv, "attempting", true);
}

int cmd_hold(struct ctl *ctl, int argc, char **argv)
{
	return run(ctl, argc, argv, "held", false);
}

int cmd_release(struct ctl *ctl, int argc, char **argv)
{
	return run(ctl, argc, argv, "released", false);
}

int cmd_delete(struct ctl *ctl, int argc, char **argv)
{
	return run(ctl, argc, argv, "deleted", false);
}

int cmd_bounce(struct ctl *ctl, int argc, char **argv)
{
	return run(ctl, argc, argv, "bounced", false);
}
