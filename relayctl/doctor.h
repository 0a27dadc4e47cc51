/*
 * relayctl/doctor.h - what the checks of `relayctl doctor` share
 *
 * A check is a row of the table in doctor.c and a function that tells findings. It runs in a process of its own
 * (doctor_run.h), so it may block: when its time is over it is ended, and that is the finding. It works from the
 * configuration, without a daemon, asks DNS by the configured servers, and changes nothing.
 *
 * A new check: a function in the doctor_*.c of its subject, a row in doctor.c, its words in relayctl.8, and both a good
 * and a bad outcome in test/system/test_doctor*.py.
 */
#ifndef RELAYCTL_DOCTOR_H
#define RELAYCTL_DOCTOR_H

#include "dns/address.h"
#include "relayctl/ctl.h"
#include "relayctl/lookup.h"

enum doctor_level {
	DOCTOR_OK = 0, /* as it should be */
	DOCTOR_INFO,   /* worth knowing, nothing to do */
	DOCTOR_WARN,   /* mail flows, but some of it is lost or late, or soon will be */
	DOCTOR_FAIL,   /* mail is refused, lost, or counts as forged */
	DOCTOR_LEVEL_COUNT,
};
/* "ok", "info", "warn", "fail". */
const char *doctor_level_name(enum doctor_level level);

/* How often a check runs, and what its `subject` is then. */
enum doctor_scope {
	DOCTOR_ONCE = 0,  /* "" */
	DOCTOR_DOMAIN,	  /* each sender domain, as A-labels */
	DOCTOR_RELAYHOST, /* the name of each relayhost */
};

enum { DOCTOR_EGRESS_MAX = 8, DOCTOR_EXPIRY_WARN_DAYS = 14 };

struct doctor {
	struct ctl *ctl;
	const struct config *config;
	const char *to;		/* --to; NULL: not given */
	const char *blocklists; /* --blocklist; NULL: not given */
	/* The addresses that others see our mail come from, as far as they were found out (doctor_egress()). */
	struct dns_address egress[DOCTOR_EGRESS_MAX];
	size_t egress_count;
	/* Of the process of one check. */
	struct lookup *lookup;
	const char *check_name;
	json_t *finding; /* not written yet */
	FILE *out;	 /* findings, a JSON object on each line */
};

typedef void doctor_check_run(struct doctor *doctor, const char *subject);

struct doctor_check {
	const char *name;
	enum doctor_scope scope;
	int limit_sec; /* then it is ended */
	bool gives_egress, needs_egress;
	doctor_check_run *run;
	/* Does it make sense here? NULL: always. */
	bool (*applies)(const struct doctor *doctor);
};

/* ---- for the checks ---- */

/* A finding: what was looked at (borrowed for the call), and what was found. Peers' and users' bytes may stand in both:
 * what does not print is shown as "?". */
void doctor_tell(struct doctor *doctor, enum doctor_level level, const char *subject, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* What to change, for the finding told last. */
void doctor_advise(struct doctor *doctor, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The TXT record to publish, for the finding told last. */
void doctor_publish(struct doctor *doctor, const char *name, struct slice value);
/* Others see us come from this address. */
void doctor_found_egress(struct doctor *doctor, const struct dns_address *address);

/* The answer to a question; the caller's reference. A failed lookup is told, as a failure about `subject`, and gives
 * NULL; NXDOMAIN and NODATA are answers. */
const struct dns_answer *doctor_ask(struct doctor *doctor, const char *subject, const char *name, uint16_t type);
/* The same for TXT records whose first word is `version` ("v=spf1"): puts the first into `text`, "" when there is none, and
 * returns how many there are; -1: the lookup failed, which was told. */
int doctor_ask_txt(struct doctor *doctor, const char *subject, const char *name, const char *version, struct buf *text);

/* doctor_dkim.c */
doctor_check_run doctor_dkim;
/* Whose keys sign mail from this domain; NULL: nobody's. */
const struct config_dkim_domain *doctor_signer(const struct doctor *doctor, const char *domain);
/* doctor_domain.c */
doctor_check_run doctor_dmarc, doctor_bounces;
/* doctor_egress.c */
doctor_check_run doctor_helo, doctor_ptr, doctor_blocklist;
/* doctor_port25.c */
doctor_check_run doctor_port25;
/* doctor_relayhost.c */
doctor_check_run doctor_relayhost;
/* doctor_to.c */
doctor_check_run doctor_to;
/* doctor_spf.c */
doctor_check_run doctor_spf;
/* doctor_files.c */
doctor_check_run doctor_certificate, doctor_listen, doctor_secrets;
/* doctor_daemon.c */
doctor_check_run doctor_resolver, doctor_daemon;
/* doctor_clock.c */
doctor_check_run doctor_clock;
/* doctor_machine.c */
doctor_check_run doctor_config, doctor_spool;

#endif
