/* The part for people: what happened, what the remote host said, what can be done. */
#include "smtp/dsn_internal.h"

#include <stdio.h>

/* What a reason means to the sender of a message, and what helps. The first row that fits. */
static const struct {
	enum failure_class class;
	const char *enhanced; /* subject and detail, or its start; NULL: any */
	const char *advice;
} advices[] = {
    {CLASS_NONE, "1.1", "There is no such mailbox. Check the part of the address before the @."},
    {CLASS_NONE, "1.2", "The domain of this address does not exist. Check the part of the address after the @."},
    {CLASS_NONE, "1.10", "The domain of this address takes no mail. Check the part of the address after the @."},
    {CLASS_NONE, "2.1", "The mailbox is disabled. Reach the recipient in another way."},
    {CLASS_NONE, "2.2", "The mailbox is full. Reach the recipient in another way, or send again later."},
    {CLASS_NONE, "3.4", "The message is too large for the recipient's host. Send less, or a link to it."},
    {CLASS_NONE, "2.3", "The message is too large for this mailbox. Send less, or a link to it."},
    {CLASS_NONE, "4.6", "Mail for this address runs in a circle. The administrator of the domain has to correct it."},
    {CLASS_NONE, "6.7", "The address or the header needs SMTPUTF8, which the recipient's host does not speak."},
    {CLASS_NONE, "6.3", "The text has 8-bit characters, which the recipient's host does not take."},
    {CLASS_NONE, "7.30", "The message was to travel under TLS all the way, and the recipient's host cannot do so."},
    {CLASS_MAILBOX, NULL, "The recipient's host does not take mail for this mailbox. Check the address."},
    {CLASS_POLICY, NULL,
     "The recipient's host did not want this message. If it was wanted, its words above tell the administrator why."},
    {CLASS_CONNECT, NULL, "The recipient's host could not be reached, or the connection broke."},
    {CLASS_DNS, NULL, "The recipient's domain could not be looked up. Check the part of the address after the @."},
    {CLASS_TLS, NULL, "No connection to the recipient's host was as secure as it has to be."},
    {CLASS_GREYLIST, NULL, "The recipient's host asked to come back later."},
    {CLASS_THROTTLE, NULL, "The recipient's host takes no more messages for the moment."},
    {CLASS_AUTH, NULL, "The relay's own account is in trouble. Tell the administrator of the relay."},
    {CLASS_OTHER, NULL, "If the words above do not help, show them to the administrator of the recipient's host."},
};

static bool fits(const char *pattern, const char *enhanced)
{
	/* "5.1.1" fits "1.1". */
	return strlen(enhanced) > 2 && strcmp(enhanced + 2, pattern) == 0;
}

static const char *advice_for(const struct outcome *outcome)
{
	for (size_t i = 0; i < ARRAY_LEN(advices); i++) {
		if (advices[i].enhanced ? fits(advices[i].enhanced, outcome->enhanced)
					: advices[i].class == outcome->class)
			return advices[i].advice;
	}
	return NULL;
}

static void put_paragraph(struct dsn_writer *w, const char *text)
{
	dsn_put_wrapped(w, text, "", 0);
	dsn_put_str(w, "\r\n\r\n");
}

static void put_intro(struct dsn_writer *w, const struct dsn *dsn)
{
	bool one = dsn->recipient_count == 1;

	dsn_printf(w, "This is the mail relay %s.\r\n\r\n", dsn->hostname);
	if (dsn->kind == DSN_FAILED) {
		put_paragraph(
		    w, one ? "Your message could not be delivered to this recipient, and no further attempt will "
			     "be made:"
			   : "Your message could not be delivered to these recipients, and no further attempt "
			     "will be made for them:");
	} else if (dsn->kind == DSN_DELAYED) {
		put_paragraph(w, "THIS IS A WARNING ONLY. YOU NEED NOT SEND YOUR MESSAGE AGAIN.");
		put_paragraph(
		    w, one ? "Your message could not be delivered to this recipient yet; further attempts will be "
			     "made:"
			   : "Your message could not be delivered to these recipients yet; further attempts will "
			     "be made:");
	} else {
		put_paragraph(w, one ? "You asked to be told: your message has been handed on for this recipient:"
				     : "You asked to be told: your message has been handed on for these recipients:");
	}
}

/* What was said or what happened. */
static void put_reason(struct dsn_writer *w, const struct dsn *dsn, const struct dsn_recipient *recipient)
{
	const struct outcome *outcome = recipient->outcome;
	const char *enhanced = dsn_reply_enhanced(outcome);
	char text[DSN_PEER_TEXT_BYTES + 1], host[DSN_PEER_TEXT_BYTES + 1], line[3 * DSN_PEER_TEXT_BYTES];

	dsn_clean(text, slice_of_str(outcome->text), false);
	dsn_clean(host, slice_of_str(outcome->host), false);
	if (dsn->kind == DSN_RELAYED && !recipient->is_final_delivery && !recipient->is_expanded)
		snprintf(line, sizeof(line),
			 "The host %s took it over. It does not report on deliveries, so nothing more "
			 "will be heard of it unless it fails.",
			 host[0] ? host : "of the recipient");
	else if (outcome->code)
		snprintf(line, sizeof(line), "The host %s said: %d %s%s%s", host[0] ? host : "of the recipient",
			 outcome->code, enhanced, enhanced[0] ? " " : "", text);
	else
		snprintf(line, sizeof(line), "%s%s%s", text, host[0] && text[0] ? " - " : "", host);
	if (line[0]) {
		dsn_put_str(w, "    ");
		dsn_put_wrapped(w, line, "    ", 4);
		dsn_put_str(w, "\r\n");
	}
}

static void put_advice(struct dsn_writer *w, const struct dsn *dsn, const struct dsn_recipient *recipient)
{
	const char *advice = dsn->kind == DSN_RELAYED ? NULL : advice_for(recipient->outcome);

	if (dsn->kind == DSN_FAILED && recipient->outcome->kind == OUTCOME_EXPIRED)
		dsn_put_str(w, "    It was tried until the time for it was over.\r\n");
	if (advice) {
		dsn_put_str(w, "    ");
		dsn_put_wrapped(w, advice, "    ", 4);
		dsn_put_str(w, "\r\n");
	}
	if (dsn->kind == DSN_DELAYED && recipient->will_retry_until_wall)
		dsn_put_date(w, "    It will be tried until ", recipient->will_retry_until_wall);
}

static void put_recipient(struct dsn_writer *w, const struct dsn *dsn, const struct dsn_recipient *recipient)
{
	char address[DSN_PEER_TEXT_BYTES + 1];

	dsn_clean(address, recipient->address, false);
	dsn_printf(w, "  <%s>\r\n", address);
	put_reason(w, dsn, recipient);
	put_advice(w, dsn, recipient);
	dsn_put_str(w, "\r\n");
}

void dsn_put_words(struct dsn_writer *w, const struct dsn *dsn, size_t told, bool returned_whole)
{
	put_intro(w, dsn);
	for (size_t i = 0; i < told; i++)
		put_recipient(w, dsn, &dsn->recipients[i]);
	if (told < dsn->recipient_count)
		dsn_printf(w, "  and %zu more\r\n\r\n", dsn->recipient_count - told);
	dsn_put_date(w, "The message was received on ", dsn->arrived_wall);
	if (dsn->original_id)
		dsn_printf(w, "It has the number %s in the relay's log.\r\n", dsn->original_id);
	dsn_put_str(w, returned_whole ? "It is attached.\r\n" : "Its header is attached.\r\n");
}
