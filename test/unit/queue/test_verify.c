/* The offline check and the dump: sound spools are called sound, damage is named, and nothing is changed. */
#include "support_spool.h"

#include "base/base.h"
#include "base/msgid.h"
#include "queue/internal.h"
#include "queue/verify.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

struct lines {
	char text[100000];
	size_t len;
	unsigned bad;
};

static struct lines lines;
static char big[60000];

static void on_line(void *ctx, bool bad, const char *line)
{
	(void)ctx;
	lines.bad += bad;
	lines.len += (size_t)snprintf(lines.text + lines.len, sizeof(lines.text) - lines.len, "%s\n", line);
	assert_true(lines.len < sizeof(lines.text));
}

static int verify(struct spool *spool, struct verify_summary *summary)
{
	lines = (struct lines){0};
	return verify_spool(spool->folder, on_line, NULL, summary, NULL);
}

/* Names, sizes and bytes of the journal as one number. */
static uint64_t hash_of_journal(struct spool *spool)
{
	uint64_t hash = 0;
	struct dirent *entry;
	char path[200], bytes[4096];
	DIR *dir;

	snprintf(path, sizeof(path), "%s/journal", spool->folder);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		int fd = openat(dirfd(dir), entry->d_name, O_RDONLY);
		ssize_t n;
		hash += XXH3_64bits(entry->d_name, strlen(entry->d_name));
		for (uint64_t at = 0; entry->d_name[0] != '.' && (n = read(fd, bytes, sizeof(bytes))) > 0; at++)
			hash += XXH3_64bits_withSeed(bytes, (size_t)n, at);
		close(fd);
	}
	closedir(dir);
	return hash;
}

static int setup(void **state)
{
	struct spool *spool = xcalloc(1, sizeof(*spool));

	spool_init(spool);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 13 + i / 255);
	*state = spool;
	return 0;
}

static int teardown(void **state)
{
	spool_fini(*state);
	free(*state);
	return 0;
}

static void a_sound_spool_is_sound_running_or_not(void **state)
{
	struct spool *spool = *state;
	struct verify_summary summary;
	uint64_t before;

	spool_open(spool);
	spool_submit(spool, 2, SLICE("small\r\n"));
	spool_submit(spool, 1, slice_of(big, sizeof(big)));
	assert_int_equal(verify(spool, &summary), 0);
	spool_settle(spool);
	assert_int_equal(verify(spool, &summary), 0);
	spool_close(spool);
	before = hash_of_journal(spool);
	assert_int_equal(verify(spool, &summary), 0);
	assert_int_equal(summary.messages, 2);
	assert_int_equal(summary.recipients, 3);
	assert_int_equal(summary.content_bytes, 7 + sizeof(big));
	assert_int_equal(lines.bad, 0);
	assert_int_equal(hash_of_journal(spool), before);
}

static void damage_of_a_body_is_found_and_named(void **state)
{
	struct spool *spool = *state;
	struct verify_summary summary;
	struct index_place piece;
	char id_text[MSGID_CHARS + 1], byte;
	uint64_t id;
	int fd;

	spool_open(spool);
	id = spool_submit(spool, 1, slice_of(big, sizeof(big)));
	for (int i = 0; i < 4; i++)
		spool_submit(spool, 1, slice_of(big, 40000));
	spool_settle(spool);
	piece = index_find(spool->queue->index, id)->u.extra->pieces[2];
	fd = openat(disk_real_journal_fd(spool->disk), segments_find(&spool->queue->segments, piece.at.segment)->name,
		    O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)piece.at.at8 * 8 + 100), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)piece.at.at8 * 8 + 100), 1);
	close(fd);
	assert_int_equal(verify(spool, &summary), ERR_CORRUPT);
	assert_int_equal(summary.corrupt_ranges, 1);
	assert_int_equal(summary.messages_broken, 1);
	msgid_format(id, id_text);
	assert_non_null(strstr(lines.text, id_text));
}

static void a_dump_tells_all(void **state)
{
	struct spool *spool = *state;
	char id_text[MSGID_CHARS + 1];
	uint64_t id;

	spool_open(spool);
	id = spool_submit(spool, 2, SLICE("small\r\n"));
	spool_result(spool, id, 1, OUTCOME_DEFERRED, SPOOL_WALL_MS + 60000);
	queue_hold(spool->queue, id);
	queue_delete(spool->queue, spool_submit(spool, 1, slice_of(big, 20000)));
	spool_settle(spool);
	lines = (struct lines){0};
	assert_int_equal(verify_dump(spool->folder, on_line, NULL, NULL), 0);
	assert_int_equal(lines.bad, 0);
	msgid_format(id, id_text);
	assert_non_null(strstr(lines.text, id_text));
	assert_non_null(strstr(lines.text, "MESSAGE"));
	assert_non_null(strstr(lines.text, "to=\"r1@example.org\""));
	assert_non_null(strstr(lines.text, "RESULT"));
	assert_non_null(strstr(lines.text, "not now, recipient 1"));
	assert_non_null(strstr(lines.text, " at=2026-09-21T")); /* when that was */
	assert_non_null(strstr(lines.text, "HOLD"));
	assert_non_null(strstr(lines.text, "DATA"));
	assert_non_null(strstr(lines.text, "DONE"));
	assert_non_null(strstr(lines.text, "MARK"));
	if (getenv("SHOW"))
		print_message("%s", lines.text);
}

/* Whatever clients and servers said: no octet of it steers a terminal, or makes a line that is no UTF-8. */
static void a_dump_is_clean_text(void **state)
{
	struct spool *spool = *state;
	struct queue_recipient recipients[1];
	struct queue_envelope envelope;
	struct queue_upload *upload;

	spool_open(spool);
	envelope = spool_envelope(spool, recipients, 1);
	envelope.client =
	    SLICE("esc \x1b[31m, csi \xc2\x9b\x33\x31m \x9b\x33m, bidi \xe2\x80\xae, latin \xe9t\xe9, cut \xe2\x82");
	envelope.sender = SLICE("m\xc3\xbcller@example.com");
	envelope.tag = SLICE("invoice");
	upload = queue_upload_begin(spool->queue, NULL);
	assert_int_equal(queue_upload_append(upload, SLICE("x")), 0);
	assert_int_equal(queue_upload_commit(&upload, &envelope, NULL, NULL), 0);
	spool_settle(spool);
	lines = (struct lines){0};
	assert_int_equal(verify_dump(spool->folder, on_line, NULL, NULL), 0);
	assert_non_null(strstr(lines.text, "from=\"m\xc3\xbcller@example.com\""));
	assert_non_null(strstr(
	    lines.text,
	    "esc \\x1b[31m, csi \\xc2\\x9b31m \\x9b3m, bidi \\xe2\\x80\\xae, latin \\xe9t\\xe9, cut \\xe2\\x82"));
	assert_non_null(strstr(lines.text, "tag=\"invoice\""));
}

static void what_is_no_spool_is_refused(void **state)
{
	struct verify_summary summary;
	struct err err = {0};

	(void)state;
	assert_int_equal(verify_spool("/nonexistent/spool", on_line, NULL, &summary, &err), ERR_NOT_FOUND);
	assert_true(strlen(err.text) > 0);
	assert_int_equal(verify_spool("/proc", on_line, NULL, &summary, &err), ERR_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_sound_spool_is_sound_running_or_not, setup, teardown),
	    cmocka_unit_test_setup_teardown(damage_of_a_body_is_found_and_named, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_dump_tells_all, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_dump_is_clean_text, setup, teardown),
	    cmocka_unit_test_setup_teardown(what_is_no_spool_is_refused, setup, teardown),
	};
	return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}
