/* test_admission.c - who may join and which chunks are taken; each refusal names both values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "validate.h"
#include "bf16.h"

#define D_MODEL 4
#define N_SITES 3

static struct stream ours;
static struct message_hello h;
static struct validate_terms a;

static void fill(struct stream *s)
{
    *s = (struct stream){.n_sites = N_SITES,
                         .d_model = D_MODEL,
                         .seq_len = 9,
                         .rows_per_seq = 8,
                         .n_seq = 100,
                         .vocab_size = 50257,
                         .n_models = 2,
                         .can_bf16 = true,
                         .can_f32 = true};
    for (int i = 0; i < N_SITES; i++)
        snprintf(s->sites[i], SITE_NAME_SIZE, "%d:blocks.%d.hook_resid_post", i % 2, i);
    strcpy(s->tokens_fingerprint, "70cc");
    strcpy(s->model_fingerprints[0], "aaaa");
    strcpy(s->model_fingerprints[1], "bbbb");
}

static int reset(void **state)
{
    (void)state;
    fill(&ours);
    memset(&h, 0, sizeof h);
    h.version = PROTOCOL_VERSION;
    fill(&h.stream);
    a = (struct validate_terms){.ours = &ours, .need_bf16 = true, .need_f32 = true, .stream_fixed = true};
    return 0;
}

static void joins(void)
{
    struct err e = {0};
    if (validate_hello(&a, &h, &e))
        fail_msg("%s", e.message);
}

static void rejected(int code, const char *theirs, const char *mine)
{
    struct err e = {0};
    int rc = validate_hello(&a, &h, &e);
    if (rc != code || e.code != code)
        fail_msg("gives %d, should be %d: %s", rc, code, theirs);
    if (!strstr(e.message, theirs) || !strstr(e.message, mine))
        fail_msg("'%s' should name '%s' and '%s'", e.message, theirs, mine);
    reset(NULL);
}

static void the_same_stream_joins(void **state)
{
    (void)state;
    joins();
    a = (struct validate_terms){.need_bf16 = true}; /* the first producer: it fixes the stream */
    h.stream.can_f32 = false;
    joins();
}

static void another_stream_is_refused(void **state)
{
    (void)state;
    h.version = 2;
    rejected(ERR_MISMATCH, "version 2", "speaks 1");
    h.stream.n_sites = 2;
    rejected(ERR_MISMATCH, "sites 2", "run has 3");
    strcpy(h.stream.sites[1], "1:blocks.1.hook_mlp_out");
    rejected(ERR_MISMATCH, "site 1: 1:blocks.1.hook_mlp_out", "run has 1:blocks.1.hook_resid_post");
    h.stream.d_model = 5;
    rejected(ERR_MISMATCH, "d_model 5", "run has 4");
    h.stream.seq_len = 10;
    rejected(ERR_MISMATCH, "seq_len 10", "run has 9");
    h.stream.rows_per_seq = 9;
    rejected(ERR_MISMATCH, "rows per sequence (--keep-bos) 9", "run has 8");
    h.stream.n_seq = 99;
    rejected(ERR_MISMATCH, "sequences 99", "run has 100");
    h.stream.vocab_size = 0;
    rejected(ERR_MISMATCH, "vocabulary size 0", "run has 50257");
    h.stream.n_models = 3;
    rejected(ERR_MISMATCH, "models 3", "run has 2");
    strcpy(h.stream.tokens_fingerprint, "70cd");
    rejected(ERR_MISMATCH, "tokens have fingerprint 70cd", "run has 70cc");
    strcpy(h.stream.model_fingerprints[1], "bbbc");
    rejected(ERR_MISMATCH, "model 1 has fingerprint bbbc", "run has bbbb");
}

static void a_stream_without_sense_is_refused(void **state)
{
    (void)state;
    for (int first = 0; first < 2; first++) {
#define NONSENSE(change, theirs, mine)     \
    do {                                   \
        if (first)                         \
            a.ours = NULL;                 \
        change;                            \
        rejected(ERR_INPUT, theirs, mine); \
    } while (0)
        NONSENSE(h.stream.n_sites = 0, "0 sites", "1 to 512");
        NONSENSE(h.stream.n_models = 9, "9 models", "at most 8");
        NONSENSE(h.stream.d_model = 0, "d_model 0", "none may be 0");
        NONSENSE(h.stream.n_seq = 0, "n_seq 0", "none may be 0");
        NONSENSE(h.stream.seq_len = 0, "seq_len 0", "none may be 0");
        NONSENSE(h.stream.rows_per_seq = 0, "0 rows per sequence", "of 9 tokens");
        NONSENSE(h.stream.rows_per_seq = 10, "10 rows per sequence", "of 9 tokens");
        NONSENSE(h.stream.d_model = 1u << 20, "3 sites x d_model 1048576", "chunk of 4194304 bytes");
        NONSENSE(h.stream.d_model = UINT32_MAX, "d_model 4294967295", "chunk of");
        NONSENSE((h.stream.can_bf16 = h.stream.can_f32 = false), "no dtype", "");
        NONSENSE((h.stream.has_scale = true, h.stream.scale[0] = 1), "scale of site 1 is 0", "positive");
        NONSENSE((h.stream.has_scale = true, h.stream.scale[0] = NAN), "scale of site 0", "positive");
        /* names go into cfg.json: bytes that are not text would make it unreadable or leave it out */
        NONSENSE(strcpy(h.stream.sites[2], "blocks.\xff"), "name of site 2", "printable ASCII");
        NONSENSE(strcpy(h.stream.sites[2], "two words"), "name of site 2", "printable ASCII");
        NONSENSE(strcpy(h.stream.sites[2], h.stream.sites[0]), "sites 0 and 2 are both 0:", "");
        NONSENSE(strcpy(h.stream.sites[2], "blocks.2.hook_resid_post"), "site 2", "names no model");
        NONSENSE(h.stream.n_models = 1, "site 0 (0:blocks.0.hook_resid_post)", "there is one only");
        NONSENSE(strcpy(h.stream.tokens_fingerprint, "\xc3"), "fingerprints", "printable ASCII");
        NONSENSE(strcpy(h.stream.model_fingerprints[1], "\x7f"), "fingerprints", "printable ASCII");
    }
    h.stream.n_seq = h.stream.seq_len = h.stream.rows_per_seq = UINT32_MAX; /* rows x bytes do not fit in a size */
    h.stream.d_model = 1u << 18;
    rejected(ERR_INPUT, "4294967295 sequences x 4294967295 rows", "do not fit");
}

static void dtypes(void **state)
{
    (void)state;
    h.stream.can_bf16 = false;
    rejected(ERR_MISMATCH, "offered: fp32", "needs bf16 fp32");
    h.stream.can_f32 = false;
    rejected(ERR_MISMATCH, "offered: bf16", "needs bf16 fp32");
    a.need_f32 = false;
    h.stream.can_f32 = false;
    joins();
    reset(NULL);
    a.need_bf16 = false;
    h.stream.can_bf16 = false;
    joins();
}

static void scales(void **state)
{
    (void)state;
    static const float given[] = {1, 0.5f, 2};
    static const float own[] = {1, 0.5f, 2.0000002f};
    static struct scale_list list;
    scale_list_set(&list, given, N_SITES);
    a.scale = &list;
    joins(); /* it will be told the scale */

    h.stream.has_scale = true;
    memcpy(h.stream.scale, given, sizeof given);
    h.stream.can_f32 = false; /* its rows are scaled: raw ones are not asked for */
    joins();

    memcpy(h.stream.scale, own, sizeof own);
    rejected(ERR_MISMATCH, "scale of site 2 (0:blocks.2.hook_resid_post) is 2.00000024", "run has 2");

    list.n = 2;
    a.scale = &list;
    rejected(ERR_MISMATCH, "3 sites", "scale has 2 values");

    h.stream.has_scale = true; /* the run is measuring its own */
    memcpy(h.stream.scale, own, sizeof own);
    rejected(ERR_MISMATCH, "scale of their own (1 at site 0)", "measures its scale");

    h.stream.has_scale = true; /* the first producer brings the run's scale with it */
    memcpy(h.stream.scale, own, sizeof own);
    a.ours = NULL;
    a.stream_fixed = false;
    joins();
}

/* ---- chunks ---- */

static struct message_batch b;
static struct chunk_place place;
static unsigned char *payload; /* odd address */
static unsigned char *payload_block;
static size_t payload_size;

static void sign(void)
{
    b.checksum = fingerprint_checksum(payload, payload_size, b.origins, b.rows * sizeof b.origins[0]);
}

/* A sound chunk: rows 16.. of a block of 20 rows? Blocks are whole sequences: sequences 40 to 42, 24 rows, one chunk.
 */
static int chunk(enum row_dtype dtype)
{
    reset(NULL);
    place =
        (struct chunk_place){.block = 10, .first_sequence = 40, .n_rows = 24, .dtype = dtype, .max_abs = 3.4028235e38};
    memset(&b, 0, sizeof b);
    b.lease = 5;
    b.block = 10;
    b.chunks = 1;
    b.rows = 24;
    for (uint32_t i = 0; i < 24; i++)
        b.origins[i] = (struct row_origin){40 + i / 8, 1 + i % 8, 1234};
    payload_size = 24 * N_SITES * D_MODEL * row_dtype_size(dtype);
    free(payload_block);
    payload_block = malloc(payload_size + 1);
    payload = payload_block + 1;
    for (size_t i = 0; i < 24 * N_SITES * D_MODEL; i++) {
        float x = i % 5 ? 0.25f * (float)i : -0.0f;
        uint16_t half = bf16_from_f32(x);
        if (dtype == ROW_BF16)
            memcpy(payload + 2 * i, &half, 2);
        else
            memcpy(payload + 4 * i, &x, 4);
    }
    sign();
    return 0;
}

static int chunk_setup(void **state)
{
    (void)state;
    return chunk(ROW_BF16);
}

static int chunk_teardown(void **state)
{
    (void)state;
    free(payload_block);
    payload_block = NULL;
    return 0;
}

static void taken(void)
{
    struct err e = {0};
    if (validate_chunk(&ours, &place, &b, payload, payload_size, &e))
        fail_msg("%s", e.message);
}

static void thrown_out_as(int code, const char *got, const char *expected)
{
    struct err e = {0};
    if (validate_chunk(&ours, &place, &b, payload, payload_size, &e) != code || e.code != code)
        fail_msg("taken, should be refused: %s", got);
    if (!strstr(e.message, got) || !strstr(e.message, expected))
        fail_msg("'%s' should name '%s' and '%s'", e.message, got, expected);
    chunk(place.dtype);
}

static void thrown_out(const char *got, const char *expected)
{
    thrown_out_as(ERR_PEER, got, expected);
}

static void sound_chunks_are_taken(void **state)
{
    (void)state;
    taken();
    chunk(ROW_F32);
    taken();
    ours.rows_per_seq = ours.seq_len = 8; /* BOS kept: positions from 0 */
    for (uint32_t i = 0; i < 24; i++)
        b.origins[i].position--;
    sign();
    taken();
}

static void chunks_out_of_place(void **state)
{
    (void)state;
    b.block = 11;
    thrown_out("chunk of block 11", "lease is for block 10");
    b.chunk = 1;
    thrown_out("chunk 1 of 1", "expected 0 of 1");
    b.chunks = 2;
    thrown_out("chunk 0 of 2", "expected 0 of 1");
    place.chunks_taken = 1;
    thrown_out("chunk 0 of 1", "expected 1 of 1");
    b.rows = 23;
    thrown_out("23 rows in 576 bytes", "expected 24 in 576");
    payload_size--;
    thrown_out("24 rows in 575 bytes", "expected 24 in 576");
    payload_size = 0;
    thrown_out("in 0 bytes", "expected 24 in 576");
    place.rows_taken = 8; /* what is left is shorter */
    thrown_out("24 rows in 576 bytes", "expected 16 in 384");
}

static void damaged_chunks(void **state)
{
    (void)state;
    char got[32], has[32];
    payload[100] ^= 1;
    snprintf(got, sizeof got, "checksum %016llx", (unsigned long long)b.checksum);
    snprintf(has, sizeof has, "payload has %016llx",
             (unsigned long long)fingerprint_checksum(payload, payload_size, b.origins, 24 * sizeof b.origins[0]));
    thrown_out(got, has);
    b.origins[23].token++;
    thrown_out("checksum", "payload has");
    b.checksum++;
    thrown_out("checksum", "payload has");
}

static void values_that_are_not_finite(void **state)
{
    (void)state;
    static const uint16_t halves[] = {0x7f80, 0xff80, 0x7fc0, 0x7f81, 0xffff};
    static const uint32_t words[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff};
    for (int i = 0; i < 5; i++) {
        size_t at = (7 * N_SITES + 2) * D_MODEL + 3; /* row 7, site 2, the last element */
        chunk(ROW_BF16);
        memcpy(payload + 2 * at, &halves[i], 2);
        sign();
        thrown_out_as(ERR_INPUT, "sequence 40, position 8, site 0:blocks.2.hook_resid_post: value 3", "must be finite");
        chunk(ROW_F32);
        memcpy(payload + 4 * at, &words[i], 4);
        sign();
        thrown_out_as(ERR_INPUT, "sequence 40, position 8, site 0:blocks.2.hook_resid_post: value 3", "must be finite");
    }
    /* the largest finite values and subnormals are values */
    chunk(ROW_BF16);
    memcpy(payload, &(uint16_t[]){0x7f7f, 0xff7f, 0x0001}, 6);
    sign();
    taken();
    chunk(ROW_F32);
    memcpy(payload, &(uint32_t[]){0x7f7fffff, 0x00000001}, 8);
    sign();
    taken();
}

/* A value beyond the bound is its rows' fault, not the connection's; one at the bound, or in a masked row, is none. */
static void values_beyond_the_bound(void **state)
{
    (void)state;
    size_t at = (7 * N_SITES + 2) * D_MODEL + 3;
    const float values[] = {1010, -1e30f};
    for (int i = 0; i < 4; i++) {
        uint16_t half = bf16_from_f32(values[i / 2]);
        chunk(i % 2 ? ROW_BF16 : ROW_F32);
        place.max_abs = 1000;
        memcpy(payload + (i % 2 ? 2 : 4) * at, i % 2 ? (const void *)&half : (const void *)&values[i / 2],
               i % 2 ? 2 : 4);
        sign();
        thrown_out_as(ERR_INPUT, "block 10 chunk 0: sequence 40, position 8, site 0:blocks.2.hook_resid_post: value 3",
                      "must be at most 1000 in size (--max-abs)");
    }
    chunk(ROW_F32);
    place.max_abs = 1000;
    memcpy(payload + 4 * at, &(float){-1000}, 4);
    memcpy(payload, &(float){NAN}, 4);
    b.origins[0].token = ROW_MASKED;
    sign();
    taken();
}

static void rows_of_another_place(void **state)
{
    (void)state;
    b.origins[9].sequence = 40;
    sign();
    thrown_out("row 9: is sequence 40 position 2", "expected 41 and 2");
    b.origins[0].position = 0;
    sign();
    thrown_out("row 0: is sequence 40 position 0", "expected 40 and 1");
    struct row_origin swapped = b.origins[3];
    b.origins[3] = b.origins[4];
    b.origins[4] = swapped;
    sign();
    thrown_out("row 3: is sequence 40 position 5", "expected 40 and 4");
}

/* A block of several chunks: each must be the next one, the last is shorter. */
static void several_chunks(void **state)
{
    (void)state;
    ours.d_model = 1u << 14; /* 192 KB a row in fp32, 96 KB in bf16: 1 and 2 rows a chunk */
    ours.n_seq = 200;
    ours.rows_per_seq = 3;
    ours.seq_len = 3;
    size_t row = (size_t)N_SITES * ours.d_model * 2;
    assert_int_equal(stream_chunk_rows(&ours, ROW_F32), 1);
    assert_int_equal(stream_chunk_rows(&ours, ROW_BF16), 2);
    assert_int_equal(stream_chunk_count(&ours, ROW_BF16, 3), 2);
    free(payload_block);
    payload_block = calloc(2 * row + 1, 1);
    payload = payload_block + 1;
    place =
        (struct chunk_place){.block = 7, .first_sequence = 7, .n_rows = 3, .dtype = ROW_BF16, .max_abs = 3.4028235e38};
    memset(&b, 0, sizeof b);
    b.block = 7;
    b.chunks = 2;
    b.rows = 2;
    b.origins[0] = (struct row_origin){7, 0, 0};
    b.origins[1] = (struct row_origin){7, 1, 0};
    payload_size = 2 * row;
    sign();
    taken();
    place.rows_taken = 2;
    place.chunks_taken = 1;
    b.chunk = 1;
    b.rows = 1;
    b.origins[0].position = 2;
    payload_size = row;
    sign();
    taken();
    b.chunk = 0; /* the first one again */
    struct err e = {0};
    assert_int_equal(validate_chunk(&ours, &place, &b, payload, payload_size, &e), ERR_PEER);
    assert_non_null(strstr(e.message, "chunk 0 of 2, expected 1 of 2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_same_stream_joins, reset),
        cmocka_unit_test_setup(another_stream_is_refused, reset),
        cmocka_unit_test_setup(a_stream_without_sense_is_refused, reset),
        cmocka_unit_test_setup(dtypes, reset),
        cmocka_unit_test_setup(scales, reset),
        cmocka_unit_test_setup_teardown(sound_chunks_are_taken, chunk_setup, chunk_teardown),
        cmocka_unit_test_setup_teardown(chunks_out_of_place, chunk_setup, chunk_teardown),
        cmocka_unit_test_setup_teardown(damaged_chunks, chunk_setup, chunk_teardown),
        cmocka_unit_test_setup_teardown(values_that_are_not_finite, chunk_setup, chunk_teardown),
        cmocka_unit_test_setup_teardown(values_beyond_the_bound, chunk_setup, chunk_teardown),
        cmocka_unit_test_setup_teardown(rows_of_another_place, chunk_setup, chunk_teardown),
        cmocka_unit_test_setup_teardown(several_chunks, chunk_setup, chunk_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
