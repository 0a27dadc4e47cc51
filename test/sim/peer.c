/* One session of a host: reads commands, asks the script, answers one after the other as time goes by. */
#include "test/sim/letter.h"
#include "test/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTENT_MAX = 4 << 20, GOODBYE_MS = 5000, PAUSE_GRACE_MS = 10000 };

static void go_on(struct peer *peer);

static void uncount(struct peer *peer)
{
	if (!peer->is_counted)
		return;
	peer->is_counted = false;
	peer->host->domain->connections--;
	peer->world->connections--;
}

static void peer_free(void *ctx)
{
	struct peer *peer = ctx;

	buf_fini(&peer->in);
	buf_fini(&peer->content);
	free(peer->saying);
	free(peer);
}

static void end(struct peer *peer, bool gently)
{
	if (peer->is_dead)
		return;
	peer->is_dead = true;
	uncount(peer);
	peer->host->domain->barren += peer->mails == 0;
	timers_cancel(loop_timers(peer->world->loop), &peer->timer);
	if (gently)
		stream_close_gently(&peer->stream, GOODBYE_MS);
	else
		stream_close(&peer->stream);
	list_remove(&peer->node);
	loop_post(peer->world->loop, peer_free, peer);
}

/* ---- saying ---- */

static void write_say(struct peer *peer, const struct say *say)
{
	unsigned times = MAX(say->repeat, 1u);

	for (unsigned i = 0; i < times; i++)
		stream_write(peer->stream, slice_of_str(say->text));
	if (say->tail)
		stream_write(peer->stream, slice_of_str(say->tail));
}

static void on_said(void *ctx)
{
	struct peer *peer = ctx;
	struct say *say = peer->saying;
	bool closes = say->how == CLOSE || say->how == SAY_AND_CLOSE;

	if (say->how != CLOSE)
		write_say(peer, say);
	free(say);
	peer->saying = NULL;
	peer->is_busy = false;
	if (closes)
		end(peer, true);
	else
		go_on(peer);
}

static void utter(struct peer *peer, const struct say *say)
{
	if (say->how == SILENCE) {
		peer->is_busy = true;
		return;
	}
	peer->is_busy = true;
	peer->saying = xmalloc(sizeof(*say));
	*peer->saying = *say;
	timers_set(loop_timers(peer->world->loop), &peer->timer, peer->world->clock->mono + say->delay_ms, on_said,
		   peer);
}

static void begin_say(struct peer *peer, struct say *say, const char *text)
{
	*say = (struct say){.delay_ms = peer->host->rtt_ms, .how = SAY};
	snprintf(say->text, sizeof(say->text), "%s\r\n", text);
}

static void answer(struct peer *peer, enum stage stage, const char *text)
{
	struct say say;

	begin_say(peer, &say, text);
	behave(peer, stage, NULL, &say);
	utter(peer, &say);
}

/* ---- the transaction ---- */

static void end_transaction(struct peer *peer)
{
	peer->has_mail = false;
	peer->rcpt_count = 0;
	buf_clear(&peer->content);
}

static void on_ehlo(struct peer *peer)
{
	const struct domain *domain = peer->host->domain;
	struct say say;

	begin_say(peer, &say, "502 5.5.1 Command not implemented");
	if (domain->behaviour != OLD)
		snprintf(say.text, sizeof(say.text), "250-mx%u.%s\r\n250-SIZE 20000000\r\n%s%s%s%s%s250 HELP\r\n",
			 peer->host->number, domain->name, domain->has_pipelining ? "250-PIPELINING\r\n" : "",
			 domain->has_chunking ? "250-CHUNKING\r\n" : "", domain->has_8bit ? "250-8BITMIME\r\n" : "",
			 domain->has_dsn ? "250-DSN\r\n" : "", domain->refuses_starttls ? "250-STARTTLS\r\n" : "");
	behave(peer, AT_EHLO, NULL, &say);
	utter(peer, &say);
}

/* The address between < and >. */
static bool read_path(struct slice line, char *out, size_t size)
{
	ptrdiff_t from = slice_find(line, '<'), to = slice_find(line, '>');

	return from >= 0 && to > from &&
	       slice_to_cstr(slice_of(line.ptr + from + 1, (size_t)(to - from - 1)), out, size);
}

/* What was on its way when an operator paused it may still come. */
static void check_pause(struct peer *peer)
{
	struct domain *domain = peer->host->domain;
	int64_t now = peer->world->clock->mono;

	if (!peer->is_orphan && !peer->has_ended && domain->is_paused &&
	    now > domain->pause_changed_ms + PAUSE_GRACE_MS + 4 * domain->delay_ms)
		ledger_violate(peer->world->ledger, 0, "%s gets a message, %lld s after it was paused", domain->name,
			       (long long)(now - domain->pause_changed_ms) / 1000);
}

static void on_mail(struct peer *peer, struct slice line)
{
	struct say say;

	end_transaction(peer);
	peer->mails++;
	peer->host->domain->mails++;
	check_pause(peer);
	begin_say(peer, &say, "250 2.1.0 Sender ok");
	if (!read_path(line, peer->sender, sizeof(peer->sender)))
		begin_say(peer, &say, "501 5.5.4 Syntax");
	behave(peer, AT_MAIL, NULL, &say);
	peer->has_mail = say.text[0] == '2';
	peer->mail_ms = peer->world->clock->mono;
	utter(peer, &say);
}

static void on_rcpt(struct peer *peer, struct slice line)
{
	struct ledger *ledger = peer->world->ledger;
	char address[48];
	struct truth_rcpt *rcpt;
	struct say say;

	if (!peer->has_mail || !read_path(line, address, sizeof(address)) || peer->rcpt_count == PEER_RCPTS_MAX) {
		begin_say(peer, &say, peer->has_mail ? "452 4.5.3 Too many recipients" : "503 5.5.1 MAIL first");
		utter(peer, &say);
		return;
	}
	peer->host->domain->rcpts++;
	rcpt = ledger_find_rcpt(ledger, slice_of_str(address));
	if (rcpt && !peer->is_orphan && !peer->has_ended) {
		behave_at_return(peer->host->domain, rcpt);
		ledger_on_visit(ledger, rcpt);
	} else if (!rcpt && !ledger_find_sender(ledger, slice_of_str(address))) {
		ledger_violate(ledger, 0, "RCPT TO:<%s>, who is nobody", address);
	}
	begin_say(peer, &say, "250 2.1.5 Recipient ok");
	behave(peer, AT_RCPT, address, &say);
	if (rcpt)
		ledger_trace(ledger, rcpt->message->serial, "  server: RCPT %s: %.*s%s", address,
			     (int)strcspn(say.text, "\r"), say.text, say.how == SAY ? "" : ", and then trouble");
	if (say.text[0] == '2')
		snprintf(peer->rcpts[peer->rcpt_count++], sizeof(address), "%s", address);
	utter(peer, &say);
}

static void take_for(struct peer *peer, const char *address, bool is_excused)
{
	struct ledger *ledger = peer->world->ledger;
	struct slice content = buf_slice(&peer->content), path = slice_of_str(address);
	struct truth_rcpt *rcpt = ledger_find_rcpt(ledger, path);
	struct truth_message *about = ledger_find_sender(ledger, path);

	if (rcpt && !rcpt->is_hostile && !letter_is_whole(rcpt->message, content))
		ledger_violate(ledger, rcpt->message->serial, "%s gets %zu octets that are not its message", address,
			       content.len);
	if (rcpt)
		ledger_on_taken(ledger, rcpt, is_excused);
	else if (about)
		ledger_on_dsn_taken(ledger, about, content, is_excused);
}

static void note(struct peer *peer, struct meter *meter, const char *what, const char *name)
{
	if (!meter_note(meter, peer->mail_ms))
		ledger_violate(peer->world->ledger, 0, "%s %s gets more than %u messages in %lld s", what, name,
			       meter->count, (long long)meter->per_ms / 1000);
}

/* Nobody sends more than what was promised; the first recipient tells by which route it came. */
static void check_rates(struct peer *peer)
{
	const struct truth_rcpt *rcpt = ledger_find_rcpt(peer->world->ledger, slice_of_str(peer->rcpts[0]));
	struct domain *way = rcpt ? &peer->world->domains[rcpt->domain] : NULL;

	if (peer->is_orphan || peer->has_ended)
		return;
	note(peer, &peer->host->domain->meter, "the host", peer->host->domain->name);
	if (way)
		note(peer, &way->route_meter, "the route to", way->name);
}

/* The message has ended. */
static void on_dot(struct peer *peer)
{
	struct say say;
	bool is_told;

	check_rates(peer);
	begin_say(peer, &say, "250 2.0.0 Taken");
	say.takes = true;
	behave(peer, AT_DOT, NULL, &say);
	is_told = !peer->is_orphan && (say.how == SAY || say.how == SAY_AND_CLOSE) && say.text[0] == '2' &&
		  strstr(say.text, "\r\n");
	for (unsigned i = 0; say.takes && i < peer->rcpt_count; i++)
		take_for(peer, peer->rcpts[i], !is_told);
	peer->host->domain->taken += say.takes;
	end_transaction(peer);
	utter(peer, &say);
}

static void on_data(struct peer *peer)
{
	struct say say;

	begin_say(peer, &say, peer->rcpt_count > 0 ? "354 Go ahead" : "554 5.5.1 No valid recipients");
	behave(peer, AT_DATA, NULL, &say);
	if (say.text[0] == '3' && say.how == SAY) {
		peer->reading = READ_DATA;
		peer->scanned = 0;
	}
	utter(peer, &say);
}

static void on_bdat(struct peer *peer, struct slice line)
{
	char text[64];
	unsigned long len = 0;

	slice_to_cstr(line, text, sizeof(text));
	BUG_ON(sscanf(text, "%*s %lu", &len) != 1);
	peer->chunk_left = len;
	peer->chunk_is_last = strcasestr(text, "LAST") != NULL;
	peer->reading = READ_CHUNK;
}

static void on_quit(struct peer *peer)
{
	struct say say;

	uncount(peer);
	begin_say(peer, &say, "221 2.0.0 Bye");
	say.how = SAY_AND_CLOSE;
	behave(peer, AT_QUIT, NULL, &say);
	utter(peer, &say);
}

static void on_rset(struct peer *peer)
{
	end_transaction(peer);
	answer(peer, AT_RSET, "250 2.0.0 Reset");
}

static void on_line(struct peer *peer, struct slice line)
{
	if (slice_has_case_prefix(line, SLICE("EHLO ")))
		on_ehlo(peer);
	else if (slice_has_case_prefix(line, SLICE("HELO ")))
		answer(peer, AT_RSET, "250 hello");
	else if (slice_has_case_prefix(line, SLICE("STARTTLS")))
		answer(peer, AT_STARTTLS, "454 4.7.0 TLS not available");
	else if (slice_has_case_prefix(line, SLICE("MAIL FROM:")))
		on_mail(peer, line);
	else if (slice_has_case_prefix(line, SLICE("RCPT TO:")))
		on_rcpt(peer, line);
	else if (slice_has_case_prefix(line, SLICE("DATA")))
		on_data(peer);
	else if (slice_has_case_prefix(line, SLICE("BDAT ")))
		on_bdat(peer, line);
	else if (slice_has_case_prefix(line, SLICE("QUIT")))
		on_quit(peer);
	else if (slice_has_case_prefix(line, SLICE("RSET")))
		on_rset(peer);
	else
		answer(peer, AT_RSET, "500 5.5.2 What?");
}

/* ---- reading ---- */

/* True: something was done. */
static bool read_command(struct peer *peer)
{
	struct slice all = buf_slice(&peer->in);
	const char *end_of_line = all.len ? memmem(all.ptr, all.len, "\r\n", 2) : NULL;
	char line[1100];
	size_t len;

	if (!end_of_line)
		return false;
	len = (size_t)(end_of_line - all.ptr);
	slice_to_cstr(slice_to(all, len), line, sizeof(line));
	buf_consume(&peer->in, len + 2);
	on_line(peer, slice_of_str(line));
	return true;
}

/* RFC 5321 section 4.5.2: a line's first dot goes. */
static void unstuff(struct slice text, struct buf *out)
{
	while (text.len > 0) {
		const char *end_of_line = memmem(text.ptr, text.len, "\r\n", 2);
		size_t len = end_of_line ? (size_t)(end_of_line - text.ptr) + 2 : text.len;
		buf_append(out, slice_from(slice_to(text, len), text.ptr[0] == '.'));
		text = slice_from(text, len);
	}
}

static bool read_data(struct peer *peer)
{
	struct slice all = buf_slice(&peer->in);
	size_t from = peer->scanned > 4 ? peer->scanned - 4 : 0;
	const char *dot = all.len > from ? memmem(all.ptr + from, all.len - from, "\r\n.\r\n", 5) : NULL;
	size_t len;

	peer->scanned = all.len;
	if (!dot)
		return false;
	len = (size_t)(dot - all.ptr) + 2;
	unstuff(slice_to(all, len), &peer->content);
	buf_consume(&peer->in, len + 3);
	peer->reading = READ_COMMAND;
	on_dot(peer);
	return true;
}

static bool read_chunk(struct peer *peer)
{
	struct slice part = slice_to(buf_slice(&peer->in), peer->chunk_left);
	struct say say;

	if (peer->rcpt_count > 0)
		buf_append(&peer->content, part);
	buf_consume(&peer->in, part.len);
	peer->chunk_left -= part.len;
	if (peer->chunk_left > 0)
		return false;
	peer->reading = READ_COMMAND;
	if (peer->rcpt_count > 0 && peer->chunk_is_last) {
		on_dot(peer);
		return true;
	}
	begin_say(peer, &say, peer->rcpt_count > 0 ? "250 2.0.0 Go on" : "554 5.5.1 No valid recipients");
	utter(peer, &say);
	return true;
}

static void process(struct peer *peer)
{
	bool goes_on = true;

	while (goes_on && !peer->is_busy && !peer->is_dead) {
		switch (peer->reading) {
		case READ_COMMAND: goes_on = read_command(peer); break;
		case READ_DATA: goes_on = read_data(peer); break;
		case READ_CHUNK: goes_on = read_chunk(peer); break;
		}
	}
}

/* Whoever hung up has still sent what has come: a server reads and obeys it. */
static void go_on(struct peer *peer)
{
	process(peer);
	if (peer->has_ended && !peer->saying && !peer->is_dead)
		end(peer, false);
}

static size_t on_input(void *ctx, struct slice bytes)
{
	struct peer *peer = ctx;

	if (buf_append(&peer->in, bytes) != 0)
		end(peer, false);
	/* It leaves; whatever it still waits for. */
	if (!peer->is_dead && peer->reading == READ_COMMAND && bytes.len >= 6 &&
	    memcmp(bytes.ptr + bytes.len - 6, "QUIT\r\n", 6) == 0)
		uncount(peer);
	go_on(peer);
	return bytes.len;
}

static void on_end(void *ctx, const char *why)
{
	struct peer *peer = ctx;

	(void)why;
	peer->has_ended = true;
	uncount(peer);
	go_on(peer);
}

void peer_new(struct world *world, struct host *host, int fd)
{
	struct peer *peer = xcalloc(1, sizeof(*peer));
	const struct stream_events events = {.ctx = peer, .on_input = on_input, .on_end = on_end};
	char greeting[80];

	peer->world = world;
	peer->host = host;
	peer->is_counted = true;
	host->domain->sessions++;
	buf_init(&peer->in, CONTENT_MAX);
	buf_init(&peer->content, CONTENT_MAX);
	list_append(&world->peers, &peer->node);
	peer->stream = stream_new(world->net, fd, &events);
	snprintf(greeting, sizeof(greeting), "220 mx%u.%s ESMTP", host->number, host->domain->name);
	answer(peer, AT_GREETING, greeting);
}

void peer_free_all(struct world *world)
{
	while (!list_is_empty(&world->peers))
		end(CONTAINER_OF(world->peers.next, struct peer, node), false);
}
