/*
 * relayctl/sendmail.h - what the parts of sendmail(8) share: arguments, message, and who hands it over
 */
#ifndef RELAYCTL_SENDMAIL_H
#define RELAYCTL_SENDMAIL_H

#include "relayctl/submit.h"

enum { SENDMAIL_RECIPIENTS_MAX = 1000, SENDMAIL_MESSAGE_MAX_BYTES = 1 << 30 };

enum sendmail_mode {
	SENDMAIL_MESSAGE, /* the message on standard input */
	SENDMAIL_SMTP,	  /* -bs: SMTP on standard input and output */
	SENDMAIL_QUEUE,	  /* -bp, mailq */
	SENDMAIL_FLUSH,	  /* -q */
	SENDMAIL_NOTHING, /* -bi, newaliases: aliases are the daemon's, read when they change */
};

struct sendmail {
	enum sendmail_mode mode;
	const char *sender;    /* -f, -r; NULL: the user who calls */
	const char *full_name; /* -F; NULL: none */
	bool from_header;      /* -t */
	bool ignore_dots;      /* -i, -oi: a lone dot is content */
	unsigned notify;       /* -N */
	enum smtp_dsn_ret ret; /* -R */
	struct buf envid;      /* -V, as xtext with its NUL */
	struct buf message;    /* ended by CRLF */
	char *recipients[SENDMAIL_RECIPIENTS_MAX];
	size_t recipient_count;
};

/* Prints "sendmail: ..." to standard error and returns `code`, of sysexits.h, so that it can stand in a return. */
int sendmail_complain(int code, const char *text);
/* All of these: EX_OK, or why not, told. */
int sendmail_take_arguments(struct sendmail *s, int argc, char **argv);
/* The addresses of a list as recipients; bare names stay bare: relayd knows origin and aliases. */
int sendmail_add_recipients(struct sendmail *s, struct slice list);
/* Standard input to its end, or to the lone dot. */
int sendmail_read_message(struct sendmail *s);
/* Recipients from the header with -t, a From with the name of -F where there is none. `sender`: "" for <>. */
int sendmail_prepare(struct sendmail *s, const char *sender);
/* The time that the message was written is now, not when it is picked up. */
void sendmail_add_date(struct sendmail *s);

#endif
