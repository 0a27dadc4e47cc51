#include "support_spool.h"

#include "base/base.h"
#include "queue/internal.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static void on_corruption(void *ctx, uint64_t id, const char *text)
{
	struct spool *spool = ctx;

	(void)id;
	spool->corruptions++;
	snprintf(spool->last_corruption, sizeof(spool->last_corruption), "%s", text);
}

static void on_note(void *ctx, const char *text)
{
	struct spool *spool = ctx;

	(void)text;
	spool->notes++;
}

static void on_state(void *ctx, enum queue_journal_state state, const char *reason)
{
	struct spool *spool = ctx;

	(void)state;
	(void)reason;
	spool->states++;
}

void spool_init(struct spool *spool)
{
	const char *base = getenv("TMPDIR");

	*spool = (struct spool){0};
	snprintf(spool->folder, sizeof(spool->folder), "%.40s/relayd-spool-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(spool->folder));
	spool->fd = open(spool->folder, O_RDONLY | O_DIRECTORY);
	assert_true(spool->fd >= 0);
	spool->disk = disk_real_new(spool->fd, NULL, NULL);
	assert_non_null(spool->disk);
	clock_virtual_init(&spool->clock, SPOOL_WALL_MS);
	rng_seeded_init(&spool->rng, 1);
	spool->options = (struct queue_options){
	    .disk = spool->disk,
	    .clock = &spool->clock.clock,
	    .rng = &spool->rng.rng,
	    .segment_bytes = 128 * 1024,
	    .piece_bytes = 8 * 1024,
	    .notify = {spool, .on_corruption = on_corruption, .on_note = on_note, .on_state = on_state},
	};
}

void spool_open(struct spool *spool)
{
	struct err err = {0};

	spool->queue = queue_open(&spool->options, &spool->report, &err);
	if (!spool->queue)
		print_error("queue_open: %s\n", err.text);
	assert_non_null(spool->queue);
}

void spool_close(struct spool *spool)
{
	queue_close(&spool->queue);
}

/* Reaches past the door: a killed process neither writes nor marks. */
void spool_kill(struct spool *spool)
{
	struct queue *queue = spool->queue;

	journal_free(&queue->journal);
	queue_close(&spool->queue);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void spool_fini(struct spool *spool)
{
	queue_close(&spool->queue);
	disk_real_free(&spool->disk);
	close(spool->fd);
	nftw(spool->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void spool_settle(struct spool *spool)
{
	for (int turns = 0; turns < 1000; turns++) {
		int64_t deadline;
		queue_turn(spool->queue);
		deadline = queue_next_deadline_ms(spool->queue);
		if (deadline == INT64_MAX)
			return;
		if (deadline > clock_mono_ms(&spool->clock.clock))
			clock_virtual_advance(&spool->clock, deadline - clock_mono_ms(&spool->clock.clock));
	}
	fail_msg("the queue does not come to rest");
}

struct queue_envelope spool_envelope(struct spool *spool, struct queue_recipient *recipients, size_t count)
{
	static char addresses[1000][48];

	for (size_t i = 0; i < count; i++) {
		snprintf(addresses[i], sizeof(addresses[i]), "r%zu@example.org", i);
		recipients[i] = (struct queue_recipient){.address = slice_of_str(addresses[i])};
	}
	return (struct queue_envelope){
	    .sender = SLICE("sender@example.com"),
	    .user = SLICE("app"),
	    .listener = SLICE("127.0.0.1:587"),
	    .client = SLICE("[127.0.0.1]:4711 helo=app"),
	    .prefix = SLICE("Received: from app\r\n"),
	    .body = QUEUE_BODY_8BITMIME,
	    .arrived_wall = clock_wall_ms(&spool->clock.clock),
	    .expires_wall = clock_wall_ms(&spool->clock.clock) + 5 * 86400 * 1000ll,
	    .recipients = recipients,
	    .recipient_count = count,
	};
}

static void on_commit(void *ctx, uint64_t id, enum err_code result)
{
	int *answer = ctx;

	(void)id;
	*answer = result;
}

uint64_t spool_submit(struct spool *spool, size_t recipients, struct slice content)
{
	struct queue_recipient list[1000];
	struct queue_envelope envelope = spool_envelope(spool, list, recipients);
	struct queue_upload *upload = queue_upload_begin(spool->queue, NULL);
	int answer = 1;
	uint64_t id;

	assert_non_null(upload);
	id = queue_upload_id(upload);
	assert_int_equal(queue_upload_append(upload, content), 0);
	assert_int_equal(queue_upload_commit(&upload, &envelope, on_commit, &answer), 0);
	for (int turns = 0; turns < 100 && answer == 1; turns++)
		queue_turn(spool->queue);
	assert_int_equal(answer, 0);
	return id;
}

size_t spool_take_all(struct spool *spool)
{
	int64_t now = clock_wall_ms(&spool->clock.clock);
	uint32_t indexes[1000];
	size_t count = 0;
	uint64_t id;

	while (queue_pop_due(spool->queue, now, &id))
		count += queue_take_due(spool->queue, id, now, indexes, ARRAY_LEN(indexes));
	return count;
}

void spool_result(struct spool *spool, uint64_t id, uint32_t index, enum outcome_kind kind, int64_t next_wall)
{
	struct outcome outcome = {.kind = kind, .class = CLASS_MAILBOX, .stage = STAGE_RCPT, .code = 450};
	struct queue_result result = {.outcome = &outcome, .attempts = 1, .next_attempt_wall = next_wall};

	snprintf(outcome.enhanced, sizeof(outcome.enhanced), "4.2.0");
	snprintf(outcome.host, sizeof(outcome.host), "mx.example.org[192.0.2.1]");
	snprintf(outcome.text, sizeof(outcome.text), "not now, recipient %u", index);
	assert_int_equal(queue_record_result(spool->queue, id, index, &result), 0);
}

char *spool_content(struct spool *spool, uint64_t id, size_t *len)
{
	struct queue_content *content = queue_content_open(spool->queue, id, NULL);
	char *bytes = xmalloc(1 << 20);
	ssize_t n;

	assert_non_null(content);
	*len = 0;
	while ((n = queue_content_read(content, bytes + *len, 1000)) > 0)
		*len += (size_t)n;
	assert_int_equal(n, 0);
	queue_content_close(&content);
	return bytes;
}

void spool_assert_content(struct spool *spool, uint64_t id, struct slice expected)
{
	size_t len;
	char *bytes = spool_content(spool, id, &len);

	assert_int_equal(len, expected.len);
	assert_memory_equal(bytes, expected.ptr, len);
	free(bytes);
}
