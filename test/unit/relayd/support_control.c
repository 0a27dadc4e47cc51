#include "support_control.h"

#include "base/msgid.h"

static const struct config *current_config(void *ctx)
{
	return ((struct console *)ctx)->relay.config;
}

static int reload(void *ctx, struct err *err)
{
	struct console *console = ctx;

	console->reloads++;
	return console->reload_result ? err_set(err, console->reload_result, "relayd.yaml:3:1: unknown key 'relayhots'")
				      : 0;
}

static void start(struct console *console)
{
	struct relay *relay = &console->relay;
	struct control_options options = {.loop = relay->loop,
					  .clock = &relay->clock.clock,
					  .log = relay->log,
					  .metrics = relay->metrics,
					  .queue = relay->queue,
					  .destinations = relay->destinations,
					  .pauses = relay->pauses,
					  .scheduler = relay->scheduler,
					  .health = relay->health,
					  .recent = relay->recent,
					  .ctx = console,
					  .config = current_config,
					  .reload = reload,
					  .started_wall = RELAY_WALL_MS - 3600 * 1000};

	console->control = control_new(&options);
	web_server_init(&console->web, relay, control_handle, console->control);
}

static void stop(struct console *console)
{
	web_server_fini(&console->web);
	control_free(&console->control);
}

void console_init(struct console *console, const char *yaml)
{
	*console = (struct console){0};
	relay_init(&console->relay, yaml);
	start(console);
}

void console_fini(struct console *console)
{
	web_answer_fini(&console->answer);
	stop(console);
	relay_fini(&console->relay);
}

void console_restart(struct console *console)
{
	stop(console);
	relay_restart(&console->relay);
	start(console);
}

static int setup(void **state, const char *yaml)
{
	struct console *console = xmalloc(sizeof(*console));

	console_init(console, yaml);
	*state = console;
	return 0;
}

int console_setup_mx(void **state)
{
	return setup(state, NULL);
}

int console_setup_relayhost(void **state)
{
	return setup(state, RELAY_BY_MAIN);
}

int console_teardown(void **state)
{
	console_fini(*state);
	free(*state);
	return 0;
}

/* ---- asking ---- */

json_t *console_ask(struct console *console, int status, const char *method, const char *path, const char *body)
{
	struct web_answer *answer = &console->answer;

	web_answer_fini(answer);
	web_ask(&console->web, method, path, body, answer);
	if (answer->status != status || !answer->json)
		fail_msg("%s %s: %d %.*s", method, path, answer->status, SLICE_ARG(buf_slice(&answer->body)));
	assert_string_equal(answer->type, "application/json");
	return answer->json;
}

json_t *console_get(struct console *console, const char *path)
{
	return console_ask(console, 200, "GET", path, NULL);
}

json_t *console_show(struct console *console, uint64_t id)
{
	char path[64];

	snprintf(path, sizeof(path), "/v1/message?id=%s", id_text(id));
	return console_get(console, path);
}

static json_t *post(struct console *console, int status, const char *what, const char *body)
{
	char path[64];

	snprintf(path, sizeof(path), "/v1/%s", what);
	return console_ask(console, status, "POST", path, body);
}

json_t *console_act(struct console *console, int status, const char *what, uint64_t id)
{
	char body[64];

	snprintf(body, sizeof(body), "{\"id\": \"%s\"}", id_text(id));
	return post(console, status, what, body);
}

json_t *console_act_on(struct console *console, const char *what, const char *conditions)
{
	return post(console, 200, what, conditions);
}

/* ---- mail ---- */

const struct outcome *greylisted(void)
{
	static struct outcome outcome;

	outcome = outcome_like(OUTCOME_DEFERRED, CLASS_GREYLIST, STAGE_RCPT, 450, "4.2.0", "Greylisted, come back");
	return &outcome;
}

uint64_t submit_greylisted(struct console *console)
{
	struct relay *relay = &console->relay;
	uint64_t id = relay_submit(relay, "app@example.org", "one@example.net");
	struct fake_connection *connection;

	relay_turn(relay);
	connection = relay_connection_to(relay, "relayhost:main");
	if (!connection->job)
		fake_session(connection);
	fake_finish(connection, greylisted());
	relay_turn(relay);
	return id;
}

/* ---- answers ---- */

const char *text_of(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	if (!text)
		fail_msg("no text %s", key);
	return text;
}

int64_t number_of(json_t *object, const char *key)
{
	json_t *number = json_object_get(object, key);

	if (!json_is_integer(number))
		fail_msg("no integer %s", key);
	return json_integer_value(number);
}

json_t *recipient_of(json_t *message, size_t index)
{
	json_t *recipient = json_array_get(json_object_get(message, "recipients"), index);

	assert_non_null(recipient);
	return recipient;
}

const char *id_text(uint64_t id)
{
	static char text[MSGID_CHARS + 1];

	msgid_format(id, text);
	return text;
}
