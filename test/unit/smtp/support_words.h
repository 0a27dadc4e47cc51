/* What transcripts of the client (support_peer.h) are made of: recipients, greetings, a message. */
#ifndef SUPPORT_WORDS_H
#define SUPPORT_WORDS_H

#include "support_peer.h"

#define SLICE_INIT(literal)                                                                                            \
	{                                                                                                              \
		(literal), sizeof(literal) - 1                                                                         \
	}
#define TO(address)                                                                                                    \
	{                                                                                                              \
		SLICE_INIT(address), {0}, 0                                                                            \
	}

static const struct smtp_client_recipient one[] = {TO("a@x.example")};
static const struct smtp_client_recipient three[] = {TO("a@x.example"), TO("b@x.example"), TO("c@x.example")};

/* "Subject: x\r\n\r\nhello\r\n" */
enum { CONTENT = 21 };
#define BODY "C: Subject: x\nC: \nC: hello\n"

#define HELLO "S: 220 mx.example ESMTP\nC: EHLO relay.example\n"
#define MINIMAL HELLO "S: 250 mx.example\n= ready\n"
#define CHUNKING HELLO "S: 250-mx.example\nS: 250-PIPELINING\nS: 250 CHUNKING\n= ready\n"

#endif
