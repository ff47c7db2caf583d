/* weights_file.c - see weights_file.h. */
#include "weights_file.h"

#include <string.h>

#include "mem.h"
#include "safetensors.h"

#define STRIP_BYTES ((size_t)4 << 20)

/* W_enc as the file has it is [n_inputs, d_sae]; a strip is some of its rows. 16 floats are a cache line of ours. */
static size_t strip_rows(const struct crosscoder *c)
{
    size_t rows = STRIP_BYTES / (c->d_sae * sizeof(float));
    rows = rows < 16 ? 16 : rows;
    return rows < c->n_inputs ? rows : c->n_inputs;
}

static int write_w_enc(struct safetensors_writer *w, const struct crosscoder *c, float *strip, struct err *e)
{
    size_t step = strip_rows(c);
    for (size_t first = 0; first < c->n_inputs; first += step) {
        size_t n = c->n_inputs - first < step ? c->n_inputs - first : step;
#pragma omp parallel for schedule(static)
        for (size_t j = 0; j < c->d_sae; j++)
            for (size_t i = 0; i < n; i++)
                strip[i * c->d_sae + j] = c->w_enc[j * c->n_inputs + first + i];
        int rc = safetensors_write_data(w, strip, n * c->d_sae * sizeof *strip, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_w_enc(const struct safetensors *s, const struct tensor_view *t, struct crosscoder *c, float *strip,
                      struct err *e)
{
    size_t step = strip_rows(c), row_bytes = c->d_sae * tensor_dtype_size(t->dtype);
    for (size_t first = 0; first < c->n_inputs; first += step) {
        size_t n = c->n_inputs - first < step ? c->n_inputs - first : step;
        struct tensor_view part = *t; /* rows first..first+n-1, so that tensor_to_f32 converts and checks them */
        part.n_dims = 2;
        part.shape[0] = n;
        part.shape[1] = c->d_sae;
        part.data = t->data + first * row_bytes;
        part.bytes = n * row_bytes;
        int rc = tensor_to_f32(s, &part, strip, e);
        if (rc)
            return err_prefix(e, "from row %zu of %zu on", first, c->n_inputs);
#pragma omp parallel for schedule(static)
        for (size_t j = 0; j < c->d_sae; j++)
            for (size_t i = 0; i < n; i++)
                c->w_enc[j * c->n_inputs + first + i] = strip[i * c->d_sae + j];
    }
    return 0;
}

/* The tensors of the file, in its order. */
enum { W_ENC, W_DEC, B_ENC, B_DEC, SCALE, N_TENSORS };

static void describe(const struct crosscoder *c, struct tensor_spec specs[N_TENSORS])
{
    specs[W_ENC] = (struct tensor_spec){"W_enc", TENSOR_F32, 3, {c->n_sites, c->d_model, c->d_sae}};
    specs[W_DEC] = (struct tensor_spec){"W_dec", TENSOR_F32, 3, {c->d_sae, c->n_sites, c->d_model}};
    specs[B_ENC] = (struct tensor_spec){"b_enc", TENSOR_F32, 1, {c->d_sae}};
    specs[B_DEC] = (struct tensor_spec){"b_dec", TENSOR_F32, 2, {c->n_sites, c->d_model}};
    specs[SCALE] = (struct tensor_spec){"scale", TENSOR_F32, 1, {c->n_sites}};
}

int weights_file_write(const char *path, const struct crosscoder *c, const float *scale, struct err *e)
{
    struct tensor_spec specs[N_TENSORS];
    struct safetensors_writer w;
    describe(c, specs);
    float *strip = mem_alloc(strip_rows(c) * c->d_sae, sizeof *strip, "strip of W_enc", e);
    if (!strip)
        return ERR_MEMORY;
    int rc = safetensors_write_begin(&w, path, specs, N_TENSORS, NULL, 0, e);
    if (rc)
        goto out;
    if ((rc = write_w_enc(&w, c, strip, e)) ||
        (rc = safetensors_write_data(&w, c->w_dec, c->d_sae * c->n_inputs * sizeof(float), e)) ||
        (rc = safetensors_write_data(&w, c->b_enc, c->d_sae * sizeof(float), e)) ||
        (rc = safetensors_write_data(&w, c->b_dec, c->n_inputs * sizeof(float), e)) ||
        (rc = safetensors_write_data(&w, scale, c->n_sites * sizeof(float), e)) ||
        (rc = safetensors_write_commit(&w, e)))
        safetensors_write_abandon(&w);
out:
    mem_free(strip);
    return rc;
}

int weights_file_load(const char *path, struct crosscoder *c, float *scale, struct err *e)
{
    struct tensor_spec specs[N_TENSORS];
    const struct tensor_view *views[N_TENSORS];
    struct safetensors s;
    float *strip = NULL;
    describe(c, specs);
    int rc = safetensors_open(&s, path, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < N_TENSORS; i++) {
        views[i] = safetensors_find(&s, specs[i].name);
        if (!views[i]) {
            rc = err_set(e, ERR_INPUT, "%s: no tensor %s", path, specs[i].name);
            goto out;
        }
        rc = tensor_expect_shape(&s, views[i], specs[i].n_dims, specs[i].shape, e);
        if (rc)
            goto out;
    }
    strip = mem_alloc(strip_rows(c) * c->d_sae, sizeof *strip, "strip of W_enc", e);
    if (!strip) {
        rc = ERR_MEMORY;
        goto out;
    }
    rc = read_w_enc(&s, views[W_ENC], c, strip, e);
    float *dst[N_TENSORS] = {[W_DEC] = c->w_dec, [B_ENC] = c->b_enc, [B_DEC] = c->b_dec, [SCALE] = scale};
    for (size_t i = W_DEC; !rc && i < N_TENSORS; i++)
        rc = tensor_to_f32(&s, views[i], dst[i], e);
out:
    mem_free(strip);
    safetensors_close(&s);
    return rc;
}
