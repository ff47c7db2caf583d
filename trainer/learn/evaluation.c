/* evaluation.c - see evaluation.h. */
#include "evaluation.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "mem.h"

static size_t n_inputs(const struct evaluation *v)
{
    return v->b->setup.n_sites * v->b->setup.d_model;
}

size_t evaluation_memory(const struct backend_setup *s)
{
    size_t means, row;
    fvu_means_memory(s->n_sites, s->d_model, &means, &row);
    return means + s->batch_size * row + s->d_sae * sizeof(bool);
}

int evaluation_init(struct evaluation *v, struct backend *b, struct err *e)
{
    memset(v, 0, sizeof *v);
    v->b = b;
    const struct backend_setup *s = &b->setup;
    if (fvu_means_init(&v->means, s->n_sites, s->d_model, s->batch_size, e) == 0 &&
        (v->fired = mem_alloc(s->d_sae, sizeof *v->fired, "latents of the evaluation", e)))
        return 0;
    evaluation_release(v);
    return ERR_MEMORY;
}

void evaluation_release(struct evaluation *v)
{
    fvu_means_release(&v->means);
    mem_free(v->fired);
    memset(v, 0, sizeof *v);
}

/* Returns how many of n rows a piece has. */
static size_t piece_of(const struct evaluation *v, size_t n)
{
    return n < v->b->setup.batch_size ? n : v->b->setup.batch_size;
}

void evaluation_measure(struct evaluation *v, const struct normalisation *by, const float *x, size_t n)
{
    for (size_t first = 0, rows; first < n; first += rows) {
        rows = piece_of(v, n - first);
        fvu_means_add(&v->means, by, x + first * n_inputs(v), rows);
    }
}

void evaluation_begin(struct evaluation *v)
{
    v->rows = 0;
    memset(v->sums, 0, sizeof v->sums);
    memset(v->fired, 0, v->b->setup.d_sae * sizeof *v->fired);
    for (int i = 0; i < 2; i++)
        fvu_begin(&v->sums[i].fvu, v->b->setup.n_sites);
}

/* Encodes and decodes n rows, at most batch_size, and adds what comes of it. */
static int add_piece(struct evaluation *v, const struct normalisation *by, const float *x, size_t n,
                     enum encode_mode mode, struct err *e)
{
    struct evaluation_sums *to = &v->sums[mode];
    const struct backend_setup *s = &v->b->setup;
    for (size_t first = 0, rows; first < n; first += rows) {
        const float *piece = x + first * n_inputs(v);
        struct pass_report mean;
        if (v->b->ops->encode(v->b, piece, n - first, mode, &rows, e) || v->b->ops->decode(v->b, piece, rows, &mean, e))
            return e->code;
        fvu_add(&to->fvu, &v->means, by, piece, mean.row_residual2, rows);
        for (size_t i = 0; i < s->n_terms; i++)
            to->term[i] += mean.term[i] * (double)rows;
        to->l0 += mean.l0 * (double)rows;
        for (size_t j = 0; j < s->d_sae && mode == ENCODE_BY_K; j++)
            v->fired[j] |= mean.fired[j] > 0;
    }
    return 0;
}

/* Returns the inference threshold; negative if there is none, or it is not known yet. */
static float threshold_of(const struct backend *b)
{
    float threshold = -1;
    if (backend_has_k(&b->setup))
        backend_get_all(b, "threshold", &threshold, NULL);
    return threshold;
}

int evaluation_add(struct evaluation *v, const struct normalisation *by, const float *x, size_t n, struct err *e)
{
    for (size_t first = 0, rows; first < n; first += rows) {
        rows = piece_of(v, n - first);
        const float *piece = x + first * n_inputs(v);
        if (add_piece(v, by, piece, rows, ENCODE_BY_K, e) ||
            (threshold_of(v->b) >= 0 && add_piece(v, by, piece, rows, ENCODE_BY_THRESHOLD, e)))
            return e->code;
        v->rows += rows;
    }
    return 0;
}

int evaluation_finish(struct evaluation *v, const double *weight, struct evaluation_report *r, struct err *e)
{
    const struct backend_setup *s = &v->b->setup;
    uint64_t measured = v->means.rows[FVU_ALL];
    if (v->rows != measured || v->rows == 0)
        return err_set(e, ERR_INPUT, "evaluation: %" PRIu64 " rows added, %" PRIu64 " measured", v->rows, measured);
    double n = (double)v->rows;
    *r = (struct evaluation_report){.rows = v->rows, .l0 = v->sums[0].l0 / n};
    for (size_t i = 0; i < s->n_terms; i++) {
        r->term[i] = v->sums[0].term[i] / n;
        r->weight[i] = weight[i];
    }
    r->loss = backend_loss(s, r->term, weight);
    if (!isfinite(r->loss)) {
        char values[256];
        backend_describe_terms(s, r->term, values, sizeof values);
        return err_set(e, ERR_INPUT, "evaluation: loss %g (%s) over %" PRIu64 " rows", r->loss, values, v->rows);
    }
    for (size_t j = 0; j < s->d_sae; j++)
        r->silent += !v->fired[j];
    fvu_finish(&v->sums[ENCODE_BY_K].fvu, &r->fvu);
    r->has_threshold = threshold_of(v->b) >= 0;
    r->threshold_l0 = v->sums[ENCODE_BY_THRESHOLD].l0 / n;
    fvu_finish(&v->sums[ENCODE_BY_THRESHOLD].fvu, &r->threshold_fvu);
    return 0;
}
