/* test_absent.c - what a build without oneDNN, libmicrohttpd or zlib says when it is asked for what they do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "gemm_bf16.h"
#include "metrics_endpoint.h"
#include "scratch.h"
#include "unpack.h"

static void test_bf16(void **state)
{
    struct err e = {0};
    float b[4] = {0};
    struct gemm_bf16 *w = (struct gemm_bf16 *)(uintptr_t)b;
    (void)state;
    assert_int_equal(gemm_bf16_new(&w, b, 2, 2, &e), ERR_INPUT);
    assert_null(w);
    assert_string_equal(e.message,
                        "bf16 products need oneDNN, and this program was built without it (CROSSFEED_ONEDNN=OFF)");
    gemm_bf16_free(w);
}

static void test_metrics(void **state)
{
    struct err e = {0};
    struct metrics_endpoint *m = (struct metrics_endpoint *)(uintptr_t)&e;
    (void)state;
    assert_int_equal(metrics_endpoint_start(&m, "127.0.0.1:9555", false, NULL, &e), ERR_INPUT);
    assert_null(m);
    assert_string_equal(e.message, "--metrics-listen 127.0.0.1:9555: needs libmicrohttpd, and this program was built "
                                   "without it (CROSSFEED_METRICS=OFF)");
    metrics_endpoint_stop(m);
}

static void test_packed(void **state)
{
    struct err e = {0};
    (void)state;
    assert_null(unpack_open(scratch_write("text.gz", "\x1f\x8b\x08\0", 4), NULL, &e));
    assert_non_null(strstr(e.message, "text.gz: is gzip, and this program was built without it (CROSSFEED_GZIP=OFF)"));
    assert_null(unpack_open(scratch_write("text.xz", "\xfd\x37zXZ\0", 6), NULL, &e));
    assert_non_null(strstr(e.message, "text.xz: is xz, and this program was built without it (CROSSFEED_XZ=OFF)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_packed),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
