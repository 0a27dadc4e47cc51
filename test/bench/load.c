/*
 * test/bench/load.c - SMTP load generator
 *
 * N sessions in one thread send messages as fast as they are taken. Each message says its number and when it was sent,
 * so that the sink can tell how long it took and whether it came twice. Ends when all messages are answered; prints
 * key=value lines. Exit 0 only if every message was accepted.
 */
#include "test/bench/bench.h"

#include <getopt.h>
#include <signal.h>
#include <sodium.h>

enum step {
	STEP_GREETING,
	STEP_EHLO,
	STEP_STARTTLS,
	STEP_HANDSHAKE,
	STEP_EHLO_TLS,
	STEP_AUTH,
	STEP_ENVELOPE, /* MAIL, RCPT and DATA, or one of them */
	STEP_DOT,
	STEP_RSET,
	STEP_QUIT,
	STEP_OFF, /* no connection */
};

struct options {
	struct sockaddr_in server;
	unsigned sessions, per_connection, seconds;
	uint64_t messages, first;
	size_t size;
	bool starttls, implicit_tls, pipelining, stop_when_broken;
	const char *accepted_file;
	const char *user, *password, *from, *rcpt;
	unsigned domains;
};

struct session {
	struct conn conn;
	enum step step;
	unsigned replies_due;	/* of the batch under way */
	unsigned envelope_step; /* without pipelining: 0 MAIL, 1 RCPT, 2 DATA */
	unsigned done_here;	/* messages on this connection */
	bool refused;		/* something in this transaction was */
	uint64_t number;	/* of the message under way */
	int64_t sent_at;
	char line[1200];
	size_t line_len;
};

struct load {
	struct options options;
	int epoll;
	struct tls_credentials *credentials;
	struct session *sessions;
	struct buf body;
	uint64_t next, accepted, refused, reconnects;
	unsigned open;
	char first_refusal[300];
	int64_t first_at, last_at;
	struct samples latency;
	unsigned char *numbers; /* a bit per accepted one, with --accepted */
};

/* ---- what is said ---- */

static void make_body(struct load *load)
{
	static const char line[] =
	    "The quick brown fox jumps over the lazy dog, and the lazy dog does not mind it.\r\n";
	struct buf *body = &load->body;

	buf_init(body, load->options.size + 4096);
	buf_append_str(body, "From: App <app@app.example.org>\r\nTo: Somebody <user@example.net>\r\n"
			     "Subject: Your order has been shipped\r\nDate: Tue, 25 Nov 2025 10:00:00 +0000\r\n"
			     "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n");
	while (buf_len(body) + 100 < load->options.size)
		buf_append(body, slice_to(SLICE(line), MAX(load->options.size - buf_len(body) - 100, (size_t)2)));
	if (!slice_has_prefix(slice_from(buf_slice(body), buf_len(body) - 2), SLICE("\r\n")))
		buf_append_str(body, "\r\n");
	buf_append_str(body, ".\r\n");
}

static int format_envelope(struct load *load, struct session *s, char *out, size_t size)
{
	const struct options *o = &load->options;
	char rcpt[300];

	/* "%" in the recipient becomes the number of a domain. */
	const char *percent = strchr(o->rcpt, '%');
	if (percent)
		snprintf(rcpt, sizeof(rcpt), "%.*s%llu%s", (int)(percent - o->rcpt), o->rcpt,
			 (unsigned long long)(s->number % o->domains), percent + 1);
	else
		snprintf(rcpt, sizeof(rcpt), "%s", o->rcpt);
	if (o->pipelining) {
		s->replies_due = 3;
		return snprintf(out, size, "MAIL FROM:<%s> SIZE=%zu\r\nRCPT TO:<%s>\r\nDATA\r\n", o->from,
				buf_len(&load->body) + 70, rcpt);
	}
	s->replies_due = 1;
	if (s->envelope_step == 0)
		return snprintf(out, size, "MAIL FROM:<%s>\r\n", o->from);
	if (s->envelope_step == 1)
		return snprintf(out, size, "RCPT TO:<%s>\r\n", rcpt);
	return snprintf(out, size, "DATA\r\n");
}

static void send_envelope(struct load *load, struct session *s)
{
	char text[800];
	struct slice piece;
	int len = format_envelope(load, s, text, sizeof(text));

	piece = slice_of(text, (size_t)len);
	s->step = STEP_ENVELOPE;
	conn_write(&s->conn, &piece, 1);
}

static void send_message(struct load *load, struct session *s)
{
	char head[160];
	struct slice pieces[2];
	int len;

	s->sent_at = now_ns();
	len = snprintf(head, sizeof(head), BENCH_FIELD "%020llu %020llu\r\nMessage-ID: <%llu.%llu@app.example.org>\r\n",
		       (unsigned long long)s->number, (unsigned long long)s->sent_at, (unsigned long long)s->number,
		       (unsigned long long)s->sent_at);
	pieces[0] = slice_of(head, (size_t)len);
	pieces[1] = buf_slice(&load->body);
	s->step = STEP_DOT;
	s->replies_due = 1;
	conn_write(&s->conn, pieces, 2);
}

static void send_step(struct session *s, enum step step, const char *text)
{
	s->step = step;
	s->replies_due = 1;
	conn_write_str(&s->conn, text);
}

static void send_auth(struct load *load, struct session *s)
{
	char plain[400], encoded[600], line[640];
	int len = snprintf(plain, sizeof(plain), "%c%s%c%s", 0, load->options.user, 0, load->options.password);

	sodium_bin2base64(encoded, sizeof(encoded), (unsigned char *)plain, (size_t)len,
			  sodium_base64_VARIANT_ORIGINAL);
	snprintf(line, sizeof(line), "AUTH PLAIN %s\r\n", encoded);
	send_step(s, STEP_AUTH, line);
}

/* ---- connections ---- */

static bool is_finished(const struct load *load)
{
	return load->next >= load->options.first + load->options.messages;
}

static void start_tls(struct load *load, struct session *s)
{
	s->conn.tls = tls_session_new_client(load->credentials, &(struct tls_client_options){0});
	conn_handshake(&s->conn);
}

static void open_session(struct load *load, struct session *s)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
	struct linger linger = {1, 0};

	if (fd < 0)
		die("socket: %s", strerror(errno));
	/* No TIME_WAIT: one message a connection would use up all ports. QUIT has been answered by then. */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	if (connect(fd, (struct sockaddr *)&load->options.server, sizeof(load->options.server)) < 0 &&
	    errno != EINPROGRESS)
		die("connect: %s", strerror(errno));
	conn_init(&s->conn, fd);
	s->step = STEP_GREETING;
	s->replies_due = 1;
	s->line_len = 0;
	s->done_here = 0;
	load->open++;
	epoll_ctl(load->epoll, EPOLL_CTL_ADD, fd, &event);
	if (load->options.implicit_tls)
		start_tls(load, s);
}

static void close_session(struct load *load, struct session *s)
{
	conn_fini(&s->conn);
	s->step = STEP_OFF;
	load->open--;
}

static void next_message(struct load *load, struct session *s)
{
	if (is_finished(load) || (load->options.per_connection && s->done_here >= load->options.per_connection)) {
		send_step(s, STEP_QUIT, "QUIT\r\n");
		return;
	}
	if (!load->first_at)
		load->first_at = now_ns();
	s->number = load->next++;
	s->envelope_step = 0;
	s->refused = false;
	send_envelope(load, s);
}

static void refuse(struct load *load, struct session *s, struct slice line)
{
	if (!load->refused)
		slice_to_cstr(line, load->first_refusal, sizeof(load->first_refusal));
	load->refused++;
	s->refused = true;
}

/* ---- what is answered ---- */

static void answered_dot(struct load *load, struct session *s, struct slice line)
{
	int64_t now = now_ns();

	if (line.ptr[0] == '2') {
		load->accepted++;
		if (load->numbers && s->number < BENCH_NUMBERS_MAX)
			load->numbers[s->number >> 3] |= (unsigned char)(1 << (s->number & 7));
		samples_add(&load->latency, (now - s->sent_at) / 1000);
	} else {
		refuse(load, s, line);
	}
	load->last_at = now;
	s->done_here++;
	next_message(load, s);
}

static void answered_envelope(struct load *load, struct session *s, struct slice line)
{
	bool last = s->replies_due == 0;

	if (line.ptr[0] != '2' && line.ptr[0] != '3' && !s->refused)
		refuse(load, s, line);
	if (!last)
		return;
	if (s->refused) {
		/* DATA may have been let in: an empty message then, and RSET. */
		send_step(s, STEP_RSET, line.ptr[0] == '3' ? ".\r\nRSET\r\n" : "RSET\r\n");
		s->replies_due = line.ptr[0] == '3' ? 2 : 1;
	} else if (load->options.pipelining || s->envelope_step == 2) {
		send_message(load, s);
	} else {
		s->envelope_step++;
		send_envelope(load, s);
	}
}

static void answered_ehlo(struct load *load, struct session *s)
{
	if (s->step == STEP_EHLO && load->options.starttls)
		send_step(s, STEP_STARTTLS, "STARTTLS\r\n");
	else if (load->options.user)
		send_auth(load, s);
	else
		next_message(load, s);
}

/* One reply, its last line. */
static void on_reply(struct load *load, struct session *s, struct slice line)
{
	if (s->replies_due)
		s->replies_due--;
	if (line.ptr[0] != '2' && line.ptr[0] != '3' && s->step != STEP_ENVELOPE && s->step != STEP_DOT &&
	    s->step != STEP_RSET && s->step != STEP_QUIT)
		die("step %d was answered: %.*s", s->step, SLICE_ARG(line));
	switch (s->step) {
	case STEP_GREETING: send_step(s, STEP_EHLO, "EHLO app.example.org\r\n"); break;
	case STEP_EHLO:
	case STEP_EHLO_TLS: answered_ehlo(load, s); break;
	case STEP_STARTTLS:
		s->step = STEP_HANDSHAKE;
		start_tls(load, s);
		break;
	case STEP_AUTH: next_message(load, s); break;
	case STEP_ENVELOPE: answered_envelope(load, s, line); break;
	case STEP_DOT: answered_dot(load, s, line); break;
	case STEP_RSET:
		if (!s->replies_due)
			next_message(load, s);
		break;
	case STEP_HANDSHAKE:
	case STEP_QUIT:
	case STEP_OFF: break;
	}
}

static void on_end(struct load *load, struct session *s)
{
	bool expected = s->step == STEP_QUIT;

	if (!expected && load->options.stop_when_broken) {
		load->options.messages = load->next - load->options.first;
	} else if (!expected) {
		if (load->reconnects++ > 10000)
			die("connections keep breaking in step %d", s->step);
		if (s->step == STEP_ENVELOPE || s->step == STEP_DOT)
			refuse(load, s, SLICE("the connection broke"));
	}
	close_session(load, s);
	if (!is_finished(load))
		open_session(load, s);
}

static void parse_replies(struct load *load, struct session *s)
{
	size_t start = 0;

	for (;;) {
		char *newline = memchr(s->line + start, '\n', s->line_len - start);
		struct slice line;

		if (!newline)
			break;
		line = slice_of(s->line + start, (size_t)(newline - s->line) - start);
		start += line.len + 1;
		if (line.len >= 4 && line.ptr[3] != '-')
			on_reply(load, s, line);
		if (s->step == STEP_OFF)
			return;
	}
	memmove(s->line, s->line + start, s->line_len - start);
	s->line_len -= start;
}

static void on_readable(struct load *load, struct session *s)
{
	do {
		ssize_t n = conn_read(&s->conn, s->line + s->line_len, sizeof(s->line) - s->line_len);

		if (n < 0) {
			on_end(load, s);
			return;
		}
		if (s->step == STEP_HANDSHAKE && tls_session_is_established(s->conn.tls))
			send_step(s, STEP_EHLO_TLS, "EHLO app.example.org\r\n");
		s->line_len += (size_t)n;
		parse_replies(load, s);
	} while (s->step != STEP_OFF && conn_has_more(&s->conn));
}

static void run(struct load *load)
{
	struct epoll_event events[64];
	int64_t until = load->options.seconds ? now_ns() + (int64_t)load->options.seconds * 1000000000 : INT64_MAX;

	for (unsigned i = 0; i < load->options.sessions; i++)
		open_session(load, &load->sessions[i]);
	while (load->open) {
		int n = epoll_wait(load->epoll, events, ARRAY_LEN(events), 1000);

		for (int i = 0; i < n; i++) {
			struct session *s = events[i].data.ptr;

			if (events[i].events & EPOLLOUT)
				conn_flush(&s->conn);
			if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				on_readable(load, s);
			if (s->step != STEP_OFF)
				conn_update_epoll(&s->conn, load->epoll, s);
		}
		if (until != INT64_MAX && now_ns() >= until)
			load->options.messages = load->next - load->options.first;
	}
}

static void report(struct load *load)
{
	double seconds = (double)(load->last_at - load->first_at) / 1e9;

	printf("accepted=%llu\nrefused=%llu\nreconnects=%llu\nseconds=%.3f\naccepted_per_s=%.1f\n",
	       (unsigned long long)load->accepted, (unsigned long long)load->refused,
	       (unsigned long long)load->reconnects, seconds, seconds > 0 ? (double)load->accepted / seconds : 0);
	printf("first_ns=%lld\nlast_ns=%lld\n", (long long)load->first_at, (long long)load->last_at);
	printf("message_bytes=%zu\nload_cpu_us_per_message=%.1f\n", buf_len(&load->body) + 141,
	       load->accepted ? (double)cpu_us() / (double)load->accepted : 0);
	samples_print(&load->latency, "dot_to_250_us");
	if (load->refused)
		printf("first_refusal=%s\n", load->first_refusal);
	if (load->numbers)
		write_numbers(load->options.accepted_file, load->numbers);
}

static const char usage[] =
    "load --server ADDR:PORT [--sessions N] [--messages N] [--per-connection N (0: all)] [--size BYTES]\n"
    "     [--seconds N] [--first NUMBER] [--starttls | --tls] [--user NAME --password SECRET] [--no-pipelining]\n"
    "     [--from ADDRESS] [--rcpt ADDRESS ('%' becomes 0 .. DOMAINS-1)] [--domains N]\n"
    "     [--accepted FILE (a bit for each accepted number)] [--stop-when-broken]\n";

static void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
	    {"server", 1, NULL, 's'},
	    {"sessions", 1, NULL, 'n'},
	    {"messages", 1, NULL, 'm'},
	    {"per-connection", 1, NULL, 'p'},
	    {"size", 1, NULL, 'b'},
	    {"seconds", 1, NULL, 't'},
	    {"first", 1, NULL, 'f'},
	    {"starttls", 0, NULL, 'S'},
	    {"tls", 0, NULL, 'T'},
	    {"user", 1, NULL, 'u'},
	    {"password", 1, NULL, 'w'},
	    {"no-pipelining", 0, NULL, 'P'},
	    {"from", 1, NULL, 'F'},
	    {"rcpt", 1, NULL, 'R'},
	    {"domains", 1, NULL, 'd'},
	    {"accepted", 1, NULL, 'a'},
	    {"stop-when-broken", 0, NULL, 'B'},
	    {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 's': o->server = parse_address(optarg); break;
		case 'n': o->sessions = (unsigned)number_option("--sessions", optarg); break;
		case 'm': o->messages = number_option("--messages", optarg); break;
		case 'p': o->per_connection = (unsigned)number_option("--per-connection", optarg); break;
		case 'b': o->size = number_option("--size", optarg); break;
		case 't': o->seconds = (unsigned)number_option("--seconds", optarg); break;
		case 'f': o->first = number_option("--first", optarg); break;
		case 'S': o->starttls = true; break;
		case 'T': o->implicit_tls = true; break;
		case 'u': o->user = optarg; break;
		case 'w': o->password = optarg; break;
		case 'P': o->pipelining = false; break;
		case 'F': o->from = optarg; break;
		case 'R': o->rcpt = optarg; break;
		case 'a': o->accepted_file = optarg; break;
		case 'B': o->stop_when_broken = true; break;
		case 'd': o->domains = (unsigned)number_option("--domains", optarg); break;
		default: die("%s", usage);
		}
	}
	if (!o->server.sin_port || !o->sessions || !o->domains || (o->user && !o->password) || optind < argc)
		die("%s", usage);
}

int main(int argc, char **argv)
{
	struct load load = {.options = {.sessions = 20,
					.messages = 1000,
					.first = 1,
					.size = 4096,
					.pipelining = true,
					.from = "app@app.example.org",
					.rcpt = "user@example.net",
					.domains = 1}};
	struct err err;

	parse_options(&load.options, argc, argv);
	signal(SIGPIPE, SIG_IGN);
	load.next = load.options.first;
	load.options.sessions = (unsigned)MIN((uint64_t)load.options.sessions, load.options.messages);
	load.sessions = xcalloc(load.options.sessions, sizeof(*load.sessions));
	load.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (load.options.starttls || load.options.implicit_tls)
		load.credentials = tls_credentials_new_client(NULL, &err);
	if (load.options.accepted_file)
		load.numbers = xcalloc(BENCH_NUMBERS_MAX / 8, 1);
	make_body(&load);
	run(&load);
	report(&load);
	return load.accepted == load.options.messages ? 0 : 1;
}
