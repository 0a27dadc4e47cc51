/*
 * A server that says anything at any time, against a host that behaves. The first three octets choose the session's
 * options and what is sent; the rest is what the server says, in which 0xff and the octet behind it are something that
 * happens instead: the end of the connection, time, a failed handshake, an abort, a quit, output taken in small
 * portions.
 *
 * Each recipient has exactly one result, "delivered" comes only after the last octet of the message has been taken, no
 * event comes after the last, nothing waits without a deadline, and what goes out is made of lines.
 */
#include "base/base.h"
#include "smtp/client.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECIPIENTS = 5, TRANSACTIONS_MAX = 6 };

static const char content[] = "Subject: x\r\n\r\n.dot\r\n..\r\nend";
static const struct smtp_client_recipient recipients[RECIPIENTS] = {
    {{"a@x.example", 11}, {"rfc822;a@x", 10}, SMTP_DSN_FAILURE},
    {{"j\xc3\xb6@x.example", 13}, {0}, 0},
    {{"\"q u\"@x.example", 15}, {0}, SMTP_DSN_NEVER},
    {{"bad@@", 5}, {0}, 0},
    {{"c@x.example", 11}, {0}, 0},
};

struct host {
	struct smtp_client *client;
	struct smtp_transaction transaction;
	uint8_t flags;
	size_t out_step;
	int64_t now_ms;
	unsigned results[RECIPIENTS];
	unsigned transactions;
	bool is_busy, is_over, was_ready, feeding, is_all_fed;
	size_t fed;
};

static void send_now(struct host *h)
{
	memset(h->results, 0, sizeof(h->results));
	h->is_busy = true;
	h->is_all_fed = false;
	h->fed = 0;
	smtp_client_send(h->client, &h->transaction);
}

static void send_next(struct host *h)
{
	if (!smtp_client_is_ready(h->client))
		return;
	if (h->transactions++ == TRANSACTIONS_MAX)
		smtp_client_quit(h->client);
	else
		send_now(h);
}

static void on_result(struct host *h, const struct smtp_client_event *event)
{
	const struct smtp_client_result *result = &event->result;

	BUG_ON(!h->is_busy || event->recipient >= h->transaction.recipient_count);
	BUG_ON(h->results[event->recipient]++ != 0);
	BUG_ON(result->reply.text[0] == '\0' && result->cause != SMTP_CLIENT_REPLIED);
	/* Delivered: all has been taken from us. */
	if (result->cause == SMTP_CLIENT_REPLIED && result->reply.code / 100 == 2)
		BUG_ON(result->stage != STAGE_DOT || !h->is_all_fed || smtp_client_output(h->client).len != 0);
	if (result->may_have_been_taken)
		BUG_ON(!h->is_all_fed);
	if (result->cause == SMTP_CLIENT_UNDELIVERABLE)
		BUG_ON(result->reply.code != 0 || result->reply.enhanced[0] != '5');
}

static void on_event(struct host *h, const struct smtp_client_event *event)
{
	BUG_ON(h->is_over);
	switch (event->type) {
	case SMTP_CLIENT_NEED_TLS:
		if (h->flags & 64)
			smtp_client_tls_failed(h->client, "no");
		else
			smtp_client_tls_started(h->client);
		break;
	case SMTP_CLIENT_READY:
		BUG_ON(h->was_ready);
		h->was_ready = true;
		send_next(h);
		break;
	case SMTP_CLIENT_RESULT: on_result(h, event); break;
	case SMTP_CLIENT_NEED_BODY:
		BUG_ON(!h->is_busy || h->feeding);
		h->feeding = true;
		break;
	case SMTP_CLIENT_TRANSACTION_DONE:
		BUG_ON(!h->is_busy);
		for (size_t i = 0; i < h->transaction.recipient_count; i++)
			BUG_ON(h->results[i] != 1);
		h->is_busy = h->feeding = false;
		if (event->reusable)
			send_next(h);
		break;
	default: BUG_ON(h->is_busy); h->is_over = true;
	}
}

static void feed(struct host *h)
{
	struct slice rest = slice_from(slice_of(content, sizeof(content) - 1), h->fed);

	if (!h->feeding || smtp_client_body_room(h->client) == 0)
		return;
	h->fed += smtp_client_body(h->client, slice_to(rest, h->out_step));
	if (h->fed == sizeof(content) - 1) {
		smtp_client_body_end(h->client);
		h->feeding = false;
		h->is_all_fed = true;
	}
}

static void settle(struct host *h)
{
	struct smtp_client_event event;
	struct slice out;

	do {
		while (smtp_client_next(h->client, &event))
			on_event(h, &event);
		if (h->is_over)
			return;
		feed(h);
		out = slice_to(smtp_client_output(h->client), h->out_step);
		for (size_t i = 0; i < out.len; i++)
			BUG_ON(out.ptr[i] == '\0');
		smtp_client_output_sent(h->client, out.len);
	} while (out.len);
	BUG_ON(smtp_client_output(h->client).len > SMTP_CLIENT_OUTPUT_MAX);
	BUG_ON(h->is_busy && !h->feeding && smtp_client_deadline_ms(h->client) == INT64_MAX);
}

static void happen(struct host *h, uint8_t what)
{
	switch (what % 8) {
	case 0: smtp_client_eof(h->client, what & 8 ? "broken pipe" : NULL); break;
	case 1: smtp_client_tick(h->client, h->now_ms += (int64_t)what * 1000); break;
	case 2: smtp_client_abort(h->client, "stop"); break;
	case 3:
		smtp_client_quit(h->client);
		/* A host that has another message before it hears of the end. */
		if ((what & 8) && h->was_ready && !h->is_busy)
			send_now(h);
		break;
	case 4: h->out_step = 1 + what / 8; break;
	case 5: h->out_step = SIZE_MAX; break;
	case 6: smtp_client_tls_failed(h->client, "no"); break;
	default: smtp_client_tls_started(h->client); break;
	}
}

static void begin(struct host *h, const uint8_t *data)
{
	struct smtp_client_options options = {.helo_name = "relay.example"};

	*h = (struct host){.flags = data[0], .out_step = SIZE_MAX};
	options.tls = (enum smtp_client_tls)(data[0] & 3);
	options.use_helo = data[0] & 4;
	options.no_pipelining = data[0] & 8;
	options.no_chunking = data[0] & 16;
	options.allow_plaintext_auth = data[0] & 32;
	options.credentials.mechanism = (enum sasl_client_mechanism)(data[1] % SASL_CLIENT_MECHANISM_COUNT);
	options.credentials.username = "user";
	options.credentials.secret = "secret";
	options.credentials.secret_is_token = data[1] & 128;
	h->transaction = (struct smtp_transaction){.sender = data[2] & 1 ? SLICE("s@y.example") : SLICE(""),
						   .recipients = recipients,
						   .recipient_count = 1 + (data[2] >> 1) % RECIPIENTS,
						   .content_bytes = data[2] & 16 ? sizeof(content) - 1 : 0,
						   .has_8bit = data[2] & 32,
						   .requiretls = data[2] & 64,
						   .needs_smtputf8 = data[2] & 128,
						   .ret = SMTP_DSN_RET_HDRS,
						   .envid = SLICE("id"),
						   .auth = SLICE("<>")};
	h->client = smtp_client_new(&options, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct host h;

	if (size < 3)
		return 0;
	begin(&h, data);
	for (size_t at = 3; at < size && !h.is_over;) {
		const uint8_t *special = memchr(data + at, 0xff, size - at);
		size_t len = special ? (size_t)(special - data) - at : size - at;

		len = MIN(len, (size_t)60000);
		if (len) {
			smtp_client_input(h.client, slice_of(data + at, len));
			at += len;
		} else {
			happen(&h, at + 1 < size ? data[at + 1] : 0);
			at += 2;
		}
		settle(&h);
	}
	smtp_client_eof(h.client, NULL);
	settle(&h);
	BUG_ON(!h.is_over);
	smtp_client_free(&h.client);
	return 0;
}
