/* weights_file.c - moves tensors between a backend and the file, strip by strip; see weights_file.h. */
#include "weights_file.h"

#include <assert.h>
#include <string.h>

#include "mem.h"
#include "safetensors.h"

#define STRIP_BYTES ((size_t)4 << 20)

/* The tensors of the file, in its order. */
enum { W_ENC, W_DEC, B_ENC, B_DEC, SCALE, N_TENSORS };

static void describe(const struct backend_setup *s, struct tensor_spec specs[N_TENSORS])
{
    specs[W_ENC] = (struct tensor_spec){"W_enc", TENSOR_F32, 3, {s->n_sites, s->d_model, s->d_sae}};
    specs[W_DEC] = (struct tensor_spec){"W_dec", TENSOR_F32, 3, {s->d_sae, s->n_sites, s->d_model}};
    specs[B_ENC] = (struct tensor_spec){"b_enc", TENSOR_F32, 1, {s->d_sae}};
    specs[B_DEC] = (struct tensor_spec){"b_dec", TENSOR_F32, 2, {s->n_sites, s->d_model}};
    specs[SCALE] = (struct tensor_spec){"scale", TENSOR_F32, 1, {s->n_sites}};
}

/* A tensor of the file as a matrix [rows, columns], and the backend's range for some of its rows: of W_enc the file has the transpose. */
struct matrix {
    const char *name;
    size_t rows, columns;
    bool transposed;
};

static struct matrix matrix_of(const struct backend_setup *s, int tensor)
{
    size_t n_inputs = s->n_sites * s->d_model;
    switch (tensor) {
    case W_ENC:
        return (struct matrix){"W_enc", n_inputs, s->d_sae, true};
    case W_DEC:
        return (struct matrix){"W_dec", s->d_sae, n_inputs, false};
    case B_ENC:
        return (struct matrix){"b_enc", s->d_sae, 1, false};
    default:
        return (struct matrix){"b_dec", n_inputs, 1, false};
    }
}

static struct backend_range range_of(const struct matrix *m, size_t first, size_t n)
{
    if (m->transposed)
        return (struct backend_range){0, m->columns, first, n, true};
    return (struct backend_range){first, n, 0, m->columns, false};
}

/* Rows of a strip; at least 16, since 16 floats of W_enc are a cache line of the backend's. */
static size_t strip_rows(const struct matrix *m)
{
    assert(m->columns > 0);
    size_t rows = STRIP_BYTES / (m->columns * sizeof(float));
    rows = rows < 16 ? 16 : rows;
    return rows < m->rows ? rows : m->rows;
}

/* Allocates a strip that is large enough for every tensor. */
static float *new_strip(const struct backend_setup *s, struct err *e)
{
    size_t most = 0;
    for (int i = W_ENC; i < SCALE; i++) {
        struct matrix m = matrix_of(s, i);
        size_t floats = strip_rows(&m) * m.columns;
        most = floats > most ? floats : most;
    }
    return mem_alloc(most, sizeof(float), "strip of weights", e);
}

static int write_matrix(struct safetensors_writer *w, const struct backend *b, const struct matrix *m, float *strip,
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

int weights_file_write(const char *path, const struct backend *b, const float *scale, struct err *e)
{
    struct tensor_spec specs[N_TENSORS];
    struct safetensors_writer w;
    describe(&b->setup, specs);
    float *strip = new_strip(&b->setup, e);
    if (!strip)
        return ERR_MEMORY;
    int rc = safetensors_write_begin(&w, path, specs, N_TENSORS, NULL, 0, e);
    if (rc)
        goto out;
    for (int i = W_ENC; !rc && i < SCALE; i++) {
        struct matrix m = matrix_of(&b->setup, i);
        rc = write_matrix(&w, b, &m, strip, e);
    }
    if (rc || (rc = safetensors_write_data(&w, scale, b->setup.n_sites * sizeof *scale, e)) ||
        (rc = safetensors_write_commit(&w, e)))
        safetensors_write_abandon(&w);
out:
    mem_free(strip);
    return rc;
}

static int read_matrix(const struct safetensors *s, const struct tensor_view *t, struct backend *b,
                       const struct matrix *m, float *strip, struct err *e)
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

int weights_file_load(const char *path, struct backend *b, float *scale, struct err *e)
{
    struct tensor_spec specs[N_TENSORS];
    const struct tensor_view *views[N_TENSORS];
    struct safetensors s;
    float *strip = NULL;
    describe(&b->setup, specs);
    int rc = safetensors_open(&s, path, e);
    if (rc)
        return rc;
    for (size_t i = 0; !rc && i < N_TENSORS; i++)
        if (!(views[i] = safetensors_require(&s, specs[i].name, specs[i].n_dims, specs[i].shape, e)))
            rc = e->code;
    if (!rc && !(strip = new_strip(&b->setup, e)))
        rc = ERR_MEMORY;
    for (int i = W_ENC; !rc && i < SCALE; i++) {
        struct matrix m = matrix_of(&b->setup, i);
        rc = read_matrix(&s, views[i], b, &m, strip, e);
    }
    if (!rc)
        rc = tensor_to_f32(&s, views[SCALE], scale, e);
    mem_free(strip);
    safetensors_close(&s);
    return rc;
}
