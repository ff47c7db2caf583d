/* test_row_sample.c - rows as training sees them, their mean, geometric median and biases from them, against plain computations. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backend_problem.h"
#include "bf16.h"
#include "geometric_median.h"
#include "initial_bias.h"
#include "rng.h"
#include "row_sample.h"

static struct err e;

static struct row_sample sample_of(const void *rows, size_t n_rows, size_t n_sites, size_t d_model,
                                   enum row_dtype dtype)
{
    return (struct row_sample){.rows = rows, .n_rows = n_rows, .n_sites = n_sites, .d_model = d_model, .dtype = dtype};
}

static void draw_rows(float *x, size_t n, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed, RNG_TEST, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&r) + (float)(i % 7) / 4;
}

/* ---- rows and their mean ---- */

static void rows_are_converted_and_centred(void **state)
{
    (void)state;
    enum { ROWS = 5, SITES = 2, DIM = 3, INPUTS = SITES * DIM };
    float x[ROWS * INPUTS], got[2 * INPUTS], column[2], mean[INPUTS] = {1, 0.1f, -3, 0, 2, 0.5f};
    uint16_t rounded[ROWS * INPUTS];
    draw_rows(x, ROWS * INPUTS, 1);
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        rounded[i] = bf16_from_f32(x[i]);
    for (int centred = 0; centred < 2; centred++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            struct row_sample s =
                sample_of(bf16 ? (void *)rounded : (void *)x, ROWS, SITES, DIM, bf16 ? ROW_BF16 : ROW_F32);
            s.mean = centred ? mean : NULL;
            row_sample_get(&s, 3, 2, got);
            for (size_t i = 0; i < 2 * INPUTS; i++) {
                float value = bf16 ? bf16_to_f32(rounded[3 * INPUTS + i]) : x[3 * INPUTS + i];
                assert_true(got[i] == (centred ? value - mean[i % INPUTS] : value));
            }
            row_sample_columns(&s, 4, 2, 2, column); /* across sites */
            assert_memory_equal(column, got + INPUTS + 2, sizeof column);
        }
}

static void the_mean(void **state)
{
    (void)state;
    enum { ROWS = 301, SITES = 3, DIM = 130, INPUTS = SITES * DIM };
    static float x[ROWS * INPUTS], mean[INPUTS], again[INPUTS];
    static double sums[INPUTS];
    draw_rows(x, ROWS * INPUTS, 2);
    struct row_sample s = sample_of(x, ROWS, SITES, DIM, ROW_F32);
    row_sample_mean(&s, sums, mean);
    for (size_t i = 0; i < INPUTS; i++) {
        double sum = 0;
        for (size_t row = 0; row < ROWS; row++)
            sum += (double)x[row * INPUTS + i];
        assert_true(mean[i] == (float)(sum / ROWS));
    }
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        row_sample_mean(&s, sums, again);
        assert_memory_equal(mean, again, sizeof mean);
    }
    s.mean = mean; /* of centred rows it is 0 up to the rounding of a row */
    row_sample_mean(&s, sums, again);
    for (size_t i = 0; i < INPUTS; i++)
        assert_true(fabs((double)again[i]) < 1e-6);
}

/* ---- the geometric median ---- */

/* One site, as PyTorch's version goes: all in double, one row after the other. */
static size_t plain_median(const float *x, size_t n_rows, size_t stride, size_t d, double *guess)
{
    for (size_t i = 0; i < d; i++) {
        guess[i] = 0;
        for (size_t row = 0; row < n_rows; row++)
            guess[i] += (double)x[row * stride + i];
        guess[i] /= (double)n_rows;
    }
    for (size_t iteration = 1;; iteration++) {
        double next[64] = {0}, total = 0, moved = 0;
        for (size_t row = 0; row < n_rows; row++) {
            double squares = 0;
            for (size_t i = 0; i < d; i++)
                squares += pow((double)x[row * stride + i] - guess[i], 2);
            total += 1 / sqrt(squares);
            for (size_t i = 0; i < d; i++)
                next[i] += (double)x[row * stride + i] / sqrt(squares);
        }
        for (size_t i = 0; i < d; i++) {
            moved += pow(next[i] / total - guess[i], 2);
            guess[i] = next[i] / total;
        }
        if (iteration == GEOMETRIC_MEDIAN_ITERATIONS || sqrt(moved) < GEOMETRIC_MEDIAN_TOLERANCE)
            return iteration;
    }
}

static size_t median_of(const struct row_sample *s, float *median)
{
    size_t iterations;
    if (geometric_median(s, GEOMETRIC_MEDIAN_ITERATIONS, GEOMETRIC_MEDIAN_TOLERANCE, median, &iterations, &e))
        fail_msg("%s", e.message);
    return iterations;
}

static void the_median(void **state)
{
    (void)state;
    enum { ROWS = 203, SITES = 3, DIM = 40, INPUTS = SITES * DIM };
    static float x[ROWS * INPUTS], median[INPUTS], again[INPUTS];
    double plain[64];
    size_t most = 0;
    draw_rows(x, ROWS * INPUTS, 3);
    for (size_t row = 0; row < 20; row++) /* outliers, so that it is far from the mean */
        for (size_t i = 0; i < INPUTS; i++)
            x[row * INPUTS + i] += 50;
    struct row_sample s = sample_of(x, ROWS, SITES, DIM, ROW_F32);
    size_t iterations = median_of(&s, median);
    for (size_t site = 0; site < SITES; site++) {
        size_t took = plain_median(x + site * DIM, ROWS, INPUTS, DIM, plain);
        most = took > most ? took : most;
        for (size_t i = 0; i < DIM; i++)
            assert_true(fabs((double)median[site * DIM + i] - plain[i]) < 2e-5);
    }
    assert_int_equal(iterations, most); /* until the last site stands still */
    assert_in_range(iterations, 3, GEOMETRIC_MEDIAN_ITERATIONS - 1);
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        assert_int_equal(median_of(&s, again), iterations);
        assert_memory_equal(median, again, sizeof median);
    }
}

/* Fermat's point of a triangle without an angle of 120 degrees sees all sides under 120 degrees; of an equilateral one it is the centre. */
static void fermats_point(void **state)
{
    (void)state;
    const float x[3][2][2] = {{{0, 0}, {0, 1}}, {{4, 0}, {-0.8660254f, -0.5f}}, {{1, 3}, {0.8660254f, -0.5f}}};
    float median[2][2];
    double unit[2] = {0};
    struct row_sample s = sample_of(x, 3, 2, 2, ROW_F32);
    median_of(&s, &median[0][0]);
    for (size_t row = 0; row < 3; row++) {
        double dx = (double)x[row][0][0] - (double)median[0][0], dy = (double)x[row][0][1] - (double)median[0][1];
        unit[0] += dx / hypot(dx, dy);
        unit[1] += dy / hypot(dx, dy);
    }
    assert_true(hypot(unit[0], unit[1]) < 1e-4);
    assert_true(fabs((double)median[1][0]) < 1e-6 && fabs((double)median[1][1]) < 1e-6);
}

/* Where the guess is a row there is nothing to divide by. */
static void a_row_at_the_guess(void **state)
{
    (void)state;
    float median[2];
    /* The mean is the third row, the median is not: 5 rows lie at (-1, 0). */
    const float pulled[9][2] = {{-1, 0}, {-1, 0}, {0, 0}, {-1, 0}, {-1, 0}, {-1, 0}, {2, 0}, {3, 0}, {0, 0}};
    struct row_sample s = sample_of(pulled, 9, 1, 2, ROW_F32);
    median_of(&s, median);
    assert_true(fabs((double)median[0] + 1) < 1e-3 && fabs((double)median[1]) < 1e-6);
    /* The mean is the median and half of the rows, though the others by themselves would pull it away. */
    const float held[6][2] = {{0, 0}, {0, 0}, {0, 0}, {2, 0}, {-1, 1}, {-1, -1}};
    s = sample_of(held, 6, 1, 2, ROW_F32);
    assert_int_equal(median_of(&s, median), 1);
    assert_true(median[0] == 0 && median[1] == 0);
    /* All rows are one. */
    const float one[3][2] = {{7, 2}, {7, 2}, {7, 2}};
    s = sample_of(one, 3, 1, 2, ROW_F32);
    assert_int_equal(median_of(&s, median), 1);
    assert_true(median[0] == 7 && median[1] == 2);
}

/* ---- biases ---- */

static void b_dec_of_rows(void **state)
{
    (void)state;
    enum { ROWS = 60, SITES = 2, DIM = 9, INPUTS = SITES * DIM };
    const struct backend_setup setup = relu_setup(SITES, DIM, 4, 1, STEP_AUTO, false);
    float x[ROWS * INPUTS], centre[INPUTS], expected[INPUTS], got[INPUTS];
    double sums[INPUTS];
    draw_rows(x, ROWS * INPUTS, 5);
    draw_rows(centre, INPUTS, 6);
    struct row_sample s = sample_of(x, ROWS, SITES, DIM, ROW_F32);
    s.mean = centre; /* rows as trained on */
    struct backend *b = open_cpu(&setup);
    for (enum b_dec_init how = B_DEC_ZERO; how <= B_DEC_GEOMETRIC_MEDIAN; how++) {
        memset(expected, 0, sizeof expected);
        if (how == B_DEC_MEAN)
            row_sample_mean(&s, sums, expected);
        else if (how == B_DEC_GEOMETRIC_MEDIAN)
            median_of(&s, expected);
        assert_int_equal(initial_bias(b, how, &s, &e), 0);
        assert_int_equal(backend_get_all(b, "b_dec", got, &e), 0);
        assert_memory_equal(got, expected, sizeof got);
    }
    assert_int_equal(backend_get_all(b, "b_enc", got, &e), 0);
    for (size_t j = 0; j < 4; j++)
        assert_true(got[j] == 0);
    backend_cpu.close(b);
}

/* In how many rows each latent fires, counted one product at a time. */
static void check_firing(struct backend *b, const float *x, size_t n_rows, size_t expected)
{
    size_t n_inputs = b->setup.n_sites * b->setup.d_model, d_sae = b->setup.d_sae;
    float *w = calloc(d_sae * n_inputs, sizeof *w), *bias = calloc(d_sae, sizeof *bias);
    assert_int_equal(backend_get_all(b, "W_enc", w, &e), 0);
    assert_int_equal(backend_get_all(b, "b_enc", bias, &e), 0);
    for (size_t j = 0; j < d_sae; j += 97) {
        size_t fires = 0;
        for (size_t row = 0; row < n_rows; row++) {
            double p = (double)bias[j];
            for (size_t i = 0; i < n_inputs; i++)
                p += (double)w[j * n_inputs + i] * (double)x[row * n_inputs + i];
            fires += p > exp((double)0.1f);
        }
        if (fabs((double)fires - (double)expected) > 1 + (double)expected / 1000) /* p + bias is rounded to fp32 */
            fail_msg("latent %zu fires in %zu rows, not %zu", j, fires, expected);
    }
    free(w);
    free(bias);
}

/* Each latent of jumprelu fires in 10000 / d_sae of the rows; 2000 rows make several tiles of latents. */
static void b_enc_of_jumprelu(void **state)
{
    (void)state;
    enum { ROWS = 2000, SITES = 2, DIM = 4, INPUTS = SITES * DIM };
    const struct {
        size_t d_sae, n_rows, fires;
    } cases[] = {{40000, 300, 75}, {10500, ROWS, 1905}, {40000, 3, 1},
                 {500, 300, 300},  {10000, 300, 300},   {400000, 5, 1}};
    static float x[ROWS * INPUTS];
    draw_rows(x, ROWS * INPUTS, 7);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct backend_setup setup = relu_setup(SITES, DIM, cases[i].d_sae, 1, STEP_SPARSE, false);
        setup.activation = "jumprelu";
        setup.bandwidth = 2;
        struct row_sample s = sample_of(x, cases[i].n_rows, SITES, DIM, ROW_F32);
        float *bias[3];
        for (int threads = 1; threads <= 3; threads += 2) {
            omp_set_num_threads(threads);
            struct backend *b = open_cpu(&setup);
            assert_int_equal(initial_weights(b, &(struct initial_weights){.seed = 1, .log_threshold = 0.1}, &e), 0);
            assert_int_equal(initial_bias(b, B_DEC_ZERO, &s, &e), 0);
            check_firing(b, x, cases[i].n_rows, cases[i].fires);
            bias[threads - 1] = calloc(cases[i].d_sae, sizeof **bias);
            assert_int_equal(backend_get_all(b, "b_enc", bias[threads - 1], &e), 0);
            backend_cpu.close(b);
        }
        assert_memory_equal(bias[0], bias[2], cases[i].d_sae * sizeof **bias);
        free(bias[0]);
        free(bias[2]);
    }
}

/* ---- a model against itself ---- */

/* Two models that send the same rows, with tied decoders to begin with: by symmetry they stay the same to the bit. */
static void tied_decoders_stay_tied(void **state)
{
    (void)state;
    enum { SITES = 4, DIM = 20, HALF = SITES * DIM / 2, INPUTS = 2 * HALF, LATENTS = 70, ROWS = 32, STEPS = 1000 };
    static float x[ROWS][2][HALF], w[LATENTS][2][HALF];
    for (int i = 0; i < 4; i++) {
        struct backend_setup setup = relu_setup(SITES, DIM, LATENTS, ROWS, STEP_AUTO, i % 2);
        if (i >= 2) {
            setup.activation = "batchtopk";
            setup.terms[0] = "norm";
            setup.terms[1] = "aux";
            setup.score = SCORE_NORM_SUM;
            setup.most_k = 2;
            setup.aux_k = 10;
        }
        omp_set_num_threads(1 + i % 2);
        struct backend *b = open_cpu(&setup);
        struct step_report r;
        struct rng rng;
        const struct step_options o = {.adam = {0.9, 0.999, 1e-8},
                                       .max_norm = 1,
                                       .lr = 1e-2,
                                       .weight = {1, i < 2 ? 0.05 : 1.0 / 32},
                                       .dead_rows = 2 * ROWS,
                                       .k = 2};
        size_t dead = 0;
        rng_init(&rng, 8, RNG_TEST, (uint64_t)i);
        assert_int_equal(
            initial_weights(b, &(struct initial_weights){.seed = 1, .dec_init_norm = 0.3, .tied_models = true}, &e), 0);
        assert_int_equal(backend_get_all(b, "W_dec", w, &e), 0);
        float first = w[0][0][0];
        for (int step = 0; step < STEPS; step++) {
            for (size_t row = 0; row < ROWS; row++)
                for (size_t k = 0; k < HALF; k++)
                    x[row][0][k] = x[row][1][k] = (float)(rng_normal(&rng) * (k % 5 == row % 5 ? 3 : 0.2));
            if (b->ops->step(b, &x[0][0][0], &o, &r, &e))
                fail_msg("%s", e.message);
            dead += r.dead;
        }
        assert_int_equal(backend_get_all(b, "W_dec", w, &e), 0);
        assert_true(fabs((double)(w[0][0][0] - first)) > 1e-3); /* it has learned something */
        assert_true(i < 2 || dead > 0);                         /* so that AuxK was at work */
        for (size_t j = 0; j < LATENTS; j++)
            assert_memory_equal(w[j][0], w[j][1], sizeof w[j][0]);
        backend_cpu.close(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_converted_and_centred),
        cmocka_unit_test(the_mean),
        cmocka_unit_test(the_median),
        cmocka_unit_test(fermats_point),
        cmocka_unit_test(a_row_at_the_guess),
        cmocka_unit_test(b_dec_of_rows),
        cmocka_unit_test(b_enc_of_jumprelu),
        cmocka_unit_test(tied_decoders_stay_tied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
