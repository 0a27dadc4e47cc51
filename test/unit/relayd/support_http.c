#include "support_http.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address_of(const struct web_server *web)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	memcpy(address.sun_path, web->path, sizeof(address.sun_path));
	return address;
}

void web_server_init(struct web_server *web, struct relay *relay, http_handler *handler, void *ctx)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	struct err err;

	*web = (struct web_server){.relay = relay};
	snprintf(web->path, sizeof(web->path), "%s/test.sock", relay->folder);
	address = address_of(web);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 512), 0);
	web->server = http_server_new(relay->loop, fd, handler, ctx, &err);
	assert_non_null(web->server);
}

void web_server_fini(struct web_server *web)
{
	http_server_free(&web->server);
	unlink(web->path);
}

int web_connect(struct web_server *web)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = address_of(web);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

int web_begin(struct web_server *web, const char *method, const char *path, const char *body)
{
	int fd = web_connect(web);
	struct buf request;

	buf_init(&request, 1 << 20);
	/* HTTP/1.0: the body ends with the connection. */
	buf_printf(&request, "%s %s HTTP/1.0\r\nHost: relayd\r\n", method, path);
	if (body)
		buf_printf(&request, "Content-Length: %zu\r\n", strlen(body));
	buf_printf(&request, "\r\n%s", body ? body : "");
	assert_int_equal(write(fd, buf_slice(&request).ptr, buf_len(&request)), buf_len(&request));
	buf_fini(&request);
	return fd;
}

/* False: the end. */
static bool read_some(int fd, struct buf *out)
{
	char *at = buf_reserve(out, 65536);
	ssize_t n = read(fd, at, 65536);

	if (n > 0)
		buf_commit(out, (size_t)n);
	else if (n < 0)
		assert_int_equal(errno, EAGAIN);
	return n != 0;
}

static void parse(struct buf *all, struct web_answer *answer)
{
	struct slice text = buf_slice(all);
	const char *end = memmem(text.ptr, text.len, "\r\n\r\n", 4), *type;

	assert_non_null(end);
	assert_int_equal(sscanf(text.ptr, "HTTP/1.%*c %d", &answer->status), 1);
	type = memmem(text.ptr, (size_t)(end - text.ptr), "Content-Type: ", 14);
	assert_non_null(type);
	assert_int_equal(sscanf(type, "Content-Type: %63[^\r]", answer->type), 1);
	buf_append(&answer->body, slice_from(text, (size_t)(end + 4 - text.ptr)));
	if (buf_len(&answer->body))
		answer->json = json_loadb(buf_slice(&answer->body).ptr, buf_len(&answer->body), 0, NULL);
	buf_append_byte(&answer->body, '\0');
	buf_truncate(&answer->body, buf_len(&answer->body) - 1);
}

void web_finish(struct web_server *web, int fd, struct web_answer *answer)
{
	struct buf all;
	int turns = 0;

	*answer = (struct web_answer){0};
	buf_init(&answer->body, 64 << 20);
	buf_init(&all, 64 << 20);
	while (read_some(fd, &all)) {
		assert_true(turns++ < 1000000);
		if (loop_turn(web->relay->loop, 0) == 0)
			clock_virtual_advance(&web->relay->clock, 1);
	}
	close(fd);
	parse(&all, answer);
	buf_fini(&all);
}

void web_ask(struct web_server *web, const char *method, const char *path, const char *body, struct web_answer *answer)
{
	web_finish(web, web_begin(web, method, path, body), answer);
}

void web_answer_fini(struct web_answer *answer)
{
	json_decref(answer->json);
	buf_fini(&answer->body);
}
