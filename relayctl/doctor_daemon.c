/* Doctor: the DNS servers, and the daemon, where there is one. */
#include "base/base.h"
#include "base/clock.h"
#include "relayctl/doctor.h"
#include "relayctl/link.h"
#include "relayctl/screen.h"

enum { SLOW_MS = 1000, OLD_SEC = 30 * 60 };

/* ---- DNS servers ---- */

static bool wants_dane(const struct config *config)
{
	bool wants = false;

	for (size_t i = 0; i < config->relayhost_count; i++)
		wants = wants || config->relayhosts[i].tls == CONFIG_TLS_DANE;
	for (size_t i = 0; i < config->route_count; i++)
		wants = wants || config->routes[i].tls == CONFIG_TLS_DANE;
	return wants;
}

/* Any answer will do, also that there is no such name. */
void doctor_resolver(struct doctor *doctor, const char *subject)
{
	int64_t began = clock_mono_ms(clock_system()), took;
	const struct dns_answer *answer = lookup_ask(doctor->lookup, doctor->config->hostname, DNS_A);
	bool is_trusted = lookup_is_trusted(doctor->lookup);
	char servers[300];

	(void)subject;
	took = clock_mono_ms(clock_system()) - began;
	lookup_format_servers(doctor->lookup, servers, sizeof(servers));
	if (answer->status == DNS_TEMPORARY) {
		doctor_tell(doctor, DOCTOR_FAIL, servers, "do not answer for %s: %s", doctor->config->hostname,
			    answer->reason);
		doctor_advise(doctor, "set dns.servers, or mend resolv.conf");
	} else if (took > SLOW_MS) {
		doctor_tell(doctor, DOCTOR_WARN, servers, "answer after %lld ms only", (long long)took);
		doctor_advise(doctor, "is the first of them there? One on this machine, such as unbound, is best");
	} else if (wants_dane(doctor->config) && !is_trusted) {
		doctor_tell(doctor, DOCTOR_WARN, servers,
			    "answer, but their DNSSEC verdict is not believed: tls: dane "
			    "delivers nothing");
		doctor_advise(
		    doctor, "use a validating server on this machine, or set dns.trust_ad when the way to it is yours");
	} else {
		doctor_tell(doctor, DOCTOR_OK, servers, "answer in %lld ms%s", (long long)took,
			    is_trusted ? "; their DNSSEC verdict is believed" : "");
	}
	dns_answer_unref(&answer);
}

/* ---- the daemon ---- */

static int64_t oldest_of(json_t *queue)
{
	static const char *const states[] = {"ready", "inflight", "deferred"};
	int64_t oldest = 0;

	for (size_t i = 0; i < ARRAY_LEN(states); i++)
		oldest = MAX(oldest, number_of(json_object_get(queue, states[i]), "oldest_age_sec"));
	return oldest;
}

/* True: nothing was wrong with it. */
static bool tell_alerts(struct doctor *doctor, json_t *status)
{
	json_t *alerts = json_object_get(status, "alerts"), *config = json_object_get(status, "config"), *alert;
	bool is_good = json_array_size(alerts) == 0;
	size_t i;

	json_array_foreach(alerts, i, alert)
	{
		doctor_tell(doctor, DOCTOR_FAIL, text_of(alert, "alert"), "%s", text_of(alert, "text"));
		doctor_advise(doctor, "relayctl status says more");
	}
	if (text_of(config, "refused")[0]) {
		doctor_tell(doctor, DOCTOR_FAIL, "reload", "the last one was refused: %s", text_of(config, "refused"));
		is_good = false;
	}
	if (text_of(config, "needs_restart")[0]) {
		doctor_tell(doctor, DOCTOR_WARN, "reload", "needs a restart: %s", text_of(config, "needs_restart"));
		is_good = false;
	}
	return is_good;
}

static void tell_queue(struct doctor *doctor, json_t *status, bool is_good)
{
	int64_t oldest = oldest_of(json_object_get(status, "queue"));
	char age[24];

	ctl_format_age(oldest, age, sizeof(age));
	if (oldest > OLD_SEC) {
		doctor_tell(doctor, DOCTOR_WARN, "queue", "the oldest message waits for %s", age);
		doctor_advise(doctor, "relayctl queue --state deferred says why");
	} else if (is_good) {
		doctor_tell(doctor, DOCTOR_OK, text_of(status, "hostname"), "relayd %s runs, without an alert",
			    text_of(status, "version"));
	}
}

void doctor_daemon(struct doctor *doctor, const char *subject)
{
	struct err err;
	struct link *link = link_open_unix(ctl_socket(doctor->ctl), &err);
	json_t *status = NULL;

	if (!link) {
		doctor_tell(doctor, DOCTOR_INFO, subject, "%s: it does not run, or does not let you in", err.text);
		return;
	}
	link_close(&link);
	if (ctl_request(doctor->ctl, "status", NULL, &status) == CTL_OK)
		tell_queue(doctor, status, tell_alerts(doctor, status));
	else
		doctor_tell(doctor, DOCTOR_FAIL, subject, "relayd gives no status");
	json_decref(status);
}
