/* resample.c - see resample.h. The backend's tensors are read in strips and written latent by latent: rare, so plain. */
#include "resample.h"

#include <math.h>
#include <string.h>

#include "mem.h"
#include "rng.h"

#define STRIP_FLOATS ((size_t)1 << 20)
#define ENCODER_SHARE 0.2

struct work {
    uint64_t *ages; /* [d_sae] */
    float *strip;   /* [strip_rows, n_inputs] */
    double *until;  /* [batch_size] sums of the rows' squared errors, up to and with each row */
    size_t n_inputs, strip_rows, n_alive;
    double encoder_norm, decoder_norm; /* means over the latents that are alive */
};

/* Computes the mean norm of a matrix's rows that belong to latents which are alive. */
static int mean_norm(const struct backend *b, const char *name, struct work *w, uint64_t dead_rows, double *mean,
                     struct err *e)
{
    size_t d_sae = b->setup.d_sae;
    double sum = 0;
    w->n_alive = 0;
    for (size_t first = 0, n; first < d_sae; first += n) {
        n = d_sae - first < w->strip_rows ? d_sae - first : w->strip_rows;
        const struct backend_range range = {.row = first, .n_rows = n, .n_columns = w->n_inputs};
        if (b->ops->get(b, name, &range, w->strip, e))
            return e->code;
        for (size_t j = 0; j < n; j++) {
            if (w->ages[first + j] >= dead_rows)
                continue;
            double squares = 0;
            for (size_t i = 0; i < w->n_inputs; i++)
                squares += (double)w->strip[j * w->n_inputs + i] * (double)w->strip[j * w->n_inputs + i];
            sum += sqrt(squares);
            w->n_alive++;
        }
    }
    *mean = w->n_alive ? sum / (double)w->n_alive : 0;
    return 0;
}

/* Sums the rows' squared errors. */
static int measure_errors(struct backend *b, const float *x, struct work *w, struct err *e)
{
    size_t rows = b->setup.batch_size, n_sites = b->setup.n_sites, taken;
    double sum = 0;
    for (size_t first = 0; first < rows; first += taken) {
        struct pass_report r;
        if (b->ops->encode(b, x + first * w->n_inputs, rows - first, ENCODE_BY_K, &taken, e) ||
            b->ops->decode(b, x + first * w->n_inputs, taken, &r, e))
            return e->code;
        for (size_t row = 0; row < taken; row++) {
            for (size_t site = 0; site < n_sites; site++)
                sum += r.row_residual2[row * n_sites + site];
            w->until[first + row] = sum;
        }
    }
    return 0;
}

static size_t draw(const struct work *w, size_t rows, struct rng *r)
{
    double at = rng_uniform(r) * w->until[rows - 1];
    size_t row = 0;
    while (row + 1 < rows && w->until[row] <= at)
        row++;
    return row;
}

static int put_row(struct backend *b, const char *matrix, size_t latent, const float *v, size_t n, struct err *e)
{
    return b->ops->put(b, matrix, &(struct backend_range){.row = latent, .n_rows = 1, .n_columns = n}, v, e);
}

/* Clears both moments of elements [first, first + n) of the parameters. zeros: [n]. */
static int clear_moments(struct backend *b, size_t first, size_t n, const float *zeros, struct err *e)
{
    const struct backend_range range = {.row = first, .n_rows = n, .n_columns = 1};
    return b->ops->put(b, "adam_m", &range, zeros, e) ? e->code : b->ops->put(b, "adam_v", &range, zeros, e);
}

/* Gives latent j a new vector, v [n_inputs] scratch; row: of x. */
static int start_anew(struct backend *b, const struct work *w, size_t j, const float *row, float *v, float *zeros,
                      struct err *e)
{
    const struct backend_setup *s = &b->setup;
    size_t n = w->n_inputs, matrix = s->d_sae * n;
    double squares = 0;
    for (size_t i = 0; i < n; i++) {
        v[i] = backend_may_see(s, j, i / s->d_model) ? row[i] : 0;
        squares += (double)v[i] * (double)v[i];
    }
    double unit = squares > 0 ? 1 / sqrt(squares) : 0;
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(ENCODER_SHARE * w->encoder_norm * unit * (double)v[i]);
    if (put_row(b, "W_enc", j, v, n, e))
        return e->code;
    double factor = w->encoder_norm > 0 ? w->decoder_norm / (ENCODER_SHARE * w->encoder_norm) : 0;
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(factor * (double)v[i]);
    if (j < s->partition.shared) /* one vector for both models */
        memcpy(v + n / 2, v, n / 2 * sizeof *v);
    if (put_row(b, "W_dec", j, v, n, e) || put_row(b, "b_enc", j, zeros, 1, e) ||
        clear_moments(b, j * n, n, zeros, e) || clear_moments(b, matrix + j * n, n, zeros, e) ||
        clear_moments(b, 2 * matrix + j, 1, zeros, e))
        return e->code;
    return 0;
}

/* Latents whose vectors are read at a time. */
static size_t strip_rows(const struct backend_setup *s)
{
    size_t rows = STRIP_FLOATS / (s->n_sites * s->d_model) + 1;
    return rows < s->d_sae ? rows : s->d_sae;
}

size_t resample_memory(const struct backend_setup *s)
{
    return s->d_sae * sizeof(uint64_t) + (strip_rows(s) + 2) * s->n_sites * s->d_model * sizeof(float) +
           s->batch_size * sizeof(double);
}

int resample(struct backend *b, const float *x, uint64_t dead_rows, uint64_t seed, size_t *n, struct err *e)
{
    const struct backend_setup *s = &b->setup;
    struct work w = {.n_inputs = s->n_sites * s->d_model};
    float *v = NULL;
    struct rng r;
    *n = 0;
    w.strip_rows = strip_rows(s);
    rng_init(&r, seed, RNG_RESAMPLE, b->step);
    int rc = ERR_MEMORY;
    if (!(w.ages = mem_alloc(s->d_sae, sizeof *w.ages, "ages of the latents", e)) ||
        !(w.strip = mem_alloc(w.strip_rows * w.n_inputs, sizeof *w.strip, "strip of weights", e)) ||
        !(w.until = mem_alloc(s->batch_size, sizeof *w.until, "errors of the rows", e)) ||
        !(v = mem_alloc(2 * w.n_inputs, sizeof *v, "vector of a latent", e)))
        goto out;
    if ((rc = backend_get_all(b, "rows_since_fired", w.ages, e)) ||
        (rc = mean_norm(b, "W_enc", &w, dead_rows, &w.encoder_norm, e)) ||
        (rc = mean_norm(b, "W_dec", &w, dead_rows, &w.decoder_norm, e)) || (rc = measure_errors(b, x, &w, e)))
        goto out;
    for (size_t j = 0; !rc && w.n_alive > 0 && j < s->d_sae; j++)
        if (w.ages[j] >= dead_rows) {
            const uint64_t young = 0;
            rc = start_anew(b, &w, j, x + draw(&w, s->batch_size, &r) * w.n_inputs, v, v + w.n_inputs, e);
            if (!rc)
                rc = b->ops->put(b, "rows_since_fired", &(struct backend_range){j, 1, 0, 1, false}, &young, e);
            ++*n;
        }
out:
    mem_free(w.ages);
    mem_free(w.strip);
    mem_free(w.until);
    mem_free(v);
    return rc;
}
