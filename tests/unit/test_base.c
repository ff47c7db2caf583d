/* What everything stands on: errors, sizes, atomic files, their digests and seals, number formats, products, random streams. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "bf16.h"
#include "err.h"
#include "file.h"
#include "fingerprint.h"
#include "gemm.h"
#include "json_file.h"
#include "mem.h"
#include "rng.h"
#include "scratch.h"

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("message \"%s\" lacks \"%s\"", text, part);
}

static void errors(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(err_set(&e, ERR_MISMATCH, "site %d: %s", 3, "d_model 768, run has 1024"), ERR_MISMATCH);
    assert_int_equal(err_prefix(&e, "producer %d", 2), ERR_MISMATCH);
    assert_string_equal(e.message, "producer 2: site 3: d_model 768, run has 1024");
    assert_int_equal(err_errno(&e, ENOENT, "x"), ERR_SYSTEM);
    assert_string_equal(e.message, "x: No such file or directory");
    assert_int_equal(err_set(NULL, ERR_INPUT, "nobody listens"), ERR_INPUT);

    char longer[2 * sizeof e.message]; /* cut, never overrun, whatever is put before */
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    err_set(&e, ERR_INPUT, "%s", longer);
    assert_int_equal(strlen(e.message), sizeof e.message - 1);
    err_prefix(&e, "prefix");
    assert_int_equal(strncmp(e.message, "prefix: aaa", 11), 0);
    for (size_t n = sizeof e.message - 4; n < sizeof e.message + 2; n++) {
        longer[n] = '\0';
        err_set(&e, ERR_INPUT, "short");
        err_prefix(&e, "%s", longer);
        err_errno(&e, ENOENT, "%s", longer);
        assert_true(strlen(e.message) < sizeof e.message);
        longer[n] = 'a';
    }
}

static void sizes(void **state)
{
    (void)state;
    size_t out = 7;
    assert_true(size_mul(SIZE_MAX / 2, 2, &out));
    assert_int_equal(out, SIZE_MAX - 1);
    assert_false(size_mul(SIZE_MAX / 2 + 1, 2, &out));
    assert_true(size_product((size_t[]){2, 3, 5}, 3, &out));
    assert_int_equal(out, 30);
    assert_true(size_product(NULL, 0, &out));
    assert_int_equal(out, 1);
    assert_false(size_product((size_t[]){1u << 31, 1u << 31, 4}, 3, &out));
    assert_int_equal(out, 1);

    struct err e = {0};
    assert_null(mem_alloc(SIZE_MAX / 2, 3, "weights", &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_contains(e.message, "weights");
    assert_null(mem_alloc(SIZE_MAX - 100, 1, "weights", &e));
#ifndef __SANITIZE_ADDRESS__ /* it would end the program */
    assert_null(mem_alloc((size_t)1 << 60, 4, "weights", &e));
    assert_contains(e.message, "4611686018427387904");
#endif
    for (size_t n = 0; n < 300; n += 37) {
        unsigned char *p = mem_alloc(n, 1, "small", &e);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        mem_free(p);
    }
    mem_free(NULL);
    assert_true(mem_peak_rss() > 100000);
}

static void assert_file(const char *path, const char *content)
{
    char *text;
    size_t size;
    struct err e = {0};
    assert_int_equal(file_read_text(path, 100, &text, &size, &e), 0);
    assert_string_equal(text, content);
    assert_int_equal(size, strlen(content));
    mem_free(text);
}

static void atomic_output(void **state)
{
    (void)state;
    struct file_out o;
    struct err e = {0};
    char *path = strdup(scratch_path("out"));
    scratch_write("out", "old", 3);
    assert_int_equal(file_out_open(&o, path, &e), 0);
    assert_int_equal(file_out_write(&o, "new!", 4, &e), 0);
    assert_file(path, "old");
    assert_int_equal(file_out_commit(&o, &e), 0);
    assert_file(path, "new!");
    file_out_abandon(&o);
    assert_file(path, "new!");

    assert_int_equal(file_out_open(&o, path, &e), 0);
    assert_int_equal(file_out_write(&o, "lost", 4, &e), 0);
    file_out_abandon(&o);
    file_out_abandon(&o);
    assert_file(path, "new!");
    assert_int_equal(scratch_count("out"), 1);

    pid_t child = fork(); /* killed before it is done */
    if (child == 0) {
        file_out_open(&o, path, &e);
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(file_out_open(&o, path, &e), 0); /* is not done yet, but alive */
    scratch_write("out.tmp.x1", "", 0);
    scratch_write("out.tmp.", "", 0);
    assert_int_equal(scratch_count("out"), 5);
    assert_int_equal(file_remove_leftovers(scratch_folder, &e), 0);
    assert_int_equal(scratch_count("out"), 4);
    assert_int_equal(file_out_commit(&o, &e), 0);
    unlink(scratch_path("out.tmp.x1"));
    unlink(scratch_path("out.tmp."));
    assert_file(path, "");
    scratch_write("out", "new!", 4);
    assert_int_equal(file_remove_leftovers(scratch_path("nowhere"), &e), ERR_SYSTEM);

    assert_int_equal(file_out_open(&o, scratch_path("no/such/folder"), &e), ERR_SYSTEM);
    assert_contains(e.message, "cannot create");
    file_out_abandon(&o);
    assert_true(file_out_open(&o, "/dev/full", &e) < 0); /* must not put a plain file in the device's place */
    assert_contains(e.message, "/dev/full");
    file_out_abandon(&o);

    /* A link where the temporary will be is not written through. */
    char temporary[600];
    snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    char *victim = strdup(scratch_write("victim", "mine", 4));
    assert_int_equal(symlink(victim, temporary), 0);
    assert_int_equal(file_out_open(&o, path, &e), 0);
    assert_int_equal(file_out_write(&o, "new!", 4, &e), 0);
    assert_int_equal(file_out_commit(&o, &e), 0);
    assert_file(path, "new!");
    assert_file(victim, "mine");
    unlink(victim);
    free(victim);

    /* A full disk: found at the write or the commit, whatever stdio buffered, and said as it is; the old file stays. */
    static const char data[1 << 20];
    static const size_t pieces[] = {1, 100, 4095, 4096, 4097, 8192, sizeof data};
    for (size_t i = 0; i < 2 * sizeof pieces / sizeof *pieces; i++) {
        size_t piece = pieces[i / 2], size = i % 2 ? sizeof data : piece;
        assert_int_equal(file_out_open(&o, path, &e), 0);
        o.f = freopen("/dev/full", "wb", o.f);
        int rc = 0;
        for (size_t first = 0; rc == 0 && first < size; first += piece) {
            errno = EAGAIN; /* of anything before */
            rc = file_out_write(&o, data, piece, &e);
        }
        errno = EAGAIN;
        if (rc)
            file_out_abandon(&o);
        else
            rc = file_out_commit(&o, &e);
        assert_int_equal(rc, ERR_SYSTEM);
        assert_contains(e.message, "No space left");
        assert_file(path, "new!");
        assert_int_equal(scratch_count("out"), 1);
    }
    free(path);
}

static void folders(void **state)
{
    (void)state;
    struct err e = {0};
    char deep[512], path[600], tiny[8];
    assert_int_equal(file_join(deep, sizeof deep, scratch_folder, "a/b", &e), 0);
    assert_int_equal(file_join(tiny, sizeof tiny, "abc", "def", &e), 0);
    assert_string_equal(tiny, "abc/def");
    assert_int_equal(file_join(tiny, sizeof tiny, "abcd", "def", &e), ERR_INPUT);
    assert_int_equal(file_make_folder(deep, &e), 0);
    assert_int_equal(file_make_folder(deep, &e), 0);
    assert_int_equal(file_sync_folder(deep, &e), 0);
    scratch_write("a/b/f", "x", 1);
    scratch_write("a/b/g", "x", 1);
    file_join(path, sizeof path, deep, "f", &e);
    assert_true(file_make_folder(path, &e) < 0);                           /* a file is in the way */
    assert_int_equal(file_remove_tree(scratch_path("a"), &e), ERR_SYSTEM); /* holds a folder: not one level */
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(file_remove_tree(path, &e), 0);
    assert_int_equal(file_remove_tree(path, &e), 0);
    assert_int_equal(file_remove_tree(deep, &e), 0);
    assert_int_equal(access(deep, F_OK), -1);
    assert_int_equal(file_remove_tree(scratch_path("a"), &e), 0);

    struct file_map m;
    assert_int_equal(file_map(&m, scratch_folder, &e), ERR_INPUT);
    assert_int_equal(file_map(&m, scratch_write("empty", "", 0), &e), 0);
    assert_true(m.data == NULL && m.size == 0);
    file_unmap(&m);
    char *text;
    size_t size;
    assert_int_equal(file_read_text(scratch_write("t", "12345", 5), 4, &text, &size, &e), ERR_INPUT);
    assert_contains(e.message, "5 bytes, at most 4");
}

static uint32_t bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static float from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static void number_formats(void **state)
{
    (void)state;
    /* float32 bits, bf16 bits as torch.tensor(x).to(torch.bfloat16) gives them */
    const struct {
        uint32_t x;
        uint16_t h;
    } cases[] = {
        {0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x3f800000, 0x3f80},
        {0xbf800000, 0xbf80}, {0x3f807fff, 0x3f80}, /* just below half way: down */
        {0x3f808000, 0x3f80},                       /* a tie, even below: down */
        {0x3f808001, 0x3f81},                       /* just above: up */
        {0x3f818000, 0x3f82},                       /* a tie, odd below: up */
        {0xbf818000, 0xbf82}, {0x3fffffff, 0x4000}, /* carries into the exponent */
        {0x7f7fffff, 0x7f80},                       /* the largest float32 rounds to infinity */
        {0x7f7f7fff, 0x7f7f}, {0x7f800000, 0x7f80}, {0xff800000, 0xff80},
        {0x00000001, 0x0000}, {0x00008001, 0x0001}, {0x007fffff, 0x0080}, /* subnormals */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(bf16_from_f32(from_bits(cases[i].x)), cases[i].h);
    const uint32_t nans[] = {0x7f800001, 0x7fc00000, 0x7fffffff, 0xffffffff, 0xff800001};
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++)
        assert_true(isnan(bf16_to_f32(bf16_from_f32(from_bits(nans[i])))));
    for (uint32_t h = 0; h < 65536; h++) /* every bf16 survives */
        if (!isnan(bf16_to_f32((uint16_t)h)))
            assert_int_equal(bf16_from_f32(bf16_to_f32((uint16_t)h)), h);

    for (uint32_t h = 0; h < 65536; h++) { /* every half, by its definition: +-2^(e-15) (1 + m/1024), 2^-14 m/1024 */
        int exponent = (h >> 10) & 31;
        double m = (double)(h & 1023), x = exponent ? ldexp(1 + m / 1024, exponent - 15) : ldexp(m / 1024, -14);
        float got = f16_to_f32((uint16_t)h);
        if (exponent == 31)
            assert_true(m != 0 ? isnan(got) : isinf(got) && (got < 0) == (h >> 15 == 1));
        else
            assert_int_equal(bits(got), bits((float)(h >> 15 ? -x : x)));
    }
}

static void fill(float *x, size_t n, uint64_t stream)
{
    struct rng r;
    rng_init(&r, 1, RNG_TEST, stream);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&r);
}

/* gemm against the definition, all transposes, odd sizes, rows with padding; the padding is not touched. */
static void products(void **state)
{
    (void)state;
    const size_t shapes[][3] = {{1, 1, 1},     {3, 5, 7},      {17, 1, 33}, {1, 129, 2},
                                {64, 48, 300}, {67, 131, 257}, {5, 4, 0}};
    enum { MAX = 140 * 310 };
    static float a[MAX], b[MAX], c[MAX], first[MAX], before[MAX];
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        for (int kind = 0; kind < 8; kind++) {
            bool ta = kind & 1, tb = kind & 2;
            float alpha = kind & 4 ? 0.5f : 1, beta = kind & 4 ? -2 : 0;
            size_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 1, ldc = n + 2;
            fill(a, MAX, 1);
            fill(b, MAX, 2);
            fill(before, MAX, 3);
            if (beta == 0)
                for (size_t i = 0; i < m; i++)
                    for (size_t j = 0; j < n; j++)
                        before[i * ldc + j] = NAN; /* never read */
            for (int threads = 1; threads <= 2; threads++) {
                memcpy(c, before, sizeof c);
                gemm_set_threads(threads);
                assert_int_equal(gemm_threads(), threads);
                gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
                if (threads == 1)
                    memcpy(first, c, sizeof c);
                else
                    assert_memory_equal(c, first, sizeof c);
            }
            for (size_t i = 0; i < m; i++)
                for (size_t j = 0; j < n; j++) {
                    double sum = 0, size = 1;
                    for (size_t l = 0; l < k; l++) {
                        double term =
                            (double)(ta ? a[l * lda + i] : a[i * lda + l]) * (tb ? b[j * ldb + l] : b[l * ldb + j]);
                        sum += term;
                        size += fabs(term);
                    }
                    double expected = alpha * sum + (beta != 0 ? (double)beta * before[i * ldc + j] : 0);
                    if (!(fabs(c[i * ldc + j] - expected) < 1e-6 * size))
                        fail_msg("%zu x %zu x %zu kind %d, element %zu,%zu: %g, expected %g", m, n, k, kind, i, j,
                                 (double)c[i * ldc + j], expected);
                }
            for (size_t i = 0; i < m; i++)
                assert_memory_equal(c + i * ldc + n, before + i * ldc + n, 2 * sizeof *c);
        }
    }
    gemm_set_threads(1);
}

/* Random123's known answers (kat_vectors, philox 4x32 10), through the struct's own counter and key. */
static void random_known_answers(void **state)
{
    (void)state;
    const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < 3; i++) {
        struct rng r = {.used = 4};
        memcpy(r.key, cases[i].key, sizeof r.key);
        memcpy(r.counter, cases[i].counter, sizeof r.counter);
        for (int j = 0; j < 4; j++)
            assert_int_equal(rng_u32(&r), cases[i].out[j]);
    }
}

static void random_streams(void **state)
{
    (void)state;
    enum { N = 1000, STREAMS = 5 };
    static uint32_t p[N], drawn[STREAMS][4];
    struct rng r;
    for (unsigned s = 0; s < STREAMS; s++) { /* seed, purpose and each half of the index make other streams */
        rng_init(&r, s == 1 ? 2 : 1, s == 2 ? RNG_BLOCK_ORDER : RNG_TEST, s == 3 ? 1 : s == 4 ? (uint64_t)1 << 32 : 0);
        for (int i = 0; i < 4; i++)
            drawn[s][i] = rng_u32(&r);
        for (unsigned t = 0; t < s; t++)
            assert_memory_not_equal(drawn[s], drawn[t], sizeof drawn[s]);
    }
    rng_init(&r, 1, RNG_TEST, 0);
    assert_int_equal(rng_u32(&r), drawn[0][0]); /* the same again */

    unsigned char seen[N] = {0};
    size_t fixed = 0;
    rng_permutation(&r, p, N);
    for (size_t i = 0; i < N; i++) {
        assert_true(p[i] < N && !seen[p[i]]);
        seen[p[i]] = 1;
        fixed += p[i] == i;
    }
    assert_true(fixed < 10); /* 1 expected */
    rng_permutation(&r, p, 0);
    rng_permutation(&r, p, 1);
    assert_int_equal(p[0], 0);

    size_t counts[6] = {0};
    double sum = 0, squares = 0;
    for (int i = 0; i < 60000; i++) {
        counts[rng_below(&r, 6)]++;
        double u = rng_uniform(&r), x = rng_normal(&r);
        assert_true(u >= 0 && u < 1);
        sum += x;
        squares += x * x;
    }
    for (int i = 0; i < 6; i++)
        assert_true(counts[i] > 9500 && counts[i] < 10500); /* 5 sigma */
    assert_true(fabs(sum / 60000) < 0.02 && fabs(squares / 60000 - 1) < 0.03);
}

static void fingerprints(void **state)
{
    (void)state;
    struct fingerprint f;
    struct err e = {0};
    char whole[FINGERPRINT_SIZE], pieces[FINGERPRINT_SIZE], other[FINGERPRINT_SIZE];
    assert_int_equal(fingerprint_init(&f, &e), 0);
    fingerprint_add(&f, "abcdef", 6);
    fingerprint_finish(&f, whole);
    assert_int_equal(strlen(whole), 32);
    assert_int_equal(fingerprint_init(&f, &e), 0);
    fingerprint_add(&f, "ab", 2);
    fingerprint_add(&f, "cdef", 4);
    fingerprint_finish(&f, pieces);
    assert_string_equal(whole, pieces);
    assert_int_equal(fingerprint_init(&f, &e), 0);
    fingerprint_add_text(&f, "ab");
    fingerprint_add_text(&f, "c");
    fingerprint_finish(&f, whole);
    assert_int_equal(fingerprint_init(&f, &e), 0);
    fingerprint_add_text(&f, "a");
    fingerprint_add_text(&f, "bc");
    fingerprint_finish(&f, other);
    assert_string_not_equal(whole, other);
    assert_true(fingerprint_checksum("", 0, "", 0) == 0x2d06800538d394c2u); /* XXH3's own value of nothing */
}

/* What a writer tells of a file is what a reader finds, in however many pieces it was written. */
static void digests(void **state)
{
    (void)state;
    struct file_out o;
    struct file_digest d;
    struct err e = {0};
    static char data[700000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 2654435761u >> 13);
    for (size_t piece = sizeof data; piece > 100; piece /= 7) {
        char *path = strdup(scratch_path("digested"));
        assert_int_equal(file_out_open(&o, path, &e), 0);
        for (size_t first = 0; first < sizeof data; first += piece)
            assert_int_equal(
                file_out_write(&o, data + first, sizeof data - first < piece ? sizeof data - first : piece, &e), 0);
        assert_int_equal(file_out_commit(&o, &e), 0);
        assert_int_equal(file_digest_read(path, &d, &e), 0);
        assert_int_equal(d.bytes, sizeof data);
        assert_int_equal(o.digest.bytes, sizeof data);
        assert_string_equal(d.fingerprint, o.digest.fingerprint);
        assert_true(fingerprint_is(d.fingerprint));
        assert_int_equal(file_digest_verify(path, &o.digest, &e), 0);
        assert_int_equal(truncate(path, sizeof data - 1), 0);
        assert_int_equal(file_digest_verify(path, &o.digest, &e), ERR_DAMAGED);
        assert_contains(e.message, "699999 bytes, should have 700000");
        data[0]++;
        scratch_write("digested", data, sizeof data);
        assert_int_equal(file_digest_verify(path, &o.digest, &e), ERR_DAMAGED);
        assert_contains(e.message, "checksum");
        unlink(path);
        assert_int_equal(file_digest_verify(path, &o.digest, &e), ERR_DAMAGED);
        assert_contains(e.message, "is missing");
        assert_int_equal(file_digest_read(path, &d, &e), ERR_ABSENT);
        free(path);
    }
    assert_int_equal(file_digest_read(scratch_folder, &d, &e), ERR_DAMAGED);
}

/* A sealed file comes back; with a byte changed, lost or added anywhere it is damaged. */
static void sealed_json(void **state)
{
    (void)state;
    struct err e = {0};
    bool sealed;
    char *path = strdup(scratch_path("sealed")), *text;
    size_t size;
    json_t *value = json_pack("{s:s, s:[i, i], s:f}", "name", "x", "list", 1, 2, "number", 0.1), *read;
    assert_int_equal(json_write_sealed(path, value, &e), 0);
    assert_int_equal(json_read_sealed(path, &read, &sealed, &e), 0);
    assert_true(sealed && json_equal(json_object_get(read, "list"), json_object_get(value, "list")));
    json_decref(read);
    json_decref(value);
    assert_int_equal(file_read_text(path, 10000, &text, &size, &e), 0);
    for (size_t i = 0; i < size; i++)
        for (int how = 0; how < 9; how++) {
            char *other = malloc(size + 1);
            memcpy(other, text, size);
            if (how < 8)
                other[i] ^= (char)(1 << how);
            else
                memmove(other + i, other + i + 1, size - i - 1);
            scratch_write("sealed", other, size - (how == 8));
            int rc = json_read_sealed(path, &read, &sealed, &e);
            if (rc == 0) /* the key's own name has been changed: the caller sees that there is no seal */
                assert_false(sealed);
            else
                assert_int_equal(rc, ERR_DAMAGED);
            json_decref(read);
            free(other);
        }
    scratch_write("sealed", "{\"a\": 1}", 8);
    assert_int_equal(json_read_sealed(path, &read, &sealed, &e), 0);
    assert_false(sealed);
    json_decref(read);
    unlink(path);
    assert_int_equal(json_read_sealed(path, &read, &sealed, &e), ERR_ABSENT);
    mem_free(text);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors),
        cmocka_unit_test(sizes),
        cmocka_unit_test(atomic_output),
        cmocka_unit_test(folders),
        cmocka_unit_test(number_formats),
        cmocka_unit_test(products),
        cmocka_unit_test(random_known_answers),
        cmocka_unit_test(random_streams),
        cmocka_unit_test(fingerprints),
        cmocka_unit_test(digests),
        cmocka_unit_test(sealed_json),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
