/*
 * relayd/admission.h - how many client sessions there may be: in all, from one address, of one user; and who makes room
 *
 * Every session holds a seat. A session is a stranger until it has logged in (or a message of it was accepted at MAIL);
 * when a limit is reached, the stranger that has been silent for longest is sent away to make room, so that a crowd of
 * idle connections locks nobody out. Who has logged in is never sent away for another.
 * It also adds up the memory of all sessions. Pure: it knows no socket, no clock; all is O(1).
 */
#ifndef RELAYD_ADMISSION_H
#define RELAYD_ADMISSION_H

#include "base/list.h"
#include "base/slice.h"
#include "relayd/net.h"

struct admission;

struct admission_limits {
	unsigned sessions, per_address, per_user;
	size_t memory_bytes;
};

/* Embedded in the session. All of it is private. */
struct admission_seat {
	struct list node, origin_node; /* strangers, the longest silent first: all of them, and those of the origin */
	struct admission *admission;   /* NULL: not seated */
	struct admission_origin *origin;
	struct admission_user *user;
	size_t memory_bytes;
	bool is_busy;
};

enum admission_answer {
	ADMISSION_OK,
	ADMISSION_FULL,		/* limits.connections */
	ADMISSION_ADDRESS_FULL, /* limits.connections_per_address, of dns_address_client(); local users by their uid */
};

struct admission *admission_new(const struct admission_limits *limits);
/* All seats have been left. Accepts NULL, sets NULL. */
void admission_free(struct admission **admission);
/* Counts from the next question on; nobody is sent away. */
void admission_configure(struct admission *admission, const struct admission_limits *limits);

/* May one more come from there? If not, *victim is a stranger whose leaving would help: send it away and ask again.
 * NULL: there is none. */
enum admission_answer admission_ask(const struct admission *admission, const struct net_peer *peer,
				    struct admission_seat **victim);
void admission_enter(struct admission *admission, struct admission_seat *seat, const struct net_peer *peer);
/* Harmless for one that is not seated. */
void admission_leave(struct admission_seat *seat);

/* A sign of life: now others are sent away before it. */
void admission_touch(struct admission_seat *seat);
/* While it is busy (its password is being checked) it is not sent away. */
void admission_set_busy(struct admission_seat *seat, bool is_busy);
/* It is no stranger any more. */
void admission_know(struct admission_seat *seat);
/* Counts it as a session of this user, instead of the one before. False: the user has too many; nothing has changed. */
bool admission_login(struct admission_seat *seat, const char *user);
/* Of no user any more: what was learnt before TLS is forgotten. */
void admission_logout(struct admission_seat *seat);

/* What the session occupies now. */
void admission_set_memory(struct admission_seat *seat, size_t bytes);
/* False: all sessions together are at the ceiling. */
bool admission_has_memory(const struct admission *admission);
size_t admission_memory_bytes(const struct admission *admission);
unsigned admission_count(const struct admission *admission);

#endif
