/* gpt2_config.c - reads config.json by jansson; see gpt2_config.h. Where a key may be absent, the default is
 * GPT2Config's own; the five sizes have none here, as a guessed n_head would give wrong activations and no error. */
#include "gpt2_config.h"

#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

#define CONFIG_MAX_BYTES ((size_t)1 << 20)

static const struct {
    const char *name;
    enum gpt2_activation activation;
} activations[] = {
    {"gelu_new", GPT2_GELU_TANH},  {"gelu", GPT2_GELU_ERF},        {"relu", GPT2_RELU},
    {"gelu_fast", GPT2_GELU_TANH}, {"gelu_python", GPT2_GELU_ERF}, {"gelu_pytorch_tanh", GPT2_GELU_TANH},
};
#define N_ACTIVATIONS (sizeof activations / sizeof *activations)

const char *gpt2_activation_name(enum gpt2_activation activation)
{
    size_t i = 0;
    while (activations[i].activation != activation)
        i++;
    return activations[i].name;
}

static int wrong(struct err *e, const char *path, const char *key, const json_t *value, const char *expected)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    err_set(e, ERR_INPUT, "%s: %s is %.80s, expected %s", path, key, text ? text : "missing", expected);
    free(text);
    return ERR_INPUT;
}

static int read_size(uint32_t *out, const json_t *root, const char *key, const char *path, struct err *e)
{
    const json_t *value = json_object_get(root, key);
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > INT32_MAX)
        return wrong(e, path, key, value, "an integer from 1 to 2147483647");
    *out = (uint32_t)json_integer_value(value);
    return 0;
}

/* *out keeps its default if the key is absent. */
static int read_bool(bool *out, const json_t *root, const char *key, const char *path, struct err *e)
{
    const json_t *value = json_object_get(root, key);
    if (value && !json_is_boolean(value))
        return wrong(e, path, key, value, "true or false");
    if (value)
        *out = json_is_true(value);
    return 0;
}

static int read_activation(enum gpt2_activation *out, const json_t *root, const char *path, struct err *e)
{
    const json_t *value = json_object_get(root, "activation_function");
    if (!value)
        return 0;
    for (size_t i = 0; json_is_string(value) && i < N_ACTIVATIONS; i++)
        if (strcmp(json_string_value(value), activations[i].name) == 0) {
            *out = activations[i].activation;
            return 0;
        }
    return wrong(e, path, "activation_function", value, "gelu_new, gelu or relu");
}

static int read_root(struct gpt2_config *c, const json_t *root, const char *path, struct err *e)
{
    const json_t *type = json_object_get(root, "model_type"), *inner = json_object_get(root, "n_inner"),
                 *epsilon = json_object_get(root, "layer_norm_epsilon");
    if (!json_is_string(type) || strcmp(json_string_value(type), "gpt2") != 0)
        return wrong(e, path, "model_type", type, "\"gpt2\"");
    const char *positions = json_object_get(root, "n_positions") ? "n_positions" : "n_ctx";
    if (read_size(&c->vocab_size, root, "vocab_size", path, e) || read_size(&c->n_embd, root, "n_embd", path, e) ||
        read_size(&c->n_layer, root, "n_layer", path, e) || read_size(&c->n_head, root, "n_head", path, e) ||
        read_size(&c->n_positions, root, positions, path, e))
        return ERR_INPUT;
    if (c->n_embd % c->n_head != 0)
        return err_set(e, ERR_INPUT, "%s: n_embd %" PRIu32 " is not a multiple of n_head %" PRIu32, path, c->n_embd,
                       c->n_head);
    c->n_inner = c->n_embd > UINT32_MAX / 4 ? UINT32_MAX : 4 * c->n_embd;
    if (inner && !json_is_null(inner) && read_size(&c->n_inner, root, "n_inner", path, e))
        return ERR_INPUT;
    if (epsilon && (!json_is_number(epsilon) || !(json_number_value(epsilon) >= 0 && json_number_value(epsilon) < 1)))
        return wrong(e, path, "layer_norm_epsilon", epsilon, "a number in [0, 1)");
    if (epsilon)
        c->layer_norm_epsilon = (float)json_number_value(epsilon);
    bool cross_attention = false;
    if (read_activation(&c->activation, root, path, e) ||
        read_bool(&c->scale_attn_weights, root, "scale_attn_weights", path, e) ||
        read_bool(&c->scale_attn_by_inverse_layer_idx, root, "scale_attn_by_inverse_layer_idx", path, e) ||
        read_bool(&cross_attention, root, "add_cross_attention", path, e))
        return ERR_INPUT;
    return cross_attention ? err_set(e, ERR_INPUT, "%s: add_cross_attention is true, expected false", path) : 0;
}

int gpt2_config_read(struct gpt2_config *c, const char *path, struct err *e)
{
    *c = (struct gpt2_config){.activation = GPT2_GELU_TANH, .layer_norm_epsilon = 1e-5f, .scale_attn_weights = true};
    char *text = NULL;
    size_t size;
    int rc = file_read_text(path, CONFIG_MAX_BYTES, &text, &size, e);
    if (rc)
        return rc;
    json_error_t je;
    json_t *root = json_loadb(text, size, 0, &je);
    free(text);
    if (!root)
        return err_set(e, ERR_INPUT, "%s: line %d: %s", path, je.line, je.text);
    rc =
        json_is_object(root) ? read_root(c, root, path, e) : err_set(e, ERR_INPUT, "%s: JSON, but not an object", path);
    json_decref(root);
    return rc;
}
