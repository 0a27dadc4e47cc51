/*
 * relayd/listener.h - the doors: which sockets there are, who serves them, how many connections may come
 *
 * Bound as root if need be, before privileges are dropped; accepting itself is net.h's.
 */
#ifndef RELAYD_LISTENER_H
#define RELAYD_LISTENER_H

#include "relayd/http.h"
#include "relayd/spool.h"
#include "relayd/submission.h"

struct listeners;

struct listeners_options {
	struct loop *loop;
	struct net *net;
	struct log *log;
	struct metrics *metrics;
	int spool_fd;
	const struct service_user *user;
};

/* Those of tls.certificate, which is set. NULL, with words. */
struct tls_credentials *listeners_load_credentials(const struct config *config, struct err *err);

/* Opens all sockets of the configuration: SMTP, HTTP, control.sock and submit.sock in the spool. NULL, with words that
 * name the address: *exit_code is EX_OSERR or EX_NOPERM. */
struct listeners *listeners_open(const struct listeners_options *options, struct config *config, int *exit_code,
				 struct err *err);
/* Closes all; stale socket files are removed. */
void listeners_free(struct listeners **listeners);

/* Reads certificates (a self-signed one is made in the spool if there is none) and makes the services with which
 * connections are accepted from now on. At a reload: an error leaves all as it was. */
int listeners_configure(struct listeners *listeners, struct config *config, bool has_users, struct err *err);
/* Begins to accept, and tells each address in the log. */
void listeners_start(struct listeners *listeners, struct submissions *submissions, http_handler *web, void *web_ctx,
		     http_handler *control, void *control_ctx, struct err *err);
/* What the drop folder's messages come in by, as configured now; for relayd/drop.h. */
struct submission_service *listeners_drop_service(struct listeners *listeners);
/* No new SMTP connections; HTTP and control go on. */
void listeners_stop(struct listeners *listeners);

#endif
