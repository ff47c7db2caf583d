/* The safetensors reader and writer: what is written is read back, and every malformed file is refused by name. */
#include "safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "mem.h"
#include "scratch.h"

/* A file of this header and data_size bytes of data (data NULL: zeros). */
static const char *write_file(const char *header, const void *data, size_t data_size)
{
    static unsigned char bytes[65536];
    size_t n = strlen(header);
    memset(bytes, 0, sizeof bytes);
    bytes[0] = (unsigned char)n;
    bytes[1] = (unsigned char)(n >> 8);
    memcpy(bytes + 8, header, n);
    if (data)
        memcpy(bytes + 8 + n, data, data_size);
    return scratch_write("file.safetensors", bytes, 8 + n + data_size);
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("message \"%s\" lacks \"%s\"", text, part);
}

static void refuses_path(const char *path, const char *part)
{
    struct safetensors s;
    struct err e = {0};
    assert_true(safetensors_open(&s, path, &e) < 0);
    assert_contains(e.message, part);
    assert_null(s.map.data);
    safetensors_close(&s);
}

static void refuses(const char *header, size_t data_size, const char *part)
{
    refuses_path(write_file(header, NULL, data_size), part);
}

static void round_trip(void **state)
{
    (void)state;
    const float w[6] = {1, -2, 3.5f, 0, 1e-30f, -1e30f};
    const int32_t kind[2] = {7, -1};
    const float scalar = 42;
    const struct tensor_spec specs[] = {{"w", TENSOR_F32, 2, {2, 3}},
                                        {"kind", TENSOR_I32, 1, {2}},
                                        {"empty", TENSOR_BF16, 2, {0, 5}},
                                        {"scalar", TENSOR_F32, 0, {0}}};
    const char *metadata[] = {"seed", "17", "quote", "a \"b\" \\ \n"};
    const char *path = scratch_path("round.safetensors");
    struct safetensors_writer out;
    struct err e = {0};
    assert_int_equal(safetensors_write_begin(&out, path, specs, 4, metadata, 2, &e), 0);
    assert_int_equal(out.expected, 24 + 8 + 0 + 4);
    assert_int_equal(safetensors_write_data(&out, w, 10, &e), 0);
    assert_int_equal(safetensors_write_data(&out, (const char *)w + 10, 14, &e), 0);
    assert_int_equal(safetensors_write_data(&out, kind, sizeof kind, &e), 0);
    assert_int_equal(safetensors_write_data(&out, &scalar, 4, &e), 0);
    assert_int_equal(access(path, F_OK), -1); /* nothing there before the commit */
    assert_int_equal(safetensors_write_commit(&out, &e), 0);
    safetensors_write_abandon(&out);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(scratch_count(".tmp."), 0);

    struct safetensors s;
    assert_int_equal(safetensors_open(&s, path, &e), 0);
    assert_int_equal(s.n_tensors, 4);
    assert_string_equal(safetensors_metadata(&s, "seed"), "17");
    assert_string_equal(safetensors_metadata(&s, "quote"), "a \"b\" \\ \n");
    assert_null(safetensors_metadata(&s, "absent"));
    assert_null(safetensors_find(&s, "absent"));
    const struct tensor_view *t = safetensors_require(&s, "w", 2, (size_t[]){2, 3}, &e);
    assert_non_null(t);
    assert_int_equal((size_t)(t->data - s.map.data) % 8, 0);
    float got[6];
    assert_int_equal(tensor_to_f32(&s, t, got, &e), 0);
    assert_memory_equal(got, w, sizeof w);
    assert_null(safetensors_require(&s, "w", 2, (size_t[]){3, 2}, &e));
    assert_contains(e.message, "tensor w has shape [2, 3], expected [3, 2]");
    assert_null(safetensors_require(&s, "v", 0, NULL, &e));
    assert_contains(e.message, "no tensor v");
    t = safetensors_find(&s, "kind");
    assert_memory_equal(t->data, kind, sizeof kind);
    assert_int_equal(t->dtype, TENSOR_I32);
    assert_int_equal(tensor_to_f32(&s, t, got, &e), ERR_INPUT);
    assert_contains(e.message, "tensor kind is I32");
    t = safetensors_find(&s, "empty");
    assert_int_equal(t->bytes, 0);
    assert_int_equal(tensor_to_f32(&s, t, got, &e), 0);
    t = safetensors_require(&s, "scalar", 0, NULL, &e);
    assert_int_equal(tensor_to_f32(&s, t, got, &e), 0);
    assert_true(got[0] == 42);
    safetensors_close(&s);
    safetensors_close(&s);
}

static void converts(void **state)
{
    (void)state;
    const uint16_t half[4] = {0x3c00, 0xc000, 0x0001, 0x7bff}, brain[3] = {0x3f80, 0xc040, 0x0001};
    const double d[2] = {0.1, -1e-300};
    unsigned char data[30];
    memcpy(data, half, 8); /* then bf16 at 8, f64 at 14: not aligned */
    memcpy(data + 8, brain, 6);
    memcpy(data + 14, d, 16);
    const char *path = write_file("{\"h\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]},"
                                  "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[8,14]},"
                                  "\"d\":{\"dtype\":\"F64\",\"shape\":[1,2],\"data_offsets\":[14,30]}}  ",
                                  data, sizeof data);
    struct safetensors s;
    struct err e = {0};
    float x[4];
    assert_int_equal(safetensors_open(&s, path, &e), 0);
    assert_int_equal(tensor_to_f32(&s, safetensors_find(&s, "h"), x, &e), 0);
    assert_true(x[0] == 1 && x[1] == -2 && x[2] == 0x1p-24f && x[3] == 65504);
    assert_int_equal(tensor_to_f32(&s, safetensors_find(&s, "b"), x, &e), 0);
    assert_true(x[0] == 1 && x[1] == -3 && x[2] == 0x1p-133f);
    assert_int_equal(tensor_to_f32(&s, safetensors_find(&s, "d"), x, &e), 0);
    assert_true(x[0] == 0.1f && x[1] == 0 && signbit(x[1]));
    safetensors_close(&s);
}

/* NaN and Inf are refused with the tensor and the flat index: the first one, also far into a long tensor. */
static void refuses_not_finite(void **state)
{
    (void)state;
    struct safetensors s;
    struct err e = {0};
    float x[4] = {1, 2, INFINITY, NAN};
    assert_int_equal(
        safetensors_open(&s, write_file("{\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", x, 16),
                         &e),
        0);
    assert_int_equal(tensor_to_f32(&s, safetensors_find(&s, "w"), x, &e), ERR_INPUT);
    assert_contains(e.message, "tensor w: element 2 is inf");
    safetensors_close(&s);

    const double large[2] = {1, 1e39}; /* finite, but not in float32 */
    assert_int_equal(
        safetensors_open(&s, write_file("{\"w\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,16]}}", large, 16),
                         &e),
        0);
    assert_int_equal(tensor_to_f32(&s, safetensors_find(&s, "w"), x, &e), ERR_INPUT);
    assert_contains(e.message, "element 1 is inf");
    safetensors_close(&s);

    enum { N = 300000 };
    float *many = calloc(N, sizeof *many);
    many[200001] = NAN;
    many[299999] = NAN;
    struct safetensors_writer out;
    const struct tensor_spec spec = {"long", TENSOR_F32, 1, {N}};
    const char *path = scratch_path("nan.safetensors");
    assert_int_equal(safetensors_write_begin(&out, path, &spec, 1, NULL, 0, &e), 0);
    assert_int_equal(safetensors_write_data(&out, many, N * sizeof *many, &e), 0);
    assert_int_equal(safetensors_write_commit(&out, &e), 0);
    assert_int_equal(safetensors_open(&s, path, &e), 0);
    assert_int_equal(tensor_to_f32(&s, safetensors_find(&s, "long"), many, &e), ERR_INPUT);
    assert_contains(e.message, "tensor long: element 200001 is");
    safetensors_close(&s);
    free(many);
}

static void refuses_bad_files(void **state)
{
    (void)state;
    refuses_path(scratch_path("absent"), "cannot open");
    refuses_path("/tmp", "not a regular file");
    refuses_path(scratch_write("x", "", 0), "0 bytes, too short");
    refuses_path(scratch_write("x", "\x02\0\0\0\0\0\0", 7), "7 bytes, too short");
    refuses_path(scratch_write("x", "\x28\xb5\x2f\xfd.......", 11), "not a safetensors file but zstd");
    refuses_path(scratch_write("x", "PK\x03\x04............", 16), "not a safetensors file but a zip archive");
    refuses_path(scratch_write("x", "\x03\0\0\0\0\0\0\0{}", 10), "header of 3 bytes, but only 2 follow");
    refuses_path(scratch_write("x", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10),
                 "18446744073709551615 bytes, at most 100000000");
    refuses_path(scratch_write("x", "\x01\xe1\xf5\x05\0\0\0\0{}", 10), "100000001 bytes, at most 100000000");
    refuses("{", 0, "not JSON");
    refuses("", 0, "not JSON");
    refuses("[]", 0, "not an object");
    refuses("{} x", 0, "not JSON");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
            "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
            0, "duplicate");
    refuses("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
    refuses("{\"__metadata__\":{\"k\":1}}", 0, "__metadata__ k is not a string");
    refuses("{}", 1, "tensors end at byte 0 of the data, the file has 1");
}

static void refuses_bad_tensors(void **state)
{
    (void)state;
    refuses("{\"a\":3}", 0, "tensor a: needs dtype");
    refuses("{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "tensor a: needs dtype");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1, "tensor a: needs dtype");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "tensor a: needs dtype");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", 1, "tensor a: needs dtype");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1.0]}}", 1, "tensor a: needs dtype");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,-1],\"data_offsets\":[0,1]}}", 1, "dimension 1 of its shape");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
            "9 dimensions, at most 8");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "[1, 0] outside the 1 bytes");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "[0, 8] outside the 7 bytes");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,4]}}", 4, "F32 [2, 1] takes 8 bytes");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0, "overflows");
    refuses("{\"a\":{\"dtype\":\"F64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, "overflows");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]}}", 0, "not JSON");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
            3, "tensor b begins at byte 1 of the data, but tensor a ends at 2 (they overlap)");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
            3, "tensor b begins at byte 2 of the data, but tensor a ends at 1 (a gap)");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "(a gap)");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2,
            "end at byte 1 of the data, the file has 2");
}

/* Real checkpoints carry masks as BOOL, and newer dtypes: no harm until somebody wants their numbers. */
static void other_dtypes_lie_quietly(void **state)
{
    (void)state;
    struct safetensors s;
    struct err e = {0};
    float x[4];
    const char *path = write_file("{\"mask\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[0,2]},"
                                  "\"tiny\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],\"data_offsets\":[2,5]},"
                                  "\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[5,9]}}",
                                  NULL, 9);
    assert_int_equal(safetensors_open(&s, path, &e), 0);
    assert_int_equal(tensor_to_f32(&s, safetensors_find(&s, "w"), x, &e), 0);
    assert_int_equal(tensor_to_f32(&s, safetensors_find(&s, "tiny"), x, &e), ERR_INPUT);
    assert_contains(e.message, "tensor tiny is F8_E4M3");
    assert_int_equal(tensor_to_f32(&s, safetensors_find(&s, "mask"), x, &e), ERR_INPUT);
    safetensors_close(&s);
    assert_int_equal(safetensors_open(&s, write_file("{\"__metadata__\":{}}", NULL, 0), &e), 0);
    assert_null(safetensors_find(&s, "w"));
    safetensors_close(&s);
}

static void writer_refuses(void **state)
{
    (void)state;
    struct safetensors_writer out;
    struct err e = {0};
    const struct tensor_spec one = {"w", TENSOR_F32, 1, {2}};
    const struct tensor_spec twice[] = {{"w", TENSOR_F32, 1, {2}}, {"w", TENSOR_F32, 1, {2}}};
    const struct tensor_spec huge = {"w", TENSOR_F32, 2, {SIZE_MAX / 2, 2}};
    const float data[3] = {0};
    const char *path = scratch_path("out.safetensors");

    assert_int_equal(safetensors_write_begin(&out, path, twice, 2, NULL, 0, &e), ERR_INPUT);
    assert_int_equal(safetensors_write_begin(&out, path, &huge, 1, NULL, 0, &e), ERR_MEMORY);
    assert_int_equal(safetensors_write_begin(&out, scratch_path("no/folder"), &one, 1, NULL, 0, &e), ERR_SYSTEM);
    safetensors_write_abandon(&out);

    assert_int_equal(safetensors_write_begin(&out, path, &one, 1, NULL, 0, &e), 0);
    assert_int_equal(scratch_count("out.safetensors.tmp."), 1);
    assert_int_equal(safetensors_write_data(&out, data, 12, &e), ERR_INPUT);
    assert_contains(e.message, "8 bytes of tensors declared, 4 more than that");
    safetensors_write_abandon(&out);
    assert_int_equal(scratch_count("out.safetensors"), 0);

    assert_int_equal(safetensors_write_begin(&out, path, &one, 1, NULL, 0, &e), 0);
    assert_int_equal(safetensors_write_data(&out, data, 4, &e), 0);
    assert_int_equal(safetensors_write_commit(&out, &e), ERR_INPUT);
    assert_contains(e.message, "8 bytes of tensors declared, 4 written");
    assert_int_equal(scratch_count("out.safetensors"), 0);

    /* A full disk: the old file stays, the temporary goes. */
    scratch_write("out.safetensors", "old", 3);
    assert_int_equal(safetensors_write_begin(&out, path, &one, 1, NULL, 0, &e), 0);
    out.out.f = freopen("/dev/full", "wb", out.out.f);
    assert_non_null(out.out.f);
    assert_int_equal(safetensors_write_data(&out, data, 8, &e), 0);
    assert_int_equal(safetensors_write_commit(&out, &e), ERR_SYSTEM);
    assert_contains(e.message, "No space left");
    assert_int_equal(scratch_count("out.safetensors"), 1);
    char *text;
    size_t size;
    assert_int_equal(file_read_text(path, 10, &text, &size, &e), 0);
    assert_string_equal(text, "old");
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),          cmocka_unit_test(converts),
        cmocka_unit_test(refuses_not_finite),  cmocka_unit_test(refuses_bad_files),
        cmocka_unit_test(refuses_bad_tensors), cmocka_unit_test(other_dtypes_lie_quietly),
        cmocka_unit_test(writer_refuses),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
