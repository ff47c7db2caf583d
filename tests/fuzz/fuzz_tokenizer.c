/* fuzz_tokenizer.c - any tokenizer.json; behind a NUL the text to encode with it. A file that begins with a NUL has
 * vocab.json, NUL, merges.txt, NUL, text instead; one that begins with 0x01 has tokenizer_config.json, NUL,
 * special_tokens_map.json, NUL, added_tokens.json, NUL, text, beside a small vocabulary.
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

static void link_file(int slot, const char *name, struct part p)
{
    fuzz_link(name, fuzz_file(slot, p.data, p.size));
}

static struct part constant(const char *text)
{
    return (struct part){(const uint8_t *)text, strlen(text)};
}

/* Fills the folder from the bytes, which then are the text. */
static void fill_folder(const uint8_t **data, size_t *size)
{
    static const char *const names[] = {
        "tokenizer.json",          "vocab.json",       "merges.txt", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json"};
    uint8_t kind = *size ? **data : 2;
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", fuzz_folder(), names[i]);
        unlink(path);
    }
    if (kind > 1) {
        link_file(0, names[0], next_part(data, size));
        return;
    }
    ++*data, --*size;
    if (kind == 0) {
        link_file(0, names[1], next_part(data, size));
        link_file(1, names[2], next_part(data, size));
        return;
    }
    for (int i = 0; i < 3; i++)
        link_file(i, names[3 + i], next_part(data, size));
    link_file(3, names[1], constant("{\"a\": 0, \"b\": 1, \"ab\": 2, \" \": 3}"));
    link_file(4, names[2], constant("a b\n"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    fill_folder(&data, &size);
    struct tokenizer *t = tokenizer_open(fuzz_folder(), &e);
    if (t)
        use(t, (struct part){data, size});
    else
        MUST(e.code && e.message[0]);
    tokenizer_close(t);
    return 0;
}
