#include "queue/payload.h"

#include "base/base.h"
#include "queue/record.h"

/* Tags of MESSAGE and MOVE. */
enum message_tag {
	TAG_CORE = 0x01 | TLV_MUST_KNOW,
	TAG_SENDER = 0x02,
	TAG_SENDER_ORIGINAL = 0x03,
	TAG_ENVID = 0x04,
	TAG_USER = 0x05,
	TAG_LISTENER = 0x06,
	TAG_CLIENT = 0x07,
	TAG_TAG = 0x08,
	TAG_MESSAGE_ID = 0x09,
	TAG_FROM_DOMAIN = 0x0a,
	TAG_AUTH = 0x0b,
	TAG_PREFIX = 0x0c | TLV_MUST_KNOW,
	TAG_RECIPIENT = 0x0d | TLV_MUST_KNOW,
	TAG_BODY = 0x0e | TLV_MUST_KNOW,
	TAG_STATE = 0x0f | TLV_MUST_KNOW,
	TAG_MESSAGE_STATE = 0x10 | TLV_MUST_KNOW,
	TAG_RELAYHOST = 0x11,
};

/* Inside TAG_RECIPIENT. */
enum recipient_tag { TAG_ADDRESS = 0x01 | TLV_MUST_KNOW, TAG_ORIGINAL = 0x02, TAG_ORCPT = 0x03, TAG_NOTIFY = 0x04 };

/* Of RESULT, and of TAG_STATE behind its two octets of recipient index. */
enum result_tag {
	TAG_RESULT_CORE = 0x01 | TLV_MUST_KNOW,
	TAG_ENHANCED = 0x02,
	TAG_HOST = 0x03,
	TAG_TEXT = 0x04,
	TAG_RESULT_AT = 0x05,
	TAG_BEFORE = 0x06,
};

#define CORE_BYTES 48
#define RESULT_CORE_BYTES 20
#define RECIPIENTS_MAX 65000
#define WALL_MAX_MS ((int64_t)1 << 52)

enum state_bit { STATE_BIT_HELD = 1, STATE_BIT_WARNED = 2, STATE_BIT_DELETING = 4 };
enum result_bit { RESULT_BIT_HINT_USED = 1 };

struct text_field {
	uint8_t tag;
	size_t at; /* of the slice in struct queue_envelope */
};

static const struct text_field text_fields[] = {
    {TAG_SENDER, offsetof(struct queue_envelope, sender)},
    {TAG_SENDER_ORIGINAL, offsetof(struct queue_envelope, sender_original)},
    {TAG_ENVID, offsetof(struct queue_envelope, envid)},
    {TAG_USER, offsetof(struct queue_envelope, user)},
    {TAG_LISTENER, offsetof(struct queue_envelope, listener)},
    {TAG_CLIENT, offsetof(struct queue_envelope, client)},
    {TAG_TAG, offsetof(struct queue_envelope, tag)},
    {TAG_MESSAGE_ID, offsetof(struct queue_envelope, message_id)},
    {TAG_FROM_DOMAIN, offsetof(struct queue_envelope, from_domain)},
    {TAG_AUTH, offsetof(struct queue_envelope, auth)},
    {TAG_RELAYHOST, offsetof(struct queue_envelope, relayhost)},
};

static struct slice *text_of(struct queue_envelope *envelope, const struct text_field *field)
{
	return (struct slice *)(void *)((char *)envelope + field->at);
}

static int put_core(struct buf *out, const struct queue_envelope *envelope, const struct payload_content *content)
{
	char core[CORE_BYTES] = {0};

	put_u64(core, (uint64_t)envelope->arrived_wall);
	put_u64(core + 8, (uint64_t)envelope->expires_wall);
	put_u64(core + 16, content->bytes);
	put_u64(core + 24, content->hash);
	put_u32(core + 32, content->pieces);
	put_u32(core + 36, (uint32_t)envelope->recipient_count);
	put_u32(core + 40, envelope->flags);
	core[44] = (char)envelope->class;
	core[45] = (char)envelope->body;
	core[46] = (char)envelope->ret;
	return tlv_put(out, TAG_CORE, slice_of(core, sizeof(core)));
}

static int put_recipient(struct buf *out, const struct queue_recipient *recipient)
{
	char room[4 * QUEUE_STRING_MAX];
	struct buf nested = {.data = room, .cap = sizeof(room), .max = sizeof(room)};
	char notify = (char)recipient->notify;

	if (recipient->address.len > QUEUE_STRING_MAX || recipient->original.len > QUEUE_STRING_MAX ||
	    recipient->orcpt.len > QUEUE_STRING_MAX)
		return ERR_LIMIT;
	tlv_put(&nested, TAG_ADDRESS, recipient->address);
	tlv_put_text(&nested, TAG_ORIGINAL, recipient->original);
	tlv_put_text(&nested, TAG_ORCPT, recipient->orcpt);
	if (recipient->notify)
		tlv_put(&nested, TAG_NOTIFY, slice_of(&notify, 1));
	return tlv_put(out, TAG_RECIPIENT, buf_slice(&nested));
}

static int put_message(struct buf *out, const struct queue_envelope *envelope, const struct payload_content *content)
{
	int rc = put_core(out, envelope, content);

	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(text_fields); i++) {
		struct slice text = *text_of((struct queue_envelope *)envelope, &text_fields[i]);
		rc = text.len > QUEUE_STRING_MAX ? ERR_LIMIT : tlv_put_text(out, text_fields[i].tag, text);
	}
	if (rc == 0)
		rc = envelope->prefix.len > QUEUE_PREFIX_MAX ? ERR_LIMIT
							     : tlv_put_text(out, TAG_PREFIX, envelope->prefix);
	for (size_t i = 0; rc == 0 && i < envelope->recipient_count; i++)
		rc = put_recipient(out, &envelope->recipients[i]);
	if (rc == 0 && content->is_inline)
		rc = tlv_put(out, TAG_BODY, content->body);
	return rc;
}

int payload_put_message(struct buf *out, const struct queue_envelope *envelope, const struct payload_content *content)
{
	size_t before = buf_len(out);
	int rc;

	if (envelope->recipient_count == 0)
		return ERR_SYNTAX;
	if (envelope->recipient_count > RECIPIENTS_MAX)
		return ERR_LIMIT;
	rc = put_message(out, envelope, content);
	if (rc < 0)
		buf_truncate(out, before);
	return rc;
}

/* When, and where the one before it stands; left out where they are not known. */
static int put_history(struct buf *out, const struct payload_result *result)
{
	char at[8], before[8];
	int rc = 0;

	put_u64(at, (uint64_t)result->at_wall);
	put_u32(before, result->before.segment);
	put_u32(before + 4, result->before.at8);
	if (result->at_wall != 0)
		rc = tlv_put(out, TAG_RESULT_AT, slice_of(at, sizeof(at)));
	if (rc == 0 && result->before.segment != 0)
		rc = tlv_put(out, TAG_BEFORE, slice_of(before, sizeof(before)));
	return rc;
}

int payload_put_result(struct buf *out, const struct payload_result *result)
{
	char core[RESULT_CORE_BYTES] = {0};
	size_t before = buf_len(out);
	int rc;

	put_u64(core, (uint64_t)result->next_wall);
	put_u32(core + 8, result->attempts);
	put_u16(core + 12, (uint16_t)result->code);
	core[14] = (char)result->kind;
	core[15] = (char)result->class;
	core[16] = (char)result->stage;
	core[17] = result->hint_used ? RESULT_BIT_HINT_USED : 0;
	rc = tlv_put(out, TAG_RESULT_CORE, slice_of(core, sizeof(core)));
	if (rc == 0)
		rc = tlv_put_text(out, TAG_ENHANCED, result->enhanced);
	if (rc == 0)
		rc = tlv_put_text(out, TAG_HOST, result->host);
	if (rc == 0)
		rc = tlv_put_text(out, TAG_TEXT, result->text);
	if (rc == 0)
		rc = put_history(out, result);
	if (rc < 0)
		buf_truncate(out, before);
	return rc;
}

int payload_put_mark(struct buf *out, const struct payload_mark *mark)
{
	char bytes[PAYLOAD_MARK_BYTES];

	put_u64(bytes, mark->batch_start);
	put_u64(bytes + 8, mark->first);
	put_u64(bytes + 16, mark->id_floor);
	return buf_append(out, slice_of(bytes, sizeof(bytes)));
}

int payload_copy_message(struct buf *out, struct slice payload)
{
	size_t before = buf_len(out);
	struct slice value;
	uint8_t tag;
	int rc;

	while ((rc = tlv_next(&payload, &tag, &value)) == 1) {
		if (tag != TAG_STATE && tag != TAG_MESSAGE_STATE)
			rc = tlv_put(out, tag, value);
		if (rc < 0)
			break;
	}
	if (rc < 0)
		buf_truncate(out, before);
	return rc;
}

int payload_put_state(struct buf *out, uint32_t recipient, const struct payload_result *result)
{
	char room[2 + 1024 + sizeof(struct outcome)];
	struct buf nested = {.data = room, .cap = sizeof(room), .max = sizeof(room)};
	int rc;

	put_u16(room, (uint16_t)recipient);
	buf_commit(&nested, 2);
	rc = payload_put_result(&nested, result);
	return rc < 0 ? rc : tlv_put(out, TAG_STATE, buf_slice(&nested));
}

int payload_put_message_state(struct buf *out, bool held, bool warned, bool deleting)
{
	char bits =
	    (char)((held ? STATE_BIT_HELD : 0) | (warned ? STATE_BIT_WARNED : 0) | (deleting ? STATE_BIT_DELETING : 0));

	return bits ? tlv_put(out, TAG_MESSAGE_STATE, slice_of(&bits, 1)) : 0;
}

struct payload_result payload_result_of(const struct queue_result *result)
{
	const struct outcome *outcome = result->outcome;

	return (struct payload_result){
	    .kind = outcome->kind,
	    .class = outcome->class,
	    .stage = outcome->stage,
	    .attempts = result->attempts,
	    .next_wall = result->next_attempt_wall,
	    .code = (uint32_t)outcome->code,
	    .hint_used = result->hint_used,
	    .enhanced = slice_of(outcome->enhanced, strnlen(outcome->enhanced, sizeof(outcome->enhanced))),
	    .host = slice_of(outcome->host, strnlen(outcome->host, sizeof(outcome->host))),
	    .text = slice_of(outcome->text, strnlen(outcome->text, sizeof(outcome->text))),
	};
}

void payload_outcome_of(const struct payload_result *result, struct outcome *out)
{
	*out = (struct outcome){
	    .kind = result->kind, .class = result->class, .stage = result->stage, .code = (int)result->code};
	slice_to_cstr(result->enhanced, out->enhanced, sizeof(out->enhanced));
	slice_to_cstr(result->host, out->host, sizeof(out->host));
	slice_to_cstr(result->text, out->text, sizeof(out->text));
}

/* ---- Decoding ---- */

static int unknown(uint8_t tag)
{
	return tag & TLV_MUST_KNOW ? ERR_VERSION : 0;
}

/* A value that this version does not know reads as the neutral one: it was written by a newer version of the same
 * format, which sets the must-know bit where that would be wrong. */
static uint32_t known(uint32_t value, uint32_t count, uint32_t neutral)
{
	return value < count ? value : neutral;
}

/* A point in time that can be reckoned with, whatever stands there. */
static int64_t get_wall(const char *at)
{
	int64_t wall = (int64_t)get_u64(at);

	return wall < 0 ? 0 : MIN(wall, WALL_MAX_MS);
}

static int get_core(struct slice value, struct payload_core *core)
{
	const char *at = value.ptr;

	if (value.len < CORE_BYTES)
		return ERR_CORRUPT;
	core->arrived_wall = get_wall(at);
	core->expires_wall = get_wall(at + 8);
	core->content.bytes = get_u64(at + 16);
	core->content.hash = get_u64(at + 24);
	core->content.pieces = get_u32(at + 32);
	core->recipient_count = get_u32(at + 36);
	core->flags = get_u32(at + 40);
	core->class = known((uint8_t)at[44], MESSAGE_CLASS_COUNT, MESSAGE_DEFAULT);
	core->body = known((uint8_t)at[45], QUEUE_BODY_8BITMIME + 1, QUEUE_BODY_8BITMIME);
	core->ret = known((uint8_t)at[46], QUEUE_RET_HDRS + 1, QUEUE_RET_NONE);
	if (core->recipient_count == 0 || core->recipient_count > RECIPIENTS_MAX || core->content.pieces > UINT16_MAX)
		return ERR_CORRUPT;
	return 0;
}

static int core_field(struct payload_core *core, uint8_t tag, struct slice value, uint32_t *recipients, bool *has_core)
{
	switch (tag) {
	case TAG_CORE: *has_core = true; return get_core(value, core);
	case TAG_BODY:
		core->content.is_inline = true;
		core->content.body = value;
		return 0;
	case TAG_MESSAGE_STATE:
		core->held = value.len > 0 && (value.ptr[0] & STATE_BIT_HELD);
		core->warned = value.len > 0 && (value.ptr[0] & STATE_BIT_WARNED);
		core->deleting = value.len > 0 && (value.ptr[0] & STATE_BIT_DELETING);
		return 0;
	case TAG_RECIPIENT: (*recipients)++; return 0;
	case TAG_PREFIX:
	case TAG_STATE: return 0;
	default: return unknown(tag);
	}
}

int payload_get_core(struct slice payload, struct payload_core *core)
{
	struct payload_core found = {0};
	uint32_t recipients = 0;
	bool has_core = false;
	struct slice value;
	uint8_t tag;
	int rc;

	while ((rc = tlv_next(&payload, &tag, &value)) == 1) {
		rc = core_field(&found, tag, value, &recipients, &has_core);
		if (rc < 0)
			return rc;
	}
	if (rc < 0)
		return rc;
	if (!has_core || recipients != found.recipient_count ||
	    (found.content.is_inline && (found.content.pieces > 0 || found.content.body.len != found.content.bytes)) ||
	    (!found.content.is_inline && found.content.pieces == 0))
		return ERR_CORRUPT;
	*core = found;
	return 0;
}

int payload_get_states(struct slice payload, payload_state_cb *cb, void *ctx)
{
	struct payload_result result;
	struct slice value;
	uint8_t tag;
	int rc;

	while ((rc = tlv_next(&payload, &tag, &value)) == 1) {
		if (tag != TAG_STATE)
			continue;
		if (value.len < 2)
			return ERR_CORRUPT;
		rc = payload_get_result(slice_from(value, 2), &result);
		if (rc == 0)
			rc = cb(ctx, get_u16(value.ptr), &result);
		if (rc != 0)
			return rc;
	}
	return rc;
}

static int get_recipient(struct slice in, struct queue_recipient *recipient)
{
	struct slice value;
	uint8_t tag;
	int rc;

	*recipient = (struct queue_recipient){0};
	while ((rc = tlv_next(&in, &tag, &value)) == 1) {
		switch (tag) {
		case TAG_ADDRESS: recipient->address = value; break;
		case TAG_ORIGINAL: recipient->original = value; break;
		case TAG_ORCPT: recipient->orcpt = value; break;
		case TAG_NOTIFY: recipient->notify = value.len > 0 ? (uint8_t)value.ptr[0] : 0; break;
		default: rc = unknown(tag);
		}
		if (rc < 0)
			break;
	}
	return rc;
}

static void envelope_text(struct queue_envelope *envelope, uint8_t tag, struct slice value)
{
	for (size_t i = 0; i < ARRAY_LEN(text_fields); i++)
		if (text_fields[i].tag == tag)
			*text_of(envelope, &text_fields[i]) = value;
}

int payload_get_envelope(struct slice payload, struct queue_envelope *envelope, struct queue_recipient *recipients,
			 size_t room)
{
	struct payload_core core;
	struct slice value, rest = payload;
	size_t count = 0;
	uint8_t tag;
	int rc = payload_get_core(payload, &core);

	if (rc < 0)
		return rc;
	if (core.recipient_count > room)
		return ERR_CORRUPT;
	*envelope = (struct queue_envelope){
	    .body = core.body,
	    .ret = core.ret,
	    .flags = core.flags,
	    .class = core.class,
	    .arrived_wall = core.arrived_wall,
	    .expires_wall = core.expires_wall,
	    .recipients = recipients,
	    .recipient_count = core.recipient_count,
	};
	while ((rc = tlv_next(&rest, &tag, &value)) == 1) {
		if (tag == TAG_RECIPIENT)
			rc = get_recipient(value, &recipients[count++]);
		else if (tag == TAG_PREFIX)
			envelope->prefix = value;
		else
			envelope_text(envelope, tag, value);
		if (rc < 0)
			break;
	}
	return rc;
}

static int get_result_core(struct slice value, struct payload_result *result)
{
	const char *at = value.ptr;

	if (value.len < RESULT_CORE_BYTES)
		return ERR_CORRUPT;
	result->next_wall = get_wall(at);
	result->attempts = get_u32(at + 8);
	result->code = get_u16(at + 12);
	result->kind = known((uint8_t)at[14], OUTCOME_DELETED + 1, OUTCOME_DEFERRED);
	result->class = known((uint8_t)at[15], CLASS_COUNT, CLASS_OTHER);
	result->stage = known((uint8_t)at[16], STAGE_COUNT, STAGE_NONE);
	result->hint_used = at[17] & RESULT_BIT_HINT_USED;
	return 0;
}

static int get_result_at(struct slice value, struct payload_result *result)
{
	if (value.len < 8)
		return ERR_CORRUPT;
	result->at_wall = get_wall(value.ptr);
	return 0;
}

static int get_before(struct slice value, struct payload_result *result)
{
	if (value.len < 8)
		return ERR_CORRUPT;
	result->before = (struct record_place){get_u32(value.ptr), get_u32(value.ptr + 4)};
	return 0;
}

int payload_get_result(struct slice payload, struct payload_result *result)
{
	struct payload_result found = {0};
	bool has_core = false;
	struct slice value;
	uint8_t tag;
	int rc;

	while ((rc = tlv_next(&payload, &tag, &value)) == 1) {
		switch (tag) {
		case TAG_RESULT_CORE:
			has_core = true;
			rc = get_result_core(value, &found);
			break;
		case TAG_ENHANCED: found.enhanced = value; break;
		case TAG_HOST: found.host = value; break;
		case TAG_TEXT: found.text = value; break;
		case TAG_RESULT_AT: rc = get_result_at(value, &found); break;
		case TAG_BEFORE: rc = get_before(value, &found); break;
		default: rc = unknown(tag);
		}
		if (rc < 0)
			return rc;
	}
	if (rc < 0)
		return rc;
	*result = found;
	return has_core ? 0 : ERR_CORRUPT;
}

int payload_get_mark(struct slice payload, struct payload_mark *mark)
{
	if (payload.len < PAYLOAD_MARK_BYTES)
		return ERR_CORRUPT;
	*mark = (struct payload_mark){get_u64(payload.ptr), get_u64(payload.ptr + 8), get_u64(payload.ptr + 16)};
	return 0;
}
