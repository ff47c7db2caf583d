/* evaluation.c - see evaluation.h. */
#include "evaluation.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "mem.h"
#include "sums.h"

int evaluation_init(struct evaluation *v, const struct crosscoder *c, struct forward *forward, struct err *e)
{
    memset(v, 0, sizeof *v);
    v->c = c;
    v->forward = forward;
    if ((v->x_sum = mem_alloc(c->n_inputs, sizeof *v->x_sum, "sums of the evaluation rows", e)) &&
        (v->mean = mem_alloc(c->n_inputs, sizeof *v->mean, "mean of the evaluation rows", e)))
        return 0;
    evaluation_release(v);
    return ERR_MEMORY;
}

void evaluation_release(struct evaluation *v)
{
    mem_free(v->x_sum);
    mem_free(v->mean);
    memset(v, 0, sizeof *v);
}

void evaluation_measure(struct evaluation *v, const float *x, size_t n)
{
    sum_columns(v->x_sum, x, n, v->c->n_inputs);
    v->measured += n;
    for (size_t i = 0; i < v->c->n_inputs; i++)
        v->mean[i] = v->x_sum[i] / (double)v->measured;
}

void evaluation_begin(struct evaluation *v)
{
    v->rows = 0;
    v->sums = (struct losses){0};
    fvu_begin(&v->fvu, v->c->n_sites);
}

void evaluation_add(struct evaluation *v, const float *x, size_t n)
{
    struct forward *w = v->forward;
    for (size_t first = 0; first < n; first += w->max_rows) {
        size_t rows = n - first < w->max_rows ? n - first : w->max_rows;
        const float *piece = x + first * v->c->n_inputs;
        forward_encode(w, v->c, piece, rows);
        forward_decode(w, v->c, piece, rows);
        forward_deviations(w, v->c, piece, rows, v->mean);
        fvu_add(&v->fvu, w->row_residual2, w->row_deviation2, rows);
        struct losses mean = forward_losses(w, v->c, rows);
        v->sums.l2 += mean.l2 * (double)rows;
        v->sums.l1 += mean.l1 * (double)rows;
        v->sums.l0 += mean.l0 * (double)rows;
        v->rows += rows;
    }
}

int evaluation_finish(struct evaluation *v, double l1_coeff, struct evaluation_report *r, struct err *e)
{
    if (v->rows != v->measured || v->rows == 0)
        return err_set(e, ERR_INPUT, "evaluation: %" PRIu64 " rows added, %" PRIu64 " measured", v->rows, v->measured);
    double n = (double)v->rows, l2 = v->sums.l2 / n, l1 = v->sums.l1 / n;
    *r = (struct evaluation_report){
        .rows = v->rows,
        .loss = l2 + l1_coeff * l1,
        .l2 = l2,
        .l1 = l1,
        .l0 = v->sums.l0 / n,
        .l1_coeff = l1_coeff,
    };
    if (!isfinite(r->loss))
        return err_set(e, ERR_INPUT, "evaluation: loss %g (l2 %g, l1 %g) over %" PRIu64 " rows", r->loss, l2, l1,
                       v->rows);
    fvu_finish(&v->fvu, &r->fvu);
    return 0;
}
