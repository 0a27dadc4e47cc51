#include "relayctl/spf.h"

#include "base/base.h"
#include "relayctl/spf_term.h"

#include <stdarg.h>
#include <stdio.h>

enum { LOOKUPS_MAX = 10, VOIDS_MAX = 2, NAMES_MAX = 10 };

struct evaluation {
	const struct spf_question *question;
	struct spf_verdict *verdict;
	unsigned voids;
};

/* What a mechanism says. */
enum match { NO = 0, YES, TEMPORARY, PERMANENT };

const char *spf_result_name(enum spf_result result)
{
	static const char *const names[] = {"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"};

	return names[result];
}

static enum spf_result check_host(struct evaluation *e, const char *domain);

static void __attribute__((format(printf, 2, 3))) say(struct evaluation *e, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(e->verdict->why, sizeof(e->verdict->why), format, args);
	va_end(args);
}

/* ---- DNS ---- */

static const struct dns_answer *ask(struct evaluation *e, const char *name, uint16_t type)
{
	return e->question->ask(e->question->ctx, name, type);
}

/* One more of the lookups that are counted. */
static bool may_look_up(struct evaluation *e)
{
	if (e->verdict->lookups++ < LOOKUPS_MAX)
		return true;
	e->verdict->lookups = LOOKUPS_MAX;
	say(e, "more than %d DNS lookups", LOOKUPS_MAX);
	return false;
}

/* What an answer without the record that was hoped for comes to. */
static enum match judge_empty(struct evaluation *e, const struct dns_answer *answer)
{
	if (answer->status == DNS_TEMPORARY) {
		say(e, "%.200s cannot be looked up: %.60s", answer->name, answer->reason);
		return TEMPORARY;
	}
	if (answer->status == DNS_OK || ++e->voids <= VOIDS_MAX)
		return NO;
	say(e, "more than %d lookups find nothing, at last %.200s", VOIDS_MAX, answer->name);
	return PERMANENT;
}

/* ---- mechanisms ---- */

static bool is_inside(const struct dns_address *address, const struct dns_address *network, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	if (address->family != network->family || memcmp(address->bytes, network->bytes, whole) != 0)
		return false;
	return rest == 0 || (address->bytes[whole] ^ network->bytes[whole]) >> (8 - rest) == 0;
}

static unsigned bits_of(const struct evaluation *e, const struct spf_term *term)
{
	return e->question->address.family == DNS_IPV4 ? term->bits4 : term->bits6;
}

static enum match match_host(struct evaluation *e, const char *host, unsigned bits)
{
	bool is_4 = e->question->address.family == DNS_IPV4;
	const struct dns_answer *answer = ask(e, host, is_4 ? DNS_A : DNS_AAAA);
	enum match match = judge_empty(e, answer);

	for (size_t i = 0; match == NO && answer->status == DNS_OK && i < answer->record_count; i++)
		if (is_inside(&e->question->address, &answer->records[i].address, bits))
			match = YES;
	dns_answer_unref(&answer);
	return match;
}

static enum match match_mx(struct evaluation *e, const char *domain, unsigned bits)
{
	const struct dns_answer *answer = ask(e, domain, DNS_MX);
	enum match match = judge_empty(e, answer);
	size_t count = answer->status == DNS_OK ? answer->record_count : 0;

	if (count > NAMES_MAX) {
		say(e, "%.200s has more than %d MX hosts", domain, NAMES_MAX);
		match = PERMANENT;
	}
	for (size_t i = 0; match == NO && i < count; i++)
		if (answer->records[i].mx.host[0])
			match = match_host(e, answer->records[i].mx.host, bits);
	dns_answer_unref(&answer);
	return match;
}

static bool is_below(const char *name, const char *domain)
{
	size_t a = strlen(name), b = strlen(domain);

	return slice_has_case_suffix(slice_of_str(name), slice_of_str(domain)) && (a == b || name[a - b - 1] == '.');
}

/* Failed lookups count as no match (section 5.5). */
static enum match match_ptr(struct evaluation *e, const char *domain)
{
	char name[DNS_ADDRESS_REVERSE_TEXT];
	const struct dns_answer *answer;
	enum match match = NO;

	dns_address_format_reverse(&e->question->address, name);
	answer = ask(e, name, DNS_PTR);
	for (size_t i = 0; match != YES && answer->status == DNS_OK && i < MIN(answer->record_count, NAMES_MAX); i++)
		if (is_below(answer->records[i].name, domain))
			match = match_host(e, answer->records[i].name, 128);
	dns_answer_unref(&answer);
	return match == YES ? YES : NO;
}

static enum match match_exists(struct evaluation *e, const char *domain)
{
	const struct dns_answer *answer = ask(e, domain, DNS_A);
	enum match match = answer->status == DNS_OK && answer->record_count > 0 ? YES : judge_empty(e, answer);

	dns_answer_unref(&answer);
	return match;
}

static void visit(struct evaluation *e, const char *domain)
{
	if (e->question->on_visit)
		e->question->on_visit(e->question->ctx, domain);
}

static enum match match_include(struct evaluation *e, const char *domain)
{
	visit(e, domain);
	switch (check_host(e, domain)) {
	case SPF_PASS: return YES;
	case SPF_TEMPERROR: return TEMPORARY;
	case SPF_PERMERROR: return PERMANENT;
	case SPF_NONE: say(e, "include:%.200s has no SPF record", domain); return PERMANENT;
	default: return NO;
	}
}

/* The domain that a term of `domain` is about; `out` as in spf_term_target(). False: it is none, which was said. */
static bool find_target(struct evaluation *e, const struct spf_term *term, const char *domain, char *out)
{
	const struct spf_names names = {e->question->domain, domain, e->question->helo, &e->question->address};

	if (spf_term_target(term, &names, out))
		return true;
	say(e, "no domain in '%.200s'", term->text);
	return false;
}

static enum match match_term(struct evaluation *e, const struct spf_term *term, const char *domain)
{
	unsigned bits = bits_of(e, term);
	char target[DNS_NAME_MAX + 1];

	if (term->kind == SPF_ALL)
		return YES;
	if (term->kind == SPF_IP)
		return is_inside(&e->question->address, &term->address, bits) ? YES : NO;
	if (!may_look_up(e))
		return PERMANENT;
	if (!find_target(e, term, domain, target))
		return term->kind == SPF_INCLUDE ? PERMANENT : NO;
	switch (term->kind) {
	case SPF_A: return match_host(e, target, bits);
	case SPF_MX: return match_mx(e, target, bits);
	case SPF_PTR: return match_ptr(e, target);
	case SPF_EXISTS: return match_exists(e, target);
	default: return match_include(e, target);
	}
}

/* ---- a record ---- */

static enum spf_result redirect(struct evaluation *e, const struct spf_term *term, const char *domain)
{
	char target[DNS_NAME_MAX + 1];
	enum spf_result result;

	if (!may_look_up(e) || !find_target(e, term, domain, target))
		return SPF_PERMERROR;
	visit(e, target);
	result = check_host(e, target);
	if (result != SPF_NONE)
		return result;
	say(e, "redirect=%.200s has no SPF record", target);
	return SPF_PERMERROR;
}

static enum spf_result result_of(char qualifier)
{
	switch (qualifier) {
	case '-': return SPF_FAIL;
	case '~': return SPF_SOFTFAIL;
	case '?': return SPF_NEUTRAL;
	default: return SPF_PASS;
	}
}

static enum spf_result evaluate(struct evaluation *e, const struct spf_record *record, const char *domain)
{
	const struct spf_term *redirection = NULL;

	for (size_t i = 0; i < record->count; i++) {
		const struct spf_term *term = &record->terms[i];
		if (term->kind == SPF_REDIRECT) {
			redirection = term;
			continue;
		}
		switch (match_term(e, term, domain)) {
		case NO: break;
		case YES: say(e, "%.200s of %.80s", term->text, domain); return result_of(term->qualifier);
		case TEMPORARY: return SPF_TEMPERROR;
		case PERMANENT: return SPF_PERMERROR;
		}
	}
	if (redirection)
		return redirect(e, redirection, domain);
	say(e, "nothing in the record of %.200s matches", domain);
	return SPF_NEUTRAL;
}

/* The record of an answer: how many there are. */
static size_t find_record(const struct dns_answer *answer, struct slice *text)
{
	size_t count = 0;

	for (size_t i = 0; answer->status == DNS_OK && i < answer->record_count; i++) {
		struct slice rest = slice_from(answer->records[i].text, 6);
		if (!slice_has_case_prefix(answer->records[i].text, SLICE("v=spf1")) ||
		    (rest.len && rest.ptr[0] != ' '))
			continue;
		*text = rest;
		count++;
	}
	return count;
}

static enum spf_result check_host(struct evaluation *e, const char *domain)
{
	const struct dns_answer *answer = ask(e, domain, DNS_TXT);
	enum spf_result result = SPF_PERMERROR;
	struct spf_record record = {0};
	struct slice text;
	size_t count = find_record(answer, &text);

	if (answer->status == DNS_TEMPORARY) {
		say(e, "TXT %.200s cannot be looked up: %.60s", domain, answer->reason);
		result = SPF_TEMPERROR;
	} else if (count == 0) {
		say(e, "%.200s has no SPF record", domain);
		result = SPF_NONE;
	} else if (count > 1) {
		say(e, "%.200s has %zu SPF records", domain, count);
	} else if (!spf_record_parse(text, &record)) {
		say(e, "'%.100s' in the record of %.150s makes no sense", record.wrong, domain);
	} else {
		result = evaluate(e, &record, domain);
	}
	spf_record_fini(&record);
	dns_answer_unref(&answer);
	return result;
}

void spf_check(const struct spf_question *question, struct spf_verdict *out)
{
	struct evaluation e = {question, out, 0};

	*out = (struct spf_verdict){0};
	out->result = check_host(&e, question->domain);
}
