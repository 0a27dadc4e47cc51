/*
 * relayd/web.h - what the TCP `http` listener shows to anybody who can reach it: metrics and health, nothing else
 *
 *   /metrics            the Prometheus exposition
 *   /livez, /healthz    200: the loop turns, for it has answered
 *   /readyz             200, or 503 with the reason: the journal takes mail
 *   /mailz              200, or 503 with the reason: mail flows; for people and alerts, never for an orchestrator
 *
 * No queue, no addresses, nothing that changes anything: that is the control socket's (relayd/control.h).
 */
#ifndef RELAYD_WEB_H
#define RELAYD_WEB_H

#include "relayd/health.h"
#include "relayd/http.h"
#include "relayd/metrics.h"

/* The `ctx` of web_handle(); both borrowed. */
struct web {
	struct metrics *metrics;
	struct health *health;
};

http_handler web_handle;

#endif
