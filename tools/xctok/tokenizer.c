/* tokenizer.c - pieces of a document into words, words into ids; see tokenizer.h.
 *
 * The buffer holds the text whose ids are not out yet. A word's end e is certain when what follows it is in the buffer:
 * the pattern looks at most one white space and one character beyond a word (WORD_LOOKAHEAD), and an added token, which
 * would end the text as the pattern sees it, cannot begin there unseen (the longest token's length further on). */
#include "tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "added.h"
#include "mem.h"
#include "utf8.h"

/* These characters Unicode 16 has and Unicode 14 has not. */
#define NEW_LETTERS                                                                                            \
    "\\x{1C89}-\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}\\x{10D4A}-\\x{10D65}"      \
    "\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}" \
    "\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}"  \
    "\\x{11F12}-\\x{11F33}\\x{1342F}\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}"           \
    "\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}\\x{1E030}-\\x{1E06D}"            \
    "\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"
#define NEW_NUMBERS                                                                                             \
    "\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}\\x{11F50}-\\x{11F59}\\x{16130}-\\x{16139}" \
    "\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}"
#define LETTER "\\p{L}" NEW_LETTERS
#define NUMBER "\\p{N}" NEW_NUMBERS
/* Unicode's White_Space; PCRE2's own \s has U+180E too. The same set as in utf8.c. */
#define SPACE "\\t-\\r\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static const char pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?[" LETTER "]+| ?[" NUMBER "]+| ?[^" SPACE LETTER NUMBER "]+"
                              "|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+";

enum {
    BUFFER = 1 << 18, /* bytes */
    PIECE = 1 << 16,  /* of what is fed, at a time */
    WORD_LOOKAHEAD = 16,
};

struct tokenizer {
    struct vocabulary vocabulary;
    struct added raw, normalized; /* looked for in this order */
    struct bpe bpe;
    pcre2_code *words;
    pcre2_match_data *match;
    struct utf8 utf8;
    char *buffer; /* one spare byte, then the text */
    size_t n, capacity;
    size_t least, threshold; /* text is encoded when n is at the threshold: least, or twice what was left before */
    bool in_stretch;         /* the text goes on from a word, not from an added token or the document's start */
};

static void *pcre2_alloc(size_t bytes, void *context)
{
    (void)context;
    return mem_raw_alloc(bytes);
}

static void pcre2_free(void *p, void *context)
{
    (void)context;
    mem_raw_free(p);
}

static int compile(struct tokenizer *t, struct err *e)
{
    int code = 0;
    PCRE2_SIZE offset;
    pcre2_general_context *memory = pcre2_general_context_create(pcre2_alloc, pcre2_free, NULL);
    pcre2_compile_context *context = memory ? pcre2_compile_context_create(memory) : NULL;
    if (context)
        t->words = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED,
                                 &code, &offset, context);
    if (t->words) { /* it remembers its allocator, for what follows and for matching */
        pcre2_jit_compile(t->words, PCRE2_JIT_COMPLETE); /* without a JIT pcre2_match interprets: slower, the same */
        t->match = pcre2_match_data_create_from_pattern(t->words, NULL);
    }
    pcre2_compile_context_free(context);
    pcre2_general_context_free(memory);
    if (mem_raw_failed("GPT-2's pattern", e))
        return ERR_MEMORY;
    if (!t->words || !t->match) {
        char text[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        return err_set(e, ERR_SYSTEM, "PCRE2 does not compile GPT-2's pattern: %s", text);
    }
    return 0;
}

struct tokenizer *tokenizer_open(const char *path, struct err *e)
{
    struct tokenizer *t = mem_alloc(1, sizeof *t, "tokenizer", e);
    if (!t)
        return NULL;
    t->least = t->threshold = BUFFER;
    t->capacity = 2 * BUFFER;
    if (!vocabulary_load(&t->vocabulary, path, e) && !added_init(&t->raw, &t->vocabulary, false, e) &&
        !added_init(&t->normalized, &t->vocabulary, true, e) &&
        !bpe_init(&t->bpe, t->vocabulary.byte_token, t->vocabulary.merges, t->vocabulary.n_merges, e) &&
        !compile(t, e)) {
        t->buffer = mem_alloc(t->capacity + 1, 1, "text buffer", e);
        if (t->buffer)
            return t;
    }
    tokenizer_close(t);
    return NULL;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    pcre2_match_data_free(t->match);
    pcre2_code_free(t->words);
    bpe_free(&t->bpe);
    added_free(&t->raw);
    added_free(&t->normalized);
    vocabulary_free(&t->vocabulary);
    mem_free(t->buffer);
    mem_free(t);
}

const struct vocabulary *tokenizer_vocabulary(const struct tokenizer *t)
{
    return &t->vocabulary;
}

uint64_t tokenizer_invalid(const struct tokenizer *t)
{
    return t->utf8.invalid;
}

int tokenizer_find(const struct tokenizer *t, const char *text, uint32_t *id, struct err *e)
{
    const struct vocabulary *v = &t->vocabulary;
    size_t size = strlen(text);
    for (size_t i = 0; i < v->n_added; i++)
        if (v->added[i].size == size && memcmp(v->added[i].text, text, size) == 0) {
            *id = v->added[i].id;
            return 0;
        }
    for (size_t i = 0; i < v->n_tokens; i++)
        if (v->tokens[i].bytes && v->tokens[i].size == size && memcmp(v->tokens[i].bytes, text, size) == 0) {
            *id = (uint32_t)i;
            return 0;
        }
    return err_set(e, ERR_INPUT, "the tokenizer has no token '%s'", text);
}

/* Encodes words of the stretch text[*from .. end), which holds no added token, and moves *from past them. whole: the
 * stretch ends at end; otherwise it may go on, and only words that end at `certain` or before are encoded. */
static int encode_stretch(struct tokenizer *t, char *text, size_t *from, size_t end, bool whole, size_t certain,
                          struct ids *out, struct err *e)
{
    char *word = text + *from, *stop = text + end;
    if (word == stop)
        return 0;
    if (t->vocabulary.add_prefix_space && !t->in_stretch && *word != ' ')
        *--word = ' '; /* the byte before is encoded already, or the spare one */
    while (word < stop) {
        const char *next = stop;
        if (t->vocabulary.use_regex) {
            int n =
                pcre2_match(t->words, (PCRE2_SPTR)word, (size_t)(stop - word), 0, PCRE2_NO_UTF_CHECK, t->match, NULL);
            if (n < 1) /* every character is in one of the pattern's classes: only its limits can fail it */
                return err_set(e, ERR_SYSTEM, "PCRE2: error %d on a run of %zu bytes", n, (size_t)(stop - word));
            next = word + pcre2_get_ovector_pointer(t->match)[1];
        }
        if (!whole && (next > text + certain || *from >= certain)) /* the latter: a word of the prefix space alone */
            break;
        if (bpe_encode(&t->bpe, word, (size_t)(next - word), out, e))
            return e->code;
        word += next - word;
        *from = (size_t)(word - text);
        t->in_stretch = true;
    }
    return 0;
}

static int put_added(struct tokenizer *t, const struct added_match *m, size_t *from, struct ids *out, struct err *e)
{
    if (ids_reserve(out, 1, e))
        return e->code;
    out->data[out->n++] = m->token->id;
    *from = m->stop;
    t->in_stretch = false;
    return 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t minus(size_t a, size_t b)
{
    return a < b ? 0 : a - b;
}

/* text[*from .. end) between two raw added tokens: normalized ones, and stretches between them. whole and *from as
 * above; certain: what lies before it is seen with all that could become of it. */
static int encode_between(struct tokenizer *t, char *text, size_t *from, size_t end, bool whole, size_t certain,
                          struct ids *out, struct err *e)
{
    while (*from < end) {
        struct added_match m = added_find(&t->normalized, text, *from, end);
        bool known = whole || (m.token && m.stop <= certain);
        if (encode_stretch(t, text, from, m.start, known, minus(least(certain, m.start), WORD_LOOKAHEAD), out, e))
            return e->code;
        if (!known)
            return 0;
        if (m.token && put_added(t, &m, from, out, e))
            return e->code;
    }
    return 0;
}

/* Encodes what is certain of the buffer, all of it if the document ends there, and keeps the rest. */
static int encode_buffer(struct tokenizer *t, bool whole, struct ids *out, struct err *e)
{
    char *text = t->buffer + 1;
    size_t longest = most(t->raw.longest, t->normalized.longest), from = 0;
    size_t certain = whole ? t->n : minus(t->n, longest); /* an added token that begins before is seen */
    while (from < t->n) {
        struct added_match m = added_find(&t->raw, text, from, t->n);
        bool known = whole || (m.token && m.at < certain);
        if (encode_between(t, text, &from, m.start, known, least(certain, m.start), out, e))
            return e->code;
        if (!known || (!whole && m.stop == t->n)) /* white space after it may go on */
            break;
        if (m.token && put_added(t, &m, &from, out, e))
            return e->code;
    }
    t->n -= from;
    memmove(text, text + from, t->n);
    t->threshold = most(2 * t->n, t->least);
    return 0;
}

static int reserve(struct tokenizer *t, size_t more, struct err *e)
{
    if (t->capacity - t->n >= more)
        return 0;
    size_t capacity = 2 * (t->n + more);
    char *buffer = mem_realloc(t->buffer, capacity + 1, 1, "a run of bytes without a word's end", e);
    if (!buffer)
        return ERR_MEMORY;
    t->buffer = buffer;
    t->capacity = capacity;
    return 0;
}

int tokenizer_feed(struct tokenizer *t, const char *text, size_t n, struct ids *out, struct err *e)
{
    for (size_t piece; n; text += piece, n -= piece) {
        piece = n < PIECE ? n : PIECE;
        if (reserve(t, UTF8_CLEAN_MAX(piece), e))
            return e->code;
        t->n += utf8_clean(&t->utf8, text, piece, t->buffer + 1 + t->n);
        if (t->n >= t->threshold && encode_buffer(t, false, out, e))
            return e->code;
    }
    return 0;
}

int tokenizer_end(struct tokenizer *t, struct ids *out, struct err *e)
{
    if (reserve(t, UTF8_CLEAN_MAX(0), e))
        return e->code;
    t->n += utf8_finish(&t->utf8, t->buffer + 1 + t->n);
    int rc = encode_buffer(t, true, out, e);
    t->in_stretch = false;
    return rc;
}

void tokenizer_drop(struct tokenizer *t)
{
    t->n = 0;
    t->threshold = t->least;
    t->utf8 = (struct utf8){.invalid = t->utf8.invalid};
    t->in_stretch = false;
}

void tokenizer_set_buffer(struct tokenizer *t, size_t n)
{
    t->least = t->threshold = n;
}
