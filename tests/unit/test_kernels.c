/* test_kernels.c - every version of the inner loops that this processor runs: the same bits as plain loops. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "kernels.h"
#include "mem.h"
#include "rng.h"
#include "sums.h"
#include "tiles.h"

static struct err e;

enum { ROWS = 37, N = 133, ENTRIES = 29 };

static float tile[ROWS * TILE_MAX_LANES], start[ROWS * TILE_MAX_LANES], w[TILE_MAX_LANES], a[ENTRIES];
static uint32_t row[ENTRIES + ROWS_AHEAD];

static void fill(float *v, size_t n, uint64_t stream)
{
    struct rng r;
    rng_init(&r, 5, RNG_TEST, stream);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)rng_normal(&r);
}

static void setup(void)
{
    fill(start, ROWS * TILE_MAX_LANES, 1);
    memcpy(tile, start, sizeof tile);
    fill(w, TILE_MAX_LANES, 2);
    fill(a, ENTRIES, 3);
    for (uint32_t i = 0; i < ENTRIES; i++)
        row[i] = i * 7 % ROWS;
}

static const size_t lanes[] = {16, 32, 64, 128};

static void test_scatter(void **state)
{
    (void)state;
    const struct kernels *k;
    for (size_t i = 0; (k = kernels_version(i)); i++)
        for (size_t l = 0; l < 4; l++) {
            setup();
            k->scatter(tile, lanes[l], w, row, a, ENTRIES);
            for (size_t n = 0; n < ENTRIES; n++)
                for (size_t c = 0; c < lanes[l]; c++)
                    start[row[n] * lanes[l] + c] += a[n] * w[c];
            assert_memory_equal(tile, start, sizeof tile);
        }
    assert_true(k == NULL && kernels_best() == kernels_version(0));
}

/* gather and gather_dot for any number of entries, 0 too. */
static void test_gather(void **state)
{
    (void)state;
    const struct kernels *k;
    for (size_t i = 0; (k = kernels_version(i)); i++)
        for (size_t l = 0; l < 4; l++)
            for (size_t n = 0; n <= ENTRIES; n++) {
                float want[TILE_MAX_LANES] = {0}, got[TILE_MAX_LANES], dot[ENTRIES], want_dot[ENTRIES];
                setup();
                fill(dot, ENTRIES, 4);
                memcpy(want_dot, dot, sizeof dot);
                for (size_t j = 0; j < n; j++) {
                    const float *v = start + row[j] * lanes[l];
                    float part[16] = {0};
                    for (size_t c = 0; c < lanes[l]; c++) {
                        want[c] += a[j] * v[c];
                        part[c % 16] += w[c] * v[c];
                    }
                    for (size_t half = 8; half > 0; half /= 2)
                        for (size_t c = 0; c < half; c++)
                            part[c] += part[c + half];
                    want_dot[j] += part[0];
                }
                k->gather(got, tile, lanes[l], row, a, n);
                assert_memory_equal(got, want, lanes[l] * sizeof(float));
                k->gather_dot(got, dot, tile, lanes[l], w, row, a, n);
                assert_memory_equal(got, want, lanes[l] * sizeof(float));
                assert_memory_equal(dot, want_dot, sizeof dot);
            }
}

static void test_elements(void **state)
{
    (void)state;
    const struct adam_factors f = {0.7f, 0.1f, 0.999f, 0.001f, 1e-3f, 0.3f, 1e-8f};
    const struct kernels *k;
    for (size_t i = 0; (k = kernels_version(i)); i++)
        for (size_t n = 0; n <= N; n++) {
            float v[4][N], want[4][N];
            for (uint64_t c = 0; c < 4; c++)
                fill(v[c], N, 10 + c);
            for (size_t c = 0; c < N; c++)
                v[2][c] = fabsf(v[2][c]);
            assert_true(k->squares(v[0], n) == kernels_version(0)->squares(v[0], n));
            double sum = 0;
            for (size_t c = 0; c < n; c++)
                sum += (double)v[0][c] * (double)v[0][c];
            assert_true(fabs(k->squares(v[0], n) - sum) <= 1e-14 * sum);

            memcpy(want, v, sizeof v);
            for (size_t c = 0; c < n; c++) {
                float g = f.grad_scale * want[3][c];
                want[1][c] += f.one_minus_beta1 * (g - want[1][c]);
                want[2][c] = f.beta2 * want[2][c] + f.one_minus_beta2 * g * g;
                want[0][c] -= f.step_size * want[1][c] / (sqrtf(want[2][c]) / f.correction2 + f.eps);
            }
            k->adam(&f, v[0], v[1], v[2], v[3], n);
            assert_memory_equal(v, want, sizeof v);

            for (size_t c = 0; c < n; c++)
                want[3][c] = 0.3f * want[3][c] + 1.7f * want[0][c];
            k->combine(v[3], 0.3f, 1.7f, v[0], n);
            assert_memory_equal(v, want, sizeof v);
        }
}

static void test_threshold(void **state)
{
    (void)state;
    const struct kernels *k;
    for (size_t i = 0; (k = kernels_version(i)); i++)
        for (size_t n = 0; n <= N; n++) {
            float f[N], bias[N], before[N];
            uint32_t count[N] = {0}, index[N];
            fill(f, N, 20);
            fill(bias, N, 21);
            for (size_t c = 0; c < N; c += 1 + c / 40)
                bias[c] = -10; /* whole stretches of nothing */
            if (n > 3)
                f[2] = NAN, f[3] = -bias[3];
            memcpy(before, f, sizeof f);
            k->threshold(f, bias, count, n);
            size_t found = k->nonzeros(f, n, index), at = 0;
            for (size_t c = 0; c < N; c++) {
                float v = c < n ? before[c] + bias[c] : 0;
                bool active = isnan(v) || v > 0;
                assert_int_equal(count[c], active);
                if (active)
                    assert_int_equal(index[at++], c);
                if (c < n && !isnan(v))
                    assert_true(f[c] == (active ? v : 0));
            }
            assert_int_equal(at, found);
        }
}

/* Tiles cover every column once, within sites, in order. */
static void test_tiles(void **state)
{
    (void)state;
    const size_t shapes[][3] = {{12, 768, 2048}, {3, 37, 67}, {1, 1, 1}, {2, 130, 100000}, {1, 1000, 3000}, {5, 16, 7}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct tiles t;
        size_t column = 0, before = 0;
        assert_int_equal(tiles_init(&t, shapes[i][0], shapes[i][1], shapes[i][2], &e), 0);
        for (size_t j = 0; j < t.n; j++) {
            assert_int_equal(t.tile[j].first, column);
            assert_int_equal(t.tile[j].before, before);
            assert_true(t.tile[j].width > 0 && t.tile[j].width <= t.tile[j].lanes);
            assert_true(t.tile[j].lanes >= 16 && t.tile[j].lanes <= TILE_MAX_LANES && t.tile[j].lanes % 16 == 0);
            assert_int_equal(t.tile[j].first / shapes[i][1], t.tile[j].site);
            assert_int_equal((t.tile[j].first + t.tile[j].width - 1) / shapes[i][1], t.tile[j].site);
            column += t.tile[j].width;
            before += t.tile[j].lanes;
        }
        assert_int_equal(column, shapes[i][0] * shapes[i][1]);
        assert_int_equal(before, t.lanes);
        assert_true(t.lanes < column + 16 * shapes[i][0]);
        tiles_release(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scatter),   cmocka_unit_test(test_gather), cmocka_unit_test(test_elements),
        cmocka_unit_test(test_threshold), cmocka_unit_test(test_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
