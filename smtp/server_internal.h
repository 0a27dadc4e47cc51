/*
 * smtp/server_internal.h - what the files of the submission server share; nobody else includes it
 *
 * server.c          making, bytes and time, the pull loop, ends
 * server_line.c     from octets to command lines
 * server_command.c  the table of verbs and states, the commands without mail
 * server_mail.c     MAIL, RCPT, DATA: arguments, parameters, answers
 * server_auth.c     AUTH
 * server_content.c  what comes after 354
 */
#ifndef SMTP_SERVER_INTERNAL_H
#define SMTP_SERVER_INTERNAL_H

#include "smtp/sasl.h"
#include "smtp/server.h"

enum server_state {
	/* Commands are read. The first four are the columns of the table in server_command.c. */
	START, /* no EHLO or HELO yet, or TLS has just begun */
	READY, /* greeted, no transaction */
	MAIL,  /* a sender, no recipient */
	RCPT,  /* a sender and at least one recipient */
	COMMAND_STATE_COUNT,
	AUTH_LINE = COMMAND_STATE_COUNT, /* the client's next line belongs to AUTH */
	/* The host's answer is waited for. */
	WAIT_AUTH,
	WAIT_MAIL,
	WAIT_RCPT,
	WAIT_DATA,
	STORING, /* all content was given; is it on stable storage? */
	/* Content. */
	DATA,
	SWALLOW, /* refused, but its end must be found */
	/* Ends and changes. */
	TLS_FLUSH, /* STARTTLS was said, its 220 is not out yet */
	TLS,	   /* the host does the handshake */
	CLOSING,   /* output is flushed, input dropped */
	CLOSED,
	SERVER_STATE_COUNT,
};

enum {
	SERVER_INPUT_MAX = 32 * 1024,
	SERVER_OUTPUT_MAX = 32 * 1024,
	SERVER_OUTPUT_MARK = 8 * 1024,	/* no command is taken while more waits to be sent */
	SERVER_IDLE_BUFFER_BYTES = 512, /* what an idle session keeps of each */
	SERVER_FACTS_MAX = 8,
};

struct server_fact {
	enum smtp_server_event_type type;
	enum smtp_server_reason reason;
	int code;
};

struct smtp_server {
	const struct smtp_server_options *options;
	struct smtp_server_limits limits; /* with the defaults filled in */
	enum server_state state;
	bool tls, esmtp, eof, stopping, has_logged_in;
	char *helo, *user; /* NULL: none */

	struct buf in, out;
	size_t searched; /* of `in`: no LF before it */
	size_t piece;	 /* octets of `in` that the last CONTENT stands for */
	bool skipping;	 /* a line that is too long, up to its CRLF */
	bool skipped_cr;
	size_t skipped;
	bool data_was_refused; /* the last command was DATA: what follows may be content */

	/* Time. The clock of a step runs while the client is waited for, and only then. */
	int64_t now_ms, started_ms;
	int64_t waiting_since_ms; /* -1: it stands */
	int64_t waited_ms;	  /* of this step, before that */
	int64_t moved_ms;	  /* when output was last sent, or began to wait; CLOSING, TLS: when that began */

	/* The transaction. */
	bool open; /* MAIL was accepted, neither COMPLETE answered nor ABORTED told */
	bool smtputf8;
	uint32_t recipients;
	struct content content;
	struct buf refusal; /* formatted reply for the end of what is swallowed */
	int refusal_code;   /* 0: by the content's flags */

	struct sasl_server *sasl; /* during AUTH */

	uint32_t messages, commands, errors, auth_failures;
	uint32_t idle_commands, recent_errors; /* since the last accepted message */
	enum smtp_server_reason close_reason;
	struct server_fact facts[SERVER_FACTS_MAX];
	int fact_count;
};

/* What a step did. */
enum server_step {
	STEP_AGAIN, /* something: go on */
	STEP_EVENT, /* the event is filled in */
	STEP_WAIT,  /* nothing can be done now */
};

/* ---- server.c */
void server_set_state(struct smtp_server *s, enum server_state state);
void server_say(struct smtp_server *s, int code, const char *enhanced, const char *text);
/* Says it, counts it as an error of the client and tells the host; closes when there were too many, or with 421. */
void server_refuse(struct smtp_server *s, enum smtp_server_reason reason, int code, const char *enhanced,
		   const char *text);
/* The host's refusal, or one that is no error of the client. */
void server_decline(struct smtp_server *s, enum smtp_server_reason reason, const struct smtp_server_reply *reply);
void server_tell(struct smtp_server *s, enum smtp_server_event_type type, enum smtp_server_reason reason, int code);
/* Ends the transaction, if there is one, and tells the host. */
void server_abort(struct smtp_server *s, enum smtp_server_reason reason);
/* Behind what has been said: flush, then CLOSE. */
void server_end(struct smtp_server *s, enum smtp_server_reason reason);
bool server_is_waiting_for_host(const struct smtp_server *s);

/* ---- server_line.c */
/* The next complete line, without CRLF, in `in`: 1; 0: there is none, or the line was dealt with (see the state). */
int server_take_line(struct smtp_server *s, struct slice *line);

/* ---- server_command.c */
enum server_step server_command(struct smtp_server *s, struct slice line, struct smtp_server_event *event);
bool server_offers_auth(const struct smtp_server *s);

/* ---- server_mail.c: handlers of the table. True: the event is filled in. */
bool server_mail(struct smtp_server *s, struct slice args, struct smtp_server_event *event);
bool server_rcpt(struct smtp_server *s, struct slice args, struct smtp_server_event *event);
bool server_data(struct smtp_server *s, struct slice args, struct smtp_server_event *event);
/* A DATA that is not followed by 354. */
void server_refuse_data(struct smtp_server *s, enum smtp_server_reason reason, int code, const char *enhanced,
			const char *text);

/* ---- server_auth.c */
bool server_auth(struct smtp_server *s, struct slice args, struct smtp_server_event *event);
enum server_step server_auth_line(struct smtp_server *s, struct slice line, struct smtp_server_event *event);
void server_auth_end(struct smtp_server *s);
/* The response was longer than a line may be. */
void server_auth_too_long(struct smtp_server *s);

/* ---- server_content.c */
enum server_step server_content(struct smtp_server *s, struct smtp_server_event *event);
void server_content_begin(struct smtp_server *s);

#endif
