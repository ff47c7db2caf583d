/* fuzz_documents.c - any file as documents to tokenize; the first byte says of which kind (lines, JSON lines, whole), and whether bad lines
 * are left out. */
#include "codec.h"
#include "corpus.h"
#include "file_format.h"
#include "fuzz.h"

struct seen {
    bool open;
    size_t documents, bytes;
};

static int begin(void *self, struct err *e)
{
    struct seen *s = self;
    (void)e;
    MUST(!s->open);
    s->open = true;
    s->documents++;
    return 0;
}

static int text(void *self, const char *bytes, size_t n, struct err *e)
{
    struct seen *s = self;
    (void)e;
    MUST(s->open);
    for (size_t i = 0; i < n; i++)
        s->bytes += 1 + (size_t)(bytes[i] == '\n');
    return 0;
}

static int finish(void *self, struct err *e)
{
    struct seen *s = self;
    (void)e;
    MUST(s->open);
    s->open = false;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum corpus_kind kinds[3] = {CORPUS_LINES, CORPUS_JSONL, CORPUS_FILES};
    struct seen seen = {0};
    struct err e = {0};
    if (size == 0)
        return 0;
    codec_memory = (size_t)64 << 20;
    struct corpus c = {.kind = kinds[data[0] % 3],
                       .field = "text",
                       .skip_bad_lines = data[0] / 3 % 2 == 1,
                       .sink = {.self = &seen, .begin = begin, .text = text, .end = finish}};
    const char *format = file_format(data + 1, size - 1); /* packed, or refused */
    if (corpus_read(&c, fuzz_file(0, data + 1, size - 1), &e)) {
        MUST(e.code && e.message[0] && (format || (c.kind == CORPUS_JSONL && !c.skip_bad_lines)));
        return 0;
    }
    MUST(!seen.open && (format || (c.bytes == size - 1 && seen.documents <= size)));
    return 0;
}
