/* model_config.c - reads config.json by jansson; see model_config.h. */
#include "model_config.h"

#include <stddef.h>
#include <stdio.h>

#include "file.h"
#include "json_file.h"
#include "mem.h"

#define CONFIG_MAX_BYTES ((size_t)1 << 20)

int model_config_open(struct model_config *c, const char *folder, struct err *e)
{
    *c = (struct model_config){0};
    char *text = NULL;
    size_t size;
    int rc = file_join(c->path, sizeof c->path, folder, "config.json", e);
    if (!rc)
        rc = file_read_text(c->path, CONFIG_MAX_BYTES, &text, &size, e);
    if (rc)
        return rc;
    rc = json_parse(text, size, 0, &c->root, c->path, e);
    mem_free(text);
    if (rc)
        return rc;
    if (json_is_object(c->root))
        return 0;
    model_config_close(c);
    return err_set(e, ERR_INPUT, "%s/config.json: JSON, but not an object", folder);
}

void model_config_close(struct model_config *c)
{
    json_decref(c->root);
    *c = (struct model_config){0};
}

bool model_config_has(const struct model_config *c, const char *key)
{
    return json_object_get(c->root, key) != NULL;
}

const char *model_config_text(const struct model_config *c, const char *key)
{
    return json_string_value(json_object_get(c->root, key));
}

int model_config_wrong(const struct model_config *c, const char *key, const char *expected, struct err *e)
{
    const json_t *value = json_object_get(c->root, key);
    char *text = value ? json_text(value, JSON_COMPACT | JSON_ENCODE_ANY, c->path, e) : NULL;
    if (value && !text)
        return ERR_MEMORY;
    err_set(e, ERR_INPUT, "%s: %s is %.80s, expected %s", c->path, key, text ? text : "missing", expected);
    mem_free(text);
    return ERR_INPUT;
}

int model_config_size(const struct model_config *c, const char *key, uint32_t *out, struct err *e)
{
    const json_t *value = json_object_get(c->root, key);
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > INT32_MAX)
        return model_config_wrong(c, key, "an integer from 1 to 2147483647", e);
    *out = (uint32_t)json_integer_value(value);
    return 0;
}

int model_config_optional_size(const struct model_config *c, const char *key, uint32_t *out, struct err *e)
{
    const json_t *value = json_object_get(c->root, key);
    return value && !json_is_null(value) ? model_config_size(c, key, out, e) : 0;
}

int model_config_bool(const struct model_config *c, const char *key, bool *out, struct err *e)
{
    const json_t *value = json_object_get(c->root, key);
    if (value && !json_is_boolean(value))
        return model_config_wrong(c, key, "true or false", e);
    if (value)
        *out = json_is_true(value);
    return 0;
}

int model_config_number(const struct model_config *c, const char *key, double low, double below, float *out,
                        struct err *e)
{
    const json_t *value = json_object_get(c->root, key);
    char expected[64];
    snprintf(expected, sizeof expected, "a number in [%g, %g)", low, below);
    if (value && (!json_is_number(value) || !(json_number_value(value) >= low && json_number_value(value) < below)))
        return model_config_wrong(c, key, expected, e);
    if (value)
        *out = (float)json_number_value(value);
    return 0;
}
