/*
 * relayd/drop.h - the folder that sendmail fills while the daemon is away: SPOOL/drop/
 *
 * Each file is one message with its envelope (smtp/bsmtp.h), put there by rename. At the start, whenever a file comes
 * (inotify) and every half minute the folder is looked through, one file at a time: it is handed in over a socket pair
 * as if its owner had submitted it at submit.sock, by the same session, policy, signature and journal, and unlinked
 * after the 250. A crash between the two hands it in twice; nothing loses it.
 *
 * Anybody may write there (1733), so: only regular files with one link, opened without following links and without
 * waiting; the owner of the file is the local user; a file that is not whole, not readable or not understood, or that
 * is refused for good, is moved to SPOOL/quarantine/ and told as an error. What is refused for now stays, and is tried
 * again after ten seconds. Names that begin with a dot are being written; after a day they are leftovers and go.
 */
#ifndef RELAYD_DROP_H
#define RELAYD_DROP_H

#include "base/log.h"
#include "relayd/submission.h"

struct drop;

/* Borrowed. */
struct drop_options {
	struct loop *loop;
	struct net *net;
	struct log *log;
	const struct clock *clock;
	int spool_fd;
	struct submissions *submissions;
	/* The way in; asked for each file, since a reload exchanges it. */
	struct submission_service *(*service)(void *ctx);
	void *ctx;
};

/* Begins with a look. NULL: the folder cannot be opened; `err` says why. */
struct drop *drop_new(const struct drop_options *options, struct err *err);
/* No other file is begun; the one under way ends as its session does. */
void drop_stop(struct drop *drop);
/* Ends what is under way; its file stays unless its 250 has come. Accepts NULL, sets NULL. */
void drop_free(struct drop **drop);

#endif
