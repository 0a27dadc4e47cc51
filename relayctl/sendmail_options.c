/*
 * The arguments of sendmail(8), with getopt: values glued or apart, flags together, options before and behind the
 * recipients. What we have no use for is passed over, with its value, as all sendmails do: -A -B -C -D -G -h -I -L -m
 * -M -n -O -p -U -v -X -e, and -o but for -oi.
 */
#include "base/base.h"
#include "relayctl/sendmail.h"

#include <ctype.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

static int take_mode(struct sendmail *s, const char *mode)
{
	switch (mode[0]) {
	case 'm': s->mode = SENDMAIL_MESSAGE; return EX_OK;
	case 's': s->mode = SENDMAIL_SMTP; return EX_OK;
	case 'p': s->mode = SENDMAIL_QUEUE; return EX_OK;
	case 'i': s->mode = SENDMAIL_NOTHING; return EX_OK;
	default: return sendmail_complain(EX_USAGE, "of -b only -bm, -bs, -bp and -bi are known; the daemon is relayd");
	}
}

/* Of RFC 3461, in any case. */
static int take_dsn(struct sendmail *s, int option, const char *value)
{
	char upper[64];
	size_t i;

	for (i = 0; value[i] && i + 1 < sizeof(upper); i++)
		upper[i] = (char)toupper((unsigned char)value[i]);
	upper[i] = '\0';
	if (option == 'N' && smtp_parse_notify(slice_of_str(upper), &s->notify) != 0)
		return sendmail_complain(EX_USAGE, "-N takes never, or a list of success, failure and delay");
	if (option == 'R' && smtp_parse_ret(slice_of_str(upper), &s->ret) != 0)
		return sendmail_complain(EX_USAGE, "-R takes full or hdrs");
	return EX_OK;
}

static int take_envid(struct sendmail *s, const char *value)
{
	buf_clear(&s->envid);
	smtp_xtext_encode(&s->envid, slice_of_str(value));
	if (!smtp_is_envid(buf_slice(&s->envid)))
		return sendmail_complain(EX_USAGE, "-V takes an envelope id of printable characters");
	return buf_append_byte(&s->envid, '\0') == 0 ? EX_OK : EX_USAGE;
}

static int take_option(struct sendmail *s, int option)
{
	switch (option) {
	case 'f':
	case 'r': s->sender = optarg; return EX_OK;
	case 'F': s->full_name = optarg; return EX_OK;
	case 't': s->from_header = true; return EX_OK;
	case 'i': s->ignore_dots = true; return EX_OK;
	case 'o': s->ignore_dots |= strcmp(optarg, "i") == 0; return EX_OK;
	case 'b': return take_mode(s, optarg);
	case 'N':
	case 'R': return take_dsn(s, option, optarg);
	case 'V': return take_envid(s, optarg);
	case 'q': s->mode = SENDMAIL_FLUSH; return EX_OK;
	case 'I': s->mode = SENDMAIL_NOTHING; return EX_OK;
	case ':': return sendmail_complain(EX_USAGE, "the last option lacks its value");
	default: return EX_OK;
	}
}

int sendmail_take_arguments(struct sendmail *s, int argc, char **argv)
{
	int option, rc = EX_OK;

	opterr = 0;
	while (rc == EX_OK &&
	       (option = getopt(argc, argv, ":A:B:C:D:F:GIL:M:N:O:R:UV:X:b:cd::e:f:h:imno:p:q::r:stvx")) != -1)
		rc = take_option(s, option);
	for (int i = optind; rc == EX_OK && s->mode == SENDMAIL_MESSAGE && i < argc; i++)
		rc = sendmail_add_recipients(s, slice_of_str(argv[i]));
	return rc;
}
