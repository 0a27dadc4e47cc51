/*
 * relayctl top - the status, again and again, in place of the screen
 *
 * Plain escape sequences: the alternate screen, home, clear to the end of line and screen. The terminal is put back as
 * it was on every way out, signals included.
 */
#include "base/base.h"
#include "relayctl/commands.h"
#include "relayctl/status.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

enum { INTERVAL_MS = 2000 };

static volatile sig_atomic_t must_end;

static void on_signal(int signo)
{
	(void)signo;
	must_end = 1;
}

/* Also for what a terminal's end sends; SIGWINCH only wakes us. */
static void on_resize(int signo)
{
	(void)signo;
}

static void catch_signals(void)
{
	static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction action = {.sa_handler = on_signal};

	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		sigaction(ends[i], &action, NULL);
	action.sa_handler = on_resize;
	sigaction(SIGWINCH, &action, NULL);
}

/* ---- the terminal ---- */

static bool enter(struct termios *before)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, before) != 0)
		return false;
	raw = *before;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	fputs("\033[?1049h\033[?25l", stdout);
	return true;
}

static void leave(const struct termios *before)
{
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSANOW, before);
}

/* False: it is over. A key other than q, or a new size, shows the present state at once. */
static bool wait_for_key(void)
{
	struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
	char key;

	if (poll(&keys, 1, INTERVAL_MS) > 0 && (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q'))
		return false;
	return !must_end;
}

/* ---- frames ---- */

/* What does not fit below is left out: a frame never scrolls. */
static void draw(struct ctl *ctl, json_t *status)
{
	char *text = NULL, *end;
	struct screen screen;
	size_t len = 0;
	int lines = 0;

	screen_init(&screen, ctl);
	screen.out = open_memstream(&text, &len);
	BUG_ON(!screen.out);
	screen.end = "\033[K";
	status_print(&screen, status);
	fclose(screen.out);
	for (end = text; *end && (screen.height == 0 || lines < screen.height - 1); end++)
		lines += *end == '\n';
	printf("\033[H%.*s\033[J", (int)(end - text), text);
	fflush(stdout);
	free(text);
}

int cmd_top(struct ctl *ctl, int argc, char **argv)
{
	struct termios before;
	json_t *status;
	int rc;

	if (ctl_parse(argc, argv, NULL, 0, NULL, 0) < 0)
		return CTL_USAGE;
	if (ctl->json || !ctl->is_terminal || !isatty(STDIN_FILENO))
		return ctl_usage("top wants a terminal; status says the same once");
	rc = ctl_request(ctl, "status", NULL, &status); /* what is wrong is told before the screen changes */
	if (rc != CTL_OK)
		return rc;
	catch_signals();
	if (!enter(&before)) {
		json_decref(status);
		return ctl_failed("the terminal does not answer");
	}
	for (draw(ctl, status); wait_for_key(); draw(ctl, status)) {
		json_decref(status);
		status = NULL;
		rc = ctl_request(ctl, "status", NULL, &status);
		if (rc != CTL_OK)
			break;
	}
	leave(&before);
	json_decref(status);
	return rc == CTL_OK ? CTL_OK : (ctl_failed("relayd is gone"), rc);
}
