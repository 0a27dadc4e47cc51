#include "relayd/web.h"

#include "base/base.h"

#include <string.h>

static void metrics(struct web *web, struct http_response *response)
{
	response->content_type = "text/plain; version=0.0.4; charset=utf-8";
	metrics_render(web->metrics, &response->body);
}

static void live(struct web *web, struct http_response *response)
{
	(void)web;
	buf_append_str(&response->body, "ok\n");
}

static void tell(struct http_response *response, bool is_good, const char *reason)
{
	response->status = is_good ? 200 : 503;
	buf_printf(&response->body, "%s\n", is_good ? "ok" : reason);
}

static void ready(struct web *web, struct http_response *response)
{
	char reason[512];
	bool is_good = health_is_ready(web->health, reason, sizeof(reason));

	tell(response, is_good, reason);
}

static void mail(struct web *web, struct http_response *response)
{
	char reason[512];
	bool is_good = health_mail_flows(web->health, reason, sizeof(reason));

	tell(response, is_good, reason);
}

static const struct {
	const char *path;
	void (*show)(struct web *web, struct http_response *response);
} pages[] = {
    {"/metrics", metrics}, {"/livez", live}, {"/healthz", live}, {"/readyz", ready}, {"/mailz", mail},
};

void web_handle(void *ctx, const struct http_request *request, struct http_response *response)
{
	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		if (strcmp(request->path, pages[i].path) != 0)
			continue;
		if (strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0) {
			pages[i].show(ctx, response);
			return;
		}
		response->status = 405;
		buf_append_str(&response->body, "only GET\n");
		return;
	}
	response->status = 404;
	buf_append_str(&response->body, "not found: there are /metrics, /livez, /readyz and /mailz\n");
}
