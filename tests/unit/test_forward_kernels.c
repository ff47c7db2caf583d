/* test_forward_kernels.c - every version of a forward pass's loops that this processor runs, against double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "bf16.h"
#include "forward_kernels.h"
#include "rng.h"

enum { N = 133 };

static void fill(float *v, size_t n, double std, uint64_t stream)
{
    struct rng r;
    rng_init(&r, 7, RNG_TEST, stream);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(std * rng_normal(&r));
}

static void near(float got, double wanted, double relative)
{
    if (!(fabs((double)got - wanted) <= relative * fabs(wanted) + 1e-35))
        fail_msg("%.9g, wanted %.9g", (double)got, wanted);
}

/* Runs check on every version. */
static void for_each(void (*check)(const struct forward_kernels *k))
{
    const struct forward_kernels *k;
    for (size_t i = 0; (k = forward_kernels_version(i)); i++)
        check(k);
}

static void check_layer_norm(const struct forward_kernels *k)
{
    float x[N], w[N], b[N], y[N];
    fill(x, N, 3, 1);
    fill(w, N, 1, 2);
    fill(b, N, 1, 3);
    double mean = 0, var = 0;
    for (size_t i = 0; i < N; i++)
        mean += (double)x[i] / N;
    for (size_t i = 0; i < N; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean) / N;
    k->layer_norm(y, x, w, b, 1e-5, N);
    for (size_t i = 0; i < N; i++) {
        double product = ((double)x[i] - mean) / sqrt(var + 1e-5) * (double)w[i];
        assert_true(fabs((double)y[i] - product - (double)b[i]) < 1e-6 * (1 + fabs(product) + fabs((double)b[i])));
    }
}

static void check_softmax(const struct forward_kernels *k)
{
    float s[N], z[N], one;
    const size_t seen = 101;
    fill(s, N, 8, 4);
    memcpy(z, s, sizeof s);
    double max = -1e30, sum = 0;
    for (size_t i = 0; i < seen; i++)
        max = fmax(max, (double)s[i]);
    for (size_t i = 0; i < seen; i++)
        sum += exp((double)s[i] - max);
    float inverse = k->softmax(z, seen, N - 1);
    near(inverse, 1 / sum, 1e-6);
    for (size_t i = 0; i < N - 1; i++)
        near(z[i], i < seen ? exp((double)(s[i] - (float)max)) : 0, 2.5e-7);
    assert_true(z[N - 1] == s[N - 1]);
    one = 3;
    near(k->softmax(&one, 1, 1), 1, 0);
    near(one, 1, 0);
    z[5] = NAN;
    assert_true(isnan(k->softmax(z, seen, N)));
}

static void check_activations(const struct forward_kernels *k)
{
    float h[N], b[N], y[N];
    for (int round = 0; round < 50; round++) {
        fill(h, N, round < 25 ? 2 : 10, (uint64_t)(10 + round));
        fill(b, N, 0.1, 5);
        memcpy(y, h, sizeof h);
        k->activate(y, b, MLP_GELU_TANH, N);
        for (size_t i = 0; i < N; i++) {
            double v = (double)(h[i] + b[i]), u = sqrt(2 / acos(-1)) * (v + 0.044715 * v * v * v);
            near(y[i], v / (1 + exp(-2 * u)), 4e-7 * (1 + fabs(u))); /* an error of u is one of exp(u), times u */
        }
    }
    memcpy(y, h, sizeof h);
    k->activate(y, b, MLP_GELU_ERF, N);
    for (size_t i = 0; i < N; i++) {
        double v = (double)(h[i] + b[i]);
        assert_true(fabs((double)y[i] - v / 2 * (1 + erf(v / sqrt(2)))) < 1e-6 * (1 + fabs(v)));
    }
    for (enum mlp_activation a = MLP_GELU_TANH; a <= MLP_RELU; a++) {
        float extreme[4] = {NAN, 1e30f, -1e30f, -100}, zero[4] = {0};
        k->activate(extreme, zero, a, 4);
        assert_true(isnan(extreme[0]) && extreme[1] == 1e30f);
        assert_true(fabsf(extreme[2]) < 1e-7f || a != MLP_RELU);
        assert_true(fabsf(extreme[3]) < 1e-30f);
    }
}

static void check_the_rest(const struct forward_kernels *k)
{
    float x[N], out[N], bias[N], y[N], z[N];
    uint16_t h[N];
    fill(x, N, 1, 20);
    fill(out, N, 1, 21);
    fill(bias, N, 1, 22);
    memcpy(y, x, sizeof x);
    memcpy(z, out, sizeof out);
    k->residual(y, z, bias, N);
    for (size_t i = 0; i < N; i++) {
        assert_true(z[i] == out[i] + bias[i]);
        assert_true(y[i] == x[i] + z[i]);
    }
    memcpy(y, x, sizeof x);
    k->add(y, bias, N);
    k->multiply(z, 0.3f, N);
    k->to_bf16(h, x, N);
    for (size_t i = 0; i < N; i++) {
        assert_true(y[i] == x[i] + bias[i]);
        assert_true(z[i] == (out[i] + bias[i]) * 0.3f);
        assert_int_equal(h[i], bf16_from_f32(x[i]));
    }
}

static void test_layer_norm(void **state)
{
    (void)state;
    for_each(check_layer_norm);
}

static void test_softmax(void **state)
{
    (void)state;
    for_each(check_softmax);
}

static void test_activations(void **state)
{
    (void)state;
    for_each(check_activations);
}

static void test_the_rest(void **state)
{
    (void)state;
    for_each(check_the_rest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_norm),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
