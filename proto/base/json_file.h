/* json_file.h - a JSON object in a file: read whole, written atomically. */
#ifndef CROSSFEED_JSON_FILE_H
#define CROSSFEED_JSON_FILE_H

#include <jansson.h>

#include "err.h"

/* A new object, owned by the caller (json_decref). Refuses what is not one object, repeated keys, and more than 64 MB.
 */
int json_read_object(const char *path, json_t **value, struct err *e);

/* Indented, numbers with all their digits; appears complete or not at all (file.h). value is borrowed. */
int json_write(const char *path, const json_t *value, struct err *e);

/* A number, or null for NaN and infinity, which JSON lacks. */
json_t *json_real_or_null(double x);

#endif
