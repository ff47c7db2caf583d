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

int evaluation_init(struct evaluation *v, struct backend *b, struct err *e)
{
    memset(v, 0, sizeof *v);
    v->b = b;
    size_t rows = b->setup.batch_size;
    if ((v->x_sum = mem_alloc(n_inputs(v), sizeof *v->x_sum, "sums of the evaluation rows", e)) &&
        (v->mean = mem_alloc(n_inputs(v), sizeof *v->mean, "mean of the evaluation rows", e)) &&
        (v->row_deviation2 = mem_alloc(rows * b->setup.n_sites, sizeof *v->row_deviation2, "sums of the rows", e)))
        return 0;
    evaluation_release(v);
    return ERR_MEMORY;
}

void evaluation_release(struct evaluation *v)
{
    mem_free(v->x_sum);
    mem_free(v->mean);
    mem_free(v->row_deviation2);
    memset(v, 0, sizeof *v);
}

void evaluation_measure(struct evaluation *v, const float *x, size_t n)
{
    fvu_sum_columns(v->x_sum, x, n, n_inputs(v));
    v->measured += n;
    for (size_t i = 0; i < n_inputs(v); i++)
        v->mean[i] = v->x_sum[i] / (double)v->measured;
}

void evaluation_begin(struct evaluation *v)
{
    v->rows = 0;
    memset(v->sums, 0, sizeof v->sums);
    for (int i = 0; i < 2; i++)
        fvu_begin(&v->sums[i].fvu, v->b->setup.n_sites);
}

/* Encodes and decodes n rows, at most batch_size, and adds what comes of it. */
static int add_piece(struct evaluation *v, const float *x, size_t n, enum encode_mode mode, struct evaluation_sums *to,
                     struct err *e)
{
    const struct backend_setup *s = &v->b->setup;
    for (size_t first = 0, rows; first < n; first += rows) {
        const float *piece = x + first * n_inputs(v);
        struct pass_report mean;
        if (v->b->ops->encode(v->b, piece, n - first, mode, &rows, e) || v->b->ops->decode(v->b, piece, rows, &mean, e))
            return e->code;
        fvu_deviations(v->row_deviation2, piece, rows, s->n_sites, s->d_model, v->mean);
        fvu_add(&to->fvu, mean.row_residual2, v->row_deviation2, rows);
        for (size_t i = 0; i < s->n_terms; i++)
            to->term[i] += mean.term[i] * (double)rows;
        to->l0 += mean.l0 * (double)rows;
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

int evaluation_add(struct evaluation *v, const float *x, size_t n, struct err *e)
{
    size_t batch_size = v->b->setup.batch_size;
    for (size_t first = 0; first < n; first += batch_size) {
        size_t rows = n - first < batch_size ? n - first : batch_size;
        const float *piece = x + first * n_inputs(v);
        if (add_piece(v, piece, rows, ENCODE_BY_K, &v->sums[0], e) ||
            (threshold_of(v->b) >= 0 && add_piece(v, piece, rows, ENCODE_BY_THRESHOLD, &v->sums[1], e)))
            return e->code;
        v->rows += rows;
    }
    return 0;
}

int evaluation_finish(struct evaluation *v, const double *weight, struct evaluation_report *r, struct err *e)
{
    const struct backend_setup *s = &v->b->setup;
    if (v->rows != v->measured || v->rows == 0)
        return err_set(e, ERR_INPUT, "evaluation: %" PRIu64 " rows added, %" PRIu64 " measured", v->rows, v->measured);
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
    fvu_finish(&v->sums[0].fvu, &r->fvu);
    r->has_threshold = threshold_of(v->b) >= 0;
    r->threshold_l0 = v->sums[1].l0 / n;
    fvu_finish(&v->sums[1].fvu, &r->threshold_fvu);
    return 0;
}
