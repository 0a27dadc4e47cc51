/* Access tokens from a real HTTPS endpoint in the same loop, in virtual time, with a memo on a real disk. */
#include "support_https.h"
#include "support_relay.h"

#include "relayd/oauth2.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#define JSON "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
#define GRANT(token) JSON "{\"access_token\":\"" token "\",\"expires_in\":3600}"
#define ROTATED(token, refresh)                                                                                        \
	JSON "{\"access_token\":\"" token "\",\"expires_in\":3600,\"refresh_token\":\"" refresh "\"}"
#define REFUSAL "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n{\"error\":\"invalid_grant\"}"
#define FAILURE "HTTP/1.1 503 later\r\nConnection: close\r\n\r\n"

struct fixture {
	struct clock_virtual clock;
	struct rng_seeded rng;
	struct loop *loop;
	struct https_peer peer;
	struct https *https;
	char folder[64];
	int fd;
	struct log *log;
	struct buf log_text;
	struct metrics *metrics;
	struct memos *memos;
	struct oauth2 *oauth2;
	struct config *config;
	/* What was told. */
	unsigned troubles, mends;
	struct outcome trouble;
	int64_t next_try_ms;
	unsigned answers;
	char token[64], why[512];
	uint64_t number;
};

static size_t on_log(void *ctx, struct slice bytes)
{
	buf_append(ctx, bytes);
	return bytes.len;
}

static void on_trouble(void *ctx, const char *relayhost, const struct outcome *outcome, int64_t next_try_ms)
{
	struct fixture *f = ctx;

	assert_string_equal(relayhost, "main");
	f->troubles++;
	f->trouble = *outcome;
	f->next_try_ms = next_try_ms;
}

static void on_mended(void *ctx, const char *relayhost)
{
	(void)relayhost;
	((struct fixture *)ctx)->mends++;
}

static void on_token(void *ctx, const char *token, uint64_t number, const char *why)
{
	struct fixture *f = ctx;

	f->answers++;
	f->number = number;
	snprintf(f->token, sizeof(f->token), "%s", token ? token : "none");
	snprintf(f->why, sizeof(f->why), "%s", why);
}

/* The endpoint has a request on the way to it, or its answer is on the way to us. */
static bool is_between(struct fixture *f)
{
	struct oauth2_status status;

	oauth2_look(f->oauth2, "main", &status);
	return status.is_asking && https_peer_waiting(&f->peer) == 0;
}

/* Turns while anything happens at this moment. */
static void settle(struct fixture *f)
{
	int64_t until = clock_mono_ms(clock_system()) + 10 * 1000;

	while (loop_turn(f->loop, 0) > 0 || is_between(f))
		assert_true(clock_mono_ms(clock_system()) < until);
}

/* Lets time pass until the endpoint has been asked so often in all. */
static void await_requests(struct fixture *f, unsigned count)
{
	settle(f);
	for (int i = 0; i < 5000 && f->peer.requests < count; i++) {
		clock_virtual_advance(&f->clock, 100);
		settle(f);
	}
	assert_int_equal(f->peer.requests, count);
}

static void pass(struct fixture *f, int64_t ms)
{
	int64_t until = clock_mono_ms(&f->clock.clock) + ms;

	settle(f);
	while (clock_mono_ms(&f->clock.clock) < until) {
		int64_t now = clock_mono_ms(&f->clock.clock), next = loop_next_at_ms(f->loop);
		clock_virtual_advance(&f->clock, MIN(MAX(next, now + 1), until) - now);
		settle(f);
	}
}

static void ask(struct fixture *f)
{
	unsigned before = f->answers;

	oauth2_ask(f->oauth2, "main", on_token, f);
	assert_int_equal(f->answers, before);
	settle(f);
	assert_int_equal(f->answers, before + 1);
}

static void start(struct fixture *f)
{
	struct memos_options remembering = {f->loop, f->log, f->fd, NULL};

	f->memos = memos_new(&remembering);
	f->oauth2 = oauth2_new(&(struct oauth2_options){f->loop, f->https, &f->clock.clock, &f->rng.rng, f->log,
							f->metrics, f->memos, f, on_trouble, on_mended});
}

static void stop(struct fixture *f)
{
	memos_free(&f->memos);
	oauth2_free(&f->oauth2);
}

static void write_file(struct fixture *f, const char *name, const char *text)
{
	int fd = openat(f->fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void load(struct fixture *f, const char *yaml)
{
	char path[128];
	struct config_source source = {.file = path, .file_is_named = true};
	struct config_errors errors;
	struct config *config;

	write_file(f, "relayd.yaml", yaml);
	snprintf(path, sizeof(path), "%s/relayd.yaml", f->folder);
	if (config_load(&source, &config, &errors) != 0)
		fail_msg("%s", errors.items[0].text);
	oauth2_configure(f->oauth2, config);
	config_free(&f->config);
	f->config = config;
}

/* One relayhost "main" with the rest of its oauth2 section; file names stand for files in the folder. */
static void configure(struct fixture *f, const char *rest)
{
	char yaml[1024];

	snprintf(yaml, sizeof(yaml),
		 "relayhosts: {main: {address: smtp.example.net, username: u, oauth2: {provider: other, client_id: id, "
		 "token_url: 'https://secure.test:%u/token', %s}}}\n",
		 f->peer.port, rest);
	load(f, yaml);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct https_settings settings = {.allow_loopback = true};

	clock_virtual_init(&f->clock, RELAY_WALL_MS);
	rng_seeded_init(&f->rng, 7);
	f->loop = loop_new(&f->clock.clock);
	https_peer_init(&f->peer, f->loop, &f->clock.clock);
	f->https = https_new(f->loop, f->peer.resolver);
	settings.ca_file = f->peer.certificate;
	https_configure(f->https, &settings);
	snprintf(f->folder, sizeof(f->folder), "/tmp/relayd-oauth2-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	f->fd = open(f->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	buf_init(&f->log_text, 1 << 20);
	f->log = log_new(&f->clock.clock, on_log, &f->log_text);
	f->metrics = metrics_new();
	write_file(f, "secret", "hunter2\n");
	write_file(f, "refresh", "first\n");
	start(f);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stop(f);
	https_free(&f->https);
	https_peer_fini(&f->peer);
	loop_free(&f->loop);
	log_free(&f->log);
	buf_fini(&f->log_text);
	metrics_free(&f->metrics);
	config_free(&f->config);
	close(f->fd);
	nftw(f->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static bool was_sent(const struct fixture *f, const char *part)
{
	return strstr(f->peer.body, part) != NULL;
}

static void assert_no_secret_in_log(struct fixture *f)
{
	static const char *const secrets[] = {"hunter2", "first", "second", "access-1", "access-2"};

	log_flush(f->log);
	buf_append_byte(&f->log_text, '\0');
	for (size_t i = 0; i < ARRAY_LEN(secrets); i++)
		assert_null(strstr(buf_slice(&f->log_text).ptr, secrets[i]));
}

static const char *state_of(struct fixture *f)
{
	struct oauth2_status status;

	oauth2_look(f->oauth2, "main", &status);
	return oauth2_state_name(status.state);
}

static void a_token_comes_at_the_start_and_is_given_to_all(void **state)
{
	struct fixture *f = *state;
	struct series *expiry;

	configure(f, "client_secret_file: secret");
	assert_string_equal(state_of(f), "fetching");
	oauth2_ask(f->oauth2, "main", on_token, f);
	oauth2_ask(f->oauth2, "main", on_token, f);
	await_requests(f, 1);
	assert_int_equal(f->answers, 0); /* they wait for the one request */
	assert_string_equal(f->peer.body, "grant_type=client_credentials&client_id=id&client_secret=hunter2");
	assert_non_null(strstr(f->peer.header, "\r\nContent-Type: application/x-www-form-urlencoded\r\n"));
	f->peer.close_after = true;
	https_peer_say(&f->peer, GRANT("access-1"));
	settle(f);
	assert_int_equal(f->answers, 2);
	assert_string_equal(f->token, "access-1");
	assert_string_equal(state_of(f), "valid");
	f->peer.reply = GRANT("access-2");
	ask(f);
	assert_string_equal(f->token, "access-1");
	assert_int_equal(f->peer.requests, 1);
	expiry = metrics_find(f->metrics, METRIC_OAUTH_TOKEN_EXPIRY, "main", NULL, NULL);
	assert_int_equal((int64_t)series_value(expiry), clock_wall_ms(&f->clock.clock) / 1000 + 3600);
	assert_int_equal(f->troubles + f->mends, 0);
	assert_no_secret_in_log(f);
}

static void begin_with(struct fixture *f, const char *rest, const char *reply)
{
	f->peer.close_after = true;
	f->peer.reply = reply;
	configure(f, rest);
	await_requests(f, 1);
}

static void it_is_refreshed_well_before_it_expires(void **state)
{
	struct fixture *f = *state;

	begin_with(f, "client_secret_file: secret", GRANT("access-1"));
	f->peer.reply = NULL;
	pass(f, (3600 - 300) * 1000 - 180 * 1000 - 1000);
	assert_int_equal(f->peer.requests, 1);
	await_requests(f, 2);
	ask(f); /* the old one serves while the new one is on its way */
	assert_string_equal(f->token, "access-1");
	https_peer_say(&f->peer, GRANT("access-2"));
	settle(f);
	ask(f);
	assert_string_equal(f->token, "access-2");
}

static void a_refresh_token_that_changes_is_kept_over_a_restart(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	begin_with(f, "refresh_token_file: refresh", ROTATED("access-1", "second"));
	assert_true(was_sent(f, "grant_type=refresh_token&client_id=id&refresh_token=first"));
	settle(f);
	assert_int_equal(fstatat(f->fd, "oauth2.json", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	stop(f);
	start(f);
	f->peer.reply = GRANT("access-2");
	configure(f, "refresh_token_file: refresh");
	await_requests(f, 2);
	assert_true(was_sent(f, "refresh_token=second"));
	ask(f);
	assert_string_equal(f->token, "access-2");
	assert_no_secret_in_log(f);
	/* The operator's new one counts more than what came of the old one. */
	write_file(f, "refresh", "third\n");
	stop(f);
	start(f);
	configure(f, "refresh_token_file: refresh");
	await_requests(f, 3);
	assert_true(was_sent(f, "refresh_token=third"));
}

static void a_refused_kept_token_gives_way_to_the_configured_one(void **state)
{
	struct fixture *f = *state;

	begin_with(f, "refresh_token_file: refresh", ROTATED("access-1", "second"));
	stop(f);
	start(f);
	f->peer.reply = NULL;
	configure(f, "refresh_token_file: refresh");
	await_requests(f, 2);
	assert_true(was_sent(f, "refresh_token=second"));
	https_peer_say(&f->peer, REFUSAL);
	await_requests(f, 3);
	assert_true(was_sent(f, "refresh_token=first"));
	https_peer_say(&f->peer, GRANT("access-2"));
	settle(f);
	ask(f);
	assert_string_equal(f->token, "access-2");
	assert_int_equal(f->troubles, 0);
	/* It is forgotten: the next one begins with the configured one. */
	f->peer.reply = GRANT("access-3");
	pass(f, 3400 * 1000);
	assert_int_equal(f->peer.requests, 4);
	assert_true(was_sent(f, "refresh_token=first"));
}

static void a_refusal_holds_the_relayhost_until_it_is_mended(void **state)
{
	struct fixture *f = *state;
	struct oauth2_status status;

	begin_with(f, "refresh_token_file: refresh", REFUSAL);
	assert_int_equal(f->troubles, 1);
	assert_int_equal(f->trouble.kind, OUTCOME_DEFERRED);
	assert_int_equal(f->trouble.class, CLASS_AUTH);
	assert_int_equal(f->trouble.stage, STAGE_AUTH);
	assert_string_equal(f->trouble.text, "no access token: invalid_grant");
	assert_string_equal(f->trouble.host, "smtp.example.net");
	assert_true(f->next_try_ms > clock_mono_ms(&f->clock.clock));
	assert_string_equal(state_of(f), "failing");
	oauth2_look(f->oauth2, "main", &status);
	assert_string_equal(status.trouble, "invalid_grant");
	ask(f);
	assert_string_equal(f->token, "none");
	assert_string_equal(f->why, "invalid_grant");
	assert_int_equal(f->peer.requests, 1);
	/* It is tried again by itself, but not often. */
	pass(f, 3600 * 1000);
	assert_true(f->peer.requests >= 10 && f->peer.requests <= 25);
	assert_int_equal(f->troubles, f->peer.requests);
	assert_int_equal(f->mends, 0);
	f->peer.reply = GRANT("access-1");
	pass(f, 400 * 1000);
	assert_int_equal(f->mends, 1);
	ask(f);
	assert_string_equal(f->token, "access-1");
	assert_no_secret_in_log(f);
}

static void a_good_token_serves_while_the_endpoint_is_down(void **state)
{
	struct fixture *f = *state;

	begin_with(f, "client_secret_file: secret", GRANT("access-1"));
	https_peer_stop_listening(&f->peer);
	pass(f, (3600 - 15) * 1000);
	assert_int_equal(f->troubles, 0);
	ask(f);
	assert_string_equal(f->token, "access-1");
	assert_string_equal(state_of(f), "valid");
	pass(f, 400 * 1000);
	assert_true(f->troubles > 0);
	assert_non_null(strstr(f->trouble.text, "the token endpoint cannot be asked: connect"));
	ask(f);
	assert_string_equal(f->token, "none");
}

static void the_endpoint_may_ask_for_patience(void **state)
{
	struct fixture *f = *state;

	begin_with(f, "client_secret_file: secret",
		   "HTTP/1.1 429 slow down\r\nRetry-After: 600\r\nConnection: close\r\n\r\n");
	assert_true(f->next_try_ms - clock_mono_ms(&f->clock.clock) > 590 * 1000);
	pass(f, 590 * 1000);
	assert_int_equal(f->peer.requests, 1);
	f->peer.reply = GRANT("access-1");
	pass(f, 20 * 1000);
	assert_int_equal(f->peer.requests, 2);
	assert_int_equal(f->mends, 1);
}

static void a_relayhost_that_refuses_a_token_gets_one_new_one(void **state)
{
	struct fixture *f = *state;
	uint64_t first;

	begin_with(f, "client_secret_file: secret", GRANT("access-1"));
	ask(f);
	first = f->number;
	f->peer.reply = GRANT("access-2");
	assert_true(oauth2_on_refused(f->oauth2, "main", first));
	ask(f);
	assert_string_equal(f->token, "access-2");
	assert_int_not_equal(f->number, first);
	assert_int_equal(f->peer.requests, 2);
	/* Another connection that still had the first one. */
	assert_true(oauth2_on_refused(f->oauth2, "main", first));
	assert_false(oauth2_on_refused(f->oauth2, "main", f->number));
	ask(f);
	assert_int_equal(f->peer.requests, 2);
	pass(f, 301 * 1000);
	assert_true(oauth2_on_refused(f->oauth2, "main", f->number));
	await_requests(f, 3);
	assert_int_equal(f->troubles, 0);
}

static void a_reload_keeps_what_is_good_and_tries_what_is_not(void **state)
{
	struct fixture *f = *state;

	begin_with(f, "client_secret_file: secret", FAILURE);
	assert_int_equal(f->troubles, 1);
	f->peer.reply = GRANT("access-1");
	configure(f, "client_secret_file: secret"); /* in trouble: at once */
	await_requests(f, 2);
	assert_int_equal(f->mends, 1);
	configure(f, "client_secret_file: secret"); /* well: as it is */
	settle(f);
	assert_int_equal(f->peer.requests, 2);
	f->peer.reply = GRANT("access-2");
	configure(f, "client_secret_file: secret, scope: smtp"); /* another account */
	ask(f);
	assert_string_equal(f->token, "access-2");
	assert_int_equal(f->peer.requests, 3);
	assert_true(was_sent(f, "scope=smtp"));
}

static void a_relayhost_that_goes_leaves_nothing_behind(void **state)
{
	struct fixture *f = *state;

	begin_with(f, "client_secret_file: secret", FAILURE);
	load(f, "");
	assert_int_equal(f->mends, 1);
	assert_string_equal(state_of(f), "none");
	ask(f);
	assert_string_equal(f->token, "none");
	assert_string_equal(f->why, "this relayhost has no oauth2 any more");
	pass(f, 3600 * 1000);
	assert_int_equal(f->peer.requests, 1);
}

static void a_secret_that_cannot_be_read_is_trouble_with_the_name_of_its_file(void **state)
{
	struct fixture *f = *state;

	configure(f, "client_secret_file: missing");
	settle(f);
	assert_int_equal(f->troubles, 1);
	assert_non_null(strstr(f->trouble.text, "/missing"));
	assert_int_equal(f->peer.requests, 0);
	write_file(f, "missing", "hunter2\n");
	f->peer.close_after = true;
	f->peer.reply = GRANT("access-1");
	pass(f, 10 * 1000);
	assert_int_equal(f->mends, 1);
}

static void who_cancels_is_not_called(void **state)
{
	struct fixture *f = *state;
	uint64_t id, none = 0;

	begin_with(f, "client_secret_file: secret", GRANT("access-1"));
	id = oauth2_ask(f->oauth2, "main", on_token, f);
	oauth2_cancel(f->oauth2, &id);
	oauth2_cancel(f->oauth2, &none);
	assert_int_equal(id, 0);
	settle(f);
	assert_int_equal(f->answers, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    TEST(a_token_comes_at_the_start_and_is_given_to_all),
	    TEST(it_is_refreshed_well_before_it_expires),
	    TEST(a_refresh_token_that_changes_is_kept_over_a_restart),
	    TEST(a_refused_kept_token_gives_way_to_the_configured_one),
	    TEST(a_refusal_holds_the_relayhost_until_it_is_mended),
	    TEST(a_good_token_serves_while_the_endpoint_is_down),
	    TEST(the_endpoint_may_ask_for_patience),
	    TEST(a_relayhost_that_refuses_a_token_gets_one_new_one),
	    TEST(a_reload_keeps_what_is_good_and_tries_what_is_not),
	    TEST(a_relayhost_that_goes_leaves_nothing_behind),
	    TEST(a_secret_that_cannot_be_read_is_trouble_with_the_name_of_its_file),
	    TEST(who_cancels_is_not_called),
	};
	return cmocka_run_group_tests_name("OAuth2", tests, NULL, NULL);
}
