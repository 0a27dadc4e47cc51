/*
 * config/hostname.h - this machine's full name, found without asking the network
 *
 * gethostname(); when that has no dot, the first name with a dot on the line of /etc/hosts that has it (where Debian
 * and Docker put the full name); when there is none, the bare name. A resolver is never asked: that could block for
 * seconds, and a name that depends on the network's mood makes a bad EHLO.
 */
#ifndef CONFIG_HOSTNAME_H
#define CONFIG_HOSTNAME_H

#include "base/slice.h"

#define CONFIG_HOSTNAME_MAX 254

/* Pure: `node` is gethostname()'s, `hosts` the text of /etc/hosts. "localhost" when `node` is no host name at all. */
void config_hostname_choose(struct slice node, struct slice hosts, char out[CONFIG_HOSTNAME_MAX]);
void config_hostname_find(char out[CONFIG_HOSTNAME_MAX]);

#endif
