/* relayctl flush, hold, release, delete, reload - what changes a running daemon. */
#include "relayctl/ctl.h"

#include <stdio.h>

/* Posts the body (its reference is taken) and tells how many messages it touched. */
static int act(struct ctl *ctl, const char *path, json_t *body, const char *done)
{
	json_t *answer;
	int rc = ctl_request(ctl, path, body, &answer);
	json_int_t count;

	json_decref(body);
	if (rc != CTL_OK)
		return rc;
	count = json_integer_value(json_object_get(answer, "count"));
	if (ctl->json)
		ctl_print_json(answer);
	else
		printf("%s %lld message%s\n", done, (long long)count, count == 1 ? "" : "s");
	json_decref(answer);
	return CTL_OK;
}

int cmd_flush(struct ctl *ctl, int argc, char **argv)
{
	if (argc == 1)
		return act(ctl, "flush", json_object(), "attempting");
	if (argc == 2 && argv[1][0] != '-')
		return act(ctl, "flush", json_pack("{s:s}", "id", argv[1]), "attempting");
	if (argc == 3 && strcmp(argv[1], "--domain") == 0)
		return act(ctl, "flush", json_pack("{s:s}", "domain", argv[2]), "attempting");
	return ctl_usage("flush [ID | --domain D]");
}

static int act_on_one(struct ctl *ctl, int argc, char **argv, const char *done)
{
	if (argc != 2)
		return ctl_usage("%s ID", argv[0]);
	return act(ctl, argv[0], json_pack("{s:s}", "id", argv[1]), done);
}

int cmd_hold(struct ctl *ctl, int argc, char **argv)
{
	return act_on_one(ctl, argc, argv, "held");
}

int cmd_release(struct ctl *ctl, int argc, char **argv)
{
	return act_on_one(ctl, argc, argv, "released");
}

int cmd_delete(struct ctl *ctl, int argc, char **argv)
{
	return act_on_one(ctl, argc, argv, "deleted");
}

int cmd_reload(struct ctl *ctl, int argc, char **argv)
{
	json_t *answer;
	int rc;

	(void)argv;
	if (argc > 1)
		return ctl_usage("reload takes no arguments");
	rc = ctl_request(ctl, "reload", json_object(), &answer);
	if (rc != CTL_OK)
		return rc;
	if (ctl->json)
		ctl_print_json(answer);
	else
		puts("reloaded");
	json_decref(answer);
	return CTL_OK;
}
