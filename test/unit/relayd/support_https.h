/*
 * An HTTPS server on a loopback port, in the loop of the test, with a certificate of its own; and a resolver that knows
 * two names without DNS: "secure.test", which the certificate is for, and "other.test", which it is not.
 */
#ifndef SUPPORT_HTTPS_H
#define SUPPORT_HTTPS_H

#include "support_peer.h"

#include "base/list.h"
#include "base/random.h"
#include "relayd/https.h"

#include <gnutls/gnutls.h>

struct https_peer {
	struct loop *loop;
	const struct clock *clock;
	struct net *net;
	struct net_acceptor *acceptor;
	gnutls_certificate_credentials_t credentials;
	struct list connections;
	uint16_t port;
	char folder[64], certificate[96], hosts[96];
	struct dns *dns;
	struct resolver *resolver;

	/* What came last: the header's text with its final empty line, and the body. */
	char header[8192], body[8192];
	unsigned requests, accepted;
	/* What the next ones are told, whole: "HTTP/1.1 200 OK\r\n..."; NULL: nothing yet, see https_peer_say(). */
	const char *reply;
	bool close_after; /* and the connection is closed */
};

/* `clock`: that of the loop. */
void https_peer_init(struct https_peer *peer, struct loop *loop, const struct clock *clock);
void https_peer_fini(struct https_peer *peer);
/* To all who wait for an answer. */
void https_peer_say(struct https_peer *peer, const char *text);
/* How many wait for an answer. */
unsigned https_peer_waiting(const struct https_peer *peer);
/* No more connections are taken. */
void https_peer_stop_listening(struct https_peer *peer);

#endif
