/* test_recording.c - what is written is read back bit for bit; what is damaged or missing is refused in one line. */
#include "recording.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "mem.h"
#include "scratch.h"
#include "source_recording.h"

enum { SITES = 2, D = 5, PER_SEQ = 3, SEQS = 10, SHARD = 4, SHARDS = 3 }; /* the last shard is short */

static struct stream make_stream(void)
{
    struct stream s = {.n_sites = SITES,
                       .d_model = D,
                       .seq_len = PER_SEQ + 1,
                       .rows_per_seq = PER_SEQ,
                       .n_seq = SEQS,
                       .vocab_size = 1000,
                       .n_models = 1,
                       .can_bf16 = true,
                       .can_f32 = true,
                       .scale = {0.3f, 1.7f},
                       .sites = {"blocks.0.hook_resid_post", "blocks.1.hook_resid_post"},
                       .tokens_fingerprint = "tokens",
                       .model_fingerprints = {"model"}};
    return s;
}

/* A folder inside the scratch folder, not there yet. */
static const char *fresh(const char *name)
{
    static char folders[16][100];
    static unsigned next;
    char *folder = folders[next++ % 16];
    snprintf(folder, sizeof folders[0], "%s/%s", scratch_folder, name);
    assert_int_equal(file_remove_tree(folder, NULL), 0);
    return folder;
}

/* The rows of sequences first .. first + n - 1: any numbers that tell rows, sites and dimensions apart. */
static void put_rows(struct rows *r, const struct stream *s, uint32_t first, uint32_t n, enum row_dtype dtype)
{
    rows_begin(r, s, stream_block_rows(s, n), dtype, s->scale);
    for (uint32_t i = 0; i < r->n_rows; i++) {
        uint32_t row = first * PER_SEQ + i;
        for (uint32_t site = 0; site < SITES; site++) {
            float v[D];
            for (uint32_t k = 0; k < D; k++)
                v[k] = (float)(row * 100 + site * 10 + k) / 7;
            rows_put(r, i, site, v);
        }
        rows_put_origin(r, i, (struct row_origin){first + i / PER_SEQ, 1 + i % PER_SEQ, 7 * row % 1000});
    }
}

static void write_shards(struct recording *r, uint32_t begin, uint32_t end)
{
    struct rows rows;
    struct err e = {0};
    assert_int_equal(rows_init(&rows, &r->stream, SHARD * PER_SEQ, &e), 0);
    for (uint32_t i = begin; i < end; i++) {
        put_rows(&rows, &r->stream, recording_shard_first(r, i), recording_shard_count(r, i), r->dtype);
        if (recording_write(r, i, &rows, &e))
            fail_msg("%s", e.message);
    }
    assert_int_equal(recording_flush(r, &e), 0);
    rows_release(&rows);
}

static const char *make(const char *name, enum row_dtype dtype)
{
    const char *folder = fresh(name);
    struct stream s = make_stream();
    struct recording r;
    struct err e = {0};
    if (recording_create(&r, folder, &s, dtype, SHARD, &e))
        fail_msg("%s", e.message);
    write_shards(&r, 0, SHARDS);
    recording_close(&r);
    return folder;
}

static void must_open(struct recording *r, const char *folder)
{
    struct err e = {0};
    if (recording_open(r, folder, &e))
        fail_msg("%s", e.message);
}

static void one_line(const struct err *e, int code, const char *part)
{
    assert_int_equal(e->code, code);
    if (!strstr(e->message, part) || strchr(e->message, '\n'))
        fail_msg("'%s' does not say '%s'", e->message, part);
}

/* All rows of all sequences, one by one, against those put again. */
static void round_trip(enum row_dtype dtype, const char *name)
{
    const char *folder = make(name, dtype);
    struct stream s = make_stream();
    struct recording r;
    struct rows rows;
    struct err e = {0};
    must_open(&r, folder);
    assert_int_equal(stream_compare(&r.stream, &s, &e), 0);
    assert_true(r.stream.has_scale);
    assert_memory_equal(r.stream.scale, s.scale, sizeof s.scale);
    assert_int_equal(r.stream.can_bf16, dtype == ROW_BF16);
    assert_int_equal(r.stream.can_f32, dtype == ROW_F32);
    assert_int_equal(r.n_shards, SHARDS);
    assert_int_equal(r.n_recorded, SHARDS);
    assert_int_equal(recording_shard_count(&r, SHARDS - 1), SEQS % SHARD);
    assert_int_equal(rows_init(&rows, &s, PER_SEQ, &e), 0);
    for (uint32_t i = 0; i < SEQS; i++) {
        struct recording_rows read;
        assert_int_equal(recording_read(&r, i, SEQS, &read, &e), 0);
        assert_int_equal(read.n, recording_shard_count(&r, i / SHARD) - i % SHARD); /* up to the end of its shard */
        put_rows(&rows, &s, i, 1, dtype);
        assert_memory_equal(read.acts, rows.acts, PER_SEQ * stream_row_bytes(&s, dtype));
        for (size_t k = 0; k < PER_SEQ; k++) {
            int32_t token, position;
            int64_t sequence;
            memcpy(&token, read.tokens + 4 * k, 4);
            memcpy(&position, read.positions + 4 * k, 4);
            memcpy(&sequence, read.sequence + 8 * k, 8);
            assert_int_equal(token, rows.origins[k].token);
            assert_int_equal(position, rows.origins[k].position);
            assert_int_equal(sequence, rows.origins[k].sequence);
        }
    }
    for (uint32_t i = 0; i < SHARDS; i++)
        assert_int_equal(recording_verify_shard(&r, i, &e), 0);
    rows_release(&rows);
    recording_close(&r);
}

static void bf16(void **state)
{
    (void)state;
    round_trip(ROW_BF16, "bf16");
}

static void fp32(void **state)
{
    (void)state;
    round_trip(ROW_F32, "fp32");
}

/* The source gives the rows of any block, in one shard (borrowed) or across (gathered). */
static void as_a_source(void **state)
{
    (void)state;
    const char *folder = make("source", ROW_BF16);
    struct source source;
    struct rows got, expected;
    struct err e = {0};
    for (uint32_t n = 1; n <= SEQS; n++) {
        assert_int_equal(source_recording_open(&source, folder, true, &e), 0);
        assert_int_equal(rows_init(&got, &source.stream, n * PER_SEQ, &e), 0);
        assert_int_equal(rows_init(&expected, &source.stream, n * PER_SEQ, &e), 0);
        for (uint32_t first = 0; first + n <= SEQS; first++) {
            rows_begin(&got, &source.stream, n * PER_SEQ, ROW_BF16, source.stream.scale);
            put_rows(&expected, &source.stream, first, n, ROW_BF16);
            assert_int_equal(source.compute(source.self, first, n, &got, &e), 0);
            assert_int_equal(got.acts != got.data, n <= SHARD && first / SHARD == (first + n - 1) / SHARD);
            assert_memory_equal(got.acts, expected.acts, n * PER_SEQ * stream_row_bytes(&source.stream, ROW_BF16));
            assert_memory_equal(got.origins, expected.origins, n * PER_SEQ * sizeof *got.origins);
        }
        rows_release(&got);
        rows_release(&expected);
        source.close(source.self);
    }
}

/* Interrupted after the first shard; half-written files of a killed writer are gone, what is not recorded is absent. */
static void continued(void **state)
{
    (void)state;
    const char *folder = fresh("continued"), *whole = make("whole", ROW_BF16);
    char path[200];
    struct stream s = make_stream();
    struct recording r, other;
    struct recording_rows read;
    struct err e = {0};
    assert_int_equal(recording_create(&r, folder, &s, ROW_BF16, SHARD, &e), 0);
    write_shards(&r, 1, 2);
    assert_int_equal(recording_continue(&other, folder, &e), ERR_INPUT);
    one_line(&e, ERR_INPUT, "another process");
    recording_close(&r);
    const char *left[] = {"shard_00000002.safetensors.tmp.99999999", "manifest.json.tmp.99999999"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "continued/%s", left[i]);
        scratch_write(path, "half", 4);
    }
    must_open(&r, folder);
    assert_int_equal(r.n_recorded, 1);
    assert_int_equal(recording_read(&r, 4, 2, &read, &e), 0);
    assert_int_equal(recording_read(&r, 3, 2, &read, &e), ERR_ABSENT);
    one_line(&e, ERR_ABSENT, "sequences 3 to 4 are not recorded in");
    assert_int_equal(recording_read(&r, 8, 2, &read, &e), ERR_ABSENT);
    one_line(&e, ERR_ABSENT, "1 of 3 shards");
    assert_int_equal(recording_read(&r, SEQS + SHARD, 1, &read, &e), ERR_ABSENT);
    recording_close(&r);

    assert_int_equal(recording_create(&other, folder, &s, ROW_BF16, SHARD, &e), ERR_INPUT);
    one_line(&e, ERR_INPUT, "holds a recording already");
    assert_int_equal(recording_continue(&r, folder, &e), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, left[i]);
        assert_int_equal(access(path, F_OK), -1);
    }
    write_shards(&r, 0, 1);
    write_shards(&r, 2, 3);
    recording_close(&r);
    const char *names[] = {"manifest.json", "shard_00000000.safetensors", "shard_00000001.safetensors",
                           "shard_00000002.safetensors"};
    for (int i = 0; i < 4; i++) {
        struct file_map a, b;
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(file_map(&a, path, &e), 0);
        snprintf(path, sizeof path, "%s/%s", whole, names[i]);
        assert_int_equal(file_map(&b, path, &e), 0);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.data, b.data, a.size);
        file_unmap(&a);
        file_unmap(&b);
    }
}

/* More shards than are kept open at a time; rows read just before another shard stay where they are. */
static void many_shards(void **state)
{
    (void)state;
    const char *folder = fresh("many");
    struct stream s = make_stream();
    struct recording r;
    struct rows rows;
    struct recording_rows before = {0}, read;
    struct err e = {0};
    s.n_seq = 3 * RECORDING_MAX_OPEN;
    assert_int_equal(rows_init(&rows, &s, PER_SEQ, &e), 0);
    assert_int_equal(recording_create(&r, folder, &s, ROW_F32, 1, &e), 0);
    for (uint32_t i = 0; i < s.n_seq; i++) {
        put_rows(&rows, &s, i, 1, ROW_F32);
        assert_int_equal(recording_write(&r, i, &rows, &e), 0);
    }
    assert_int_equal(recording_flush(&r, &e), 0);
    recording_close(&r);
    must_open(&r, folder);
    size_t bytes = PER_SEQ * stream_row_bytes(&s, ROW_F32);
    for (uint32_t turn = 0, last = 0; turn < 500; turn++) {
        uint32_t i = turn * 71 % s.n_seq;
        assert_int_equal(recording_read(&r, i, 1, &read, &e), 0);
        put_rows(&rows, &s, i, 1, ROW_F32);
        assert_memory_equal(read.acts, rows.acts, bytes);
        if (turn) {
            put_rows(&rows, &s, last, 1, ROW_F32);
            assert_memory_equal(before.acts, rows.acts, bytes);
        }
        before = read;
        last = i;
    }
    rows_release(&rows);
    recording_close(&r);
}

/* ---- damaged ---- */

static char manifest[4096];

static void read_manifest(const char *folder)
{
    char path[600], *text;
    size_t size;
    struct err e = {0};
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    if (file_read_text(path, sizeof manifest - 1, &text, &size, &e))
        fail_msg("%s", e.message);
    memcpy(manifest, text, size + 1);
    mem_free(text);
}

/* Makes the text that of an older recording, which may say anything: without its checksum, of version 1. */
static void unseal(void)
{
    char *version = strstr(manifest, "\"version\": 2"), *checksum = strstr(manifest, ",\n  \"checksum\"");
    assert_true(version && checksum);
    version[strlen("\"version\": ")] = '1';
    strcpy(checksum, "\n}\n");
}

static void damaged_manifest(void **state)
{
    (void)state;
    const char *folder = make("manifest", ROW_BF16);
    struct recording r;
    struct err e = {0};
    static const struct {
        const char *from, *to, *why;
    } cases[] = {
        {"{", "", "not JSON"},
        {"\"format\"", "\"farmot\"", "not the manifest"},
        {"crossfeed-recording", "something", "not the manifest"},
        {"\"version\": 1", "\"version\": 3", "version 3, this program reads 1 and 2"},
        {"\"version\": 1", "\"version\": 2", "version 2 has a checksum at its end"},
        {"\"version\": 1", "\"version\": \"1\"", "not the manifest"},
        {"\"bf16\"", "\"int8\"", "int8"},
        {"\"shard_seqs\": 4", "\"shard_seqs\": 0", "0 sequences a shard"},
        {"\"shard_seqs\": 4", "\"shard_seqs\": -4", "-4 sequences a shard"},
        {"\"shard_seqs\": 4", "\"shard_seqs\": 4294967296", "4294967296 sequences a shard"},
        {"\"shard_seqs\": 4", "\"shard_seqs\": 1.5", "not the manifest"},
        {"\"scale\": [", "\"scale\": [1.0,", "3 scales for 2 sites"},
        {"\"scale\": [", "\"scale\": {}, \"other\": [", "not the manifest"},
        {"0.30000001192092896", "-1", "scale of site 0 is -1"},
        {"0.30000001192092896", "\"1\"", "scale of site 0"},
        {"0.30000001192092896", "1e300", "scale of site 0"},
        {"\"n_seq\": 10", "\"n_seq\": 0", "n_seq 0"},
        {"\"n_seq\": 10", "\"n_seq\": 4294967295", "at most 1048576"},
        {"\"n_seq\": 10", "\"n_seq\": 4", "shard '1' is not one of 1"},
        {"\"d_model\": 5", "\"d_model\": -5", "stream description"},
        {"\"d_model\": 5", "\"d_model\": 4000000000", "larger than a chunk"},
        {"\"rows_per_seq\": 3", "\"rows_per_seq\": 9", "9 rows per sequence of 4 tokens"},
        {"\"tokens\": \"tokens\"", "\"tokens\": 5", "stream description"},
        {"\"sites\": [", "\"sites\": [3, ", "stream description"},
        {"blocks.0.", "blocks 0.", "name of site 0"},
        {"\"stream\": {", "\"stream\": [], \"other\": {", "stream description"},
        {"\"0\": \"", "\"3\": \"", "shard '3' is not one of 3"},
        {"\"0\": \"", "\"\": \"", "shard '' is not one of 3"},
        {"\"0\": \"", "\"-1\": \"", "shard '-1'"},
        {"\"0\": \"", "\" 0\": \"", "shard ' 0'"},
        {"\"0\": \"", "\"01\": \"", "shard '01'"},
        {"\"0\": \"", "\"1\": \"", "not JSON"}, /* twice */
        {"\"0\": \"", "\"0\": \"ab", "with a checksum"},
        {"\"0\": \"", "\"0\": null, \"2\": \"", "not JSON"},
        {"\"shards\": {", "\"shards\": 5, \"other\": {", "not the manifest"},
    };
    read_manifest(folder);
    char whole[sizeof manifest];
    strcpy(whole, manifest);
    unseal();
    scratch_write("manifest/manifest.json", manifest, strlen(manifest));
    assert_int_equal(recording_open(&r, folder, &e), 0); /* as it was before there were checksums */
    assert_false(r.sealed);
    recording_close(&r);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[sizeof manifest + 64];
        const char *at = strstr(manifest, cases[i].from);
        if (!at)
            fail_msg("no '%s' in the manifest:\n%s", cases[i].from, manifest);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - manifest), manifest, cases[i].to,
                 at + strlen(cases[i].from));
        scratch_write("manifest/manifest.json", text, strlen(text));
        if (recording_open(&r, folder, &e) == 0)
            fail_msg("opened with '%s'", cases[i].to);
        one_line(&e, e.code, cases[i].why);
        one_line(&e, e.code, "manifest");
    }
    strcpy(manifest, whole);
    for (size_t at = 0; at < strlen(whole); at++) { /* a bit of any byte, and cut anywhere */
        manifest[at] ^= (char)(1 << at % 7);
        scratch_write("manifest/manifest.json", manifest, strlen(whole));
        assert_int_equal(recording_open(&r, folder, &e), ERR_DAMAGED);
        one_line(&e, e.code, "manifest.json");
        manifest[at] = whole[at];
    }
    for (size_t size = 0; size < strlen(manifest); size += 13) {
        scratch_write("manifest/manifest.json", manifest, size);
        assert_int_not_equal(recording_open(&r, folder, &e), 0);
        one_line(&e, e.code, "manifest.json");
    }
    assert_int_not_equal(recording_open(&r, scratch_path("nowhere"), &e), 0);
    one_line(&e, ERR_SYSTEM, "nowhere/manifest.json");
}

static const char *shard_file(const char *folder, unsigned shard)
{
    static char path[600];
    snprintf(path, sizeof path, "%s/shard_%08u.safetensors", folder, shard);
    return path;
}

/* Flips a bit of a file, `back` bytes before its end. */
static void flip(const char *path, long back)
{
    FILE *f = fopen(path, "r+b");
    assert_true(f && fseek(f, -back, SEEK_END) == 0);
    int byte = fgetc(f);
    assert_true(byte != EOF && fseek(f, -back, SEEK_END) == 0 && fputc(byte ^ 4, f) != EOF && fclose(f) == 0);
}

/* Rows that are not sent as a whole shard are compared in chunks: damage is found by who reads near it, and by nobody else. */
static void damaged_rows(void **state)
{
    (void)state;
    enum { ROWS = 63, WIDTH = 1024, CHUNK = 64, N = 4, ROW_BYTES = SITES * WIDTH * 2 };
    struct stream s = make_stream();
    s.seq_len = ROWS + 1;
    s.rows_per_seq = ROWS;
    s.d_model = WIDTH;
    s.n_seq = N;
    const char *folder = fresh("pieces"), *shard = shard_file(folder, 0);
    struct recording r;
    struct rows rows;
    struct source source;
    struct err e = {0};
    assert_int_equal(stream_chunk_rows(&s, ROW_BF16), CHUNK);
    assert_int_equal(recording_create(&r, folder, &s, ROW_BF16, N, &e), 0);
    assert_int_equal(rows_init(&rows, &s, N * ROWS, &e), 0);
    rows_begin(&rows, &s, N * ROWS, ROW_BF16, s.scale);
    float vector[WIDTH];
    for (size_t row = 0; row < N * ROWS; row++) {
        for (size_t i = 0; i < WIDTH; i++)
            vector[i] = (float)(row + i);
        for (size_t site = 0; site < SITES; site++)
            rows_put(&rows, row, site, vector);
        rows_put_origin(&rows, row, (struct row_origin){(uint32_t)(row / ROWS), (uint32_t)(row % ROWS) + 1, 7});
    }
    assert_int_equal(recording_write(&r, 0, &rows, &e), 0);
    recording_close(&r);

    /* What lies where, back from the end: checksums 8 each, sequences 8 a row, positions and tokens 4, activations. */
    const long sequences = 4 * 8, positions = sequences + 8 * N * ROWS, tokens = positions + 4 * N * ROWS,
               acts = tokens + 4 * N * ROWS;
    const struct {
        long back;
        unsigned hit; /* sequences whose rows share a chunk with it: bits */
    } cases[] = {
        {acts + 1, 8},                              /* the last row: chunk 3, rows 192 to 251, sequence 3 */
        {acts + (N * ROWS - 130L) * ROW_BYTES, 12}, /* row 130: chunk 2, rows 128 to 191, sequences 2 and 3 */
        {acts + (N * ROWS) * (long)ROW_BYTES, 3},   /* row 0: chunk 0, rows 0 to 63, sequences 0 and 1 */
        {tokens + 4 * (N * ROWS - 70L), 6},         /* row 70: chunk 1, rows 64 to 127, sequences 1 and 2 */
        {positions + 1, 8},
        {sequences + 8, 8}, /* the low byte: only 32 bits are used */
        {9, 12},            /* the checksum of chunk 2 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        flip(shard, cases[i].back);
        assert_int_equal(source_recording_open(&source, folder, false, &e), 0);
        for (uint32_t turn = 0; turn < 2 * N; turn++) {
            uint32_t seq = turn % N;
            rows_begin(&rows, &s, ROWS, ROW_BF16, NULL);
            int rc = source.compute(source.self, seq, 1, &rows, &e),
                expected = cases[i].hit >> seq & 1 ? ERR_DAMAGED : 0;
            if (rc != expected)
                fail_msg("case %zu, sequence %u: %d: %s", i, seq, rc, e.message);
            if (rc)
                one_line(&e, ERR_DAMAGED, "shard_00000000.safetensors: rows ");
        }
        source.close(source.self);
        flip(shard, cases[i].back);
    }
    rows_release(&rows);
}

static void damaged_shard(void **state)
{
    (void)state;
    const char *folder = make("shards", ROW_BF16), *wide = make("wide", ROW_F32);
    char other[600];
    struct recording r;
    struct recording_rows read;
    struct err e = {0};
    must_open(&r, folder);

    /* one bit: its checksum, and only if asked for */
    FILE *f = fopen(shard_file(folder, 0), "r+b");
    assert_non_null(f);
    fseek(f, -1, SEEK_END);
    fputc(0x55, f);
    fclose(f);
    assert_int_equal(recording_verify_shard(&r, 0, &e), ERR_INPUT);
    one_line(&e, ERR_INPUT, "checksum");
    assert_int_equal(recording_verify_shard(&r, 1, &e), 0);
    assert_int_equal(recording_read(&r, 0, 1, &read, &e), 0);
    struct source source;
    assert_int_equal(source_recording_open(&source, folder, true, &e), ERR_INPUT);
    one_line(&e, ERR_INPUT, "shard_00000000.safetensors: checksum");

    /* cut, of other rows, of another dtype, missing */
    assert_int_equal(truncate(shard_file(folder, 1), 200), 0);
    assert_int_equal(recording_read(&r, SHARD, 1, &read, &e), ERR_INPUT);
    one_line(&e, ERR_INPUT, "shard_00000001.safetensors");
    strcpy(other, shard_file(folder, 2));
    assert_int_equal(rename(other, shard_file(folder, 1)), 0);
    assert_int_equal(recording_read(&r, SHARD, 1, &read, &e), ERR_INPUT);
    one_line(&e, ERR_INPUT, "acts has shape [6, 2, 5], expected [12, 2, 5]");
    assert_int_equal(recording_read(&r, 2 * SHARD, 1, &read, &e), ERR_SYSTEM);
    one_line(&e, ERR_SYSTEM, "shard_00000002.safetensors: cannot open");
    assert_int_equal(recording_verify_shard(&r, 2, &e), ERR_INPUT);
    strcpy(other, shard_file(wide, 2));
    assert_int_equal(rename(other, shard_file(folder, 2)), 0);
    assert_int_equal(recording_read(&r, 2 * SHARD, 1, &read, &e), ERR_INPUT);
    one_line(&e, ERR_INPUT, "acts are F32, the manifest has bf16");
    assert_int_equal(recording_read(&r, 0, 1, &read, &e), 0); /* the others are as they were */
    recording_close(&r);
}

static int remove_folders(void **state)
{
    static const char *const folders[] = {"bf16", "fp32",     "source", "continued", "whole",
                                          "many", "manifest", "shards", "wide",      "pieces"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        file_remove_tree(scratch_path(folders[i]), NULL);
    return scratch_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16),         cmocka_unit_test(fp32),          cmocka_unit_test(as_a_source),
        cmocka_unit_test(continued),    cmocka_unit_test(many_shards),   cmocka_unit_test(damaged_manifest),
        cmocka_unit_test(damaged_rows), cmocka_unit_test(damaged_shard),
    };
    return cmocka_run_group_tests(tests, scratch_open, remove_folders);
}
