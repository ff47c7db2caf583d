/* model_load.c - finds, checks, converts and fingerprints the weights; see model_load.h.
 *
 * One function (take) does all of that for one tensor, in the fixed order in which the family names them; that order is
 * the fingerprint's. */
#include "model_load.h"

#include <assert.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "families.h"
#include "file.h"
#include "finite.h"
#include "mem.h"

#define NAME_SIZE 160 /* of a tensor */
#define ADAPTER_HELP                                                                                             \
    "adapters are not applied, and without it the activations would be the base model's; save the merged model " \
    "(merge_and_unload of peft)"

static int read_family(struct model *m, const struct model_config *c, struct err *e)
{
    const char *type = model_config_text(c, "model_type");
    char known[400] = "one that is known: ";
    for (size_t i = 0; families[i]; i++) {
        if (type && strcmp(type, families[i]->model_type) == 0) {
            m->family = families[i];
            return m->family->configure(m, c, e);
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", families[i]->model_type);
    }
    return model_config_wrong(c, "model_type", known, e);
}

int model_describe(struct model *m, const char *folder, struct err *e)
{
    *m = (struct model){0};
    snprintf(m->folder, sizeof m->folder, "%s", folder);
    struct model_config c;
    int rc = model_config_open(&c, folder, e);
    if (!rc)
        rc = read_family(m, &c, e);
    model_config_close(&c);
    if (rc)
        model_close(m);
    return rc;
}

/* ---- one tensor ---- */

static const struct tensor_view *find(const struct model *m, const char *name, const struct safetensors **file)
{
    char prefixed[2 * NAME_SIZE];
    snprintf(prefixed, sizeof prefixed, "%s%s", m->family->prefix, name);
    const struct tensor_view *t = hf_checkpoint_find(&m->checkpoint, prefixed, file);
    return t ? t : hf_checkpoint_find(&m->checkpoint, name, file);
}

/* Takes its mean from each of the rows of w [rows, d]. */
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

/* Sets *values to t in fp32, all finite: in place if that is possible and no copy is asked for, else a copy that the
 * model owns. */
static int values_of(struct model *m, const struct safetensors *file, const struct tensor_view *t, bool copy,
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

/* Gets what is wanted, under its full name. hash: NULL for a tensor that is not part of the fingerprint. */
static int take(struct model *m, const struct want *want, const char *name, struct fingerprint *hash, struct err *e)
{
    const struct safetensors *file;
    const struct tensor_view *t = find(m, name, &file);
    if (!t)
        return *m->family->prefix ? err_set(e, ERR_INPUT, "%s: no tensor %s, neither with nor without the prefix '%s'",
                                            m->folder, name, m->family->prefix)
                                  : err_set(e, ERR_INPUT, "%s: no tensor %s", m->folder, name);
    const size_t rows = want->rows ? want->rows : 1, shape[2] = {want->rows ? rows : want->columns, want->columns};
    bool center = m->centered && want->writes;
    int rc = tensor_expect_shape(file, t, want->rows ? 2 : 1, shape, e);
    if (!rc)
        rc = values_of(m, file, t, center, want->values, e);
    if (rc)
        return rc;
    if (hash) {
        fingerprint_add_text(hash, name);
        fingerprint_add(hash, *want->values, rows * want->columns * sizeof(float)); /* fits: the file holds it */
    }
    if (center) /* the last of owned is *values */
        center_rows(m->owned[m->n_owned - 1], rows, want->columns);
    return 0;
}

/* ---- all of them ---- */

static void layer_tensor_name(char name[NAME_SIZE], const struct model *m, uint32_t layer, const struct want *want)
{
    snprintf(name, NAME_SIZE, "%s%" PRIu32 ".%s", m->family->layer_prefix, layer, want->name);
}

static int take_layer(struct model *m, uint32_t layer, struct fingerprint *hash, struct err *e)
{
    struct want wants[MODEL_MAX_WANTS];
    struct layer *l = &m->layers[layer];
    char name[NAME_SIZE];
    m->family->describe(m, layer, l);
    size_t n = m->family->layer_tensors(m, l, wants);
    int rc = 0;
    assert(n <= MODEL_MAX_WANTS);
    for (size_t i = 0; !rc && i < n; i++) {
        layer_tensor_name(name, m, layer, &wants[i]);
        rc = take(m, &wants[i], name, hash, e);
    }
    return rc;
}

/* ---- what must not be left over ---- */

/* Returns what stands behind a layer's number in the name of a tensor, and sets *layer; NULL if the name has no such number.
 * Whatever stands before it: "base_model.model.transformer.h.5.attn.c_attn.weight" is a layer's, too. */
static const char *behind_layer(const char *name, const char *layer_prefix, unsigned long *layer)
{
    size_t length = strlen(layer_prefix);
    for (const char *at = name; (at = strstr(at, layer_prefix)); at++) {
        char *end;
        if ((at > name && at[-1] != '.') || at[length] < '0' || at[length] > '9')
            continue;
        *layer = strtoul(at + length, &end, 10);
        if (*end == '.')
            return end + 1;
    }
    return NULL;
}

/* Returns whether a tensor of a layer that the model has is taken, or is one of the family's constants. */
static bool is_used(const struct model *m, const struct tensor_view *t, uint32_t layer, const char *rest)
{
    struct want wants[MODEL_MAX_WANTS];
    struct layer l = {0};
    const struct safetensors *file;
    char name[NAME_SIZE];
    for (const char *const *c = m->family->layer_constants; c && *c; c++)
        if (strcmp(rest, *c) == 0)
            return true;
    m->family->describe(m, layer, &l);
    size_t n = m->family->layer_tensors(m, &l, wants);
    for (size_t i = 0; i < n; i++) {
        layer_tensor_name(name, m, layer, &wants[i]);
        if (strcmp(rest, wants[i].name) == 0 && find(m, name, &file) == t)
            return true;
    }
    return false;
}

/* Refuses a tensor that changes what the model computes but would not be used. */
static int check_tensor(const struct model *m, const struct safetensors *file, const struct tensor_view *t,
                        struct err *e)
{
    unsigned long layer;
    if (strncmp(t->name, "lora_", 5) == 0 || strstr(t->name, ".lora_"))
        return err_set(e, ERR_INPUT, "%s: tensor %s is an adapter's: " ADAPTER_HELP, file->path, t->name);
    const char *rest = behind_layer(t->name, m->family->layer_prefix, &layer);
    if (!rest)
        return 0;
    if (layer >= m->n_layer)
        return err_set(e, ERR_INPUT, "%s: holds tensor %s, but config.json says %" PRIu32 " layers", file->path,
                       t->name, m->n_layer);
    if (is_used(m, t, (uint32_t)layer, rest))
        return 0;
    return err_set(e, ERR_INPUT,
                   "%s: tensor %s belongs to a layer, but a %s model as config.json describes it has no use for it",
                   file->path, t->name, m->family->model_type);
}

static int check_unused(const struct model *m, struct err *e)
{
    for (size_t i = 0; i < m->checkpoint.n_files; i++) {
        const struct safetensors *file = &m->checkpoint.files[i];
        for (size_t k = 0; k < file->n_tensors; k++)
            if (check_tensor(m, file, &file->tensors[k], e))
                return e->code;
    }
    return 0;
}

/* Refuses a folder with an adapter that somebody means to be part of the model. */
static int check_adapter(const char *folder, struct err *e)
{
    static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"};
    char path[4096];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (file_join(path, sizeof path, folder, names[i], e))
            return e->code;
        if (access(path, F_OK) == 0)
            return err_set(e, ERR_INPUT, "%s is an adapter's: " ADAPTER_HELP, path);
    }
    return 0;
}

/* ---- the whole model ---- */

static int take_whole(struct model *m, size_t n, const struct want *wants, struct fingerprint *hash, struct err *e)
{
    int rc = 0;
    assert(n <= MODEL_MAX_WANTS);
    for (size_t i = 0; !rc && i < n; i++)
        rc = take(m, &wants[i], wants[i].name, hash, e);
    return rc;
}

static int take_all(struct model *m, bool head, struct err *e)
{
    struct want wants[MODEL_MAX_WANTS];
    struct fingerprint hash;
    char text[MODEL_TEXT_SIZE];
    int rc = check_unused(m, e);
    if (!rc)
        rc = fingerprint_init(&hash, e);
    if (rc)
        return rc;
    m->family->identify(m, text);
    fingerprint_add_text(&hash, text);
    m->embedding.d = m->d_model;
    rc = take_whole(m, m->family->embedding_tensors(m, wants), wants, &hash, e);
    for (uint32_t layer = 0; !rc && layer < m->n_layer; layer++)
        rc = take_layer(m, layer, &hash, e);
    fingerprint_finish(&hash, m->fingerprint);
    if (!rc && head) {
        m->head.vocab_size = m->vocab_size;
        rc = take_whole(m, m->family->head_tensors(m, wants), wants, NULL, e);
    }
    return rc;
}

/* Takes memory for as many layers as config.json claims, once the files are known to hold that many tensors. */
static int make_room(struct model *m, struct err *e)
{
    size_t n_layer = m->n_layer, n_tensors = 0;
    for (size_t i = 0; i < m->checkpoint.n_files; i++)
        n_tensors += m->checkpoint.files[i].n_tensors;
    if (n_layer > n_tensors)
        return err_set(e, ERR_INPUT, "%s/config.json: says %zu layers, but there are %zu tensors", m->folder, n_layer,
                       n_tensors);
    m->layers = mem_alloc(n_layer, sizeof *m->layers, "layers", e);
    m->owned = mem_alloc((n_layer + 2) * MODEL_MAX_WANTS, sizeof *m->owned, "layers", e);
    return m->layers && m->owned ? 0 : ERR_MEMORY;
}

static int check_options(struct model *m, const struct model_options *o, struct err *e)
{
    if (o->center_writing_weights && !m->family->can_center)
        return err_set(e, ERR_INPUT, "%s: centring its weights would change what a %s model computes", m->folder,
                       m->family->model_type);
    if (o->head && !m->family->head_tensors)
        return err_set(e, ERR_INPUT, "%s: a %s model has no head for logits", m->folder, m->family->model_type);
    m->centered = o->center_writing_weights;
    return 0;
}

int model_open(struct model *m, const char *folder, const struct model_options *o, struct err *e)
{
    static const struct model_options none;
    *m = (struct model){0};
    int rc = check_adapter(folder, e);
    if (!rc)
        rc = model_describe(m, folder, e);
    if (rc)
        return rc;
    rc = check_options(m, o ? o : &none, e);
    if (!rc)
        rc = hf_checkpoint_open(&m->checkpoint, folder, e);
    if (!rc)
        rc = make_room(m, e);
    if (!rc)
        rc = take_all(m, o && o->head, e);
    if (rc)
        model_close(m);
    return rc;
}
