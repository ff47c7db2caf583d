/* test_attention.c - the heads of attention against sums in double: as many key and value heads as query heads, groups
 * that share one, and sequences longer than a tile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <omp.h>
#include <cmocka.h>

#include "attention.h"
#include "gemm.h"
#include "mem.h"
#include "rng.h"

static struct err e;

/* Head h at position t of one sequence: z [head_dim] = sum over s <= t of softmax(scale q_t k_s) v_s.
 * qkv: [seq_len, a->qkv.n] */
static void one_output(const struct attention *a, const float *qkv, size_t h, size_t t, double *z)
{
    size_t shared = h / (a->n_head / a->n_kv_head), d = a->head_dim;
    const float *q = qkv + t * a->qkv.n + h * d;
    double total = 0;
    for (size_t i = 0; i < d; i++)
        z[i] = 0;
    for (size_t s = 0; s <= t; s++) {
        const float *k = qkv + s * a->qkv.n + (a->n_head + shared) * d, *v = k + a->n_kv_head * d;
        double score = 0;
        for (size_t i = 0; i < d; i++)
            score += (double)q[i] * (double)k[i];
        double weight = exp((double)a->scale * score);
        total += weight;
        for (size_t i = 0; i < d; i++)
            z[i] += weight * (double)v[i];
    }
    for (size_t i = 0; i < d; i++)
        z[i] /= total;
}

static void check(size_t n_head, size_t n_kv_head, size_t head_dim, size_t n, size_t seq_len)
{
    struct attention a = {.n_head = n_head, .n_kv_head = n_kv_head, .head_dim = head_dim, .scale = 0.3f};
    a.qkv.n = (n_head + 2 * n_kv_head) * head_dim;
    size_t tokens = n * seq_len, width = n_head * head_dim;
    float *qkv = mem_alloc(tokens * a.qkv.n, sizeof *qkv, "test", &e),
          *z = mem_alloc(tokens * width, sizeof *z, "test", &e);
    float *work = mem_alloc((size_t)omp_get_max_threads() * attention_work(&a, seq_len), sizeof *work, "test", &e);
    double *want = mem_alloc(head_dim, sizeof *want, "test", &e), worst = 0;
    assert_true(qkv && z && work && want);
    struct rng r;
    rng_init(&r, 3, RNG_TEST, n_kv_head);
    for (size_t i = 0; i < tokens * a.qkv.n; i++)
        qkv[i] = (float)rng_normal(&r);
    attention_heads(&a, forward_kernels_best(), qkv, z, n, seq_len, work);
    for (size_t t = 0; t < tokens; t++)
        for (size_t h = 0; h < n_head; h++) {
            one_output(&a, qkv + t / seq_len * seq_len * a.qkv.n, h, t % seq_len, want);
            for (size_t i = 0; i < head_dim; i++)
                worst = fmax(worst, fabs((double)z[t * width + h * head_dim + i] - want[i]));
        }
    assert_true(worst < 2e-6);
    mem_free(qkv);
    mem_free(z);
    mem_free(work);
    mem_free(want);
}

static void test_heads(void **state)
{
    (void)state;
    check(3, 3, 8, 2, 37);
    check(4, 2, 8, 2, 37);
    check(6, 1, 5, 1, 20);
    check(2, 1, 4, 1, 300); /* three tiles of queries */
    check(1, 1, 1, 3, 1);
}

int main(void)
{
    omp_set_num_threads(2);
    gemm_set_threads(2);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_heads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
