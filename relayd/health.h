/*
 * relayd/health.h - does it work? For /livez, /readyz, /mailz, `relayctl health` and `status`, and the alerts
 *
 * Ready: the journal takes mail; it says nothing of upstreams, for an unready sidecar would refuse what it could keep.
 * Mail flows: ready, and no alert is active. That is for people and for what wakes them, never for an orchestrator.
 *
 * An alert is something that a person must look at. Each has a begin and an end, once in the log, in
 * relayd_alert_active, in `relayctl status` and for whoever asked with health_on_change() (the webhook).
 */
#ifndef RELAYD_HEALTH_H
#define RELAYD_HEALTH_H

#include "base/buf.h"
#include "base/log.h"
#include "queue/queue.h"
#include "relayd/destination.h"
#include "relayd/metrics.h"

enum alert {
	ALERT_JOURNAL,	   /* the journal does not take mail */
	ALERT_CORRUPTION,  /* stored bytes are damaged: until SPOOL/quarantine is empty and an hour was quiet */
	ALERT_RELAYHOST,   /* a relayhost is in trouble: no connection, no TLS, no login */
	ALERT_NO_DELIVERY, /* mail waits, and nothing has been delivered for 15 minutes */
	ALERT_OLDEST,	   /* the oldest message waits for more than 30 minutes */
	ALERT_DISK,	   /* less than 10 % of the spool's file system is free */
	ALERT_CERTIFICATE, /* expires within 14 days */
	ALERT_SIGNING,	   /* messages are refused because they cannot be signed */
	ALERT_TLS,	   /* a host that has had verified TLS is without it */
	ALERT_WEBHOOK,	   /* the webhook takes no events, or events have been dropped */
	ALERT_REFUSED,	   /* a relayhost refuses nearly everything: 18 of the last 20 recipients, until it is half */
	ALERT_COUNT,
};
const char *alert_name(enum alert alert);

struct health;

struct health *health_new(struct log *log, struct metrics *metrics, const struct clock *clock, struct queue *queue,
			  struct destinations *destinations);
void health_free(struct health **health);

/* The spool, so that its file system's space and its quarantine can be looked at; borrowed. Without it ALERT_DISK never
 * comes. */
void health_watch_disk(struct health *health, int spool_fd);

/* Facts that others know. An alert is told when it begins; when it is raised again the text is replaced quietly. */
void health_raise(struct health *health, enum alert alert, const char *text);
void health_end(struct health *health, enum alert alert);
/* Looks at queue, destinations, disk, quarantine and certificates; call it every few seconds, and after a destination's
 * health has changed. */
void health_look(struct health *health);
void health_note_delivery(struct health *health);
/* A recipient's outcome at this relayhost. What says nothing about us (an unknown mailbox, greylisting) does not count.
 */
void health_note_outcome(struct health *health, const char *relayhost, const struct outcome *outcome);
/* Damaged bytes were found. */
void health_note_corruption(struct health *health, const char *text);

/* Not ready any more, for good: the daemon is drained. */
void health_stop_accepting(struct health *health);

/* Whether; when not, words into `reason`. */
bool health_is_ready(const struct health *health, char *reason, size_t size);
bool health_mail_flows(const struct health *health, char *reason, size_t size);

struct health_alert {
	enum alert alert;
	const char *text;
	int64_t since_wall;
};
/* The active ones; returns how many were filled in. */
size_t health_alerts(const struct health *health, struct health_alert out[ALERT_COUNT]);
/* `cb` hears of each begin and end, after it was logged. */
void health_on_change(struct health *health, void (*cb)(void *ctx, const struct health_alert *alert, bool is_active),
		      void *ctx);

#endif
