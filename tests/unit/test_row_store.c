/* test_row_store.c - the first blocks: measured, scaled, kept and handed on the same whatever order they come in, raw or scaled. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "bf16.h"
#include "rng.h"
#include "row_store.h"

enum {
    SITES = 2,
    DIM = 3,
    INPUTS = SITES * DIM,
    SEQ_ROWS = 3,
    BLOCK_ROWS = 2 * SEQ_ROWS,
    FIRST = 3,
    ROWS = FIRST * BLOCK_ROWS
};

static struct err e;
static struct stream stream;
static struct plan plan;
static uint32_t blocks[64];
static float raw[ROWS][INPUTS]; /* of the first blocks, in their order */
static struct row_origin origins[ROWS];

static int open_plan(void **state)
{
    uint32_t n;
    struct rng r;
    (void)state;
    stream = (struct stream){.n_sites = SITES, .d_model = DIM, .seq_len = 4, .rows_per_seq = SEQ_ROWS, .n_seq = 40};
    if (plan_init(&plan, &stream, 1, 2, 0, 5 * BLOCK_ROWS, &e))
        return -1;
    plan_window(&plan, 0, blocks, &n);
    rng_init(&r, 1, RNG_TEST, 0);
    for (size_t row = 0; row < ROWS; row++) {
        origins[row] = (struct row_origin){(uint32_t)row, 0, row % 5 == 2 ? ROW_MASKED : 7};
        for (size_t i = 0; i < INPUTS; i++)
            raw[row][i] = (float)rng_normal(&r);
    }
    for (size_t i = DIM; i < INPUTS; i++) { /* one row is very long at site 1, and one that is masked at both */
        raw[9][i] = 100;
        raw[7][i] = raw[7][i - DIM] = 1000;
    }
    return 0;
}

static int close_plan(void **state)
{
    (void)state;
    plan_release(&plan);
    return 0;
}

/* Stores the i-th of the first blocks, rows [BLOCK_ROWS, ...] of the dtype in which they are leased. */
static enum row_store_event store(struct row_store *s, size_t i, const void *rows, float *scale)
{
    struct lease_task t = {.block = blocks[i], .purpose = FOR_SCALE, .n_rows = BLOCK_ROWS, .first_row = i * BLOCK_ROWS};
    static struct message_batch b;
    enum row_store_event event;
    b = (struct message_batch){.block = blocks[i], .rows = BLOCK_ROWS};
    memcpy(b.origins, origins + i * BLOCK_ROWS, BLOCK_ROWS * sizeof *origins);
    row_store_store(s, &t, 0, &b, rows);
    if (row_store_complete(s, &t, scale, &event, &e))
        fail_msg("%s", e.message);
    return event;
}

static double norm_of(const unsigned char *row, size_t site, enum row_dtype dtype)
{
    float x[DIM];
    double squares = 0;
    memcpy(x, row + site * DIM * row_dtype_size(dtype), DIM * row_dtype_size(dtype));
    if (dtype == ROW_BF16)
        bf16_to_f32_n(x, row + site * DIM * sizeof(uint16_t), DIM);
    for (size_t i = 0; i < DIM; i++)
        squares += (double)x[i] * (double)x[i];
    return sqrt(squares);
}

/* What is said of the norms is true of the rows [n] of the dtype, of which those that are masked do not count. */
static void norms_are_right(const struct row_norms *norms, unsigned char (*rows)[INPUTS * sizeof(float)],
                            enum row_dtype dtype)
{
    size_t row_bytes = stream_row_bytes(&stream, dtype);
    for (size_t site = 0; site < SITES; site++) {
        const struct site_norms *s = &norms->site[site];
        size_t n = 0, below = 0, up_to = 0, n_long = 0;
        double largest = 0, squares = 0, of_long = 0;
        for (size_t row = 0; row < ROWS; row++) {
            if (origins[row].token == ROW_MASKED)
                continue;
            double norm = norm_of(rows[0] + row * row_bytes, site, dtype);
            n++;
            below += (float)norm < s->median;
            up_to += (float)norm <= s->median;
            largest = fmax(largest, norm);
            squares += norm * norm;
            n_long += norm > 10 * (double)s->median;
            of_long += norm > 10 * (double)s->median ? norm * norm : 0;
        }
        assert_int_equal(norms->n_rows, n);
        assert_true(below <= (n - 1) / 2 && (n - 1) / 2 < up_to); /* the median is the one of that rank */
        assert_true(fabs((double)s->largest - largest) <= 1e-6 * largest);
        assert_int_equal(s->n_long, n_long);
        assert_int_equal(n_long, site == 1);
        assert_true(fabs(s->long_share - of_long / squares) < 1e-6);
    }
}

static void first_blocks(enum row_dtype dtype, bool scaled, enum scale_mode mode, const size_t order[FIRST])
{
    struct shuffle *shuffle;
    struct row_store s;
    float scale[SITES] = {0}, expected[SITES], given[SITES] = {1.5f, 0.25f};
    unsigned char rows[ROWS][INPUTS * sizeof(float)];
    size_t row_bytes = stream_row_bytes(&stream, dtype), n = 0, evaluation_bytes, first_bytes, kept_bytes;
    const struct shuffle_config sc = {.plan = &plan,
                                      .row_elements = INPUTS,
                                      .dtype = dtype,
                                      .lookahead_rows = BLOCK_ROWS,
                                      .total_rows = 1000,
                                      .wake = -1};
    assert_int_equal(shuffle_new(&shuffle, &sc, &e), 0);
    const struct row_store_config c = {.stream = &stream,
                                       .plan = &plan,
                                       .shuffle = shuffle,
                                       .dtype = dtype,
                                       .scale_blocks = blocks,
                                       .n_scale_blocks = FIRST,
                                       .scaled = scaled,
                                       .scale_mode = mode,
                                       .scale_target = 2,
                                       .keep = true};
    assert_int_equal(row_store_init(&s, &c, &e), 0);
    row_store_memory(&c, &evaluation_bytes, &first_bytes, &kept_bytes);
    assert_int_equal(kept_bytes, ROWS * row_bytes);
    enum row_dtype leased = row_store_dtype(&s, FOR_SCALE);
    assert_int_equal(leased, scaled ? dtype : ROW_F32);

    /* What comes of the rows, worked out here. */
    if (scaled)
        memcpy(expected, given, sizeof expected);
    else
        assert_int_equal(scale_measure(mode, 2, &raw[0][0], origins, ROWS, &stream, expected, &e), 0);
    for (size_t row = 0; row < ROWS; row++)
        scale_apply(raw[row], 1, &stream, expected, dtype, rows[0] + row * row_bytes);

    memcpy(scale, given, sizeof scale);
    for (size_t i = 0; i < FIRST; i++) {
        assert_null(s.kept_rows ? s.kept : NULL);
        const void *block =
            scaled ? (const void *)(rows[0] + order[i] * BLOCK_ROWS * row_bytes) : raw[order[i] * BLOCK_ROWS];
        assert_int_equal(store(&s, order[i], block, scale), i + 1 < FIRST ? ROW_STORE_NOTHING : ROW_STORE_MEASURED);
    }
    assert_memory_equal(scale, expected, sizeof scale);
    for (size_t row = 0; row < ROWS; row++)
        if (origins[row].token != ROW_MASKED)
            assert_memory_equal(s.kept + n++ * row_bytes, rows[0] + row * row_bytes, row_bytes);
    assert_int_equal(s.kept_rows, n);
    norms_are_right(&s.norms, rows, dtype);
    row_store_forget(&s);
    assert_null(s.kept);

    /* The shuffle goes on with the block after them. */
    struct shuffle_ticket ticket;
    struct shuffle_state state;
    shuffle_state(shuffle, &state);
    assert_int_equal(state.rows_held, ROWS);
    assert_true(shuffle_reserve(shuffle, &ticket));
    assert_int_equal(ticket.block, blocks[FIRST]);
    row_store_release(&s);
    shuffle_free(shuffle);
}

static void any_order(void **state)
{
    (void)state;
    const size_t orders[][FIRST] = {{0, 1, 2}, {2, 1, 0}, {1, 0, 2}};
    for (size_t i = 0; i < 3; i++)
        for (enum row_dtype dtype = ROW_BF16; dtype <= ROW_F32; dtype++) {
            first_blocks(dtype, true, SCALE_MEAN_NORM, orders[i]);
            first_blocks(dtype, false, SCALE_MEAN_NORM, orders[i]);
            first_blocks(dtype, false, SCALE_TOTAL_STD, orders[i]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_order)};
    return cmocka_run_group_tests(tests, open_plan, close_plan);
}
