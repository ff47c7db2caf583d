/* test_shuffle.c - whatever the order in which rows arrive, the same rows are served in the same order, each once an
 * epoch, from any row on, within the memory promised. First one thread plays both sides, then two threads race.
 *
 * ThreadSanitizer cannot see libgomp's barriers, so there shuffle's gather runs on one OpenMP thread. */
#include <math.h>
#include <omp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "bf16.h"
#include "rng.h"
#include "shuffle.h"

#define ELEMENTS 3
#define MAX_ROWS 8192 /* that a test serves */

struct geometry {
    uint32_t n_seq, rows_per_seq, block_seqs, eval;
    uint64_t window_rows;
    size_t batch, lookahead;
};

static const struct geometry geometries[] = {
    {23, 3, 2, 2, 20, 7, 6},     /* a short last block, batches across windows */
    {23, 3, 2, 2, 20, 50, 0},    /* batches of several windows, no lookahead */
    {24, 3, 2, 0, 6, 4, 6},      /* one block a window */
    {25, 2, 3, 1, 1000, 16, 12}, /* one window an epoch, a short last block */
    {31, 1, 1, 5, 4, 1, 1},      /* blocks of one row, batches of one row */
    {9, 4, 2, 0, 16, 8, 1000},   /* more lookahead than there are rows */
};
#define N_GEOMETRIES (sizeof geometries / sizeof geometries[0])

/* What a row must hold: a function of where it comes from. */
static float value_of(uint32_t sequence, uint32_t position, size_t k)
{
    return (float)((sequence * 7 + position * 3 + k) % 256); /* exact in bf16 */
}

static struct stream stream_of(const struct geometry *g)
{
    return (struct stream){.n_seq = g->n_seq, .rows_per_seq = g->rows_per_seq, .seq_len = g->rows_per_seq + 1};
}

/* With mask_share n, every n-th row or so is masked; 1: all of them, 0: none. */
static uint32_t mask_share;

static bool is_masked(uint32_t sequence, uint32_t position)
{
    return mask_share && (sequence * 5 + position * 11) % mask_share == 0;
}

static struct row_origin origin_of(const struct plan *p, uint32_t block, size_t row)
{
    uint32_t sequence = plan_block_first(p, block) + (uint32_t)row / p->rows_per_seq;
    uint32_t position = 1 + (uint32_t)row % p->rows_per_seq;
    uint32_t token = is_masked(sequence, position) ? ROW_MASKED : sequence * 1000 + position;
    return (struct row_origin){sequence, position, token};
}

/* The rows that must be served, from the plan alone. */
static size_t expected_rows(const struct geometry *g, uint64_t seed, struct row_origin *rows, size_t n)
{
    struct plan p;
    struct stream s = stream_of(g);
    struct row_origin window[MAX_ROWS];
    uint32_t blocks[512], order[MAX_ROWS], n_blocks;
    assert_int_equal(plan_init(&p, &s, seed, g->block_seqs, g->eval, g->window_rows, NULL), 0);
    size_t done = 0;
    for (uint64_t w = 0; done < n; w++) {
        size_t n_rows = plan_window(&p, w, blocks, &n_blocks), at = 0;
        for (uint32_t b = 0; b < n_blocks; b++)
            for (size_t i = 0; i < plan_block_rows(&p, blocks[b]); i++) {
                window[at] = origin_of(&p, blocks[b], i);
                at += window[at].token != ROW_MASKED;
            }
        assert_true(mask_share ? at <= n_rows : at == n_rows);
        n_rows = at;
        plan_window_order(&p, w, order, n_rows);
        for (size_t i = 0; i < n_rows && done < n; i++)
            rows[done++] = window[order[i]];
    }
    plan_release(&p);
    return done;
}

/* ---- a fake ingest ---- */

enum manner { IN_ORDER, EAGER, REVERSED, RANDOM, MANNERS };

struct ingest {
    struct plan plan;
    struct shuffle *shuffle;
    struct shuffle_config config;
    enum manner manner;
    struct rng rng;
    struct shuffle_ticket pending[256];
    size_t n_pending;
    uint64_t reserved_rows; /* ever */
};

/* Where the row is that is served after `rows` others. */
static struct plan_place place_of(struct plan *p, uint64_t rows)
{
    uint64_t g = 0;
    while (plan_rows_before(p, g + 1) <= rows)
        g++;
    return (struct plan_place){g, (size_t)(rows - plan_rows_before(p, g))};
}

static void ingest_open_at(struct ingest *in, const struct geometry *g, enum row_dtype dtype, uint64_t seed,
                           uint64_t start, struct plan_place place, uint64_t total)
{
    struct stream s = stream_of(g);
    struct err e = {0};
    *in = (struct ingest){0};
    assert_int_equal(plan_init(&in->plan, &s, seed, g->block_seqs, g->eval, g->window_rows, &e), 0);
    in->config = (struct shuffle_config){.plan = &in->plan,
                                         .row_elements = ELEMENTS,
                                         .dtype = dtype,
                                         .lookahead_rows = g->lookahead,
                                         .start_row = start,
                                         .start = place,
                                         .total_rows = total,
                                         .wake = -1};
    if (shuffle_new(&in->shuffle, &in->config, &e))
        fail_msg("%s", e.message);
}

static void ingest_open(struct ingest *in, const struct geometry *g, enum row_dtype dtype, uint64_t seed,
                        uint64_t start, uint64_t total)
{
    struct stream s = stream_of(g);
    struct plan p;
    assert_int_equal(plan_init(&p, &s, seed, g->block_seqs, g->eval, g->window_rows, NULL), 0);
    struct plan_place place = place_of(&p, start);
    plan_release(&p);
    ingest_open_at(in, g, dtype, seed, start, place, total);
}

static void ingest_close(struct ingest *in)
{
    shuffle_free(in->shuffle);
    plan_release(&in->plan);
}

/* Rows first..first+n-1 of the block, at an odd address, as a payload may lie. */
static void store(struct ingest *in, const struct shuffle_ticket *t, size_t first, size_t n)
{
    size_t size = row_dtype_size(in->config.dtype);
    unsigned char *acts = malloc(n * ELEMENTS * size + 1);
    struct row_origin *origins = malloc(n * sizeof *origins);
    for (size_t i = 0; i < n; i++) {
        struct row_origin o = origins[i] = origin_of(&in->plan, t->block, first + i);
        for (size_t k = 0; k < ELEMENTS; k++) {
            float x = value_of(o.sequence, o.position, k);
            uint16_t h = bf16_from_f32(x);
            memcpy(acts + 1 + (i * ELEMENTS + k) * size, size == 2 ? (void *)&h : (void *)&x, size);
        }
    }
    shuffle_store(in->shuffle, t, first, n, acts + 1, origins);
    free(acts);
    free(origins);
}

/* Stores the block in one go or, if random, in pieces, some of them repeated or begun and given to another producer. */
static void store_block(struct ingest *in, const struct shuffle_ticket *t)
{
    if (in->manner != RANDOM) {
        store(in, t, 0, t->n_rows);
        return;
    }
    if (rng_below(&in->rng, 3) == 0) /* an attempt that stopped half way */
        store(in, t, 0, 1 + rng_below(&in->rng, (uint32_t)t->n_rows));
    for (size_t at = 0; at < t->n_rows;) {
        size_t n = 1 + rng_below(&in->rng, (uint32_t)(t->n_rows - at));
        for (uint32_t times = 1 + rng_below(&in->rng, 2); times > 0; times--)
            store(in, t, at, n);
        at += n;
    }
}

static bool reserve(struct ingest *in)
{
    struct shuffle_ticket t;
    if (in->n_pending == sizeof in->pending / sizeof in->pending[0] || !shuffle_reserve(in->shuffle, &t))
        return false;
    assert_int_equal(t.n_rows, plan_block_rows(&in->plan, t.block));
    in->pending[in->n_pending++] = t;
    in->reserved_rows += t.n_rows;
    return true;
}

/* Completes one block, having reserved as the manner wants. false: nothing could be done. */
static bool ingest_one(struct ingest *in)
{
    if (in->manner == IN_ORDER)
        reserve(in);
    else if (in->manner != RANDOM)
        while (reserve(in))
            ;
    else
        for (uint32_t n = 1 + rng_below(&in->rng, 4); n > 0; n--)
            reserve(in);
    if (in->n_pending == 0)
        return false;
    size_t pick = in->manner == REVERSED ? in->n_pending - 1
                  : in->manner == RANDOM ? rng_below(&in->rng, (uint32_t)in->n_pending)
                                         : 0;
    struct shuffle_ticket t = in->pending[pick];
    memmove(in->pending + pick, in->pending + pick + 1, (--in->n_pending - pick) * sizeof t);
    store_block(in, &t);
    shuffle_complete(in->shuffle, &t);
    return true;
}

static void check_rows(const float *x, const struct row_origin *got, const struct row_origin *want, size_t n)
{
    assert_memory_equal(got, want, n * sizeof *got);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < ELEMENTS; k++)
            assert_true(x[i * ELEMENTS + k] == value_of(want[i].sequence, want[i].position, k));
}

/* Takes batches from start to total and compares them with expected [total]; checks the memory bound all along. */
static void serve_all(struct ingest *in, const struct geometry *g, const struct row_origin *expected)
{
    uint64_t served = in->config.start_row, slots = in->plan.window_rows + g->lookahead;
    float *x = malloc(g->batch * ELEMENTS * sizeof *x);
    struct row_origin *origins = malloc(g->batch * sizeof *origins);
    struct err e = {0};
    struct shuffle_state state;
    while (served < in->config.total_rows) {
        int rc = shuffle_take(in->shuffle, x, origins, g->batch, 0, &e);
        shuffle_state(in->shuffle, &state);
        assert_int_equal(state.slots, slots);
        assert_true(state.rows_held <= slots);
        if (rc == 1) {
            if (!ingest_one(in))
                fail_msg("after %zu rows nothing can be reserved and nothing is served", (size_t)served);
            continue;
        }
        if (rc)
            fail_msg("%s", e.message);
        check_rows(x, origins, expected + served, g->batch);
        served += g->batch;
        shuffle_state(in->shuffle, &state);
        if (!mask_share) {
            uint64_t place = plan_rows_before(&in->plan, state.next.window) + state.next.position;
            assert_int_equal(place, served);
            assert_int_equal(state.epoch, served / in->plan.epoch_rows);
        }
        if (in->manner == RANDOM && rng_below(&in->rng, 2))
            ingest_one(in);
    }
    free(x);
    free(origins);
}

static uint64_t whole_batches(const struct geometry *g, uint64_t rows)
{
    return rows / g->batch * g->batch;
}

static uint64_t epoch_rows(const struct geometry *g)
{
    struct plan p;
    struct stream s = stream_of(g);
    assert_int_equal(plan_init(&p, &s, 1, g->block_seqs, g->eval, g->window_rows, NULL), 0);
    uint64_t rows = p.epoch_rows;
    plan_release(&p);
    return rows;
}

/* ---- one thread ---- */

static void same_sequence_whatever_arrives_when(void **state)
{
    (void)state;
    static struct row_origin expected[MAX_ROWS];
    for (size_t i = 0; i < N_GEOMETRIES; i++) {
        const struct geometry *g = &geometries[i];
        uint64_t total = whole_batches(g, 4 * epoch_rows(g) + g->batch);
        expected_rows(g, 11, expected, total);
        for (int manner = 0; manner < MANNERS; manner++)
            for (uint64_t attempt = 0; attempt < (manner == RANDOM ? 10 : 1); attempt++) {
                struct ingest in;
                ingest_open(&in, g, attempt % 2 ? ROW_F32 : ROW_BF16, 11, 0, total);
                in.manner = (enum manner)manner;
                rng_init(&in.rng, attempt, RNG_TEST, 0);
                serve_all(&in, g, expected);
                ingest_close(&in);
            }
    }
}

/* The rows of an epoch that are not masked. */
static uint64_t unmasked_rows(const struct plan *p)
{
    uint64_t rows = 0;
    for (uint32_t b = 0; b < p->n_train; b++)
        for (size_t row = 0; row < plan_block_rows(p, p->train_blocks[b]); row++)
            rows += origin_of(p, p->train_blocks[b], row).token != ROW_MASKED;
    return rows;
}

/* An epoch's rows are counted without the masked ones once one has ended, and estimated before. */
static void epochs_are_of_unmasked_rows(void **state)
{
    (void)state;
    static struct row_origin expected[MAX_ROWS];
    const struct geometry *g = &geometries[0];
    struct ingest in;
    struct shuffle_state s;
    for (mask_share = 0; mask_share < 5; mask_share += 2) {
        uint64_t total = whole_batches(g, epoch_rows(g) / 2);
        expected_rows(g, 11, expected, total);
        ingest_open(&in, g, ROW_F32, 11, 0, total);
        shuffle_state(in.shuffle, &s);
        assert_int_equal(s.epoch_rows, in.plan.epoch_rows); /* nothing is known yet */
        serve_all(&in, g, expected);
        shuffle_state(in.shuffle, &s);
        assert_int_equal(s.epoch_estimated, mask_share > 0);
        double truth = (double)unmasked_rows(&in.plan), windows = (double)in.plan.windows_per_epoch;
        assert_true(fabs((double)s.epoch_rows - truth) <= (mask_share ? truth / windows : 0));
        uint64_t estimate = s.epoch_rows;
        struct plan_place place = s.next;
        ingest_close(&in);
        ingest_open_at(&in, g, ROW_F32, 11, total, place, 2 * total); /* a resumed run knows it from its place */
        shuffle_state(in.shuffle, &s);
        assert_true(fabs((double)s.epoch_rows - (double)estimate) <= (mask_share ? truth / windows : 0));
        ingest_close(&in);
    }
    mask_share = 0;
}

/* Masked rows are never served, the rest in the order of a window without them; resumed from any batch on. */
static void masked_rows_are_dropped(void **state)
{
    (void)state;
    static struct row_origin expected[MAX_ROWS];
    for (uint32_t share = 2; share < 6; share++)
        for (size_t i = 0; i < N_GEOMETRIES; i++) {
            const struct geometry *g = &geometries[i];
            mask_share = share;
            uint64_t total = whole_batches(g, 2 * epoch_rows(g) + g->batch);
            expected_rows(g, 11, expected, total);
            struct ingest in;
            struct shuffle_state place;
            ingest_open(&in, g, ROW_F32, 11, 0, total);
            serve_all(&in, g, expected);
            shuffle_state(in.shuffle, &place);
            assert_false(place.epoch_estimated);
            assert_int_equal(place.epoch_rows, unmasked_rows(&in.plan));
            /* What the checkpoint of the middle would say. */
            uint64_t half = total / g->batch / 2 * g->batch;
            ingest_close(&in);
            ingest_open(&in, g, ROW_F32, 11, 0, half);
            serve_all(&in, g, expected);
            shuffle_state(in.shuffle, &place);
            ingest_close(&in);
            ingest_open_at(&in, g, ROW_F32, 11, half, place.next, total);
            serve_all(&in, g, expected);
            ingest_close(&in);
        }
    mask_share = 1;
    struct ingest in;
    struct err e = {0};
    float x[64 * ELEMENTS];
    ingest_open(&in, &geometries[0], ROW_F32, 11, 0, 1000);
    int rc;
    while ((rc = shuffle_take(in.shuffle, x, NULL, geometries[0].batch, 0, &e)) == 1 && ingest_one(&in))
        ;
    assert_int_equal(rc, ERR_INPUT);
    assert_non_null(strstr(e.message, "masked"));
    ingest_close(&in);
    mask_share = 0;
}

/* The expected sequence itself: each row of an epoch once before any of the next one, and none that is held out. */
static void each_row_once_an_epoch(void **state)
{
    (void)state;
    static struct row_origin served[MAX_ROWS];
    for (size_t i = 0; i < N_GEOMETRIES; i++) {
        const struct geometry *g = &geometries[i];
        uint64_t rows = epoch_rows(g);
        unsigned *times = calloc((size_t)g->n_seq * g->rows_per_seq, sizeof *times);
        size_t distinct = 0;
        expected_rows(g, 3, served, 4 * rows);
        for (size_t k = 0; k < 4 * rows; k++) {
            unsigned *t = &times[(size_t)served[k].sequence * g->rows_per_seq + served[k].position - 1];
            distinct += *t == 0;
            assert_int_equal(*t, k / rows);
            ++*t;
        }
        assert_int_equal(distinct, rows);
        free(times);
    }
}

/* From any row on: window borders, epoch borders, the middle of both, and the very end. */
static void resume_serves_the_rest(void **state)
{
    (void)state;
    static struct row_origin expected[MAX_ROWS];
    for (size_t i = 0; i < N_GEOMETRIES; i++) {
        struct geometry g = geometries[i];
        g.batch = 1; /* so that every row is a place to resume from */
        uint64_t total = 2 * epoch_rows(&g) + 5;
        expected_rows(&g, 7, expected, total);
        for (uint64_t start = 0; start < total; start += i == 0 ? 1 : 3) {
            struct ingest in;
            ingest_open(&in, &g, ROW_BF16, 7, start, total);
            in.manner = start % 2 ? RANDOM : EAGER;
            rng_init(&in.rng, start, RNG_TEST, 1);
            serve_all(&in, &g, expected);
            ingest_close(&in);
        }
    }
}

/* No block is asked for beyond the window in which the run ends, and each block of the windows up to there just once.
 */
static void no_block_beyond_the_end(void **state)
{
    (void)state;
    static struct row_origin expected[MAX_ROWS];
    for (size_t i = 0; i < N_GEOMETRIES; i++) {
        const struct geometry *g = &geometries[i];
        uint64_t total = whole_batches(g, epoch_rows(g) + g->batch);
        struct ingest in;
        uint64_t windows = 0;
        expected_rows(g, 2, expected, total);
        ingest_open(&in, g, ROW_BF16, 2, 0, total);
        in.manner = EAGER;
        serve_all(&in, g, expected);
        while (ingest_one(&in))
            ;
        while (plan_rows_before(&in.plan, windows) < total)
            windows++;
        assert_int_equal(in.reserved_rows, plan_rows_before(&in.plan, windows));
        ingest_close(&in);
    }
}

/* Before anything is served, as much as fits is reserved: the first window and the lookahead, never more. */
static void reserved_rows_are_bounded(void **state)
{
    (void)state;
    const struct geometry g = {24, 3, 2, 0, 12, 4, 7}; /* windows of two blocks of 6 rows; room for one block more */
    struct ingest in;
    struct shuffle_state s;
    float x[6 * ELEMENTS];
    struct err e;
    ingest_open(&in, &g, ROW_F32, 1, 0, 1000);
    in.manner = EAGER;
    while (reserve(&in))
        ;
    assert_int_equal(in.n_pending, 3);
    shuffle_state(in.shuffle, &s);
    assert_int_equal(s.rows_held, in.reserved_rows);
    assert_int_equal(s.slots, 19);
    ingest_close(&in);

    ingest_open(&in, &g, ROW_F32, 1, 0, 1000);
    in.manner = IN_ORDER;
    assert_true(ingest_one(&in));
    assert_int_equal(shuffle_take(in.shuffle, x, NULL, 6, 0, &e), 1); /* half a window is not served */
    assert_true(ingest_one(&in));
    assert_int_equal(shuffle_take(in.shuffle, x, NULL, 6, 0, &e), 0); /* origins are not wanted */
    in.manner = EAGER;
    while (reserve(&in))
        ;
    shuffle_state(in.shuffle, &s);
    assert_true(s.rows_held <= s.slots);
    assert_int_equal(s.rows_held, in.reserved_rows - 6);
    ingest_close(&in);
}

static void failure_reaches_the_taker(void **state)
{
    (void)state;
    struct ingest in;
    float x[7 * ELEMENTS];
    struct err why = {ERR_PEER, "block 3 failed 3 times"}, e = {0};
    ingest_open(&in, &geometries[0], ROW_BF16, 1, 0, 100);
    assert_int_equal(shuffle_take(in.shuffle, x, NULL, 7, 1, &e), 1);
    shuffle_fail(in.shuffle, &why);
    assert_int_equal(shuffle_take(in.shuffle, x, NULL, 7, 10000, &e), ERR_PEER);
    assert_string_equal(e.message, why.message);
    ingest_close(&in);
}

static void memory(void **state)
{
    (void)state;
    struct stream s = {.n_seq = 1000, .rows_per_seq = 10, .seq_len = 11};
    struct plan p;
    struct err e = {0};
    size_t rows, index;
    assert_int_equal(plan_init(&p, &s, 1, 10, 0, 1000, &e), 0);
    struct shuffle_config c = {.plan = &p, .row_elements = 64, .dtype = ROW_BF16, .lookahead_rows = 100, .wake = -1};
    assert_int_equal(shuffle_memory(&c, &rows, &index, &e), 0);
    assert_int_equal(rows, (1100 + SHUFFLE_COPIES * 100) * 64 * 2);
    /* a slot: origin and free list, 16 bytes; a row, in two records: its slot and its turn, 8 bytes each; block lists
     */
    assert_int_equal(index, (1100 + SHUFFLE_COPIES * 100) * 16 + 1000 * 2 * 8 + 2 * p.window_blocks * sizeof(uint32_t));
    c.row_elements = SIZE_MAX / 4;
    assert_int_equal(shuffle_memory(&c, &rows, &index, &e), ERR_MEMORY);
    struct shuffle *none;
    assert_int_equal(shuffle_new(&none, &c, &e), ERR_MEMORY);
    assert_null(none);
    shuffle_free(NULL);
    plan_release(&p);
}

/* ---- two threads ---- */

static void pause_at_random(struct rng *r)
{
    uint32_t what = rng_below(r, 8);
    if (what == 0)
        usleep(rng_below(r, 200));
    else if (what < 3)
        sched_yield();
}

static void *ingest_thread(void *argument)
{
    struct ingest *in = argument;
    int quiet = 0;
    while (quiet < 200) { /* a second without work: the taker has all, or has failed */
        if (ingest_one(in)) {
            quiet = 0;
        } else {
            struct pollfd f = {in->config.wake, POLLIN, 0};
            uint64_t count;
            quiet = poll(&f, 1, 5) > 0 && read(in->config.wake, &count, sizeof count) > 0 ? 0 : quiet + 1;
        }
        pause_at_random(&in->rng);
        struct shuffle_state s;
        shuffle_state(in->shuffle, &s);
        if (plan_rows_before(&in->plan, s.next.window) + s.next.position >= in->config.total_rows)
            break;
    }
    return NULL;
}

static void two_threads(void **state)
{
    (void)state;
    static struct row_origin expected[MAX_ROWS];
    for (size_t i = 0; i < N_GEOMETRIES; i++) {
        const struct geometry *g = &geometries[i];
        uint64_t total = whole_batches(g, 6 * epoch_rows(g) + g->batch), served = whole_batches(g, epoch_rows(g) / 2);
        float *x = malloc(g->batch * ELEMENTS * sizeof *x);
        struct row_origin *origins = malloc(g->batch * sizeof *origins);
        struct rng r;
        struct ingest in;
        struct err e = {0};
        pthread_t thread;
        rng_init(&r, i, RNG_TEST, 2);
        expected_rows(g, 5, expected, total);
        ingest_open(&in, g, i % 2 ? ROW_F32 : ROW_BF16, 5, served, total);
        shuffle_free(in.shuffle); /* made anew with a wake-up */
        in.config.wake = eventfd(0, EFD_NONBLOCK);
        assert_int_equal(shuffle_new(&in.shuffle, &in.config, &e), 0);
        in.manner = RANDOM;
        rng_init(&in.rng, i, RNG_TEST, 3);
        assert_int_equal(pthread_create(&thread, NULL, ingest_thread, &in), 0);
        for (int timeouts = 0; served < total;) {
            int rc = shuffle_take(in.shuffle, x, origins, g->batch, (int)rng_below(&r, 3), &e);
            if (rc == 0) {
                check_rows(x, origins, expected + served, g->batch);
                served += g->batch;
                timeouts = 0;
            } else if (rc != 1 || ++timeouts > 20000) {
                fail_msg("after %zu of %zu rows: %s", (size_t)served, (size_t)total,
                         rc == 1 ? "nothing comes" : e.message);
            }
            pause_at_random(&r);
        }
        pthread_join(thread, NULL);
        close(in.config.wake);
        ingest_close(&in);
        free(x);
        free(origins);
    }
}

/* A taker that waits is woken by a failure of the other thread. */
static void *failing_thread(void *argument)
{
    struct err why = {ERR_SYSTEM, "no more"};
    usleep(20000);
    shuffle_fail(argument, &why);
    return NULL;
}

static void failure_wakes_the_taker(void **state)
{
    (void)state;
    struct ingest in;
    float x[7 * ELEMENTS];
    struct err e = {0};
    pthread_t thread;
    ingest_open(&in, &geometries[0], ROW_BF16, 1, 0, 100);
    assert_int_equal(pthread_create(&thread, NULL, failing_thread, in.shuffle), 0);
    assert_int_equal(shuffle_take(in.shuffle, x, NULL, 7, 60000, &e), ERR_SYSTEM);
    assert_string_equal(e.message, "no more");
    pthread_join(thread, NULL);
    ingest_close(&in);
}

int main(void)
{
#ifdef __SANITIZE_THREAD__
    omp_set_num_threads(1);
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_sequence_whatever_arrives_when),
        cmocka_unit_test(masked_rows_are_dropped),
        cmocka_unit_test(epochs_are_of_unmasked_rows),
        cmocka_unit_test(each_row_once_an_epoch),
        cmocka_unit_test(resume_serves_the_rest),
        cmocka_unit_test(no_block_beyond_the_end),
        cmocka_unit_test(reserved_rows_are_bounded),
        cmocka_unit_test(failure_reaches_the_taker),
        cmocka_unit_test(memory),
        cmocka_unit_test(two_threads),
        cmocka_unit_test(failure_wakes_the_taker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
