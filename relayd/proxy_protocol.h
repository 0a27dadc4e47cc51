/*
 * relayd/proxy_protocol.h - the PROXY header of a load balancer, versions 1 and 2: who the client really is
 *
 * haproxy's "The PROXY protocol", sections 2.1 and 2.2. Sans-IO: bytes go in as they come, cut anywhere; nothing behind
 * the header is taken. Only for connections from addresses that are configured to send it: there the header must come,
 * and nothing is guessed. A version 2 header's extensions (TLVs) are passed over.
 */
#ifndef RELAYD_PROXY_PROTOCOL_H
#define RELAYD_PROXY_PROTOCOL_H

#include "base/err.h"
#include "base/slice.h"
#include "dns/address.h"

enum {
	PROXY_V1_MAX_BYTES = 107,      /* with CRLF; section 2.1 */
	PROXY_HEADER_MAX_BYTES = 4096, /* of version 2: room for a client certificate among the extensions */
};

struct proxy_header {
	/* False: LOCAL, UNKNOWN, or a family that is not TCP over IP: the connection is the balancer's own, a health
	 * check for example. */
	bool names_client;
	struct dns_address client;
	uint16_t port;
};

struct proxy_reader {
	size_t len; /* all is private */
	unsigned char bytes[PROXY_HEADER_MAX_BYTES];
};

void proxy_reader_init(struct proxy_reader *reader);
/* 1: the header is complete, and in *out; 0: more is needed, and all of `bytes` was taken; negative: it is none
 * (ERR_SYNTAX), or too long (ERR_LIMIT), with words. *taken never goes beyond the header. */
int proxy_reader_input(struct proxy_reader *reader, struct slice bytes, size_t *taken, struct proxy_header *out,
		       struct err *err);

#endif
