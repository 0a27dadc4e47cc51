/*
 * test/bench/disk.c - what the disk itself allows: append 4 KiB into allocated space, fdatasync, again
 *
 * Two ways to allocate: "fallocate" (the file system must note each first write) and "zeroed" (blocks written before).
 */
#include "test/bench/bench.h"

#include <getopt.h>

struct options {
	const char *directory;
	unsigned count;
	size_t size;
};

static void allocate(int fd, size_t total, bool zeroed)
{
	static char zeros[1 << 20];

	if (posix_fallocate(fd, 0, (off_t)total) != 0)
		die("cannot allocate %zu octets", total);
	for (size_t at = 0; zeroed && at < total; at += sizeof(zeros))
		if (pwrite(fd, zeros, MIN(sizeof(zeros), total - at), (off_t)at) < 0)
			die("pwrite: %s", strerror(errno));
	if (fsync(fd) < 0)
		die("fsync: %s", strerror(errno));
}

static void measure(const struct options *o, int fd, const char *name, bool zeroed)
{
	struct samples latency = {0};
	char *block = xcalloc(1, o->size), key[64];
	int64_t begin, before;

	memset(block, 0x5a, o->size);
	allocate(fd, o->size * o->count, zeroed);
	begin = now_ns();
	for (unsigned i = 0; i < o->count; i++) {
		before = now_ns();
		if (pwrite(fd, block, o->size, (off_t)(o->size * i)) != (ssize_t)o->size || fdatasync(fd) < 0)
			die("write or fdatasync: %s", strerror(errno));
		samples_add(&latency, (now_ns() - before) / 1000);
	}
	printf("%s_syncs_per_s=%.1f\n", name, o->count * 1e9 / (double)(now_ns() - begin));
	snprintf(key, sizeof(key), "%s_us", name);
	samples_print(&latency, key);
	free(latency.us);
	free(block);
}

static void run(const struct options *o, const char *name, bool zeroed)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/disk-XXXXXX", o->directory);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		die("cannot create a file in %s: %s", o->directory, strerror(errno));
	unlink(path);
	measure(o, fd, name, zeroed);
	close(fd);
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
	    {"dir", 1, NULL, 'd'}, {"count", 1, NULL, 'c'}, {"size", 1, NULL, 's'}, {NULL, 0, NULL, 0}};
	struct options o = {.directory = ".", .count = 2000, .size = 4096};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'd': o.directory = optarg; break;
		case 'c': o.count = (unsigned)number_option("--count", optarg); break;
		case 's': o.size = number_option("--size", optarg); break;
		default: die("disk [--dir PATH] [--count N] [--size OCTETS]");
		}
	}
	printf("size=%zu\n", o.size);
	run(&o, "fallocate", false);
	run(&o, "zeroed", true);
	return 0;
}
