/* test_plan.c - blocks partition the sequences, epochs are permutations of what is trained on, windows keep their
 * bound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "plan.h"

static const struct geometry {
    uint32_t n_seq, rows_per_seq, block_seqs, eval;
    uint64_t window_rows;
} geometries[] = {
    {23, 3, 2, 2, 20},   /* a short last block, windows of unequal size */
    {24, 3, 2, 0, 6},    /* one block a window */
    {25, 1, 3, 8, 1000}, /* one window an epoch, one block trained */
    {7, 5, 100, 0, 35},  /* one block in all, larger than the tensor */
    {100, 2, 1, 10, 7},  /* blocks of one sequence */
    {1000, 15, 4, 4, 999}, {1, 1, 1, 0, 1},
};
#define N_GEOMETRIES (sizeof geometries / sizeof geometries[0])

static void open_plan(struct plan *p, const struct geometry *g, uint64_t seed)
{
    struct stream s = {.n_seq = g->n_seq, .rows_per_seq = g->rows_per_seq, .seq_len = g->rows_per_seq + 1};
    struct err e = {0};
    if (plan_init(p, &s, seed, g->block_seqs, g->eval, g->window_rows, &e))
        fail_msg("%s", e.message);
}

static void blocks_partition_the_sequences(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GEOMETRIES; i++) {
        const struct geometry *g = &geometries[i];
        struct plan p;
        open_plan(&p, g, 1);
        uint32_t next = 0;
        uint64_t trained = 0;
        for (uint32_t b = 0; b < p.n_blocks; b++) {
            assert_int_equal(plan_block_first(&p, b), next);
            uint32_t n = plan_block_seqs(&p, b);
            assert_true(n >= 1 && n <= g->block_seqs && (n == p.block_seqs || b == p.n_blocks - 1));
            assert_int_equal(plan_block_rows(&p, b), (size_t)n * g->rows_per_seq);
            assert_true(plan_block_rows(&p, b) <= p.max_block_rows);
            next += n;
        }
        assert_int_equal(next, g->n_seq);

        /* Every block is either held out or trained on. */
        unsigned char *seen = calloc(p.n_blocks, 1);
        for (uint32_t k = 0; k < p.n_eval; k++) {
            assert_true(p.eval_blocks[k] < p.n_blocks && (k == 0 || p.eval_blocks[k] > p.eval_blocks[k - 1]));
            seen[p.eval_blocks[k]]++;
        }
        for (uint32_t k = 0; k < p.n_train; k++) {
            assert_true(p.train_blocks[k] < p.n_blocks);
            seen[p.train_blocks[k]]++;
            trained += plan_block_rows(&p, p.train_blocks[k]);
        }
        for (uint32_t b = 0; b < p.n_blocks; b++)
            assert_int_equal(seen[b], 1);
        assert_int_equal(p.n_eval, g->eval);
        assert_int_equal(trained, p.epoch_rows);
        free(seen);
        plan_release(&p);
    }
}

/* The held-out blocks do not depend on the seed, and lie all over the tensor: one in each of n_eval equal parts. */
static void held_out_blocks(void **state)
{
    (void)state;
    struct plan a, b;
    const struct geometry g = {1000, 15, 4, 7, 999};
    open_plan(&a, &g, 1);
    open_plan(&b, &g, 77);
    assert_memory_equal(a.eval_blocks, b.eval_blocks, 7 * sizeof *a.eval_blocks);
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(a.eval_blocks[i] * 7 / a.n_blocks, i);
    plan_release(&a);
    plan_release(&b);
}

/* Walks two epochs and a bit: each is a permutation of the trained blocks, cut into windows. */
static void epochs_are_permutations(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GEOMETRIES; i++) {
        struct plan p;
        open_plan(&p, &geometries[i], 5);
        uint32_t *blocks = calloc(p.window_blocks, sizeof *blocks), n;
        unsigned char *seen = calloc(p.n_blocks, 1);
        uint64_t rows = 0;
        assert_true(p.window_rows <= geometries[i].window_rows);
        for (uint64_t g = 0; g < 3 * (uint64_t)p.windows_per_epoch; g++) {
            assert_int_equal(plan_rows_before(&p, g), rows);
            size_t window = plan_window(&p, g, blocks, &n), sum = 0;
            assert_true(n >= 1 && n <= p.window_blocks && window >= 1 && window <= geometries[i].window_rows);
            for (uint32_t k = 0; k < n; k++) {
                sum += plan_block_rows(&p, blocks[k]);
                assert_int_equal(seen[blocks[k]], g / p.windows_per_epoch);
                seen[blocks[k]]++;
            }
            assert_int_equal(window, sum);
            rows += window;
            if ((g + 1) % p.windows_per_epoch == 0)
                assert_int_equal(rows, (g + 1) / p.windows_per_epoch * p.epoch_rows);
        }
        for (uint32_t k = 0; k < p.n_eval; k++)
            assert_int_equal(seen[p.eval_blocks[k]], 0);
        free(blocks);
        free(seen);
        plan_release(&p);
    }
}

/* Windows can be asked for in any order: the answer is that of a plan that was asked in order. */
static void pure_functions_of_the_window(void **state)
{
    (void)state;
    struct plan p, fresh;
    uint32_t a[64], b[64], n, m;
    open_plan(&p, &geometries[0], 5);
    for (uint64_t step = 0; step < 200; step++) {
        uint64_t g = step * 37 % 50;
        open_plan(&fresh, &geometries[0], 5);
        size_t rows = plan_window(&p, g, a, &n);
        assert_int_equal(rows, plan_window(&fresh, g, b, &m));
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n * sizeof *a);
        plan_window_order(&p, g, a, rows);
        plan_window_order(&fresh, g, b, rows);
        assert_memory_equal(a, b, rows * sizeof *a);
        assert_int_equal(plan_rows_before(&p, g), plan_rows_before(&fresh, g));
        plan_release(&fresh);
    }
    plan_release(&p);
}

/* Other seeds, epochs and windows give other orders (a shuffle that shuffles nothing would pass all of the above). */
static void orders_differ(void **state)
{
    (void)state;
    struct plan p, q;
    const struct geometry whole = {400, 3, 2, 0, 10000}; /* one window an epoch, 200 blocks */
    uint32_t a[1200], b[1200], n;
    open_plan(&p, &whole, 1);
    open_plan(&q, &whole, 2);
    plan_window(&p, 0, a, &n);
    assert_int_equal(n, 200);
    for (uint32_t i = 0; i < n; i++)
        b[i] = i;
    assert_memory_not_equal(a, b, n * sizeof *a);
    plan_window(&p, 1, b, &n);
    assert_memory_not_equal(a, b, n * sizeof *a);
    plan_window(&q, 0, b, &n);
    assert_memory_not_equal(a, b, n * sizeof *a);
    plan_window_order(&p, 0, a, 1200);
    plan_window_order(&p, 1, b, 1200);
    assert_memory_not_equal(a, b, sizeof a);
    plan_window_order(&q, 0, b, 1200);
    assert_memory_not_equal(a, b, sizeof a);
    plan_release(&p);
    plan_release(&q);
}

static void refused(uint32_t block_seqs, uint32_t eval, uint64_t window_rows, const char *a, const char *b)
{
    struct stream s = {.n_seq = 20, .rows_per_seq = 10, .seq_len = 11};
    struct plan p;
    struct err e = {0};
    assert_int_equal(plan_init(&p, &s, 1, block_seqs, eval, window_rows, &e), ERR_INPUT);
    assert_int_equal(e.code, ERR_INPUT);
    if (!strstr(e.message, a) || !strstr(e.message, b))
        fail_msg("'%s' names neither '%s' nor '%s'", e.message, a, b);
    plan_release(&p);
}

static void refusals(void **state)
{
    (void)state;
    refused(0, 0, 100, "0 sequences", "");
    refused(2, 10, 100, "10 blocks held out", "of 10 in all");
    refused(2, 11, 100, "11 blocks", "of 10");
    refused(2, 0, 19, "19 rows", "block of 20");
    refused(1, 0, 0, "0 rows", "block of 10");
}

/* The first blocks of the first window, as few as have the rows, and never more than that window. */
static void measured_blocks(void **state)
{
    (void)state;
    struct plan p;
    uint32_t window[100], measured[100], n;
    open_plan(&p, &(struct geometry){1000, 15, 4, 4, 999}, 1); /* blocks of 60 rows, 16 a window */
    plan_window(&p, 0, window, &n);
    static const struct {
        uint64_t rows;
        uint32_t blocks;
    } cases[] = {{1, 1}, {60, 1}, {61, 2}, {900, 15}, {1000000, 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t blocks = cases[i].blocks < n ? cases[i].blocks : n;
        assert_int_equal(plan_measured_blocks(&p, cases[i].rows, measured), blocks);
        assert_memory_equal(measured, window, blocks * sizeof *window);
    }
    plan_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_partition_the_sequences),
        cmocka_unit_test(held_out_blocks),
        cmocka_unit_test(epochs_are_permutations),
        cmocka_unit_test(pure_functions_of_the_window),
        cmocka_unit_test(orders_differ),
        cmocka_unit_test(measured_blocks),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
