/* gpt2_forward.c - see gpt2_forward.h.
 *
 * Products with weights run over the tokens of all sequences with all threads; attention runs one (sequence, head) a
 * thread, in tiles of queries, so that the scores stay in cache and half of the causal square is never computed. Every
 * other loop goes over tokens, each whole on one thread: no sum depends on the number of threads. */
#include "gpt2_forward.h"

#include <math.h>
#include <omp.h>

#include "gemm.h"
#include "mem.h"

/* glibc's libmvec has expf of several floats at once (4 ulp), which gcc calls in "omp simd" loops if it is declared so.
 */
#if defined __x86_64__ && defined __GLIBC__ && !defined __clang__
#pragma omp declare simd notinbranch
extern float expf(float);
#endif

#define QUERY_TILE ((size_t)128)
#define DONE 1 /* of a step: the last site has been seen */

/* One pass: what every step of it needs. */
struct pass {
    const struct gpt2_model *m;
    size_t n, seq_len, tokens;               /* tokens = n * seq_len */
    size_t d, inner, tile;                   /* d = n_embd, inner = n_inner; tile: queries at a time */
    float *x, *narrow, *wide, *out, *scores; /* of struct gpt2_forward; x is the residual stream */
    const struct site *sites;
    size_t n_sites, next; /* next: the first site not yet seen */
    gpt2_hook hook;
    void *context;
    struct err *e;
};

static int grow(struct gpt2_buffer *b, size_t a0, size_t a1, size_t a2, const char *what, struct err *e)
{
    size_t size;
    if (!size_product((const size_t[]){a0, a1, a2}, 3, &size))
        return err_set(e, ERR_MEMORY, "%s: %zu x %zu x %zu floats do not fit in memory", what, a0, a1, a2);
    if (b->data && b->size >= size)
        return 0;
    mem_free(b->data);
    *b = (struct gpt2_buffer){.data = mem_alloc(size, sizeof(float), what, e)};
    if (!b->data)
        return ERR_MEMORY;
    b->size = size;
    return 0;
}

static size_t query_tile(size_t seq_len)
{
    return seq_len < QUERY_TILE ? seq_len : QUERY_TILE;
}

int gpt2_forward_reserve(struct gpt2_forward *f, const struct gpt2_model *m, size_t n, size_t seq_len, struct err *e)
{
    size_t d = m->config.n_embd, inner = m->config.n_inner, threads = (size_t)omp_get_max_threads();
    if (grow(&f->residual, n, seq_len, d, "residual stream", e) ||
        grow(&f->narrow, n, seq_len, d, "attention heads", e) ||
        grow(&f->wide, n, seq_len, inner > 3 * d ? inner : 3 * d, "hidden layer", e) ||
        grow(&f->out, n, seq_len, d, "attention and MLP output", e) ||
        grow(&f->scores, threads, query_tile(seq_len), seq_len, "attention scores", e))
        return ERR_MEMORY;
    return 0;
}

void gpt2_forward_release(struct gpt2_forward *f)
{
    mem_free(f->residual.data);
    mem_free(f->narrow.data);
    mem_free(f->wide.data);
    mem_free(f->out.data);
    mem_free(f->scores.data);
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

/* narrow = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias, over each token's d; var divides by d. */
static void layer_norm(const struct pass *p, const float *weight, const float *bias)
{
    double epsilon = (double)p->m->config.layer_norm_epsilon;
#pragma omp parallel for
    for (size_t t = 0; t < p->tokens; t++) {
        const float *x = p->x + t * p->d;
        float *y = p->narrow + t * p->d;
        double sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < p->d; i++)
            sum += (double)x[i];
        double mean = sum / (double)p->d;
#pragma omp simd reduction(+ : squares)
        for (size_t i = 0; i < p->d; i++)
            squares += ((double)x[i] - mean) * ((double)x[i] - mean);
        float center = (float)mean, inverse = (float)(1.0 / sqrt(squares / (double)p->d + epsilon));
        for (size_t i = 0; i < p->d; i++)
            y[i] = (x[i] - center) * inverse * weight[i] + bias[i];
    }
}

/* y [tokens, width] += bias [width] */
static void add_bias(const struct pass *p, float *y, const float *bias, size_t width)
{
#pragma omp parallel for
    for (size_t t = 0; t < p->tokens; t++)
        for (size_t i = 0; i < width; i++)
            y[t * width + i] += bias[i];
}

/* out += bias, x += out: attn_out and resid_mid, or mlp_out and resid_post, in one sweep. */
static void add_to_residual(const struct pass *p, const float *bias)
{
#pragma omp parallel for
    for (size_t t = 0; t < p->tokens; t++) {
        float *out = p->out + t * p->d, *x = p->x + t * p->d;
        for (size_t i = 0; i < p->d; i++) {
            out[i] += bias[i];
            x[i] += out[i];
        }
    }
}

/* s [seen] = softmax(s [seen]); the keys behind, up to width, get 0. */
static void causal_softmax(float *s, size_t seen, size_t width)
{
    float max = s[0], sum = 0;
#pragma omp simd reduction(max : max)
    for (size_t j = 0; j < seen; j++)
        max = s[j] > max ? s[j] : max;
#pragma omp simd
    for (size_t j = 0; j < seen; j++)
        s[j] = expf(s[j] - max);
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < seen; j++)
        sum += s[j];
    float inverse = 1.0f / sum;
    for (size_t j = 0; j < seen; j++)
        s[j] *= inverse;
    for (size_t j = seen; j < width; j++)
        s[j] = 0;
}

/* One head of one sequence. q, k, v: its columns of QKV, [seq_len, d_head] each, row stride 3d; z likewise, stride d.
 */
static void attend(const struct pass *p, const float *q, const float *k, const float *v, float *z, size_t d_head,
                   float scale, float *scores)
{
    size_t stride = 3 * p->d;
    for (size_t first = 0; first < p->seq_len; first += p->tile) {
        size_t end = p->seq_len - first < p->tile ? p->seq_len : first + p->tile, rows = end - first;
        /* scores [rows, end] = scale * Q K^T, of the queries first..end and the keys 0..end */
        gemm(false, true, rows, end, d_head, scale, q + first * stride, stride, k, stride, 0, scores, end);
        for (size_t i = 0; i < rows; i++)
            causal_softmax(scores + i * end, first + i + 1, end);
        /* z [rows, d_head] = scores V */
        gemm(false, false, rows, d_head, end, 1, scores, end, v, stride, 0, z + first * p->d, p->d);
    }
}

/* narrow = heads of Attention, side by side, from wide = QKV */
static void attention(const struct pass *p, uint32_t layer)
{
    const struct gpt2_config *c = &p->m->config;
    size_t n_head = c->n_head, d_head = p->d / n_head;
    float scale = c->scale_attn_weights ? 1.0f / sqrtf((float)d_head) : 1.0f;
    if (c->scale_attn_by_inverse_layer_idx)
        scale /= (float)layer + 1.0f;
#pragma omp parallel for schedule(dynamic)
    for (size_t task = 0; task < p->n * n_head; task++) {
        size_t start = task / n_head * p->seq_len, column = task % n_head * d_head; /* of its sequence, of its head */
        const float *q = p->wide + start * 3 * p->d + column;
        attend(p, q, q + p->d, q + 2 * p->d, p->narrow + start * p->d + column, d_head, scale,
               p->scores + (size_t)omp_get_thread_num() * p->tile * p->seq_len);
    }
}

/* wide [tokens, inner] = act(wide + bias). As (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), gelu_new is x / (1 + exp(-2u)),
 * which takes one exponential and loses nothing where 1 + tanh u cancels. */
static void activate(const struct pass *p, const float *bias)
{
    const float sqrt_2_over_pi = 0.797884560802865356f, sqrt_half = 0.707106781186547524f;
    enum gpt2_activation activation = p->m->config.activation;
#pragma omp parallel for
    for (size_t t = 0; t < p->tokens; t++) {
        float *h = p->wide + t * p->inner;
        for (size_t i = 0; i < p->inner; i++)
            h[i] += bias[i];
        if (activation == GPT2_GELU_TANH)
#pragma omp simd
            for (size_t i = 0; i < p->inner; i++)
                h[i] /= 1.0f + expf(-2.0f * sqrt_2_over_pi * (h[i] + 0.044715f * (h[i] * h[i] * h[i])));
        else if (activation == GPT2_GELU_ERF)
            for (size_t i = 0; i < p->inner; i++)
                h[i] = 0.5f * h[i] * (1.0f + erff(h[i] * sqrt_half));
        else
            for (size_t i = 0; i < p->inner; i++)
                h[i] = h[i] < 0.0f ? 0.0f : h[i]; /* keeps NaN */
    }
}

/* Shows vectors to the hook if this is the next site. 0 to go on, DONE after the last one, or the hook's error. */
static int visit(struct pass *p, uint32_t layer, enum site_kind kind, const float *vectors)
{
    const struct site *s = &p->sites[p->next];
    if (s->layer != layer || s->kind != kind)
        return 0;
    int result = p->hook(p->context, s, vectors, p->e);
    return result ? result : ++p->next == p->n_sites ? DONE : 0;
}

static int run_layer(struct pass *p, uint32_t layer)
{
    const struct gpt2_layer *w = &p->m->layers[layer];
    size_t t = p->tokens, d = p->d, inner = p->inner;
    int result = visit(p, layer, SITE_RESID_PRE, p->x);
    if (result)
        return result;

    layer_norm(p, w->ln_1_weight, w->ln_1_bias);
    /* QKV [t, 3d] = narrow [t, d] c_attn + bias */
    gemm(false, false, t, 3 * d, d, 1, p->narrow, d, w->attn_c_attn_weight, 3 * d, 0, p->wide, 3 * d);
    add_bias(p, p->wide, w->attn_c_attn_bias, 3 * d);
    attention(p, layer);
    /* out [t, d] = narrow [t, d] c_proj (+ bias) */
    gemm(false, false, t, d, d, 1, p->narrow, d, w->attn_c_proj_weight, d, 0, p->out, d);
    add_to_residual(p, w->attn_c_proj_bias);
    if ((result = visit(p, layer, SITE_ATTN_OUT, p->out)) || (result = visit(p, layer, SITE_RESID_MID, p->x)))
        return result;

    layer_norm(p, w->ln_2_weight, w->ln_2_bias);
    /* hidden [t, inner] = act(narrow [t, d] c_fc + bias) */
    gemm(false, false, t, inner, d, 1, p->narrow, d, w->mlp_c_fc_weight, inner, 0, p->wide, inner);
    activate(p, w->mlp_c_fc_bias);
    /* out [t, d] = hidden [t, inner] c_proj (+ bias) */
    gemm(false, false, t, d, inner, 1, p->wide, inner, w->mlp_c_proj_weight, d, 0, p->out, d);
    add_to_residual(p, w->mlp_c_proj_bias);
    if ((result = visit(p, layer, SITE_MLP_OUT, p->out)))
        return result;
    return visit(p, layer, SITE_RESID_POST, p->x);
}

int gpt2_forward_run(struct gpt2_forward *f, const struct gpt2_model *m, const uint32_t *tokens, size_t n,
                     size_t seq_len, const struct site *sites, size_t n_sites, gpt2_hook hook, void *context,
                     struct err *e)
{
    int result = n_sites ? gpt2_forward_reserve(f, m, n, seq_len, e) : DONE;
    struct pass p = {.m = m,
                     .n = n,
                     .seq_len = seq_len,
                     .tokens = n * seq_len,
                     .d = m->config.n_embd,
                     .inner = m->config.n_inner,
                     .tile = query_tile(seq_len),
                     .x = f->residual.data,
                     .narrow = f->narrow.data,
                     .wide = f->wide.data,
                     .out = f->out.data,
                     .scores = f->scores.data,
                     .sites = sites,
                     .n_sites = n_sites,
                     .hook = hook,
                     .context = context,
                     .e = e};
    if (!result)
        embed(&p, tokens);
    for (uint32_t layer = 0; !result && layer < m->config.n_layer; layer++)
        result = run_layer(&p, layer);
    return result == DONE ? 0 : result;
}
