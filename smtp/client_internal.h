/*
 * smtp/client_internal.h - the inside of the client machine; only client*.c include it
 *
 *   client.c              bytes, time, events, the end of a session
 *   client_session.c      from the greeting to READY, and QUIT
 *   client_transaction.c  MAIL to the reply to the end of data, the result of each recipient
 *   client_command.c      the command lines of a transaction, and what may not be sent
 *   client_body.c         content: dot-stuffing, BDAT, its end
 */
#ifndef SMTP_CLIENT_INTERNAL_H
#define SMTP_CLIENT_INTERNAL_H

#include "base/base.h"
#include "smtp/client.h"

enum client_phase {
	PHASE_GREETING,	   /* waiting for 220 */
	PHASE_EHLO,	   /* EHLO is out */
	PHASE_HELO,	   /* HELO is out */
	PHASE_STARTTLS,	   /* STARTTLS is out */
	PHASE_TLS,	   /* the host does the handshake; nothing may come in here */
	PHASE_AUTH,	   /* an AUTH exchange */
	PHASE_READY,	   /* idle */
	PHASE_TRANSACTION, /* see tx */
	PHASE_QUIT,	   /* QUIT is out */
	PHASE_ENDING,	   /* `end` is decided and waits to be told, after the results of the transaction */
	PHASE_ENDED,
};

/* The steps of a transaction, in the order of the wire. Two cursors run over them: one writes commands, the other reads
 * their replies; with PIPELINING the first runs ahead. */
enum tx_step {
	TX_RSET,
	TX_MAIL,
	TX_RCPT, /* one per recipient */
	TX_DATA, /* DATA until its 354, or the BDAT command, which has no reply of its own */
	TX_BODY, /* content: for the writer alone, no reply is due */
	TX_END,	 /* the reply to the final dot, or to BDAT */
	TX_OVER,
};

enum rcpt_state {
	RCPT_OPEN = 0, /* not answered yet */
	RCPT_ACCEPTED, /* 2yz; its result is the message's */
	RCPT_BAD_ADDRESS,
	RCPT_NEEDS_UTF8, /* these two are not sent, their result is told at once */
	RCPT_TOLD,	 /* had its RESULT */
};

struct tx_recipient {
	uint32_t end; /* of its command, counted from `start`; UINT32_MAX: not written */
	uint8_t state;
};

struct tx {
	const struct smtp_transaction *what; /* the host's; NULL: none under way */
	struct tx_recipient *recipients;     /* as many as in *what; memory is kept for the next */
	size_t recipient_cap;
	uint64_t start;		/* octets queued on this connection before it */
	uint64_t ends[TX_OVER]; /* octets queued at the end of each step's command; UINT64_MAX: not written */
	enum tx_step write_step, read_step;
	size_t write_index, read_index; /* recipients */
	size_t accepted;
	size_t limit; /* recipients from here on will not be written any more */
	size_t tell_from,
	    unsendable_from; /* recipients before it have been told their verdict, or that they are unsendable */
	bool has_refusal;    /* of recipient `refused`, to be told next */
	size_t refused;
	bool smtputf8; /* the parameter is used */
	bool is_bdat, is_one_flight;
	bool has_answer;  /* something of it has been answered */
	bool has_verdict; /* for all recipients that have no result of their own */
	struct smtp_client_result verdict;
	bool has_early; /* a refusal that came before the content was out */
	struct smtp_reply early;
	/* Content. */
	uint64_t body_bytes; /* fed so far */
	bool is_body_wanted;
	char body_last;	   /* its last octet; LF before the first */
	bool is_last_held; /* BDAT: that one is not yet in the output */
};

struct smtp_client {
	enum client_phase phase;
	int64_t now_ms;
	int64_t step_deadline_ms, overall_deadline_ms; /* INT64_MAX: none */
	struct smtp_client_limits limits;
	char *helo_name;
	enum smtp_client_tls tls;
	bool allow_plaintext_auth, use_helo, no_pipelining, no_chunking;

	struct buf in, out;
	uint64_t sent_bytes;	/* ever */
	uint64_t command_end;	/* octets queued at the end of the last command outside a transaction */
	int64_t progress_at_ms; /* when output was last taken, or begun */
	bool is_eof;
	char eof_why[128];
	struct smtp_reply_parser parser;
	struct smtp_reply reply; /* the one that is being handled */

	struct smtp_client_capabilities offered;
	char peer_name[256];
	bool is_tls, starttls_refused, is_quit_wanted;
	struct sasl_client_credentials credentials; /* strings are copies; wiped after AUTH */
	struct sasl_client *sasl;
	unsigned auth_steps;
	enum sasl_client_mechanism authenticated_by;

	bool has_notice; /* an event without a result, to be told next */
	enum smtp_client_event_type notice;
	struct smtp_client_result end; /* from PHASE_ENDING on */
	bool is_end_polite, try_helo;

	struct tx tx;
	bool needs_rset; /* the last transaction may still be open at the server */
	uint32_t transaction_count;
};

/* ---- client.c ---------------------------------------------------------------------------------------------------- */

void client_queue(struct smtp_client *c, struct slice bytes);
static inline uint64_t client_queued_bytes(const struct smtp_client *c)
{
	return c->sent_bytes + buf_len(&c->out);
}
/* Time for the next reply counts from now. */
void client_wait(struct smtp_client *c, int64_t ms);
void client_notice(struct smtp_client *c, enum smtp_client_event_type type);
/* Ends the session: the machine's own words. */
void client_fail(struct smtp_client *c, enum smtp_client_cause cause, enum delivery_stage stage, const char *text);
/* Ends it over c->reply, which does not fit. */
void client_fail_unexpected(struct smtp_client *c);
/* Ends it with the reply at hand. */
void client_fail_reply(struct smtp_client *c, enum delivery_stage stage);
/* Ends it politely, QUIT included, because it had better not go on. */
void client_close(struct smtp_client *c);
void client_set_phase(struct smtp_client *c, enum client_phase phase);

enum delivery_stage client_stage(const struct smtp_client *c);
void client_forget_credentials(struct smtp_client *c);

/* ---- client_session.c ---------------------------------------------------------------------------------------------
 */

/* The reply in c->reply, outside a transaction. */
void session_on_reply(struct smtp_client *c);
void session_quit(struct smtp_client *c);

/* ---- client_transaction.c ---------------------------------------------------------------------------------------- */

/* Tells what there is to tell, and writes what may be written. */
bool tx_next(struct smtp_client *c, struct smtp_client_event *event);
/* The reply in c->reply. */
void tx_on_reply(struct smtp_client *c);
enum delivery_stage tx_stage(const struct smtp_client *c);
/* What is being waited for, in words: "the reply to MAIL". */
const char *tx_doing(const struct smtp_client *c);
int64_t tx_step_deadline_ms(const struct smtp_client *c);
/* All content is queued, its end too. */
void tx_body_ended(struct smtp_client *c);
/* Some output has been taken. */
void tx_on_sent(struct smtp_client *c);
/* The session ends as c->end says: the next result, or TRANSACTION_DONE; false: all told. */
bool tx_end_next(struct smtp_client *c, struct smtp_client_event *event);
/* The end of the message has gone out, and nothing says that it was refused. */
bool tx_may_have_been_taken(const struct smtp_client *c);

/* ---- client_command.c -------------------------------------------------------------------------------------------- */

/* What excludes the whole message from this server: false, and *out says why. */
bool command_check_message(struct smtp_client *c, struct smtp_reply *out);
/* RCPT_OPEN, RCPT_BAD_ADDRESS or RCPT_NEEDS_UTF8. */
enum rcpt_state command_check_recipient(const struct smtp_client *c, const struct smtp_client_recipient *recipient);
void command_mail(struct smtp_client *c);
void command_rcpt(struct smtp_client *c, const struct smtp_client_recipient *recipient);
void command_bdat(struct smtp_client *c);

#endif
