#include "relayctl/doctor_run.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/utf8.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { AT_ONCE = 12, SAID_MAX_BYTES = 1 << 20, WORDS_MAX_BYTES = 2048 };

enum task_state { WAITING = 0, RUNNING, OVER };

struct task {
	const struct doctor_check *check;
	char *subject;
	enum task_state state;
	pid_t pid;
	int fd; /* what it writes; RUNNING only */
	int64_t until_ms;
	struct buf said;
	json_t *findings;
};

struct doctor_runner {
	struct doctor *doctor;
	struct task *tasks;
	size_t count, running, told;
};

struct doctor_runner *doctor_runner_new(struct doctor *doctor)
{
	struct doctor_runner *runner = xcalloc(1, sizeof(*runner));

	runner->doctor = doctor;
	return runner;
}

void doctor_runner_free(struct doctor_runner **runner)
{
	struct doctor_runner *r = *runner;

	*runner = NULL;
	for (size_t i = 0; r && i < r->count; i++) {
		free(r->tasks[i].subject);
		buf_fini(&r->tasks[i].said);
		json_decref(r->tasks[i].findings);
	}
	if (r)
		free(r->tasks);
	free(r);
}

void doctor_runner_add(struct doctor_runner *runner, const struct doctor_check *check, const char *subject)
{
	struct task *task;

	runner->tasks = xreallocarray(runner->tasks, runner->count + 1, sizeof(*runner->tasks));
	task = &runner->tasks[runner->count++];
	*task = (struct task){.check = check, .subject = xstrdup(subject), .findings = json_array()};
	buf_init(&task->said, SAID_MAX_BYTES);
}

/* UTF-8 on one line, for a terminal too. */
static json_t *printable(const char *text)
{
	char out[WORDS_MAX_BYTES];

	snprintf(out, sizeof(out), "%s", text);
	for (size_t i = 0; out[i];) {
		size_t len = utf8_visible(slice_of_str(out + i));
		if (len == 0)
			out[i] = '?';
		i += MAX(len, (size_t)1);
	}
	return json_string(out);
}

json_t *doctor_finding_new(const char *check, const char *subject, enum doctor_level level, const char *found)
{
	json_t *finding = json_pack("{s:s, s:o, s:s, s:o}", "check", check, "subject", printable(subject), "level",
				    doctor_level_name(level), "found", printable(found));

	BUG_ON(!finding);
	return finding;
}

/* ---- in the process of a check ---- */

static void write_finding(struct doctor *doctor)
{
	if (!doctor->finding)
		return;
	json_dumpf(doctor->finding, doctor->out, JSON_COMPACT);
	fputc('\n', doctor->out);
	json_decref(doctor->finding);
	doctor->finding = NULL;
}

void doctor_tell(struct doctor *doctor, enum doctor_level level, const char *subject, const char *format, ...)
{
	char found[WORDS_MAX_BYTES];
	va_list args;

	write_finding(doctor);
	va_start(args, format);
	vsnprintf(found, sizeof(found), format, args);
	va_end(args);
	doctor->finding = doctor_finding_new(doctor->check_name, subject, level, found);
}

void doctor_advise(struct doctor *doctor, const char *format, ...)
{
	char advice[WORDS_MAX_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(advice, sizeof(advice), format, args);
	va_end(args);
	json_object_set_new(doctor->finding, "advice", printable(advice));
}

void doctor_publish(struct doctor *doctor, const char *name, struct slice value)
{
	json_object_set_new(doctor->finding, "record",
			    json_pack("{s:s, s:s, s:s%}", "name", name, "type", "TXT", "value", value.ptr, value.len));
}

void doctor_found_egress(struct doctor *doctor, const struct dns_address *address)
{
	char text[DNS_ADDRESS_TEXT];

	write_finding(doctor);
	dns_address_format(address, text);
	fprintf(doctor->out, "{\"egress\":\"%s\"}\n", text);
}

_Noreturn static void serve(struct doctor *doctor, const struct task *task, int fd)
{
	struct err err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	doctor->out = fdopen(fd, "w");
	BUG_ON(!doctor->out);
	doctor->check_name = task->check->name;
	doctor->lookup = lookup_new(doctor->config, 2, &err);
	if (doctor->lookup)
		task->check->run(doctor, task->subject);
	else
		doctor_tell(doctor, DOCTOR_FAIL, task->subject, "%s", err.text);
	write_finding(doctor);
	fflush(doctor->out);
	_exit(0);
}

/* ---- around them ---- */

static int64_t now_ms(void)
{
	return clock_mono_ms(clock_system());
}

/* A finding of the runner's own. */
static void say(struct task *task, const char *text)
{
	json_array_append_new(task->findings, doctor_finding_new(task->check->name, task->subject, DOCTOR_FAIL, text));
}

static void start(struct doctor_runner *runner, struct task *task)
{
	int ends[2];

	task->state = OVER;
	if (pipe(ends) != 0) {
		say(task, "there are too many open files to check it");
		return;
	}
	fflush(NULL);
	task->pid = fork();
	if (task->pid == 0) {
		close(ends[0]);
		serve(runner->doctor, task, ends[1]);
	}
	close(ends[1]);
	if (task->pid < 0) {
		close(ends[0]);
		say(task, "no process can be started to check it");
		return;
	}
	task->fd = ends[0];
	task->until_ms = now_ms() + INT64_C(1000) * task->check->limit_sec;
	task->state = RUNNING;
	runner->running++;
}

static void learn_egress(struct doctor *doctor, const char *text)
{
	struct dns_address address;

	if (doctor->egress_count == DOCTOR_EGRESS_MAX || !dns_address_parse(slice_of_str(text), &address))
		return;
	for (size_t i = 0; i < doctor->egress_count; i++)
		if (dns_address_eq(&doctor->egress[i], &address))
			return;
	doctor->egress[doctor->egress_count++] = address;
}

static void take_lines(struct doctor_runner *runner, struct task *task)
{
	ptrdiff_t end;

	while ((end = slice_find(buf_slice(&task->said), '\n')) >= 0) {
		json_t *line = json_loadb(buf_slice(&task->said).ptr, (size_t)end, 0, NULL);
		const char *egress = json_string_value(json_object_get(line, "egress"));
		if (egress)
			learn_egress(runner->doctor, egress);
		else if (line)
			json_array_append(task->findings, line);
		json_decref(line);
		buf_consume(&task->said, (size_t)end + 1);
	}
}

/* A process that hangs in the kernel may outlive its end: it is not waited for. */
static void end(struct doctor_runner *runner, struct task *task, bool is_late)
{
	char text[100];
	int status = 0;

	if (is_late) {
		kill(task->pid, SIGKILL);
		snprintf(text, sizeof(text), "it was not over after %d seconds", task->check->limit_sec);
		say(task, text);
	} else if (waitpid(task->pid, &status, 0) == task->pid && !(WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
		snprintf(text, sizeof(text), "the check itself failed (wait status %d)", status);
		say(task, text);
	}
	close(task->fd);
	task->state = OVER;
	runner->running--;
}

static void read_some(struct doctor_runner *runner, struct task *task)
{
	char *room = buf_reserve(&task->said, 4096);
	ssize_t n = room ? read(task->fd, room, 4096) : 0;

	if (n > 0) {
		buf_commit(&task->said, (size_t)n);
		take_lines(runner, task);
	} else {
		end(runner, task, false);
	}
}

/* Are all that could tell over? */
static bool egress_is_known(const struct doctor_runner *runner)
{
	for (size_t i = 0; i < runner->count; i++)
		if (runner->tasks[i].check->gives_egress && runner->tasks[i].state != OVER)
			return false;
	return true;
}

static void start_more(struct doctor_runner *runner)
{
	bool is_known = egress_is_known(runner);

	for (size_t i = 0; i < runner->count && runner->running < AT_ONCE; i++) {
		struct task *task = &runner->tasks[i];
		if (task->state == WAITING && (is_known || !task->check->needs_egress))
			start(runner, task);
	}
}

static void turn(struct doctor_runner *runner)
{
	struct pollfd fds[AT_ONCE];
	struct task *tasks[AT_ONCE];
	int64_t due = INT64_MAX;
	nfds_t count = 0;

	for (size_t i = 0; i < runner->count; i++) {
		struct task *task = &runner->tasks[i];
		if (task->state != RUNNING)
			continue;
		fds[count] = (struct pollfd){.fd = task->fd, .events = POLLIN};
		tasks[count++] = task;
		due = MIN(due, task->until_ms);
	}
	if (count == 0)
		return;
	poll(fds, count, (int)MAX(due - now_ms(), (int64_t)0));
	for (nfds_t i = 0; i < count; i++) {
		if (fds[i].revents)
			read_some(runner, tasks[i]);
		else if (tasks[i]->until_ms <= now_ms())
			end(runner, tasks[i], true);
	}
}

void doctor_runner_run(struct doctor_runner *runner, doctor_finding *on_finding, void *ctx)
{
	json_t *finding;
	size_t i;

	while (runner->told < runner->count) {
		struct task *task = &runner->tasks[runner->told];
		if (task->state == OVER) {
			json_array_foreach(task->findings, i, finding) on_finding(ctx, finding);
			runner->told++;
			continue;
		}
		start_more(runner);
		turn(runner);
	}
}
