/* The token tensor: every dtype gives the same ids and fingerprint; what is wrong is named. */
#include "tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "scratch.h"

/* A .npy [rows, columns] of that dtype with the ids as int64, cut to the item size. */
static const char *write_tokens(const char *descr, size_t rows, size_t columns, const int64_t *ids)
{
    static unsigned char bytes[65536];
    size_t size = (size_t)(descr[2] - '0');
    memcpy(bytes, "\x93NUMPY\1\0\x76\0", 10);
    memset(bytes + 10, ' ', 118);
    int n = sprintf((char *)bytes + 10, "{'descr': '%s', 'fortran_order': False, 'shape': (%zu, %zu), }", descr, rows,
                    columns);
    bytes[10 + n] = ' ';
    for (size_t i = 0; i < rows * columns; i++)
        memcpy(bytes + 128 + i * size, ids + i, size);
    return scratch_write("tokens.npy", bytes, 128 + rows * columns * size);
}

static const int64_t ids[12] = {50, 1, 2, 3, 50, 5, 6, 7, 50, 9, 10, 99};

static void all_dtypes_agree(void **state)
{
    (void)state;
    const char *dtypes[] = {"|u1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8"};
    char first[FINGERPRINT_SIZE] = "";
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        struct tokens t;
        struct err e = {0};
        if (tokens_open(&t, write_tokens(dtypes[i], 3, 4, ids), 0, 100, &e))
            fail_msg("%s", e.message);
        assert_int_equal(t.n_seq, 3);
        assert_int_equal(t.seq_len, 4);
        for (uint32_t s = 0; s < 3; s++) {
            uint32_t got[4];
            tokens_get(&t, s, got);
            for (uint32_t p = 0; p < 4; p++)
                assert_int_equal(got[p], ids[4 * s + p]);
        }
        if (i == 0)
            strcpy(first, t.fingerprint);
        assert_string_equal(t.fingerprint, first);
        assert_int_equal(strlen(first), 32);
        tokens_close(&t);
        tokens_close(&t);
    }
}

static void cut_shorter(void **state)
{
    (void)state;
    struct tokens t;
    struct err e = {0};
    char cut[FINGERPRINT_SIZE], whole[FINGERPRINT_SIZE];
    uint32_t got[3] = {0, 0, 77};
    assert_int_equal(tokens_open(&t, write_tokens("<u2", 3, 4, ids), 2, 100, &e), 0);
    assert_int_equal(t.seq_len, 2);
    tokens_get(&t, 2, got);
    assert_true(got[0] == 50 && got[1] == 9 && got[2] == 77);
    strcpy(cut, t.fingerprint);
    tokens_close(&t);
    const int64_t short_ids[6] = {50, 1, 50, 5, 50, 9};
    assert_int_equal(tokens_open(&t, write_tokens("<i8", 3, 2, short_ids), 0, 100, &e), 0);
    assert_string_equal(t.fingerprint, cut);
    tokens_close(&t);
    assert_int_equal(tokens_open(&t, write_tokens("<i8", 2, 3, short_ids), 0, 100, &e), 0);
    strcpy(whole, t.fingerprint); /* same ids in another shape */
    assert_string_not_equal(whole, cut);
    tokens_close(&t);
    /* An id beyond the cut does no harm. */
    assert_int_equal(tokens_open(&t, write_tokens("<u2", 3, 4, ids), 3, 51, &e), 0);
    tokens_close(&t);
}

static void longer_than_a_piece(void **state)
{
    (void)state;
    enum { N = 2500 };
    static int64_t many[2 * N];
    static uint32_t got[N];
    struct tokens t;
    struct err e = {0};
    for (int i = 0; i < 2 * N; i++)
        many[i] = i;
    assert_int_equal(tokens_open(&t, write_tokens("<u2", 2, N, many), 0, 2 * N, &e), 0);
    tokens_get(&t, 1, got);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(got[i], N + i);
    tokens_close(&t);
    assert_int_equal(tokens_open(&t, write_tokens("<u2", 2, N, many), 0, 2 * N - 1, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "sequence 1, position 2499: token id 4999, the vocabulary has 4999"));
}

static void refuses(const char *path, uint32_t seq_len, uint32_t vocab_size, const char *part)
{
    struct tokens t;
    struct err e = {0};
    assert_true(tokens_open(&t, path, seq_len, vocab_size, &e) < 0);
    if (!strstr(e.message, part))
        fail_msg("message \"%s\" lacks \"%s\"", e.message, part);
    tokens_close(&t);
}

static void refusals(void **state)
{
    (void)state;
    const int64_t negative[4] = {1, 2, -3, 4}, large[2] = {1, (int64_t)1 << 32};
    refuses(scratch_path("absent"), 0, 100, "cannot open");
    refuses(write_tokens("<u2", 3, 4, ids), 5, 100, "5 tokens wanted, the file has 4");
    refuses(write_tokens("<u2", 3, 4, ids), 0, 99, "sequence 2, position 3: token id 99, the vocabulary has 99");
    refuses(write_tokens("<i4", 2, 2, negative), 0, 100, "sequence 1, position 0: token id -3, the vocabulary has 100");
    refuses(write_tokens("<i2", 2, 2, negative), 0, 100, "token id -3,");
    refuses(write_tokens("<u8", 2, 2, negative), 0, 100, "token id 18446744073709551613,");
    refuses(write_tokens("<i8", 1, 2, large), 0, 100, "token id 4294967296,");
    refuses(write_tokens("<f4", 3, 4, ids), 0, 100, "tokens are float32");
    refuses(write_tokens("<u2", 0, 4, ids), 0, 100, "0 sequences of 4 tokens");
    refuses(TEST_DATA "/npy/object.npy", 0, 100, "dtype");
    refuses(scratch_write("flat.npy", "\x93NUMPY\1\0\x38\0{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}   ab",
                          68),
            0, 100, "1 dimensions, expected 2");
}

/* The demo's tokens, where they are there. */
static void demo(void **state)
{
    (void)state;
    struct tokens t;
    struct err e = {0};
    if (access(DEMO "/tokens.npy", F_OK) != 0)
        skip();
    if (tokens_open(&t, DEMO "/tokens.npy", 0, 1u << 20, &e))
        fail_msg("%s", e.message);
    assert_true(t.n_seq > 0 && t.seq_len > 1);
    tokens_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_dtypes_agree), cmocka_unit_test(cut_shorter), cmocka_unit_test(longer_than_a_piece),
        cmocka_unit_test(refusals),         cmocka_unit_test(demo),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
