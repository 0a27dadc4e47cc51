/*
 * queue/verify.h - looks at a spool without changing it: `relayctl verify` and `relayctl journal dump`
 *
 * Works with and without a running daemon (it takes no lock and writes nothing); of a living journal it sees a moment,
 * and the unsynced end may look torn. Reads everything, bodies included. This is the one header of queue/ that tools
 * may include.
 */
#ifndef QUEUE_VERIFY_H
#define QUEUE_VERIFY_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* One line for a person, without newline; `bad`: it tells of damage or loss. Borrowed for the call. */
typedef void verify_line_cb(void *ctx, bool bad, const char *line);

struct verify_summary {
	uint64_t segments, records, bytes;
	uint64_t messages, recipients, content_bytes; /* live */
	uint64_t corrupt_ranges, corrupt_bytes;
	uint64_t suspect_ranges, suspect_bytes;
	uint64_t segments_missing;
	uint64_t messages_broken; /* live ones that cannot be sent whole */
	uint64_t torn_bytes;
	uint64_t leftovers;
};

/* Checks the spool in folder `spool`: each record's checksums, the chain, and for each live message all pieces and the
 * hash. 0: sound; ERR_CORRUPT: damage was found and told; else why it could not look (ERR_NOT_FOUND, ERR_PERMISSION,
 * ERR_VERSION, ERR_IO). */
int verify_spool(const char *spool, verify_line_cb *line, void *ctx, struct verify_summary *summary, struct err *err);

/* Prints every record of every segment in order, readable, damaged places included. */
int verify_dump(const char *spool, verify_line_cb *line, void *ctx, struct err *err);

#endif
