/* fuzz_npy.c - a whole .npy file: as tokens, as lengths, as rows to import, as ids to decode. */
#include "decode.h"
#include "fuzz.h"
#include "npy.h"
#include "source_import.h"
#include "tokens.h"

static void as_tokens(const char *path)
{
    struct tokens t;
    struct err e = {0};
    uint32_t ids[64];
    if (tokens_open(&t, path, 0, 0, &e) == 0)
        tokens_close(&t);
    if (tokens_open(&t, path, 0, 50257, &e)) {
        MUST(e.code && e.message[0]);
        return;
    }
    for (uint32_t s = 0; t.seq_len <= 64 && s < t.n_seq; s++) {
        tokens_get(&t, s, ids);
        for (uint32_t p = 0; p < t.seq_len; p++)
            MUST(ids[p] < 50257);
    }
    if (tokens_open_lengths(&t, path, &e) == 0)
        MUST(tokens_length(&t, t.n_seq - 1) <= t.seq_len);
    tokens_close(&t);
}

static void as_lengths(const char *path, size_t n_seq)
{
    struct tokens t = {.n_seq = (uint32_t)n_seq, .seq_len = 8, .file.shape = {n_seq, 16}, .fingerprint = "aa"};
    struct err e = {0};
    if (n_seq && n_seq <= UINT32_MAX && tokens_open_lengths(&t, path, &e) == 0)
        for (uint32_t s = 0; s < t.n_seq; s++)
            MUST(tokens_length(&t, s) <= 8);
    lengths_close(&t.lengths);
}

static void as_rows(const char *path, bool bf16)
{
    struct source source;
    struct rows rows;
    struct err e = {0};
    struct import_options o = {.files = &path, .n_files = 1, .npy_bf16 = bf16};
    if (source_import_open(&source, &o, &e))
        return;
    uint32_t n = source.stream.n_seq < 4 ? source.stream.n_seq : 4;
    if (rows_init(&rows, &source.stream, n, &e) == 0) {
        rows_begin(&rows, &source.stream, n, ROW_F32, NULL);
        source.compute(source.self, source.stream.n_seq - n, n, &rows, &e);
        rows_release(&rows);
    }
    source.close(source.self);
}

static void as_text(const char *path)
{
    static FILE *nowhere;
    static struct token tokens[300];
    static char bytes[] = "\xc3\xa9"; /* a character; without its end, half of one */
    struct vocabulary v = {.tokens = tokens, .n_tokens = 300};
    struct err e = {0};
    for (size_t i = 0; i < 300; i++)
        tokens[i] = (struct token){.bytes = i % 7 == 6 ? NULL : bytes, .size = 1 + i % 2};
    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    MUST(nowhere);
    for (int separate = 0; separate < 2; separate++)
        decode(&(struct decode_options){.path = path, .stop = SIZE_MAX, .separate = separate}, &v, nowhere, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct npy n;
    struct err e = {0};
    const char *path = fuzz_file(0, data, size);
    if (npy_open(&n, path, &e)) {
        MUST(e.code && e.message[0]);
        return 0;
    }
    MUST(n.data + (n.n_dims ? 0 : n.item_size) <= n.map.data + n.map.size && npy_dtype_name(n.dtype));
    size_t n_seq = n.n_dims ? n.shape[0] : 0;
    npy_close(&n);
    as_tokens(path);
    as_lengths(path, n_seq);
    as_rows(path, false);
    as_rows(path, true);
    as_text(path);
    return 0;
}
