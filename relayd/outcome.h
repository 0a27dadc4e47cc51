/*
 * relayd/outcome.h - the one place that decides what a reply or a fault means for a message
 *
 * Pure functions: facts in, a struct outcome (base/outcome.h) out. Sources: RFC 5321 §4.2.1 (4yz transient, 5yz
 * permanent), RFC 3463 (enhanced codes; the basic code rules where they disagree), and what real servers say (the table
 * in outcome.c). No failure of DNS, TLS, the network or our own account at a relayhost is ever permanent, except
 * answers that say the domain takes no mail.
 */
#ifndef RELAYD_OUTCOME_H
#define RELAYD_OUTCOME_H

#include "base/outcome.h"

/* Where and for whom it happened. */
struct outcome_place {
	enum delivery_stage stage;
	const char *host;  /* "name[address]", or the domain when there was no host yet */
	bool at_relayhost; /* our upstream, not the recipient's MX */
	unsigned attempts; /* earlier ones for this recipient that came to it and were not greylisted */
};

/* A reply of the next hop. `enhanced` may be "" or NULL; `text` is a printable line. */
void outcome_of_reply(struct outcome *out, const struct outcome_place *place, int code, const char *enhanced,
		      const char *text);

/* Anything that is no reply. The class and whether it can pass decide the default enhanced code (RFC 3463):
 * connect 4.4.1, dns 4.4.3, tls 4.7.5, other 4.3.0; `enhanced` overrides it. kind: OUTCOME_DEFERRED or OUTCOME_FAILED.
 */
void outcome_of_fault(struct outcome *out, const struct outcome_place *place, enum outcome_kind kind,
		      enum failure_class class, const char *enhanced, const char *text);

/* True when the outcome says that our account at the relayhost is in trouble, not the message: a refused login, a daily
 * limit, access denied before any message was looked at. Such an outcome is always OUTCOME_DEFERRED. */
bool outcome_is_account_trouble(const struct outcome *outcome);

/* True for the part of it that may be the message's fault after all: the relayhost does not take mail in this sender's
 * name (not verified), or relays nothing for us. Whether it takes other messages shows which. */
bool outcome_is_refused_sender(const struct outcome *outcome);
/* Other messages get through: the same reply as the fault of this one. */
void outcome_blame_message(struct outcome *outcome);

/* True when the outcome is about the host or the connection rather than this message or recipient, so that the next MX
 * host may fare better (RFC 5321 §5.1). */
bool outcome_is_host_trouble(const struct outcome *outcome);

/* True when the other hosts of the next hop would say the same, before they see a message: our login is refused, or a
 * large provider has had too much of our address. Too many connections, or being busy, is one host's matter. */
bool outcome_holds_everywhere(const struct outcome *outcome);

/* Time is over: the last reply stays as it was, since it tells why; that says the kind (5.4.7 where there is no code). */
void outcome_expire(struct outcome *outcome);

/* The reason word of relayd_bounces_total: no_user, policy, size, relay, expired or other. */
const char *outcome_bounce_class(const struct outcome *outcome);

/* Seconds to wait that a greylisting or throttling reply asks for ("retry in 300 seconds", "come back in 00:05:00",
 * "try again in 5 minutes"), 0: none. Clamped to 30 s .. 4 h; numbers inside addresses, URLs and ticket ids do not
 * count. */
int outcome_retry_hint_sec(const struct outcome *outcome);

#endif
