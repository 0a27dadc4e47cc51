/* relayctl show - one message, with each attempt of each recipient. */
#include "base/base.h"
#include "relayctl/screen.h"

#include <stdio.h>

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
