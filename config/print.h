/*
 * config/print.h - what is in force, and where each value comes from: for `relayctl config`
 *
 * Secrets are masked: files are named, values from the environment are shown as "***".
 */
#ifndef CONFIG_PRINT_H
#define CONFIG_PRINT_H

#include "base/buf.h"
#include "config/config.h"

#include <jansson.h>

/* YAML as relayd.yaml would have it, each value with its origin as a comment: "# FILE:LINE", "# VARIABLE", "# default".
 * ERR_LIMIT: `out` has no room (1 MiB is plenty for all but giants). */
int config_print_yaml(const struct config *config, struct buf *out);
/*
 * {"file": ..., "config": {nested as in relayd.yaml}, "origins": {"limits.message_size": "default", ...}}. Numbers and
 * truth values are such; durations, sizes and rates are texts as in relayd.yaml. The caller owns the reference.
 */
json_t *config_print_json(const struct config *config);

#endif
