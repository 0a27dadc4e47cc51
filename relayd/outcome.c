#include "relayd/outcome.h"

#include "base/base.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum { HINT_MIN_SEC = 30, HINT_MAX_SEC = 4 * 3600, TAKES_NO_MAIL = 521 };

/* A set of stages. */
#define AT(stage) (1u << (stage))
#define ANYWHERE (~0u)
#define AT_MESSAGE (AT(STAGE_MAIL) | AT_CONTENT)
#define AT_CONTENT (AT(STAGE_RCPT) | AT(STAGE_DATA) | AT(STAGE_DOT))

/*
 * What replies mean. The first row that fits gives the class; all conditions of a row must hold.
 * `text` is searched without regard to case; `enhanced` compares subject and detail ("7.1" fits 4.7.1 and 5.7.1), and a
 * trailing '*' leaves the detail open.
 */
struct rule {
	unsigned stages;
	int code_from, code_to;
	const char *enhanced;
	const char *text;
	enum failure_class class;
};

static const struct rule rules[] = {
    /* Our account: whatever is said during AUTH, and "authenticate first" later on. */
    {AT(STAGE_AUTH), 400, 599, NULL, NULL, CLASS_AUTH},
    {AT(STAGE_TLS), 400, 599, NULL, NULL, CLASS_TLS},
    {ANYWHERE, 530, 530, NULL, NULL, CLASS_AUTH},
    {ANYWHERE, 535, 535, NULL, NULL, CLASS_AUTH},
    {ANYWHERE, 500, 599, "7.8", NULL, CLASS_AUTH},
    {ANYWHERE, 500, 599, "7.0", "authentication required", CLASS_AUTH},
    {ANYWHERE, 500, 599, "7.30", "basic authentication", CLASS_AUTH}, /* Exchange Online */

    /* Greylisting: postgrey, rspamd, milter-greylist, spamd, cPanel; 422 and 452: Stalwart. */
    {AT_CONTENT, 422, 499, NULL, "greylist", CLASS_GREYLIST},
    {AT_CONTENT, 422, 499, NULL, "graylist", CLASS_GREYLIST},
    {AT_CONTENT, 422, 499, NULL, "grey list", CLASS_GREYLIST},
    {AT_CONTENT, 422, 499, NULL, "gray list", CLASS_GREYLIST},
    {AT_CONTENT, 422, 499, NULL, "grey-list", CLASS_GREYLIST},
    {AT_CONTENT, 422, 499, NULL, "postgrey", CLASS_GREYLIST},
    {AT_CONTENT, 422, 499, NULL, "come back", CLASS_GREYLIST},
    {AT_CONTENT, 422, 499, NULL, "not yet authorized to deliver", CLASS_GREYLIST},

    /* Too much, too fast: Gmail, Yahoo, Outlook, Exchange Online and most providers. */
    {ANYWHERE, 400, 499, "7.28", NULL, CLASS_THROTTLE},
    {ANYWHERE, 400, 499, "7.500", NULL, CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "rate limit", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "rate-limit", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "unusual rate", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "too quickly", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "too fast", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "too frequent", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "connections limit exceeded", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "sending rate", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "too many", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "server busy", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "throttl", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "[tss0", CLASS_THROTTLE},
    {ANYWHERE, 400, 499, NULL, "deferred due to", CLASS_THROTTLE},
    {ANYWHERE, 500, 599, "4.5", NULL, CLASS_THROTTLE}, /* daily quota: Gmail and Google Workspace */

    /* This mailbox. */
    {ANYWHERE, 400, 599, "2.*", NULL, CLASS_MAILBOX},
    {ANYWHERE, 400, 599, "1.*", NULL, CLASS_MAILBOX},
    {AT_CONTENT, 400, 599, NULL, "over quota", CLASS_MAILBOX},
    {AT_CONTENT, 400, 599, NULL, "quota exceeded", CLASS_MAILBOX},
    {AT_CONTENT, 400, 599, NULL, "mailbox full", CLASS_MAILBOX},
    {AT_CONTENT, 400, 599, NULL, "mailbox is full", CLASS_MAILBOX},
    {AT_CONTENT, 400, 599, NULL, "user unknown", CLASS_MAILBOX},
    {AT_CONTENT, 400, 599, NULL, "no such user", CLASS_MAILBOX},
    {AT_CONTENT, 400, 599, NULL, "unknown user", CLASS_MAILBOX},
    {AT_CONTENT, 400, 599, NULL, "does not exist", CLASS_MAILBOX},

    /* The content or the sender is not wanted. */
    {ANYWHERE, 400, 599, "7.*", NULL, CLASS_POLICY},
    {ANYWHERE, 400, 599, NULL, "spam", CLASS_POLICY},
    {ANYWHERE, 400, 599, NULL, "blocked", CLASS_POLICY},
    {ANYWHERE, 400, 599, NULL, "policy", CLASS_POLICY},
    {ANYWHERE, 554, 554, NULL, NULL, CLASS_POLICY},

    /* The host goes away or does not talk to us. */
    {ANYWHERE, 421, 421, NULL, NULL, CLASS_CONNECT},
    {AT(STAGE_GREETING), TAKES_NO_MAIL, TAKES_NO_MAIL, NULL, NULL, CLASS_POLICY}, /* RFC 7504 */
    {AT(STAGE_GREETING), 400, 599, NULL, NULL, CLASS_CONNECT},
    {AT(STAGE_RCPT), 550, 553, NULL, NULL, CLASS_MAILBOX},
};

/*
 * What a relayhost says about our account there, whatever the message is: it is never the message's fault. Looked at
 * before the rules above, in the same way.
 */
enum account_matter {
	ACCOUNT_FINE = 0,
	ACCOUNT_SHUT,	/* we may not send, or not like this */
	ACCOUNT_LIMIT,	/* not any more, for a while */
	ACCOUNT_SENDER, /* not in this sender's name, or not at all: other messages show which */
};

struct account_rule {
	unsigned stages;
	int code_from, code_to;
	const char *enhanced;
	const char *text;
	enum account_matter matter;
};

static const struct account_rule account_rules[] = {
    /* Limits of a day or a month. */
    {AT_MESSAGE, 500, 599, "4.5", NULL, ACCOUNT_LIMIT},				      /* Gmail, Google Workspace */
    {AT_MESSAGE, 400, 599, NULL, "daily smtp relay", ACCOUNT_LIMIT},		      /* Google's relay */
    {AT_MESSAGE, 400, 599, NULL, "daily user sending", ACCOUNT_LIMIT},		      /* Gmail */
    {AT_MESSAGE, 400, 599, NULL, "message quota exceeded", ACCOUNT_LIMIT},	      /* Amazon SES */
    {AT_MESSAGE, 400, 599, NULL, "reached your daily limit", ACCOUNT_LIMIT},	      /* Microsoft 365, 5.1.90 */
    {AT_MESSAGE, 400, 599, NULL, "submissionquotaexceeded", ACCOUNT_LIMIT},	      /* Microsoft 365, 5.2.0 */
    {AT_MESSAGE, 500, 599, "7.705", NULL, ACCOUNT_LIMIT},			      /* Microsoft 365: the tenant's */
    {AT_MESSAGE, 400, 599, NULL, "maximum credits exceeded", ACCOUNT_LIMIT},	      /* SendGrid */
    {AT_MESSAGE, 400, 599, NULL, "to send: recipient limit exceeded", ACCOUNT_LIMIT}, /* Mailgun */
    {AT_MESSAGE, 400, 599, NULL, "sending limit", ACCOUNT_LIMIT},
    {AT_MESSAGE, 400, 599, NULL, "sending quota", ACCOUNT_LIMIT},

    /* Closed, suspended, not allowed. */
    {AT_MESSAGE, 400, 599, NULL, "sending paused for this account", ACCOUNT_SHUT}, /* Amazon SES */
    {AT_MESSAGE, 500, 599, NULL, "is not authorized to perform", ACCOUNT_SHUT},	   /* Amazon SES, IAM */
    {AT_MESSAGE, 500, 599, NULL, "bad outbound sender", ACCOUNT_SHUT},		   /* Microsoft 365, 5.1.8 */
    {AT_MESSAGE, 500, 599, NULL, "outboundspamexception", ACCOUNT_SHUT},	   /* Microsoft 365, 5.2.0 */
    {AT_MESSAGE, 500, 599, "7.708", NULL, ACCOUNT_SHUT}, /* Microsoft 365: not from this address */
    {AT_MESSAGE, 500, 599, "7.57", NULL, ACCOUNT_SHUT},	 /* Exchange: not authenticated */
    {AT_MESSAGE, 500, 599, NULL, "invalid credentials for relay", ACCOUNT_SHUT},       /* Google's relay */
    {AT_MESSAGE, 500, 599, NULL, "unauthenticated senders not allowed", ACCOUNT_SHUT}, /* SendGrid */
    {AT_MESSAGE, 400, 599, NULL, "is not allowed to send", ACCOUNT_SHUT},	       /* Mailgun */
    {AT_MESSAGE, 500, 599, NULL, "account is not yet activated", ACCOUNT_SHUT},	       /* Brevo */
    {AT_MESSAGE, 500, 599, NULL, "unauthorized ip address", ACCOUNT_SHUT},	       /* Brevo */
    {AT_MESSAGE, 500, 599, NULL, "unusual sending activity", ACCOUNT_SHUT},	       /* Zoho, 5.4.6 */
    {AT(STAGE_MAIL), 500, 599, NULL, "account disabled", ACCOUNT_SHUT},
    {AT(STAGE_MAIL), 500, 599, NULL, "account suspended", ACCOUNT_SHUT},
    {AT(STAGE_MAIL), 500, 599, NULL, "has been suspended", ACCOUNT_SHUT},

    /* Senders that are not verified. */
    {AT_MESSAGE, 400, 599, NULL, "is not verified", ACCOUNT_SENDER},		 /* Amazon SES, Resend */
    {AT_MESSAGE, 400, 599, NULL, "must be verified", ACCOUNT_SENDER},		 /* MailerSend */
    {AT_MESSAGE, 500, 599, NULL, "verified sender identity", ACCOUNT_SENDER},	 /* SendGrid */
    {AT_MESSAGE, 500, 599, NULL, "not authorized to send from", ACCOUNT_SENDER}, /* SendGrid */
    {AT_MESSAGE, 500, 599, NULL, "sendasdenied", ACCOUNT_SENDER},		 /* Microsoft 365, 5.2.252, 5.2.0 */
    {AT_MESSAGE, 500, 599, "7.60", NULL, ACCOUNT_SENDER},			 /* Exchange: may not send as */
    {AT_MESSAGE, 500, 599, "7.750", NULL, ACCOUNT_SENDER},		    /* Microsoft 365: unregistered domain */
    {AT_MESSAGE, 400, 599, NULL, "sender signature", ACCOUNT_SENDER},	    /* Postmark */
    {AT_MESSAGE, 500, 599, NULL, "relaying disallowed as", ACCOUNT_SENDER}, /* Zoho */
    {AT_MESSAGE, 500, 599, NULL, "not owned by user", ACCOUNT_SENDER},	    /* Postfix */
    /* Or relaying at all. */
    {AT_MESSAGE, 500, 599, NULL, "relay access denied", ACCOUNT_SENDER}, /* Postfix */
    {AT_MESSAGE, 500, 599, NULL, "relaying denied", ACCOUNT_SENDER},	 /* sendmail */
    {AT_MESSAGE, 500, 599, NULL, "relay not permitted", ACCOUNT_SENDER}, /* Exim */
    {AT_MESSAGE, 500, 599, NULL, "unable to relay", ACCOUNT_SENDER},	 /* Exchange, 5.7.54 */
};

static bool enhanced_fits(const char *pattern, const char *enhanced)
{
	size_t len = strlen(pattern);

	if (!enhanced || strlen(enhanced) < 3)
		return false;
	enhanced += 2; /* past the class digit and its dot */
	if (pattern[len - 1] == '*')
		return strncmp(enhanced, pattern, len - 1) == 0;
	return strcmp(enhanced, pattern) == 0;
}

static bool rule_fits(const struct rule *rule, enum delivery_stage stage, int code, const char *enhanced,
		      const char *text)
{
	return (rule->stages & AT(stage)) && code >= rule->code_from && code <= rule->code_to &&
	       (!rule->enhanced || enhanced_fits(rule->enhanced, enhanced)) &&
	       (!rule->text || strcasestr(text, rule->text));
}

static enum account_matter account_matter(enum delivery_stage stage, int code, const char *enhanced, const char *text)
{
	for (size_t i = 0; i < ARRAY_LEN(account_rules); i++) {
		const struct account_rule *rule = &account_rules[i];
		if (rule_fits(&(struct rule){rule->stages, rule->code_from, rule->code_to, rule->enhanced, rule->text,
					     CLASS_NONE},
			      stage, code, enhanced, text))
			return rule->matter;
	}
	return ACCOUNT_FINE;
}

static enum account_matter matter_of(const struct outcome *outcome)
{
	return account_matter(outcome->stage, outcome->code, outcome->enhanced, outcome->text);
}

/* RFC 3207 section 4. A handshake may have failed before, and pass the next time; or it is our configuration. */
static bool asks_for_tls(const struct outcome_place *place, int code, const char *text)
{
	return !place->at_relayhost && code >= 500 && (AT_MESSAGE & AT(place->stage)) && strcasestr(text, "starttls");
}

static enum failure_class classify(const struct outcome_place *place, int code, const char *enhanced, const char *text)
{
	/* Said to a stranger on the first attempt, it is greylisting without the word (rspamd, spamd). */
	bool first_content = place->attempts == 0 && (AT_CONTENT & AT(place->stage)) && !place->at_relayhost;
	enum account_matter matter =
	    place->at_relayhost ? account_matter(place->stage, code, enhanced, text) : ACCOUNT_FINE;

	if (matter != ACCOUNT_FINE)
		return matter == ACCOUNT_LIMIT ? CLASS_THROTTLE : CLASS_AUTH;
	if (asks_for_tls(place, code, text))
		return CLASS_TLS;
	if (first_content && (code == 450 || code == 451) &&
	    (enhanced_fits("7.1", enhanced) || enhanced_fits("2.0", enhanced) || !enhanced || !*enhanced) &&
	    strcasestr(text, "try again later"))
		return CLASS_GREYLIST;
	for (size_t i = 0; i < ARRAY_LEN(rules); i++)
		if (rule_fits(&rules[i], place->stage, code, enhanced, text))
			return rules[i].class;
	return CLASS_OTHER;
}

/* A permanent reply that must not end a message: it is about us or about the host. */
static bool is_survivable(const struct outcome_place *place, int code, enum failure_class class)
{
	if (place->at_relayhost && (class == CLASS_AUTH || class == CLASS_THROTTLE))
		return true;
	if (class == CLASS_TLS)
		return true;
	return place->stage < STAGE_MAIL && (code != TAKES_NO_MAIL || place->at_relayhost);
}

static void set_texts(struct outcome *out, const struct outcome_place *place, const char *enhanced, const char *text)
{
	snprintf(out->enhanced, sizeof(out->enhanced), "%s", enhanced ? enhanced : "");
	snprintf(out->host, sizeof(out->host), "%s", place->host ? place->host : "");
	snprintf(out->text, sizeof(out->text), "%s", text ? text : "");
}

static const char *default_enhanced(int code, enum failure_class class)
{
	bool permanent = code >= 500;

	if (code == TAKES_NO_MAIL)
		return "5.3.2";
	switch (class) {
	case CLASS_GREYLIST: return "4.7.1";
	case CLASS_AUTH: return permanent ? "5.7.8" : "4.7.0";
	case CLASS_MAILBOX: return permanent ? "5.1.1" : "4.2.0";
	case CLASS_POLICY: return permanent ? "5.7.1" : "4.7.1";
	case CLASS_CONNECT: return permanent ? "5.4.2" : "4.4.2";
	case CLASS_TLS: return permanent ? "5.7.5" : "4.7.5";
	default: return permanent ? "5.0.0" : "4.0.0";
	}
}

void outcome_of_reply(struct outcome *out, const struct outcome_place *place, int code, const char *enhanced,
		      const char *text)
{
	*out = (struct outcome){.stage = place->stage, .code = code};
	if (!text)
		text = "";
	if (code >= 200 && code < 300) {
		out->kind = OUTCOME_DELIVERED;
		set_texts(out, place, enhanced && *enhanced ? enhanced : "2.0.0", text);
		return;
	}
	out->class = classify(place, code, enhanced, text);
	out->kind =
	    code >= 500 && code <= 599 && !is_survivable(place, code, out->class) ? OUTCOME_FAILED : OUTCOME_DEFERRED;
	if (!enhanced || !*enhanced)
		enhanced = default_enhanced(code, out->class);
	set_texts(out, place, enhanced, text);
}

void outcome_of_fault(struct outcome *out, const struct outcome_place *place, enum outcome_kind kind,
		      enum failure_class class, const char *enhanced, const char *text)
{
	static const char *const details[CLASS_COUNT] = {
	    [CLASS_CONNECT] = "4.1", [CLASS_DNS] = "4.3", [CLASS_TLS] = "7.5", [CLASS_AUTH] = "7.0"};
	char fallback[12];

	*out = (struct outcome){.kind = kind, .class = class, .stage = place->stage};
	snprintf(fallback, sizeof(fallback), "%c.%s", kind == OUTCOME_DEFERRED ? '4' : '5',
		 details[class] ? details[class] : "3.0");
	set_texts(out, place, enhanced ? enhanced : fallback, text);
}

bool outcome_is_account_trouble(const struct outcome *outcome)
{
	return outcome->kind == OUTCOME_DEFERRED &&
	       (outcome->class == CLASS_AUTH ||
		(outcome->class == CLASS_THROTTLE && (outcome->code >= 500 || matter_of(outcome) == ACCOUNT_LIMIT)));
}

bool outcome_is_refused_sender(const struct outcome *outcome)
{
	return outcome->kind == OUTCOME_DEFERRED && outcome->class == CLASS_AUTH &&
	       matter_of(outcome) == ACCOUNT_SENDER;
}

void outcome_blame_message(struct outcome *outcome)
{
	outcome->kind = outcome->code >= 500 ? OUTCOME_FAILED : OUTCOME_DEFERRED;
	outcome->class = CLASS_POLICY;
}

bool outcome_is_host_trouble(const struct outcome *outcome)
{
	if (outcome->kind == OUTCOME_DELIVERED || outcome->kind == OUTCOME_FAILED)
		return false;
	return outcome->code == 0 || outcome->code == 421 || outcome->class == CLASS_TLS || outcome->stage < STAGE_MAIL;
}

/* Yahoo, Gmail, Exchange Online. */
static bool is_of_our_address(const struct outcome *outcome)
{
	return enhanced_fits("7.28", outcome->enhanced) || enhanced_fits("7.500", outcome->enhanced) ||
	       strcasestr(outcome->text, "[tss0") || strcasestr(outcome->text, "deferred due to") ||
	       strcasestr(outcome->text, "unusual rate");
}

bool outcome_holds_everywhere(const struct outcome *outcome)
{
	if (outcome->kind != OUTCOME_DEFERRED || outcome->code == 0 || outcome->stage >= STAGE_MAIL)
		return false;
	if (outcome->class == CLASS_AUTH)
		return outcome->code >= 500;
	return outcome->class == CLASS_THROTTLE && is_of_our_address(outcome);
}

void outcome_expire(struct outcome *outcome)
{
	outcome->kind = OUTCOME_EXPIRED;
	if (outcome->enhanced[0] == '\0')
		snprintf(outcome->enhanced, sizeof(outcome->enhanced), "5.4.7");
}

const char *outcome_bounce_class(const struct outcome *outcome)
{
	if (outcome->kind == OUTCOME_EXPIRED)
		return "expired";
	if (strcmp(outcome->enhanced, "5.3.4") == 0 || strcmp(outcome->enhanced, "5.2.3") == 0 || outcome->code == 552)
		return "size";
	if (strcasestr(outcome->text, "relay access") || strcasestr(outcome->text, "relaying denied"))
		return "relay";
	if (outcome->class == CLASS_MAILBOX || outcome->class == CLASS_DNS)
		return "no_user";
	if (outcome->class == CLASS_POLICY)
		return "policy";
	return "other";
}

/* Seconds of the unit that starts at `at`, 0: no unit. */
static long unit_seconds(const char *at)
{
	static const struct {
		const char *word;
		long seconds;
	} units[] = {{"seconds", 1},  {"second", 1},  {"secs", 1},   {"sec", 1},   {"s", 1},
		     {"minutes", 60}, {"minute", 60}, {"mins", 60},  {"min", 60},  {"m", 60},
		     {"hours", 3600}, {"hour", 3600}, {"hrs", 3600}, {"hr", 3600}, {"h", 3600}};

	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		size_t len = strlen(units[i].word);
		if (strncasecmp(at, units[i].word, len) == 0 && !isalnum((unsigned char)at[len]) && at[len] != '-')
			return units[i].seconds;
	}
	return 0;
}

/* "in 00:05:00", "for 05:00"; others are times of the day. */
static bool is_span(const char *text, const char *at)
{
	static const char *const words[] = {"in ", "for "};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		size_t len = strlen(words[i]);
		if ((size_t)(at - text) >= len && strncasecmp(at - len, words[i], len) == 0)
			return true;
	}
	return false;
}

/* "00:05:00" or "05:00" at `at`; 0: neither. */
static long clock_seconds(const char *text, const char *at)
{
	int h, m, s, used = 0;

	if (!is_span(text, at))
		return 0;
	if (sscanf(at, "%2d:%2d:%2d%n", &h, &m, &s, &used) == 3 && !isdigit((unsigned char)at[used]))
		return h * 3600L + m * 60L + s;
	used = 0;
	if (sscanf(at, "%2d:%2d%n", &m, &s, &used) == 2 && !isdigit((unsigned char)at[used]))
		return m * 60L + s;
	return 0;
}

/* The number must stand alone: not within a word, an address, a URL or a ticket id. */
static bool stands_alone(const char *text, const char *at)
{
	return at == text || at[-1] == ' ' || at[-1] == '(' || at[-1] == '=';
}

static long hint_at(const char *text, const char *at)
{
	char *end;
	long value = clock_seconds(text, at);

	if (value > 0)
		return value;
	value = strtol(at, &end, 10);
	if (end - at > 6)
		return 0;
	while (*end == ' ')
		end++;
	return value * unit_seconds(end);
}

int outcome_retry_hint_sec(const struct outcome *outcome)
{
	const char *text = outcome->text;

	if (outcome->class != CLASS_GREYLIST && outcome->class != CLASS_THROTTLE)
		return 0;
	for (const char *at = text; *at; at++) {
		long seconds;
		if (!isdigit((unsigned char)*at) || !stands_alone(text, at))
			continue;
		seconds = hint_at(text, at);
		if (seconds > 0)
			return (int)MIN(MAX(seconds, (long)HINT_MIN_SEC), (long)HINT_MAX_SEC);
	}
	return 0;
}
