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
    memset(v->term, 0, sizeof v->term);
    v->l0 = 0;
    fvu_begin(&v->fvu, v->b->setup.n_sites);
}

int evaluation_add(struct evaluation *v, const float *x, size_t n, struct err *e)
{
    const struct backend_setup *s = &v->b->setup;
    for (size_t first = 0; first < n; first += s->batch_size) {
        size_t rows = n - first < s->batch_size ? n - first : s->batch_size;
        const float *piece = x + first * n_inputs(v);
        struct pass_report mean;
        if (v->b->ops->encode(v->b, piece, rows, e) || v->b->ops->decode(v->b, piece, rows, &mean, e))
            return e->code;
        fvu_deviations(v->row_deviation2, piece, rows, s->n_sites, s->d_model, v->mean);
        fvu_add(&v->fvu, mean.row_residual2, v->row_deviation2, rows);
        for (size_t i = 0; i < s->n_terms; i++)
            v->term[i] += mean.term[i] * (double)rows;
        v->l0 += mean.l0 * (double)rows;
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
    *r = (struct evaluation_report){.rows = v->rows, .l0 = v->l0 / n};
    for (size_t i = 0; i < s->n_terms; i++) {
        r->term[i] = v->term[i] / n;
        r->weight[i] = weight[i];
    }
    r->loss = backend_loss(s, r->term, weight);
    if (!isfinite(r->loss)) {
        char values[256];
        backend_describe_terms(s, r->term, values, sizeof values);
        return err_set(e, ERR_INPUT, "evaluation: loss %g (%s) over %" PRIu64 " rows", r->loss, values, v->rows);
    }
    fvu_finish(&v->fvu, &r->fvu);
    return 0;
}
