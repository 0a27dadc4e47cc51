/* relayctl status, health, show - what a running daemon says of itself. */
#include "base/base.h"
#include "relayctl/screen.h"

#include <stdio.h>
#include <time.h>

/* ---- status ---- */

static void print_queue_line(json_t *queue)
{
	const char *state;
	json_t *part;
	char age[24];

	printf("queue      ");
	json_object_foreach(queue, state, part)
	{
		printf("%s %lld", state, (long long)number_of(part, "messages"));
		if (number_of(part, "messages") > 0)
			printf(" (oldest %s)", age_of(part, "oldest_age_sec", age));
		printf("   ");
	}
	printf("\n");
}

static void print_trouble(json_t *destination)
{
	char age[24];

	printf("           %-32s %s: %s", text_of(destination, "destination"), text_of(destination, "class"),
	       text_of(destination, "reason"));
	printf(", since %s, next attempt in %s, %lld waiting\n", age_of(destination, "since_sec", age),
	       ctl_format_age(number_of(destination, "next_attempt_sec"), (char[24]){0}, 24),
	       (long long)number_of(destination, "waiting"));
}

/* Of a relayhost with oauth2. */
static void print_token(json_t *token)
{
	const char *trouble = text_of(token, "trouble");
	char a[24];

	if (!json_is_object(token))
		return;
	printf("           access token %s", text_of(token, "state"));
	if (json_is_integer(json_object_get(token, "expires_sec")))
		printf(", expires in %s", age_of(token, "expires_sec", a));
	printf("%s%s\n", trouble[0] ? ": " : "", trouble);
}

static void print_status(json_t *status)
{
	json_t *journal = json_object_get(status, "journal"), *totals = json_object_get(status, "totals"), *item;
	char a[24], b[24];
	size_t i;

	printf("relayd %s on %s, up %s: %s\n", text_of(status, "version"), text_of(status, "hostname"),
	       age_of(status, "uptime_sec", a), text_of(status, "health"));
	json_array_foreach(json_object_get(status, "alerts"), i, item)
	    printf("ALERT      %s: %s (since %s)\n", text_of(item, "alert"), text_of(item, "text"),
		   age_of(item, "since_sec", a));
	printf("since start accepted %lld, delivered %lld, deferred %lld, failed %lld\n",
	       (long long)number_of(totals, "accepted"), (long long)number_of(totals, "delivered"),
	       (long long)number_of(totals, "deferred"), (long long)number_of(totals, "failed"));
	print_queue_line(json_object_get(status, "queue"));
	printf("journal    %s, %s on disk, %s free\n", text_of(journal, "state"),
	       ctl_format_bytes(number_of(journal, "bytes"), a, sizeof(a)),
	       ctl_format_bytes(number_of(journal, "free_bytes"), b, sizeof(b)));
	json_array_foreach(json_object_get(status, "relayhosts"), i, item)
	{
		printf("relayhost  %s %s: %s, last success %s\n", text_of(item, "name"), text_of(item, "address"),
		       json_is_true(json_object_get(item, "up")) ? "up" : "DOWN", age_of(item, "last_success_sec", a));
		print_token(json_object_get(item, "token"));
	}
	if (json_array_size(json_object_get(status, "troubles")) > 0)
		printf("in trouble\n");
	json_array_foreach(json_object_get(status, "troubles"), i, item) print_trouble(item);
	printf("250 means  %s\n", text_of(status, "promise"));
}

int cmd_status(struct ctl *ctl, int argc, char **argv)
{
	json_t *status;
	int rc;

	(void)argv;
	if (argc > 1)
		return ctl_usage("status takes no arguments");
	rc = ctl_request(ctl, "status", NULL, &status);
	if (rc != CTL_OK)
		return rc;
	if (ctl->json)
		ctl_print_json(status);
	else
		print_status(status);
	json_decref(status);
	return CTL_OK;
}

int cmd_health(struct ctl *ctl, int argc, char **argv)
{
	bool mail = argc == 2 && strcmp(argv[1], "--mail") == 0;
	json_t *health;
	bool good;
	int rc;

	if (argc > 1 && !mail)
		return ctl_usage("health [--mail]");
	rc = ctl_request(ctl, mail ? "health?mail=1" : "health", NULL, &health);
	if (rc != CTL_OK)
		return rc;
	good = json_is_true(json_object_get(health, "ok"));
	if (ctl->json)
		ctl_print_json(health);
	else
		printf("%s\n", good ? "ok" : text_of(health, "reason"));
	json_decref(health);
	return good ? CTL_OK : CTL_FAILED;
}

/* ---- show ---- */

static void print_recipient(json_t *recipient)
{
	json_t *next = json_object_get(recipient, "next_attempt_sec");
	char wait[24];

	printf("  to       %s: %s", text_of(recipient, "address"), text_of(recipient, "outcome"));
	if (number_of(recipient, "attempts") > 0)
		printf(" after %lld attempt%s", (long long)number_of(recipient, "attempts"),
		       number_of(recipient, "attempts") == 1 ? "" : "s");
	printf("\n");
	if (text_of(recipient, "text")[0])
		printf("           %s (%s) %lld %s %s\n", text_of(recipient, "host"), text_of(recipient, "stage"),
		       (long long)number_of(recipient, "code"), text_of(recipient, "enhanced"),
		       text_of(recipient, "text"));
	if (json_is_integer(next))
		printf("           next attempt in %s%s%s\n",
		       ctl_format_age(json_integer_value(next), wait, sizeof(wait)),
		       text_of(recipient, "why")[0] ? ": " : "", text_of(recipient, "why"));
	else if (text_of(recipient, "why")[0])
		printf("           %s\n", text_of(recipient, "why"));
}

static void print_message(json_t *message)
{
	json_t *recipient;
	char age[24], bytes[24];
	size_t i;

	printf("%s %s, %s old, %s\n", text_of(message, "id"), text_of(message, "state"),
	       ctl_format_age(number_of(message, "age"), age, sizeof(age)),
	       ctl_format_bytes(number_of(message, "bytes"), bytes, sizeof(bytes)));
	printf("  from     %s\n", text_of(message, "sender")[0] ? text_of(message, "sender") : "<>");
	printf("  user     %s, class %s, by %s\n", text_of(message, "user")[0] ? text_of(message, "user") : "(trusted)",
	       text_of(message, "class"), text_of(message, "client"));
	if (text_of(message, "message_id")[0])
		printf("  message  %s\n", text_of(message, "message_id"));
	json_array_foreach(json_object_get(message, "recipients"), i, recipient) print_recipient(recipient);
}

int cmd_show(struct ctl *ctl, int argc, char **argv)
{
	struct buf path;
	json_t *message;
	int rc;

	if (argc != 2)
		return ctl_usage("show ID");
	buf_init(&path, 1024);
	buf_append_str(&path, "message");
	ctl_add_query(&path, "id", argv[1]);
	buf_append_byte(&path, '\0');
	rc = ctl_request(ctl, buf_slice(&path).ptr, NULL, &message);
	buf_fini(&path);
	if (rc != CTL_OK)
		return rc;
	if (ctl->json)
		ctl_print_json(message);
	else
		print_message(message);
	json_decref(message);
	return CTL_OK;
}
