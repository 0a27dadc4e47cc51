/*
 * queue/fifo_internal.h - what fifo.c (appending, files, opening) and fifo_read.c (reading, the position) share
 */
#ifndef QUEUE_FIFO_INTERNAL_H
#define QUEUE_FIFO_INTERNAL_H

#include "base/base.h"
#include "base/list.h"
#include "queue/fifo.h"
#include "queue/record.h"

enum {
	BLOCK = RECORD_BLOCK,
	FILE_BYTES = 1024 * 1024,
	MEMORY_MAX = 8 * 1024 * 1024,
	NAME_BYTES = 32,
	FILE_MIN_BYTES = 2 * FIFO_RECORD_MAX,
	HEADER_PAYLOAD = 20, /* version, number, nonce */
	VERSION = 1,
	POSITION_PAYLOAD = 24, /* generation, number, offset */
	FAILURES_MAX = 2,      /* running, until records are given up */
};

/* Seeds of what has no file's nonce yet. */
#define HEADER_NONCE UINT64_C(0x6f66696648454144)
#define POSITION_NONCE UINT64_C(0x6f666966504f5349)

struct fifo_entry {
	struct list node;
	char *bytes;
	uint32_t len;
	uint64_t stamp;
	fifo_cb *cb;
	void *ctx;
};

/* One that is open. number 0: none. */
struct fifo_file {
	uint64_t number, nonce;
	int fd;
	bool is_aside; /* a copy is in the quarantine */
};

struct place {
	uint64_t number, offset;
};

struct fifo {
	struct fifo_options options;
	uint64_t *numbers; /* files that exist, ascending */
	size_t count;
	uint64_t next_number;

	struct fifo_file active; /* the last one, being written */
	uint64_t written, synced;
	bool needs_dir_sync;
	struct list gathered, unsynced; /* not yet written; written to the active file */
	size_t memory, memory_max;	/* of both */
	unsigned failures;
	uint64_t lost;
	uint64_t token, last_token; /* token 0: no sync runs */
	uint64_t sync_target;	    /* of the sync that runs; 0: it is the directory's */
	uint32_t sync_items;	    /* so many of `unsynced` are done with it */

	struct fifo_file reading; /* fd -1 while it is the active one */
	struct place head;
	uint64_t generation;
	int position_fd;
};

/* ---- fifo.c */

void fifo_file_name(uint64_t number, char out[NAME_BYTES]);
void fifo_close_file(struct fifo *fifo, struct fifo_file *file);
void fifo_remove_file(struct fifo *fifo, uint64_t number);
/* Blocks that stand alone: a file's header, the position. */
void fifo_seal_block(char block[BLOCK], const char *payload, uint32_t len, uint64_t nonce, uint64_t offset);
bool fifo_open_block(const char block[BLOCK], uint32_t len, uint64_t nonce, uint64_t offset);

/* ---- fifo_read.c */

void fifo_load_position(struct fifo *fifo);

#endif
