/* gpt2_forward.c - see gpt2_forward.h.
 *
 * Products with weights go over the tokens of all sequences in pieces, a piece a thread, and what is element-wise
 * around a product is done by the same thread on the same piece: layer norm before it, bias, activation and residual
 * after it. Attention runs one (sequence, head) a thread, in tiles of queries, so that the scores stay in cache and
 * half of the causal square is never computed. Rows do not depend on each other nor on where pieces begin: no sum
 * depends on the number of threads. */
#include "gpt2_forward.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "clock.h"
#include "forward_kernels.h"
#include "gemm.h"
#include "gemm_bf16.h"
#include "gpt2_bf16.h"
#include "mem.h"

#define QUERY_TILE ((size_t)128)
#define DONE 1 /* of a step: the last site has been seen */

/* A weight [k, n]: one of the two. */
struct weight {
    const float *fp32;
    const struct gemm_bf16 *bf16;
    size_t k, n;
};

/* One pass: what every step of it needs. */
struct pass {
    struct gpt2_forward *f;
    const struct gpt2_model *m;
    const struct forward_kernels *kernels;
    size_t n, seq_len, tokens;               /* tokens = n * seq_len */
    size_t d, inner, tile, piece;            /* d = n_embd, inner = n_inner; tile: queries, piece: tokens at a time */
    float *x, *narrow, *wide, *out, *scores; /* of struct gpt2_forward; x is the residual stream */
    uint16_t *narrow_bf16, *wide_bf16;       /* NULL in fp32 */
    const struct site *sites;
    size_t n_sites, next; /* next: the first site not yet seen */
    gpt2_hook hook;
    void *context;
    struct err *e;
    int failed; /* of a product in a parallel region */
};

static int grow(struct gpt2_buffer *b, size_t a0, size_t a1, size_t a2, size_t element, const char *what, struct err *e)
{
    size_t size;
    if (!size_product((const size_t[]){a0, a1, a2, element}, 4, &size))
        return err_set(e, ERR_MEMORY, "%s: %zu x %zu x %zu values do not fit in memory", what, a0, a1, a2);
    if (b->data && b->size >= size)
        return 0;
    mem_free(b->data);
    *b = (struct gpt2_buffer){.data = mem_alloc(size, 1, what, e)};
    if (!b->data)
        return ERR_MEMORY;
    b->size = size;
    return 0;
}

static size_t query_tile(size_t seq_len)
{
    return seq_len < QUERY_TILE ? seq_len : QUERY_TILE;
}

/* Floats that one thread's attention works in. */
static size_t attention_work(const struct gpt2_config *c, size_t seq_len)
{
    return (query_tile(seq_len) + 2 * (size_t)(c->n_embd / c->n_head)) * seq_len;
}

int gpt2_forward_reserve(struct gpt2_forward *f, const struct gpt2_model *m, size_t n, size_t seq_len, struct err *e)
{
    size_t d = m->config.n_embd, inner = m->config.n_inner, threads = (size_t)omp_get_max_threads();
    size_t tokens = 0, fp32 = sizeof(float), bf16 = sizeof(uint16_t);
    /* whole pieces: a bf16 product reads and writes all rows of the last one, too */
    if (!size_mul(n, seq_len, &tokens) || tokens > SIZE_MAX - GEMM_BF16_ROWS)
        return err_set(e, ERR_MEMORY, "%zu sequences of %zu tokens do not fit in memory", n, seq_len);
    tokens = (tokens + GEMM_BF16_ROWS - 1) / GEMM_BF16_ROWS * GEMM_BF16_ROWS;
    if (grow(&f->residual, 1, tokens, d, fp32, "residual stream", e) ||
        grow(&f->narrow, 1, tokens, d, fp32, "attention heads", e) ||
        grow(&f->wide, 1, tokens, inner > 3 * d ? inner : 3 * d, fp32, "hidden layer", e) ||
        grow(&f->out, 1, tokens, d, fp32, "attention and MLP output", e) ||
        grow(&f->scores, threads, 1, attention_work(&m->config, seq_len), fp32, "attention scores", e) ||
        (m->bf16 && grow(&f->narrow_bf16, 1, tokens, d, bf16, "inputs in bf16", e)) ||
        (m->bf16 && grow(&f->wide_bf16, 1, tokens, inner, bf16, "hidden layer in bf16", e)))
        return ERR_MEMORY;
    return 0;
}

void gpt2_forward_release(struct gpt2_forward *f)
{
    struct gpt2_buffer *const all[] = {&f->residual, &f->narrow,      &f->wide,     &f->out,
                                       &f->scores,   &f->narrow_bf16, &f->wide_bf16};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]->data);
    *f = (struct gpt2_forward){0};
}

/* x [tokens, d] = wte[token] + wpe[position] */
static void embed(const struct pass *p, const uint32_t *tokens)
{
#pragma omp parallel for
    for (size_t t = 0; t < p->tokens; t++) {
        const float *word = p->m->wte + (size_t)tokens[t] * p->d, *place = p->m->wpe + t % p->seq_len * p->d;
        for (size_t i = 0; i < p->d; i++)
            p->x[t * p->d + i] = word[i] + place[i];
    }
}

/* ---- a piece: tokens [first, end) ---- */

/* c [tokens, n] = a [tokens, k] times a weight; a in bf16 is a_bf16. */
static void multiply(struct pass *p, const struct weight *w, const float *a, const uint16_t *a_bf16, float *c,
                     size_t first, size_t end)
{
    struct err e;
    if (!w->bf16) {
        gemm_piece(false, false, end - first, w->n, w->k, 1, a + first * w->k, w->k, w->fp32, w->n, 0, c + first * w->n,
                   w->n);
    } else if (gemm_bf16(w->bf16, a_bf16 + first * w->k, c + first * w->n, &e)) {
#pragma omp critical(gpt2_forward_failed)
        {
            p->failed = e.code;
            *p->e = e;
        }
    }
}

/* narrow, and narrow_bf16 if wanted, = LN(x) */
static void layer_norm(const struct pass *p, const float *weight, const float *bias, size_t first, size_t end)
{
    double epsilon = (double)p->m->config.layer_norm_epsilon;
    for (size_t t = first; t < end; t++) {
        p->kernels->layer_norm(p->narrow + t * p->d, p->x + t * p->d, weight, bias, epsilon, p->d);
        if (p->narrow_bf16)
            p->kernels->to_bf16(p->narrow_bf16 + t * p->d, p->narrow + t * p->d, p->d);
    }
}

/* out += bias, x += out: attn_out and resid_mid, or mlp_out and resid_post */
static void add_to_residual(const struct pass *p, const float *bias, size_t first, size_t end)
{
    for (size_t t = first; t < end; t++)
        p->kernels->residual(p->x + t * p->d, p->out + t * p->d, bias, p->d);
}

/* ---- the steps of a layer ---- */

static size_t piece_end(const struct pass *p, size_t first)
{
    return p->tokens - first < p->piece ? p->tokens : first + p->piece;
}

/* wide [tokens, 3d] = LN(x; ln_1) c_attn + bias */
static void qkv(struct pass *p, const struct gpt2_layer *l, const struct gpt2_bf16_layer *packed)
{
    struct weight w = {l->attn_c_attn_weight, packed ? packed->attn_c_attn : NULL, p->d, 3 * p->d};
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < p->tokens; first += p->piece) {
        size_t end = piece_end(p, first);
        layer_norm(p, l->ln_1_weight, l->ln_1_bias, first, end);
        multiply(p, &w, p->narrow, p->narrow_bf16, p->wide, first, end);
        for (size_t t = first; t < end; t++)
            p->kernels->add_bias(p->wide + t * w.n, l->attn_c_attn_bias, w.n);
    }
}

/* One head of one sequence. q: its queries; k, v: its keys and values, [seq_len, d_head] each, row stride 3d; z: its
 * outputs, row stride d. work: scores [tile, seq_len], and K and V [seq_len, d_head] close together: rows 3d apart, of
 * a page each, would cost more than the products. */
static void attend(const struct pass *p, const float *q, const float *k, const float *v, float *z, size_t d_head,
                   float scale, float *work)
{
    size_t stride = 3 * p->d;
    float inverse[QUERY_TILE], *scores = work, *keys = work + p->tile * p->seq_len,
                               *values = keys + p->seq_len * d_head;
    for (size_t t = 0; t < p->seq_len; t++) {
        memcpy(keys + t * d_head, k + t * stride, d_head * sizeof *keys);
        memcpy(values + t * d_head, v + t * stride, d_head * sizeof *values);
    }
    for (size_t first = 0; first < p->seq_len; first += p->tile) {
        size_t end = p->seq_len - first < p->tile ? p->seq_len : first + p->tile, rows = end - first;
        /* scores [rows, end] = scale * Q K^T, of the queries first..end and the keys 0..end */
        gemm(false, true, rows, end, d_head, scale, q + first * stride, stride, keys, d_head, 0, scores, end);
        for (size_t i = 0; i < rows; i++)
            inverse[i] = p->kernels->softmax(scores + i * end, first + i + 1, end);
        /* z [rows, d_head] = scores V, by the sums of the scores */
        gemm(false, false, rows, d_head, end, 1, scores, end, values, d_head, 0, z + first * p->d, p->d);
        for (size_t i = 0; i < rows; i++)
            p->kernels->multiply(z + (first + i) * p->d, inverse[i], d_head);
    }
}

/* narrow = heads of Attention, side by side, from wide = QKV */
static void attention(const struct pass *p, uint32_t layer)
{
    const struct gpt2_config *c = &p->m->config;
    size_t n_head = c->n_head, d_head = p->d / n_head, work = attention_work(c, p->seq_len);
    float scale = c->scale_attn_weights ? 1.0f / sqrtf((float)d_head) : 1.0f;
    if (c->scale_attn_by_inverse_layer_idx)
        scale /= (float)layer + 1.0f;
#pragma omp parallel for schedule(dynamic)
    for (size_t task = 0; task < p->n * n_head; task++) {
        size_t start = task / n_head * p->seq_len, column = task % n_head * d_head; /* of its sequence, of its head */
        const float *q = p->wide + start * 3 * p->d + column;
        attend(p, q, q + p->d, q + 2 * p->d, p->narrow + start * p->d + column, d_head, scale,
               p->scores + (size_t)omp_get_thread_num() * work);
    }
}

/* out [tokens, d] = narrow [tokens, d] c_proj + bias, and x += out */
static void projection(struct pass *p, const struct gpt2_layer *l, const struct gpt2_bf16_layer *packed)
{
    struct weight w = {l->attn_c_proj_weight, packed ? packed->attn_c_proj : NULL, p->d, p->d};
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < p->tokens; first += p->piece) {
        size_t end = piece_end(p, first);
        if (packed)
            p->kernels->to_bf16(p->narrow_bf16 + first * p->d, p->narrow + first * p->d, (end - first) * p->d);
        multiply(p, &w, p->narrow, p->narrow_bf16, p->out, first, end);
        add_to_residual(p, l->attn_c_proj_bias, first, end);
    }
}

/* out [tokens, d] = act(LN(x; ln_2) c_fc + bias) c_proj + bias, and x += out */
static void mlp(struct pass *p, const struct gpt2_layer *l, const struct gpt2_bf16_layer *packed)
{
    struct weight up = {l->mlp_c_fc_weight, packed ? packed->mlp_c_fc : NULL, p->d, p->inner};
    struct weight down = {l->mlp_c_proj_weight, packed ? packed->mlp_c_proj : NULL, p->inner, p->d};
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < p->tokens; first += p->piece) {
        size_t end = piece_end(p, first);
        layer_norm(p, l->ln_2_weight, l->ln_2_bias, first, end);
        multiply(p, &up, p->narrow, p->narrow_bf16, p->wide, first, end);
        for (size_t t = first; t < end; t++) {
            float *h = p->wide + t * p->inner;
            p->kernels->activate(h, l->mlp_c_fc_bias, p->m->config.activation, p->inner);
            if (packed)
                p->kernels->to_bf16(p->wide_bf16 + t * p->inner, h, p->inner);
        }
        multiply(p, &down, p->wide, p->wide_bf16, p->out, first, end);
        add_to_residual(p, l->mlp_c_proj_bias, first, end);
    }
}

/* Shows vectors to the hook if this is the next site. 0 to go on, DONE after the last one, or the hook's error. */
static int visit(struct pass *p, uint32_t layer, enum site_kind kind, const float *vectors)
{
    const struct site *s = &p->sites[p->next];
    if (s->layer != layer || s->kind != kind)
        return 0;
    int rc = p->hook(p->context, s, vectors, p->e);
    return rc ? rc : ++p->next == p->n_sites ? DONE : 0;
}

/* Seconds since *clock go to the phase; *clock becomes now. */
static void lap(struct pass *p, enum forward_phase phase, double *clock)
{
    double now = clock_s();
    p->f->seconds[phase] += now - *clock;
    *clock = now;
}

static int run_layer(struct pass *p, uint32_t layer)
{
    const struct gpt2_layer *l = &p->m->layers[layer];
    const struct gpt2_bf16_layer *packed = p->m->bf16 ? &p->m->bf16[layer] : NULL;
    double clock = clock_s();
    int rc = visit(p, layer, SITE_RESID_PRE, p->x);
    lap(p, FORWARD_HOOK, &clock);
    if (rc)
        return rc;
    qkv(p, l, packed);
    lap(p, FORWARD_QKV, &clock);
    attention(p, layer);
    lap(p, FORWARD_ATTENTION, &clock);
    projection(p, l, packed);
    lap(p, FORWARD_PROJECTION, &clock);
    if ((rc = p->failed) || (rc = visit(p, layer, SITE_ATTN_OUT, p->out)) ||
        (rc = visit(p, layer, SITE_RESID_MID, p->x)))
        return rc;
    lap(p, FORWARD_HOOK, &clock);
    mlp(p, l, packed);
    lap(p, FORWARD_MLP, &clock);
    if ((rc = p->failed) || (rc = visit(p, layer, SITE_MLP_OUT, p->out)))
        return rc;
    rc = visit(p, layer, SITE_RESID_POST, p->x);
    lap(p, FORWARD_HOOK, &clock);
    return rc;
}

int gpt2_forward_run(struct gpt2_forward *f, const struct gpt2_model *m, const uint32_t *tokens, size_t n,
                     size_t seq_len, const struct site *sites, size_t n_sites, gpt2_hook hook, void *context,
                     struct err *e)
{
    int rc = n_sites ? gpt2_forward_reserve(f, m, n, seq_len, e) : DONE;
    struct pass p = {.f = f,
                     .m = m,
                     .kernels = forward_kernels_best(),
                     .n = n,
                     .seq_len = seq_len,
                     .tokens = n * seq_len,
                     .d = m->config.n_embd,
                     .inner = m->config.n_inner,
                     .tile = query_tile(seq_len),
                     .piece = m->bf16 ? GEMM_BF16_ROWS : gemm_piece_rows(n * seq_len),
                     .x = f->residual.data,
                     .narrow = f->narrow.data,
                     .wide = f->wide.data,
                     .out = f->out.data,
                     .scores = f->scores.data,
                     .narrow_bf16 = m->bf16 ? f->narrow_bf16.data : NULL,
                     .wide_bf16 = m->bf16 ? f->wide_bf16.data : NULL,
                     .sites = sites,
                     .n_sites = n_sites,
                     .hook = hook,
                     .context = context,
                     .e = e};
    double clock = clock_s();
    if (!rc)
        embed(&p, tokens);
    lap(&p, FORWARD_EMBED, &clock);
    for (uint32_t layer = 0; !rc && layer < m->config.n_layer; layer++)
        rc = run_layer(&p, layer);
    return rc == DONE ? 0 : rc;
}
