/* Records, fields and payloads: what is written is read back, and nothing else passes. */
#include "support_box.h"

#include "base/base.h"
#include "queue/payload.h"
#include "queue/record.h"
#include "queue/segment.h"

#define NONCE 0x1234567890abcdefu

static void make_record(char *out, struct slice payload, uint64_t offset)
{
	struct record_header header = {.length = (uint32_t)payload.len,
				       .type = RECORD_RESULT,
				       .index = 3,
				       .id = 0x0102030405060708u,
				       .watermark = {7, 4096 / 8}};

	memcpy(out + RECORD_HEADER_BYTES, payload.ptr, payload.len);
	record_seal(out, &header, NONCE, offset);
}

static bool is_sound(const char *bytes, uint64_t nonce, uint64_t offset)
{
	struct record_header header;

	return record_open(bytes, nonce, offset, &header) && header.length <= 64 &&
	       record_payload_ok(&header, bytes + RECORD_HEADER_BYTES, nonce, offset);
}

static void a_record_is_read_as_it_was_written(void **state)
{
	char bytes[128] = {0};
	struct record_header header;

	(void)state;
	make_record(bytes, SLICE("some payload"), 8192);
	assert_true(record_open(bytes, NONCE, 8192, &header));
	assert_int_equal(header.length, 12);
	assert_int_equal(header.type, RECORD_RESULT);
	assert_int_equal(header.index, 3);
	assert_int_equal(header.id, 0x0102030405060708u);
	assert_int_equal(header.watermark.segment, 7);
	assert_int_equal(header.watermark.at8, 512);
	assert_true(record_payload_ok(&header, bytes + RECORD_HEADER_BYTES, NONCE, 8192));
}

/* J19 */
static void a_record_passes_only_where_it_was_written(void **state)
{
	char bytes[128] = {0};

	(void)state;
	make_record(bytes, SLICE("some payload"), 8192);
	assert_false(is_sound(bytes, NONCE, 8200));
	assert_false(is_sound(bytes, NONCE + 1, 8192));
	assert_true(is_sound(bytes, NONCE, 8192));
}

/* J17 */
static void each_flipped_bit_of_a_record_is_noticed(void **state)
{
	char bytes[128] = {0};
	const size_t len = RECORD_HEADER_BYTES + 12;

	(void)state;
	make_record(bytes, SLICE("some payload"), 8192);
	for (size_t bit = 0; bit < len * 8; bit++) {
		bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << bit % 8));
		assert_false(is_sound(bytes, NONCE, 8192));
		bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << bit % 8));
	}
	assert_true(is_sound(bytes, NONCE, 8192));
}

static void an_empty_payload_has_a_sum_too(void **state)
{
	char bytes[RECORD_HEADER_BYTES] = {0};
	struct record_header header = {.type = RECORD_DONE, .id = 5};

	(void)state;
	record_seal(bytes, &header, NONCE, 8192);
	assert_true(is_sound(bytes, NONCE, 8192));
	assert_true(get_u32(bytes + 4) != 0);
}

/* J15 */
static void zeros_are_no_record(void **state)
{
	char bytes[64] = {0};
	struct record_header header;

	(void)state;
	assert_false(record_open(bytes, 0, 0, &header));
	assert_false(record_open(bytes, NONCE, 8192, &header));
}

static void fields_of_all_lengths_come_back(void **state)
{
	static char value[70000];
	static const size_t lengths[] = {0, 1, 127, 128, 16383, 16384, 70000};
	struct buf buf;
	struct slice in, out;
	uint8_t tag;

	(void)state;
	buf_init(&buf, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++)
		assert_int_equal(tlv_put(&buf, (uint8_t)i, slice_of(value, lengths[i])), 0);
	in = buf_slice(&buf);
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		assert_int_equal(tlv_next(&in, &tag, &out), 1);
		assert_int_equal(tag, i);
		assert_int_equal(out.len, lengths[i]);
	}
	assert_int_equal(tlv_next(&in, &tag, &out), 0);
	buf_fini(&buf);
}

static void cut_fields_are_corrupt(void **state)
{
	static const char bad[][8] = {{1}, {1, 5, 'a', 'b', 'c'}, {1, '\x80'}, {1, -1, -1, -1, -1, -1, 1}};
	static const size_t lengths[] = {1, 5, 2, 7};
	uint8_t tag;
	struct slice out;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct slice in = slice_of(bad[i], lengths[i]);
		assert_int_equal(tlv_next(&in, &tag, &out), ERR_CORRUPT);
	}
}

static struct queue_envelope full_envelope(struct queue_recipient *recipients)
{
	recipients[0] = (struct queue_recipient){.address = SLICE("x@example.org"),
						 .original = SLICE("alias"),
						 .orcpt = SLICE("rfc822;alias"),
						 .notify = QUEUE_NOTIFY_FAILURE | QUEUE_NOTIFY_DELAY};
	recipients[1] = (struct queue_recipient){.address = SLICE("y@example.org")};
	return (struct queue_envelope){
	    .sender = SLICE("a@example.com"),
	    .sender_original = SLICE("a@internal"),
	    .envid = SLICE("env+40id"),
	    .user = SLICE("app"),
	    .listener = SLICE("*:587"),
	    .client = SLICE("[192.0.2.1]:4711"),
	    .tag = SLICE("invoice"),
	    .message_id = SLICE("<1@example.com>"),
	    .from_domain = SLICE("example.com"),
	    .auth = SLICE("<>"),
	    .relayhost = SLICE("ses"),
	    .prefix = SLICE("Received: x\r\n"),
	    .body = QUEUE_BODY_8BITMIME,
	    .ret = QUEUE_RET_HDRS,
	    .flags = QUEUE_SMTPUTF8 | QUEUE_SIGNED,
	    .class = MESSAGE_TRANSACTIONAL,
	    .arrived_wall = 1790000000123,
	    .expires_wall = 1790000600000,
	    .recipients = recipients,
	    .recipient_count = 2,
	};
}

/* Written before there was a field for it: the octets are those of then. */
static void a_record_without_a_relayhost_is_read_as_before(void **state)
{
	struct queue_recipient given[2], read[2];
	struct queue_envelope envelope = full_envelope(given), back;
	struct payload_content content = {.bytes = 5, .hash = 77, .is_inline = true, .body = SLICE("hello")};
	struct buf with, without;

	(void)state;
	buf_init(&with, 1 << 20);
	buf_init(&without, 1 << 20);
	assert_int_equal(payload_put_message(&with, &envelope, &content), 0);
	envelope.relayhost = SLICE("");
	assert_int_equal(payload_put_message(&without, &envelope, &content), 0);
	assert_int_equal(buf_len(&with), buf_len(&without) + 2 + 3);
	assert_int_equal(payload_get_envelope(buf_slice(&without), &back, read, 2), 0);
	assert_int_equal(back.relayhost.len, 0);
	assert_true(slice_eq(back.user, envelope.user) && slice_eq(back.auth, envelope.auth));
	buf_fini(&with);
	buf_fini(&without);
}

static void an_envelope_comes_back_whole(void **state)
{
	struct queue_recipient given[2], read[2];
	struct queue_envelope envelope = full_envelope(given), back;
	struct payload_content content = {.bytes = 5, .hash = 77, .is_inline = true, .body = SLICE("hello")};
	struct payload_core core;
	struct buf buf;

	(void)state;
	buf_init(&buf, 1 << 20);
	assert_int_equal(payload_put_message(&buf, &envelope, &content), 0);
	assert_int_equal(payload_get_core(buf_slice(&buf), &core), 0);
	assert_true(core.content.is_inline && slice_eq(core.content.body, SLICE("hello")));
	assert_int_equal(core.content.hash, 77);
	assert_int_equal(core.recipient_count, 2);
	assert_int_equal(core.class, MESSAGE_TRANSACTIONAL);
	assert_int_equal(payload_get_envelope(buf_slice(&buf), &back, read, 2), 0);
	assert_true(slice_eq(back.sender, envelope.sender));
	assert_true(slice_eq(back.sender_original, envelope.sender_original));
	assert_true(slice_eq(back.envid, envelope.envid));
	assert_true(slice_eq(back.user, envelope.user));
	assert_true(slice_eq(back.listener, envelope.listener));
	assert_true(slice_eq(back.client, envelope.client));
	assert_true(slice_eq(back.tag, envelope.tag));
	assert_true(slice_eq(back.message_id, envelope.message_id));
	assert_true(slice_eq(back.from_domain, envelope.from_domain));
	assert_true(slice_eq(back.auth, envelope.auth));
	assert_true(slice_eq(back.relayhost, envelope.relayhost));
	assert_true(slice_eq(back.prefix, envelope.prefix));
	assert_int_equal(back.body, envelope.body);
	assert_int_equal(back.ret, envelope.ret);
	assert_int_equal(back.flags, envelope.flags);
	assert_int_equal(back.class, envelope.class);
	assert_int_equal(back.arrived_wall, envelope.arrived_wall);
	assert_int_equal(back.expires_wall, envelope.expires_wall);
	assert_true(slice_eq(read[0].address, given[0].address));
	assert_true(slice_eq(read[0].original, given[0].original));
	assert_true(slice_eq(read[0].orcpt, given[0].orcpt));
	assert_int_equal(read[0].notify, given[0].notify);
	assert_true(slice_eq(read[1].address, given[1].address));
	assert_int_equal(read[1].original.len, 0);
	buf_fini(&buf);
}

static void an_envelope_has_its_limits(void **state)
{
	static char text[QUEUE_PREFIX_MAX + 1];
	struct queue_recipient given[2];
	struct queue_envelope envelope = full_envelope(given);
	struct payload_content content = {.is_inline = true};
	struct buf buf;

	(void)state;
	buf_init(&buf, 1 << 20);
	envelope.user = slice_of(text, QUEUE_STRING_MAX + 1);
	assert_int_equal(payload_put_message(&buf, &envelope, &content), ERR_LIMIT);
	envelope.user = slice_of(text, QUEUE_STRING_MAX);
	assert_int_equal(payload_put_message(&buf, &envelope, &content), 0);
	buf_clear(&buf);
	envelope.prefix = slice_of(text, QUEUE_PREFIX_MAX + 1);
	assert_int_equal(payload_put_message(&buf, &envelope, &content), ERR_LIMIT);
	envelope.prefix.len = 0;
	given[1].orcpt = slice_of(text, QUEUE_STRING_MAX + 1);
	assert_int_equal(payload_put_message(&buf, &envelope, &content), ERR_LIMIT);
	given[1].orcpt.len = 0;
	envelope.recipient_count = 0;
	assert_int_equal(payload_put_message(&buf, &envelope, &content), ERR_SYNTAX);
	assert_int_equal(buf_len(&buf), 0);
	buf_fini(&buf);
}

static int keep_state(void *ctx, uint32_t recipient, const struct payload_result *result)
{
	struct payload_result *results = ctx;

	results[recipient] = *result;
	return 0;
}

static void state_is_folded_and_unfolded(void **state)
{
	struct queue_recipient given[2];
	struct queue_envelope envelope = full_envelope(given);
	struct payload_content content = {.bytes = 5, .is_inline = true, .body = SLICE("hello")};
	struct payload_result result = {.kind = OUTCOME_DEFERRED,
					.class = CLASS_GREYLIST,
					.stage = STAGE_RCPT,
					.attempts = 4,
					.next_wall = 1790000300000,
					.code = 450,
					.hint_used = true,
					.enhanced = SLICE("4.2.0"),
					.host = SLICE("mx"),
					.text = SLICE("come back"),
					.at_wall = 1790000000123,
					.before = {7, 99}};
	struct payload_result read[2] = {{0}};
	struct payload_core core;
	struct buf first, moved, again;

	(void)state;
	buf_init(&first, 1 << 20);
	buf_init(&moved, 1 << 20);
	buf_init(&again, 1 << 20);
	assert_int_equal(payload_put_message(&first, &envelope, &content), 0);
	assert_int_equal(payload_copy_message(&moved, buf_slice(&first)), 0);
	assert_int_equal(payload_put_message_state(&moved, true, false, true), 0);
	assert_int_equal(payload_put_state(&moved, 1, &result), 0);
	assert_int_equal(payload_get_core(buf_slice(&moved), &core), 0);
	assert_true(core.held);
	assert_false(core.warned);
	assert_true(core.deleting);
	assert_int_equal(payload_get_states(buf_slice(&moved), keep_state, read), 0);
	assert_int_equal(read[0].kind, OUTCOME_NONE);
	assert_int_equal(read[1].kind, OUTCOME_DEFERRED);
	assert_int_equal(read[1].class, CLASS_GREYLIST);
	assert_int_equal(read[1].attempts, 4);
	assert_int_equal(read[1].next_wall, 1790000300000);
	assert_int_equal(read[1].code, 450);
	assert_true(read[1].hint_used);
	assert_true(slice_eq(read[1].text, SLICE("come back")));
	assert_int_equal(read[1].at_wall, 1790000000123);
	assert_int_equal(read[1].before.segment, 7);
	assert_int_equal(read[1].before.at8, 99);
	/* Moved once more without its state, it is the same as at first. */
	assert_int_equal(payload_copy_message(&again, buf_slice(&moved)), 0);
	assert_true(slice_eq(buf_slice(&again), buf_slice(&first)));
	buf_fini(&first);
	buf_fini(&moved);
	buf_fini(&again);
}

/* As they were written before it was known when, and what stood before: the bytes are the same without. */
static void results_of_old_are_read(void **state)
{
	struct payload_result result = {.kind = OUTCOME_DEFERRED, .attempts = 1, .text = SLICE("later")}, read;
	struct buf old, now;

	(void)state;
	buf_init(&old, 1024);
	buf_init(&now, 1024);
	assert_int_equal(payload_put_result(&old, &result), 0);
	result.at_wall = 1790000000000;
	result.before = (struct record_place){1, 2};
	assert_int_equal(payload_put_result(&now, &result), 0);
	assert_true(slice_has_prefix(buf_slice(&now), buf_slice(&old)));
	assert_int_equal(payload_get_result(buf_slice(&old), &read), 0);
	assert_int_equal(read.at_wall, 0);
	assert_int_equal(read.before.segment, 0);
	assert_true(slice_eq(read.text, SLICE("later")));
	buf_fini(&old);
	buf_fini(&now);
}

/* I13 */
static void what_must_be_known_and_is_not_refuses(void **state)
{
	struct queue_recipient given[2];
	struct queue_envelope envelope = full_envelope(given);
	struct payload_content content = {.is_inline = true};
	struct payload_core core;
	struct buf buf;
	size_t whole;

	(void)state;
	buf_init(&buf, 1 << 20);
	assert_int_equal(payload_put_message(&buf, &envelope, &content), 0);
	whole = buf_len(&buf);
	assert_int_equal(tlv_put(&buf, 0x7e, SLICE("an extension that may be skipped")), 0);
	assert_int_equal(payload_get_core(buf_slice(&buf), &core), 0);
	buf_truncate(&buf, whole);
	assert_int_equal(tlv_put(&buf, 0x7e | TLV_MUST_KNOW, SLICE("one that must not")), 0);
	assert_int_equal(payload_get_core(buf_slice(&buf), &core), ERR_VERSION);
	buf_fini(&buf);
}

static void either_copy_of_a_segment_header_is_enough(void **state)
{
	struct segment_header header = {.number = 9,
					.nonce = NONCE,
					.previous = 7,
					.cut = 12288,
					.first = 3,
					.id_floor = 55,
					.spool = 66,
					.created_wall = 77,
					.size = 65536,
					.previous_nonce = 88,
					.previous_previous = 5,
					.previous_cut = 16384};
	struct segment_header read;
	static char blocks[SEGMENT_DATA_START];

	(void)state;
	for (int lost = 0; lost < 3; lost++) {
		segment_header_put(blocks, &header);
		if (lost & 1)
			blocks[20] = 'x';
		if (lost & 2)
			blocks[RECORD_BLOCK + 20] = 'x';
		memset(&read, 0, sizeof(read));
		assert_int_equal(segment_header_get(blocks, sizeof(blocks), &read), 1);
		assert_int_equal(read.number, 9);
		assert_int_equal(read.nonce, NONCE);
		assert_int_equal(read.previous, 7);
		assert_int_equal(read.cut, 12288);
		assert_int_equal(read.first, 3);
		assert_int_equal(read.id_floor, 55);
		assert_int_equal(read.spool, 66);
		assert_int_equal(read.created_wall, 77);
		assert_int_equal(read.size, 65536);
		assert_int_equal(read.previous_nonce, 88);
		assert_int_equal(read.previous_previous, 5);
		assert_int_equal(read.previous_cut, 16384);
	}
	blocks[20] = 'x';
	blocks[RECORD_BLOCK + 20] = 'x';
	assert_int_equal(segment_header_get(blocks, sizeof(blocks), &read), 0);
	assert_int_equal(segment_header_get(blocks, 100, &read), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_record_is_read_as_it_was_written),
	    cmocka_unit_test(a_record_passes_only_where_it_was_written),
	    cmocka_unit_test(each_flipped_bit_of_a_record_is_noticed),
	    cmocka_unit_test(an_empty_payload_has_a_sum_too),
	    cmocka_unit_test(zeros_are_no_record),
	    cmocka_unit_test(fields_of_all_lengths_come_back),
	    cmocka_unit_test(cut_fields_are_corrupt),
	    cmocka_unit_test(a_record_without_a_relayhost_is_read_as_before),
	    cmocka_unit_test(an_envelope_comes_back_whole),
	    cmocka_unit_test(an_envelope_has_its_limits),
	    cmocka_unit_test(state_is_folded_and_unfolded),
	    cmocka_unit_test(results_of_old_are_read),
	    cmocka_unit_test(what_must_be_known_and_is_not_refuses),
	    cmocka_unit_test(either_copy_of_a_segment_header_is_enough),
	};
	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
