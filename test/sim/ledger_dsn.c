#include "test/sim/ledger_internal.h"

#include "base/msgid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_text(struct slice text)
{
	uint64_t hash = 14695981039346656037u;

	for (size_t i = 0; i < text.len; i++)
		hash = (hash ^ (unsigned char)text.ptr[i]) * 1099511628211u;
	return hash;
}

/* What stands between `label` and `end` at or behind `from`; *from moves behind it. */
static struct slice find_between(struct slice text, size_t *from, const char *label, char end)
{
	const char *at = memmem(text.ptr + *from, text.len - *from, label, strlen(label));
	struct slice rest;
	ptrdiff_t len;

	if (!at)
		return (struct slice){0};
	*from = (size_t)(at - text.ptr) + strlen(label);
	rest = slice_from(text, *from);
	len = slice_find(rest, end);
	return slice_to(rest, len < 0 ? 0 : (size_t)len);
}

static struct truth_dsn *dsn_of(struct ledger *ledger, struct truth_message *message, uint64_t id)
{
	struct truth_dsn *dsn;

	for (unsigned i = 0; i < message->dsn_count; i++)
		if (message->dsns[i].id == id)
			return &message->dsns[i];
	if (message->dsn_count == TRUTH_DSNS_MAX) {
		ledger_violate(ledger, message->serial, "more than %d DSNs", TRUTH_DSNS_MAX);
		return &message->dsns[0];
	}
	dsn = &message->dsns[message->dsn_count++];
	*dsn = (struct truth_dsn){.id = id};
	return dsn;
}

static void count_failure(struct ledger *ledger, struct truth_message *message, struct slice address)
{
	struct truth_rcpt *rcpt = ledger_find_rcpt(ledger, address);

	if (!rcpt || rcpt->message != message) {
		ledger_violate(ledger, message->serial, "a DSN about a stranger: %.*s", SLICE_ARG(address));
		return;
	}
	rcpt->dsn_seen++;
	if (!rcpt->dsn_begun)
		ledger_violate(ledger, message->serial, "a DSN about %s that nobody asked for", rcpt->address);
	if (rcpt->dsn_seen > 1 + rcpt->dsn_excused)
		ledger_violate(ledger, message->serial, "%u different DSNs about %s", rcpt->dsn_seen, rcpt->address);
}

/* A new DSN: each recipient it tells of. */
static void read_dsn(struct ledger *ledger, struct truth_message *message, struct truth_dsn *dsn, struct slice content)
{
	size_t at = 0;
	unsigned rcpts = 0;

	for (;;) {
		struct slice address = slice_trim(find_between(content, &at, "\r\nFinal-Recipient: rfc822;", '\r'));
		struct slice action;
		if (address.len == 0)
			break;
		action = slice_trim(find_between(content, &at, "\r\nAction:", '\r'));
		rcpts++;
		if (slice_eq(action, SLICE("delayed")))
			dsn->is_delay = true;
		else if (slice_eq(action, SLICE("failed")))
			count_failure(ledger, message, address);
		else
			ledger_violate(ledger, message->serial, "a DSN says %.*s", SLICE_ARG(action));
	}
	if (rcpts == 0)
		ledger_violate(ledger, message->serial, "a DSN that tells of nobody");
	if (dsn->is_delay && ++message->delays_seen > 1 + message->delays_excused)
		ledger_violate(ledger, message->serial, "%u delay warnings", message->delays_seen);
}

void ledger_on_dsn_taken(struct ledger *ledger, struct truth_message *message, struct slice content, bool is_excused)
{
	size_t at = 0;
	struct slice id = find_between(content, &at, "\r\nMessage-ID: <", '@');
	struct truth_dsn *dsn = dsn_of(ledger, message, hash_text(id));

	ledger_trace(ledger, message->serial, "  server: took DSN %.*s%s", SLICE_ARG(id),
		     is_excused ? ", and does not say so" : "");
	if (dsn->taken++ == 0)
		read_dsn(ledger, message, dsn, content);
	dsn->excused += is_excused;
	if (dsn->taken > 1 + dsn->excused && !message->sender_is_hostile)
		ledger_violate(ledger, message->serial, "the sender has DSN %.*s %u times", SLICE_ARG(id), dsn->taken);
}

bool ledger_wants_dsn(const struct truth_rcpt *rcpt, uint32_t flag)
{
	return rcpt->message->sender[0] && (rcpt->notify == 0 || (rcpt->notify & flag));
}

bool ledger_on_bounce(struct ledger *ledger, const struct queue_message *message, const struct job_failure *failure)
{
	struct truth_rcpt *rcpt = ledger_find_rcpt(ledger, message->envelope.recipients[failure->index].address);

	if (!rcpt || failure->outcome.kind == OUTCOME_DEFERRED)
		return false;
	rcpt->dsn_begun = true;
	if (rcpt->final != OUTCOME_NONE)
		ledger_violate(ledger, rcpt->message->serial, "a DSN about %s after its end", rcpt->address);
	ledger_trace(ledger, rcpt->message->serial, "relay: gives up %s: %s %d %s", rcpt->address,
		     outcome_kind_name(failure->outcome.kind), failure->outcome.code, failure->outcome.text);
	return ledger_wants_dsn(rcpt, QUEUE_NOTIFY_FAILURE);
}

void ledger_on_bounced(struct ledger *ledger, uint32_t serial, uint32_t index)
{
	struct truth_message *message = ledger_message(ledger, serial);

	message->rcpts[index].dsn_queued = true;
}

void ledger_report_dsn(struct ledger *ledger, const struct queue_message *message, const struct outcome *outcome)
{
	struct truth_message *about = ledger_find_sender(ledger, message->envelope.recipients[0].address);
	char id[MSGID_CHARS + 1];
	struct truth_dsn *dsn;

	if (!about) {
		ledger_violate(ledger, 0, "a DSN to %.*s", SLICE_ARG(message->envelope.recipients[0].address));
		return;
	}
	msgid_format(message->id, id);
	ledger_trace(ledger, about->serial, "relay: DSN %s %s %d %s", id, outcome_kind_name(outcome->kind),
		     outcome->code, outcome->text);
	if (outcome->kind == OUTCOME_DEFERRED)
		return;
	dsn = dsn_of(ledger, about, hash_text(slice_of_str(id)));
	if (dsn->final != OUTCOME_NONE)
		ledger_violate(ledger, about->serial, "DSN %s ends twice", id);
	dsn->final = outcome->kind;
	if (ledger->pending_dsn_count == ledger->pending_dsn_cap) {
		ledger->pending_dsn_cap = ledger->pending_dsn_cap ? ledger->pending_dsn_cap * 2 : 64;
		ledger->pending_dsns =
		    xreallocarray(ledger->pending_dsns, ledger->pending_dsn_cap, sizeof(*ledger->pending_dsns));
	}
	ledger->pending_dsns[ledger->pending_dsn_count++] = dsn;
}
