/*
 * relayd/helper_protocol.h - what goes over the socket pair between daemon and helper, one message a packet
 *
 * Both ends are the same program, so plain structures will do. Used by helper.c and helper_work.c only.
 */
#ifndef RELAYD_HELPER_PROTOCOL_H
#define RELAYD_HELPER_PROTOCOL_H

#include "base/err.h"
#include "config/config.h"
#include "dkim/dkim.h"

#include <stdint.h>

enum helper_kind { HELPER_SYNC, HELPER_CRYPTO };

enum helper_task {
	TASK_SYNC,    /* a descriptor comes along */
	TASK_PREPARE, /* `data`: the name; the answer brings a descriptor */
	TASK_DISCARD, /* `data`: the name; perhaps a descriptor comes along */
	TASK_SIGN,    /* `digest` with key `key` of domain `domain` */
	TASK_VERIFY,  /* `data`: user, then password */
};

enum { HELPER_DATA_MAX = 12 * 1024, HELPER_KEYS_MAX = 512 };

struct helper_request {
	uint64_t id;
	enum helper_task task;
	uint32_t domain, key;
	unsigned char digest[DKIM_DIGEST_BYTES];
	uint64_t size;
	uint32_t first_len, data_len; /* first_len: of the user name */
	char data[HELPER_DATA_MAX];   /* only data_len octets are sent */
};

struct helper_answer {
	uint64_t id;
	int32_t result; /* 0, an enum err_code, or for disk tasks a negative errno */
	uint32_t duration_us;
	uint32_t data_len;
	char data[DKIM_SIGNATURE_MAX_BYTES * 8];
};

/* The first message of a crypto helper. */
struct helper_report {
	int32_t result;
	char text[512];
	uint64_t user_count;
	uint32_t key_count;
	uint8_t algorithms[HELPER_KEYS_MAX]; /* in the order of config->dkim */
};

/* The keys and users of one configuration, ready for work. */
struct helper_secrets;
struct helper_secrets *helper_secrets_load(const struct config *config, struct helper_report *report);
void helper_secrets_free(struct helper_secrets **secrets);
/* Carries out TASK_SIGN or TASK_VERIFY. */
void helper_secrets_work(struct helper_secrets *secrets, const struct helper_request *request,
			 struct helper_answer *answer);

/* The life of a helper process; never returns. `fd`: its end of the socket pair. */
_Noreturn void helper_main(enum helper_kind kind, int fd, int journal_fd, const struct config *config, int parent_pid);

/* One packet with at most one descriptor. Sizes in bytes; 0: done, -1: errno. */
int helper_send(int fd, const void *packet, size_t len, int pass_fd, int flags);
/* The length, 0: the other side is gone, -1: errno. *passed_fd is -1 when none came. */
long helper_receive(int fd, void *packet, size_t size, int *passed_fd, int flags);

#endif
