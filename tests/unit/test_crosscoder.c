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
    assert_int_equal(initial_weights(b, 0.005, seed, &e), 0);
    get_params(b, c->params);
    backend_cpu.close(b);
}

/* Writes the weights of c to a file, by way of a backend. */
static int write_file(const char *path, const struct crosscoder *c, const float *scale)
{
    const struct backend_setup setup = relu_setup(c->n_sites, c->d_model, c->d_sae, 1, STEP_AUTO, false);
    struct backend *b = open_cpu(&setup);
    put_params(b, c->params);
    int rc = weights_file_write(path, b, scale, &e);
    backend_cpu.close(b);
    return rc;
}

/* Loads the file into a backend of c's shape, and from there into c. */
static int load_file(const char *path, struct crosscoder *c, float *scale)
{
    const struct backend_setup setup = relu_setup(c->n_sites, c->d_model, c->d_sae, 1, STEP_AUTO, false);
    struct backend *b = open_cpu(&setup);
    int rc = weights_file_load(path, b, scale, &e);
    get_params(b, c->params);
    backend_cpu.close(b);
    return rc;
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
        cmocka_unit_test(test_sizes),  cmocka_unit_test(test_initial_weights), cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_layout), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
