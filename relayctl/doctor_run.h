/*
 * relayctl/doctor_run.h - the checks of `relayctl doctor` as processes, and what they found
 *
 * Each check has a process for each subject, a dozen at a time, which writes its findings into a pipe. So a hung disk, a
 * silent server or a library that waits holds up no other, and none runs longer than its limit.
 */
#ifndef RELAYCTL_DOCTOR_RUN_H
#define RELAYCTL_DOCTOR_RUN_H

#include "relayctl/doctor.h"

/* A finding as an object: check, subject, level, found; where there is something to do also advice, or
 * record {name, type, value}. */
typedef void doctor_finding(void *ctx, json_t *finding);
/* One without anything to do; the caller's reference. What does not print in the texts is shown as "?". */
json_t *doctor_finding_new(const char *check, const char *subject, enum doctor_level level, const char *found);

struct doctor_runner;

struct doctor_runner *doctor_runner_new(struct doctor *doctor);
/* Sets NULL, accepts NULL. */
void doctor_runner_free(struct doctor_runner **runner);
/* Borrows the check, copies the subject. */
void doctor_runner_add(struct doctor_runner *runner, const struct doctor_check *check, const char *subject);
/* Runs them all. Findings come in the order in which the checks were added, each as soon as those before it are over. */
void doctor_runner_run(struct doctor_runner *runner, doctor_finding *on_finding, void *ctx);

#endif
