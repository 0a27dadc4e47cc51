#include "relayd/admission.h"

#include "base/base.h"

#include <stdlib.h>
#include <uthash.h>

/* As a key it has no padding and no unused octets that differ. */
struct origin_key {
	uint8_t is_local, family, bytes[16], zero[2];
	uint32_t uid;
};

struct admission_origin {
	UT_hash_handle hh;
	struct origin_key key;
	unsigned count;
	struct list strangers;
};

struct admission_user {
	UT_hash_handle hh;
	unsigned count;
	char name[];
};

struct admission {
	struct admission_limits limits;
	struct admission_origin *origins;
	struct admission_user *users;
	struct list strangers;
	unsigned count;
	size_t memory_bytes;
};

struct admission *admission_new(const struct admission_limits *limits)
{
	struct admission *admission = xcalloc(1, sizeof(*admission));

	admission->limits = *limits;
	list_init(&admission->strangers);
	return admission;
}

void admission_free(struct admission **admission)
{
	if (!*admission)
		return;
	BUG_ON((*admission)->count > 0);
	free(*admission);
	*admission = NULL;
}

void admission_configure(struct admission *admission, const struct admission_limits *limits)
{
	admission->limits = *limits;
}

static struct origin_key key_of(const struct net_peer *peer)
{
	struct dns_address client = dns_address_client(&peer->address);
	struct origin_key key = {.is_local = peer->is_unix, .family = client.family};

	memcpy(key.bytes, client.bytes, sizeof(key.bytes));
	if (peer->is_unix)
		key.uid = peer->uid;
	return key;
}

static struct admission_origin *find_origin(const struct admission *admission, const struct net_peer *peer)
{
	struct origin_key key = key_of(peer);
	struct admission_origin *origin;

	HASH_FIND(hh, admission->origins, &key, sizeof(key), origin);
	return origin;
}

/* ---- room ---- */

static struct admission_seat *first_of_origin(const struct admission_origin *origin)
{
	for (struct list *node = origin->strangers.next; node != &origin->strangers; node = node->next) {
		struct admission_seat *seat = CONTAINER_OF(node, struct admission_seat, origin_node);
		if (!seat->is_busy)
			return seat;
	}
	return NULL;
}

static struct admission_seat *first_of_all(const struct admission *admission)
{
	for (struct list *node = admission->strangers.next; node != &admission->strangers; node = node->next) {
		struct admission_seat *seat = CONTAINER_OF(node, struct admission_seat, node);
		if (!seat->is_busy)
			return seat;
	}
	return NULL;
}

enum admission_answer admission_ask(const struct admission *admission, const struct net_peer *peer,
				    struct admission_seat **victim)
{
	const struct admission_origin *origin = find_origin(admission, peer);

	*victim = NULL;
	if (origin && origin->count >= admission->limits.per_address) {
		*victim = first_of_origin(origin);
		return ADMISSION_ADDRESS_FULL;
	}
	if (admission->count >= admission->limits.sessions) {
		*victim = first_of_all(admission);
		return ADMISSION_FULL;
	}
	return ADMISSION_OK;
}

void admission_enter(struct admission *admission, struct admission_seat *seat, const struct net_peer *peer)
{
	struct admission_origin *origin = find_origin(admission, peer);

	if (!origin) {
		origin = xcalloc(1, sizeof(*origin));
		origin->key = key_of(peer);
		list_init(&origin->strangers);
		HASH_ADD(hh, admission->origins, key, sizeof(origin->key), origin);
	}
	*seat = (struct admission_seat){.admission = admission, .origin = origin};
	list_node_init(&seat->node);
	list_node_init(&seat->origin_node);
	list_append(&admission->strangers, &seat->node);
	list_append(&origin->strangers, &seat->origin_node);
	origin->count++;
	admission->count++;
}

void admission_leave(struct admission_seat *seat)
{
	struct admission *admission = seat->admission;

	if (!admission)
		return;
	admission_logout(seat);
	admission_know(seat);
	admission_set_memory(seat, 0);
	admission->count--;
	if (--seat->origin->count == 0) {
		HASH_DEL(admission->origins, seat->origin);
		free(seat->origin);
	}
	seat->admission = NULL;
	seat->origin = NULL;
}

/* ---- strangers and users ---- */

void admission_touch(struct admission_seat *seat)
{
	if (!list_is_linked(&seat->node))
		return;
	list_remove(&seat->node);
	list_remove(&seat->origin_node);
	list_append(&seat->admission->strangers, &seat->node);
	list_append(&seat->origin->strangers, &seat->origin_node);
}

void admission_set_busy(struct admission_seat *seat, bool is_busy)
{
	seat->is_busy = is_busy;
}

void admission_know(struct admission_seat *seat)
{
	list_remove(&seat->node);
	list_remove(&seat->origin_node);
}

bool admission_login(struct admission_seat *seat, const char *name)
{
	struct admission *admission = seat->admission;
	struct admission_user *user;
	size_t len = strlen(name);

	HASH_FIND(hh, admission->users, name, len, user);
	if (user && user != seat->user && user->count >= admission->limits.per_user)
		return false;
	if (!user) {
		user = xcalloc(1, sizeof(*user) + len + 1);
		memcpy(user->name, name, len);
		HASH_ADD_KEYPTR(hh, admission->users, user->name, len, user);
	}
	user->count++; /* before the logout, which may free it */
	admission_logout(seat);
	seat->user = user;
	admission_know(seat);
	return true;
}

void admission_logout(struct admission_seat *seat)
{
	struct admission_user *user = seat->user;

	seat->user = NULL;
	if (!user || --user->count > 0)
		return;
	HASH_DEL(seat->admission->users, user);
	free(user);
}

/* ---- memory ---- */

void admission_set_memory(struct admission_seat *seat, size_t bytes)
{
	seat->admission->memory_bytes += bytes - seat->memory_bytes;
	seat->memory_bytes = bytes;
}

bool admission_has_memory(const struct admission *admission)
{
	return admission->memory_bytes < admission->limits.memory_bytes;
}

size_t admission_memory_bytes(const struct admission *admission)
{
	return admission->memory_bytes;
}

unsigned admission_count(const struct admission *admission)
{
	return admission->count;
}
