#include "test/sim/ledger.h"

#include "base/msgid.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRACE_ENTRIES = 1 << 16, VIOLATIONS_MAX = 8, PRINTED_PER_MESSAGE = 60 };

struct trace_entry {
	int64_t at_ms;
	uint32_t serial;
	char text[100];
};

struct violation {
	uint32_t serial;
	int64_t at_ms;
	char text[200];
};

struct ledger {
	const struct sim_clock *clock;
	bool clock_steps;
	uint32_t watched; /* its history is printed as it happens */
	struct truth_message **messages;
	uint32_t count, cap;
	struct trace_entry *trace;
	uint64_t traced;
	struct violation violations[VIOLATIONS_MAX];
	unsigned violation_count;
	struct truth_rcpt **pending; /* results that are not durable yet */
	struct truth_dsn **pending_dsns;
	size_t pending_count, pending_cap, pending_dsn_count, pending_dsn_cap;
};

struct ledger *ledger_new(const struct sim_clock *clock)
{
	struct ledger *ledger = xcalloc(1, sizeof(*ledger));

	ledger->clock = clock;
	ledger->watched = getenv("MESSAGE") ? (uint32_t)strtoul(getenv("MESSAGE"), NULL, 10) : 0;
	ledger->trace = xcalloc(TRACE_ENTRIES, sizeof(*ledger->trace));
	return ledger;
}

void ledger_free(struct ledger **ledger)
{
	for (uint32_t i = 0; i < (*ledger)->count; i++) {
		free((*ledger)->messages[i]->rcpts);
		free((*ledger)->messages[i]);
	}
	free((*ledger)->messages);
	free((*ledger)->trace);
	free((*ledger)->pending);
	free((*ledger)->pending_dsns);
	free(*ledger);
	*ledger = NULL;
}

void ledger_expect_clock_steps(struct ledger *ledger)
{
	ledger->clock_steps = true;
}

struct truth_message *ledger_add_message(struct ledger *ledger, uint32_t rcpt_count)
{
	struct truth_message *message = xcalloc(1, sizeof(*message));

	if (ledger->count == ledger->cap) {
		ledger->cap = ledger->cap ? ledger->cap * 2 : 256;
		ledger->messages = xreallocarray(ledger->messages, ledger->cap, sizeof(*ledger->messages));
	}
	ledger->messages[ledger->count++] = message;
	message->ledger = ledger;
	message->serial = ledger->count;
	message->rcpt_count = rcpt_count;
	message->rcpts = xcalloc(rcpt_count, sizeof(*message->rcpts));
	for (uint32_t i = 0; i < rcpt_count; i++) {
		message->rcpts[i].message = message;
		message->rcpts[i].index = i;
	}
	return message;
}

struct truth_message *ledger_message(const struct ledger *ledger, uint32_t serial)
{
	return serial > 0 && serial <= ledger->count ? ledger->messages[serial - 1] : NULL;
}

uint32_t ledger_message_count(const struct ledger *ledger)
{
	return ledger->count;
}

/* ---- history and verdict ---- */

static void print_time(int64_t ms)
{
	printf("  %3d:%02d:%02d.%03d ", (int)(ms / HOUR_MS), (int)(ms / MIN_MS % 60), (int)(ms / SEC_MS % 60),
	       (int)(ms % 1000));
}

void ledger_trace(struct ledger *ledger, uint32_t serial, const char *format, ...)
{
	struct trace_entry *entry = &ledger->trace[ledger->traced++ % TRACE_ENTRIES];
	va_list args;

	entry->at_ms = ledger->clock->mono;
	entry->serial = serial;
	va_start(args, format);
	vsnprintf(entry->text, sizeof(entry->text), format, args);
	va_end(args);
	if (ledger->watched && (serial == ledger->watched || serial == 0)) {
		print_time(entry->at_ms);
		printf("%s\n", entry->text);
	}
}

void ledger_violate(struct ledger *ledger, uint32_t serial, const char *format, ...)
{
	struct violation *violation = &ledger->violations[MIN(ledger->violation_count, VIOLATIONS_MAX - 1u)];
	va_list args;

	ledger->violation_count++;
	if (ledger->violation_count > VIOLATIONS_MAX)
		return;
	violation->serial = serial;
	violation->at_ms = ledger->clock->mono;
	va_start(args, format);
	vsnprintf(violation->text, sizeof(violation->text), format, args);
	va_end(args);
	ledger_trace(ledger, serial, "VIOLATION %s", violation->text);
}

unsigned ledger_violations(const struct ledger *ledger)
{
	return ledger->violation_count;
}

/* The last events of this message and those of the relay as a whole (serial 0) among them. */
static void print_history(const struct ledger *ledger, uint32_t serial)
{
	uint64_t first = ledger->traced > TRACE_ENTRIES ? ledger->traced - TRACE_ENTRIES : 0;
	unsigned found = 0, skip;

	for (uint64_t i = first; i < ledger->traced; i++) {
		uint32_t of = ledger->trace[i % TRACE_ENTRIES].serial;
		found += of == serial || of == 0;
	}
	skip = found > PRINTED_PER_MESSAGE ? found - PRINTED_PER_MESSAGE : 0;
	if (skip > 0)
		printf("  ... %u earlier events\n", skip);
	for (uint64_t i = first; i < ledger->traced; i++) {
		const struct trace_entry *entry = &ledger->trace[i % TRACE_ENTRIES];
		if (entry->serial != serial && entry->serial != 0)
			continue;
		if (skip > 0) {
			skip--;
			continue;
		}
		print_time(entry->at_ms);
		printf("%s\n", entry->text);
	}
}

void ledger_print(const struct ledger *ledger)
{
	unsigned shown = MIN(ledger->violation_count, (unsigned)VIOLATIONS_MAX);

	for (unsigned i = 0; i < shown; i++) {
		const struct violation *violation = &ledger->violations[i];
		const struct truth_message *message = ledger_message(ledger, violation->serial);
		printf("VIOLATION, message %u: %s\n", violation->serial, violation->text);
		print_time(violation->at_ms);
		printf("<%s>, %u recipients", message ? message->sender : "?", message ? message->rcpt_count : 0);
		for (uint32_t r = 0; message && r < MIN(message->rcpt_count, 4u); r++)
			printf(", %s", message->rcpts[r].address);
		printf("\n");
		if (i < 3)
			print_history(ledger, violation->serial);
	}
	if (ledger->violation_count > shown)
		printf("... and %u more violations\n", ledger->violation_count - shown);
}

/* ---- addresses ---- */

/* "KIND digits+SERIAL[.INDEX]@..." */
static bool parse_address(struct slice address, uint32_t *serial, uint32_t *index, bool *is_rcpt)
{
	char text[64];
	int used = 0;

	if (!slice_to_cstr(address, text, sizeof(text)))
		return false;
	*is_rcpt = sscanf(text, "%*c%*u+%u.%u@%n", serial, index, &used) == 2 && used > 0;
	return *is_rcpt || (sscanf(text, "%*c%*u+%u@%n", serial, &used) == 1 && used > 0);
}

struct truth_rcpt *ledger_find_rcpt(const struct ledger *ledger, struct slice address)
{
	uint32_t serial = 0, index = 0;
	struct truth_message *message;
	bool is_rcpt;

	if (!parse_address(address, &serial, &index, &is_rcpt) || !is_rcpt)
		return NULL;
	message = ledger_message(ledger, serial);
	if (!message || index >= message->rcpt_count || !slice_eq(address, slice_of_str(message->rcpts[index].address)))
		return NULL;
	return &message->rcpts[index];
}

struct truth_message *ledger_find_sender(const struct ledger *ledger, struct slice address)
{
	uint32_t serial = 0, index;
	struct truth_message *message;
	bool is_rcpt;

	if (!parse_address(address, &serial, &index, &is_rcpt) || is_rcpt)
		return NULL;
	message = ledger_message(ledger, serial);
	return message && slice_eq(address, slice_of_str(message->sender)) ? message : NULL;
}

/* ---- what servers see ---- */

static int64_t now_ms(const struct ledger *ledger)
{
	return ledger->clock->mono;
}

void ledger_on_visit(struct ledger *ledger, struct truth_rcpt *rcpt)
{
	uint32_t serial = rcpt->message->serial;

	rcpt->visits++;
	if (rcpt->is_hostile)
		return; /* it obeys commands when it likes */
	if (rcpt->message->state == UNBORN)
		ledger_violate(ledger, serial, "tried before it was accepted");
	if (rcpt->final != OUTCOME_NONE)
		ledger_violate(ledger, serial, "%s is tried again after it was %s", rcpt->address,
			       outcome_kind_name(rcpt->final));
	if (ledger->clock->wall < rcpt->not_before_wall && !ledger->clock_steps)
		ledger_violate(ledger, serial, "%s is tried %lld ms before the time that was announced", rcpt->address,
			       (long long)(rcpt->not_before_wall - ledger->clock->wall));
	if (rcpt->come_until_ms && (now_ms(ledger) < rcpt->come_from_ms || now_ms(ledger) > rcpt->come_until_ms))
		ledger_violate(ledger, serial, "%s comes back at %lld s, and was to come between %lld and %lld s",
			       rcpt->address, (long long)(now_ms(ledger) / 1000),
			       (long long)(rcpt->come_from_ms / 1000), (long long)(rcpt->come_until_ms / 1000));
	rcpt->come_from_ms = rcpt->come_until_ms = 0;
}

void ledger_on_taken(struct ledger *ledger, struct truth_rcpt *rcpt, bool is_excused)
{
	ledger_trace(ledger, rcpt->message->serial, "  server: took it for %s%s", rcpt->address,
		     is_excused ? ", and does not say so" : "");
	if (rcpt->accepted++ == 0)
		rcpt->accepted_at_ms = now_ms(ledger);
	rcpt->excused += is_excused;
	if (rcpt->accepted > 1 + rcpt->excused && !rcpt->is_hostile)
		ledger_violate(ledger, rcpt->message->serial, "%s has it %u times, with %u excuses", rcpt->address,
			       rcpt->accepted, rcpt->excused);
}

/* ---- DSNs ---- */

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

static bool wants_dsn(const struct truth_rcpt *rcpt, uint32_t flag)
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
	return wants_dsn(rcpt, QUEUE_NOTIFY_FAILURE);
}

void ledger_on_bounced(struct ledger *ledger, uint32_t serial, uint32_t index)
{
	struct truth_message *message = ledger_message(ledger, serial);

	message->rcpts[index].dsn_queued = true;
}

/* ---- what the relay says ---- */

void ledger_on_accepted(struct ledger *ledger, struct truth_message *message, enum err_code result)
{
	ledger_trace(ledger, message->serial, "relay: %s", result == 0 ? "250" : err_code_name(result));
	message->state = result == 0 ? ACCEPTED : UNBORN;
	message->accepted_at_ms = now_ms(ledger);
}

static void report_dsn(struct ledger *ledger, const struct queue_message *message, const struct outcome *outcome)
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

static void check_end(struct ledger *ledger, struct truth_rcpt *rcpt, const struct outcome *outcome)
{
	struct truth_message *message = rcpt->message;

	if (outcome->kind == OUTCOME_DELIVERED) {
		if (rcpt->accepted == 0 && !rcpt->is_hostile)
			ledger_violate(ledger, message->serial, "%s counts as delivered, but no server took it",
				       rcpt->address);
		return;
	}
	if (outcome->kind != OUTCOME_FAILED && outcome->kind != OUTCOME_EXPIRED)
		ledger_violate(ledger, message->serial, "%s ends as %s", rcpt->address,
			       outcome_kind_name(outcome->kind));
	if (rcpt->accepted > 0 && rcpt->excused == 0 && !rcpt->is_hostile)
		ledger_violate(ledger, message->serial, "%s is %s although its server took it", rcpt->address,
			       outcome_kind_name(outcome->kind));
	if (outcome->kind == OUTCOME_EXPIRED && ledger->clock->wall < message->expires_wall)
		ledger_violate(ledger, message->serial, "%s expires %lld s too early", rcpt->address,
			       (long long)(message->expires_wall - ledger->clock->wall) / 1000);
	if (wants_dsn(rcpt, QUEUE_NOTIFY_FAILURE) && !rcpt->dsn_queued)
		ledger_violate(ledger, message->serial, "%s is given up before its DSN is safe", rcpt->address);
}

static void add_pending(struct ledger *ledger, struct truth_rcpt *rcpt)
{
	if (rcpt->is_pending)
		return;
	rcpt->is_pending = true;
	if (ledger->pending_count == ledger->pending_cap) {
		ledger->pending_cap = ledger->pending_cap ? ledger->pending_cap * 2 : 256;
		ledger->pending = xreallocarray(ledger->pending, ledger->pending_cap, sizeof(*ledger->pending));
	}
	ledger->pending[ledger->pending_count++] = rcpt;
}

void ledger_on_report(struct ledger *ledger, const struct queue_message *queued, uint32_t index,
		      const struct outcome *outcome, unsigned attempts, int64_t next_wall)
{
	struct truth_rcpt *rcpt = ledger_find_rcpt(ledger, queued->envelope.recipients[index].address);

	if (queued->envelope.flags & QUEUE_BOUNCE) {
		report_dsn(ledger, queued, outcome);
		return;
	}
	if (!rcpt) {
		ledger_violate(ledger, 0, "a report about %.*s", SLICE_ARG(queued->envelope.recipients[index].address));
		return;
	}
	ledger_trace(ledger, rcpt->message->serial, "relay: %s %s %s %s %d %s, attempt %u, next in %lld s",
		     rcpt->address, outcome_kind_name(outcome->kind), failure_class_name(outcome->class),
		     delivery_stage_name(outcome->stage), outcome->code, outcome->text, attempts,
		     (long long)(next_wall ? (next_wall - ledger->clock->wall) / 1000 : 0));
	if (rcpt->final != OUTCOME_NONE)
		ledger_violate(ledger, rcpt->message->serial, "%s ends twice: %s, then %s", rcpt->address,
			       outcome_kind_name(rcpt->final), outcome_kind_name(outcome->kind));
	if (attempts != rcpt->attempts + 1)
		ledger_violate(ledger, rcpt->message->serial, "attempt %u of %s follows attempt %u", attempts,
			       rcpt->address, rcpt->attempts);
	rcpt->attempts = attempts;
	add_pending(ledger, rcpt);
	if (outcome->kind == OUTCOME_DEFERRED) {
		if (next_wall <= ledger->clock->wall || next_wall > rcpt->message->expires_wall)
			ledger_violate(ledger, rcpt->message->serial,
				       "%s is put off by %lld ms, %lld ms before its end", rcpt->address,
				       (long long)(next_wall - ledger->clock->wall),
				       (long long)(rcpt->message->expires_wall - next_wall));
		rcpt->not_before_wall = next_wall;
		return;
	}
	check_end(ledger, rcpt, outcome);
	rcpt->final = outcome->kind;
}

void ledger_on_flush(struct ledger *ledger, struct truth_message *message)
{
	ledger_trace(ledger, message->serial, "operator: try it now");
	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		struct truth_rcpt *rcpt = &message->rcpts[i];
		rcpt->not_before_wall = rcpt->come_until_ms = 0;
	}
}

void ledger_on_hastened(struct ledger *ledger, struct truth_rcpt *rcpt)
{
	ledger_trace(ledger, rcpt->message->serial, "relay: %s may be tried now", rcpt->address);
	rcpt->not_before_wall = rcpt->come_until_ms = 0;
}

void ledger_on_synced(struct ledger *ledger)
{
	for (size_t i = 0; i < ledger->pending_count; i++) {
		struct truth_rcpt *rcpt = ledger->pending[i];
		rcpt->is_pending = false;
		rcpt->is_durable = rcpt->final != OUTCOME_NONE;
		rcpt->durable_attempts = rcpt->attempts;
		rcpt->durable_not_before_wall = rcpt->not_before_wall;
	}
	for (size_t i = 0; i < ledger->pending_dsn_count; i++)
		ledger->pending_dsns[i]->is_durable = true;
	ledger->pending_count = ledger->pending_dsn_count = 0;
}

/* ---- crashes ---- */

void ledger_on_going_down(struct ledger *ledger)
{
	for (uint32_t m = 0; m < ledger->count; m++)
		for (uint32_t i = 0; i < ledger->messages[m]->rcpt_count; i++)
			ledger->messages[m]->rcpts[i].come_until_ms = 0;
}

static void excuse_message(struct truth_message *message)
{
	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		struct truth_rcpt *rcpt = &message->rcpts[i];
		if (rcpt->is_durable)
			continue;
		rcpt->excused += rcpt->accepted > 0;
		rcpt->dsn_excused += rcpt->dsn_begun;
	}
	for (unsigned d = 0; d < message->dsn_count; d++) {
		struct truth_dsn *dsn = &message->dsns[d];
		if (dsn->is_durable)
			continue;
		dsn->excused += dsn->taken > 0;
	}
	/* A warning may be in the queue although nobody knows yet that it is. */
	message->delays_excused += message->state == ACCEPTED;
}

void ledger_on_break(struct ledger *ledger)
{
	for (uint32_t m = 0; m < ledger->count; m++)
		excuse_message(ledger->messages[m]);
}

void ledger_on_crash(struct ledger *ledger)
{
	ledger_on_going_down(ledger);
	ledger_on_break(ledger);
	for (uint32_t m = 0; m < ledger->count; m++) {
		struct truth_message *message = ledger->messages[m];
		if (message->state == OFFERED)
			message->state = UNCERTAIN;
		for (unsigned d = 0; d < message->dsn_count; d++)
			if (!message->dsns[d].is_durable)
				message->dsns[d].final = OUTCOME_NONE;
	}
	for (size_t i = 0; i < ledger->pending_count; i++)
		ledger->pending[i]->is_pending = false;
	ledger->pending_count = ledger->pending_dsn_count = 0;
}

static void compare_rcpt(struct ledger *ledger, struct truth_rcpt *rcpt, const struct queue_recipient_status *status)
{
	uint32_t serial = rcpt->message->serial;

	if (rcpt->is_durable && (status->state != QUEUE_FINAL || status->kind != rcpt->final))
		ledger_violate(ledger, serial, "%s was %s on the disk, and is %s after the start", rcpt->address,
			       outcome_kind_name(rcpt->final),
			       status->state == QUEUE_FINAL ? outcome_kind_name(status->kind) : "open");
	if (status->attempts < rcpt->durable_attempts || status->attempts > rcpt->attempts)
		ledger_violate(ledger, serial, "%s has %u attempts after the start; %u were recorded, %u made",
			       rcpt->address, status->attempts, rcpt->durable_attempts, rcpt->attempts);
	rcpt->attempts = rcpt->durable_attempts = status->attempts;
	rcpt->final = status->state == QUEUE_FINAL ? status->kind : OUTCOME_NONE;
	rcpt->is_durable = status->state == QUEUE_FINAL;
	rcpt->not_before_wall = rcpt->durable_not_before_wall = rcpt->is_durable ? 0 : status->next_attempt_wall;
	if (!rcpt->is_durable)
		rcpt->dsn_queued = false;
}

struct comparing {
	struct ledger *ledger;
	struct queue *queue;
};

static void compare_message(void *ctx, const struct queue_brief *brief)
{
	struct comparing *comparing = ctx;
	struct queue_message queued;
	struct truth_rcpt *first;

	if (queue_read_envelope(comparing->queue, brief->id, 0, &queued) != 0) {
		ledger_violate(comparing->ledger, 0, "a message cannot be read after the start");
		return;
	}
	first = ledger_find_rcpt(comparing->ledger, queued.envelope.recipients[0].address);
	if (first) {
		struct truth_message *message = first->message;
		message->is_in_queue = true;
		if (message->state == UNCERTAIN) {
			message->state = ACCEPTED;
			message->accepted_at_ms = now_ms(comparing->ledger);
		}
		for (uint32_t i = 0; i < message->rcpt_count; i++)
			compare_rcpt(comparing->ledger, &message->rcpts[i], &queued.status[i]);
	} else if (!(queued.envelope.flags & QUEUE_BOUNCE)) {
		ledger_violate(comparing->ledger, 0, "a message that nobody sent");
	}
	queue_message_free(&queued);
}

static void compare_absent(struct ledger *ledger, struct truth_message *message)
{
	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		struct truth_rcpt *rcpt = &message->rcpts[i];
		if (rcpt->final == OUTCOME_NONE)
			ledger_violate(ledger, message->serial, "%s is lost: not in the queue after the start",
				       rcpt->address);
		rcpt->is_durable = rcpt->final != OUTCOME_NONE;
	}
}

void ledger_compare(struct ledger *ledger, struct queue *queue)
{
	struct comparing comparing = {ledger, queue};
	uint64_t cursor = 0;

	for (uint32_t m = 0; m < ledger->count; m++)
		ledger->messages[m]->is_in_queue = false;
	do
		queue_iterate(queue, &cursor, 1000, compare_message, &comparing);
	while (cursor != 0);
	for (uint32_t m = 0; m < ledger->count; m++)
		if (ledger->messages[m]->state == ACCEPTED && !ledger->messages[m]->is_in_queue)
			compare_absent(ledger, ledger->messages[m]);
}

/* ---- the end ---- */

static void check_expectation(struct ledger *ledger, const struct truth_rcpt *rcpt)
{
	static const enum outcome_kind wanted[] = {[EXPECT_DELIVERED] = OUTCOME_DELIVERED,
						   [EXPECT_FAILED] = OUTCOME_FAILED,
						   [EXPECT_EXPIRED] = OUTCOME_EXPIRED};

	if (rcpt->expect != EXPECT_ANY && rcpt->final != OUTCOME_NONE && rcpt->final != wanted[rcpt->expect])
		ledger_violate(ledger, rcpt->message->serial, "%s should be %s, and is %s", rcpt->address,
			       outcome_kind_name(wanted[rcpt->expect]), outcome_kind_name(rcpt->final));
}

static void check_told(struct ledger *ledger, const struct truth_rcpt *rcpt)
{
	const struct truth_message *message = rcpt->message;
	bool gave_up = rcpt->final == OUTCOME_FAILED || rcpt->final == OUTCOME_EXPIRED;

	if (gave_up && wants_dsn(rcpt, QUEUE_NOTIFY_FAILURE) && message->is_told && rcpt->dsn_seen == 0)
		ledger_violate(ledger, message->serial, "%s was given up, and the sender was never told",
			       rcpt->address);
	if (!wants_dsn(rcpt, QUEUE_NOTIFY_FAILURE) && rcpt->dsn_seen > 0)
		ledger_violate(ledger, message->serial, "a DSN about %s, which nobody wanted", rcpt->address);
	if (rcpt->final == OUTCOME_DELIVERED && rcpt->dsn_seen > rcpt->dsn_excused)
		ledger_violate(ledger, message->serial, "%s was delivered, and the sender was told of a failure",
			       rcpt->address);
}

void ledger_finish(struct ledger *ledger, bool is_drained, int64_t now_wall)
{
	for (uint32_t m = 0; m < ledger->count; m++) {
		struct truth_message *message = ledger->messages[m];
		for (uint32_t i = 0; message->state == ACCEPTED && i < message->rcpt_count; i++) {
			struct truth_rcpt *rcpt = &message->rcpts[i];
			check_expectation(ledger, rcpt);
			if (rcpt->final == OUTCOME_NONE && (is_drained || now_wall > message->expires_wall + HOUR_MS))
				ledger_violate(ledger, message->serial, "%s has no outcome at the end", rcpt->address);
			if (is_drained)
				check_told(ledger, rcpt);
		}
	}
}

static void count_rcpt(const struct truth_rcpt *rcpt, struct ledger_totals *out)
{
	int64_t latency = rcpt->accepted_at_ms - rcpt->message->accepted_at_ms;

	out->rcpts++;
	out->delivered += rcpt->final == OUTCOME_DELIVERED;
	out->failed += rcpt->final == OUTCOME_FAILED;
	out->expired += rcpt->final == OUTCOME_EXPIRED;
	out->waiting += rcpt->final == OUTCOME_NONE;
	out->twice += rcpt->accepted > 1;
	if (!rcpt->is_brisk || rcpt->accepted == 0)
		return;
	out->brisk_count++;
	out->brisk_mean_ms += ((double)latency - out->brisk_mean_ms) / out->brisk_count;
	out->brisk_worst_ms = MAX(out->brisk_worst_ms, latency);
}

void ledger_totals(const struct ledger *ledger, struct ledger_totals *out)
{
	*out = (struct ledger_totals){0};
	for (uint32_t m = 0; m < ledger->count; m++) {
		const struct truth_message *message = ledger->messages[m];
		if (message->state != ACCEPTED) {
			out->never_offered++;
			continue;
		}
		out->messages++;
		for (uint32_t i = 0; i < message->rcpt_count; i++)
			count_rcpt(&message->rcpts[i], out);
		for (unsigned d = 0; d < message->dsn_count; d++) {
			out->dsns += message->dsns[d].taken > 0 && !message->dsns[d].is_delay;
			out->delays += message->dsns[d].taken > 0 && message->dsns[d].is_delay;
		}
	}
}
