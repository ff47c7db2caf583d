/* test_feed.c - the feed hands over what the shuffle serves, batch by batch, and ends or fails where it should. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "feed.h"

enum { ELEMENTS = 3, N_SEQ = 40, PER_SEQ = 4, BLOCK_SEQS = 2, BATCH = 12, WINDOW = 48 };

static struct err e;

struct fixture {
    struct plan plan;
    struct shuffle *shuffle;
};

static void open_shuffle(struct fixture *x, uint64_t batches)
{
    const struct stream s = {.n_seq = N_SEQ, .rows_per_seq = PER_SEQ, .seq_len = PER_SEQ + 1};
    assert_int_equal(plan_init(&x->plan, &s, 3, BLOCK_SEQS, 0, WINDOW, &e), 0);
    const struct shuffle_config c = {.plan = &x->plan,
                                     .row_elements = ELEMENTS,
                                     .dtype = ROW_F32,
                                     .lookahead_rows = BLOCK_SEQS * PER_SEQ,
                                     .total_rows = batches * BATCH,
                                     .wake = -1};
    assert_int_equal(shuffle_new(&x->shuffle, &c, &e), 0);
}

static void close_shuffle(struct fixture *x)
{
    shuffle_free(x->shuffle);
    plan_release(&x->plan);
}

/* Stores a block if one has its slots. */
static bool store_block(struct fixture *x)
{
    struct shuffle_ticket t;
    if (!shuffle_reserve(x->shuffle, &t))
        return false;
    for (size_t row = 0; row < t.n_rows; row++) {
        const struct row_origin origin = {t.block, (uint32_t)row, 1};
        const float acts[ELEMENTS] = {(float)t.block, (float)row, 0.5f};
        shuffle_store(x->shuffle, &t, row, 1, (const unsigned char *)acts, &origin);
    }
    shuffle_complete(x->shuffle, &t);
    return true;
}

/* The same batches, and the same places after them, as from the shuffle itself. */
static void test_same(void **state)
{
    (void)state;
    enum { BATCHES = 9 };
    struct fixture a, b;
    struct feed *f;
    struct feed_batch batch;
    float x[BATCH * ELEMENTS];
    struct row_origin origins[BATCH];
    struct shuffle_state place;
    const struct feed_config c = {BATCH, ELEMENTS};
    open_shuffle(&a, BATCHES);
    open_shuffle(&b, BATCHES);
    assert_int_equal(feed_new(&f, &c, &e), 0);
    feed_buffer(f)[BATCH * ELEMENTS - 1] = 1; /* ours already */
    assert_int_equal(feed_start(f, a.shuffle, BATCHES, NULL, &e), 0);
    for (int i = 0; i < BATCHES; i++) {
        int rc;
        while (store_block(&b))
            ;
        assert_int_equal(shuffle_take(b.shuffle, x, origins, BATCH, 0, &e), 0);
        shuffle_state(b.shuffle, &place);
        do
            while (store_block(&a))
                ;
        while ((rc = feed_take(f, &batch, 5, &e)) == 1);
        assert_int_equal(rc, 0);
        assert_memory_equal(batch.x, x, sizeof x);
        assert_memory_equal(batch.origins, origins, sizeof origins);
        assert_true(batch.next.window == place.next.window && batch.next.position == place.next.position);
        assert_ptr_equal(batch.x, feed_buffer(f));
        memset(batch.x, 0xff, sizeof x); /* ours: the feed writes into the other */
    }
    assert_int_equal(feed_take(f, &batch, 20, &e), 1); /* no more than it was asked for */
    shuffle_state(a.shuffle, &place);
    assert_int_equal(place.rows_served, BATCHES * BATCH);
    feed_free(f);
    close_shuffle(&a);
    close_shuffle(&b);
}

/* The mean is subtracted once from every row, also of a batch whose rows come in two pieces. */
static void test_centred(void **state)
{
    (void)state;
    enum { BATCHES = 9 };
    struct fixture a, b;
    struct feed *f;
    struct feed_batch batch;
    float x[BATCH * ELEMENTS], mean[ELEMENTS];
    const struct feed_config c = {BATCH, ELEMENTS};
    for (size_t i = 0; i < ELEMENTS; i++)
        mean[i] = (float)i + 0.25f;
    open_shuffle(&a, BATCHES);
    open_shuffle(&b, BATCHES);
    assert_int_equal(feed_new(&f, &c, &e), 0);
    assert_int_equal(feed_start(f, a.shuffle, BATCHES, mean, &e), 0);
    for (int i = 0; i < BATCHES; i++) {
        int rc;
        while (store_block(&b))
            ;
        assert_int_equal(shuffle_take(b.shuffle, x, NULL, BATCH, 0, &e), 0);
        do
            store_block(&a);
        while ((rc = feed_take(f, &batch, 5, &e)) == 1);
        assert_int_equal(rc, 0);
        for (size_t k = 0; k < BATCH * ELEMENTS; k++)
            assert_true(batch.x[k] == x[k] - mean[k % ELEMENTS]);
    }
    feed_free(f);
    close_shuffle(&a);
    close_shuffle(&b);
}

/* A batch that is there is handed over before the failure is. */
static void test_failure(void **state)
{
    (void)state;
    struct fixture a;
    struct feed *f;
    struct feed_batch batch;
    const struct feed_config c = {BATCH, ELEMENTS};
    open_shuffle(&a, 4);
    assert_int_equal(feed_new(&f, &c, &e), 0);
    while (store_block(&a))
        ;
    assert_int_equal(feed_start(f, a.shuffle, 4, NULL, &e), 0);
    assert_int_equal(feed_take(f, &batch, 10000, &e), 0);
    struct err why;
    err_set(&why, ERR_PEER, "the rows are gone");
    shuffle_fail(a.shuffle, &why);
    int taken = 1, rc;
    while ((rc = feed_take(f, &batch, 10000, &e)) == 0)
        taken++;
    assert_int_equal(rc, ERR_PEER);
    assert_string_equal(e.message, "the rows are gone");
    assert_true(taken <= 4);
    assert_int_equal(feed_take(f, &batch, 10000, &e), ERR_PEER); /* for good */
    feed_free(f);
    close_shuffle(&a);
}

/* Ends while it waits for rows that never come, and with a batch that nobody takes. */
static void test_ends(void **state)
{
    (void)state;
    struct fixture a;
    struct feed *f;
    struct feed_batch batch;
    const struct feed_config c = {BATCH, ELEMENTS};
    for (int full = 0; full < 2; full++) {
        open_shuffle(&a, 4);
        assert_int_equal(feed_new(&f, &c, &e), 0);
        while (full && store_block(&a))
            ;
        assert_int_equal(feed_start(f, a.shuffle, 4, NULL, &e), 0);
        assert_int_equal(feed_take(f, &batch, full ? 10000 : 0, &e), full ? 0 : 1);
        feed_free(f);
        close_shuffle(&a);
    }
    const struct feed_config huge = {SIZE_MAX / 8, 4};
    assert_int_equal(feed_new(&f, &huge, &e), ERR_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_centred),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
