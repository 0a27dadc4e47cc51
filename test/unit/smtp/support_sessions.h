/* Sessions of a client that sends with the null reverse-path, up to each step of a transaction. */
#ifndef SUPPORT_SESSIONS_H
#define SUPPORT_SESSIONS_H

#include "support_words.h"

static const struct smtp_transaction transactions[] = {
    {.recipients = one, .recipient_count = 1, .content_bytes = CONTENT},
    {.recipients = three, .recipient_count = 3, .content_bytes = CONTENT},
    {.recipients = one, .recipient_count = 1},
    {.recipients = one, .recipient_count = 1, .content_bytes = SMTP_CLIENT_ONE_FLIGHT_MAX + 1},
};

static const struct peer_setup plain = {.options = {.helo_name = "relay.example"}, .transactions = transactions};
static const struct peer_setup by_hand = {
    .options = {.helo_name = "relay.example"}, .transactions = transactions, .keeps_body_to_itself = true};

#define PIPELINING HELLO "S: 250-mx.example\nS: 250 PIPELINING\n= ready\n"
#define TO_RCPT MINIMAL "> send 0\nC: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<a@x.example>\n"
#define TO_DATA TO_RCPT "S: 250 ok\nC: DATA\n"
#define TO_BODY TO_DATA "S: 354 go\n= need_body\n"
#define TO_DOT TO_BODY BODY "C: .\n"
#define THREE                                                                                                          \
	PIPELINING "> send 1\nC: MAIL FROM:<>\nC: RCPT TO:<a@x.example>\nC: RCPT TO:<b@x.example>\n"                   \
		   "C: RCPT TO:<c@x.example>\nC: DATA\n"

#endif
