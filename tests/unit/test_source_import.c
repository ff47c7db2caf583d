/* test_source_import.c - somebody else's caches: every layout and dtype gives the rows that rows_put gives of the same
 * floats. */
#include "source_import.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "bf16.h"
#include "safetensors.h"
#include "scratch.h"

enum { ROWS = 24, SITES = 3, D = 6 };

static const float scale[SITES] = {0.37f, 1.0f, 2.9f};

/* Small whole numbers and halves: exact in every dtype. */
static float value(size_t row, size_t site, size_t k)
{
    return (float)((row * 31 + site * 17 + k * 5) % 97) / 2 - 20;
}

enum kind { F32, F16, U16, I16 };

static void put(unsigned char *dst, enum kind kind, float x)
{
    if (kind == F32) {
        memcpy(dst, &x, 4);
        return;
    }
    uint16_t h = bf16_from_f32(x);
    if (kind == F16) { /* of a whole number of halves that is small */
        int exponent;
        float m = frexpf(fabsf(x), &exponent); /* x = m * 2^exponent, m in [0.5, 1) */
        unsigned bits = (unsigned)(exponent + 14) << 10 | (unsigned)((m * 2 - 1) * 1024) | (x < 0 ? 0x8000u : 0);
        h = x == 0 ? (uint16_t)0 : (uint16_t)bits;
    }
    memcpy(dst, &h, 2);
}

static const char *write_npy(const char *name, const char *descr, const char *shape, const void *data, size_t bytes)
{
    static unsigned char file[1 << 16];
    char header[192];
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, shape);
    memcpy(file, "\x93NUMPY\x01\x00\xb6\x00", 10); /* a header of 182 bytes */
    memset(file + 10, ' ', 182);
    memcpy(file + 10, header, strlen(header));
    file[191] = '\n';
    memcpy(file + 192, data, bytes);
    return scratch_write(name, file, 192 + bytes);
}

/* Sites begin .. begin + n - 1 as one array. */
static const char *make_npy(const char *name, enum kind kind, size_t begin, size_t n, const char *shape)
{
    static const char *const descr[] = {"<f4", "<f2", "<u2", "<i2"};
    static unsigned char data[ROWS * SITES * D * 4];
    size_t width = kind == F32 ? 4 : 2, at = 0;
    for (size_t row = 0; row < ROWS; row++)
        for (size_t site = begin; site < begin + n; site++)
            for (size_t k = 0; k < D; k++, at += width)
                put(data + at, kind, value(row, site, k));
    return write_npy(name, descr[kind], shape, data, at);
}

static void must_open(struct source *s, const struct import_options *o)
{
    struct err e = {0};
    if (source_import_open(s, o, &e))
        fail_msg("%s", e.message);
}

static void refuses(const struct import_options *o, const char *part)
{
    struct source s;
    struct err e = {0};
    if (source_import_open(&s, o, &e) == 0)
        fail_msg("opened, should say '%s'", part);
    if (!strstr(e.message, part) || strchr(e.message, '\n'))
        fail_msg("'%s' does not say '%s'", e.message, part);
}

/* Every row, raw and scaled, in both dtypes, has the bits of rows_put. */
static void check_rows(const struct import_options *o, uint32_t seq_len)
{
    struct source s;
    struct rows got, expected;
    struct err e = {0};
    must_open(&s, o);
    assert_int_equal(s.stream.n_sites, SITES);
    assert_int_equal(s.stream.d_model, D);
    assert_int_equal(s.stream.seq_len, seq_len);
    assert_int_equal(s.stream.rows_per_seq, seq_len);
    assert_int_equal(s.stream.n_seq, ROWS / seq_len);
    assert_false(s.stream.has_scale);
    assert_true(s.stream.can_bf16 && s.stream.can_f32);
    assert_int_equal(rows_init(&got, &s.stream, ROWS, &e), 0);
    assert_int_equal(rows_init(&expected, &s.stream, ROWS, &e), 0);
    for (int mode = 0; mode < 3; mode++) {
        enum row_dtype dtype = mode == 2 ? ROW_BF16 : ROW_F32;
        uint32_t first = mode == 1 ? 0 : 1, n = s.stream.n_seq - first;
        size_t n_rows = n * seq_len;
        rows_begin(&got, &s.stream, n_rows, dtype, mode ? scale : NULL);
        rows_begin(&expected, &s.stream, n_rows, dtype, mode ? scale : NULL);
        for (size_t i = 0; i < n_rows; i++)
            for (size_t site = 0; site < SITES; site++) {
                float v[D];
                for (size_t k = 0; k < D; k++)
                    v[k] = value(first * seq_len + i, site, k);
                rows_put(&expected, i, site, v);
            }
        if (s.compute(s.self, first, n, &got, &e))
            fail_msg("%s", e.message);
        assert_memory_equal(got.acts, expected.acts, n_rows * stream_row_bytes(&s.stream, dtype));
        for (size_t i = 0; i < n_rows; i++) {
            assert_int_equal(got.origins[i].sequence, first + i / seq_len);
            assert_int_equal(got.origins[i].position, i % seq_len);
            assert_int_equal(got.origins[i].token, 0);
        }
    }
    rows_release(&got);
    rows_release(&expected);
    s.close(s.self);
}

static void npy_stacked(void **state)
{
    (void)state;
    for (enum kind kind = F32; kind <= I16; kind++) {
        const char *file = make_npy("acts.npy", kind, 0, SITES, "24, 3, 6");
        check_rows(&(struct import_options){.files = &file, .n_files = 1, .npy_bf16 = kind >= U16}, 1);
        check_rows(&(struct import_options){.files = &file, .n_files = 1, .npy_bf16 = kind >= U16, .seq_len = 8}, 8);
    }
}

/* One file a site, of any dtype each, named after the files, in the order of sites whatever a shell's glob makes of it. */
static void npy_per_site(void **state)
{
    (void)state;
    const char *files[SITES] = {make_npy("layer_10", F16, 2, 1, "24, 6"), make_npy("layer_2.npy", F32, 0, 1, "24, 6"),
                                make_npy("layer_9.npy", U16, 1, 1, "24, 6")};
    struct import_options o = {.files = files, .n_files = SITES, .npy_bf16 = true, .seq_len = 4};
    check_rows(&o, 4);
    struct source s;
    must_open(&s, &o);
    assert_string_equal(s.stream.sites[0], "layer_2");
    assert_string_equal(s.stream.sites[2], "layer_10");
    s.close(s.self);
}

/* Names that say of which model they are make a stream of several models, of which the cache is the fingerprint. */
static void names_of_models(void **state)
{
    (void)state;
    static const struct {
        const char *names[2];
        uint32_t n_models; /* 0: refused */
    } cases[] = {{{"a.npy", "b.npy"}, 1},       {{"0:a.npy", "1:a.npy"}, 2}, {{"0:a.npy", "0:b.npy"}, 2},
                 {{"0-4:a.npy", "0:a.npy"}, 5}, {{"0:a.npy", "b.npy"}, 0},   {{"0:a.npy", "8:a.npy"}, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *files[] = {make_npy(cases[i].names[0], F32, 0, 1, "24, 6"),
                               make_npy(cases[i].names[1], F32, 1, 1, "24, 6")};
        struct import_options o = {.files = files, .n_files = 2};
        struct source s;
        if (!cases[i].n_models) {
            refuses(&o, i == 4 ? "site 1 (b) names no model, but there are 2" : "9 models, at most 8");
            continue;
        }
        must_open(&s, &o);
        assert_int_equal(s.stream.n_models, cases[i].n_models);
        for (uint32_t m = 0; m < s.stream.n_models; m++)
            assert_string_equal(s.stream.model_fingerprints[m], s.stream.model_fingerprints[0]);
        assert_int_equal(strlen(s.stream.model_fingerprints[0]), FINGERPRINT_SIZE - 1);
        s.close(s.self);
    }
}

static void npy_refused(void **state)
{
    (void)state;
    const char *files[2] = {make_npy("a.npy", F32, 0, 1, "24, 6"), make_npy("b.npy", F32, 0, 1, "12, 12")};
    struct import_options o = {.files = files, .n_files = 2};
    refuses(&o, "12 rows of d_model 12, the first tensor has 24 of 6");
    o.n_files = 1;
    o.seq_len = 7;
    refuses(&o, "24 rows are not a multiple of seq_len 7");
    o.seq_len = 0;
    files[0] = make_npy("u.npy", U16, 0, 1, "24, 6");
    refuses(&o, "--npy-dtype bf16");
    o.npy_bf16 = true;
    files[0] = make_npy("f.npy", F32, 0, 1, "24, 6");
    refuses(&o, "f.npy: --npy-dtype bf16 is for 16-bit integers, it has none");
    o.npy_bf16 = false;
    files[0] = make_npy("one.npy", F32, 0, 1, "144,");
    refuses(&o, "1 dimensions");
    files[0] = make_npy("four.npy", F32, 0, 1, "2, 12, 2, 3");
    refuses(&o, "4 dimensions");
    files[0] = make_npy("stacked.npy", F32, 0, SITES, "24, 3, 6");
    files[1] = make_npy("b.npy", F32, 0, 1, "24, 6");
    o.n_files = 2;
    refuses(&o, "3 dimensions");
    files[0] = make_npy("b.npy", F32, 0, 1, "24, 6");
    refuses(&o, "site b is in ");
    files[0] = write_npy("none.npy", "<f4", "0, 6", "", 0);
    o.n_files = 1;
    refuses(&o, "0 rows");
    files[0] = write_npy("double.npy", "<f8", "1, 1", "12345678", 8);
    refuses(&o, "dtype float64");
    files[0] = make_npy("a b.npy", F32, 0, 1, "24, 6");
    refuses(&o, "printable ASCII");
    files[0] = scratch_path("nowhere.npy");
    refuses(&o, "nowhere.npy");
    o.n_files = 0;
    refuses(&o, "no file");
}

/* The lease that meets it fails with the row and site; others do not. */
static void not_finite(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        static float data[ROWS * D];
        memset(data, 0, sizeof data);
        data[13 * D + 4] = bad[i];
        const char *file = write_npy("bad.npy", "<f4", "24, 6", data, sizeof data);
        struct import_options o = {.files = &file, .n_files = 1, .seq_len = 4};
        struct source s;
        struct rows rows;
        struct err e = {0};
        must_open(&s, &o);
        assert_int_equal(rows_init(&rows, &s.stream, 4, &e), 0);
        for (uint32_t seq = 0; seq < 6; seq++) {
            rows_begin(&rows, &s.stream, 4, ROW_BF16, scale);
            assert_int_equal(s.compute(s.self, seq, 1, &rows, &e), seq == 3 ? ERR_INPUT : 0);
        }
        if (!strstr(e.message, "row 13, bad: value 4 is"))
            fail_msg("%s", e.message);
        rows_release(&rows);
        s.close(s.self);
    }
}

/* The same shape, dtype and so on, another value: another fingerprint. */
static void fingerprint(void **state)
{
    (void)state;
    const char *file = make_npy("acts.npy", F32, 0, SITES, "24, 3, 6");
    struct import_options o = {.files = &file, .n_files = 1};
    struct source a, b;
    must_open(&a, &o);
    must_open(&b, &o);
    assert_string_equal(a.stream.model_fingerprints[0], b.stream.model_fingerprints[0]);
    b.close(b.self);
    static float data[ROWS * SITES * D];
    data[100] = 1;
    file = write_npy("acts.npy", "<f4", "24, 3, 6", data, sizeof data);
    must_open(&b, &o);
    assert_string_not_equal(a.stream.model_fingerprints[0], b.stream.model_fingerprints[0]);
    a.close(a.self);
    b.close(b.self);
}

/* ---- safetensors ---- */

static const char *make_tensors(const char *name, const struct tensor_spec *specs, const size_t *sites, size_t n)
{
    const char *path = scratch_path(name);
    struct safetensors_writer w;
    struct err e = {0};
    assert_int_equal(safetensors_write_begin(&w, path, specs, n, NULL, 0, &e), 0);
    for (size_t i = 0; i < n; i++)
        for (size_t row = 0; row < ROWS; row++)
            for (size_t k = 0; k < D; k++) {
                unsigned char x[8] = {0};
                enum kind kind = specs[i].dtype == TENSOR_F16 ? F16 : specs[i].dtype == TENSOR_BF16 ? U16 : F32;
                put(x, kind, value(row, sites[i], k));
                assert_int_equal(safetensors_write_data(&w, x, tensor_dtype_size(specs[i].dtype), &e), 0);
            }
    assert_int_equal(safetensors_write_commit(&w, &e), 0);
    return path;
}

/* In the order of a live run, whatever files they are in: numbers are numbers. */
static void safetensors_in_site_order(void **state)
{
    (void)state;
    const struct tensor_spec z[] = {{"h.2", TENSOR_BF16, 2, {ROWS, D}}},
                             a[] = {{"h.10", TENSOR_F32, 2, {ROWS, D}}, {"h.0", TENSOR_F16, 2, {ROWS, D}}};
    const char *files[] = {make_tensors("a.safetensors", a, (size_t[]){2, 0}, 2),
                           make_tensors("z.safetensors", z, (size_t[]){1}, 1)};
    struct import_options o = {.files = files, .n_files = 2, .safetensors = true};
    check_rows(&o, 1);
    o.seq_len = 6;
    check_rows(&o, 6);
    struct source s;
    must_open(&s, &o);
    for (int i = 0; i < SITES; i++)
        assert_string_equal(s.stream.sites[i], ((const char *[]){"h.0", "h.2", "h.10"})[i]);
    s.close(s.self);
}

static void safetensors_of_sequences(void **state)
{
    (void)state;
    const struct tensor_spec specs[] = {
        {"h.0", TENSOR_F32, 3, {3, 8, D}}, {"h.1", TENSOR_F32, 2, {ROWS, D}}, {"h.2", TENSOR_BF16, 3, {3, 8, D}}};
    const char *file = make_tensors("seq.safetensors", specs, (size_t[]){0, 1, 2}, 3);
    struct import_options o = {.files = &file, .n_files = 1, .safetensors = true};
    check_rows(&o, 8);
    o.seq_len = 8;
    check_rows(&o, 8);
    o.seq_len = 4;
    refuses(&o, "--seq-len 4, the tensors have sequences of 8");
}

static void safetensors_refused(void **state)
{
    (void)state;
    struct tensor_spec specs[] = {{"h.0", TENSOR_F32, 3, {3, 8, D}}, {"h.1", TENSOR_F32, 3, {4, 6, D}}};
    const size_t sites[] = {0, 1};
    const char *files[2] = {make_tensors("bad.safetensors", specs, sites, 2)};
    struct import_options o = {.files = files, .n_files = 1, .safetensors = true};
    refuses(&o, "h.1 has sequences of 6, the tensors before of 8");
    specs[1] = (struct tensor_spec){"h.1", TENSOR_F32, 2, {D, ROWS}};
    files[0] = make_tensors("bad.safetensors", specs, sites, 2);
    refuses(&o, "h.1 has 6 rows of d_model 24, the first tensor has 24 of 6");
    specs[1] = (struct tensor_spec){"h.1", TENSOR_F64, 2, {ROWS, D}};
    files[0] = make_tensors("bad.safetensors", specs, sites, 2);
    refuses(&o, "h.1 is F64, must be F32, F16 or BF16");
    specs[1] = (struct tensor_spec){"h.1", TENSOR_F32, 1, {ROWS * D}};
    files[0] = make_tensors("bad.safetensors", specs, sites, 2);
    refuses(&o, "h.1 has 1 dimensions");
    files[0] = make_tensors("one.safetensors", specs, sites, 1);
    files[1] = make_tensors("two.safetensors", specs, sites, 1);
    o.n_files = 2;
    refuses(&o, "site h.0 is in ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_stacked),
        cmocka_unit_test(npy_per_site),
        cmocka_unit_test(names_of_models),
        cmocka_unit_test(npy_refused),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(fingerprint),
        cmocka_unit_test(safetensors_in_site_order),
        cmocka_unit_test(safetensors_of_sequences),
        cmocka_unit_test(safetensors_refused),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
