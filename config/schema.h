/*
 * config/schema.h - a JSON schema of relayd.yaml, for editors and for checks before a deployment
 *
 * Made from the table of keys; contrib/schema/relayd.schema.json is its output.
 */
#ifndef CONFIG_SCHEMA_H
#define CONFIG_SCHEMA_H

#include <jansson.h>

/* The caller owns the reference. */
json_t *config_schema_json(void);

#endif
