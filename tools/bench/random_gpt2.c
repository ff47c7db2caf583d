/* random_gpt2.c - see random_gpt2.h. */
#include "random_gpt2.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "file.h"
#include "json_file.h"
#include "mem.h"
#include "rng.h"
#include "safetensors.h"

enum { PER_LAYER = 12, NAME_SIZE = 64 };

static int write_config(const char *folder, const struct random_gpt2 *c, struct err *e)
{
    char path[4096];
    if (file_join(path, sizeof path, folder, "config.json", e))
        return e->code;
    json_t *config =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:s, s:f}", "model_type", "gpt2", "vocab_size", (int)c->vocab_size,
                  "n_positions", (int)c->n_positions, "n_embd", (int)c->n_embd, "n_layer", (int)c->n_layer, "n_head",
                  (int)c->n_head, "activation_function", "gelu_new", "layer_norm_epsilon", 1e-5);
    int rc = config ? json_write(path, config, e) : err_set(e, ERR_MEMORY, "%s: out of memory", path);
    json_decref(config);
    return rc;
}

static void add(struct tensor_spec *t, char *name, size_t rows, size_t columns)
{
    *t = (struct tensor_spec){name, TENSOR_F32, rows ? 2 : 1, {rows ? rows : columns, columns}};
}

static void describe_layer(struct tensor_spec *t, char (*names)[NAME_SIZE], uint32_t layer, size_t d)
{
    const size_t inner = 4 * d;
    static const char *const tails[PER_LAYER] = {
        "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias",
        "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight",    "mlp.c_fc.bias",    "mlp.c_proj.weight",  "mlp.c_proj.bias"};
    const size_t shapes[PER_LAYER][2] = {{0, d}, {0, d}, {d, 3 * d}, {0, 3 * d}, {d, d},     {0, d},
                                         {0, d}, {0, d}, {d, inner}, {0, inner}, {inner, d}, {0, d}};
    for (size_t i = 0; i < PER_LAYER; i++) {
        snprintf(names[i], NAME_SIZE, "h.%" PRIu32 ".%s", layer, tails[i]);
        add(&t[i], names[i], shapes[i][0], shapes[i][1]);
    }
}

/* Writes the tensor's values: uniform of std 0.02, as cheap as random numbers come; a layer norm's weight is 1. */
static int write_values(struct safetensors_writer *w, const struct tensor_spec *t, uint64_t index, struct err *e)
{
    size_t rows = t->n_dims == 2 ? t->shape[0] : 1, columns = t->shape[t->n_dims - 1];
    bool norm = strstr(t->name, "ln_") && strstr(t->name, "weight");
    float *values = mem_alloc(rows * columns, sizeof *values, t->name, e);
    if (!values)
        return ERR_MEMORY;
#pragma omp parallel for
    for (size_t row = 0; row < rows; row++) {
        struct rng r;
        rng_init(&r, 11 + index, RNG_TEST, row);
        for (size_t i = 0; i < columns; i++)
            values[row * columns + i] = norm ? 1 : (float)(0.02 * 1.7320508 * (2 * rng_uniform(&r) - 1));
    }
    int rc = safetensors_write_data(w, values, rows * columns * sizeof *values, e);
    mem_free(values);
    return rc;
}

int random_gpt2_write(const char *folder, const struct random_gpt2 *c, struct err *e)
{
    char path[4096];
    size_t n = 2 + (size_t)c->n_layer * PER_LAYER;
    struct tensor_spec *tensors = mem_alloc(n, sizeof *tensors, "tensors", e);
    char(*names)[NAME_SIZE] = mem_alloc(n, sizeof *names, "names of tensors", e);
    struct safetensors_writer w;
    int rc = tensors && names ? 0 : ERR_MEMORY;
    if (!rc)
        rc = file_make_folder(folder, e);
    if (!rc)
        rc = write_config(folder, c, e);
    if (!rc)
        rc = file_join(path, sizeof path, folder, "model.safetensors", e);
    if (!rc) {
        strcpy(names[0], "wte.weight");
        strcpy(names[1], "wpe.weight");
        add(&tensors[0], names[0], c->vocab_size, c->n_embd);
        add(&tensors[1], names[1], c->n_positions, c->n_embd);
        for (uint32_t layer = 0; layer < c->n_layer; layer++) {
            size_t first = 2 + layer * PER_LAYER;
            describe_layer(tensors + first, names + first, layer, c->n_embd);
        }
        rc = safetensors_write_begin(&w, path, tensors, n, NULL, 0, e);
        for (size_t i = 0; !rc && i < n; i++)
            rc = write_values(&w, &tensors[i], i, e);
        if (!rc)
            rc = safetensors_write_commit(&w, e);
        if (rc)
            safetensors_write_abandon(&w);
    }
    mem_free(tensors);
    mem_free(names);
    return rc;
}
