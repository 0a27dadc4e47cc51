/* relayctl route - where mail to an address would go, and why. */
#include "base/base.h"
#include "relayctl/commands.h"
#include "relayctl/screen.h"

static void print_host(struct screen *screen, json_t *host)
{
	json_t *addresses = json_object_get(host, "addresses"), *address;
	bool refused = strcmp(text_of(host, "tls"), "refused") == 0;
	size_t i;

	screen_to(screen, 6);
	screen_print(screen, COLOUR_NONE, "%lld %s", (long long)number_of(host, "preference"), text_of(host, "name"));
	json_array_foreach(addresses, i, address) screen_print(screen, COLOUR_DIM, " [%s]", json_string_value(address));
	screen_print(screen, refused ? COLOUR_RED : COLOUR_NONE, ", TLS %s by %s", text_of(host, "tls"),
		     text_of(host, "basis"));
	if (text_of(host, "why")[0])
		screen_print(screen, COLOUR_NONE, ": %s", text_of(host, "why"));
	screen_newline(screen);
}

/* What its lookup said just now need not be said again as its trouble. */
static void print_state(struct screen *screen, json_t *hop)
{
	const char *state = text_of(hop, "state"), *reason = text_of(hop, "reason");

	if (strcmp(state, "up") != 0)
		screen_print(screen, COLOUR_RED, ", %s", state);
	if (reason[0] && strcmp(reason, text_of(hop, "text")) != 0)
		screen_print(screen, COLOUR_YELLOW, ": %s", reason);
	screen_newline(screen);
}

static void print_hop(struct screen *screen, json_t *hop, size_t number)
{
	bool by_mx = strcmp(text_of(hop, "kind"), "mx") == 0, is_sent = by_mx || text_of(hop, "address")[0];
	json_t *host;
	size_t i;

	screen_to(screen, 2);
	if (!is_sent) {
		screen_print(screen, COLOUR_BOLD, "%s", text_of(hop, "text"));
		print_state(screen, hop);
		return;
	}
	screen_print(screen, COLOUR_NONE, "%s ", number == 0 ? "by" : "or");
	screen_print(screen, COLOUR_BOLD, "%s %s", by_mx ? "MX of" : "relayhost", text_of(hop, "name"));
	if (!by_mx)
		screen_print(screen, COLOUR_NONE, " at %s", text_of(hop, "address"));
	screen_print(screen, COLOUR_NONE, ", tls: %s", text_of(hop, "tls"));
	if (by_mx && strcmp(text_of(hop, "status"), "ok") != 0)
		screen_print(screen, COLOUR_RED, ", %s: %s", text_of(hop, "status"), text_of(hop, "text"));
	print_state(screen, hop);
	json_array_foreach(json_object_get(hop, "hosts"), i, host) print_host(screen, host);
}

static void print_recipient(struct screen *screen, json_t *recipient)
{
	json_t *hop;
	size_t i;

	screen_print(screen, COLOUR_BOLD, "%s", text_of(recipient, "address"));
	screen_print(screen, COLOUR_NONE, ": %s", text_of(recipient, "why"));
	screen_newline(screen);
	if (text_of(recipient, "failure")[0]) {
		screen_to(screen, 2);
		screen_print(screen, COLOUR_RED, "it fails: %s", text_of(recipient, "failure"));
		screen_newline(screen);
	}
	json_array_foreach(json_object_get(recipient, "next_hops"), i, hop) print_hop(screen, hop, i);
}

static void print_route(struct ctl *ctl, json_t *route)
{
	struct screen screen;
	json_t *recipient;
	size_t i;

	screen_init(&screen, ctl);
	screen.wraps = true;
	if (text_of(route, "refused")[0]) {
		screen_print(&screen, COLOUR_RED, "it is refused: %s", text_of(route, "refused"));
		screen_newline(&screen);
	}
	json_array_foreach(json_object_get(route, "recipients"), i, recipient) print_recipient(&screen, recipient);
}

int cmd_route(struct ctl *ctl, int argc, char **argv)
{
	const char *from = NULL, *user = NULL, *to;
	const struct ctl_option options[] = {{"--from", &from, NULL}, {"--user", &user, NULL}};
	struct buf path;
	json_t *route;
	int rc;

	rc = ctl_parse(argc, argv, options, ARRAY_LEN(options), &to, 1);
	if (rc != 1)
		return rc < 0 ? CTL_USAGE : ctl_wrong_usage("route");
	buf_init(&path, 64 * 1024);
	buf_append_str(&path, "route");
	ctl_add_query(&path, "to", to);
	if (from)
		ctl_add_query(&path, "from", from);
	if (user)
		ctl_add_query(&path, "user", user);
	buf_append_byte(&path, '\0');
	rc = ctl_request(ctl, buf_slice(&path).ptr, NULL, &route);
	buf_fini(&path);
	if (rc != CTL_OK)
		return rc;
	if (ctl->json)
		ctl_print_json(route);
	else
		print_route(ctl, route);
	rc = text_of(route, "refused")[0] ? CTL_FAILED : CTL_OK;
	json_decref(route);
	return rc;
}
