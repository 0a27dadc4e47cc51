/* What a message says: the same octets whenever it is asked, so that a server can tell whether it has got them all. */
#ifndef TEST_SIM_LETTER_H
#define TEST_SIM_LETTER_H

#include "base/buf.h"
#include "test/sim/ledger.h"

/* Header and body as the client sends them; with lines that begin with dots. */
void letter_write(const struct truth_message *message, struct buf *out);
/* `content` as a server got it: what the relay puts before it, then the letter, whole, and nothing else. */
bool letter_is_whole(const struct truth_message *message, struct slice content);
/* What the relay puts before it. */
#define LETTER_PREFIX "Received: from app by relay.test; today\r\n"

#endif
