/* POST /v1/relayhosts/NAME/pause and resume. */
#include "relayd/control_internal.h"

#include <stdio.h>
#include <string.h>

static void refuse_unknown(const struct control *control, const char *name, struct http_response *response)
{
	const struct config *config = control_config(control);
	struct buf known;

	buf_init(&known, 4096);
	for (size_t i = 0; i < config->relayhost_count; i++)
		buf_printf(&known, "%s%s", i > 0 ? ", " : "; there are ", config->relayhosts[i].name);
	control_refuse(response, 404, "no relayhost %.64s%.*s", name, SLICE_ARG(buf_slice(&known)));
	buf_fini(&known);
}

void control_post_relayhost(struct control *control, const struct http_request *request, json_t *body,
			    struct http_response *response)
{
	static const char before[] = "/v1/relayhosts/";
	const char *name = request->path + strlen(before), *end = strchr(name, '/');
	bool pause = strcmp(end, "/pause") == 0, changed;
	char text[DESTINATION_NAME_MAX];

	(void)body;
	snprintf(text, sizeof(text), "%.*s", (int)(end - name), name);
	/* One that was taken out of the configuration can still be resumed. */
	if (!config_find_relayhost(control_config(control), slice_of_str(text)) &&
	    (pause || !pauses_has(control->options.pauses, text))) {
		refuse_unknown(control, text, response);
		return;
	}
	changed = pauses_set(control->options.pauses, text, pause);
	if (pause && !pauses_has(control->options.pauses, text)) {
		control_refuse(response, 409, "too many relayhosts are paused");
		return;
	}
	destinations_apply_pauses(control->options.destinations);
	log_event(control->options.log, LOG_INFO, "operator", LOG_STR("action", pause ? "pause" : "resume"),
		  LOG_STR("relayhost", text));
	control_answer(response,
		       json_pack("{s:o, s:b, s:b}", "name", control_str(text), "paused", pause, "changed", changed));
}
