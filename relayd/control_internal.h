/*
 * relayd/control_internal.h - what the parts of the control API share; nobody else includes it
 */
#ifndef RELAYD_CONTROL_INTERNAL_H
#define RELAYD_CONTROL_INTERNAL_H

#include "base/list.h"
#include "relayd/control.h"
#include "relayd/control_activity.h"

#include <jansson.h>

struct control {
	struct control_options options;
	struct list tails; /* clients of /v1/events */
	struct activity *activity;
};

/* One endpoint. `body`: the object that was posted, borrowed; NULL with GET. */
typedef void control_endpoint(struct control *control, const struct http_request *request, json_t *body,
			      struct http_response *response);

control_endpoint control_post_drain, control_get_route, control_get_events, control_get_status, control_get_health,
    control_get_queue, control_get_message, control_post_flush, control_post_hold, control_post_release,
    control_post_delete, control_post_bounce, control_post_reload, control_post_relayhost;

int64_t control_now_wall(const struct control *control);
const struct config *control_config(const struct control *control);

/* ---- JSON ---- */

/* Whatever the bytes are: broken UTF-8 and control characters become U+FFFD. A new reference. */
json_t *control_text(struct slice text);
json_t *control_str(const char *text);
json_t *control_id(uint64_t id);
/* "2026-11-30T09:23:00Z" */
json_t *control_iso_time(int64_t wall_ms);
/* Whole seconds from `from_wall` to `to_wall`, never below 0. */
json_t *control_seconds(int64_t from_wall, int64_t to_wall);
/* ERR_LIMIT: no room; then nothing was appended. */
int control_dump(struct buf *out, const json_t *document);
/* For json_dump_callback(); ctx is a struct buf. */
int control_append_piece(const char *bytes, size_t len, void *ctx);

/* Takes the reference. */
void control_answer(struct http_response *response, json_t *document);
/* {"error": words} */
void control_refuse(struct http_response *response, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/*
 * Answers when what has been appended to the journal so far is on stable storage, or after a second. Takes the
 * reference to the document; then `finish` (may be NULL) may change it, or drop it and return another one.
 */
typedef json_t *control_finish(struct control *control, uint64_t id, bool synced, json_t *document);
void control_answer_synced(struct control *control, struct http_response *response, uint64_t id, json_t *document,
			   control_finish *finish);

/* Why this destination takes nothing now, a pause before all else; false: it does. */
bool control_why_not_now(struct control *control, const struct destination_id *id, char *out, size_t size);

/* An object of the listing; `message` NULL: it cannot be read. A new reference. */
json_t *control_row(struct control *control, const struct queue_brief *brief, const struct queue_message *message);

/* The webhook hears of each recipient that ended with the message. */
void control_tell_deleted(struct control *control, const struct queue_message *message);

/* One line in the log. id 0: many, by `conditions` (NULL: none). */
void control_log_action(struct control *control, const char *action, uint64_t id, struct slice sender,
			const char *conditions, int64_t count);
/* What is done to all messages that meet the conditions in the body; "flush", "hold", "release", "delete", "bounce". */
void control_begin_bulk(struct control *control, const char *action, json_t *body, struct http_response *response);

/* ---- what messages are asked for by ---- */

/* The recipients of a domain, written in any case, with a leading @ or not, as U-labels or A-labels. */
struct control_domain {
	char text[DESTINATION_NAME_MAX];  /* as asked; "": every domain */
	char ascii[DESTINATION_NAME_MAX]; /* as A-labels; "": it is none */
};
void control_domain_init(struct control_domain *domain, const char *text);
bool control_domain_matches(const struct control_domain *domain, struct slice address);

/* Where the recipient may go, as the configuration in force says. */
void control_route(struct control *control, const struct queue_envelope *envelope, uint32_t recipient,
		   struct scheduler_targets *out);
bool control_is_backing_off(const struct control *control, const struct destination *destination);
/* Ends the back-off of where the message's open recipients of the domain may go. */
void control_retry_targets(struct control *control, const struct queue_message *message,
			   const struct control_domain *domain);

#endif
