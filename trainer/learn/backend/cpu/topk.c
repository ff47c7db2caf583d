/* topk.c - the activations "topk" (of each row the k greatest scores; Gao et al. 2024) and "batchtopk" (of the whole batch the k * rows
 * greatest; Bussmann et al. 2024).
 *
 * An entry's score is max(p, 0) times its latent's factor (enum score), f = p where it is kept. Zero scores are never active. Selection
 * streams: `keep` drops what is below the least score that would be kept so far, and the lists are cut when they hold twice what is
 * wanted, so [rows, d_sae] is never stored; exact, since what has been dropped had k, or k * rows, better ones before it.
 * By threshold (single rows, at inference) an entry is active if its score is above the threshold. */
#include <math.h>
#include <string.h>

#include "activation.h"
#include "active.h"
#include "forward.h"
#include "kernels.h"
#include "mem.h"
#include "order.h"

struct topk {
    float *factor; /* [d_sae] */
    float *bound;  /* [batch_size] of each row, the least score that may still be kept; of batchtopk all the same */
    size_t rows;
    struct order order;
};

static bool by_row(const struct selection *s)
{
    return s->kind->scope == SCOPE_ROW;
}

/* Returns the entries that the lists may hold after settle: twice what is wanted. */
static size_t most(const struct backend_setup *setup)
{
    return 2 * setup->most_k * setup->batch_size;
}

static size_t row_capacity(const struct backend_setup *setup)
{
    return strcmp(setup->activation, "topk") == 0 ? most(setup) + setup->batch_size * active_strip(setup->d_sae) : 0;
}

static size_t memory(const struct backend_setup *setup)
{
    return (setup->d_sae + setup->batch_size) * sizeof(float) + order_memory(setup->batch_size, row_capacity(setup));
}

static void close_topk(struct selection *s)
{
    struct topk *t = s->own;
    if (!t)
        return;
    mem_free(t->factor);
    mem_free(t->bound);
    order_release(&t->order);
    mem_free(t);
    s->own = NULL;
}

static int open_topk(struct selection *s, struct err *e)
{
    struct topk *t = s->own = mem_alloc(1, sizeof *t, "selection", e);
    if (t && (t->factor = mem_alloc(s->setup->d_sae, sizeof *t->factor, "factors of the scores", e)) &&
        (t->bound = mem_alloc(s->setup->batch_size, sizeof *t->bound, "bounds of the rows", e)) &&
        order_init(&t->order, s->setup->batch_size, row_capacity(s->setup), e) == 0)
        return 0;
    close_topk(s);
    return ERR_MEMORY;
}

static void begin(struct selection *s, const struct forward *w, const struct crosscoder *c, size_t rows)
{
    struct topk *t = s->own;
    t->rows = rows;
    s->factor = t->factor;
    for (size_t j = 0; j < c->d_sae; j++) {
        double squares = 0;
        for (size_t site = 0; site < c->n_sites; site++)
            squares += w->dec_norm[j * c->n_sites + site] * w->dec_norm[j * c->n_sites + site];
        t->factor[j] = s->setup->score == SCORE_NONE   ? 1
                       : s->setup->score == SCORE_NORM ? (float)sqrt(squares)
                                                       : (float)w->dec_norm_sum[j];
    }
    /* Above the threshold is from the next number on. */
    float bound = s->mode == ENCODE_BY_THRESHOLD ? nextafterf(s->threshold < 0 ? 0 : s->threshold, INFINITY) : 0;
    for (size_t row = 0; row < rows; row++)
        t->bound[row] = bound;
}

static void keep(const struct selection *s, float *p, const float *bias, size_t row, size_t first, size_t n,
                 uint32_t *count)
{
    const struct topk *t = s->own;
    kernels_best()->select(p, bias, t->factor + first, t->bound[row], count, n);
}

static void settle(struct selection *s, struct active *a, size_t latents, bool last)
{
    struct topk *t = s->own;
    size_t wanted = s->k * t->rows;
    if (s->mode == ENCODE_BY_THRESHOLD || (!last && a->begin[latents] <= 2 * wanted))
        return;
    if (by_row(s)) {
        order_keep_rows(&t->order, a, latents, t->factor, t->rows, s->k);
        memcpy(t->bound, t->order.least, t->rows * sizeof *t->bound);
    } else {
        float least = order_keep_greatest(&t->order, a, latents, t->factor, t->rows, wanted);
        for (size_t row = 0; least > 0 && row < t->rows; row++)
            t->bound[row] = least;
    }
    if (last)
        s->least = order_least(a, latents, t->factor);
}

const struct activation activation_topk = {.name = "topk",
                                           .scope = SCOPE_ROW,
                                           .memory = memory,
                                           .open = open_topk,
                                           .close = close_topk,
                                           .most = most,
                                           .begin = begin,
                                           .keep = keep,
                                           .settle = settle};

const struct activation activation_batchtopk = {.name = "batchtopk",
                                                .scope = SCOPE_BATCH,
                                                .memory = memory,
                                                .open = open_topk,
                                                .close = close_topk,
                                                .most = most,
                                                .begin = begin,
                                                .keep = keep,
                                                .settle = settle};
