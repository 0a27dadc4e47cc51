/*
 * relayd/submission.h - the clients' sessions: each joins a stream, the SMTP server machine, authentication and intake
 *
 * The machine decides the protocol, relayd/session.c what relayd does: who may send, when content is read on, what is
 * counted and logged. This file has all sessions together: who is let in, services, start and stop.
 */
#ifndef RELAYD_SUBMISSION_H
#define RELAYD_SUBMISSION_H

#include "config/gateways.h"
#include "relayd/auth.h"
#include "relayd/intake.h"
#include "relayd/metrics.h"
#include "relayd/stream.h"

struct submissions;

struct submissions_options {
	struct loop *loop;
	struct net *net;
	struct auth *auth;
	struct log *log;
	struct metrics *metrics;
	struct intake_context intake;
};

/* One way in; belongs to the listener. Sessions borrow it, so it outlives them: see submission_service_unref(). */
struct submission_service {
	unsigned refs;
	char name[128]; /* "127.0.0.1:587", "submit.sock" */
	enum config_listen_tls tls;
	bool is_local; /* submit.sock: local users, no AUTH, no TLS */
	struct smtp_server_options smtp, smtp_trusted;
	struct tls_credentials *credentials; /* NULL: no TLS */
	struct config_listener listener;     /* shallow copy, for config_trusts(); valid as `config` */
	struct config_gateways gateways;
	struct config *config;
};
struct submission_service *submission_service_ref(struct submission_service *service);
void submission_service_unref(struct submission_service **service);

/* Limits and everything else are those of options->intake.config until the first submissions_configure(). */
struct submissions *submissions_new(const struct submissions_options *options);
/* Makes the series of a listener and user ("": none) at 0: for all listeners at the start, for a user at each login. */
void submission_series(struct metrics *metrics, const char *listener, const char *user);
/* Ends all sessions at once. */
void submissions_free(struct submissions **submissions);
/* Borrowed until the next call. Sessions under way keep what they began with. */
void submissions_configure(struct submissions *submissions, struct config *config);

enum submission_flag {
	SUBMISSION_NEVER_TRUSTED =
	    1,			/* the peer's address says nothing about the client: a balancer's own connection */
	SUBMISSION_OF_DROP = 2, /* a file that waits in drop/, one at a time: its owner's connections do not count */
};
/*
 * Takes over an accepted descriptor. When a limit is reached, a session that is idle and has not logged in is sent away
 * for it (421); without one, the new client hears the 421.
 */
void submissions_begin(struct submissions *submissions, struct submission_service *service, int fd,
		       const struct net_peer *peer, unsigned flags);
unsigned submissions_count(const struct submissions *submissions);
/* The journal takes content again. */
void submissions_resume(struct submissions *submissions);
/* 421 to the idle ones now, to others after their transaction. */
void submissions_stop(struct submissions *submissions);

#endif
