/* Recovery of a planted dictionary, against cosines taken one by one. */
#include "recovery.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "backend_problem.h"
#include "gemm.h"
#include "rng.h"
#include "safetensors.h"
#include "scratch.h"

enum { N = 30, SITES = 3, D = 20, WIDTH = SITES * D, SAE = 1100 };

static float planted[N][WIDTH];
static const float scale[SITES] = {0.5f, 1, 4};

static void random_vectors(float *v, size_t n, uint64_t stream)
{
    struct rng r;
    rng_init(&r, 7, RNG_TEST, stream);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)rng_normal(&r);
}

/* A truth file of N latents of kinds 0 1 2 0 1 2...; one kind is `odd` instead. */
static const char *write_truth(int32_t odd, const float (*directions)[WIDTH])
{
    struct safetensors_writer w;
    struct err e = {0};
    const struct tensor_spec specs[] = {{"directions", TENSOR_F32, 3, {N, SITES, D}}, {"kind", TENSOR_I32, 1, {N}}};
    const char *path = scratch_path("truth.safetensors");
    int32_t kind[N];
    for (int i = 0; i < N; i++)
        kind[i] = i % 3;
    kind[3] = odd;
    assert_int_equal(safetensors_write_begin(&w, path, specs, 2, NULL, 0, &e), 0);
    assert_int_equal(safetensors_write_data(&w, directions, sizeof planted, &e), 0);
    assert_int_equal(safetensors_write_data(&w, kind, sizeof kind, &e), 0);
    assert_int_equal(safetensors_write_commit(&w, &e), 0);
    return path;
}

/* Measures a backend whose W_dec is this. */
static void measure(struct recovery *r, const float (*w_dec)[WIDTH], struct recovery_result *result)
{
    const struct backend_setup setup = relu_setup(SITES, D, SAE, 1, STEP_SPARSE, false);
    struct backend *b = open_cpu(&setup);
    assert_int_equal(backend_put_all(b, "W_dec", w_dec, NULL), 0);
    assert_int_equal(recovery_measure(r, b, scale, RECOVERY_THRESHOLD, 1000, result, NULL), 0);
    backend_cpu.close(b);
}

static void against_definition(void **state)
{
    (void)state;
    static float w_dec[SAE][WIDTH];
    struct recovery r;
    struct recovery_result result, again;
    struct err e = {0};
    random_vectors(&planted[0][0], N * WIDTH, 0);
    random_vectors(&w_dec[0][0], SAE * WIDTH, 1);
    memset(w_dec[600], 0, sizeof w_dec[600]); /* a latent of norm 0 does no harm */
    for (int i = 0; i < 10; i++)              /* ten are found, of any norm, anywhere; one only almost */
        for (int j = 0; j < WIDTH; j++)
            w_dec[(i * 397 + 1090) % SAE][j] = (float)(i + 1) * scale[j / D] * planted[i][j];
    for (int j = 0; j < WIDTH; j++) /* the tenth has no scale: its cosine is below 1 */
        w_dec[(9 * 397 + 1090) % SAE][j] = planted[9][j];
    assert_int_equal(recovery_init(&r, write_truth(0, (const float(*)[WIDTH])planted), SITES, D, &e), 0);
    measure(&r, (const float(*)[WIDTH])w_dec, &result);
    double mean = 0;
    for (int l = 0; l < N; l++) {
        double best = -1;
        for (int k = 0; k < SAE; k++) {
            double dot = 0, a = 0, b = 0;
            for (int j = 0; j < WIDTH; j++) {
                double p = (double)scale[j / D] * planted[l][j];
                dot += p * w_dec[k][j];
                a += p * p;
                b += (double)w_dec[k][j] * w_dec[k][j];
            }
            best = fmax(best, b > 0 ? dot / sqrt(a * b) : 0);
        }
        assert_true(fabs(r.max_cosine[l] - best) < 1e-5);
        assert_true(l < 9 ? best > 0.999 : best < 0.9);
        mean += best / N;
    }
    assert_true(fabs(result.mean_max_cosine - mean) < 1e-5);
    assert_true(result.fraction == 9.0 / N);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(result.n[k], 10);
        assert_int_equal(result.recovered[k], 3);
    }
    assert_true(fabs((result.mean[0] + result.mean[1] + result.mean[2]) / 3 - mean) < 1e-5);

    gemm_set_threads(2); /* the same bits, and measuring again changes nothing */
    measure(&r, (const float(*)[WIDTH])w_dec, &again);
    assert_memory_equal(&again, &result, sizeof result);
    gemm_set_threads(1);
    memset(w_dec, 0, sizeof w_dec);
    measure(&r, (const float(*)[WIDTH])w_dec, &result);
    assert_true(result.fraction == 0 && result.mean_max_cosine == 0);
    recovery_release(&r);
    recovery_release(&r);
}

/* Counts by hand: two sites of two models, six planted latents along axes, nine learned ones. */
static void matches_and_exclusives(void **state)
{
    (void)state;
    enum { LATENTS = 6, LEARNED = 9 };
    struct safetensors_writer w;
    struct err e = {0};
    const char *path = scratch_path("two_models.safetensors"), *metadata[] = {"active", "3.5"};
    const struct tensor_spec specs[] = {{"directions", TENSOR_F32, 3, {LATENTS, 2, D}},
                                        {"kind", TENSOR_I32, 1, {LATENTS}}};
    static float truth[LATENTS][2][D], w_dec[LEARNED][2][D];
    const int32_t kind[LATENTS] = {0, 0, 2, 2, 2, 2};
    truth[0][0][0] = truth[0][1][0] = 1; /* both models */
    truth[1][0][1] = 1;
    truth[1][1][1] = 0.05f; /* both, but weak in model 1 */
    truth[2][0][2] = truth[3][0][3] = 1;
    truth[4][1][4] = truth[5][1][5] = 1;
    assert_int_equal(safetensors_write_begin(&w, path, specs, 2, metadata, 1, &e), 0);
    assert_int_equal(safetensors_write_data(&w, truth, sizeof truth, &e), 0);
    assert_int_equal(safetensors_write_data(&w, kind, sizeof kind, &e), 0);
    assert_int_equal(safetensors_write_commit(&w, &e), 0);
    w_dec[0][0][0] = 2;                          /* half of latent 0: called exclusive, wrongly */
    w_dec[1][1][0] = 2;                          /* the other half: both match it */
    memcpy(w_dec[2], truth[1], sizeof truth[1]); /* weak: called exclusive, wrongly */
    memcpy(w_dec[3], truth[2], sizeof truth[2]); /* rightly */
    w_dec[4][0][3] = w_dec[4][1][3] = 0.5f;      /* latent 3 found, but not called exclusive */
    memcpy(w_dec[5], truth[4], sizeof truth[4]); /* rightly, */
    memcpy(w_dec[6], truth[4], sizeof truth[4]); /* twice */
    w_dec[7][1][9] = 1;                          /* matches nothing: called exclusive, wrongly */
    memcpy(w_dec[8], truth[5], sizeof truth[5]); /* dead */
    const uint64_t silent[LEARNED] = {0, 1, 2, 3, 4, 5, 6, 99, 100};

    struct backend_setup setup = relu_setup(2, D, LEARNED, 1, STEP_SPARSE, false);
    struct recovery r;
    struct recovery_result result;
    const float even[2] = {1, 1};
    setup.two_models = true;
    struct backend *b = open_cpu(&setup);
    assert_int_equal(backend_put_all(b, "W_dec", w_dec, NULL), 0);
    assert_int_equal(backend_put_all(b, "rows_since_fired", silent, NULL), 0);
    b->step = 1000;
    assert_int_equal(recovery_init(&r, path, 2, D, &e), 0);
    assert_int_equal(recovery_measure(&r, b, even, RECOVERY_THRESHOLD, 100, &result, &e), 0);
    assert_true(result.active == 3.5);
    assert_int_equal(result.live, 8);
    assert_int_equal(result.spurious, 1);
    assert_int_equal(result.duplicates, 2);
    assert_int_equal(result.called, 7);
    assert_int_equal(result.called_rightly, 3);
    assert_int_equal(result.exclusive, 4);
    assert_int_equal(result.found_exclusive, 2);

    b->step = 50; /* one that has been silent as long as the run is has never fired */
    assert_int_equal(recovery_measure(&r, b, even, RECOVERY_THRESHOLD, 100, &result, &e), 0);
    assert_int_equal(result.live, 7);
    assert_int_equal(result.spurious, 0);
    recovery_release(&r);
    backend_cpu.close(b);
}

static void refuses(const char *path, size_t n_sites, size_t d_model, const char *part)
{
    struct recovery r;
    struct err e = {0};
    assert_true(recovery_init(&r, path, n_sites, d_model, &e) < 0);
    if (!strstr(e.message, part))
        fail_msg("message \"%s\" lacks \"%s\"", e.message, part);
    recovery_release(&r);
}

static void refusals(void **state)
{
    (void)state;
    refuses(scratch_path("absent"), SITES, D, "cannot open");
    refuses(write_truth(0, (const float(*)[WIDTH])planted), 4, D, "[30, 3, 20], expected [30, 4, 20]");
    refuses(write_truth(3, (const float(*)[WIDTH])planted), SITES, D, "kind of latent 3 is 3");
    refuses(write_truth(-1, (const float(*)[WIDTH])planted), SITES, D, "kind of latent 3 is -1");
    refuses(scratch_write("empty.safetensors", "\2\0\0\0\0\0\0\0{}", 10), SITES, D, "not a planted truth");
    planted[2][5] = NAN;
    refuses(write_truth(0, (const float(*)[WIDTH])planted), SITES, D, "element 125");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_definition), cmocka_unit_test(matches_and_exclusives),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
