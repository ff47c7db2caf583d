/* The synthetic source: rows are a pure function of the options and the sequence, and are what the truth file says. */
#include "source_synthetic.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "safetensors.h"
#include "scratch.h"

static struct synthetic_options small(void)
{
    struct synthetic_options o = synthetic_defaults();
    o.seq_len = 50;
    o.n_seq = 40;
    return o;
}

static void open_source(struct source *s, const struct synthetic_options *o)
{
    struct err e = {0};
    if (source_synthetic_open(s, o, &e))
        fail_msg("%s", e.message);
}

/* The rows of sequences first..first+n-1, [n * seq_len, n_sites * d_model] fp32, to dst. */
static void compute(struct source *s, uint32_t first, uint32_t n, float *dst)
{
    struct rows r;
    struct err e = {0};
    size_t n_rows = stream_block_rows(&s->stream, n), row_bytes = stream_row_bytes(&s->stream, ROW_F32), done = 0;
    assert_int_equal(rows_init(&r, &s->stream, n_rows, &e), 0);
    rows_begin(&r, &s->stream, n_rows, ROW_F32, NULL);
    if (s->compute(s->self, first, n, &r, &e))
        fail_msg("%s", e.message);
    for (size_t c = 0; c < stream_chunk_count(&s->stream, ROW_F32, n_rows); c++) {
        size_t bytes, in_chunk;
        const struct row_origin *origins;
        const unsigned char *chunk = rows_chunk(&r, c, &bytes, &in_chunk, &origins);
        memcpy((char *)dst + done * row_bytes, chunk, bytes);
        for (size_t i = 0; i < in_chunk; i++) {
            assert_int_equal(origins[i].sequence, first + (done + i) / s->stream.seq_len);
            assert_int_equal(origins[i].position, (done + i) % s->stream.seq_len);
            assert_int_equal(origins[i].token, 0);
        }
        done += in_chunk;
    }
    assert_int_equal(done, n_rows);
    rows_release(&r);
}

static void check_pure_function(struct synthetic_options o)
{
    size_t width = (size_t)o.n_sites * o.d_model, sequence = o.seq_len * width;
    float *all = malloc(o.n_seq * sequence * sizeof *all), *part = malloc(o.n_seq * sequence * sizeof *part);
    struct source s, again;
    omp_set_num_threads(2);
    open_source(&s, &o);
    compute(&s, 0, o.n_seq, all);
    for (uint32_t first = 0; first < o.n_seq; first += 7) { /* other blocks, out of order */
        uint32_t n = o.n_seq - first < 7 ? o.n_seq - first : 7;
        compute(&s, first, n, part);
        assert_memory_equal(part, all + first * sequence, n * sequence * sizeof *all);
    }
    compute(&s, 3, 1, part);
    assert_memory_equal(part, all + 3 * sequence, sequence * sizeof *all);
    omp_set_num_threads(1);
    open_source(&again, &o); /* another producer, another number of threads */
    compute(&again, 0, o.n_seq, part);
    assert_memory_equal(part, all, o.n_seq * sequence * sizeof *all);
    struct err e = {0};
    assert_int_equal(stream_compare(&s.stream, &again.stream, &e), 0);
    again.close(again.self);
    o.seed++;
    open_source(&again, &o);
    compute(&again, 0, 1, part);
    assert_memory_not_equal(part, all, sequence * sizeof *all);
    assert_int_equal(stream_compare(&s.stream, &again.stream, &e), ERR_MISMATCH);
    again.close(again.self);

    struct rows r;
    assert_int_equal(rows_init(&r, &s.stream, 2 * o.seq_len, &e), 0);
    rows_begin(&r, &s.stream, 2 * o.seq_len, ROW_F32, NULL);
    assert_int_equal(s.compute(s.self, o.n_seq - 1, 2, &r, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "sequences 39 to 40 wanted, there are 40"));
    rows_release(&r);
    s.close(s.self);
    free(all);
    free(part);
}

static void pure_function_of_sequence(void **state)
{
    (void)state;
    struct synthetic_options o = small(), harder = o;
    harder.n_models = 2;
    harder.rate_spread = 5;
    harder.correlated = 0.3;
    harder.weak_ratio = 0.5;
    harder.alone = 0.5;
    harder.aligned = true;
    check_pure_function(o);
    check_pure_function(harder);

    /* Each option makes another stream. */
    struct synthetic_options two = o, others[5];
    two.n_models = 2;
    others[0] = others[1] = others[2] = others[3] = others[4] = two;
    others[0].rate_spread = 5;
    others[1].correlated = 0.3;
    others[2].weak_ratio = 0.5;
    others[3].aligned = true;
    others[4].alone = 0.5;
    struct source plain, other;
    struct err e = {0};
    open_source(&plain, &two);
    for (int i = 0; i < 5; i++) {
        open_source(&other, &others[i]);
        assert_int_equal(stream_compare(&plain.stream, &other.stream, &e), ERR_MISMATCH);
        other.close(other.self);
    }
    plain.close(plain.self);
}

static void truth_file(void **state)
{
    (void)state;
    struct synthetic_options o = small();
    o.n_models = 2;
    struct source s;
    struct safetensors f;
    struct err e = {0};
    const char *path = scratch_path("truth.safetensors");
    open_source(&s, &o);
    assert_string_equal(s.stream.sites[0], "0:blocks.0.hook_resid_post");
    assert_string_equal(s.stream.sites[3], "1:blocks.1.hook_resid_post");
    assert_string_not_equal(s.stream.model_fingerprints[0], s.stream.model_fingerprints[1]);
    assert_int_equal(source_synthetic_write_truth(&s, path, &e), 0);
    assert_int_equal(source_synthetic_write_truth(&s, scratch_path("no/folder"), &e), ERR_SYSTEM);
    s.close(s.self);

    assert_int_equal(safetensors_open(&f, path, &e), 0);
    assert_string_equal(safetensors_metadata(&f, "seed"), "49");
    assert_string_equal(safetensors_metadata(&f, "active"), "8");
    const struct tensor_view *directions = safetensors_require(&f, "directions", 3, (size_t[]){256, 4, 64}, &e),
                             *kind = safetensors_require(&f, "kind", 1, (size_t[]){256}, &e);
    assert_true(directions && kind && kind->dtype == TENSOR_I32);
    static float v[256][4][64];
    int32_t kinds[256];
    size_t counts[3] = {0}, sides[2] = {0}, local_sites[4] = {0};
    assert_int_equal(tensor_to_f32(&f, directions, &v[0][0][0], &e), 0);
    memcpy(kinds, kind->data, sizeof kinds);
    for (int l = 0; l < 256; l++) {
        unsigned on = 0;
        for (int i = 0; i < 4; i++) {
            double squares = 0;
            for (int j = 0; j < 64; j++)
                squares += (double)v[l][i][j] * v[l][i][j];
            if (squares == 0)
                continue;
            on |= 1u << i;
            assert_true(sqrt(squares) > 0.799 && sqrt(squares) < 1.201);
        }
        assert_true(kinds[l] >= 0 && kinds[l] < 3);
        counts[kinds[l]]++;
        if (kinds[l] == LATENT_SHARED)
            assert_int_equal(on, 15);
        else if (kinds[l] == LATENT_LOCAL)
            assert_true(on == 1 || on == 2 || on == 4 || on == 8);
        else
            assert_true(on == 3 || on == 12);
        sides[1] += on == 12;
        sides[0] += on == 3;
        for (int i = 0; i < 4; i++)
            local_sites[i] += on == 1u << i;
    }
    assert_true(counts[LATENT_LOCAL] == 51 && counts[LATENT_EXCLUSIVE] == 51 && counts[LATENT_SHARED] == 154);
    assert_true(sides[0] > 10 && sides[1] > 10);
    for (int i = 0; i < 4; i++)
        assert_true(local_sites[i] > 3);
    safetensors_close(&f);
}

/* With directions that are nearly orthogonal and no noise, a row's products with them show what is active. */
static void sparsity(void **state)
{
    (void)state;
    struct synthetic_options o = small();
    o.d_model = 1024;
    o.n_sites = 1;
    o.n_latents = 32;
    o.active = 2;
    o.noise = 0;
    struct source s;
    struct safetensors f;
    struct err e = {0};
    const char *path = scratch_path("sparse.safetensors");
    open_source(&s, &o);
    assert_int_equal(source_synthetic_write_truth(&s, path, &e), 0);
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    float *v = malloc(32 * 1024 * sizeof *v), *x = malloc(2000 * 1024 * sizeof *x);
    assert_int_equal(tensor_to_f32(&f, safetensors_find(&f, "directions"), v, &e), 0);
    safetensors_close(&f);
    compute(&s, 0, o.n_seq, x);
    size_t active = 0, empty = 0, each[32] = {0};
    double coefficients = 0;
    for (size_t row = 0; row < 2000; row++) {
        size_t before = active;
        for (size_t l = 0; l < 32; l++) {
            double product = 0, squares = 0;
            for (size_t j = 0; j < 1024; j++) {
                product += (double)x[row * 1024 + j] * v[l * 1024 + j];
                squares += (double)v[l * 1024 + j] * v[l * 1024 + j];
            }
            double coefficient = product / squares;
            if (coefficient < 0.3)
                continue;
            active++;
            each[l]++;
            coefficients += coefficient;
            assert_true(coefficient < 1.8);
        }
        empty += active == before;
    }
    assert_true(fabs((double)active / 2000 - 2) < 0.15);     /* sd 0.03 */
    assert_true(fabs((double)empty / 2000 - 0.127) < 0.035); /* (1 - 1/16)^32, sd 0.007 */
    assert_true(fabs(coefficients / (double)active - 1) < 0.05);
    for (size_t l = 0; l < 32; l++)
        assert_true(each[l] > 75 && each[l] < 180); /* 125 expected, sd 11 */
    s.close(s.self);
    free(v);
    free(x);
}

/* Of a source whose directions are nearly orthogonal: which latents are active in 50,000 rows, [50000, 32]. */
static unsigned char *activity(struct synthetic_options *o, const char *truth)
{
    enum { N = 32, D = 1024, SEQUENCES = 50 };
    o->d_model = D;
    o->n_sites = 1;
    o->n_latents = N;
    o->active = 2;
    o->noise = 0;
    o->seq_len = 1000;
    o->n_seq = SEQUENCES;
    struct source s;
    struct safetensors f;
    struct err e = {0};
    open_source(&s, o);
    assert_int_equal(source_synthetic_write_truth(&s, truth, &e), 0);
    assert_int_equal(safetensors_open(&f, truth, &e), 0);
    float *v = malloc(N * D * sizeof *v), *x = malloc((size_t)o->seq_len * D * sizeof *x);
    unsigned char *active = malloc((size_t)SEQUENCES * o->seq_len * N);
    assert_int_equal(tensor_to_f32(&f, safetensors_find(&f, "directions"), v, &e), 0);
    safetensors_close(&f);
    for (uint32_t sequence = 0; sequence < SEQUENCES; sequence++) {
        compute(&s, sequence, 1, x);
        for (size_t row = 0; row < o->seq_len; row++)
            for (size_t l = 0; l < N; l++) {
                float product = 0, squares = 0;
                for (size_t j = 0; j < D; j++) {
                    product += x[row * D + j] * v[l * D + j];
                    squares += v[l * D + j] * v[l * D + j];
                }
                active[((size_t)sequence * o->seq_len + row) * N + l] = product > 0.3f * squares;
            }
    }
    s.close(s.self);
    free(v);
    free(x);
    return active;
}

/* Latents fire as often as the truth says, from a rate to eight times it; pairs fire together. */
static void rates_and_pairs(void **state)
{
    (void)state;
    struct synthetic_options o = small();
    o.rate_spread = 8;
    o.correlated = 0.5;
    const char *path = scratch_path("rates.safetensors");
    unsigned char *active = activity(&o, path);
    struct safetensors f;
    struct err e = {0};
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    float rate[32];
    int32_t partner[32];
    assert_int_equal(tensor_to_f32(&f, safetensors_require(&f, "rate", 1, (size_t[]){32}, &e), rate, &e), 0);
    memcpy(partner, safetensors_require(&f, "partner", 1, (size_t[]){32}, &e)->data, sizeof partner);
    double sum = 0, least = 1, greatest = 0;
    size_t paired = 0;
    for (int l = 0; l < 32; l++) {
        size_t fired = 0, together = 0;
        for (size_t row = 0; row < 50000; row++) {
            fired += active[row * 32 + (size_t)l];
            together += partner[l] >= 0 && active[row * 32 + (size_t)l] && active[row * 32 + (size_t)partner[l]];
        }
        double expected = (double)rate[l] * 50000;
        assert_true(fabs((double)fired - expected) < 5 * sqrt(expected));
        sum += (double)rate[l];
        least = fmin(least, (double)rate[l]);
        greatest = fmax(greatest, (double)rate[l]);
        if (partner[l] < 0)
            continue;
        paired++;
        assert_true(partner[l] != l && partner[partner[l]] == l && rate[l] == rate[partner[l]]);
        assert_true(fabs((double)together / (double)fired - 0.9) < 0.05); /* sd at most 0.011 */
    }
    assert_int_equal(paired, 16);
    assert_true(fabs(sum - 2) < 1e-5);
    assert_true(greatest / least > 3 && greatest / least < 8.001);
    safetensors_close(&f);
    free(active);

    struct source s;
    struct synthetic_options alone = synthetic_defaults(); /* without pairs the factor is exact, and log-uniform */
    alone.rate_spread = 8;
    open_source(&s, &alone);
    assert_int_equal(source_synthetic_write_truth(&s, path, &e), 0);
    s.close(s.self);
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    static float all[256];
    assert_int_equal(tensor_to_f32(&f, safetensors_require(&f, "rate", 1, (size_t[]){256}, &e), all, &e), 0);
    safetensors_close(&f);
    size_t below = 0;
    for (int l = 0; l < 256; l++) {
        least = l ? fmin(least, (double)all[l]) : (double)all[l];
        greatest = l ? fmax(greatest, (double)all[l]) : (double)all[l];
    }
    for (int l = 0; l < 256; l++)
        below += (double)all[l] < least * sqrt(8);
    assert_true(fabs(greatest / least - 8) < 1e-4);
    assert_int_equal(below, 128);
}

/* A shared latent's vectors at the two models' sites: equal, of a tenth of the latents but for the ratio. */
static void aligned_and_weak(void **state)
{
    (void)state;
    struct synthetic_options o = small();
    o.n_models = 2;
    o.local = 0;
    o.exclusive = 0.6;
    o.aligned = true;
    o.weak_ratio = 0.25;
    struct source s;
    struct safetensors f;
    struct err e = {0};
    const char *path = scratch_path("weak.safetensors");
    open_source(&s, &o);
    assert_int_equal(source_synthetic_write_truth(&s, path, &e), 0);
    s.close(s.self);
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    static float v[256][2][128]; /* latent, model, sites of the model */
    int32_t kind[256];
    assert_int_equal(tensor_to_f32(&f, safetensors_find(&f, "directions"), &v[0][0][0], &e), 0);
    memcpy(kind, safetensors_find(&f, "kind")->data, sizeof kind);
    safetensors_close(&f);
    size_t weak = 0, shared = 0, sides[2] = {0};
    for (int l = 0; l < 256; l++) {
        if (kind[l] == LATENT_EXCLUSIVE) {
            sides[v[l][0][0] == 0]++;
            continue;
        }
        shared++;
        float ratio = v[l][1][0] / v[l][0][0];
        weak += ratio < 0.5f;
        for (int j = 0; j < 128; j++)
            assert_true(v[l][1][j] == (ratio < 0.5f ? 0.25f : 1) * v[l][0][j]);
    }
    assert_int_equal(shared, 102);
    assert_int_equal(weak, 10);
    assert_true(sides[0] + sides[1] == 154 && sides[0] > 55 && sides[1] > 55); /* 77 expected, sd 6 */
}

/* A tenth of the shared latents are active at the second model's sites alone as often as the truth says, no others ever. */
static void alone(void **state)
{
    (void)state;
    struct synthetic_options o = synthetic_defaults();
    o.d_model = 8;
    o.n_sites = o.n_models = 2;
    o.n_latents = 20;
    o.local = o.exclusive = o.noise = 0;
    o.active = 0.5;
    o.alone = 0.75;
    o.seq_len = 500;
    o.n_seq = 200;
    struct source s;
    struct safetensors f;
    struct err e = {0};
    const char *path = scratch_path("alone.safetensors");
    open_source(&s, &o);
    assert_int_equal(source_synthetic_write_truth(&s, path, &e), 0);
    assert_int_equal(safetensors_open(&f, path, &e), 0);
    float share[20];
    assert_int_equal(tensor_to_f32(&f, safetensors_require(&f, "alone", 1, (size_t[]){20}, &e), share, &e), 0);
    safetensors_close(&f);
    for (int l = 0; l < 20; l++)
        assert_true(share[l] == (l < 18 ? 0 : 0.75f));
    static float x[500][2][8];
    size_t second_only = 0;
    for (uint32_t sequence = 0; sequence < o.n_seq; sequence++) {
        compute(&s, sequence, 1, &x[0][0][0]);
        for (size_t row = 0; row < o.seq_len; row++) {
            assert_true(x[row][0][0] == 0 || x[row][1][0] != 0);
            second_only += x[row][0][0] == 0 && x[row][1][0] != 0;
        }
    }
    s.close(s.self);
    /* None of 18 at 0.025, and some of two at 0.025 of which none is in both models: 0.0234, sd 48 rows. */
    assert_true(fabs((double)second_only - 2340) < 250);
}

static void noise(void **state)
{
    (void)state;
    struct synthetic_options o = small();
    o.noise = 0.5;
    o.active = 1e-9; /* nothing but noise */
    struct source s;
    open_source(&s, &o);
    size_t n = (size_t)o.n_seq * o.seq_len * o.n_sites * o.d_model;
    float *x = malloc(n * sizeof *x);
    compute(&s, 0, o.n_seq, x);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
        squares += (double)x[i] * x[i];
    }
    assert_true(fabs(sum / (double)n) < 0.004);
    assert_true(fabs(sqrt(squares / (double)n) - 0.5) < 0.003);
    s.close(s.self);
    free(x);
}

static void refuses(struct synthetic_options o, const char *part)
{
    struct source s;
    struct err e = {0};
    assert_true(source_synthetic_open(&s, &o, &e) < 0);
    if (!strstr(e.message, part))
        fail_msg("message \"%s\" lacks \"%s\"", e.message, part);
}

static void refusals(void **state)
{
    (void)state;
    struct synthetic_options d = synthetic_defaults(), o;
    refuses((o = d, o.n_models = 3, o), "3 models");
    refuses((o = d, o.n_models = 2, o.n_sites = 3, o), "share 3 sites evenly");
    refuses((o = d, o.n_latents = 0, o), "0 latents");
    refuses((o = d, o.active = 0, o), "0 active");
    refuses((o = d, o.active = NAN, o), "active");
    refuses((o = d, o.active = 200, o), "200 active of 256");
    refuses((o = d, o.local = 0.7, o.exclusive = 0.4, o), "0.7 local and 0.4 exclusive");
    refuses((o = d, o.noise = -1, o), "noise -1");
    refuses((o = d, o.rate_spread = 0.5, o), "factor 0.5");
    refuses((o = d, o.rate_spread = 1e5, o.active = 50, o), "the greatest rate is");
    refuses((o = d, o.correlated = 1.5, o), "share 1.5 of correlated");
    refuses((o = d, o.weak_ratio = 0, o.n_models = 2, o), "weak ratio 0");
    refuses((o = d, o.weak_ratio = 0.5, o), "weak ratio 0.5 with 1 model");
    refuses((o = d, o.alone = 1.5, o.n_models = 2, o), "share 1.5 active alone");
    refuses((o = d, o.alone = 0.5, o), "share 0.5 active alone with 1 model");
    refuses((o = d, o.aligned = true, o), "aligned with 1 model");
    refuses((o = d, o.d_model = 0, o), "d_model 0");
    refuses((o = d, o.n_sites = 1000, o), "1000 sites");
    refuses((o = d, o.n_sites = 512, o.d_model = 1 << 20, o), "larger than a chunk");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pure_function_of_sequence),
        cmocka_unit_test(truth_file),
        cmocka_unit_test(sparsity),
        cmocka_unit_test(rates_and_pairs),
        cmocka_unit_test(aligned_and_weak),
        cmocka_unit_test(alone),
        cmocka_unit_test(noise),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
