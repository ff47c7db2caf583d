/* test_scale.c - the scale as defined, and the trainer's own scaling bit for bit the producers'. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "rng.h"
#include "rows.h"
#include "scale.h"

static struct stream stream_of(uint32_t n_sites, uint32_t d_model)
{
    struct stream s = {.n_sites = n_sites, .d_model = d_model, .seq_len = 2, .rows_per_seq = 1, .n_seq = 1000};
    for (uint32_t i = 0; i < n_sites; i++)
        strcpy(s.sites[i], "site");
    return s;
}

/* The scale of rows [n_rows, n_sites, d_model], handed over unaligned and in two pieces. */
static int measure(const float *rows, size_t n_rows, const struct stream *s, float *scale, struct err *e)
{
    struct scale_sums sums = {0};
    size_t bytes = n_rows * stream_row_bytes(s, ROW_F32), first = n_rows / 3;
    unsigned char *copy = malloc(bytes + 1);
    memcpy(copy + 1, rows, bytes);
    scale_add(&sums, copy + 1, NULL, first, s);
    scale_add(&sums, copy + 1 + first * stream_row_bytes(s, ROW_F32), NULL, n_rows - first, s);
    free(copy);
    assert_int_equal(sums.rows, n_rows);
    return scale_finish(&sums, s, scale, e);
}

/* Rows whose norms are known: scale = sqrt(d_model) / mean norm. */
static void definition(void **state)
{
    (void)state;
    struct stream s = stream_of(2, 4);
    const float rows[3][2][4] = {
        {{3, 4, 0, 0}, {1, 1, 1, 1}},   /* norms 5 and 2 */
        {{0, 0, 0, -7}, {0, 0, 0, 0}},  /* 7 and 0 */
        {{2, -2, 2, 2}, {5, 5, -5, 5}}, /* 4 and 10 */
    };
    float scale[2];
    struct err e = {0};
    assert_int_equal(measure(&rows[0][0][0], 3, &s, scale, &e), 0);
    assert_true(scale[0] == (float)(2 / (16.0 / 3)));
    assert_true(scale[1] == (float)(2 / 4.0));
}

/* Rows whose variances are known, a masked one among them; the target is a factor. */
static void modes(void **state)
{
    (void)state;
    struct stream s = stream_of(2, 2);
    const float rows[5][2][2] = {
        {{1, 10}, {7, 0}}, {{3, 10}, {7, 2}}, {{1e9f, -5}, {9, 9}}, {{1, 16}, {7, 0}}, {{3, 16}, {7, 2}},
    };
    const struct row_origin origins[5] = {{0, 0, 1}, {0, 1, 1}, {0, 2, ROW_MASKED}, {0, 3, 1}, {0, 4, 1}};
    float scale[2], twice[2], same[2];
    struct err e = {0};
    assert_int_equal(scale_measure(SCALE_TOTAL_STD, 1, &rows[0][0][0], origins, 5, &s, scale, &e), 0);
    assert_true(fabs((double)scale[0] - 1 / sqrt(1 + 9)) < 1e-7); /* variances 1 and 9 */
    assert_true(scale[1] == 1);                                   /* 0 and 1 */
    assert_int_equal(scale_measure(SCALE_TOTAL_STD, 100, &rows[0][0][0], origins, 5, &s, twice, &e), 0);
    assert_true(twice[0] == (float)(100 * (double)scale[0]) && twice[1] == 100);

    struct scale_sums sums = {0};
    scale_add(&sums, (const unsigned char *)rows, origins, 5, &s);
    assert_int_equal(scale_finish(&sums, &s, same, &e), 0);
    assert_int_equal(scale_measure(SCALE_MEAN_NORM, 1, &rows[0][0][0], origins, 5, &s, scale, &e), 0);
    assert_memory_equal(scale, same, sizeof same);
    assert_int_equal(scale_measure(SCALE_MEAN_NORM, 2, &rows[0][0][0], origins, 5, &s, twice, &e), 0);
    assert_true(twice[0] == 2 * scale[0] && twice[1] == 2 * scale[1]);

    assert_int_equal(scale_measure(SCALE_TOTAL_STD, 1, &rows[0][0][0], origins, 1, &s, scale, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "site 0"));
    for (enum scale_mode mode = SCALE_MEAN_NORM; mode <= SCALE_TOTAL_STD; mode++) {
        assert_int_equal(scale_measure(mode, 1, &rows[2][0][0], origins + 2, 1, &s, scale, &e), ERR_INPUT);
        assert_non_null(strstr(e.message, "masked"));
    }
    assert_int_equal(scale_measure(SCALE_MEAN_NORM, 1e300, &rows[0][0][0], origins, 5, &s, scale, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "1e+300"));
}

/* The mean norm of the scaled rows is sqrt(d_model), site by site, however different the sites are. */
static void scaled_rows_have_the_norm(void **state)
{
    (void)state;
    enum { ROWS = 500, SITES = 3, D = 33 };
    struct stream s = stream_of(SITES, D);
    float *rows = malloc(sizeof(float[ROWS][SITES][D])), scale[SITES];
    struct rng r;
    rng_init(&r, 4, RNG_TEST, 0);
    for (size_t i = 0; i < ROWS * SITES * D; i++)
        rows[i] = (float)(rng_normal(&r) * pow(100, (double)(i / D % SITES)) + 0.5);
    assert_int_equal(measure(rows, ROWS, &s, scale, NULL), 0);
    for (size_t site = 0; site < SITES; site++) {
        double sum = 0;
        for (size_t i = 0; i < ROWS; i++) {
            double norm2 = 0;
            for (size_t k = 0; k < D; k++)
                norm2 += pow((double)rows[(i * SITES + site) * D + k] * (double)scale[site], 2);
            sum += sqrt(norm2);
        }
        assert_true(fabs(sum / ROWS / sqrt(D) - 1) < 1e-6);
    }
    free(rows);
}

static void no_scale(void **state)
{
    (void)state;
    struct stream s = stream_of(2, 2);
    strcpy(s.sites[1], "blocks.1.hook_mlp_out");
    float scale[2];
    struct err e = {0};
    const float zero[2][2][2] = {{{1, 1}, {0, 0}}, {{1, 2}, {0, -0.0f}}};
    assert_int_equal(measure(&zero[0][0][0], 2, &s, scale, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "site 1 (blocks.1.hook_mlp_out): mean norm 0 over 2 rows"));
    const float large[2][2] = {{FLT_MAX, FLT_MAX}, {1, 1}}; /* squares beyond fp32, a scale still */
    assert_int_equal(measure(&large[0][0], 1, &s, scale, &e), 0);
    assert_true(scale[0] > 0);
    const float tiny[2][2] = {{FLT_TRUE_MIN, 0}, {1, 1}}; /* the scale would be infinite in fp32 */
    assert_int_equal(measure(&tiny[0][0], 1, &s, scale, &e), ERR_INPUT);
    assert_int_equal(measure(&tiny[0][0], 0, &s, scale, &e), ERR_INPUT);
}

/* Every bit pattern of the upper half of a float, and random ones, through both programs' code. */
static void same_bits_as_a_producer(void **state)
{
    (void)state;
    enum { SITES = 3, D = 64, ROWS = 700 };
    struct stream s = stream_of(SITES, D);
    const float scale[SITES] = {1.0f, 0.3333333f, 57.25f};
    float *x = malloc(sizeof(float[ROWS][SITES][D]));
    unsigned char *dst = malloc(sizeof(float[ROWS][SITES][D]) + 1);
    struct rng r;
    struct rows rows;
    rng_init(&r, 5, RNG_TEST, 0);
    for (uint32_t i = 0; i < ROWS * SITES * D; i++) {
        uint32_t u = i < 0x10000 ? i << 16 | (i % 3 == 0 ? 0x8000u : rng_u32(&r) & 0xffff) : rng_u32(&r);
        memcpy(x + i, &u, 4); /* NaN and infinity too: they are to be refused later, not to be changed here */
    }
    assert_int_equal(rows_init(&rows, &s, ROWS, NULL), 0);
    for (int dtype = ROW_BF16; dtype <= ROW_F32; dtype++) {
        rows_begin(&rows, &s, ROWS, (enum row_dtype)dtype, scale);
        for (size_t i = 0; i < ROWS; i++)
            for (size_t site = 0; site < SITES; site++)
                rows_put(&rows, i, site, x + (i * SITES + site) * D);
        scale_apply(x, ROWS, &s, scale, (enum row_dtype)dtype, dst + 1);
        assert_memory_equal(rows.data, dst + 1, ROWS * SITES * D * row_dtype_size((enum row_dtype)dtype));
    }
    for (size_t i = 0; i < ROWS * SITES * D; i++) /* a signalling NaN does not outlive the factor 1 */
        x[i] = isnan(x[i]) ? 0 : x[i];
    /* Raw rows are sent as they are: scaling them here gives what the producer would have sent scaled. */
    rows_begin(&rows, &s, ROWS, ROW_F32, NULL);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t site = 0; site < SITES; site++)
            rows_put(&rows, i, site, x + (i * SITES + site) * D);
    assert_memory_equal(rows.data, x, sizeof(float[ROWS][SITES][D]));
    rows_release(&rows);
    free(x);
    free(dst);
}

/* The chunks that a producer cuts are its rows, in order, with their origins. */
static void chunks_of_rows(void **state)
{
    (void)state;
    struct stream s = stream_of(1, 1u << 14); /* 32 KB a row in bf16, 64 KB in fp32 */
    struct rows rows;
    const struct row_origin *origins;
    size_t bytes, n;
    assert_int_equal(rows_init(&rows, &s, 11, NULL), 0);
    rows_begin(&rows, &s, 11, ROW_BF16, NULL);
    for (uint32_t i = 0; i < 11; i++)
        rows_put_origin(&rows, i, (struct row_origin){i, 1, 2});
    assert_int_equal(stream_chunk_count(&s, ROW_BF16, 11), 2);
    assert_ptr_equal(rows_chunk(&rows, 0, &bytes, &n, &origins), rows.data);
    assert_int_equal(n, 8);
    assert_int_equal(bytes, CHUNK_BYTES);
    assert_int_equal(origins[7].sequence, 7);
    assert_ptr_equal(rows_chunk(&rows, 1, &bytes, &n, &origins), rows.data + CHUNK_BYTES);
    assert_int_equal(n, 3);
    assert_int_equal(bytes, 3u << 15);
    assert_int_equal(origins[2].sequence, 10);
    rows_release(&rows);

    s = stream_of(1, 1u << 18); /* a row that is larger than a chunk should be is one */
    assert_int_equal(stream_chunk_rows(&s, ROW_BF16), 1);

    s = stream_of(1, 1); /* small rows: the header's origins bound the chunk */
    assert_int_equal(stream_chunk_rows(&s, ROW_BF16), CHUNK_MAX_ROWS);
    assert_int_equal(stream_chunk_count(&s, ROW_BF16, CHUNK_MAX_ROWS), 1);
    assert_int_equal(stream_chunk_count(&s, ROW_BF16, CHUNK_MAX_ROWS + 1), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(definition),
        cmocka_unit_test(modes),
        cmocka_unit_test(scaled_rows_have_the_norm),
        cmocka_unit_test(no_scale),
        cmocka_unit_test(same_bits_as_a_producer),
        cmocka_unit_test(chunks_of_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
