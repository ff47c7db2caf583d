/* layer.c - see layer.h.
 *
 * Products with weights go over the tokens of all sequences in pieces, a piece a thread, and what is element-wise
 * around a product is done by the same thread on the same piece: norm before it, bias, activation and residual after
 * it. Rows do not depend on each other nor on where pieces begin: no sum depends on the number of threads.
 *
 * The residual stream takes up what attention or MLP adds within the same piece, too, unless a hook looks at that
 * first: then it does so after the hook, by the same sums, with what the hook left. */
#include "layer.h"

void layer_linears(struct layer *l, struct linear *linears[LAYER_LINEARS])
{
    struct linear *const all[LAYER_LINEARS] = {&l->attention.qkv, &l->attention.out, &l->mlp.up, &l->mlp.down};
    for (size_t i = 0; i < LAYER_LINEARS; i++)
        linears[i] = all[i];
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

void layer_sizes(const struct layer *l, size_t seq_len, struct workspace_sizes *sizes)
{
    const struct attention *a = &l->attention;
    sizes->narrow = larger(sizes->narrow, larger(sizes->d, a->n_head * a->head_dim));
    sizes->wide = larger(sizes->wide, larger(a->qkv.n, l->mlp.up.n));
    sizes->scores = larger(sizes->scores, attention_work(a, seq_len));
}

/* wide [tokens, qkv.n] = norm(x) qkv + bias */
static void queries_keys_values(struct pass *p, const struct layer *l)
{
    const struct linear *w = &l->attention.qkv;
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < p->tokens; first += p->piece) {
        struct err e;
        size_t end = pass_piece_end(p, first);
        norm_rows(&l->attention_norm, p->kernels, p->x, &p->narrow, first, end);
        if (linear_multiply(w, &p->narrow, p->wide.fp32, first, end, &e))
            pass_fail(p, &e);
        for (size_t t = first; t < end; t++)
            p->kernels->add(p->wide.fp32 + t * w->n, w->bias, w->n);
    }
}

/* Of the tokens [first, end): out += bias and, if now, x += out. */
static void add_rows(const struct pass *p, const float *bias, bool now, size_t first, size_t end)
{
    for (size_t t = first; t < end; t++)
        if (now)
            p->kernels->residual(p->x + t * p->d, p->out + t * p->d, bias, p->d);
        else
            p->kernels->add(p->out + t * p->d, bias, p->d);
}

/* Shows out to the hook, if it stops there, and then adds what the hook left to x. */
static int visit_out(struct pass *p, const char *point)
{
    if (!pass_stops_at(p, point))
        return 0;
    int rc = pass_visit(p, point, p->out);
    if (rc)
        return rc;
#pragma omp parallel for
    for (size_t t = 0; t < p->tokens; t++)
        p->kernels->add(p->x + t * p->d, p->out + t * p->d, p->d);
    return 0;
}

/* out [tokens, d] = heads out + bias; x += out, if now */
static void projection(struct pass *p, const struct layer *l, bool now)
{
    const struct linear *w = &l->attention.out;
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < p->tokens; first += p->piece) {
        struct err e;
        size_t end = pass_piece_end(p, first);
        operand_round(&p->narrow, p->kernels, w->k, first, end);
        if (linear_multiply(w, &p->narrow, p->out, first, end, &e))
            pass_fail(p, &e);
        add_rows(p, w->bias, now, first, end);
    }
}

/* out [tokens, d] = MLP(norm(x)); x += out, if now */
static void mlp(struct pass *p, const struct layer *l, bool now)
{
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < p->tokens; first += p->piece) {
        struct err e;
        size_t end = pass_piece_end(p, first);
        norm_rows(&l->mlp_norm, p->kernels, p->x, &p->narrow, first, end);
        if (mlp_rows(&l->mlp, p->kernels, &p->narrow, &p->wide, p->out, first, end, &e))
            pass_fail(p, &e);
        add_rows(p, l->mlp.down.bias, now, first, end);
    }
}

int layer_pre_norm(struct pass *p, const struct layer *l)
{
    int rc = pass_visit(p, "hook_resid_pre", p->x);
    if (rc)
        return rc;
    queries_keys_values(p, l);
    pass_lap(p, PASS_QKV);
    attention_heads(&l->attention, p->kernels, p->wide.fp32, p->narrow.fp32, p->n, p->seq_len, p->scores);
    pass_lap(p, PASS_ATTENTION);
    projection(p, l, !pass_stops_at(p, "hook_attn_out"));
    pass_lap(p, PASS_PROJECTION);
    if ((rc = p->failed) || (rc = visit_out(p, "hook_attn_out")) || (rc = pass_visit(p, "hook_resid_mid", p->x)))
        return rc;
    mlp(p, l, !pass_stops_at(p, "hook_mlp_out"));
    pass_lap(p, PASS_MLP);
    if ((rc = p->failed) || (rc = visit_out(p, "hook_mlp_out")))
        return rc;
    return pass_visit(p, "hook_resid_post", p->x);
}
