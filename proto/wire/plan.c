/* plan.c - block order, windows and row order; see plan.h. */
#include "plan.h"

#include "mem.h"
#include "rng.h"

/* Held-out block i of n_eval: the middle of the i-th of n_eval equal parts. */
static uint32_t eval_block(const struct plan *p, uint32_t i)
{
    return (uint32_t)(((uint64_t)i * 2 + 1) * p->n_blocks / ((uint64_t)p->n_eval * 2));
}

int plan_init(struct plan *p, const struct stream *s, uint64_t seed, uint32_t block_seqs, uint32_t eval_blocks,
              uint64_t window_rows, struct err *e)
{
    *p = (struct plan){.seed = seed,
                       .n_seq = s->n_seq,
                       .block_seqs = block_seqs,
                       .rows_per_seq = s->rows_per_seq,
                       .n_eval = eval_blocks,
                       .order_epoch = UINT64_MAX};
    if (block_seqs == 0)
        return err_set(e, ERR_INPUT, "blocks of 0 sequences");
    if (block_seqs > s->n_seq)
        p->block_seqs = block_seqs = s->n_seq;
    p->n_blocks = (s->n_seq - 1) / block_seqs + 1;
    p->max_block_rows = (size_t)block_seqs * s->rows_per_seq;
    if (p->n_blocks > PLAN_MAX_BLOCKS)
        return err_set(e, ERR_INPUT, "%u sequences in blocks of %u are %u blocks, at most %d: raise --model-batch-size",
                       s->n_seq, block_seqs, p->n_blocks, PLAN_MAX_BLOCKS);
    if (eval_blocks >= p->n_blocks)
        return err_set(e, ERR_INPUT, "%u blocks held out for evaluation of %u in all: nothing is left to train on",
                       eval_blocks, p->n_blocks);
    if (window_rows < p->max_block_rows)
        return err_set(
            e, ERR_INPUT,
            "window of %llu rows is smaller than one block of %zu (%u sequences of %u rows): raise --buffer-mult or "
            "lower --model-batch-size",
            (unsigned long long)window_rows, p->max_block_rows, block_seqs, s->rows_per_seq);
    p->n_train = p->n_blocks - eval_blocks;
    if (!(p->eval_blocks = mem_alloc(eval_blocks, sizeof *p->eval_blocks, "held-out blocks", e)) ||
        !(p->train_blocks = mem_alloc(p->n_train, sizeof *p->train_blocks, "blocks to train on", e)) ||
        !(p->order = mem_alloc(p->n_train, sizeof *p->order, "block order", e))) {
        plan_release(p);
        return ERR_MEMORY;
    }
    uint32_t held = 0, kept = 0;
    for (uint32_t b = 0; b < p->n_blocks; b++) {
        if (held < eval_blocks && eval_block(p, held) == b)
            p->eval_blocks[held++] = b;
        else {
            p->train_blocks[kept++] = b;
            p->epoch_rows += plan_block_rows(p, b);
        }
    }
    uint64_t at_most = window_rows / p->max_block_rows; /* blocks a window */
    p->windows_per_epoch = (uint32_t)((p->n_train + at_most - 1) / at_most);
    p->window_blocks = (p->n_train + p->windows_per_epoch - 1) / p->windows_per_epoch;
    p->window_rows = p->window_blocks * p->max_block_rows;
    if (p->window_rows >= UINT32_MAX) {
        err_set(e, ERR_INPUT, "window of %zu rows, at most %u", p->window_rows, UINT32_MAX);
        plan_release(p);
        return ERR_INPUT;
    }
    return 0;
}

void plan_release(struct plan *p)
{
    mem_free(p->eval_blocks);
    mem_free(p->train_blocks);
    mem_free(p->order);
    *p = (struct plan){0};
}

uint32_t plan_block_first(const struct plan *p, uint32_t block)
{
    return block * p->block_seqs;
}

uint32_t plan_block_seqs(const struct plan *p, uint32_t block)
{
    uint32_t left = p->n_seq - plan_block_first(p, block);
    return left < p->block_seqs ? left : p->block_seqs;
}

size_t plan_block_rows(const struct plan *p, uint32_t block)
{
    return (size_t)plan_block_seqs(p, block) * p->rows_per_seq;
}

/* Blocks begin..end-1 of the epoch's order are window g. */
static void window_range(struct plan *p, uint64_t g, uint32_t *begin, uint32_t *end)
{
    uint64_t epoch = g / p->windows_per_epoch, w = g % p->windows_per_epoch;
    if (p->order_epoch != epoch) {
        struct rng r;
        rng_init(&r, p->seed, RNG_BLOCK_ORDER, epoch);
        rng_permutation(&r, p->order, p->n_train);
        p->order_epoch = epoch;
    }
    *begin = (uint32_t)(w * p->n_train / p->windows_per_epoch);
    *end = (uint32_t)((w + 1) * p->n_train / p->windows_per_epoch);
}

size_t plan_window(struct plan *p, uint64_t g, uint32_t *blocks, uint32_t *n_blocks)
{
    uint32_t begin, end;
    size_t rows = 0;
    window_range(p, g, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        blocks[i - begin] = p->train_blocks[p->order[i]];
        rows += plan_block_rows(p, blocks[i - begin]);
    }
    *n_blocks = end - begin;
    return rows;
}

uint32_t plan_measured_blocks(struct plan *p, uint64_t n_rows, uint32_t *blocks)
{
    uint32_t n, taken = 0;
    plan_window(p, 0, blocks, &n);
    for (uint64_t rows = 0; taken < n && rows < n_rows; taken++)
        rows += plan_block_rows(p, blocks[taken]);
    return taken;
}

uint64_t plan_rows_before(struct plan *p, uint64_t g)
{
    uint32_t begin, end;
    window_range(p, g, &begin, &end);
    uint64_t rows = g / p->windows_per_epoch * p->epoch_rows;
    for (uint32_t i = 0; i < begin; i++)
        rows += plan_block_rows(p, p->train_blocks[p->order[i]]);
    return rows;
}

void plan_window_order(const struct plan *p, uint64_t g, uint32_t *order, size_t n_rows)
{
    struct rng r;
    rng_init(&r, p->seed, RNG_WINDOW_ORDER, g);
    rng_permutation(&r, order, n_rows);
}
