/*
 * test/bench/journal.c - what the durable queue alone can do, through its public interface, on the real disk
 *
 * 1 durable appends with 1, 8, 32, 64 waiting clients, against a bare loop of writing and fdatasync that takes turns
 * with it; 2 memory per queued message; 3 a restart until the first message is in hand; 4 draining: disk use against
 * its bound, and the longest turn; 5 whether overwriting old segments would be cheaper than filling fresh ones.
 *
 * Each step runs in a process of its own: memory that an earlier step left behind would flatter the figures.
 */
#include "test/bench/spool.h"

#include <dirent.h>
#include <getopt.h>
#include <malloc.h>
#include <sys/stat.h>

enum {
	ROUNDS_MAX = 15,
	RESULTS_PER_TURN = 64, /* deliveries that end in one turn */
	RESULTS_PER_SYNC = 4096,
	DRAIN_PER_S = 25000, /* what the whole daemon reaches */
	SAMPLES = 500,	     /* looks at the disk's use during a drain */
};

struct options {
	const char *directory;
	uint64_t messages, segment_bytes, rounds, round_ms, per_turn, drain_per_s;
	bool figure[6];
};

/* ---- 1: appends ------------------------------------------------------------------------------------------------- */

#define APPEND_SIZE 4096

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
	qsort(values, count, sizeof(values[0]), compare_double);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

struct append_round {
	double rate;	/* messages a second */
	double sync_us; /* of each sync, fdatasync alone */
	uint64_t messages, syncs;
};

/* Each client sends its next message in the turn after the one that brought its 250. */
static struct append_round append_round(const struct options *o, struct bench *b, uint64_t clients, const char *content)
{
	uint64_t messages = b->committed, syncs = b->syncs, sync_us = b->sync_us;
	int64_t began = now_ns(), until = began + (int64_t)o->round_ms * 1000000;
	struct append_round round;

	while (now_ns() < until) {
		for (uint64_t i = 0; i < o->per_turn && b->submitted - b->committed < clients; i++)
			submit(b, content, APPEND_SIZE);
		turn(b);
		take_answers(b, b->submitted - b->committed == clients);
	}
	round.messages = b->committed - messages;
	round.syncs = b->syncs - syncs;
	round.rate = (double)round.messages * 1e9 / (double)(now_ns() - began);
	round.sync_us = (double)(b->sync_us - sync_us) / (double)MAX(round.syncs, 1);
	until_synced(b);
	return round;
}

static int file_allocated(const char *directory, uint64_t size)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/bare-XXXXXX", directory);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0 || unlink(path) < 0 || posix_fallocate(fd, 0, (off_t)size) != 0 || fsync(fd) < 0)
		die("cannot allocate %llu octets in %s", (unsigned long long)size, directory);
	return fd;
}

/* The disk alone, doing the same: `syncs` times n messages into allocated space, written as queue/disk.c writes. */
static double bare_round(const char *directory, uint64_t n, uint64_t syncs, double *sync_us)
{
	size_t size = n * APPEND_SIZE;
	int fd = file_allocated(directory, size * syncs);
	char *block = xmalloc(size);
	int64_t began, wrote, syncing = 0;
	double rate;

	memset(block, 0x5a, size);
	began = now_ns();
	for (uint64_t i = 0; i < syncs; i++) {
		if (pwrite(fd, block, size, (off_t)(size * i)) != (ssize_t)size)
			die("write: %s", strerror(errno));
		wrote = now_ns();
		if (fdatasync(fd) < 0)
			die("fdatasync: %s", strerror(errno));
		syncing += now_ns() - wrote;
	}
	*sync_us = (double)syncing / 1000 / (double)syncs;
	rate = (double)(n * syncs) * 1e9 / (double)(now_ns() - began);
	free(block);
	close(fd);
	return rate;
}

static void append_level(const struct options *o, struct bench *b, uint64_t clients)
{
	double rates[ROUNDS_MAX], bare[ROUNDS_MAX], shares[ROUNDS_MAX], sync_us[ROUNDS_MAX], bare_sync_us[ROUNDS_MAX];
	size_t rounds = o->rounds;
	uint64_t messages = 0, syncs = 0;
	char content[APPEND_SIZE];
	struct queue_stats stats;
	uint64_t written, committed = b->committed;

	queue_stats(b->queue, &stats);
	written = stats.written_bytes;
	content_make(content, sizeof(content), 0);
	for (size_t i = 0; i < rounds; i++) {
		struct append_round round = append_round(o, b, clients, content);
		if (round.syncs == 0)
			die("no sync ended in a round");
		rates[i] = round.rate;
		bare[i] = bare_round(o->directory, MAX(1, (round.messages + round.syncs / 2) / round.syncs),
				     MIN(round.syncs, 10000), &bare_sync_us[i]);
		sync_us[i] = round.sync_us;
		shares[i] = rates[i] / bare[i];
		messages += round.messages;
		syncs += round.syncs;
	}
	queue_stats(b->queue, &stats);
	printf("clients_%llu_per_sync=%.1f\n", (unsigned long long)clients, (double)messages / (double)syncs);
	printf("clients_%llu_appends_per_s=%.0f\n", (unsigned long long)clients, median(rates, rounds));
	printf("clients_%llu_bare_per_s=%.0f\n", (unsigned long long)clients, median(bare, rounds));
	printf("clients_%llu_sync_us=%.0f\n", (unsigned long long)clients, median(sync_us, rounds));
	printf("clients_%llu_bare_sync_us=%.0f\n", (unsigned long long)clients, median(bare_sync_us, rounds));
	printf("clients_%llu_share=%.3f\n", (unsigned long long)clients, median(shares, rounds));
	printf("clients_%llu_share_min=%.3f\n", (unsigned long long)clients, shares[0]);
	printf("clients_%llu_share_max=%.3f\n", (unsigned long long)clients, shares[rounds - 1]);
	printf("clients_%llu_written_per_message=%.0f\n", (unsigned long long)clients,
	       (double)(stats.written_bytes - written) / (double)(b->committed - committed));
}

static void append_step(const struct options *o, struct bench *b)
{
	static const uint64_t levels[] = {1, 8, 32, 64};

	b->is_unwatched = true;
	bench_open(b, NULL);
	until_synced(b);
	for (size_t i = 0; i < ARRAY_LEN(levels); i++)
		append_level(o, b, levels[i]);
	bench_close(b);
}

/* ---- 2: memory -------------------------------------------------------------------------------------------------- */

static void memory_now(uint64_t *rss, uint64_t *pss)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	unsigned long long kib;
	char line[256];

	*rss = *pss = 0;
	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "Rss: %llu", &kib) == 1)
			*rss = kib * 1024;
		if (sscanf(line, "Pss: %llu", &kib) == 1)
			*pss = kib * 1024;
	}
	if (!file || !*rss)
		die("cannot read /proc/self/smaps_rollup");
	fclose(file);
}

static void memory_print(const struct bench *b, const char *what, uint64_t rss, uint64_t pss, uint64_t empty_index)
{
	struct queue_stats stats;
	double messages;

	queue_stats(b->queue, &stats);
	messages = (double)(stats.messages[STATE_READY] + stats.messages[STATE_DEFERRED]);
	printf("%s_messages=%.0f\n", what, messages);
	printf("%s_rss_per_message=%.1f\n", what, (double)rss / messages);
	printf("%s_pss_per_message=%.1f\n", what, (double)pss / messages);
	printf("%s_index_per_message=%.1f\n", what, (double)(stats.index_bytes - empty_index) / messages);
}

static void memory_step(const struct options *o, struct bench *b)
{
	uint64_t rss[2], pss[2];
	struct queue_stats empty;

	bench_open(b, NULL);
	until_synced(b);
	queue_stats(b->queue, &empty);
	memory_now(&rss[0], &pss[0]);
	fill(b, o->messages);
	memory_now(&rss[1], &pss[1]);
	memory_print(b, "memory", rss[1] - rss[0], pss[1] - pss[0], empty.index_bytes);
	malloc_trim(0); /* what the allocator keeps of buffers that were given back */
	memory_now(&rss[1], &pss[1]);
	printf("memory_rss_per_message_trimmed=%.1f\n", (double)(rss[1] - rss[0]) / (double)o->messages);
	bench_close(b);
}

/* ---- 3: restart ------------------------------------------------------------------------------------------------- */

/* The next due message, as a delivery would have it; false: none. Its content must be what was submitted. */
static bool first_message_is_good(struct bench *b)
{
	int64_t now_wall = clock_wall_ms(clock_system());
	struct queue_message message;
	char content[FILL_SIZE], address[64];
	unsigned long long number;
	uint32_t index;
	uint64_t id;
	bool good;

	if (!queue_pop_due(b->queue, now_wall, &id) || queue_take_due(b->queue, id, now_wall, &index, 1) != 1 ||
	    queue_read_envelope(b->queue, id, 0, &message) < 0)
		return false;
	good = message.is_inline && message.content.len == sizeof(content) &&
	       sscanf(message.content.ptr, BENCH_FIELD "%llu", &number) == 1;
	if (good) {
		content_make(content, sizeof(content), number);
		good =
		    slice_eq(message.content, slice_of(content, sizeof(content))) &&
		    slice_eq(message.envelope.recipients[0].address, recipient_make(address, sizeof(address), number));
	}
	queue_message_free(&message);
	queue_give_back(b->queue, id, index, now_wall);
	return good;
}

static void restart_step(const struct options *o, struct bench *b)
{
	uint64_t rss[2], pss[2];
	struct queue_report report;
	int64_t began, opened, first, cpu;
	bool good;

	memory_now(&rss[0], &pss[0]);
	cpu = thread_cpu_ns();
	began = now_ns();
	bench_open(b, &report);
	opened = now_ns();
	good = first_message_is_good(b);
	first = now_ns();
	cpu = thread_cpu_ns() - cpu;
	if (!good || report.messages != o->messages)
		die("after a restart: %llu messages of %llu, the first is %s", (unsigned long long)report.messages,
		    (unsigned long long)o->messages, good ? "good" : "not what was submitted");
	printf("restart_open_ms=%.1f\n", (double)(opened - began) / 1e6);
	printf("restart_first_message_ms=%.1f\n", (double)(first - began) / 1e6);
	printf("restart_cpu_ms=%.1f\n", (double)cpu / 1e6);
	printf("restart_segments=%u\n", report.segments);
	printf("restart_bytes_read=%llu\n", (unsigned long long)report.bytes_read);
	memory_now(&rss[1], &pss[1]);
	memory_print(b, "restart", rss[1] - rss[0], pss[1] - pss[0], 0);
	bench_close(b);
}

/* ---- 4: draining ------------------------------------------------------------------------------------------------ */

struct watch {
	double worst, worst_on_disk;
	uint64_t journal_bytes, live_bytes, unsynced_bytes; /* at the worst */
};

/* What the file system really has given to the journal, discarded files that still wait included. */
static uint64_t bytes_on_disk(const struct bench *b)
{
	struct err err = {0};
	int fd = disk_open_journal_dir(b->spool_fd, &err);
	DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	uint64_t bytes = 0;
	struct stat st;

	if (!directory)
		die("cannot list the journal");
	while ((entry = readdir(directory)))
		if (fstatat(dirfd(directory), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			bytes += (uint64_t)st.st_blocks * 512;
	closedir(directory);
	return bytes;
}

static void look(struct bench *b, struct watch *watch)
{
	struct queue_stats stats;
	double bound, ratio;

	queue_stats(b->queue, &stats);
	bound = 2.0 * (double)stats.live_bytes + 4.0 * (double)b->segment_bytes;
	ratio = (double)stats.journal_bytes / bound;
	if (ratio > watch->worst) {
		watch->worst = ratio;
		watch->journal_bytes = stats.journal_bytes;
		watch->live_bytes = stats.live_bytes;
		watch->unsynced_bytes = stats.unsynced_bytes;
	}
	watch->worst_on_disk = MAX(watch->worst_on_disk, (double)bytes_on_disk(b) / bound);
}

static void deliver(struct bench *b, uint64_t id)
{
	static const struct outcome delivered = {.kind = OUTCOME_DELIVERED,
						 .stage = STAGE_DOT,
						 .code = 250,
						 .enhanced = "2.0.0",
						 .host = "mx.example.net[192.0.2.25]",
						 .text = "Ok: queued as 0123456789ABC"};
	struct queue_result result = {.outcome = &delivered, .attempts = 1};
	uint32_t index;

	if (queue_take_due(b->queue, id, INT64_MAX - 1, &index, 1) != 1 || queue_set_inflight(b->queue, id, 1) < 0 ||
	    queue_record_result(b->queue, id, index, &result) < 0)
		die("a message cannot be delivered");
}

/* All ids, popped, in random order. */
static uint64_t *shuffled(const struct options *o, struct bench *b)
{
	uint64_t count = o->messages, *ids = xmalloc(count * sizeof(*ids));
	struct rng_seeded rng;

	rng_seeded_init(&rng, 5);
	for (uint64_t i = 0; i < count; i++)
		if (!queue_pop_due(b->queue, INT64_MAX - 1, &ids[i]))
			die("a message is not there");
	for (uint64_t i = count - 1; i > 0; i--) {
		uint64_t j = rng_below(&rng.rng, i + 1), id = ids[i];
		ids[i] = ids[j];
		ids[j] = id;
	}
	return ids;
}

/* Until the queue wants nothing more, watching. */
static void drain_tail(struct bench *b, struct watch *watch)
{
	int64_t until = now_ns() + 5000000000;

	while (now_ns() < until && queue_next_deadline_ms(b->queue) != INT64_MAX) {
		take_answers(b, true);
		turn(b);
		look(b, watch);
	}
	until_synced(b);
	look(b, watch);
}

/* How far a drain has come. */
struct pace {
	int64_t began_ns;
	uint64_t results, at_sync, syncs; /* all; when the last sync ended; how many had ended */
};

/* At a drain's full speed it is the disk that must keep up: no network brings 4,096 results during one sync. */
static bool is_ahead(const struct options *o, const struct bench *b, struct pace *pace)
{
	if (b->syncs != pace->syncs)
		pace->at_sync = pace->results;
	pace->syncs = b->syncs;
	if (o->drain_per_s > 0)
		return (double)pace->results > (double)(now_ns() - pace->began_ns) * (double)o->drain_per_s / 1e9;
	return pace->results - pace->at_sync >= RESULTS_PER_SYNC;
}

static void drain_turn(const struct options *o, struct bench *b, struct pace *pace)
{
	bool must_wait;

	do {
		turn(b);
		must_wait = o->drain_per_s == 0 && is_ahead(o, b, pace);
		take_answers(b, must_wait || queue_may_accept(b->queue) == ERR_LIMIT);
	} while (is_ahead(o, b, pace));
}

static void drain(const struct options *o, struct bench *b, const char *name, bool is_random)
{
	uint64_t count = o->messages, *ids = is_random ? shuffled(o, b) : NULL, id;
	struct pace pace = {.syncs = b->syncs};
	struct watch watch = {0};
	int64_t took;
	struct queue_stats stats;

	b->turn = b->done = (struct stall){0};
	look(b, &watch);
	pace.began_ns = now_ns();
	for (uint64_t i = 0; i < count; i++) {
		if (ids)
			id = ids[i];
		else if (!queue_pop_due(b->queue, INT64_MAX - 1, &id))
			die("a message is not there");
		deliver(b, id);
		pace.results++;
		if (i % RESULTS_PER_TURN == 0)
			drain_turn(o, b, &pace);
		if (i % MAX(count / SAMPLES, 1) == 0)
			look(b, &watch);
	}
	took = now_ns() - pace.began_ns;
	free(ids);
	drain_tail(b, &watch);
	queue_stats(b->queue, &stats);
	printf("%s_per_s=%.0f\n", name, (double)count * 1e9 / (double)took);
	printf("%s_worst_use_of_bound=%.3f\n", name, watch.worst);
	printf("%s_worst_use_of_bound_on_disk=%.3f\n", name, watch.worst_on_disk);
	printf("%s_worst_journal_bytes=%llu\n", name, (unsigned long long)watch.journal_bytes);
	printf("%s_worst_live_bytes=%llu\n", name, (unsigned long long)watch.live_bytes);
	printf("%s_worst_unsynced_bytes=%llu\n", name, (unsigned long long)watch.unsynced_bytes);
	printf("%s_end_journal_bytes=%llu\n", name, (unsigned long long)stats.journal_bytes);
	printf("%s_end_live_bytes=%llu\n", name, (unsigned long long)stats.live_bytes);
	stall_print(&b->turn, name, "turn");
	stall_print(&b->done, name, "disk_done");
}

static void drain_step(const struct options *o, struct bench *b)
{
	bench_open(b, NULL);
	until_synced(b);
	drain(o, b, "drain_in_order", false);
	fill(b, o->messages);
	drain(o, b, "drain_random", true);
	bench_close(b);
}

/* ---- 5: recycling ----------------------------------------------------------------------------------------------- */

#define RECYCLED_BYTES (64u << 20)

static double mean_sync_us(int fd, unsigned syncs)
{
	char block[APPEND_SIZE];
	int64_t total = 0;

	memset(block, 0xa5, sizeof(block));
	for (unsigned i = 0; i < syncs; i++) {
		int64_t began;
		if (pwrite(fd, block, sizeof(block), (off_t)(sizeof(block) * i)) != (ssize_t)sizeof(block))
			die("write: %s", strerror(errno));
		began = now_ns();
		if (fdatasync(fd) < 0)
			die("fdatasync: %s", strerror(errno));
		total += now_ns() - began;
	}
	return (double)total / 1000 / syncs;
}

static void recycling_step(const struct options *o, struct bench *b)
{
	enum { SYNCS = 1000 };
	double fresh[ROUNDS_MAX], recycled[ROUNDS_MAX];
	int old = file_allocated(o->directory, RECYCLED_BYTES), fd;
	static char chunk[1 << 20];

	(void)b;
	memset(chunk, 0x5a, sizeof(chunk));
	for (off_t at = 0; at < RECYCLED_BYTES; at += sizeof(chunk))
		if (pwrite(old, chunk, sizeof(chunk), at) != sizeof(chunk))
			die("write: %s", strerror(errno));
	if (fsync(old) < 0)
		die("fsync: %s", strerror(errno));
	for (size_t i = 0; i < o->rounds; i++) {
		fd = file_allocated(o->directory, RECYCLED_BYTES);
		fresh[i] = mean_sync_us(fd, SYNCS);
		recycled[i] = mean_sync_us(old, SYNCS);
		close(fd);
	}
	close(old);
	printf("recycling_fresh_us=%.1f\n", median(fresh, o->rounds));
	printf("recycling_overwritten_us=%.1f\n", median(recycled, o->rounds));
}

/* ---- Steps ------------------------------------------------------------------------------------------------------ */

static void folder_empty(int parent_fd, const char *name)
{
	int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(dirfd(directory), entry->d_name, 0);
	if (directory)
		closedir(directory);
	unlinkat(parent_fd, name, AT_REMOVEDIR);
}

/* A step in its own process; true: it went well. */
typedef void step_fn(const struct options *o, struct bench *b);

static bool run_step(const struct options *o, int spool_fd, step_fn *step, bool uses_queue)
{
	struct bench b = {.segment_bytes = o->segment_bytes, .spool_fd = spool_fd};
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid == 0) {
		if (uses_queue)
			syncer_start(&b);
		step(o, &b);
		exit(0);
	}
	return waitpid(pid, &status, 0) == pid && status == 0;
}

static bool run_all(const struct options *o, int spool_fd)
{
	bool good = true;

	if (o->figure[1]) {
		good = run_step(o, spool_fd, append_step, true);
		folder_empty(spool_fd, "journal");
	}
	if (good && (o->figure[2] || o->figure[3] || o->figure[4]))
		good = run_step(o, spool_fd, memory_step, true);
	if (good && o->figure[3])
		good = run_step(o, spool_fd, restart_step, true);
	if (good && o->figure[4])
		good = run_step(o, spool_fd, drain_step, true);
	folder_empty(spool_fd, "journal");
	if (good && o->figure[5])
		good = run_step(o, spool_fd, recycling_step, false);
	folder_empty(spool_fd, "quarantine");
	return good;
}

static void choose_figures(struct options *o, const char *text)
{
	memset(o->figure, 0, sizeof(o->figure));
	for (; *text; text++) {
		if (*text >= '1' && *text <= '5')
			o->figure[*text - '0'] = true;
		else if (*text != ',')
			die("--figures wants numbers from 1 to 5 with commas");
	}
}

static void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
	    {"dir", 1, NULL, 'd'},	     {"messages", 1, NULL, 'm'},    {"figures", 1, NULL, 'f'},
	    {"segment-bytes", 1, NULL, 's'}, {"rounds", 1, NULL, 'r'},	    {"round-ms", 1, NULL, 't'},
	    {"per-turn", 1, NULL, 'p'},	     {"drain-per-s", 1, NULL, 'y'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'd': o->directory = optarg; break;
		case 'm': o->messages = number_option("--messages", optarg); break;
		case 'f': choose_figures(o, optarg); break;
		case 's': o->segment_bytes = number_option("--segment-bytes", optarg); break;
		case 'r': o->rounds = number_option("--rounds", optarg); break;
		case 't': o->round_ms = number_option("--round-ms", optarg); break;
		case 'p': o->per_turn = number_option("--per-turn", optarg); break;
		case 'y': o->drain_per_s = number_option("--drain-per-s", optarg); break;
		default:
			die("journal [--dir PATH] [--figures 1,2,3,4,5] [--messages N] [--segment-bytes N] "
			    "[--rounds N] [--round-ms N] [--per-turn N] [--drain-per-s N (0: as fast as it goes)]");
		}
	}
	if (o->messages == 0 || o->rounds == 0 || o->rounds > ROUNDS_MAX || o->per_turn == 0)
		die("messages, per-turn and rounds (at most %d) must not be 0", ROUNDS_MAX);
	if (o->segment_bytes < 32768 || o->segment_bytes % 4096 != 0)
		die("--segment-bytes wants a multiple of 4096, at least 32768");
}

int main(int argc, char **argv)
{
	struct options o = {.directory = ".",
			    .messages = 1000000,
			    .segment_bytes = 64u << 20,
			    .rounds = 5,
			    .round_ms = 400,
			    .per_turn = MESSAGES_PER_TURN,
			    .drain_per_s = DRAIN_PER_S,
			    .figure = {false, true, true, true, true, true}};
	char folder[4096];
	int spool_fd;
	bool good;

	mallopt(M_MMAP_THRESHOLD, 1 << 20); /* as relayd/main.c */
	mallopt(M_TRIM_THRESHOLD, 1 << 20);
	parse_options(&o, argc, argv);
	snprintf(folder, sizeof(folder), "%s/journal-XXXXXX", o.directory);
	spool_fd = mkdtemp(folder) ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (spool_fd < 0)
		die("cannot create a folder in %s: %s", o.directory, strerror(errno));
	good = run_all(&o, spool_fd);
	close(spool_fd);
	rmdir(folder);
	return good ? 0 : 1;
}
