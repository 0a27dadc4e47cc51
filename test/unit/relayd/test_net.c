/* Sockets: connecting, listening, accepting, running out of descriptors, unix sockets with long paths. */
#include "support_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ACCEPTED_MAX = 512 };

struct fixture {
	struct loop *loop;
	struct net *net;
	struct owner owner;
	struct net_acceptor *acceptor;
	int accepted[ACCEPTED_MAX];
	unsigned accepted_count, shortages, recoveries;
	bool free_in_callback;
	struct net_peer peer;
	int dir_fd; /* a folder below a path of 300 octets */
	char top[64];
	char why[128];
};

static const struct dns_address loopback4 = {DNS_IPV4, {127, 0, 0, 1}};
static const struct dns_address loopback6 = {DNS_IPV6, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->loop = loop_new(clock_system());
	f->net = net_new(f->loop);
	owner_init(&f->owner, f->loop);
	f->dir_fd = -1;
	*state = f;
	return 0;
}

static void forget_accepted(struct fixture *f)
{
	for (unsigned i = 0; i < f->accepted_count; i++)
		close(f->accepted[i]);
	f->accepted_count = 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	owner_fini(&f->owner);
	net_acceptor_free(&f->acceptor);
	net_free(&f->net);
	loop_free(&f->loop);
	forget_accepted(f);
	if (f->dir_fd >= 0)
		close(f->dir_fd);
	free(f);
	return 0;
}

static void on_accept(void *ctx, int fd, const struct net_peer *peer)
{
	struct fixture *f = ctx;

	assert_true(f->accepted_count < ACCEPTED_MAX);
	f->accepted[f->accepted_count++] = fd;
	f->peer = *peer;
	if (f->free_in_callback)
		net_acceptor_free(&f->acceptor);
}

static void on_shortage(void *ctx, bool begins, const char *why)
{
	struct fixture *f = ctx;

	if (begins) {
		f->shortages++;
		slice_to_cstr(slice_of_str(why), f->why, sizeof(f->why));
	} else {
		f->recoveries++;
	}
}

static uint16_t serve(struct fixture *f, const struct dns_address *address)
{
	const struct net_acceptor_events events = {f, on_accept, on_shortage};
	struct err err;
	int fd = net_listen(address, 0, &err);

	assert_true(fd >= 0);
	f->acceptor = net_acceptor_new(f->net, fd, &events);
	return net_local_port(fd);
}

/* A bare client; blocking, which over loopback takes no time. */
static int client(uint16_t port)
{
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void connect_owner(struct fixture *f, const struct dns_address *to, uint16_t port,
			  const struct dns_address *source)
{
	struct stream_events events = owner_events(&f->owner);
	struct err err;

	f->owner.stream = stream_connect(f->net, to, port, source, &events, &err);
	assert_non_null(f->owner.stream);
}

/* ---- connecting ---- */

static void a_connection_stands_and_carries_what_was_written_before(void **state)
{
	struct fixture *f = *state;
	uint16_t port = serve(f, &loopback4), peer_port;
	char got[8];

	connect_owner(f, &loopback4, port, NULL);
	stream_write(f->owner.stream, SLICE("early"));
	assert_int_equal(f->owner.connected, 0);
	turn_until(f->loop, &f->owner.connected, 1);
	turn_until(f->loop, &f->accepted_count, 1);
	assert_int_equal(peer_read_all(f->loop, f->accepted[0], got, 5), 5);
	assert_memory_equal(got, "early", 5);
	assert_true(dns_address_eq(&(struct dns_address){DNS_IPV4, {127, 0, 0, 1}}, &f->peer.address));
	assert_int_equal(f->peer.port, net_local_port(stream_fd(f->owner.stream)));
	assert_true(stream_peer_address(f->owner.stream, &peer_port).family == DNS_IPV4);
	assert_int_equal(peer_port, port);
}

static void a_source_address_is_bound(void **state)
{
	struct fixture *f = *state;
	const struct dns_address source = {DNS_IPV4, {127, 0, 0, 9}};
	uint16_t port = serve(f, &loopback4);

	connect_owner(f, &loopback4, port, &source);
	turn_until(f->loop, &f->accepted_count, 1);
	assert_true(dns_address_eq(&f->peer.address, &source));
}

static void a_source_address_that_is_not_ours_fails_with_words(void **state)
{
	struct fixture *f = *state;
	const struct dns_address source = {DNS_IPV4, {192, 0, 2, 1}};
	struct stream_events events = owner_events(&f->owner);
	struct err err;

	assert_null(stream_connect(f->net, &loopback4, 1, &source, &events, &err));
	assert_non_null(strstr(err.text, "configured address"));
}

static void a_refused_connection_ends_with_words(void **state)
{
	struct fixture *f = *state;
	struct stream_events events = owner_events(&f->owner);
	struct err err = {0};
	uint16_t port = serve(f, &loopback4);

	net_acceptor_free(&f->acceptor); /* nobody listens there now */
	f->owner.stream = stream_connect(f->net, &loopback4, port, NULL, &events, &err);
	if (f->owner.stream) {
		turn_until(f->loop, &f->owner.ends, 1);
		assert_string_equal(f->owner.why, "Connection refused");
	} else {
		assert_non_null(strstr(err.text, "Connection refused"));
	}
	assert_int_equal(f->owner.connected, 0);
}

static void a_connection_under_way_can_be_given_up(void **state)
{
	struct fixture *f = *state;
	uint16_t port = serve(f, &loopback4);

	connect_owner(f, &loopback4, port, NULL);
	stream_close(&f->owner.stream);
	turn_until_quiet(f->loop);
	assert_int_equal(f->owner.connected, 0);
	connect_owner(f, &loopback4, port, NULL);
	stream_close_gently(&f->owner.stream, 1000 * 1000);
	turn_until_quiet(f->loop);
	assert_int_equal(net_stream_count(f->net), 0);
}

static int fake_far_end = -1;

static int fake_connect(void *ctx, const struct dns_address *to, uint16_t port, const struct dns_address *source,
			struct err *err)
{
	struct fixture *f = ctx;
	int fds[2];

	(void)source;
	assert_int_equal(port, 25);
	assert_int_equal(to->bytes[0], 192);
	if (f->why[0]) {
		err_set(err, ERR_SYSTEM, "%s", f->why);
		return -1;
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	fake_far_end = fds[1];
	return fds[0];
}

static void a_simulation_takes_the_networks_place(void **state)
{
	struct fixture *f = *state;
	const struct net_connector connector = {f, fake_connect};
	const struct dns_address far = {DNS_IPV4, {192, 0, 2, 1}};
	struct stream_events events = owner_events(&f->owner);
	struct err err;

	net_set_connector(f->net, &connector);
	connect_owner(f, &far, 25, NULL);
	turn_until(f->loop, &f->owner.connected, 1);
	peer_write(fake_far_end, "220 fake\r\n");
	turn_until_input(f->loop, &f->owner, 10);
	stream_close(&f->owner.stream);
	close(fake_far_end);
	slice_to_cstr(SLICE("no route"), f->why, sizeof(f->why));
	assert_null(stream_connect(f->net, &far, 25, NULL, &events, &err));
	assert_string_equal(err.text, "no route");
}

/* ---- listening and accepting ---- */

static void a_crowd_is_accepted_in_bounded_turns(void **state)
{
	enum { CROWD = 150 };
	struct fixture *f = *state;
	uint16_t port = serve(f, &loopback4);
	int clients[CROWD];

	for (int i = 0; i < CROWD; i++)
		clients[i] = client(port);
	loop_turn(f->loop, 100);
	assert_int_equal(f->accepted_count, 64);
	turn_until(f->loop, &f->accepted_count, CROWD);
	for (int i = 0; i < CROWD; i++)
		close(clients[i]);
	assert_int_equal(fcntl(f->accepted[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	assert_int_equal(fcntl(f->accepted[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

static void connections_that_are_reset_in_the_backlog_harm_nobody(void **state)
{
	struct fixture *f = *state;
	uint16_t port = serve(f, &loopback4);
	int last;

	for (int i = 0; i < 100; i++)
		peer_reset(client(port));
	last = client(port);
	turn_until(f->loop, &f->accepted_count, 1);
	turn_until_quiet(f->loop);
	assert_true(f->peer.port != 0);
	close(last);
}

static void an_acceptor_may_be_freed_by_its_callback(void **state)
{
	struct fixture *f = *state;
	uint16_t port = serve(f, &loopback4);
	int first = client(port), second = client(port);

	f->free_in_callback = true;
	turn_until(f->loop, &f->accepted_count, 1);
	turn_until_quiet(f->loop);
	assert_null(f->acceptor);
	assert_int_equal(f->accepted_count, 1);
	close(first);
	close(second);
}

static void an_address_in_use_is_told(void **state)
{
	struct fixture *f = *state;
	uint16_t port = serve(f, &loopback4);
	struct err err;

	assert_int_equal(net_listen(&loopback4, port, &err), -1);
	assert_int_equal(err.code, ERR_EXISTS);
	assert_string_equal(err.text, "Address already in use");
}

static void ipv6_sockets_take_ipv6_alone(void **state)
{
	static const struct dns_address any4 = {DNS_IPV4, {0}}, any6 = {DNS_IPV6, {0}};
	struct fixture *f = *state;
	struct err err;
	int six = net_listen(&any6, 0, &err), four;

	if (six < 0) {
		print_message("no IPv6 here\n");
		skip();
	}
	four = net_listen(&any4, net_local_port(six), &err);
	assert_true(four >= 0); /* would be in use */
	close(four);
	close(six);
	connect_owner(f, &loopback6, serve(f, &loopback6), NULL);
	turn_until(f->loop, &f->accepted_count, 1);
	assert_true(dns_address_eq(&f->peer.address, &loopback6));
}

/* ---- out of descriptors ---- */

static int lowest_free(void)
{
	int fd = fcntl(0, F_DUPFD_CLOEXEC, 0);

	assert_true(fd >= 0);
	close(fd);
	return fd;
}

/* So many descriptors are left. */
static rlim_t limit_to(int left)
{
	struct rlimit limit;
	rlim_t old;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	old = limit.rlim_cur;
	limit.rlim_cur = (rlim_t)(lowest_free() + left);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return old;
}

static void set_limit(rlim_t value)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = value;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* F15 */
static void without_descriptors_accepting_pauses_spins_not_and_recovers(void **state)
{
	struct fixture *f = *state;
	uint16_t port = serve(f, &loopback4);
	int waiting = client(port), hogs[64];
	rlim_t old;
	int count = 0;

	old = limit_to(16);
	while (count < 64 && (hogs[count] = fcntl(0, F_DUPFD_CLOEXEC, 0)) >= 0)
		count++;
	assert_int_equal(errno, EMFILE);
	turn_until(f->loop, &f->shortages, 1);
	assert_string_equal(f->why, "Too many open files");
	assert_int_equal(loop_turn(f->loop, 0), 0);
	assert_int_equal(f->accepted_count, 0);
	while (count > 0)
		close(hogs[--count]);
	set_limit(old);
	turn_until(f->loop, &f->recoveries, 1);
	turn_until(f->loop, &f->accepted_count, 1); /* it has waited in the backlog */
	assert_int_equal(f->shortages, 1);
	close(waiting);
}

/* F15 */
static void accepting_leaves_a_reserve_for_others(void **state)
{
	enum { CROWD = 150 };
	struct fixture *f = *state;
	uint16_t port = serve(f, &loopback4);
	int clients[CROWD], spare[16];
	rlim_t old;

	for (int i = 0; i < CROWD; i++)
		clients[i] = client(port);
	old = limit_to(CROWD);
	turn_until(f->loop, &f->shortages, 1);
	turn_until_quiet(f->loop);
	assert_true(f->accepted_count < CROWD - 16);
	for (size_t i = 0; i < ARRAY_LEN(spare); i++) {
		spare[i] = fcntl(0, F_DUPFD_CLOEXEC, 0); /* a delivery's */
		assert_true(spare[i] >= 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(spare); i++)
		close(spare[i]);
	forget_accepted(f);
	turn_until(f->loop, &f->recoveries, 1);
	set_limit(old);
	turn_until(f->loop, &f->accepted_count, 1);
	for (int i = 0; i < CROWD; i++)
		close(clients[i]);
}

/* ---- unix sockets ---- */

static int setup_folder(void **state)
{
	char name[101];
	struct fixture *f;
	int fd;

	setup(state);
	f = *state;
	snprintf(f->top, sizeof(f->top), "/tmp/relayd-net-XXXXXX");
	assert_non_null(mkdtemp(f->top));
	f->dir_fd = open(f->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	memset(name, 'd', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	for (int depth = 0; depth < 3; depth++) {
		assert_int_equal(mkdirat(f->dir_fd, name, 0755), 0);
		fd = openat(f->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(fd >= 0);
		close(f->dir_fd);
		f->dir_fd = fd;
	}
	return 0;
}

static int teardown_folder(void **state)
{
	struct fixture *f = *state;
	char name[101];

	memset(name, 'd', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	unlinkat(f->dir_fd, "control.sock", 0);
	/* Up again, removing each folder from its parent. */
	for (int depth = 0; depth < 3; depth++) {
		int parent = openat(f->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_int_equal(unlinkat(parent, name, AT_REMOVEDIR), 0);
		close(f->dir_fd);
		f->dir_fd = parent;
	}
	rmdir(f->top);
	return teardown(state);
}

static const struct net_unix_options control_options = {0660, (uid_t)-1, (gid_t)-1};

/* A client of that socket, or -1. */
static int connect_unix(int dir_fd, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir_fd, name);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void a_socket_below_a_long_path_has_its_mode_and_knows_its_peer(void **state)
{
	struct fixture *f = *state;
	const struct net_acceptor_events events = {f, on_accept, on_shortage};
	struct net_unix_options options = control_options;
	struct err err;
	struct stat st;
	char who[64];
	int fd, peer;

	options.gid = getgid();
	fd = net_listen_unix(f->dir_fd, "control.sock", &options, &err);
	assert_true(fd >= 0);
	assert_int_equal(fstatat(f->dir_fd, "control.sock", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	f->acceptor = net_acceptor_new(f->net, fd, &events);
	peer = connect_unix(f->dir_fd, "control.sock");
	assert_true(peer >= 0);
	turn_until(f->loop, &f->accepted_count, 1);
	assert_true(f->peer.is_unix);
	assert_int_equal(f->peer.uid, getuid());
	assert_int_equal(f->peer.pid, getpid());
	assert_int_equal(f->peer.address.family, 0);
	net_peer_format(&f->peer, who, sizeof(who));
	assert_non_null(strstr(who, "local user "));
	close(peer);
}

/* K8 */
static void a_leftover_socket_is_replaced(void **state)
{
	struct fixture *f = *state;
	struct err err;
	int old = net_listen_unix(f->dir_fd, "control.sock", &control_options, &err), fresh, peer;

	close(old);
	assert_int_equal(connect_unix(f->dir_fd, "control.sock"), -1);
	fresh = net_listen_unix(f->dir_fd, "control.sock", &control_options, &err);
	assert_true(fresh >= 0);
	peer = connect_unix(f->dir_fd, "control.sock");
	assert_true(peer >= 0);
	close(peer);
	close(fresh);
}

/* K8 */
static void a_file_of_that_name_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct err err;
	int file = openat(f->dir_fd, "control.sock", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	close(file);
	assert_int_equal(net_listen_unix(f->dir_fd, "control.sock", &control_options, &err), -1);
	assert_int_equal(err.code, ERR_EXISTS);
	assert_int_equal(faccessat(f->dir_fd, "control.sock", F_OK, 0), 0);
}

/* K8: nor is it followed: no socket appears elsewhere. */
static void a_link_of_that_name_is_left_alone(void **state)
{
	struct fixture *f = *state;
	struct err err;
	char to[32];

	assert_int_equal(symlinkat("elsewhere.sock", f->dir_fd, "control.sock"), 0);
	assert_int_equal(net_listen_unix(f->dir_fd, "control.sock", &control_options, &err), -1);
	assert_int_equal(err.code, ERR_EXISTS);
	assert_int_equal(readlinkat(f->dir_fd, "control.sock", to, sizeof(to)), strlen("elsewhere.sock"));
	assert_int_equal(faccessat(f->dir_fd, "elsewhere.sock", F_OK, 0), -1);
}

static void peers_are_written_for_people(void **state)
{
	const struct net_peer four = {.address = {DNS_IPV4, {192, 0, 2, 1}}, .port = 4711};
	const struct net_peer six = {.address = {DNS_IPV6, {0x20, 0x01, 0x0d, 0xb8}}, .port = 25};
	char text[80];

	(void)state;
	net_peer_format(&four, text, sizeof(text));
	assert_string_equal(text, "[192.0.2.1]:4711");
	net_peer_format(&six, text, sizeof(text));
	assert_string_equal(text, "[IPv6:2001:db8::]:25");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_FOLDER(name) cmocka_unit_test_setup_teardown(name, setup_folder, teardown_folder)
	    TEST(a_connection_stands_and_carries_what_was_written_before),
	    TEST(a_source_address_is_bound),
	    TEST(a_source_address_that_is_not_ours_fails_with_words),
	    TEST(a_refused_connection_ends_with_words),
	    TEST(a_connection_under_way_can_be_given_up),
	    TEST(a_simulation_takes_the_networks_place),
	    TEST(a_crowd_is_accepted_in_bounded_turns),
	    TEST(connections_that_are_reset_in_the_backlog_harm_nobody),
	    TEST(an_acceptor_may_be_freed_by_its_callback),
	    TEST(an_address_in_use_is_told),
	    TEST(ipv6_sockets_take_ipv6_alone),
	    TEST(without_descriptors_accepting_pauses_spins_not_and_recovers),
	    TEST(accepting_leaves_a_reserve_for_others),
	    TEST_FOLDER(a_socket_below_a_long_path_has_its_mode_and_knows_its_peer),
	    TEST_FOLDER(a_leftover_socket_is_replaced),
	    TEST_FOLDER(a_file_of_that_name_is_left_alone),
	    TEST_FOLDER(a_link_of_that_name_is_left_alone),
	    TEST(peers_are_written_for_people),
	};
	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
