#include "test/sim/ledger_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int64_t ledger_now_ms(const struct ledger *ledger)
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
	if (rcpt->is_stopped)
		ledger_violate(ledger, serial, "%s is tried although an operator has stopped it", rcpt->address);
	if (ledger->clock->wall < rcpt->not_before_wall && !ledger->clock_steps)
		ledger_violate(ledger, serial, "%s is tried %lld ms before the time that was announced", rcpt->address,
			       (long long)(rcpt->not_before_wall - ledger->clock->wall));
	if (rcpt->come_until_ms &&
	    (ledger_now_ms(ledger) < rcpt->come_from_ms || ledger_now_ms(ledger) > rcpt->come_until_ms))
		ledger_violate(ledger, serial, "%s comes back at %lld s, and was to come between %lld and %lld s",
			       rcpt->address, (long long)(ledger_now_ms(ledger) / 1000),
			       (long long)(rcpt->come_from_ms / 1000), (long long)(rcpt->come_until_ms / 1000));
	rcpt->come_from_ms = rcpt->come_until_ms = 0;
}

void ledger_on_taken(struct ledger *ledger, struct truth_rcpt *rcpt, bool is_excused)
{
	ledger_trace(ledger, rcpt->message->serial, "  server: took it for %s%s", rcpt->address,
		     is_excused ? ", and does not say so" : "");
	if (rcpt->accepted++ == 0)
		rcpt->accepted_at_ms = ledger_now_ms(ledger);
	rcpt->excused += is_excused;
	if (rcpt->accepted > 1 + rcpt->excused && !rcpt->is_hostile)
		ledger_violate(ledger, rcpt->message->serial, "%s has it %u times, with %u excuses", rcpt->address,
			       rcpt->accepted, rcpt->excused);
}

/* ---- what the relay says ---- */

void ledger_on_accepted(struct ledger *ledger, struct truth_message *message, enum err_code result)
{
	ledger_trace(ledger, message->serial, "relay: %s", result == 0 ? "250" : err_code_name(result));
	message->state = result == 0 ? ACCEPTED : UNBORN;
	message->accepted_at_ms = ledger_now_ms(ledger);
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
	if (ledger_wants_dsn(rcpt, QUEUE_NOTIFY_FAILURE) && !rcpt->dsn_queued)
		ledger_violate(ledger, message->serial, "%s is given up before its DSN is safe", rcpt->address);
}

/* What came to its end while the relay was away, or when its clock was set, lives for half an hour more. */
static int64_t last_end(const struct ledger *ledger, const struct truth_message *message)
{
	int64_t now = ledger->clock->wall;

	return now < message->expires_wall ? message->expires_wall : now + HOUR_MS / 2;
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
		ledger_report_dsn(ledger, queued, outcome);
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
		if (next_wall <= ledger->clock->wall || next_wall > last_end(ledger, rcpt->message))
			ledger_violate(ledger, rcpt->message->serial,
				       "%s is put off by %lld ms, %lld ms before its end", rcpt->address,
				       (long long)(next_wall - ledger->clock->wall),
				       (long long)(rcpt->message->expires_wall - next_wall));
		rcpt->not_before_wall = next_wall;
		if (rcpt->is_dying)
			rcpt->final = OUTCOME_DELETED;
		return;
	}
	if (outcome->kind != OUTCOME_DELETED || !rcpt->is_dying)
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

/* What is under way ends as it ends; all else stops now. */
static void stop(struct truth_message *message, const struct queue_message *queued, bool is_inflight)
{
	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		struct truth_rcpt *rcpt = &message->rcpts[i];
		rcpt->is_stopped =
		    rcpt->final == OUTCOME_NONE && !(is_inflight && queued->status[i].state == QUEUE_TAKEN);
		rcpt->come_until_ms = 0;
	}
}

void ledger_on_hold(struct ledger *ledger, struct truth_message *message, const struct queue_message *queued,
		    bool is_inflight)
{
	ledger_trace(ledger, message->serial, "operator: holds it%s", is_inflight ? " in an attempt" : "");
	message->is_held = true;
	message->is_hold_durable = false;
	stop(message, queued, is_inflight);
	add_pending(ledger, &message->rcpts[0]);
}

void ledger_on_release(struct ledger *ledger, struct truth_message *message)
{
	message->is_held = message->is_hold_durable = false;
	for (uint32_t i = 0; i < message->rcpt_count; i++)
		message->rcpts[i].is_stopped = false;
	ledger_on_flush(ledger, message);
}

void ledger_on_delete(struct ledger *ledger, struct truth_message *message, const struct queue_message *queued,
		      bool is_inflight)
{
	ledger_trace(ledger, message->serial, "operator: deletes it%s", is_inflight ? " in an attempt" : "");
	message->is_deleted = true;
	message->is_delete_durable = false;
	stop(message, queued, is_inflight);
	add_pending(ledger, &message->rcpts[0]);
	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		struct truth_rcpt *rcpt = &message->rcpts[i];
		rcpt->expect = EXPECT_ANY;
		rcpt->is_dying = rcpt->final == OUTCOME_NONE;
		if (is_inflight || rcpt->final != OUTCOME_NONE)
			continue;
		rcpt->final = OUTCOME_DELETED;
		add_pending(ledger, rcpt);
	}
}

void ledger_on_return(struct ledger *ledger, struct truth_message *message)
{
	ledger_trace(ledger, message->serial, "operator: returns it");
	for (uint32_t i = 0; i < message->rcpt_count; i++) {
		message->rcpts[i].expect = EXPECT_ANY;
		message->rcpts[i].come_until_ms = 0;
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
		rcpt->message->is_hold_durable = rcpt->message->is_held;
		rcpt->message->is_delete_durable = rcpt->message->is_deleted;
	}
	for (size_t i = 0; i < ledger->pending_dsn_count; i++)
		ledger->pending_dsns[i]->is_durable = true;
	ledger->pending_count = ledger->pending_dsn_count = 0;
}
