/* Doctor: is the clock right? DKIM signatures have a time, access tokens and certificates an end. What the kernel knows of
 * it, and what HTTPS servers say that relayd talks to anyhow. */
#include "base/base.h"
#include "base/clock.h"
#include "relayctl/doctor.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/timex.h>

enum { OFF_MAX_SEC = 60, REQUEST_MS = 10 * 1000 };

static void check_kernel(struct doctor *doctor, const char *subject)
{
	struct timex state = {0};

	if (adjtimex(&state) < 0 || (state.status & STA_UNSYNC)) {
		doctor_tell(doctor, DOCTOR_INFO, subject, "nobody tells the kernel that its clock is synchronised");
		doctor_advise(doctor,
			      "run chrony or systemd-timesyncd on the machine, unless the host of this guest does");
	} else {
		doctor_tell(doctor, DOCTOR_OK, subject, "is synchronised, by NTP or alike");
	}
}

/* ---- what others say ---- */

struct answer {
	int64_t date_sec; /* 0: it says none */
};

static size_t on_header(char *bytes, size_t size, size_t count, void *ctx)
{
	struct slice line = slice_of(bytes, size * count);
	char text[100];

	if (slice_has_case_prefix(line, SLICE("date:"))) {
		slice_to_cstr(slice_trim(slice_from(line, 5)), text, sizeof(text));
		((struct answer *)ctx)->date_sec = MAX((int64_t)curl_getdate(text, NULL), (int64_t)0);
	}
	return size * count;
}

/* The addresses of the URL's host, by the configured DNS servers; NULL: there are none. */
static struct curl_slist *resolve(struct doctor *doctor, const char *url, struct resolver_result *found)
{
	CURLU *parts = curl_url();
	char *host = NULL, *port = NULL, line[1024];
	struct curl_slist *list = NULL;

	if (curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
	    curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	    curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK) {
		lookup_host(doctor->lookup, host, found);
		if (resolver_format_curl(found, host, (unsigned)strtoul(port, NULL, 10), line, sizeof(line)))
			list = curl_slist_append(NULL, line);
	}
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(parts);
	return list;
}

/* Any answer will do. */
static CURLcode ask(struct doctor *doctor, const char *url, struct curl_slist *addresses, struct answer *answer)
{
	const char *ca_file = doctor->config->https.ca_file;
	CURL *curl = curl_easy_init();
	CURLcode rc;

	BUG_ON(!curl);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_RESOLVE, addresses);
	curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)REQUEST_MS);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, answer);
	if (ca_file)
		curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
	rc = curl_easy_perform(curl);
	curl_easy_cleanup(curl);
	return rc;
}

static void compare(struct doctor *doctor, const char *url, int64_t date_sec)
{
	int64_t off = clock_wall_ms(clock_system()) / 1000 - date_sec;

	if (date_sec == 0) {
		doctor_tell(doctor, DOCTOR_OK, url, "answers");
	} else if (llabs(off) <= OFF_MAX_SEC) {
		doctor_tell(doctor, DOCTOR_OK, url, "answers, and has the same time");
	} else {
		doctor_tell(doctor, DOCTOR_FAIL, url, "answers, but our clock is %lld seconds %s",
			    (long long)llabs(off), off > 0 ? "ahead" : "behind");
		doctor_advise(doctor,
			      "set the clock: signatures, tokens and certificates count as expired or not yet valid");
	}
}

static void check_server(struct doctor *doctor, const char *url)
{
	struct resolver_result found = {.reason = "it has no host"};
	struct curl_slist *addresses = resolve(doctor, url, &found);
	struct answer answer = {0};
	CURLcode rc = CURLE_OK;

	if (addresses)
		rc = ask(doctor, url, addresses, &answer);
	if (!addresses)
		doctor_tell(doctor, DOCTOR_FAIL, url, "cannot be found: %s", found.reason);
	else if (rc != CURLE_OK)
		doctor_tell(doctor, DOCTOR_FAIL, url, "cannot be reached: %s", curl_easy_strerror(rc));
	else
		compare(doctor, url, answer.date_sec);
	curl_slist_free_all(addresses);
}

static const char *token_url(const struct config_oauth2 *oauth2)
{
	if (oauth2->token_url)
		return oauth2->token_url;
	switch (oauth2->provider) {
	case CONFIG_OAUTH2_MICROSOFT: return "https://login.microsoftonline.com/";
	case CONFIG_OAUTH2_GOOGLE: return "https://oauth2.googleapis.com/token";
	default: return NULL;
	}
}

void doctor_clock(struct doctor *doctor, const char *subject)
{
	const struct config *config = doctor->config;
	const char *last = NULL;

	check_kernel(doctor, subject);
	if (config->webhook.url)
		check_server(doctor, config->webhook.url);
	for (size_t i = 0; i < config->relayhost_count; i++) {
		const char *url = token_url(&config->relayhosts[i].oauth2);
		if (url && !(last && strcmp(url, last) == 0))
			check_server(doctor, url);
		last = url ? url : last;
	}
}
