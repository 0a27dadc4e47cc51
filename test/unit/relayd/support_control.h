/*
 * The control API of a relay in one process (support_relay.h), over HTTP, with an operator who asks it and reads the JSON
 * that it answers.
 */
#ifndef SUPPORT_CONTROL_H
#define SUPPORT_CONTROL_H

#include "support_http.h"

#include "relayd/control.h"

struct console {
	struct relay relay;
	struct control *control;
	struct web_server web;
	struct web_answer answer; /* the last; what the functions below return belongs to it */
	int reload_result;	  /* of a reload: 0, or an enum err_code */
	unsigned reloads;
};

/* Configuration in YAML; NULL: none. */
void console_init(struct console *console, const char *yaml);
void console_fini(struct console *console);
/* Relay and control stop and start again. */
void console_restart(struct console *console);
/* For cmocka: mail goes by MX, or all of it by a relayhost "main". */
int console_setup_mx(void **state);
int console_setup_relayhost(void **state);
int console_teardown(void **state);

/* Fails on another status, and on an answer that is not JSON. */
json_t *console_ask(struct console *console, int status, const char *method, const char *path, const char *body);
/* With status 200. */
json_t *console_get(struct console *console, const char *path);
/* One message. */
json_t *console_show(struct console *console, uint64_t id);
/* "flush", "hold", "release", "delete", "bounce": of one message, and of all that meet the conditions, {...}. */
json_t *console_act(struct console *console, int status, const char *what, uint64_t id);
json_t *console_act_on(struct console *console, const char *what, const char *conditions);

const struct outcome *greylisted(void);
/* A message from app@example.org to one@example.net by relayhost "main", tried once and greylisted. */
uint64_t submit_greylisted(struct console *console);

/* Each fails when there is none. */
const char *text_of(json_t *object, const char *key);
int64_t number_of(json_t *object, const char *key);
json_t *recipient_of(json_t *message, size_t index);
/* Good until the next call. */
const char *id_text(uint64_t id);

#endif
