/*
 * Damage of all kinds to a spool at rest: never a crash, never a silent loss; what is not hit is all there; what is
 * lost was told and stands in the quarantine.
 */
#include "support_box.h"

#include "base/base.h"
#include "queue/internal.h"

#define SMALL_SEGMENT (32 * 1024)
#define BIG_SEGMENT (64 * 1024)
#define MESSAGES_MAX 400

/* A spool with known messages; each test damages copies of it. */
struct original {
	struct box box;
	uint64_t ids[MESSAGES_MAX];
	struct slice contents[MESSAGES_MAX];
	/* Where the records of a message stand: one place each for MESSAGE and pieces. */
	struct index_place places[MESSAGES_MAX][32];
	uint32_t place_count[MESSAGES_MAX];
	uint32_t count;
	uint32_t finished; /* others, that were done */
	uint32_t newest;   /* number of the segment */
};

static char noise[40000];

static struct slice content_of(uint32_t number, size_t len)
{
	return slice_of(noise + number * 17 % 1000, len);
}

static void add_message(struct original *o, uint32_t recipients, size_t len)
{
	o->contents[o->count] = content_of(o->count, len);
	o->ids[o->count] = box_submit(&o->box, recipients, o->contents[o->count]);
	o->count++;
}

static void note_places(struct original *o)
{
	o->newest = journal_current(o->box.queue->journal);
	for (uint32_t i = 0; i < o->count; i++) {
		struct slot *slot = index_find(o->box.queue->index, o->ids[i]);
		uint32_t n = 0;
		o->places[i][n++] = (struct index_place){slot->message, slot->length};
		for (uint32_t p = 0; p < slot_piece_count(slot); p++)
			o->places[i][n++] = slot->u.extra->pieces[p];
		o->place_count[i] = n;
	}
}

static void fill_noise(void)
{
	struct rng_seeded rng;

	rng_seeded_init(&rng, 99);
	rng.rng.fill(&rng.rng, noise, sizeof(noise));
}

static struct original *make_small(bool marked)
{
	struct original *o = xcalloc(1, sizeof(*o));

	fill_noise();
	box_init(&o->box, SMALL_SEGMENT);
	assert_true(box_open(&o->box));
	add_message(o, 1, 300);
	add_message(o, 3, 5000); /* in pieces */
	box_result(&o->box, o->ids[1], 0, OUTCOME_DELIVERED);
	box_result(&o->box, o->ids[1], 1, OUTCOME_DEFERRED);
	add_message(o, 1, 700);
	assert_int_equal(queue_hold(o->box.queue, o->ids[2]), 0);
	add_message(o, 1, 100);
	if (marked)
		box_settle(&o->box);
	note_places(o);
	box_kill(&o->box);
	fault_disk_settle(&o->box.disk);
	return o;
}

static struct original *make_big(void)
{
	struct original *o = xcalloc(1, sizeof(*o));

	fill_noise();
	box_init(&o->box, BIG_SEGMENT);
	assert_true(box_open(&o->box));
	for (uint32_t i = 0; i < 120; i++)
		add_message(o, 1 + i % 3, i % 10 == 0 ? 9000 : 200 + i * 7);
	for (uint32_t i = 0; i < 120; i += 3)
		box_result(&o->box, o->ids[i], 0, i % 2 ? OUTCOME_DEFERRED : OUTCOME_FAILED);
	box_settle(&o->box);
	/* Those that are finished now are no part of it. */
	for (uint32_t i = 0; i < o->count;) {
		struct queue_brief brief;
		if (queue_brief(o->box.queue, o->ids[i], &brief) == 0) {
			i++;
			continue;
		}
		o->count--;
		o->finished++;
		o->ids[i] = o->ids[o->count];
		o->contents[i] = o->contents[o->count];
	}
	note_places(o);
	box_kill(&o->box);
	fault_disk_settle(&o->box.disk);
	return o;
}

static void free_original(struct original **o)
{
	box_fini(&(*o)->box);
	free(*o);
	*o = NULL;
}

static uint32_t number_of(const char *bytes)
{
	struct segment_header header = {0};

	segment_header_get(bytes, SEGMENT_DATA_START, &header);
	return header.number;
}

/* Whether octets from .. to of the segment belong to a record of the message. */
static bool is_hit(const struct original *o, uint32_t message, uint32_t segment, uint64_t from, uint64_t to)
{
	for (uint32_t p = 0; p < o->place_count[message]; p++) {
		const struct index_place *place = &o->places[message][p];
		uint64_t start = (uint64_t)place->at.at8 * RECORD_ALIGN;
		if (place->at.segment == segment && from < start + record_bytes(place->length) && to > start)
			return true;
	}
	return false;
}

/* ---- Every octet of a small spool ---- */

static void check_flip(const struct original *o, struct box *box, uint32_t segment, uint64_t at, struct slice evidence)
{
	assert_true(box_open(box));
	for (uint32_t i = 0; i < o->count; i++) {
		int found = box_check(box, o->ids[i], o->contents[i]);
		if (found == 1)
			continue;
		if (!is_hit(o, i, segment, at, at + 1))
			fail_msg("octet %u of segment %u: message %u is lost, though it was not hit", (unsigned)at,
				 segment, i);
		if (box->told == 0)
			fail_msg("octet %u of segment %u: message %u is lost in silence", (unsigned)at, segment, i);
		if (!box_quarantined(box, evidence))
			fail_msg("octet %u of segment %u: message %u is lost without evidence", (unsigned)at, segment,
				 i);
	}
	if (box_count(box) > o->count)
		fail_msg("octet %u of segment %u: a message from nowhere", (unsigned)at, segment);
}

static void flip_all_of_file(const struct original *o, const char *name, char mask)
{
	uint64_t size, used;
	const char *bytes = fault_disk_bytes((struct fault_disk *)&o->box.disk, DISK_JOURNAL, name, &size);
	uint32_t segment = number_of(bytes);

	for (used = size; used > 0 && bytes[used - 1] == 0; used--)
		;
	for (uint64_t at = 0; at < used; at++) {
		struct box box;
		char *copy, evidence[RECORD_ALIGN];
		/* Padding cannot be hit; one octet in seven of it will do. */
		if (bytes[at] == 0 && at % 7 != 0)
			continue;
		box_copy(&box, &o->box);
		copy = fault_disk_bytes(&box.disk, DISK_JOURNAL, name, &size);
		copy[at] = (char)(copy[at] ^ mask);
		memcpy(evidence, copy + at / RECORD_ALIGN * RECORD_ALIGN, sizeof(evidence));
		check_flip(o, &box, segment, at, slice_of(evidence, sizeof(evidence)));
		box_fini(&box);
	}
}

static void flip_every_octet(bool marked)
{
	struct original *o = make_small(marked);
	char names[16][64];
	uint32_t count = o->box.disk.cached_count[DISK_JOURNAL];

	assert_true(count < ARRAY_LEN(names));
	for (uint32_t i = 0; i < count; i++)
		snprintf(names[i], sizeof(names[i]), "%s", fault_disk_name(&o->box.disk, DISK_JOURNAL, i));
	for (uint32_t i = 0; i < count; i++)
		flip_all_of_file(o, names[i], marked ? 0x01 : (char)0xff);
	free_original(&o);
}

/* J17 */
static void each_octet_of_a_small_spool_may_flip(void **state)
{
	(void)state;
	flip_every_octet(true);
}

/* The last batch is synced and answered, and nothing behind it says so yet. */
static void each_octet_may_flip_before_the_last_batch_is_marked(void **state)
{
	(void)state;
	flip_every_octet(false);
}

/* ---- Random damage to a big one ---- */

struct damage {
	uint32_t segment;
	uint64_t from, to;
};

/* A run of noise or zeros, or single octets over a stretch. */
static struct damage do_damage(const struct original *o, struct box *box, struct rng_seeded *rng)
{
	uint32_t which = (uint32_t)rng_below(&rng->rng, box->disk.cached_count[DISK_JOURNAL]);
	const char *name = fault_disk_name(&box->disk, DISK_JOURNAL, which);
	struct damage damage;
	uint64_t size, len = 1 + rng_below(&rng->rng, 1u << rng_below(&rng->rng, 14)), kind = rng_below(&rng->rng, 3);
	char *bytes = fault_disk_bytes(&box->disk, DISK_JOURNAL, name, &size);

	/* An earlier damage may have hit the number in the copy. */
	damage.segment = number_of(fault_disk_bytes((struct fault_disk *)&o->box.disk, DISK_JOURNAL, name, &size));
	damage.from = rng_below(&rng->rng, size);
	damage.to = MIN(size, damage.from + len);
	for (uint64_t at = damage.from; at < damage.to; at++) {
		if (kind == 0)
			bytes[at] = (char)rng_below(&rng->rng, 256);
		else if (kind == 1)
			bytes[at] = 0;
		else if (rng_below(&rng->rng, 16) == 0)
			bytes[at] = (char)(bytes[at] ^ (1 << rng_below(&rng->rng, 8)));
	}
	return damage;
}

static void check_damage(const struct original *o, struct box *box, const struct damage *damage, uint32_t count,
			 uint64_t seed)
{
	uint32_t lost = 0;

	assert_true(box_open(box));
	for (uint32_t i = 0; i < o->count; i++) {
		bool hit = false;
		if (box_check(box, o->ids[i], o->contents[i]) == 1)
			continue;
		lost++;
		for (uint32_t d = 0; d < count; d++) {
			hit |= is_hit(o, i, damage[d].segment, damage[d].from, damage[d].to);
			/* Both headers of the newest gone: nobody knows its nonce any more. It is kept as evidence. */
			for (uint32_t p = 0; damage[d].from < SEGMENT_DATA_START && p < o->place_count[i]; p++)
				hit |= damage[d].segment == o->newest && o->places[i][p].at.segment == o->newest;
		}
		for (uint32_t d = 0; !hit && d < count; d++)
			print_error("damage in segment %u: %u to %u\n", damage[d].segment, (unsigned)damage[d].from,
				    (unsigned)damage[d].to);
		if (!hit)
			fail_msg("SEED %u: message %u in segment %u at %u is lost, though it was not hit; %s",
				 (unsigned)seed, i, o->places[i][0].at.segment, o->places[i][0].at.at8 * 8,
				 box->last_told);
	}
	if (lost > 0 && box->told == 0 && box->report.torn_bytes == 0)
		fail_msg("SEED %u: %u messages lost in silence", (unsigned)seed, lost);
	/* With its DONE lost, a finished message comes back, but never in silence. */
	if (box_count(box) > o->count + o->finished ||
	    (box_count(box) > o->count && box->told == 0 && box->report.torn_bytes == 0))
		fail_msg("SEED %u: messages from nowhere", (unsigned)seed);
}

static void random_damage_to_a_big_spool(void **state)
{
	struct original *o = make_big();
	uint64_t rounds = getenv("LONG") && *getenv("LONG") ? 100000 : 10000;

	(void)state;
	for (uint64_t seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : 1; seed <= rounds; seed++) {
		struct rng_seeded rng;
		struct damage damage[4];
		struct box box;
		uint32_t count;
		rng_seeded_init(&rng, seed);
		count = 1 + (uint32_t)rng_below(&rng.rng, ARRAY_LEN(damage));
		box_copy(&box, &o->box);
		for (uint32_t d = 0; d < count; d++)
			damage[d] = do_damage(o, &box, &rng);
		check_damage(o, &box, damage, count, seed);
		box_fini(&box);
	}
	free_original(&o);
}

/* ---- Bodies that look like a journal ---- */

/* J23 */
static void a_body_made_of_records_changes_nothing(void **state)
{
	static struct box box;
	struct slice copy;
	uint64_t victim, held, hostile, size;
	char *bytes;

	(void)state;
	fill_noise();
	box_init(&box, 2 * BIG_SEGMENT);
	assert_true(box_open(&box));
	victim = box_submit(&box, 1, content_of(1, 900));
	held = box_submit(&box, 1, content_of(2, 900));
	assert_int_equal(queue_hold(box.queue, held), 0);
	queue_delete(box.queue, box_submit(&box, 1, content_of(3, 900)));
	box_sync(&box);
	/* All of the journal so far, records, MARKs and all, as a body. */
	bytes = fault_disk_bytes(&box.disk, DISK_JOURNAL, "new-0000000000000000", &size);
	assert_non_null(bytes);
	copy = slice_of(xmemdup(bytes, 30000), 30000);
	hostile = box_submit(&box, 1, copy);
	box_settle(&box);
	box_kill(&box);
	/* And once more with the body's own record damaged, so that a reader looks for the next one inside of it. */
	for (int round = 0; round < 2; round++) {
		struct queue_brief brief;
		assert_true(box_open(&box));
		assert_int_equal(box_check(&box, victim, content_of(1, 900)), 1);
		assert_int_equal(box_check(&box, held, content_of(2, 900)), 1);
		assert_int_equal(queue_brief(box.queue, held, &brief), 0);
		assert_int_equal(brief.state, STATE_HELD);
		assert_int_equal(box_check(&box, hostile, copy), round == 0 ? 1 : -1);
		assert_int_equal(box_count(&box), round == 0 ? 3 : 2);
		assert_int_equal(box.told, round == 0 ? 0 : box.told);
		if (round == 0) {
			struct slot *slot = index_find(box.queue->index, hostile);
			struct record_place place = slot->u.extra->pieces[3].at;
			const char *name = segments_find(&box.queue->segments, place.segment)->name;
			fault_disk_rot(&box.disk, DISK_JOURNAL, name, (uint64_t)place.at8 * 8,
				       (uint64_t)place.at8 * 8 + 8, 1);
			box_settle(&box);
		}
		box_kill(&box);
	}
	free((char *)copy.ptr);
	box_fini(&box);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_octet_of_a_small_spool_may_flip),
	    cmocka_unit_test(each_octet_may_flip_before_the_last_batch_is_marked),
	    cmocka_unit_test(random_damage_to_a_big_spool),
	    cmocka_unit_test(a_body_made_of_records_changes_nothing),
	};
	return cmocka_run_group_tests_name("corruption", tests, NULL, NULL);
}
