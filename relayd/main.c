/* relayd - outbound mail relay. This file: the command line. */
#include "relayd/check.h"
#include "relayd/relayd.h"

#include <ares.h>
#include <curl/curl.h>
#include <getopt.h>
#include <gnutls/gnutls.h>
#include <jansson.h>
#include <malloc.h>
#include <microhttpd.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

extern char **environ;

static void print_version(void)
{
	printf("relayd %s (%s)\n", RELAYD_VERSION, relayd_revision());
	printf("GnuTLS %s, libcurl %s, c-ares %s, libsodium %s, libmicrohttpd %s, jansson %s\n",
	       gnutls_check_version(NULL), curl_version_info(CURLVERSION_NOW)->version, ares_version(NULL),
	       sodium_version_string(), MHD_get_version(), JANSSON_VERSION);
}

static int check(const struct relayd_options *options)
{
	struct config *config;
	int rc = relayd_load_config(options, &config);
	struct service_user user;
	struct err err;

	if (rc == EX_OK)
		rc = check_parts(config);
	if (rc == EX_OK && service_user_find(config, &user, &err) == EX_OK)
		rc = check_as_user(options, &user, "relayd");
	if (rc == EX_OK)
		check_warn_of_spool(config);
	config_free(&config);
	if (rc == EX_OK)
		puts("the configuration is good");
	return rc;
}

static void print_usage(FILE *out)
{
	fputs("usage: relayd [-c FILE] [-t] [-V]\n"
	      "  -c FILE  read this configuration; without it $RELAYD_CONFIG, then /etc/relayd/relayd.yaml if it is "
	      "there\n"
	      "  -t       check the configuration and what it names, and exit: 0 good, 78 bad\n"
	      "  -V       print the version\n"
	      "See relayd(8) and relayd.yaml(5). relayctl(8) shows and steers a daemon that runs.\n",
	      out);
}

int main(int argc, char **argv)
{
	static const struct option words[] = {
	    {"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {NULL, 0, NULL, 0}};
	struct relayd_options options = {.environ = environ, .argv = argv};
	struct relayd *relayd;
	int rc, option;
	bool check_only = false;

	while ((option = getopt_long(argc, argv, "c:htV", words, NULL)) != -1) {
		switch (option) {
		case 'c':
			options.config_file = optarg;
			options.file_is_named = true;
			break;
		case 't': check_only = true; break;
		case 'V': print_version(); return EX_OK;
		case 'h': print_usage(stdout); return EX_OK;
		default: print_usage(stderr); return EX_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "relayd: unknown argument '%s'\n", argv[optind]);
		print_usage(stderr);
		return EX_USAGE;
	}
	if (sodium_init() < 0)
		return EX_SOFTWARE;
	signal(SIGPIPE, SIG_IGN);
	/* Batches of the journal come and go: their memory must go back to the system, whatever glibc has got used to.
	 */
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	mallopt(M_TRIM_THRESHOLD, 1 << 20);
	if (check_only)
		return check(&options);
	relayd = relayd_start(&options, &rc);
	if (!relayd)
		return rc;
	rc = relayd_run(relayd);
	relayd_free(&relayd);
	return rc;
}
