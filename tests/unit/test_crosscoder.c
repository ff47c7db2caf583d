/* test_crosscoder.c - sizes, initial weights, and the weights file: exact round trip, reference layout, refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "backend_problem.h"
#include "mem.h"
#include "safetensors.h"
#include "scratch.h"
#include "sums.h"
#include "weights_file.h"

static struct err e;

static void test_sizes(void **state)
{
    (void)state;
    size_t n;
    assert_int_equal(backend_n_params(12, 768, 65536, &n, &e), 0);
    assert_int_equal(n, 2ull * 65536 * 9216 + 65536 + 9216);
    assert_int_equal(backend_n_params(0, 768, 65536, &n, &e), ERR_INPUT);
    assert_int_equal(backend_n_params(513, 768, 65536, &n, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "513"));
    assert_int_equal(backend_n_params(2, 768, 0, &n, &e), ERR_INPUT);
    assert_int_equal(backend_n_params(2, SIZE_MAX / 2, 3, &n, &e), ERR_MEMORY);
    assert_int_equal(backend_n_params(1, (size_t)1 << 30, (size_t)1 << 30, &n, &e), ERR_MEMORY);
}

/* Lets a backend draw weights of norm 0.005, and gets them into c. */
static void drawn(struct crosscoder *c, uint64_t seed)
{
    const struct backend_setup setup = relu_setup(c->n_sites, c->d_model, c->d_sae, 1, STEP_AUTO, false);
    struct backend *b = open_cpu(&setup);
    for (size_t i = 0; i < c->n_params; i++)
        c->params[i] = 1;
    put_params(b, c->params); /* every element must be written */
    assert_int_equal(initial_weights(b, &(struct initial_weights){.seed = seed, .dec_init_norm = 0.005}, &e), 0);
    get_params(b, c->params);
    backend_cpu.close(b);
}

/* Writes the weights of c to a file, by way of a backend. mean: NULL if rows are not centred. */
static int write_centred(const char *path, const struct crosscoder *c, const float *scale, const float *mean)
{
    struct normalisation n = {.centred = mean != NULL, .mean = (float *)(uintptr_t)mean};
    memcpy(n.scale, scale, c->n_sites * sizeof *scale);
    const struct backend_setup setup = relu_setup(c->n_sites, c->d_model, c->d_sae, 1, STEP_AUTO, false);
    struct backend *b = open_cpu(&setup);
    put_params(b, c->params);
    int rc = weights_file_write(path, b, &n, &(struct file_digest){0}, &e);
    backend_cpu.close(b);
    return rc;
}

static int write_file(const char *path, const struct crosscoder *c, const float *scale)
{
    return write_centred(path, c, scale, NULL);
}

/* Loads the file into a backend of c's shape, and from there into c; of a run whose rows are centred, or not. */
static int load_centred(const char *path, struct crosscoder *c, float *scale, bool centred, float *mean)
{
    struct normalisation n = {.centred = centred, .mean = mean};
    const struct backend_setup setup = relu_setup(c->n_sites, c->d_model, c->d_sae, 1, STEP_AUTO, false);
    struct backend *b = open_cpu(&setup);
    int rc = weights_file_load(path, b, &n, &e);
    memcpy(scale, n.scale, c->n_sites * sizeof *scale);
    get_params(b, c->params);
    backend_cpu.close(b);
    return rc;
}

static int load_file(const char *path, struct crosscoder *c, float *scale)
{
    return load_centred(path, c, scale, false, NULL);
}

static void test_initial_weights(void **state)
{
    (void)state;
    struct crosscoder c, more;
    enum { SITES = 3, DIM = 50, LATENTS = 300 };
    assert_int_equal(crosscoder_init(&c, SITES, DIM, LATENTS, false, &e), 0);
    assert_int_equal(crosscoder_init(&more, SITES, DIM, LATENTS + 7, false, &e), 0);
    drawn(&c, 42);
    double sum = 0, sum4 = 0;
    for (size_t j = 0; j < LATENTS; j++) {
        for (size_t site = 0; site < SITES; site++) {
            const float *v = c.w_dec + (j * SITES + site) * DIM;
            double norm = sqrt(sum_squares(v, DIM));
            assert_true(fabs(norm - 0.005) < 1e-8);
            for (size_t i = 0; i < DIM; i++) {
                double z = (double)v[i] * sqrt(DIM) / 0.005; /* about standard normal */
                sum += z;
                sum4 += z * z * z * z;
            }
        }
    }
    /* 45000 values: the mean's standard error is 0.005; a normal's fourth moment, on a sphere of 50, is 3 * 50 / 52. */
    assert_true(fabs(sum / (SITES * DIM * LATENTS)) < 0.02);
    assert_true(fabs(sum4 / (SITES * DIM * LATENTS) - 3.0 * DIM / (DIM + 2)) < 0.15);
    assert_memory_equal(c.w_enc, c.w_dec, LATENTS * SITES * DIM * sizeof(float));
    for (size_t i = 0; i < LATENTS; i++)
        assert_true(c.b_enc[i] == 0);
    for (size_t i = 0; i < SITES * DIM; i++)
        assert_true(c.b_dec[i] == 0);
    /* A latent's vectors depend on its number and the seed only. */
    drawn(&more, 42);
    assert_memory_equal(c.w_dec, more.w_dec, LATENTS * SITES * DIM * sizeof(float));
    drawn(&more, 43);
    assert_memory_not_equal(c.w_dec, more.w_dec, SITES * DIM * sizeof(float));
    crosscoder_release(&c);
    crosscoder_release(&more);
}

/* Draws weights for the setup and gets W_enc and W_dec [d_sae, n_inputs], b_enc and log_threshold [d_sae]. */
static void drawn_for(const struct backend_setup *setup, const struct initial_weights *o, float *w_enc, float *w_dec,
                      float *log_threshold)
{
    struct backend *b = open_cpu(setup);
    assert_int_equal(initial_weights(b, o, &e), 0);
    assert_int_equal(backend_get_all(b, "W_enc", w_enc, &e), 0);
    assert_int_equal(backend_get_all(b, "W_dec", w_dec, &e), 0);
    if (log_threshold)
        assert_int_equal(backend_get_all(b, "log_threshold", log_threshold, &e), 0);
    backend_cpu.close(b);
}

/* Shared and exclusive latents start as they stay; the others start as they would without. */
static void test_partition(void **state)
{
    (void)state;
    enum { SITES = 4, DIM = 3, HALF = SITES * DIM / 2, LATENTS = 9, SHARED = 2, EXCLUSIVE = 5 /* the first one */ };
    struct backend_setup s = relu_setup(SITES, DIM, LATENTS, 1, STEP_AUTO, false);
    const struct initial_weights o = {.seed = 4, .dec_init_norm = 0.1},
                                 tied = {.seed = 4, .dec_init_norm = 0.1, .tied_models = true};
    static float enc[LATENTS][2][HALF], dec[LATENTS][2][HALF], plain[LATENTS][2][HALF], plain_enc[LATENTS][2][HALF];
    static const float zeros[HALF];
    drawn_for(&s, &o, &plain_enc[0][0][0], &plain[0][0][0], NULL);
    s.partition = (struct partition){SHARED, {3, 1}};
    drawn_for(&s, &o, &enc[0][0][0], &dec[0][0][0], NULL);
    assert_memory_equal(enc, dec, sizeof enc);
    for (size_t j = 0; j < LATENTS; j++) {
        bool only0 = j >= EXCLUSIVE && j < EXCLUSIVE + 3, only1 = j >= EXCLUSIVE + 3;
        assert_memory_equal(dec[j][0], only1 ? zeros : plain[j][0], sizeof zeros);
        assert_memory_equal(dec[j][1], only0 ? zeros : j < SHARED ? plain[j][0] : plain[j][1], sizeof zeros);
    }
    drawn_for(&s, &tied, &enc[0][0][0], &dec[0][0][0], NULL);
    assert_memory_equal(enc, dec, sizeof enc);
    for (size_t j = 0; j < LATENTS; j++) {
        bool only0 = j >= EXCLUSIVE && j < EXCLUSIVE + 3, only1 = j >= EXCLUSIVE + 3;
        assert_memory_equal(dec[j][0], only1 ? zeros : plain[j][0], sizeof zeros);
        assert_memory_equal(dec[j][1], only0 ? zeros : plain[j][0], sizeof zeros);
    }
}

static void test_initial_jumprelu(void **state)
{
    (void)state;
    enum { SITES = 2, DIM = 50, INPUTS = SITES * DIM, LATENTS = 400 };
    struct backend_setup s = relu_setup(SITES, DIM, LATENTS, 1, STEP_AUTO, false);
    static float enc[LATENTS * INPUTS], dec[LATENTS * INPUTS], log_threshold[LATENTS];
    double squares = 0, most = 0;
    s.activation = "jumprelu";
    s.bandwidth = 2;
    drawn_for(&s, &(struct initial_weights){.seed = 4, .log_threshold = 0.25}, enc, dec, log_threshold);
    for (size_t i = 0; i < LATENTS * INPUTS; i++) {
        squares += (double)dec[i] * (double)dec[i];
        most = fmax(most, fabs((double)dec[i]));
        assert_true(enc[i] == dec[i] / 4); /* n_inputs / d_sae */
    }
    for (size_t j = 0; j < LATENTS; j++)
        assert_true(log_threshold[j] == 0.25f);
    /* Uniform in +-0.1: of 40000 values the greatest is near the end, and the mean square is 0.01 / 3 within 1 %. */
    assert_true(most <= 0.1f && most > 0.0999);
    assert_true(fabs(squares / (LATENTS * INPUTS) / (0.01 / 3) - 1) < 0.02);
}

static void fill(struct crosscoder *c)
{
    for (size_t i = 0; i < c->n_params; i++)
        c->params[i] = (float)i / 7;
}

/* d_sae of 70001 makes several strips of W_enc, the last one short. */
static void round_trip(size_t n_sites, size_t d_model, size_t d_sae)
{
    struct crosscoder c, back;
    float scale[3] = {0.5f, 1.5f, 1e-3f}, scale_back[3] = {0};
    const char *path = scratch_path("round.safetensors");
    assert_int_equal(crosscoder_init(&c, n_sites, d_model, d_sae, false, &e), 0);
    assert_int_equal(crosscoder_init(&back, n_sites, d_model, d_sae, false, &e), 0);
    fill(&c);
    assert_int_equal(write_file(path, &c, scale), 0);
    assert_int_equal(load_file(path, &back, scale_back), 0);
    assert_int_equal(memcmp(c.params, back.params, c.n_params * sizeof(float)), 0);
    assert_memory_equal(scale, scale_back, n_sites * sizeof(float));
    crosscoder_release(&c);
    crosscoder_release(&back);
}

static void test_round_trip(void **state)
{
    (void)state;
    round_trip(2, 3, 5);
    round_trip(1, 1, 1);
    round_trip(3, 13, 70001);
}

/* The reference's own indexing finds each weight where it looks for it. */
static void test_layout(void **state)
{
    (void)state;
    enum { SITES = 2, DIM = 3, LATENTS = 5 };
    struct crosscoder c;
    struct safetensors s;
    float scale[SITES] = {1, 2};
    const char *path = scratch_path("layout.safetensors");
    assert_int_equal(crosscoder_init(&c, SITES, DIM, LATENTS, false, &e), 0);
    fill(&c);
    assert_int_equal(write_file(path, &c, scale), 0);
    assert_int_equal(safetensors_open(&s, path, &e), 0);
    assert_int_equal(s.n_tensors, 5);
    const struct tensor_view *enc = safetensors_find(&s, "W_enc"), *dec = safetensors_find(&s, "W_dec");
    assert_int_equal(tensor_expect_shape(&s, enc, 3, (size_t[]){SITES, DIM, LATENTS}, &e), 0);
    assert_int_equal(tensor_expect_shape(&s, dec, 3, (size_t[]){LATENTS, SITES, DIM}, &e), 0);
    assert_int_equal(enc->dtype, TENSOR_F32);
    for (size_t site = 0; site < SITES; site++) {
        for (size_t i = 0; i < DIM; i++) {
            for (size_t j = 0; j < LATENTS; j++) {
                float v;
                memcpy(&v, enc->data + 4 * ((site * DIM + i) * LATENTS + j), 4);
                assert_true(v == c.w_enc[j * SITES * DIM + site * DIM + i]);
                memcpy(&v, dec->data + 4 * ((j * SITES + site) * DIM + i), 4);
                assert_true(v == c.w_dec[j * SITES * DIM + site * DIM + i]);
            }
        }
    }
    safetensors_close(&s);
    crosscoder_release(&c);
}

/* The mean is in the file exactly if rows are centred, and whoever loads it must agree. */
static void test_mean(void **state)
{
    (void)state;
    struct crosscoder c, back;
    struct safetensors s;
    float scale[2] = {1, 2}, scale_back[2], mean_back[6];
    const float mean[6] = {1, -2, 3.5f, 0, 5, 1e-20f};
    const char *with = scratch_path("with.safetensors"), *without = scratch_path("without.safetensors");
    assert_int_equal(crosscoder_init(&c, 2, 3, 5, false, &e), 0);
    assert_int_equal(crosscoder_init(&back, 2, 3, 5, false, &e), 0);
    fill(&c);
    assert_int_equal(write_centred(with, &c, scale, mean), 0);
    assert_int_equal(write_file(without, &c, scale), 0);
    assert_int_equal(load_centred(with, &back, scale_back, true, mean_back), 0);
    assert_memory_equal(mean, mean_back, sizeof mean);
    assert_memory_equal(scale, scale_back, sizeof scale);
    assert_memory_equal(c.params, back.params, c.n_params * sizeof *c.params);
    assert_int_equal(load_centred(with, &back, scale_back, true, NULL), 0); /* weights to start from */
    assert_int_equal(load_centred(with, &back, scale_back, false, NULL), ERR_MISMATCH);
    assert_non_null(strstr(e.message, "center false"));
    assert_int_equal(load_centred(without, &back, scale_back, true, mean_back), ERR_MISMATCH);
    assert_non_null(strstr(e.message, "center true"));
    assert_int_equal(safetensors_open(&s, with, &e), 0);
    assert_int_equal(s.n_tensors, 6);
    assert_int_equal(tensor_expect_shape(&s, safetensors_find(&s, "mean"), 2, (size_t[]){2, 3}, &e), 0);
    safetensors_close(&s);
    crosscoder_release(&c);
    crosscoder_release(&back);
}

static void test_refused(void **state)
{
    (void)state;
    struct crosscoder c, other;
    float scale[3] = {1, 1, 1};
    const char *path = scratch_path("refused.safetensors");
    assert_int_equal(crosscoder_init(&c, 2, 3, 5, false, &e), 0);
    assert_int_equal(write_file(path, &c, scale), 0);
    const size_t shapes[][3] = {{2, 3, 6}, {3, 2, 5}, {1, 6, 5}};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(crosscoder_init(&other, shapes[i][0], shapes[i][1], shapes[i][2], false, &e), 0);
        assert_true(load_file(path, &other, scale) < 0);
        assert_non_null(strstr(e.message, "W_enc"));
        crosscoder_release(&other);
    }
    assert_true(load_file(scratch_path("none.safetensors"), &c, scale) < 0);

    c.w_enc[7] = NAN; /* written as it is, refused on the way back */
    assert_int_equal(write_file(path, &c, scale), 0);
    assert_true(load_file(path, &c, scale) < 0);
    assert_non_null(strstr(e.message, "W_enc"));

    struct safetensors_writer w; /* a file without a scale */
    const struct tensor_spec spec = {"W_enc", TENSOR_F32, 3, {2, 3, 5}};
    float zeros[30] = {0};
    assert_int_equal(safetensors_write_begin(&w, path, &spec, 1, NULL, 0, &e), 0);
    assert_int_equal(safetensors_write_data(&w, zeros, sizeof zeros, &e), 0);
    assert_int_equal(safetensors_write_commit(&w, &e), 0);
    assert_int_equal(load_file(path, &c, scale), ERR_INPUT);
    assert_non_null(strstr(e.message, "W_dec"));
    crosscoder_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),  cmocka_unit_test(test_initial_weights),  cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_layout), cmocka_unit_test(test_refused),          cmocka_unit_test(test_partition),
        cmocka_unit_test(test_mean),   cmocka_unit_test(test_initial_jumprelu),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
