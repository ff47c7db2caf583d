/* fuzz_text.c - any bytes as a document, with the tokenizers of tests/data: no id depends on where the text was cut. The
 * first byte chooses the cuts. */
#include "fuzz.h"
#include "tokenizer.h"

static void encode(struct tokenizer *t, const uint8_t *text, size_t size, size_t piece, struct ids *out)
{
    struct err e = {0};
    out->n = 0;
    for (size_t at = 0; at < size; at += piece)
        MUST(tokenizer_feed(t, (const char *)text + at, size - at < piece ? size - at : piece, out, &e) == 0);
    MUST(tokenizer_end(t, out, &e) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *tokenizers[2][2]; /* of each file one that waits for the whole, one that does not */
    static struct ids whole, pieces;
    static const char *const paths[2] = {TEST_DATA "/tokenizer/small", TEST_DATA "/tokenizer/prefix.json"};
    struct err e = {0};
    for (int i = 0; i < 4; i++)
        if (!tokenizers[i / 2][i % 2]) {
            MUST(tokenizers[i / 2][i % 2] = tokenizer_open(paths[i / 2], &e));
            tokenizer_set_buffer(tokenizers[i / 2][i % 2], i % 2 ? 1 : 1 << 18);
        }
    if (size < 2)
        return 0;
    for (int i = 0; i < 2; i++) {
        encode(tokenizers[i][0], data + 1, size - 1, size, &whole);
        encode(tokenizers[i][1], data + 1, size - 1, 1 + data[0] % 16, &pieces);
        MUST(pieces.n == whole.n &&
             (whole.n == 0 || memcmp(pieces.data, whole.data, whole.n * sizeof *whole.data) == 0));
        for (size_t k = 0; k < whole.n; k++)
            MUST(whole.data[k] < tokenizer_vocabulary(tokenizers[i][0])->n_tokens);
    }
    return 0;
}
