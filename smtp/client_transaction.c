/*
 * A transaction, from MAIL to the reply to the end of data.
 *
 * Two cursors run over the steps (client_internal.h): write() puts commands into the output, as far ahead as PIPELINING
 * allows, and tx_on_reply() takes the replies in the same order. A refusal of MAIL stops the writer; the replies to
 * what was already written are still counted and thrown away.
 */
#include "smtp/client_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* Commands are written while less than this waits to be sent; one more always fits. */
enum { WRITE_AHEAD_BYTES = 16 * 1024, KEEP_OUTPUT_BYTES = 32 * 1024, KEEP_RECIPIENTS = 1024 };

static bool may_run_ahead(const struct smtp_client *c)
{
	return c->offered.pipelining && !c->no_pipelining;
}

/* The first that goes over the wire, from `index` on; the number of recipients: none. */
static size_t next_sendable(const struct tx *tx, size_t index)
{
	while (index < tx->what->recipient_count &&
	       (tx->recipients[index].state == RCPT_BAD_ADDRESS || tx->recipients[index].state == RCPT_NEEDS_UTF8))
		index++;
	return index;
}

/* ---- Beginning -------------------------------------------------------------------------------------------------- */

static void judge_recipients(struct smtp_client *c)
{
	struct tx *tx = &c->tx;
	bool utf8 = tx->what->needs_smtputf8 || !slice_is_ascii(tx->what->sender);

	if (tx->recipient_cap < tx->what->recipient_count) {
		tx->recipient_cap = tx->what->recipient_count;
		tx->recipients = xreallocarray(tx->recipients, tx->recipient_cap, sizeof(*tx->recipients));
	}
	for (size_t i = 0; i < tx->what->recipient_count; i++) {
		const struct smtp_client_recipient *recipient = &tx->what->recipients[i];
		enum rcpt_state state = command_check_recipient(c, recipient);

		tx->recipients[i] = (struct tx_recipient){.end = UINT32_MAX, .state = (uint8_t)state};
		utf8 = utf8 || (state == RCPT_OPEN && !slice_is_ascii(recipient->address));
	}
	tx->smtputf8 = utf8 && c->offered.smtputf8;
}

static void set_verdict(struct tx *tx, enum smtp_client_cause cause, enum delivery_stage stage,
			const struct smtp_reply *reply)
{
	if (tx->has_verdict)
		return;
	tx->has_verdict = true;
	tx->verdict = (struct smtp_client_result){.cause = cause, .stage = stage, .reply = *reply};
}

static void begin(struct smtp_client *c, const struct smtp_transaction *what)
{
	struct tx *tx = &c->tx;

	*tx = (struct tx){.what = what, .recipients = tx->recipients, .recipient_cap = tx->recipient_cap};
	for (size_t i = 0; i < ARRAY_LEN(tx->ends); i++)
		tx->ends[i] = UINT64_MAX;
	tx->start = client_queued_bytes(c);
	tx->limit = what->recipient_count;
	tx->body_last = '\n';
	tx->is_bdat = c->offered.chunking && !c->no_chunking && what->content_bytes > 0;
	tx->is_one_flight = tx->is_bdat && may_run_ahead(c) && what->content_bytes <= SMTP_CLIENT_ONE_FLIGHT_MAX;
	tx->write_step = tx->read_step = c->needs_rset ? TX_RSET : TX_MAIL;
}

/* The session is ending, and the host does not know it yet: nobody has been tried. */
static void send_too_late(struct smtp_client *c, const struct smtp_transaction *what)
{
	BUG_ON(c->phase == PHASE_ENDED);
	begin(c, what);
	judge_recipients(c);
	if (c->phase == PHASE_QUIT)
		client_close(c);
	c->end = (struct smtp_client_result){.cause = SMTP_CLIENT_LOST, .stage = STAGE_MAIL, .untried = true};
	smtp_reply_set(&c->end.reply, 0, "", "the session was ending");
}

void smtp_client_send(struct smtp_client *c, const struct smtp_transaction *what)
{
	int64_t for_content = (int64_t)(MIN(what->content_bytes, (uint64_t)INT64_MAX / 4000) / 4096 * 1000);
	struct tx *tx = &c->tx;
	struct smtp_reply why;

	BUG_ON(c->phase < PHASE_READY || c->has_notice || tx->what || what->recipient_count == 0);
	if (c->phase != PHASE_READY) {
		send_too_late(c, what);
		return;
	}
	begin(c, what);
	judge_recipients(c);
	if (!command_check_message(c, &why))
		set_verdict(tx, SMTP_CLIENT_UNDELIVERABLE, STAGE_MAIL, &why);
	if (tx->has_verdict || next_sendable(tx, 0) == what->recipient_count)
		tx->write_step = tx->read_step = TX_OVER;
	else
		c->transaction_count++;
	client_set_phase(c, PHASE_TRANSACTION);
	c->overall_deadline_ms = c->now_ms + c->limits.transaction_ms + for_content;
	client_wait(c, c->limits.command_ms);
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static void ask_for_body(struct smtp_client *c)
{
	c->tx.is_body_wanted = true;
	client_notice(c, SMTP_CLIENT_NEED_BODY);
}

static void read_on_with(struct smtp_client *c, enum tx_step step)
{
	c->tx.read_step = step;
	client_wait(c, step == TX_DATA ? c->limits.data_ms : step == TX_END ? c->limits.dot_ms : c->limits.command_ms);
}

static bool is_data_written(const struct tx *tx)
{
	return tx->ends[TX_DATA] != UINT64_MAX;
}

/* DATA goes out with the recipients (RFC 2920 §3.1: as the last of a group). BDAT goes out with them when the message
 * is small; otherwise only when somebody has been accepted. */
static bool may_begin_data(const struct smtp_client *c)
{
	const struct tx *tx = &c->tx;

	if (tx->read_step == TX_DATA)
		return tx->accepted > 0;
	return may_run_ahead(c) && (!tx->is_bdat || tx->is_one_flight);
}

static void write_data(struct smtp_client *c)
{
	struct tx *tx = &c->tx;

	if (tx->is_bdat)
		command_bdat(c);
	else
		client_queue(c, SLICE("DATA\r\n"));
	tx->ends[TX_DATA] = client_queued_bytes(c);
	tx->write_step = TX_BODY;
	if (tx->is_bdat) {
		ask_for_body(c);
		if (tx->read_step == TX_DATA)
			read_on_with(c, TX_END);
	}
}

static void write_rcpt(struct smtp_client *c)
{
	struct tx *tx = &c->tx;

	command_rcpt(c, &tx->what->recipients[tx->write_index]);
	tx->recipients[tx->write_index].end = (uint32_t)(client_queued_bytes(c) - tx->start);
	tx->write_index = next_sendable(tx, tx->write_index + 1);
	if (tx->write_index == tx->what->recipient_count)
		tx->write_step = TX_DATA;
}

static bool is_writer_ahead(const struct tx *tx)
{
	return tx->write_step != tx->read_step || (tx->write_step == TX_RCPT && tx->write_index != tx->read_index);
}

/* One command. False: not now. */
static bool write_one(struct smtp_client *c)
{
	struct tx *tx = &c->tx;

	if (buf_len(&c->out) >= WRITE_AHEAD_BYTES || (is_writer_ahead(tx) && !may_run_ahead(c)))
		return false;
	switch (tx->write_step) {
	case TX_RSET:
		client_queue(c, SLICE("RSET\r\n"));
		tx->ends[TX_RSET] = client_queued_bytes(c);
		tx->write_step = TX_MAIL;
		return true;
	case TX_MAIL:
		command_mail(c);
		tx->ends[TX_MAIL] = client_queued_bytes(c);
		tx->write_step = TX_RCPT;
		tx->write_index = tx->read_index = next_sendable(tx, 0);
		c->needs_rset = true;
		return true;
	case TX_RCPT: write_rcpt(c); return true;
	case TX_DATA:
		if (!may_begin_data(c))
			return false;
		write_data(c);
		return true;
	default: return false;
	}
}

/* Nobody is left to write for. What is written already will be answered. */
static void stop_writing(struct tx *tx)
{
	if (is_data_written(tx))
		return;
	if (tx->write_step == TX_RCPT)
		tx->limit = tx->write_index;
	tx->write_step = TX_OVER;
}

void tx_body_ended(struct smtp_client *c)
{
	struct tx *tx = &c->tx;

	tx->is_body_wanted = false;
	tx->write_step = TX_OVER;
	tx->ends[TX_END] = client_queued_bytes(c);
}

static bool is_message_sent(const struct smtp_client *c)
{
	return c->tx.what && c->sent_bytes >= c->tx.ends[TX_END];
}

void tx_on_sent(struct smtp_client *c)
{
	if (c->tx.read_step == TX_END && is_message_sent(c))
		client_wait(c, c->limits.dot_ms);
}

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

bool tx_may_have_been_taken(const struct smtp_client *c)
{
	return is_message_sent(c) && !c->tx.has_early;
}

static bool is_due(const struct smtp_client *c)
{
	const struct tx *tx = &c->tx;

	if (tx->read_step == TX_RCPT)
		return tx->recipients[tx->read_index].end != UINT32_MAX &&
		       c->sent_bytes >= tx->start + tx->recipients[tx->read_index].end;
	return tx->read_step != TX_OVER && c->sent_bytes >= tx->ends[tx->read_step];
}

static void after_recipients(struct smtp_client *c)
{
	struct tx *tx = &c->tx;

	if (is_data_written(tx)) {
		read_on_with(c, tx->is_bdat ? TX_END : TX_DATA);
	} else if (tx->accepted == 0) {
		stop_writing(tx);
		read_on_with(c, TX_OVER);
	} else {
		read_on_with(c, TX_DATA);
	}
}

static void on_rset(struct smtp_client *c)
{
	if (smtp_reply_class(&c->reply) == 2)
		read_on_with(c, TX_MAIL);
	else
		client_fail_unexpected(c);
}

static void on_mail(struct smtp_client *c)
{
	struct tx *tx = &c->tx;

	if (smtp_reply_class(&c->reply) == 3) {
		client_fail_unexpected(c);
		return;
	}
	if (smtp_reply_class(&c->reply) != 2) {
		set_verdict(tx, SMTP_CLIENT_REPLIED, STAGE_MAIL, &c->reply);
		stop_writing(tx);
		c->needs_rset = false;
	}
	if (tx->read_index < tx->limit)
		read_on_with(c, TX_RCPT);
	else
		after_recipients(c);
}

/* RFC 5321 §4.5.3.1.10: 452, or 552 from old servers; with RFC 3463's X.5.3 other codes are believed too. Only when
 * others were accepted, so that sending again at once makes headway. */
static bool is_too_many(const struct tx *tx, const struct smtp_reply *reply)
{
	bool says_so = strcasestr(reply->text, "too many recipients") != NULL;

	if (tx->accepted == 0)
		return false;
	if (reply->enhanced[0] && strcmp(reply->enhanced + 1, ".5.3") == 0)
		return smtp_reply_class(reply) == 4 || reply->code == 552;
	if (reply->code == 452)
		return says_so || !reply->enhanced[0];
	return says_so && (smtp_reply_class(reply) == 4 || reply->code == 552);
}

static void on_rcpt(struct smtp_client *c)
{
	struct tx *tx = &c->tx;
	struct tx_recipient *recipient = &tx->recipients[tx->read_index];

	if (smtp_reply_class(&c->reply) == 3) {
		client_fail_unexpected(c);
		return;
	}
	if (recipient->state == RCPT_OPEN && smtp_reply_class(&c->reply) == 2) {
		recipient->state = RCPT_ACCEPTED;
		tx->accepted++;
	} else if (recipient->state == RCPT_OPEN) {
		recipient->state = RCPT_TOLD;
		tx->has_refusal = true;
		tx->refused = tx->read_index;
	}
	tx->read_index = next_sendable(tx, tx->read_index + 1);
	if (tx->read_index < tx->limit)
		read_on_with(c, TX_RCPT);
	else
		after_recipients(c);
}

static void on_data(struct smtp_client *c)
{
	struct tx *tx = &c->tx;

	if (c->reply.code == 354) {
		read_on_with(c, TX_END);
		if (tx->accepted > 0) {
			ask_for_body(c);
			return;
		}
		/* RFC 2920 §3.1: nobody was accepted, and yet it waits for content. */
		client_queue(c, SLICE(".\r\n"));
		tx_body_ended(c);
	} else if (smtp_reply_class(&c->reply) < 4) {
		client_fail_unexpected(c);
	} else {
		set_verdict(tx, SMTP_CLIENT_REPLIED, STAGE_DATA, &c->reply);
		tx->write_step = TX_OVER;
		read_on_with(c, TX_OVER);
	}
}

/* In one flight nothing but the count tells which reply belongs to what (after DATA, its 354 does). One more in hand
 * says that the count is wrong; only a farewell may follow. */
static bool has_surplus_reply(const struct smtp_client *c)
{
	struct slice rest = buf_slice(&c->in);

	return c->tx.is_one_flight && rest.len && !slice_eq(slice_to(rest, 3), slice_to(SLICE("421"), rest.len));
}

static void on_end(struct smtp_client *c, const struct smtp_reply *reply)
{
	if (smtp_reply_class(reply) == 3 || has_surplus_reply(c)) {
		client_fail_unexpected(c);
		return;
	}
	set_verdict(&c->tx, SMTP_CLIENT_REPLIED, STAGE_DOT, reply);
	if (smtp_reply_class(reply) == 2)
		c->needs_rset = false;
	read_on_with(c, TX_OVER);
}

/* Content is under way, and the server refuses it already. The refusal counts when all has been sent; until then the
 * connection may as well break. */
static bool is_early_refusal(const struct smtp_client *c)
{
	const struct tx *tx = &c->tx;

	return tx->read_step == TX_END && c->sent_bytes >= tx->ends[TX_DATA] && !tx->has_early &&
	       smtp_reply_class(&c->reply) >= 4;
}

void tx_on_reply(struct smtp_client *c)
{
	struct tx *tx = &c->tx;

	/* RFC 5321 §3.8: at any place, and whatever it was an answer to. */
	if (c->reply.code == 421) {
		client_fail_reply(c, tx_stage(c));
		return;
	}
	if (!is_due(c)) {
		if (is_early_refusal(c)) {
			tx->has_early = true;
			tx->early = c->reply;
		} else {
			client_fail_unexpected(c);
		}
		return;
	}
	tx->has_answer = true;
	switch (tx->read_step) {
	case TX_RSET: on_rset(c); break;
	case TX_MAIL: on_mail(c); break;
	case TX_RCPT: on_rcpt(c); break;
	case TX_DATA: on_data(c); break;
	default:
		if (tx->has_early)
			client_fail_unexpected(c);
		else
			on_end(c, &c->reply);
	}
}

/* ---- Telling ---------------------------------------------------------------------------------------------------- */

static void tell(struct smtp_client_event *event, size_t index, const struct smtp_client_result *result)
{
	event->type = SMTP_CLIENT_RESULT;
	event->recipient = (uint32_t)index;
	event->result = *result;
}

/* The recipient whose refusal has just been read; c->reply is still that one. */
static bool tell_refusal(struct smtp_client *c, struct smtp_client_event *event)
{
	struct smtp_client_result result = {.cause = SMTP_CLIENT_REPLIED, .stage = STAGE_RCPT};

	if (!c->tx.has_refusal)
		return false;
	c->tx.has_refusal = false;
	result.reply = c->reply;
	result.too_many_recipients = is_too_many(&c->tx, &c->reply);
	tell(event, c->tx.refused, &result);
	return true;
}

/* Those that were never sent. */
static bool tell_unsendable(struct tx *tx, struct smtp_client_event *event)
{
	struct smtp_client_result result = {.cause = SMTP_CLIENT_UNDELIVERABLE, .stage = STAGE_RCPT};

	for (; tx->unsendable_from < tx->what->recipient_count; tx->unsendable_from++) {
		struct tx_recipient *recipient = &tx->recipients[tx->unsendable_from];

		if (recipient->state == RCPT_BAD_ADDRESS)
			smtp_reply_set(&result.reply, 0, "5.1.3", "the recipient's address cannot be sent");
		else if (recipient->state == RCPT_NEEDS_UTF8)
			smtp_reply_set(&result.reply, 0, "5.6.7",
				       "the address needs SMTPUTF8, which the next host does not offer");
		else
			continue;
		/* The state stays: next_sendable() goes by it. */
		tell(event, tx->unsendable_from++, &result);
		return true;
	}
	return false;
}

static bool tell_rest(struct tx *tx, const struct smtp_client_result *result, struct smtp_client_event *event)
{
	for (; tx->tell_from < tx->what->recipient_count; tx->tell_from++) {
		struct tx_recipient *recipient = &tx->recipients[tx->tell_from];

		if (recipient->state != RCPT_OPEN && recipient->state != RCPT_ACCEPTED)
			continue;
		recipient->state = RCPT_TOLD;
		tell(event, tx->tell_from++, result);
		return true;
	}
	return false;
}

/* No pointer into the host's memory stays. */
static void forget(struct smtp_client *c)
{
	c->tx.what = NULL;
	c->tx.is_body_wanted = false;
	if (c->tx.recipient_cap > KEEP_RECIPIENTS) {
		free(c->tx.recipients);
		c->tx.recipients = NULL;
		c->tx.recipient_cap = 0;
	}
	if (c->out.cap > KEEP_OUTPUT_BYTES && buf_len(&c->out) == 0)
		buf_reset(&c->out);
}

static void finish(struct smtp_client *c, struct smtp_client_event *event)
{
	forget(c);
	client_set_phase(c, PHASE_READY);
	c->step_deadline_ms = c->overall_deadline_ms = INT64_MAX;
	event->type = SMTP_CLIENT_TRANSACTION_DONE;
	/* A reply that came early may be followed by the one that was due: the count is lost. */
	event->reusable = !c->is_eof && !c->is_quit_wanted && !c->tx.has_early && buf_len(&c->in) == 0;
	if (c->tx.has_early)
		client_close(c);
}

bool tx_next(struct smtp_client *c, struct smtp_client_event *event)
{
	struct tx *tx = &c->tx;

	if (tell_refusal(c, event) || tell_unsendable(tx, event))
		return true;
	if (tx->has_early && tx->read_step == TX_END && is_message_sent(c))
		on_end(c, &tx->early);
	if (tx->has_verdict && tell_rest(tx, &tx->verdict, event))
		return true;
	if (tx->read_step == TX_OVER) {
		finish(c, event);
		return true;
	}
	while (write_one(c))
		;
	return false;
}

bool tx_end_next(struct smtp_client *c, struct smtp_client_event *event)
{
	struct tx *tx = &c->tx;

	if (!tx->what)
		return false;
	if (tell_refusal(c, event) || tell_unsendable(tx, event) ||
	    tell_rest(tx, tx->has_verdict ? &tx->verdict : &c->end, event))
		return true;
	forget(c);
	event->type = SMTP_CLIENT_TRANSACTION_DONE;
	return true;
}

/* ---- Where it stands -------------------------------------------------------------------------------------------- */

enum delivery_stage tx_stage(const struct smtp_client *c)
{
	switch (c->tx.read_step) {
	case TX_RCPT: return STAGE_RCPT;
	case TX_DATA: return STAGE_DATA;
	case TX_END: return is_message_sent(c) ? STAGE_DOT : STAGE_DATA;
	default: return STAGE_MAIL;
	}
}

const char *tx_doing(const struct smtp_client *c)
{
	switch (c->tx.read_step) {
	case TX_RSET: return "the reply to RSET";
	case TX_MAIL: return "the reply to MAIL";
	case TX_RCPT: return "the reply to RCPT";
	case TX_DATA: return "the reply to DATA";
	case TX_END: return is_message_sent(c) ? "the reply to the end of the message" : "the server to take content";
	default: return "nothing";
	}
}

int64_t tx_step_deadline_ms(const struct smtp_client *c)
{
	if (c->tx.read_step == TX_OVER)
		return INT64_MAX;
	if (c->tx.read_step != TX_END || is_message_sent(c))
		return c->step_deadline_ms;
	/* Content: the server's turn only while something waits to be taken. */
	return buf_len(&c->out) ? c->progress_at_ms + c->limits.block_ms : INT64_MAX;
}
