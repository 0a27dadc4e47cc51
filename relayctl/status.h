/*
 * relayctl/status.h - the status document on a screen, for `status` once and for `top` again and again
 */
#ifndef RELAYCTL_STATUS_H
#define RELAYCTL_STATUS_H

#include "relayctl/screen.h"

void status_print(struct screen *screen, json_t *status);

#endif
