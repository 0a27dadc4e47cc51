/* Command lines. An address is judged by the grammar before it goes out, so nothing in it can become a command. */
#include "smtp/client_internal.h"

static bool is_ours_to_authenticate(const struct smtp_client *c)
{
	return c->authenticated_by != SASL_CLIENT_NONE;
}

/* ENVID, ORCPT and AUTH values: printable, no blanks; UTF-8 only where it is agreed on. */
static bool is_value(struct slice value, size_t max, bool may_be_utf8)
{
	if (value.len == 0 || value.len > max)
		return false;
	for (size_t i = 0; i < value.len; i++)
		if ((unsigned char)value.ptr[i] <= ' ' || value.ptr[i] == 0x7f ||
		    ((unsigned char)value.ptr[i] > 0x7f && !may_be_utf8))
			return false;
	return true;
}

static bool parse(struct slice address, struct smtp_mailbox *out)
{
	return smtp_parse_mailbox(address, SMTP_MAY_BE_UTF8 | SMTP_MAY_BE_BARE, out, NULL) == 0;
}

bool command_check_message(struct smtp_client *c, struct smtp_reply *out)
{
	const struct smtp_transaction *what = c->tx.what;
	const struct smtp_client_capabilities *offered = &c->offered;
	struct smtp_mailbox sender = {0};

	if (what->sender.len && !parse(what->sender, &sender))
		smtp_reply_set(out, 0, "5.1.7", "the sender's address cannot be sent");
	else if ((what->needs_smtputf8 || sender.is_utf8) && !offered->smtputf8)
		smtp_reply_set(out, 0, "5.6.7", "the message needs SMTPUTF8, which the next host does not offer");
	else if (what->has_8bit && !offered->eightbitmime)
		smtp_reply_set(out, 0, "5.6.3",
			       "the message has 8-bit text, and the next host does not offer 8BITMIME");
	else if (offered->size && offered->size_max && what->content_bytes > offered->size_max)
		smtp_reply_set(out, 0, "5.3.4", "the message is larger than the next host takes");
	else if (what->requiretls && !(c->is_tls && offered->requiretls))
		smtp_reply_set(out, 0, "5.7.30",
			       "the message requires TLS all the way, and the next host does not offer it");
	else
		return true;
	return false;
}

enum rcpt_state command_check_recipient(const struct smtp_client *c, const struct smtp_client_recipient *recipient)
{
	struct smtp_mailbox mailbox;

	if (!parse(recipient->address, &mailbox))
		return RCPT_BAD_ADDRESS;
	return mailbox.is_utf8 && !c->offered.smtputf8 ? RCPT_NEEDS_UTF8 : RCPT_OPEN;
}

static void queue_str(struct smtp_client *c, const char *text)
{
	client_queue(c, slice_of_str(text));
}

static void queue_param(struct smtp_client *c, const char *name, struct slice value)
{
	queue_str(c, name);
	client_queue(c, value);
}

static void queue_number(struct smtp_client *c, uint64_t number)
{
	char digits[24];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + number % 10);
	while (number /= 10);
	client_queue(c, slice_of(digits + at, sizeof(digits) - at));
}

static void queue_mail_dsn(struct smtp_client *c)
{
	const struct smtp_transaction *what = c->tx.what;

	if (!c->offered.dsn)
		return;
	if (what->ret != SMTP_DSN_RET_NONE)
		queue_str(c, what->ret == SMTP_DSN_RET_FULL ? " RET=FULL" : " RET=HDRS");
	if (is_value(what->envid, SMTP_ORCPT_MAX_BYTES, false))
		queue_param(c, " ENVID=", what->envid);
}

void command_mail(struct smtp_client *c)
{
	const struct smtp_transaction *what = c->tx.what;

	queue_param(c, "MAIL FROM:<", what->sender);
	queue_str(c, ">");
	if (c->offered.size && what->content_bytes) {
		queue_str(c, " SIZE=");
		queue_number(c, what->content_bytes);
	}
	if (what->has_8bit)
		queue_str(c, " BODY=8BITMIME");
	if (c->tx.smtputf8)
		queue_str(c, " SMTPUTF8");
	queue_mail_dsn(c);
	if (what->requiretls)
		queue_str(c, " REQUIRETLS");
	if (is_ours_to_authenticate(c) && is_value(what->auth, SMTP_ORCPT_MAX_BYTES, false))
		queue_param(c, " AUTH=", what->auth);
	queue_str(c, "\r\n");
}

static void queue_notify(struct smtp_client *c, unsigned notify)
{
	static const struct {
		unsigned bit;
		const char *word;
	} words[] = {{SMTP_DSN_SUCCESS, "SUCCESS"}, {SMTP_DSN_FAILURE, "FAILURE"}, {SMTP_DSN_DELAY, "DELAY"}};
	const char *before = " NOTIFY=";

	if (notify & SMTP_DSN_NEVER) {
		queue_str(c, " NOTIFY=NEVER");
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (!(notify & words[i].bit))
			continue;
		queue_str(c, before);
		queue_str(c, words[i].word);
		before = ",";
	}
}

void command_rcpt(struct smtp_client *c, const struct smtp_client_recipient *recipient)
{
	queue_param(c, "RCPT TO:<", recipient->address);
	queue_str(c, ">");
	if (c->offered.dsn) {
		queue_notify(c, recipient->notify);
		if (is_value(recipient->orcpt, SMTP_ORCPT_MAX_BYTES, c->tx.smtputf8))
			queue_param(c, " ORCPT=", recipient->orcpt);
	}
	queue_str(c, "\r\n");
}

void command_bdat(struct smtp_client *c)
{
	queue_str(c, "BDAT ");
	queue_number(c, c->tx.what->content_bytes);
	queue_str(c, " LAST\r\n");
}
