/* The certificate for those who have none: made once, kept, renewed, never over a person's own file. */
#include "support_tls.h"

#include "tls/selfsigned.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const extra[] = {"localhost", "127.0.0.1", "::1"};

static struct tls_selfsigned_options options_at(int64_t days_from_now)
{
	return (struct tls_selfsigned_options){.hostname = "relay.example.org",
					       .names = extra,
					       .name_count = ARRAY_LEN(extra),
					       .now_wall_ms = ((int64_t)time(NULL) + days_from_now * DAY) * 1000};
}

static int ensure(const char *name, const struct tls_selfsigned_options *options, bool *created, struct err *err)
{
	int rc, dirfd = open(in_dir(""), O_RDONLY | O_DIRECTORY);

	*err = (struct err){0};
	rc = tls_selfsigned_ensure(dirfd, name, options, created, err);
	close(dirfd);
	return rc;
}

static struct tls_credentials *load(const char *name)
{
	struct tls_server_credentials_options options = {.certificate_file = in_dir(name)};
	struct err err = {0};
	struct tls_credentials *credentials = tls_credentials_new_server(&options, &err);

	assert_string_equal(err.text, "");
	return credentials;
}

static void expect_verifies(const char *file, const char *name)
{
	struct err err = {0};
	struct tls_client_credentials_options client_options = {.trust = tls_trust_new_file(in_dir(file), &err)};
	struct tls_credentials *client_side = tls_credentials_new_client(&client_options, &err);
	struct tls_credentials *server_side = load(file);
	struct tls_session *client, *server;

	client = tls_session_new_client(client_side,
					&(struct tls_client_options){.server_name = name, .level = TLS_LEVEL_VERIFY});
	server = tls_session_new_server(server_side);
	wire_handshake_ok(client, server);
	tls_session_free(&client);
	tls_session_free(&server);
	tls_trust_unref(&client_options.trust);
	tls_credentials_unref(&client_side);
	tls_credentials_unref(&server_side);
}

static void it_is_made_once_and_serves_all_names(void **state)
{
	struct tls_selfsigned_options options = options_at(0);
	struct tls_credentials *credentials;
	struct stat before, after;
	struct err err;
	bool created;
	int64_t years_ms;

	(void)state;
	assert_int_equal(ensure("a.pem", &options, &created, &err), 0);
	assert_string_equal(err.text, "");
	assert_true(created);
	assert_int_equal(stat(in_dir("a.pem"), &before), 0);
	assert_int_equal(before.st_mode & 07777, 0600);
	assert_int_equal(ensure("a.pem", &options, &created, &err), 0);
	assert_false(created);
	assert_int_equal(stat(in_dir("a.pem"), &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_not_equal(access(in_dir("a.pem.new"), F_OK), 0);

	credentials = load("a.pem");
	assert_string_equal(tls_credentials_names(credentials), "relay.example.org, localhost, 127.0.0.1, ::1");
	assert_true(tls_credentials_is_selfsigned(credentials));
	years_ms = tls_credentials_expires_at_wall(credentials) - options.now_wall_ms;
	assert_in_range(years_ms / (DAY * 1000), 3649, 3650);
	tls_credentials_unref(&credentials);

	expect_verifies("a.pem", "relay.example.org");
	expect_verifies("a.pem", "localhost");
	expect_verifies("a.pem", "127.0.0.1");
	expect_verifies("a.pem", "::1");
}

static void it_is_renewed_before_it_expires(void **state)
{
	struct tls_selfsigned_options options = options_at(0);
	struct err err;
	bool created;

	(void)state;
	assert_int_equal(ensure("b.pem", &options, &created, &err), 0);
	options = options_at(3600);
	assert_int_equal(ensure("b.pem", &options, &created, &err), 0);
	assert_false(created);
	options = options_at(3640);
	assert_int_equal(ensure("b.pem", &options, &created, &err), 0);
	assert_true(created);
	/* Its clock was wrong: what was made in the future is made anew. */
	options = options_at(0);
	assert_int_equal(ensure("b.pem", &options, &created, &err), 0);
	assert_true(created);
}

static void another_hostname_makes_another_certificate(void **state)
{
	struct tls_selfsigned_options options = options_at(0);
	struct err err;
	bool created;

	(void)state;
	assert_int_equal(ensure("c.pem", &options, &created, &err), 0);
	options.hostname = "relay2.example.org";
	assert_int_equal(ensure("c.pem", &options, &created, &err), 0);
	assert_true(created);
	expect_verifies("c.pem", "relay2.example.org");
}

static void names_may_be_long_or_addresses(void **state)
{
	struct tls_selfsigned_options options = options_at(0);
	struct err err;
	bool created;

	(void)state;
	options.hostname = "a-very-long-name-that-does-not-fit-into-a-common-name.of-a-certificate.example.org";
	assert_int_equal(ensure("d.pem", &options, &created, &err), 0);
	assert_string_equal(err.text, "");
	expect_verifies("d.pem", options.hostname);
	options.hostname = "192.0.2.9";
	assert_int_equal(ensure("d.pem", &options, &created, &err), 0);
	assert_true(created);
	expect_verifies("d.pem", "192.0.2.9");
}

static void a_persons_own_file_is_left_alone(void **state)
{
	struct tls_selfsigned_options options = options_at(0);
	struct cert *authority = cert_new(&(struct cert_spec){.common_name = "CA", .is_authority = true});
	struct cert *bought = cert_new(&(struct cert_spec){.dns = {"relay.example.org"}, .issuer = authority});
	struct err err;
	bool created;

	(void)state;
	write_file("e.pem", "my notes\n", 9);
	assert_int_equal(ensure("e.pem", &options, &created, &err), ERR_CONFIG);
	assert_false(created);
	assert_string_equal(err.text, "e.pem is there, but not what relayd makes, and is left alone (e.pem has no "
				      "certificate in PEM form)");
	cert_write_chain(bought, 1, "e.pem");
	assert_int_equal(ensure("e.pem", &options, &created, &err), ERR_CONFIG);
	cert_free(&bought);
	cert_free(&authority);
}

static void a_missing_folder_is_told_and_leftovers_are_replaced(void **state)
{
	struct tls_selfsigned_options options = options_at(0);
	struct err err;
	bool created;

	(void)state;
	assert_int_equal(ensure("none/f.pem", &options, &created, &err), ERR_NOT_FOUND);
	assert_string_equal(err.text, "cannot create none/f.pem.new: No such file or directory");
	assert_false(created);
	write_file("g.pem.new", "half", 4);
	assert_int_equal(ensure("g.pem", &options, &created, &err), 0);
	assert_true(created);
	/* By path, too. */
	assert_int_equal(tls_selfsigned_ensure(AT_FDCWD, in_dir("g.pem"), &options, &created, &err), 0);
	assert_false(created);
	assert_int_equal(tls_selfsigned_ensure(AT_FDCWD, in_dir("h.pem"), &options, &created, &err), 0);
	assert_true(created);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_is_made_once_and_serves_all_names),
	    cmocka_unit_test(it_is_renewed_before_it_expires),
	    cmocka_unit_test(another_hostname_makes_another_certificate),
	    cmocka_unit_test(names_may_be_long_or_addresses),
	    cmocka_unit_test(a_persons_own_file_is_left_alone),
	    cmocka_unit_test(a_missing_folder_is_told_and_leftovers_are_replaced),
	};

	return cmocka_run_group_tests_name("tls selfsigned", tests, support_setup, support_teardown);
}
