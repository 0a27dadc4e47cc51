#include "relayctl/doctor_session.h"

#include "base/base.h"
#include "base/clock.h"
#include "relayctl/doctor_egress.h"

#include <stdio.h>

enum {
	CONNECT_MAX_MS = 8000,
	STEP_MS = 8000, /* of the handshake, and of each reply */
	SESSION_MS = 20 * 1000,
};

struct dialog {
	struct doctor_session *session;
	struct link *link;
	struct smtp_client *client;
	bool is_over;
};

static int64_t now_ms(void)
{
	return clock_mono_ms(clock_system());
}

static int start_tls(struct dialog *d)
{
	struct link_tls tls = d->session->tls;
	struct err err;
	int rc;

	tls.step_ms = STEP_MS;
	rc = link_start_tls(d->link, &tls, &err);
	d->session->is_tls_broken = rc != 0;
	if (rc != 0)
		snprintf(d->session->trouble, sizeof(d->session->trouble), "TLS: %s", err.text);
	return rc;
}

static void on_failed(struct doctor_session *session, const struct smtp_client_result *result)
{
	const struct smtp_reply *reply = &result->reply;
	char code[20] = "";

	session->result = *result;
	if (session->is_tls_broken)
		return;
	if (reply->code)
		snprintf(code, sizeof(code), "%d %s%s", reply->code, reply->enhanced, reply->enhanced[0] ? " " : "");
	snprintf(session->trouble, sizeof(session->trouble), "%s: %s%.500s", delivery_stage_name(result->stage), code,
		 reply->text);
}

static void on_ready(struct dialog *d)
{
	const struct smtp_client_capabilities *can = smtp_client_capabilities(d->client);
	struct tls_session *tls = link_tls_session(d->link);
	struct doctor_session *session = d->session;
	struct err why = {0};

	session->is_ready = true;
	session->size_max = can->size ? can->size_max : 0;
	if (tls) {
		snprintf(session->tls_version, sizeof(session->tls_version), "%s", tls_session_version(tls));
		session->expires_at_wall = tls_session_peer_expires_at_wall(tls);
		session->is_verified = session->tls.wants_verdict && tls_session_verify(tls, &why);
		snprintf(session->unverified, sizeof(session->unverified), "%.299s", why.text);
	}
	smtp_client_quit(d->client);
}

static void handle(struct dialog *d, const struct smtp_client_event *event)
{
	switch (event->type) {
	case SMTP_CLIENT_NEED_TLS:
		if (start_tls(d) == 0)
			smtp_client_tls_started(d->client);
		else
			smtp_client_tls_failed(d->client, d->session->trouble);
		break;
	case SMTP_CLIENT_READY:
		on_ready(d);
		d->is_over = true;
		break;
	case SMTP_CLIENT_FAILED:
	case SMTP_CLIENT_CLOSED:
		if (!d->session->is_ready)
			on_failed(d->session, &event->result);
		d->is_over = true;
		break;
	default: break; /* of transactions */
	}
}

static void read_some(struct dialog *d)
{
	int64_t left = smtp_client_deadline_ms(d->client) - now_ms();
	char bytes[4096];
	ssize_t n = link_read(d->link, bytes, sizeof(bytes), MAX(MIN(left, STEP_MS), (int64_t)0));

	if (n > 0)
		smtp_client_input(d->client, slice_of(bytes, (size_t)n));
	else if (n != ERR_TEMPORARY)
		smtp_client_eof(d->client, n == 0 ? NULL : "the connection broke");
}

/* The reply to QUIT is not waited for. */
static void converse(struct dialog *d)
{
	struct smtp_client_event event;
	bool is_broken = false;

	while (true) {
		struct slice output;
		smtp_client_tick(d->client, now_ms());
		while (smtp_client_next(d->client, &event))
			handle(d, &event);
		output = smtp_client_output(d->client);
		if (output.len > 0 && !is_broken) {
			is_broken = link_write(d->link, output) != 0;
			smtp_client_output_sent(d->client, output.len);
		} else if (d->is_over) {
			return;
		} else {
			read_some(d);
		}
	}
}

void doctor_session_run(struct doctor_session *session)
{
	const struct config *config = session->doctor->config;
	const struct smtp_client_options options = {
	    .helo_name = config->hostname,
	    .tls = session->mode,
	    .credentials = session->credentials,
	    .allow_plaintext_auth = session->allow_plaintext_auth,
	    .limits = {.greeting_ms = STEP_MS, .command_ms = STEP_MS, .start_ms = SESSION_MS}};
	struct dialog d = {.session = session};
	struct dns_address memory;
	struct err err;

	d.link = link_open_address(session->address, session->port,
				   doctor_source(session->doctor, session->address->family, &memory),
				   MIN(config->delivery.connect_timeout_ms, (int64_t)CONNECT_MAX_MS), &err);
	session->is_connected = d.link != NULL;
	if (!d.link) {
		snprintf(session->trouble, sizeof(session->trouble), "no connection: %s", err.text);
		return;
	}
	if (session->mode != SMTP_CLIENT_TLS_IMPLICIT || start_tls(&d) == 0) {
		d.client = smtp_client_new(&options, now_ms());
		converse(&d);
	}
	smtp_client_free(&d.client);
	link_close(&d.link);
}
