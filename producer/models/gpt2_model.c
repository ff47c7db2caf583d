/* gpt2_model.c - finds, checks, converts and fingerprints the weights; see gpt2_model.h.
 *
 * One function (take) does all of that for one tensor, in the fixed order in which a forward pass meets them; that
 * order is the fingerprint's. */
#include "gpt2_model.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "file.h"
#include "finite.h"
#include "gpt2_bf16.h"
#include "mem.h"

#define TENSORS_PER_LAYER 12
#define NAME_SIZE 96

struct loader {
    struct gpt2_model *model;
    bool center;
    struct fingerprint hash;
};

static const struct tensor_view *find(const struct gpt2_model *m, const char *name, const struct safetensors **file)
{
    char prefixed[NAME_SIZE + 16];
    snprintf(prefixed, sizeof prefixed, "transformer.%s", name);
    const struct tensor_view *t = hf_checkpoint_find(&m->checkpoint, prefixed, file);
    return t ? t : hf_checkpoint_find(&m->checkpoint, name, file);
}

/* Each of the rows of w [rows, d] loses its mean. */
static void center_rows(float *w, size_t rows, size_t d)
{
#pragma omp parallel for
    for (size_t r = 0; r < rows; r++) {
        double sum = 0;
        for (size_t i = 0; i < d; i++)
            sum += (double)w[r * d + i];
        float mean = (float)(sum / (double)d);
        for (size_t i = 0; i < d; i++)
            w[r * d + i] -= mean;
    }
}

/* *values = t in fp32: in place if it can be, and no copy is asked for; else owned by the model. All finite. */
static int values_of(struct gpt2_model *m, const struct safetensors *file, const struct tensor_view *t, bool copy,
                     const float **values, struct err *e)
{
    if (t->dtype == TENSOR_F32 && !copy && (uintptr_t)t->data % sizeof(float) == 0) {
        const float *x = (const float *)(const void *)t->data;
        size_t n = t->bytes / sizeof(float), bad = finite_first_bad_f32(x, n);
        if (bad < n)
            return err_set(e, ERR_INPUT, "%s: tensor %s: element %zu is %g, must be finite", file->path, t->name, bad,
                           (double)x[bad]);
        *values = x;
        return 0;
    }
    size_t n;
    if (!size_product(t->shape, t->n_dims, &n))
        return err_set(e, ERR_MEMORY, "%s: tensor %s: its shape overflows a size", file->path, t->name);
    float *owned = mem_alloc(n, sizeof *owned, t->name, e);
    if (!owned)
        return ERR_MEMORY;
    m->owned[m->n_owned++] = owned;
    *values = owned;
    return tensor_to_f32(file, t, owned, e);
}

/* *values = the tensor, [rows, columns] or, with rows = 0, [columns]. writes: to the residual stream. */
static int take(struct loader *l, const float **values, const char *name, size_t rows, size_t columns, bool writes,
                struct err *e)
{
    const struct safetensors *file;
    const struct tensor_view *t = find(l->model, name, &file);
    if (!t)
        return err_set(e, ERR_INPUT, "%s: no tensor %s, neither with nor without the prefix 'transformer.'",
                       l->model->folder, name);
    const size_t shape[2] = {rows ? rows : columns, columns};
    bool center = l->center && writes;
    int rc = tensor_expect_shape(file, t, rows ? 2 : 1, shape, e);
    if (!rc)
        rc = values_of(l->model, file, t, center, values, e);
    if (rc)
        return rc;
    size_t n = (rows ? rows : 1) * columns; /* fits: the file holds it */
    fingerprint_add_text(&l->hash, name);
    fingerprint_add(&l->hash, *values, n * sizeof **values);
    if (center) /* the last of owned is *values */
        center_rows(l->model->owned[l->model->n_owned - 1], rows ? rows : 1, columns);
    return 0;
}

static int take_layer(struct loader *l, uint32_t layer, struct err *e)
{
    struct gpt2_layer *w = &l->model->layers[layer];
    size_t d = l->model->config.n_embd, inner = l->model->config.n_inner;
    const struct {
        const float **values;
        const char *name;
        size_t rows, columns;
        bool writes;
    } tensors[TENSORS_PER_LAYER] = {
        {&w->ln_1_weight, "ln_1.weight", 0, d, false},
        {&w->ln_1_bias, "ln_1.bias", 0, d, false},
        {&w->attn_c_attn_weight, "attn.c_attn.weight", d, 3 * d, false},
        {&w->attn_c_attn_bias, "attn.c_attn.bias", 0, 3 * d, false},
        {&w->attn_c_proj_weight, "attn.c_proj.weight", d, d, true},
        {&w->attn_c_proj_bias, "attn.c_proj.bias", 0, d, true},
        {&w->ln_2_weight, "ln_2.weight", 0, d, false},
        {&w->ln_2_bias, "ln_2.bias", 0, d, false},
        {&w->mlp_c_fc_weight, "mlp.c_fc.weight", d, inner, false},
        {&w->mlp_c_fc_bias, "mlp.c_fc.bias", 0, inner, false},
        {&w->mlp_c_proj_weight, "mlp.c_proj.weight", inner, d, true},
        {&w->mlp_c_proj_bias, "mlp.c_proj.bias", 0, d, true},
    };
    for (size_t i = 0; i < TENSORS_PER_LAYER; i++) {
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "h.%" PRIu32 ".%s", layer, tensors[i].name);
        int rc = take(l, tensors[i].values, name, tensors[i].rows, tensors[i].columns, tensors[i].writes, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int take_all(struct loader *l, struct err *e)
{
    struct gpt2_model *m = l->model;
    const struct gpt2_config *c = &m->config;
    char text[256], beyond[NAME_SIZE];
    const struct safetensors *file;
    snprintf(beyond, sizeof beyond, "h.%" PRIu32 ".ln_1.weight", c->n_layer);
    if (find(m, beyond, &file))
        return err_set(e, ERR_INPUT, "%s: holds tensor %s, but config.json says n_layer %" PRIu32, file->path, beyond,
                       c->n_layer);
    snprintf(text, sizeof text,
             "gpt2 vocab %" PRIu32 " positions %" PRIu32 " d %" PRIu32 " layers %" PRIu32 " heads %" PRIu32
             " inner %" PRIu32 " activation %s epsilon %.9g scaled %d inverse %d centered %d",
             c->vocab_size, c->n_positions, c->n_embd, c->n_layer, c->n_head, c->n_inner,
             gpt2_activation_name(c->activation), (double)c->layer_norm_epsilon, c->scale_attn_weights,
             c->scale_attn_by_inverse_layer_idx, l->center);
    fingerprint_add_text(&l->hash, text);
    int rc = take(l, &m->wte, "wte.weight", c->vocab_size, c->n_embd, true, e);
    if (!rc)
        rc = take(l, &m->wpe, "wpe.weight", c->n_positions, c->n_embd, true, e);
    for (uint32_t layer = 0; !rc && layer < c->n_layer; layer++)
        rc = take_layer(l, layer, e);
    return rc;
}

int gpt2_model_open(struct gpt2_model *m, const char *folder, bool center_writing_weights, struct err *e)
{
    *m = (struct gpt2_model){0};
    struct loader l = {.model = m, .center = center_writing_weights};
    char path[4096];
    int rc = file_join(path, sizeof path, folder, "config.json", e);
    snprintf(m->folder, sizeof m->folder, "%s", folder);
    if (!rc)
        rc = gpt2_config_read(&m->config, path, e);
    if (!rc)
        rc = hf_checkpoint_open(&m->checkpoint, folder, e);
    if (rc)
        goto out;
    size_t n_layer = m->config.n_layer, n_tensors = 0;
    for (size_t i = 0; i < m->checkpoint.n_files; i++)
        n_tensors += m->checkpoint.files[i].n_tensors;
    if (n_layer > n_tensors) { /* before memory is taken for them */
        rc = err_set(e, ERR_INPUT, "%s: n_layer %zu, but there are %zu tensors", path, n_layer, n_tensors);
        goto out;
    }
    m->layers = mem_alloc(n_layer, sizeof *m->layers, "layers", e);
    m->owned = mem_alloc(2 + n_layer * TENSORS_PER_LAYER, sizeof *m->owned, "layers", e);
    rc = m->layers && m->owned ? fingerprint_init(&l.hash, e) : ERR_MEMORY;
    if (rc)
        goto out;
    rc = take_all(&l, e);
    fingerprint_finish(&l.hash, m->fingerprint);
out:
    if (rc)
        gpt2_model_close(m);
    return rc;
}

void gpt2_model_close(struct gpt2_model *m)
{
    for (size_t i = 0; i < m->n_owned; i++)
        mem_free(m->owned[i]);
    mem_free(m->owned);
    gpt2_bf16_release(m);
    mem_free(m->layers);
    hf_checkpoint_close(&m->checkpoint);
    *m = (struct gpt2_model){0};
}
