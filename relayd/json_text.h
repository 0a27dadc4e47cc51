/*
 * relayd/json_text.h - text of strangers as a JSON string
 */
#ifndef RELAYD_JSON_TEXT_H
#define RELAYD_JSON_TEXT_H

#include "base/slice.h"

#include <jansson.h>

/* What is no well-formed UTF-8, and what terminals would obey, is replaced (U+FFFD); a tab is a blank. A new reference. */
json_t *json_clean_text(struct slice text);

#endif
