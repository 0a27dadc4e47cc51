#include "test/sim/pool.h"

#include "base/base.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS_MAX = 64, OUTPUT_BYTES = 256 << 10 };

struct shared {
	atomic_uint next, failed;
	struct {
		pid_t pid;
		atomic_uint task;
	} workers[WORKERS_MAX];
};

static unsigned worker_count(unsigned tasks)
{
	const char *wanted = getenv("JOBS");
	long count = wanted && *wanted ? strtol(wanted, NULL, 10) : sysconf(_SC_NPROCESSORS_ONLN);

	return (unsigned)MIN(MAX(MIN(count, (long)tasks), 1), (long)WORKERS_MAX);
}

static void work(struct shared *shared, unsigned worker, unsigned count, pool_task *task, void *ctx)
{
	unsigned number;

	while ((number = atomic_fetch_add(&shared->next, 1)) < count) {
		atomic_store(&shared->workers[worker].task, number);
		if (!task(ctx, number))
			atomic_fetch_add(&shared->failed, 1);
		fflush(stdout);
	}
}

static void start(struct shared *shared, unsigned worker, unsigned count, pool_task *task, void *ctx)
{
	pid_t pid = fork();

	BUG_ON(pid < 0);
	if (pid == 0) {
		setvbuf(stdout, NULL, _IOFBF, OUTPUT_BYTES);
		work(shared, worker, count, task, ctx);
		exit(0);
	}
	shared->workers[worker].pid = pid;
}

/* The others have taken what this one would have done; only the task it died in is lost. */
static void mourn(struct shared *shared, unsigned workers, pid_t pid, int status)
{
	for (unsigned w = 0; w < workers; w++)
		if (shared->workers[w].pid == pid)
			printf("FAILED: task %u died of %s %d\n", atomic_load(&shared->workers[w].task),
			       WIFSIGNALED(status) ? "signal" : "exit",
			       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	atomic_fetch_add(&shared->failed, 1);
}

unsigned pool_run(unsigned count, pool_task *task, void *ctx)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned workers = worker_count(count), failed;
	int status;
	pid_t pid;

	BUG_ON(shared == MAP_FAILED);
	fflush(stdout);
	for (unsigned w = 0; w < workers; w++)
		start(shared, w, count, task, ctx);
	while ((pid = wait(&status)) > 0)
		if (status != 0)
			mourn(shared, workers, pid, status);
	/* All workers may have died. */
	failed = atomic_load(&shared->failed) + (count - MIN(atomic_load(&shared->next), count));
	munmap(shared, sizeof(*shared));
	return failed;
}
