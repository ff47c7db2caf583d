/* fuzz_tokenizer.c - any tokenizer.json; behind a NUL the text to encode with it. A file that begins with a NUL has
 * vocab.json, NUL, merges.txt, NUL, text instead.
 *
 * Ids do not depend on where the text was cut, and every id is one that the vocabulary can decode. */
#include "fuzz.h"
#include "mem.h"
#include "tokenizer.h"

#define MAX_TEXT 4096

struct part {
    const uint8_t *data;
    size_t size;
};

/* Up to the next NUL, which is skipped, or the end. */
static struct part next_part(const uint8_t **data, size_t *size)
{
    const uint8_t *nul = memchr(*data, 0, *size);
    struct part p = {*data, nul ? (size_t)(nul - *data) : *size};
    size_t used = p.size + (nul != NULL);
    *data += used;
    *size -= used;
    return p;
}

static void encode(struct tokenizer *t, struct part text, size_t piece, struct ids *out)
{
    struct err e = {0};
    out->n = 0;
    for (size_t at = 0; at < text.size; at += piece)
        MUST(tokenizer_feed(t, (const char *)text.data + at, text.size - at < piece ? text.size - at : piece, out,
                            &e) == 0);
    MUST(tokenizer_end(t, out, &e) == 0);
}

static void use(struct tokenizer *t, struct part text)
{
    const struct vocabulary *v = tokenizer_vocabulary(t);
    struct ids whole = {0}, pieces = {0};
    struct err e = {0};
    uint32_t id;
    if (text.size > MAX_TEXT)
        text.size = MAX_TEXT;
    encode(t, text, MAX_TEXT, &whole);
    for (size_t i = 0; i < whole.n; i++)
        MUST(whole.data[i] < v->n_tokens && v->tokens[whole.data[i]].bytes);
    tokenizer_set_buffer(t, 1);
    encode(t, text, 3, &pieces);
    MUST(pieces.n == whole.n && (whole.n == 0 || memcmp(pieces.data, whole.data, whole.n * sizeof *whole.data) == 0));
    tokenizer_find(t, "<|endoftext|>", &id, &e);
    mem_free(whole.data);
    mem_free(pieces.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    char path[128];
    bool gpt2 = size && data[0] == 0;
    if (gpt2)
        next_part(&data, &size);
    struct part first = next_part(&data, &size), merges = gpt2 ? next_part(&data, &size) : (struct part){0};
    snprintf(path, sizeof path, "%s/tokenizer.json", fuzz_folder());
    unlink(path);
    fuzz_link(gpt2 ? "vocab.json" : "tokenizer.json", fuzz_file(0, first.data, first.size));
    if (gpt2)
        fuzz_link("merges.txt", fuzz_file(1, merges.data, merges.size));
    struct tokenizer *t = tokenizer_open(fuzz_folder(), &e);
    if (t)
        use(t, (struct part){data, size});
    else
        MUST(e.code && e.message[0]);
    tokenizer_close(t);
    return 0;
}
