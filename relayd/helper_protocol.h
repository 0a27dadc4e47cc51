/*
 * relayd/helper_protocol.h - what goes over the socket pair between daemon and helper, one message a packet
 *
 * Both ends are the same program, so plain structures will do. Used by the helper*.c files only.
 */
#ifndef RELAYD_HELPER_PROTOCOL_H
#define RELAYD_HELPER_PROTOCOL_H

#include "base/err.h"
#include "config/config.h"
#include "dkim/dkim.h"

#include <stdint.h>
#include <sys/types.h>

enum helper_kind { HELPER_SYNC, HELPER_CRYPTO };
const char *helper_kind_name(enum helper_kind kind);

enum helper_task {
	TASK_SYNC,    /* a descriptor comes along */
	TASK_PREPARE, /* `data`: the name; the answer brings a descriptor */
	TASK_DISCARD, /* `data`: the name; perhaps a descriptor comes along */
	TASK_SIGN,    /* `data`: the digest, for key `key` of domain `domain` */
	TASK_VERIFY,  /* `data`: user, then password */
};

enum {
	HELPER_REQUEST_MAX = 12 * 1024, /* an AUTH line has at most 12,288 octets of base64 */
	HELPER_ANSWER_MAX = 12 * 1024,	/* a user's options, at most 8 KiB */
	HELPER_KEYS_PER_PACKET = 64,
};

struct helper_request {
	uint64_t id, size;
	uint32_t task, domain, key;
	uint32_t first_len, data_len;  /* first_len: of the user name */
	char data[HELPER_REQUEST_MAX]; /* only data_len octets are sent */
};

struct helper_answer {
	uint64_t id;
	int32_t result; /* 0, an enum err_code, or for disk tasks a negative errno */
	uint32_t duration_us, data_len;
	char data[HELPER_ANSWER_MAX]; /* only data_len octets are sent */
};

struct helper_key_report {
	uint32_t algorithm, bits, warnings;
	unsigned char fingerprint[16]; /* of the public key */
};

/* What a crypto helper says first: packets of keys in the order of config->dkim, the last with the outcome. */
struct helper_report_packet {
	uint32_t is_last, key_count;
	int32_t result;
	uint64_t user_count, slow_count; /* slow: with Argon2id secrets */
	char text[512];
	struct helper_key_report keys[HELPER_KEYS_PER_PACKET];
};

/* All of it together. */
struct helper_report {
	int32_t result;
	char text[512];
	uint64_t user_count, slow_count;
	uint32_t key_count;
	bool is_final;			/* a helper has said all this, and others must say the same */
	struct helper_key_report *keys; /* owned */
};
void helper_report_fini(struct helper_report *report);

/* ---- helper_work.c: the work itself, in a helper or inline */

struct helper_secrets; /* the keys and users of one configuration, ready for work */

/* NULL: report->result and text say why. Fills `report` in any case. Blocks. */
struct helper_secrets *helper_secrets_load(const struct config *config, struct helper_report *report);
void helper_secrets_free(struct helper_secrets **secrets);
/* Carries out TASK_SIGN or TASK_VERIFY. */
void helper_secrets_work(struct helper_secrets *secrets, const struct helper_request *request,
			 struct helper_answer *answer);
/* Carries out a disk task; closes `passed_fd`. *made_fd: of TASK_PREPARE, else -1. */
void helper_disk_work(int journal_fd, const struct helper_request *request, int passed_fd, struct helper_answer *answer,
		      int *made_fd);
/* Serves until the other end is closed. */
_Noreturn void helper_serve(enum helper_kind kind, int fd, int journal_fd, const struct config *config,
			    bool no_seccomp);

/* ---- helper_process.c: processes and packets */

struct helper_spawn_options {
	enum helper_kind kind;
	int journal_fd;		     /* HELPER_SYNC */
	const struct config *config; /* HELPER_CRYPTO */
	char **argv;
	bool no_seccomp;
};
/* The parent's end of the socket pair, non-blocking, or -1 with errno. */
int helper_spawn(const struct helper_spawn_options *options, pid_t *pid);

/* One packet with at most one descriptor. 0: done, -1: errno. */
int helper_send(int fd, const void *packet, size_t len, int pass_fd);
/* The length; 0: the other side is gone; -1: errno. *passed_fd is -1 when none came. A packet that was cut, or has more
 * than one descriptor, is -1 with EMSGSIZE. */
ssize_t helper_receive(int fd, void *packet, size_t size, int *passed_fd);

#endif
