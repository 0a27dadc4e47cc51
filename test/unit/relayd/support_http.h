/* A client of an http_server in the same process and loop, over a unix socket. */
#ifndef SUPPORT_HTTP_H
#define SUPPORT_HTTP_H

#include "relayd/http.h"
#include "support_relay.h"

#include <jansson.h>

struct web_server {
	struct relay *relay;
	struct http_server *server;
	char path[108];
};

struct web_answer {
	int status;
	char type[64];
	struct buf body;
	json_t *json; /* NULL: the body is none */
};

void web_server_init(struct web_server *web, struct relay *relay, http_handler *handler, void *ctx);
void web_server_fini(struct web_server *web);
/* A connected socket, non-blocking. */
int web_connect(struct web_server *web);
/* One that has sent the request. */
int web_begin(struct web_server *web, const char *method, const char *path, const char *body);
/* Turns, and lets time pass by milliseconds, until the server has answered and closed. */
void web_finish(struct web_server *web, int fd, struct web_answer *answer);
void web_ask(struct web_server *web, const char *method, const char *path, const char *body, struct web_answer *answer);
void web_answer_fini(struct web_answer *answer);

#endif
