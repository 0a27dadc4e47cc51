/*
 * relayd/session.h - one client's session; private to submission.c, session.c and session_log.c
 *
 * Everything that happens ends in session_pump(): it lets the machine go on until there is nothing to do, sends what it
 * says, and sets the timer. It does not recurse: what is called from inside it only changes state.
 */
#ifndef RELAYD_SESSION_H
#define RELAYD_SESSION_H

#include "base/list.h"
#include "relayd/admission.h"
#include "relayd/quota.h"
#include "relayd/submission.h"

#include <time.h>

struct submissions {
	struct submissions_options options;
	struct admission *admission;
	struct quota *quota;
	struct list sessions;
	struct list blocked; /* sessions whose content waits for the journal */
	bool stopping;
	int64_t crowd_told_ms; /* when the log was last told that there is no room */
	struct series *duration, *size;
};

struct session {
	struct list node, blocked_node;
	struct admission_seat seat;
	struct submissions *owner;
	struct submission_service *service;
	struct stream *stream;
	struct smtp_server *server; /* NULL until implicit TLS stands */
	struct dns_address peer;
	char address[DNS_ADDRESS_TEXT], client[128];
	bool trusted, ended, in_input, in_pump, in_handshake;
	timer_id timer;
	uint64_t auth_request;
	char user[USERS_NAME_MAX_BYTES + 1], candidate[USERS_NAME_MAX_BYTES + 1];
	struct user_options *user_options;
	struct intake *intake;
	bool has_token; /* of the user's rate, for the message under way */
	bool is_storing;
	bool has_spoken; /* the client has said something */
	struct timespec complete_at;
	unsigned recipients;
	uint64_t bytes;
};

/* Takes the descriptor over; there is room. */
void session_begin(struct submissions *submissions, struct submission_service *service, int fd,
		   const struct net_peer *peer, unsigned flags);
void session_pump(struct session *session);
/* At once, without a word. The object goes at the end of the turn. */
void session_end(struct session *session);
/* It makes room for another: 421 and the end, whether the client reads or not. Not from inside a pump. */
void session_evict(struct session *session);
/* No new transaction: 421 as soon as none is under way. */
void session_shutdown(struct session *session);

/* ---- session_log.c */

void session_log_series(struct metrics *metrics);
void session_count_message(struct session *session, const char *result);
void session_log_rejected(struct session *session, const struct smtp_server_event *event);
void session_log_accepted(struct session *session, uint64_t id);
void session_log_resubmitted(struct session *session, uint64_t id);
void session_log_auth(struct session *session, enum auth_verdict verdict);
/* The client began with TLS where clear text comes first. */
void session_log_early_tls(struct session *session);
void session_log_tls(struct session *session, bool ok, const char *why);
double session_seconds_since(const struct timespec *then);

#endif
