/* config.c - the key table and what follows from it; see config.h. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(name, fixed, low, high, initial, help)                                        \
    {                                                                                       \
#name, CONFIG_COUNT, offsetof(struct config, name), fixed, low, high, initial, help \
    }
#define NUMBER(name, low, high, initial, help)                                              \
    {                                                                                       \
#name, CONFIG_NUMBER, offsetof(struct config, name), true, low, high, initial, help \
    }
#define MANY 1e15

const struct config_key config_keys[] = {
    COUNT(seed, true, 0, 9e15, "49", "seed of initial weights, block order and row order"),
    COUNT(batch_size, true, 1, 1e7, "2048", "rows a step"),
    COUNT(buffer_mult, true, 1, 1e9, "512", "the shuffle window holds batch_size * buffer_mult rows"),
    COUNT(num_tokens, true, 1, MANY, "4e8", "rows to train on; the last incomplete batch is not trained"),
    COUNT(dict_size, true, 1, 1e9, "65536", "number of latents, d_sae"),
    COUNT(model_batch_size, true, 1, 1e6, "4", "sequences a block, the unit that a producer computes"),
    NUMBER(lr, 0, 1e3, "2e-5", "learning rate of Adam"),
    NUMBER(l1_coeff, 0, 1e9, "2", "weight of the sparsity term"),
    NUMBER(beta1, 0, 0.9999999, "0.9", "Adam"),
    NUMBER(beta2, 0, 0.9999999999, "0.999", "Adam"),
    NUMBER(dec_init_norm, 0, 1e6, "0.005", "initial norm of each latent's decoder vector at each site"),
    NUMBER(eps, 0, 1, "1e-8", "Adam"),
    NUMBER(max_grad_norm, 1e-30, 1e30, "1", "the global gradient norm is clipped to this"),
    NUMBER(lr_warmup, 0, 1, "0.05", "share of the steps in which lr rises linearly"),
    NUMBER(lr_decay, 0, 1, "0.2", "share of the steps, the last ones, in which lr falls linearly to 0"),
    NUMBER(l1_warmup, 0, 1, "0.05", "share of the steps in which l1_coeff rises linearly"),
    COUNT(eval_blocks, true, 0, 500, "4", "blocks held out for evaluation, never trained on"),
    COUNT(scale_rows, true, 1, 1e9, "16384", "rows over which the scale is measured, at most one window"),
    COUNT(dead_rows, true, 1, MANY, "1e6", "a latent is dead when it has not fired for so many rows"),
    {"dtype", CONFIG_DTYPE, offsetof(struct config, dtype), true, 0, 0, "bf16",
     "of rows on the wire and in the window: bf16 or fp32"},
    {"scale", CONFIG_TEXT, offsetof(struct config, scale), true, 0, 0, "",
     "one number per site, comma-separated; default: measured"},
    COUNT(log_every, false, 1, MANY, "100", "steps between lines of metrics.jsonl"),
    COUNT(eval_every, false, 1, MANY, "1000", "steps between evaluations on the held-out blocks"),
    COUNT(save_every, false, 1, MANY, "10000", "steps between checkpoints"),
    COUNT(keep, false, 1, 1e6, "3", "checkpoints kept"),
    COUNT(lookahead_blocks, false, 0, 1e6, "4", "blocks that may arrive beyond one window"),
    COUNT(credit, false, 1, 64, "64",
          "the most blocks that one producer may hold: it starts with 2, and has more where the way is long"),
    COUNT(heartbeat_ms, false, 10, 1e6, "1000", "producers ping this often"),
    COUNT(timeout_ms, false, 50, 1e7, "10000", "a producer silent for so long is dropped"),
    {"audit", CONFIG_NUMBER, offsetof(struct config, audit), false, 0, 1, "0",
     "share of the blocks that are computed twice, by two producers if there are two, and compared"},
    {"audit_tolerance", CONFIG_NUMBER, offsetof(struct config, audit_tolerance), false, 0, 1e30, "0.02",
     "how far apart the two may be, relative to a vector's length; beyond, the run fails"},
    COUNT(wait_timeout, false, 0, 1e9, "0",
          "seconds to wait when there is no producer; then the run is saved and ends with status 1; 0: for ever"),
    COUNT(threads, false, 0, 4096, "0", "for the training step; 0: one a core"),
};
const size_t config_n_keys = sizeof config_keys / sizeof config_keys[0];

static void *value_of(const struct config *c, const struct config_key *k)
{
    return (unsigned char *)(uintptr_t)c + k->offset;
}

int config_set(struct config *c, size_t i, const char *text, struct err *e)
{
    const struct config_key *k = &config_keys[i];
    char *end;
    if (k->kind == CONFIG_TEXT) {
        float scale[STREAM_MAX_SITES];
        uint32_t n;
        if (strlen(text) >= CONFIG_TEXT_SIZE)
            return err_set(e, ERR_INPUT, "%s: %zu characters, at most %d", k->name, strlen(text), CONFIG_TEXT_SIZE - 1);
        if (*text && stream_parse_scale(text, scale, &n, e))
            return e->code;
        snprintf(value_of(c, k), CONFIG_TEXT_SIZE, "%s", text);
    } else if (k->kind == CONFIG_DTYPE) {
        if (row_dtype_parse(value_of(c, k), text, e))
            return e->code;
    } else {
        double x = strtod(text, &end);
        if (end == text || *end || !(x >= k->low && x <= k->high) || (k->kind == CONFIG_COUNT && x != floor(x)))
            return err_set(e, ERR_INPUT, "%s '%s': must be a %s from %g to %g", k->name, text,
                           k->kind == CONFIG_COUNT ? "whole number" : "number", k->low, k->high);
        if (k->kind == CONFIG_COUNT)
            *(uint64_t *)value_of(c, k) = (uint64_t)x;
        else
            *(double *)value_of(c, k) = x;
    }
    c->given |= UINT64_C(1) << i;
    return 0;
}

void config_init(struct config *c)
{
    struct err e;
    *c = (struct config){0};
    for (size_t i = 0; i < config_n_keys; i++)
        config_set(c, i, config_keys[i].initial, &e);
    c->given = 0;
}

static json_t *key_to_json(const struct config *c, const struct config_key *k)
{
    switch (k->kind) {
    case CONFIG_COUNT:
        return json_integer((json_int_t) * (uint64_t *)value_of(c, k));
    case CONFIG_NUMBER:
        return json_real(*(double *)value_of(c, k));
    case CONFIG_DTYPE:
        return json_string(row_dtype_name(*(enum row_dtype *)value_of(c, k)));
    default:
        return json_string(value_of(c, k));
    }
}

json_t *config_to_json(const struct config *c)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < config_n_keys; i++)
        if (json_object_set_new(object, config_keys[i].name, key_to_json(c, &config_keys[i]))) {
            json_decref(object);
            object = NULL;
        }
    return object;
}

/* The saved value as a flag's text. */
static int saved_text(const json_t *value, char text[CONFIG_TEXT_SIZE])
{
    if (json_is_integer(value))
        snprintf(text, CONFIG_TEXT_SIZE, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(text, CONFIG_TEXT_SIZE, "%.17g", json_real_value(value));
    else if (json_is_string(value))
        snprintf(text, CONFIG_TEXT_SIZE, "%s", json_string_value(value));
    else
        return -1;
    return 0;
}

int config_resume(struct config *c, const json_t *saved, const char *path, struct err *e)
{
    char text[CONFIG_TEXT_SIZE];
    for (size_t i = 0; i < config_n_keys; i++) {
        const struct config_key *k = &config_keys[i];
        const json_t *value = json_object_get(saved, k->name);
        struct config old = *c;
        if (!value && !k->fixed)
            continue; /* a key that is newer than the run */
        if (!value || saved_text(value, text) || config_set(&old, i, text, e))
            return err_set(e, ERR_INPUT, "%s: key %s is missing or wrong", path, k->name);
        bool given = c->given >> i & 1;
        if (!given) {
            old.given = c->given;
            *c = old;
            continue;
        }
        json_t *ours = key_to_json(c, k), *theirs = key_to_json(&old, k);
        bool same = ours && theirs && json_equal(ours, theirs);
        char *now = json_dumps(ours, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15)),
             *before = json_dumps(theirs, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        int rc = 0;
        if (k->fixed && !same)
            rc = err_set(e, ERR_MISMATCH, "cannot resume: %s is %s, the run in %s has %s", k->name, now ? now : "?",
                         path, before ? before : "?");
        free(now);
        free(before);
        json_decref(ours);
        json_decref(theirs);
        if (rc)
            return rc;
    }
    return 0;
}
