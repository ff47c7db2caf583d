/* weights_file.c - moves tensors between a backend and the file, strip by strip; see weights_file.h. */
#include "weights_file.h"

#include <assert.h>
#include <string.h>

#include "mem.h"
#include "safetensors.h"

#define STRIP_BYTES ((size_t)4 << 20)

/* A tensor of the file: its shape there, its name in the backend (NULL: it is the caller's scale or mean), and it as a matrix
 * [rows, columns]; of W_enc the file has the transpose of the backend's. */
struct entry {
    struct tensor_spec spec;
    const char *name;
    size_t rows, columns;
    bool transposed;
};

enum { MAX_ENTRIES = 8 };

/* Lists the tensors of a setup's file, in its order; returns how many. The mean is there if rows are centred. */
static size_t describe(const struct backend_setup *s, bool centred, struct entry out[MAX_ENTRIES])
{
    size_t n = 0, n_inputs = s->n_sites * s->d_model;
    out[n++] =
        (struct entry){{"W_enc", TENSOR_F32, 3, {s->n_sites, s->d_model, s->d_sae}}, "W_enc", n_inputs, s->d_sae, true};
    out[n++] = (struct entry){
        {"W_dec", TENSOR_F32, 3, {s->d_sae, s->n_sites, s->d_model}}, "W_dec", s->d_sae, n_inputs, false};
    out[n++] = (struct entry){{"b_enc", TENSOR_F32, 1, {s->d_sae}}, "b_enc", s->d_sae, 1, false};
    out[n++] = (struct entry){{"b_dec", TENSOR_F32, 2, {s->n_sites, s->d_model}}, "b_dec", n_inputs, 1, false};
    out[n++] = (struct entry){{"scale", TENSOR_F32, 1, {s->n_sites}}, NULL, s->n_sites, 1, false};
    if (centred)
        out[n++] = (struct entry){{"mean", TENSOR_F32, 2, {s->n_sites, s->d_model}}, NULL, n_inputs, 1, false};
    if (backend_has_thresholds(s))
        out[n++] = (struct entry){{"log_threshold", TENSOR_F32, 1, {s->d_sae}}, "log_threshold", s->d_sae, 1, false};
    if (backend_has_k(s))
        out[n++] = (struct entry){{"threshold", TENSOR_F32, 1, {1}}, "threshold", 1, 1, false};
    return n;
}

static struct backend_range range_of(const struct entry *m, size_t first, size_t n)
{
    if (m->transposed)
        return (struct backend_range){0, m->columns, first, n, true};
    return (struct backend_range){first, n, 0, m->columns, false};
}

/* Rows of a strip; at least 16, since 16 floats of W_enc are a cache line of the backend's. */
static size_t strip_rows(const struct entry *m)
{
    assert(m->columns > 0);
    size_t rows = STRIP_BYTES / (m->columns * sizeof(float));
    rows = rows < 16 ? 16 : rows;
    return rows < m->rows ? rows : m->rows;
}

/* Returns where a tensor that is not the backend's lies; NULL: it is not wanted. */
static float *of_rows(const struct entry *m, struct normalisation *n)
{
    return strcmp(m->spec.name, "scale") == 0 ? n->scale : n->mean;
}

/* Returns the floats of a strip that is large enough for every tensor. */
static size_t strip_floats(const struct entry *entries, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        size_t floats = strip_rows(&entries[i]) * entries[i].columns;
        most = floats > most ? floats : most;
    }
    return most;
}

static float *new_strip(const struct entry *entries, size_t n, struct err *e)
{
    return mem_alloc(strip_floats(entries, n), sizeof(float), "strip of weights", e);
}

size_t weights_file_memory(const struct backend_setup *s, bool centred)
{
    struct entry entries[MAX_ENTRIES];
    return strip_floats(entries, describe(s, centred, entries)) * sizeof(float);
}

static int write_matrix(struct safetensors_writer *w, const struct backend *b, const struct entry *m, float *strip,
                        struct err *e)
{
    size_t step = strip_rows(m);
    for (size_t first = 0; first < m->rows; first += step) {
        size_t n = m->rows - first < step ? m->rows - first : step;
        struct backend_range range = range_of(m, first, n);
        if (b->ops->get(b, m->name, &range, strip, e) ||
            safetensors_write_data(w, strip, n * m->columns * sizeof *strip, e))
            return e->code;
    }
    return 0;
}

static const char *const score_names[] = {"none", "norm", "norm-sum"};

/* What a reader must know besides the tensors; of relu with the squared error, the reference's, nothing. Returns the number of pairs. */
static size_t metadata_of(const struct backend_setup *s, const char *out[8])
{
    bool norms = strcmp(s->terms[0], "norm") == 0;
    size_t n = 0;
    if (strcmp(s->activation, "relu") == 0 && !norms)
        return 0;
    out[2 * n] = "activation";
    out[2 * n++ + 1] = s->activation;
    out[2 * n] = "reconstruction";
    out[2 * n++ + 1] = norms ? "norm" : "squared";
    if (backend_has_k(s)) {
        out[2 * n] = "score";
        out[2 * n++ + 1] = score_names[s->score];
    }
    return n;
}

size_t weights_file_bytes(const struct backend_setup *s, bool centred)
{
    struct entry entries[MAX_ENTRIES];
    size_t n = describe(s, centred, entries), floats = 0;
    for (size_t i = 0; i < n; i++)
        floats += entries[i].rows * entries[i].columns;
    return floats * sizeof(float);
}

int weights_file_write(const char *path, const struct backend *b, const struct normalisation *rows,
                       struct file_digest *digest, struct err *e)
{
    struct normalisation from = *rows;
    struct entry entries[MAX_ENTRIES];
    struct tensor_spec specs[MAX_ENTRIES];
    struct safetensors_writer w;
    const char *metadata[8];
    size_t n = describe(&b->setup, rows->centred, entries);
    for (size_t i = 0; i < n; i++)
        specs[i] = entries[i].spec;
    float *strip = new_strip(entries, n, e);
    if (!strip)
        return ERR_MEMORY;
    size_t pairs = metadata_of(&b->setup, metadata);
    int rc = safetensors_write_begin(&w, path, specs, n, pairs ? metadata : NULL, pairs, e);
    if (rc)
        goto out;
    for (size_t i = 0; !rc && i < n; i++)
        rc = entries[i].name
                 ? write_matrix(&w, b, &entries[i], strip, e)
                 : safetensors_write_data(&w, of_rows(&entries[i], &from), entries[i].rows * sizeof(float), e);
    if (rc || (rc = safetensors_write_commit(&w, e)))
        safetensors_write_abandon(&w);
    *digest = w.out.digest;
out:
    mem_free(strip);
    return rc;
}

static int read_matrix(const struct safetensors *s, const struct tensor_view *t, struct backend *b,
                       const struct entry *m, float *strip, struct err *e)
{
    size_t step = strip_rows(m), row_bytes = m->columns * tensor_dtype_size(t->dtype);
    for (size_t first = 0; first < m->rows; first += step) {
        size_t n = m->rows - first < step ? m->rows - first : step;
        struct tensor_view part = *t; /* these rows alone, so that tensor_to_f32 converts and checks them */
        part.n_dims = 2;
        part.shape[0] = n;
        part.shape[1] = m->columns;
        part.data = t->data + first * row_bytes;
        part.bytes = n * row_bytes;
        if (tensor_to_f32(s, &part, strip, e))
            return first ? err_prefix(e, "from row %zu of %zu on", first, m->rows) : e->code;
        struct backend_range range = range_of(m, first, n);
        if (b->ops->put(b, m->name, &range, strip, e))
            return e->code;
    }
    return 0;
}

/* Refuses the weights of another activation. */
static int check_activation(const struct safetensors *s, const struct backend_setup *setup, struct err *e)
{
    const char *activation = safetensors_metadata(s, "activation");
    activation = activation ? activation : "relu";
    if (strcmp(activation, setup->activation) != 0)
        return err_set(e, ERR_MISMATCH, "%s: activation is %s, the run's is %s", s->path, activation,
                       setup->activation);
    return 0;
}

/* Refuses the weights of rows that were centred for a run whose rows are not, and the reverse. */
static int check_mean(const struct safetensors *s, bool centred, struct err *e)
{
    bool has = safetensors_find(s, "mean") != NULL;
    if (has && !centred)
        return err_set(e, ERR_MISMATCH, "%s has a mean, which is subtracted from its rows; the run has center false",
                       s->path);
    if (!has && centred)
        return err_set(e, ERR_MISMATCH, "%s has no mean to subtract from its rows; the run has center true", s->path);
    return 0;
}

/* Fills b, and rows unless that is NULL. */
static int load(const char *path, struct backend *b, bool centred, struct normalisation *rows, struct err *e)
{
    struct entry entries[MAX_ENTRIES];
    const struct tensor_view *views[MAX_ENTRIES];
    struct safetensors s;
    float *strip = NULL;
    size_t n = describe(&b->setup, centred, entries);
    int rc = safetensors_open(&s, path, e);
    if (rc)
        return rc;
    rc = check_activation(&s, &b->setup, e);
    if (!rc)
        rc = check_mean(&s, centred, e);
    for (size_t i = 0; !rc && i < n; i++)
        if ((entries[i].name || rows) &&
            !(views[i] =
                  safetensors_require(&s, entries[i].spec.name, entries[i].spec.n_dims, entries[i].spec.shape, e)))
            rc = e->code;
    if (!rc && !(strip = new_strip(entries, n, e)))
        rc = ERR_MEMORY;
    for (size_t i = 0; !rc && i < n; i++)
        if (entries[i].name)
            rc = read_matrix(&s, views[i], b, &entries[i], strip, e);
        else if (rows && of_rows(&entries[i], rows))
            rc = tensor_to_f32(&s, views[i], of_rows(&entries[i], rows), e);
    mem_free(strip);
    safetensors_close(&s);
    return rc;
}

int weights_file_load(const char *path, struct backend *b, struct normalisation *rows, struct err *e)
{
    return load(path, b, rows->centred, rows, e);
}

int weights_file_load_weights(const char *path, struct backend *b, bool centred, struct err *e)
{
    return load(path, b, centred, NULL, e);
}

/* Reads the tensor of an opened file; *n 0 if there is none. */
static int read_scale(const struct safetensors *s, float *scale, uint32_t *n, struct err *e)
{
    const struct tensor_view *t = safetensors_find(s, "scale");
    *n = 0;
    if (!t)
        return 0;
    if (t->n_dims != 1 || t->shape[0] == 0 || t->shape[0] > STREAM_MAX_SITES)
        return err_set(e, ERR_INPUT, "%s: scale has %zu values in %zu dimensions, must be a vector of 1 to %d", s->path,
                       t->n_dims ? t->shape[0] : 0, t->n_dims, STREAM_MAX_SITES);
    if (tensor_to_f32(s, t, scale, e))
        return e->code;
    *n = (uint32_t)t->shape[0];
    for (uint32_t i = 0; i < *n; i++)
        if (!(scale[i] > 0))
            return err_set(e, ERR_INPUT, "%s: scale of site %u is %g, must be positive", s->path, i, (double)scale[i]);
    return 0;
}

int weights_file_scale(const char *path, float *scale, uint32_t *n, struct err *e)
{
    struct safetensors s;
    int rc = safetensors_open(&s, path, e);
    if (rc)
        return rc;
    rc = read_scale(&s, scale, n, e);
    safetensors_close(&s);
    return rc;
}

static int compare_scale(const struct safetensors *f, const struct normalisation *rows, const struct stream *s,
                         const char *advice, struct err *e)
{
    float scale[STREAM_MAX_SITES];
    uint32_t n;
    if (read_scale(f, scale, &n, e))
        return e->code;
    if (n == 0)
        return err_set(e, ERR_MISMATCH, "%s has no scale: %s", f->path, advice);
    if (n != s->n_sites)
        return err_set(e, ERR_MISMATCH, "%s has a scale of %u values, the run has %u sites: %s", f->path, n, s->n_sites,
                       advice);
    for (uint32_t i = 0; i < n; i++)
        if (scale[i] != rows->scale[i])
            return err_set(e, ERR_MISMATCH, "%s has scale %.9g at site %u (%s), the run has %.9g: %s", f->path,
                           (double)scale[i], i, s->sites[i], (double)rows->scale[i], advice);
    return 0;
}

static int compare_mean(const struct safetensors *f, const struct normalisation *rows, const struct stream *s,
                        const char *advice, struct err *e)
{
    const size_t shape[] = {s->n_sites, s->d_model}, n = shape[0] * shape[1];
    const struct tensor_view *t = safetensors_require(f, "mean", 2, shape, e);
    if (!t)
        return e->code;
    float *mean = mem_alloc(n, sizeof *mean, "mean of the rows", e);
    if (!mean)
        return ERR_MEMORY;
    int rc = tensor_to_f32(f, t, mean, e);
    for (size_t i = 0; i < n && rc == 0; i++)
        if (mean[i] != rows->mean[i])
            rc = err_set(e, ERR_MISMATCH, "%s has mean %.9g at site %zu (%s), dimension %zu, the run has %.9g: %s",
                         f->path, (double)mean[i], i / s->d_model, s->sites[i / s->d_model], i % s->d_model,
                         (double)rows->mean[i], advice);
    mem_free(mean);
    return rc;
}

int weights_file_compare(const char *path, const struct normalisation *rows, const struct stream *s, const char *advice,
                         struct err *e)
{
    struct safetensors f;
    int rc = safetensors_open(&f, path, e);
    if (rc)
        return rc;
    rc = compare_scale(&f, rows, s, advice, e);
    if (rc == 0 && rows->centred)
        rc = compare_mean(&f, rows, s, advice, e);
    safetensors_close(&f);
    return rc;
}
