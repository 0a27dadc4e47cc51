/*
 * relayd/control_filter.h - which of the queued messages an operator means; shared by the listing and all that acts on
 * many. Only the control API includes it.
 *
 *   state=S         ready, inflight, deferred, held
 *   domain=D        an open recipient is of this domain (U-labels or A-labels, any case)
 *   recipient=A     this address is an open recipient
 *   sender=A        the reverse-path; "" or "<>" is the empty one
 *   user=U          who submitted it
 *   class=C         default, transactional, bulk
 *   reason=R        the class of its last deferral: greylist, throttle, ...
 *   age=DURATION    at least this old
 *   relayhost=R     an open recipient may go this way now: a relayhost's name, or mx
 *
 * All conditions that are given must hold. Some need no look at the disk; those are asked first.
 */
#ifndef RELAYD_CONTROL_FILTER_H
#define RELAYD_CONTROL_FILTER_H

#include "relayd/control_internal.h"

struct control_filter {
	bool has_state, has_class, has_reason;
	enum message_state state;
	enum message_class class;
	enum failure_class reason;
	int64_t age_ms; /* 0: any */
	struct control_domain domain;
	char *recipient, *sender, *user, *relayhost; /* NULL: any */
};

/* Where the values stand: NULL, not given. */
typedef const char *control_value(const void *ctx, const char *name);

/* 0; or the request was refused with what is wrong, and nothing need be freed. */
int control_filter_init(struct control_filter *filter, control_value *value, const void *ctx,
			struct http_response *response);
void control_filter_fini(struct control_filter *filter);
bool control_filter_has_name(const char *name);
/* Nothing is given: it means every message. */
bool control_filter_is_empty(const struct control_filter *filter);

/* The envelope decides, and must be read. */
bool control_filter_wants_message(const struct control_filter *filter);
bool control_filter_takes_brief(const struct control_filter *filter, const struct queue_brief *brief, int64_t now_wall);
bool control_filter_takes_message(const struct control_filter *filter, struct control *control,
				  const struct queue_message *message);
/* "state=held domain=example.net" for the log; appends. */
void control_filter_format(const struct control_filter *filter, struct buf *out);

#endif
