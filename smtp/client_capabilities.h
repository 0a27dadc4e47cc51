/*
 * smtp/client_capabilities.h - what an EHLO reply offers
 *
 * Used by smtp/client.c. The lines are hostile: keywords in any case, unknown ones are skipped, a number that makes no
 * sense counts as not told.
 */
#ifndef SMTP_CLIENT_CAPABILITIES_H
#define SMTP_CLIENT_CAPABILITIES_H

#include "smtp/client.h"

/* From the reply that `parser` completed last. */
void smtp_client_capabilities_parse(struct smtp_client_capabilities *out, const struct smtp_reply_parser *parser);

#endif
