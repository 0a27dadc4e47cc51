/*
 * test/bench/sink.c - SMTP server that takes everything and counts
 *
 * Knows the field of test/bench/load.c: how many different messages came, how many twice, and how long each took from
 * submission to arrival. Prints "listening=ADDR:PORT" for each address at the start, and the figures as key=value lines
 * when --count different messages have come to addresses without delay, on SIGTERM, and on SIGUSR1 (and goes on). With
 * a delay after the address it is a tarpit: each batch of commands is answered so many ms later.
 */
#include "test/bench/bench.h"

#include "base/list.h"
#include "tls/selfsigned.h"

#include <getopt.h>
#include <signal.h>
#include <sys/signalfd.h>

#define LISTENERS_MAX 256
#define BUFFER_SIZE (64 * 1024)

enum kind { KIND_LISTENER, KIND_SESSION, KIND_SIGNAL };

struct listener {
	enum kind kind;
	int fd;
	int delay_ms;
	uint64_t messages, distinct;
	int64_t last_at;
};

struct session {
	enum kind kind;
	struct conn conn;
	struct listener *listener;
	struct list node; /* on sink.delayed or sink.dead */
	int64_t due_ns;	  /* when the waiting replies may go */
	bool in_data, closing, dead;
	uint64_t bdat_left;
	bool bdat_last;
	bool head_known; /* the field of this message has been looked for */
	char *buffer;
	size_t len;
	struct buf replies;
};

struct sink {
	int epoll, signal;
	struct listener listeners[LISTENERS_MAX];
	size_t listener_count;
	uint64_t count_wanted, counted; /* counted: different ones that came where there is no delay */
	const char *seen_file;
	bool chunking, starttls, no_pipelining, no_eightbit;
	struct tls_credentials *credentials;
	unsigned char *seen; /* a bit per number */
	struct list delayed, dead;
	uint64_t messages, distinct, duplicates, strangers, bytes, connections, transactions_dropped;
	int64_t first_at, last_at;
	struct samples arrival;
	bool over;
};

/* ---- counting ---- */

static void count_number(struct sink *sink, struct listener *listener, uint64_t number, int64_t sent_at, int64_t now)
{
	unsigned char bit = (unsigned char)(1 << (number & 7));

	if (number >= BENCH_NUMBERS_MAX) {
		sink->strangers++;
		return;
	}
	if (sink->seen[number >> 3] & bit) {
		sink->duplicates++;
		return;
	}
	sink->seen[number >> 3] |= bit;
	sink->distinct++;
	listener->distinct++;
	listener->last_at = now;
	sink->counted += !listener->delay_ms;
	samples_add(&sink->arrival, (now - sent_at) / 1000);
}

static void count_message(struct sink *sink, struct session *s)
{
	sink->messages++;
	s->listener->messages++;
	if (!s->head_known)
		sink->strangers++;
	if (sink->count_wanted && sink->counted >= sink->count_wanted)
		sink->over = true;
}

/* Looks for our field in what there is of the message. */
static void look_for_field(struct sink *sink, struct session *s, struct slice content)
{
	static const char field[] = "\n" BENCH_FIELD;
	const char *at;
	int64_t now = now_ns();

	if (s->head_known || !content.len)
		return;
	at = memmem(content.ptr, content.len, field + (slice_has_prefix(content, SLICE(BENCH_FIELD)) ? 1 : 0),
		    sizeof(field) - 1 - (slice_has_prefix(content, SLICE(BENCH_FIELD)) ? 1 : 0));
	if (!at)
		return;
	at = memchr(at, ' ', (size_t)(content.ptr + content.len - at)) ?: at;
	if ((size_t)(content.ptr + content.len - at) < 1 + BENCH_VALUE_CHARS)
		return;
	s->head_known = true;
	if (!sink->first_at)
		sink->first_at = now;
	sink->last_at = now;
	count_number(sink, s->listener, strtoull(at, NULL, 10), strtoll(at + 21, NULL, 10), now);
}

static void report(struct sink *sink)
{
	double seconds = (double)(sink->last_at - sink->first_at) / 1e9;

	printf("messages=%llu\ndistinct=%llu\nduplicates=%llu\nstrangers=%llu\nconnections=%llu\ncut_off=%llu\n",
	       (unsigned long long)sink->messages, (unsigned long long)sink->distinct,
	       (unsigned long long)sink->duplicates, (unsigned long long)sink->strangers,
	       (unsigned long long)sink->connections, (unsigned long long)sink->transactions_dropped);
	printf("bytes=%llu\nfirst_ns=%lld\nlast_ns=%lld\nseconds=%.3f\narrived_per_s=%.1f\n",
	       (unsigned long long)sink->bytes, (long long)sink->first_at, (long long)sink->last_at, seconds,
	       seconds > 0 ? (double)sink->distinct / seconds : 0);
	printf("sink_cpu_us_per_message=%.1f\n", sink->messages ? (double)cpu_us() / (double)sink->messages : 0);
	samples_print(&sink->arrival, "arrival_us");
	for (size_t i = 0; i < sink->listener_count && sink->listener_count > 1; i++)
		printf("listener_%zu_distinct=%llu\nlistener_%zu_last_ns=%lld\n", i,
		       (unsigned long long)sink->listeners[i].distinct, i, (long long)sink->listeners[i].last_at);
	printf("end=1\n");
	fflush(stdout);
}

/* ---- sessions ---- */

static void answer(struct sink *sink, struct session *s);

static void say(struct session *s, const char *text)
{
	buf_append_str(&s->replies, text);
}

static void session_open(struct sink *sink, struct listener *listener, int fd)
{
	struct session *s = xcalloc(1, sizeof(*s));
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};

	s->kind = KIND_SESSION;
	s->listener = listener;
	s->buffer = xmalloc(BUFFER_SIZE);
	conn_init(&s->conn, fd);
	list_node_init(&s->node);
	buf_init(&s->replies, 1 << 20);
	sink->connections++;
	epoll_ctl(sink->epoll, EPOLL_CTL_ADD, fd, &event);
	say(s, "220 sink.example.net ESMTP\r\n");
	answer(sink, s);
}

static void session_kill(struct sink *sink, struct session *s)
{
	if (s->dead)
		return;
	s->dead = true;
	if (s->in_data || s->bdat_left)
		sink->transactions_dropped++;
	list_remove(&s->node);
	conn_fini(&s->conn);
	list_append(&sink->dead, &s->node);
}

static void free_dead(struct sink *sink)
{
	struct list *node;

	while ((node = list_pop(&sink->dead))) {
		struct session *s = CONTAINER_OF(node, struct session, node);

		buf_fini(&s->replies);
		free(s->buffer);
		free(s);
	}
}

static void say_ehlo(struct sink *sink, struct session *s)
{
	say(s, "250-sink.example.net\r\n");
	if (!sink->no_pipelining)
		say(s, "250-PIPELINING\r\n");
	if (!sink->no_eightbit)
		say(s, "250-8BITMIME\r\n");
	if (sink->chunking)
		say(s, "250-CHUNKING\r\n");
	if (sink->starttls && !s->conn.tls)
		say(s, "250-STARTTLS\r\n");
	say(s, "250-ENHANCEDSTATUSCODES\r\n250 SIZE 104857600\r\n");
}

static void begin_bdat(struct session *s, struct slice line)
{
	char text[64];

	slice_to_cstr(slice_from(line, 5), text, sizeof(text));
	s->bdat_left = strtoull(text, NULL, 10);
	s->bdat_last = strcasestr(text, "LAST") != NULL;
}

/* One command. False: the rest of the buffer must wait (STARTTLS, end). */
static bool on_command(struct sink *sink, struct session *s, struct slice line)
{
	if (slice_has_case_prefix(line, SLICE("MAIL")) || slice_has_case_prefix(line, SLICE("RCPT"))) {
		say(s, "250 2.1.0 Ok\r\n");
	} else if (slice_has_case_prefix(line, SLICE("DATA"))) {
		say(s, "354 Go on\r\n");
		s->in_data = true;
		s->head_known = false;
	} else if (slice_has_case_prefix(line, SLICE("BDAT "))) {
		begin_bdat(s, line);
	} else if (slice_has_case_prefix(line, SLICE("EHLO")) || slice_has_case_prefix(line, SLICE("HELO"))) {
		say_ehlo(sink, s);
	} else if (slice_has_case_prefix(line, SLICE("STARTTLS")) && sink->starttls && !s->conn.tls) {
		conn_write_str(&s->conn, "220 2.0.0 Go ahead\r\n");
		s->conn.tls = tls_session_new_server(sink->credentials);
		return false;
	} else if (slice_has_case_prefix(line, SLICE("QUIT"))) {
		say(s, "221 2.0.0 Bye\r\n");
		s->closing = true;
		return false;
	} else if (slice_has_case_prefix(line, SLICE("RSET")) || slice_has_case_prefix(line, SLICE("NOOP"))) {
		say(s, "250 2.0.0 Ok\r\n");
	} else {
		say(s, "500 5.5.1 What?\r\n");
	}
	return true;
}

/* Takes content of DATA from the buffer; returns how much of it is done with. */
static size_t on_data(struct sink *sink, struct session *s, struct slice have)
{
	const char *end;
	size_t used;

	look_for_field(sink, s, have);
	/* An empty message begins with the dot. */
	if (slice_has_prefix(have, SLICE(".\r\n"))) {
		end = have.ptr - 2;
	} else {
		end = memmem(have.ptr, have.len, "\r\n.\r\n", 5);
		if (!end) {
			/* Keep the tail in which the end may have begun, and the head until the field is found. */
			used = s->head_known && have.len > 4 ? have.len - 4
			       : have.len == BUFFER_SIZE     ? have.len - 4
							     : 0;
			sink->bytes += used;
			return used;
		}
	}
	used = (size_t)(end + 5 - have.ptr);
	sink->bytes += used;
	s->in_data = false;
	count_message(sink, s);
	say(s, "250 2.0.0 Ok: taken\r\n");
	return used;
}

static size_t on_bdat(struct sink *sink, struct session *s, struct slice have)
{
	size_t used = MIN((uint64_t)have.len, s->bdat_left);

	if (!s->head_known && used < s->bdat_left && have.len < BUFFER_SIZE)
		return 0; /* wait for the whole chunk, or a full buffer */
	look_for_field(sink, s, slice_to(have, used));
	sink->bytes += used;
	s->bdat_left -= used;
	return used;
}

static void end_bdat(struct sink *sink, struct session *s, bool last)
{
	if (last) {
		count_message(sink, s);
		s->head_known = false;
	}
	say(s, "250 2.0.0 Ok: taken\r\n");
}

/* One step through the buffer; 0: needs more. */
static size_t step(struct sink *sink, struct session *s, struct slice have, bool *go_on)
{
	ptrdiff_t newline;
	size_t used;

	if (s->in_data)
		return on_data(sink, s, have);
	if (s->bdat_left) {
		used = on_bdat(sink, s, have);
		if (used && !s->bdat_left)
			end_bdat(sink, s, s->bdat_last);
		return used;
	}
	newline = slice_find(have, '\n');
	if (newline < 0)
		return 0;
	*go_on = on_command(sink, s, slice_to(have, (size_t)newline));
	if (slice_has_case_prefix(have, SLICE("BDAT ")) && !s->bdat_left)
		end_bdat(sink, s, s->bdat_last);
	return (size_t)newline + 1;
}

static void digest(struct sink *sink, struct session *s)
{
	size_t done = 0, used;
	bool go_on = true;

	while (go_on && done < s->len && (used = step(sink, s, slice_of(s->buffer + done, s->len - done), &go_on)) > 0)
		done += used;
	if (!go_on)
		done = s->len; /* plain text behind STARTTLS is dropped, and all behind QUIT */
	memmove(s->buffer, s->buffer + done, s->len - done);
	s->len -= done;
	if (s->len == BUFFER_SIZE)
		session_kill(sink, s);
}

static void send_replies(struct sink *sink, struct session *s)
{
	struct slice out = buf_slice(&s->replies);

	if (out.len) {
		conn_write(&s->conn, &out, 1);
		buf_clear(&s->replies);
	}
	if (s->conn.broken || s->closing)
		session_kill(sink, s);
	else
		conn_update_epoll(&s->conn, sink->epoll, s);
}

/* Now, or later in a tarpit. All sessions of one delay are due in the order in which they came. */
static void answer(struct sink *sink, struct session *s)
{
	if (s->dead || list_is_linked(&s->node))
		return;
	if (!s->listener->delay_ms) {
		send_replies(sink, s);
		return;
	}
	if (!buf_len(&s->replies))
		return;
	s->due_ns = now_ns() + (int64_t)s->listener->delay_ms * 1000000;
	list_append(&sink->delayed, &s->node);
}

static void on_readable(struct sink *sink, struct session *s)
{
	do {
		ssize_t n = conn_read(&s->conn, s->buffer + s->len, BUFFER_SIZE - s->len);

		if (n < 0) {
			session_kill(sink, s);
			return;
		}
		s->len += (size_t)n;
		if (n)
			digest(sink, s);
	} while (!s->dead && !s->closing && conn_has_more(&s->conn));
	answer(sink, s);
}

/* ---- the loop ---- */

static void on_listener(struct sink *sink, struct listener *listener)
{
	for (int i = 0; i < 64; i++) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		session_open(sink, listener, fd);
	}
}

static int next_timeout_ms(struct sink *sink)
{
	int64_t now = now_ns(), due = INT64_MAX;

	LIST_FOREACH (node, &sink->delayed)
		due = MIN(due, CONTAINER_OF(node, struct session, node)->due_ns);
	return due == INT64_MAX ? -1 : due <= now ? 0 : (int)((due - now) / 1000000 + 1);
}

static void send_due(struct sink *sink)
{
	int64_t now = list_is_empty(&sink->delayed) ? 0 : now_ns();

	LIST_FOREACH (node, &sink->delayed) {
		struct session *s = CONTAINER_OF(node, struct session, node);

		if (s->due_ns > now)
			continue;
		list_remove(&s->node);
		send_replies(sink, s);
	}
}

static void on_signal(struct sink *sink)
{
	struct signalfd_siginfo info;

	while (read(sink->signal, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGUSR1)
			report(sink);
		else
			sink->over = true;
	}
}

static void on_event(struct sink *sink, const struct epoll_event *event)
{
	enum kind *kind = event->data.ptr;

	if (*kind == KIND_LISTENER) {
		on_listener(sink, event->data.ptr);
	} else if (*kind == KIND_SIGNAL) {
		on_signal(sink);
	} else {
		struct session *s = event->data.ptr;

		if (!s->dead && (event->events & EPOLLOUT)) {
			conn_flush(&s->conn);
			conn_update_epoll(&s->conn, sink->epoll, s);
		}
		if (!s->dead && (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
			on_readable(sink, s);
	}
}

static void run(struct sink *sink)
{
	struct epoll_event events[64];

	while (!sink->over) {
		int n = epoll_wait(sink->epoll, events, ARRAY_LEN(events), next_timeout_ms(sink));

		for (int i = 0; i < n; i++)
			on_event(sink, &events[i]);
		send_due(sink);
		free_dead(sink);
	}
}

/* ---- start ---- */

static void add_listener(struct sink *sink, const char *text)
{
	struct listener *listener = &sink->listeners[sink->listener_count];
	struct sockaddr_in address;
	char host[64];
	const char *comma = strchr(text, ',');
	int one = 1;

	if (sink->listener_count == LISTENERS_MAX)
		die("more than %d addresses", LISTENERS_MAX);
	slice_to_cstr(slice_of(text, comma ? (size_t)(comma - text) : strlen(text)), host, sizeof(host));
	if (comma && strncmp(comma, ",delay=", 7) != 0)
		die("'%s' is not ADDR:PORT,delay=MS", text);
	address = parse_address(host);
	listener->delay_ms = comma ? (int)number_option("delay", comma + 7) : 0;
	listener->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener->fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener->fd, 4096) < 0)
		die("cannot listen on %s: %s", host, strerror(errno));
	sink->listener_count++;
}

static void start_listeners(struct sink *sink)
{
	for (size_t i = 0; i < sink->listener_count; i++) {
		struct listener *listener = &sink->listeners[i];
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = listener};
		struct sockaddr_in address;
		socklen_t len = sizeof(address);
		char host[INET_ADDRSTRLEN];

		listener->kind = KIND_LISTENER;
		getsockname(listener->fd, (struct sockaddr *)&address, &len);
		inet_ntop(AF_INET, &address.sin_addr, host, sizeof(host));
		printf("listening=%s:%u\n", host, ntohs(address.sin_port));
		epoll_ctl(sink->epoll, EPOLL_CTL_ADD, listener->fd, &event);
	}
	fflush(stdout);
}

static void start_signals(struct sink *sink, enum kind *kind)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = kind};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sink->signal = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	epoll_ctl(sink->epoll, EPOLL_CTL_ADD, sink->signal, &event);
}

static struct tls_credentials *make_credentials(void)
{
	char directory[] = "/tmp/relayd-bench-XXXXXX", path[64];
	struct tls_selfsigned_options options = {.hostname = "sink.example.net",
						 .now_wall_ms = (int64_t)time(NULL) * 1000};
	struct tls_server_credentials_options server = {.certificate_file = path};
	struct tls_credentials *credentials;
	struct err err;

	if (!mkdtemp(directory))
		die("mkdtemp: %s", strerror(errno));
	snprintf(path, sizeof(path), "%s/sink.pem", directory);
	if (tls_selfsigned_ensure(AT_FDCWD, path, &options, NULL, &err) < 0)
		die("%s", err.text);
	credentials = tls_credentials_new_server(&server, &err);
	if (!credentials)
		die("%s", err.text);
	unlink(path);
	rmdir(directory);
	return credentials;
}

static const char usage[] = "sink --listen ADDR:PORT[,delay=MS] ... [--count N] [--starttls] [--chunking]\n"
			    "     [--no-pipelining] [--no-8bitmime] [--seen FILE (a bit for each number)]\n";

static void parse_options(struct sink *sink, int argc, char **argv)
{
	static const struct option longs[] = {
	    {"listen", 1, NULL, 'l'},	     {"count", 1, NULL, 'c'},
	    {"starttls", 0, NULL, 'S'},	     {"chunking", 0, NULL, 'C'},
	    {"no-pipelining", 0, NULL, 'P'}, {"no-8bitmime", 0, NULL, '8'},
	    {"seen", 1, NULL, 's'},	     {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'l': add_listener(sink, optarg); break;
		case 'c': sink->count_wanted = number_option("--count", optarg); break;
		case 'S': sink->starttls = true; break;
		case 'C': sink->chunking = true; break;
		case 'P': sink->no_pipelining = true; break;
		case 's': sink->seen_file = optarg; break;
		case '8': sink->no_eightbit = true; break;
		default: die("%s", usage);
		}
	}
	if (!sink->listener_count || optind < argc)
		die("%s", usage);
}

int main(int argc, char **argv)
{
	static struct sink sink;
	enum kind signal_kind = KIND_SIGNAL;

	parse_options(&sink, argc, argv);
	signal(SIGPIPE, SIG_IGN);
	list_init(&sink.delayed);
	list_init(&sink.dead);
	sink.seen = xcalloc(BENCH_NUMBERS_MAX / 8, 1);
	sink.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (sink.starttls)
		sink.credentials = make_credentials();
	start_signals(&sink, &signal_kind);
	start_listeners(&sink);
	run(&sink);
	if (sink.seen_file)
		write_numbers(sink.seen_file, sink.seen);
	report(&sink);
	return 0;
}
