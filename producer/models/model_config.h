/* model_config.h - config.json of a model folder, as Hugging Face writes it: its keys, read one by one.
 *
 * Every function that refuses a value names the file, the key, the value and what was expected. */
#ifndef CROSSFEED_MODEL_CONFIG_H
#define CROSSFEED_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "err.h"

struct model_config {
    char path[4096];
    json_t *root; /* an object */
};

/* Reads folder/config.json, of at most 1 MiB. Refuses what is not one JSON object. */
int model_config_open(struct model_config *c, const char *folder, struct err *e);
void model_config_close(struct model_config *c); /* safe on a zeroed struct */

/* Returns whether there is such a key, whatever its value. */
bool model_config_has(const struct model_config *c, const char *key);
/* Returns the value of a key, valid until close; NULL if it is absent or not a string. */
const char *model_config_text(const struct model_config *c, const char *key);

/* Reads an integer from 1 to 2147483647; a missing key is refused. */
int model_config_size(const struct model_config *c, const char *key, uint32_t *out, struct err *e);
/* As model_config_size, but *out keeps its default if the key is absent or null. */
int model_config_optional_size(const struct model_config *c, const char *key, uint32_t *out, struct err *e);
/* Reads true or false; *out keeps its default if the key is absent. */
int model_config_bool(const struct model_config *c, const char *key, bool *out, struct err *e);
/* Reads a number of at least `low` and less than `below`; *out keeps its default if the key is absent. */
int model_config_number(const struct model_config *c, const char *key, double low, double below, float *out,
                        struct err *e);

/* Refuses the value of a key ("missing" if there is none); returns ERR_INPUT. */
int model_config_wrong(const struct model_config *c, const char *key, const char *expected, struct err *e);

#endif
