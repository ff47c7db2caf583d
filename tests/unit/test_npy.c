/* The .npy reader: what NumPy writes is read, and everything else is refused by name. tests/data/npy: files by NumPy.
 */
#include "npy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include "scratch.h"

/* A file of this version, header text and data_size zero bytes. */
static const char *write_file(int version, const char *header, size_t data_size)
{
    static unsigned char bytes[4096];
    size_t n = strlen(header), start = version == 1 ? 10 : 12;
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, "\x93NUMPY", 6);
    bytes[6] = (unsigned char)version;
    bytes[8] = (unsigned char)n;
    bytes[9] = (unsigned char)(n >> 8);
    memcpy(bytes + start, header, n);
    return scratch_write("file.npy", bytes, start + n + data_size);
}

static void refuses_path(const char *path, const char *part)
{
    struct npy n;
    struct err e = {0};
    assert_true(npy_open(&n, path, &e) < 0);
    if (!strstr(e.message, part))
        fail_msg("message \"%s\" lacks \"%s\"", e.message, part);
    assert_null(n.map.data);
    npy_close(&n);
}

static void refuses(const char *header, size_t data_size, const char *part)
{
    refuses_path(write_file(1, header, data_size), part);
}

static void accepts(int version, const char *header, size_t data_size, size_t n_dims, size_t last)
{
    struct npy n;
    struct err e = {0};
    if (npy_open(&n, write_file(version, header, data_size), &e))
        fail_msg("%s", e.message);
    assert_int_equal(n.n_dims, n_dims);
    if (n_dims)
        assert_int_equal(n.shape[n_dims - 1], last);
    npy_close(&n);
    npy_close(&n);
}

static void versions_and_shapes(void **state)
{
    (void)state;
    for (int version = 1; version <= 3; version++)
        accepts(version, "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }   \n", 24, 2, 3);
    accepts(1, "{'descr': '<i4', 'fortran_order': False, 'shape': (), }", 4, 0, 0);
    accepts(1, "{'descr': '<i4', 'fortran_order': False, 'shape': (5,), }", 20, 1, 5);
    accepts(1, "{'descr': '<i4', 'fortran_order': False, 'shape': (3, 0), }", 0, 2, 0);
    accepts(1, "{\"shape\":(1,2,),\"fortran_order\":False,\"descr\":\"|u1\"}", 2, 2, 2);
    accepts(1, "{'descr': '<i8', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,2)}", 16, 8, 2);
}

/* One file a dtype, written by NumPy: np.save("<dtype>.npy", np.array([[0, 1, 2], [3, 4, 5]], dtype)). */
static void what_numpy_writes(void **state)
{
    (void)state;
    const char *names[] = {"uint8",  "uint16", "int16",   "uint32",  "int32",
                           "uint64", "int64",  "float16", "float32", "float64"};
    const size_t sizes[] = {1, 2, 2, 4, 4, 8, 8, 2, 4, 8};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        struct npy n;
        struct err e = {0};
        snprintf(path, sizeof path, TEST_DATA "/npy/%s.npy", names[i]);
        if (npy_open(&n, path, &e))
            fail_msg("%s", e.message);
        assert_string_equal(npy_dtype_name(n.dtype), names[i]);
        assert_int_equal(n.n_dims, 2);
        assert_true(n.shape[0] == 2 && n.shape[1] == 3 && n.item_size == sizes[i]);
        if (n.dtype == NPY_F32) {
            float x;
            memcpy(&x, n.data + 5 * 4, 4);
            assert_true(x == 5);
        } else if (n.dtype < NPY_F16) {
            assert_int_equal(n.data[4 * n.item_size], 4);
        }
        npy_close(&n);
    }
    refuses_path(TEST_DATA "/npy/fortran.npy", "Fortran order");
    refuses_path(TEST_DATA "/npy/big_endian.npy", "'>i4' (big-endian)");
    refuses_path(TEST_DATA "/npy/structured.npy", "descr is not a plain dtype");
    refuses_path(TEST_DATA "/npy/object.npy", "'|O'");
}

static void refuses_bad_files(void **state)
{
    (void)state;
    refuses_path(scratch_path("absent"), "cannot open");
    refuses_path(scratch_write("x", "", 0), "not a .npy file");
    refuses_path(scratch_write("x", "\x93NUMPY\1\0\0", 9), "not a .npy file");
    refuses_path(scratch_write("x", "\x1f\x8b\x08\0", 4), "not a .npy file but gzip");
    refuses_path(scratch_write("x", "PK\x03\x04............", 16), "not a .npy file but a zip archive");
    refuses_path(scratch_write("x", "\x93NUMPX\1\0\0\0", 10), "not a .npy file");
    refuses_path(scratch_write("x", "\x93NUMPY\4\0\0\0", 10), "version 4.0");
    refuses_path(scratch_write("x", "\x93NUMPY\1\1\0\0", 10), "version 1.1");
    refuses_path(scratch_write("x", "\x93NUMPY\2\0\0\0", 10), "10 bytes, the header needs more");
    refuses_path(scratch_write("x", "\x93NUMPY\1\0\3\0{}", 12),
                 "header of 3 bytes, at most 65536 and the 2 that follow");
    refuses_path(scratch_write("x", "\x93NUMPY\2\0\377\377\377\377{}", 14), "header of 4294967295 bytes");
    refuses_path(scratch_write("x", "\x93NUMPY\1\0\0\0", 10), "expected '{'");
}

static void refuses_bad_headers(void **state)
{
    (void)state;
    refuses("{", 0, "expected a key");
    refuses("{}", 0, "lacks descr");
    refuses("{'descr': '<i4', 'shape': (1,)}", 4, "lacks fortran_order");
    refuses("{'descr': '<i4', 'fortran_order': False}", 4, "lacks shape");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (1,), 'more': 1}", 4, "key 'more' is not known");
    refuses("{'descr': '<i4', 'descr': '<i4'}", 4, "key 'descr' twice");
    refuses("{'descr': '<i4' 'fortran_order': False, 'shape': (1,)}", 4, "expected a key");
    refuses("{'descr' '<i4'}", 4, "expected a key");
    refuses("{descr: '<i4'}", 4, "expected a key");
    refuses("{'descr", 4, "expected a key");
    refuses("{'a key longer than any that is known to us': 1}", 4, "expected a key");
    refuses("{'des\\x63r': '<i4'}", 4, "expected a key");
    refuses("{'descr': 4}", 4, "descr is not");
    refuses("{'descr': '<i4', 'fortran_order': 0, 'shape': (1,)}", 4, "neither True nor False");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (1)}", 4, "shape is not a tuple");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': 1}", 4, "shape is not a tuple");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (,)}", 4, "shape is not a tuple");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (1,,2)}", 4, "shape is not a tuple");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (1 2)}", 4, "shape is not a tuple");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (-1,)}", 4, "shape is not a tuple");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (1,", 4, "shape is not a tuple");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 4, "shape is not a tuple");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999999999999,)}", 4, "shape is not a tuple");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (4611686018427387904,4)}", 4, "overflows");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (4611686018427387904,)}", 0, "overflows");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (1,)} x", 4, "something after the dict");
    refuses("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", 8, "dtype '<c8'");
    refuses("{'descr': '|b1', 'fortran_order': False, 'shape': (1,)}", 1, "dtype '|b1'");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}", 23,
            "int32 take 24 bytes of data, the file has 23");
    refuses("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}", 25,
            "int32 take 24 bytes of data, the file has 25");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_and_shapes),
        cmocka_unit_test(what_numpy_writes),
        cmocka_unit_test(refuses_bad_files),
        cmocka_unit_test(refuses_bad_headers),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
