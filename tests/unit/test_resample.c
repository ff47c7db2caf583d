/* test_resample.c - dead latents start anew as they should, and nothing else changes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "backend_problem.h"
#include "resample.h"
#include "rng.h"

enum {
    SITES = 2,
    DIM = 7,
    INPUTS = SITES * DIM,
    LATENTS = 30,
    ROWS = 25,
    PARAMS = 2 * LATENTS * INPUTS + LATENTS + INPUTS
};

static struct err e;
static float x[ROWS * INPUTS];

static struct backend *open_all(const uint64_t *ages, struct partition partition)
{
    struct backend_setup setup = relu_setup(SITES, DIM, LATENTS, ROWS, STEP_AUTO, false);
    struct rng r;
    float ones[PARAMS];
    setup.partition = partition;
    setup.shared_coeff = 1;
    struct backend *b = open_cpu(&setup);
    rng_init(&r, 4, RNG_TEST, 0);
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        x[i] = (float)rng_normal(&r);
    for (size_t i = 0; i < INPUTS; i++)
        x[3 * INPUTS + i] *= 100; /* nearly all of the error is in one row */
    for (size_t i = 0; i < PARAMS; i++)
        ones[i] = 1;
    assert_int_equal(initial_weights(b, &(struct initial_weights){.seed = 2, .dec_init_norm = 0.3}, &e), 0);
    assert_int_equal(backend_put_all(b, "adam_m", ones, &e), 0);
    assert_int_equal(backend_put_all(b, "adam_v", ones, &e), 0);
    assert_int_equal(backend_put_all(b, "b_enc", ones, &e), 0);
    assert_int_equal(backend_put_all(b, "rows_since_fired", ages, &e), 0);
    return b;
}

static double norm(const float *v, size_t n)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (double)v[i] * (double)v[i];
    return sqrt(squares);
}

static void test_resample(void **state)
{
    (void)state;
    uint64_t ages[LATENTS] = {[4] = 100, [7] = 99, [29] = 1000}, after[LATENTS];
    float before[PARAMS], now[PARAMS], m[PARAMS];
    struct backend *b = open_all(ages, (struct partition){0});
    size_t n;
    get_params(b, before);
    assert_int_equal(resample(b, x, 100, 5, &n, &e), 0);
    assert_int_equal(n, 2);
    get_params(b, now);
    assert_int_equal(backend_get_all(b, "adam_m", m, &e), 0);
    assert_int_equal(backend_get_all(b, "rows_since_fired", after, &e), 0);
    double alive = sqrt(2) * 0.3; /* every initial vector's norm */
    size_t from_the_large_row = 0;
    for (size_t j = 0; j < LATENTS; j++) {
        bool dead = ages[j] >= 100;
        const float *enc = now + j * INPUTS, *dec = now + (LATENTS + j) * INPUTS;
        assert_int_equal(after[j], dead ? 0 : ages[j]);
        assert_true(now[2 * LATENTS * INPUTS + j] == (dead ? 0 : 1));
        for (size_t i = 0; i < INPUTS; i++)
            assert_true(m[j * INPUTS + i] == (dead ? 0 : 1) && m[(LATENTS + j) * INPUTS + i] == (dead ? 0 : 1));
        assert_true(m[2 * LATENTS * INPUTS + j] == (dead ? 0 : 1));
        if (!dead) {
            assert_memory_equal(enc, before + j * INPUTS, INPUTS * sizeof *enc);
            assert_memory_equal(dec, before + (LATENTS + j) * INPUTS, INPUTS * sizeof *dec);
            continue;
        }
        assert_true(fabs(norm(enc, INPUTS) / (0.2 * alive) - 1) < 1e-5);
        assert_true(fabs(norm(dec, INPUTS) / alive - 1) < 1e-5);
        size_t rows = 0;
        for (size_t row = 0; row < ROWS; row++) {
            double dot = 0;
            for (size_t i = 0; i < INPUTS; i++)
                dot += (double)x[row * INPUTS + i] * (double)enc[i];
            if (dot / norm(x + row * INPUTS, INPUTS) / norm(enc, INPUTS) > 0.99999) {
                rows++;
                from_the_large_row += row == 3;
            }
        }
        assert_int_equal(rows, 1);
    }
    assert_true(from_the_large_row == 2);
    backend_cpu.close(b);
}

static void test_partition(void **state)
{
    (void)state;
    uint64_t ages[LATENTS];
    float now[PARAMS];
    size_t n;
    for (size_t j = 0; j < LATENTS; j++)
        ages[j] = j == 10 ? 0 : 1000;
    struct backend *b = open_all(ages, (struct partition){4, {3, 2}});
    assert_int_equal(resample(b, x, 100, 5, &n, &e), 0);
    assert_int_equal(n, LATENTS - 1);
    get_params(b, now);
    for (size_t j = 0; j < LATENTS; j++) {
        const float *enc = now + j * INPUTS, *dec = now + (LATENTS + j) * INPUTS;
        if (j < 4)
            assert_memory_equal(dec, dec + DIM, DIM * sizeof *dec);
        if (j >= 25 && j < 28)
            assert_true(norm(enc + DIM, DIM) == 0 && norm(dec + DIM, DIM) == 0 && norm(enc, DIM) > 0);
        if (j >= 28)
            assert_true(norm(enc, DIM) == 0 && norm(dec, DIM) == 0 && norm(enc + DIM, DIM) > 0);
    }
    backend_cpu.close(b);
}

static void test_nobody_alive(void **state)
{
    (void)state;
    uint64_t ages[LATENTS];
    float before[PARAMS], now[PARAMS];
    size_t n = 1;
    for (size_t j = 0; j < LATENTS; j++)
        ages[j] = 1000;
    struct backend *b = open_all(ages, (struct partition){0});
    get_params(b, before);
    assert_int_equal(resample(b, x, 100, 5, &n, &e), 0);
    assert_int_equal(n, 0);
    get_params(b, now);
    assert_memory_equal(before, now, sizeof now);
    backend_cpu.close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resample),
        cmocka_unit_test(test_partition),
        cmocka_unit_test(test_nobody_alive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
