/* Memos: written whole or not at all, without the loop waiting for the disk. */
#include "support_relay.h"

#include "relayd/memo.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
	struct relay relay; /* its folder, loop and log */
	struct memos *memos;
	struct memo *memo;
	const char *value;
	unsigned syncs;
	int fds[8];
	uint64_t tokens[8];
};

static json_t *save(void *ctx)
{
	return json_pack("{s:s}", "value", ((struct fixture *)ctx)->value);
}

static void sync_later(void *ctx, int fd, uint64_t token)
{
	struct fixture *f = ctx;

	f->fds[f->syncs] = fd;
	f->tokens[f->syncs++] = token;
}

static void make_memos(struct fixture *f, const struct disk_async *async)
{
	struct memos_options options = {f->relay.loop, f->relay.log, f->relay.fd, async};

	f->memos = memos_new(&options);
	f->memo = memo_new(f->memos, "test.json", save, f);
}

static struct disk_async async_of(struct fixture *f)
{
	return (struct disk_async){.ctx = f, .sync = sync_later};
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	relay_init(&f->relay, NULL);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	memos_free(&f->memos);
	relay_fini(&f->relay);
	free(f);
	return 0;
}

/* "": there is none. */
static const char *stored(struct fixture *f)
{
	static char text[64];
	json_t *document = memo_read(f->memo);

	snprintf(text, sizeof(text), "%s", document ? json_string_value(json_object_get(document, "value")) : "");
	json_decref(document);
	return text;
}

static void change(struct fixture *f, const char *value, int64_t within_ms)
{
	f->value = value;
	memo_changed(f->memo, within_ms);
}

static void it_is_written_in_time(void **state)
{
	struct fixture *f = *state;

	make_memos(f, NULL);
	assert_string_equal(stored(f), "");
	change(f, "one", 5000);
	relay_pass(&f->relay, 4999);
	assert_string_equal(stored(f), "");
	relay_pass(&f->relay, 1);
	assert_string_equal(stored(f), "one");
	change(f, "two", 5000);
	change(f, "three", 1000);
	relay_pass(&f->relay, 1000);
	assert_string_equal(stored(f), "three");
}

static void the_old_one_stands_until_the_new_one_is_synced(void **state)
{
	struct fixture *f = *state;
	struct disk_async async = async_of(f);

	make_memos(f, NULL);
	change(f, "old", 0);
	relay_turn(&f->relay);
	memos_free(&f->memos);
	make_memos(f, &async);
	change(f, "new", 0);
	relay_turn(&f->relay);
	assert_int_equal(f->syncs, 1);
	assert_string_equal(stored(f), "old");
	change(f, "newer", 0); /* while it is under way */
	relay_turn(&f->relay);
	assert_int_equal(f->syncs, 1);
	assert_true(memos_on_disk_done(f->memos, &(struct disk_done){.token = f->tokens[0], .fd = -1}));
	assert_string_equal(stored(f), "new");
	relay_turn(&f->relay);
	assert_int_equal(f->syncs, 3); /* the folder's is the second */
	assert_true(memos_on_disk_done(f->memos, &(struct disk_done){.token = f->tokens[1], .fd = -1}));
	assert_true(memos_on_disk_done(f->memos, &(struct disk_done){.token = f->tokens[2], .fd = -1}));
	assert_string_equal(stored(f), "newer");
	assert_false(memos_on_disk_done(f->memos, &(struct disk_done){.token = 17, .fd = -1}));
}

static void a_failed_sync_is_repeated_with_a_fresh_file(void **state)
{
	struct fixture *f = *state;
	struct disk_async async = async_of(f);

	make_memos(f, &async);
	change(f, "one", 0);
	relay_turn(&f->relay);
	memos_on_disk_done(f->memos, &(struct disk_done){.token = f->tokens[0], .result = DISK_HELPER_DIED, .fd = -1});
	assert_string_equal(stored(f), "");
	assert_true(relay_log_has(&f->relay, "event=memo_unwritten"));
	relay_pass(&f->relay, 10 * 1000);
	assert_int_equal(f->syncs, 3);
	memos_on_disk_done(f->memos, &(struct disk_done){.token = f->tokens[2], .fd = -1});
	assert_string_equal(stored(f), "one");
}

static void the_end_writes_what_is_left(void **state)
{
	struct fixture *f = *state;
	struct disk_async async = async_of(f);

	make_memos(f, &async);
	change(f, "one", 0);
	relay_turn(&f->relay);
	change(f, "two", 60 * 1000);
	memos_free(&f->memos);
	make_memos(f, NULL);
	assert_string_equal(stored(f), "two");
}

static void an_unreadable_one_is_none(void **state)
{
	struct fixture *f = *state;
	int fd = openat(f->relay.fd, "test.json", O_WRONLY | O_CREAT, 0600);

	assert_int_equal(write(fd, "{\"value\":", 9), 9);
	close(fd);
	make_memos(f, NULL);
	assert_null(memo_read(f->memo));
	assert_true(relay_log_has(&f->relay, "event=memo_unreadable"));
	change(f, "one", 0);
	relay_turn(&f->relay);
	assert_string_equal(stored(f), "one");
}

static void a_folder_in_its_place_stops_nobody(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkdirat(f->relay.fd, "test.json", 0700), 0);
	make_memos(f, NULL);
	assert_null(memo_read(f->memo));
	change(f, "one", 0);
	relay_turn(&f->relay);
	assert_true(relay_log_has(&f->relay, "event=memo_unwritten"));
	assert_int_equal(unlinkat(f->relay.fd, "test.json", AT_REMOVEDIR), 0);
	relay_pass(&f->relay, 10 * 1000);
	assert_string_equal(stored(f), "one");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(it_is_written_in_time),
	    TEST(the_old_one_stands_until_the_new_one_is_synced),
	    TEST(a_failed_sync_is_repeated_with_a_fresh_file),
	    TEST(the_end_writes_what_is_left),
	    TEST(an_unreadable_one_is_none),
	    TEST(a_folder_in_its_place_stops_nobody),
	};
	return cmocka_run_group_tests_name("memo", tests, NULL, NULL);
}
