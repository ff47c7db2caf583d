/* test_gemm_bf16.c - products in bf16 against the same rounded factors in double; skipped where the processor has none.
 */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "bf16.h"
#include "gemm_bf16.h"
#include "rng.h"

static struct err e;

static void check(size_t k, size_t n)
{
    const size_t rows = GEMM_BF16_ROWS;
    float *b = calloc(k * n, sizeof *b), *c = calloc(2 * rows * n, sizeof *c);
    uint16_t *a = calloc(rows * k, sizeof *a);
    struct gemm_bf16 *w;
    struct rng r;
    rng_init(&r, 8, RNG_TEST, k * n);
    for (size_t i = 0; i < k * n; i++)
        b[i] = (float)rng_normal(&r);
    for (size_t i = 0; i < rows * k; i++)
        a[i] = bf16_from_f32((float)rng_normal(&r));
    if (gemm_bf16_new(&w, b, k, n, &e))
        fail_msg("%s", e.message);
    assert_int_equal(gemm_bf16(w, a, c, &e), 0);
    for (size_t i = 0; i < rows; i += 51)
        for (size_t j = 0; j < n; j++) {
            double sum = 0, size = 0;
            for (size_t l = 0; l < k; l++) {
                double product = (double)bf16_to_f32(a[i * k + l]) * (double)bf16_to_f32(bf16_from_f32(b[l * n + j]));
                sum += product;
                size += fabs(product);
            }
            if (!(fabs((double)c[i * n + j] - sum) <= 1e-6 * size))
                fail_msg("k %zu, n %zu, row %zu, column %zu: %.9g, wanted %.9g", k, n, i, j, (double)c[i * n + j], sum);
        }
    /* Two threads at once on one weight, and other rows beside: the same bits. */
    for (size_t i = 1; i < rows; i++)
        for (size_t l = 0; l < k; l++)
            a[i * k + l] = 0;
    int failed = 0;
#pragma omp parallel for num_threads(2) reduction(| : failed)
    for (int i = 0; i < 2; i++) {
        float *own = calloc(rows * n, sizeof *own);
        struct err ours;
        failed |= !own || gemm_bf16(w, a, own, &ours) || memcmp(own, c, n * sizeof *own) != 0;
        free(own);
    }
    assert_false(failed);
    gemm_bf16_free(w);
    free(a);
    free(b);
    free(c);
}

static void test_shapes(void **state)
{
    (void)state;
    float one = 1;
    struct gemm_bf16 *w;
    if (gemm_bf16_new(&w, &one, 1, 1, &e)) {
        print_message("skipped: %s\n", e.message);
        skip();
    }
    gemm_bf16_free(w);
    check(48, 144);
    check(33, 7);
    check(768, 96);
    check(1, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
