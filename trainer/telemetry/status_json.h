/* status_json.h - a snapshot of the status as JSON, as it stands in status.json. */
#ifndef CROSSFEED_STATUS_JSON_H
#define CROSSFEED_STATUS_JSON_H

#include <jansson.h>

#include "status.h"

/* Returns a new object, or NULL if there is no memory for it. What is not known is null in it. */
json_t *status_to_json(const struct status_snapshot *s);

#endif
