/* A token endpoint's answer: three octets of status, then the body. The secrets are those that a server may repeat. */
#include "base/base.h"
#include "config/secret.h"
#include "relayd/oauth2_grant.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const secrets[] = {"hunter2", NULL, "refresh"};

static void check_granted(const struct oauth2_answer *answer)
{
	size_t len = strlen(answer->access_token);

	BUG_ON(len == 0 || len > OAUTH2_TOKEN_MAX || answer->expires_in_sec <= 0);
	BUG_ON(strpbrk(answer->access_token, "\001\r\n ") != NULL);
	BUG_ON(answer->refresh_token && strpbrk(answer->refresh_token, "\001\r\n ") != NULL);
}

static void check_refused(const struct oauth2_answer *answer)
{
	BUG_ON(answer->access_token || answer->refresh_token || answer->words[0] == '\0');
	BUG_ON(strpbrk(answer->words, "\r\n\033") != NULL);
	for (size_t i = 0; i < ARRAY_LEN(secrets); i++)
		BUG_ON(secrets[i] && strstr(answer->words, secrets[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct oauth2_answer answer;
	char status[4] = "";

	if (size < 3)
		return 0;
	memcpy(status, data, 3);
	oauth2_read_answer(atoi(status), slice_of((const char *)data + 3, size - 3), secrets, ARRAY_LEN(secrets),
			   &answer);
	if (answer.verdict == OAUTH2_GRANTED)
		check_granted(&answer);
	else
		check_refused(&answer);
	config_secret_wipe(&answer.access_token);
	config_secret_wipe(&answer.refresh_token);
	return 0;
}
