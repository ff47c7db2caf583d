/* The tokenizer: ids and text as the tokenizers package gives them (golden cases), whatever the pieces that a document
 * comes in and whatever the buffer; packing; what is refused is named. */
#include "tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <jansson.h>

#include "corpus.h"
#include "decode.h"
#include "mem.h"
#include "npy.h"
#include "pack.h"
#include "rng.h"
#include "scratch.h"
#include "utf8.h"

#define FOLDER TEST_DATA "/tokenizer/"

static struct tokenizer *open_tokenizer(const char *path)
{
    struct err e = {0};
    struct tokenizer *t = tokenizer_open(path, &e);
    if (!t)
        fail_msg("%s", e.message);
    return t;
}

static void feed(struct tokenizer *t, const char *text, size_t n, size_t piece, struct ids *ids)
{
    struct err e = {0};
    ids->n = 0;
    for (size_t i = 0, m; i < n; i += m) {
        m = n - i < piece ? n - i : piece;
        assert_int_equal(tokenizer_feed(t, text + i, m, ids, &e), 0);
    }
    assert_int_equal(tokenizer_end(t, ids, &e), 0);
}

static size_t from_hex(const char *hex, char *bytes)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        bytes[i] = (char)byte;
    }
    return n;
}

/* The ids as a tensor of one row, decoded, must be the text. */
static void decodes_to(const struct tokenizer *t, const struct ids *ids, bool skip_special, json_t *expected)
{
    struct err e = {0};
    struct tensor_out out;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_int_equal(tensor_out_open(&out, scratch_path("row.npy"), ids->n, false, &e), 0);
    assert_int_equal(tensor_out_row(&out, ids->data, &e), 0);
    assert_int_equal(tensor_out_commit(&out, &e), 0);
    const struct decode_options o = {
        .path = scratch_path("row.npy"), .stop = SIZE_MAX, .skip_special = skip_special, .separate = true};
    if (decode(&o, tokenizer_vocabulary(t), f, &e))
        fail_msg("%s", e.message);
    fclose(f);
    assert_int_equal(n, json_string_length(expected) + 1);
    assert_memory_equal(text, json_string_value(expected), n - 1);
    free(text);
}

static void golden(void **state)
{
    (void)state;
    static char text[1 << 16];
    json_error_t where;
    json_t *cases = json_load_file(FOLDER "golden.json", JSON_ALLOW_NUL, &where), *one;
    struct ids ids = {0};
    struct tokenizer *t = NULL;
    const char *open = "";
    size_t index;
    assert_true(json_array_size(cases) > 100);
    json_array_foreach(cases, index, one)
    {
        const char *name = json_string_value(json_object_get(one, "tokenizer"));
        const json_t *expected = json_object_get(one, "ids");
        if (strcmp(name, open) != 0) {
            char path[1024];
            tokenizer_close(t);
            snprintf(path, sizeof path, FOLDER "%s", name);
            t = open_tokenizer(path);
            open = name;
        }
        size_t n = from_hex(json_string_value(json_object_get(one, "text")), text);
        for (size_t piece = 1; piece <= 1024; piece += 1023) {
            feed(t, text, n, piece, &ids);
            bool same = ids.n == json_array_size(expected);
            for (size_t i = 0; same && i < ids.n; i++)
                same = ids.data[i] == (uint32_t)json_integer_value(json_array_get(expected, i));
            if (!same)
                fail_msg("case %zu, %s: %s", index, name, json_string_value(json_object_get(one, "text")));
        }
        if (ids.n) {
            decodes_to(t, &ids, false, json_object_get(one, "decoded"));
            decodes_to(t, &ids, true, json_object_get(one, "skipped"));
        }
    }
    tokenizer_close(t);
    json_decref(cases);
    mem_free(ids.data);
}

/* Text made of what could go wrong at a cut. */
static size_t difficult_text(struct rng *r, char *text, size_t n)
{
    static const char *const parts[] = {"a",
                                        "b",
                                        "aaa",
                                        "aaaa",
                                        " ",
                                        "  ",
                                        "\n",
                                        "\r\n",
                                        "'",
                                        "'re",
                                        "'l",
                                        "1",
                                        "23",
                                        ".",
                                        "!?",
                                        "\xc3\xa9",
                                        "\xe4\xb8\x96",
                                        "\xe3\x80\x80",
                                        "\xff",
                                        "\xe4",
                                        "<|",
                                        "<|im",
                                        "<|im|>",
                                        "<left>",
                                        "<right>",
                                        "<both>",
                                        "<|im_start|>",
                                        "user",
                                        "t",
                                        "<|endof",
                                        "text|>",
                                        "two",
                                        " words",
                                        "\xc2\xa0",
                                        "\xf0\x9f\x98\x80",
                                        "<|endoftext|>"};
    size_t at = 0;
    while (at < n) {
        const char *part = parts[rng_below(r, sizeof parts / sizeof *parts)];
        for (uint32_t times = rng_below(r, 16) ? 1 : 1 + rng_below(r, 40); times && at < n; times--) {
            size_t m = strlen(part) < n - at ? strlen(part) : n - at;
            memcpy(text + at, part, m);
            at += m;
        }
    }
    return n;
}

/* The small tokenizer: nothing but the pattern decides what is certain. */
static const char *without_added_tokens(void)
{
    json_t *root = json_load_file(FOLDER "small/tokenizer.json", 0, NULL);
    const char *path = scratch_path("without.json");
    assert_int_equal(json_object_del(root, "added_tokens"), 0);
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
    return path;
}

static void cuts_do_not_matter(void **state)
{
    (void)state;
    const char *names[] = {FOLDER "small", FOLDER "prefix.json", DEMO "/base", without_added_tokens()};
    static char text[4096];
    struct ids whole = {0}, cut = {0};
    for (size_t k = 0; k < 4; k++) {
        struct tokenizer *t = open_tokenizer(names[k]);
        for (uint64_t trial = 0; trial < 1500; trial++) {
            struct rng r;
            rng_init(&r, 7, RNG_TEST, trial);
            size_t n = difficult_text(&r, text, 1 + rng_below(&r, sizeof text));
            tokenizer_set_buffer(t, 1 << 20);
            feed(t, text, n, n, &whole);
            tokenizer_set_buffer(t, 1 + rng_below(&r, 300));
            feed(t, text, n, 1 + rng_below(&r, 60), &cut);
            assert_int_equal(whole.n, cut.n);
            assert_memory_equal(whole.data, cut.data, whole.n * sizeof *whole.data);
        }
        tokenizer_close(t);
    }
    mem_free(whole.data);
    mem_free(cut.data);
}

/* Half a million of one character: seconds if merging were quadratic, hours. */
static void long_runs(void **state)
{
    (void)state;
    enum { N = 1 << 19 };
    static char text[N];
    struct tokenizer *t = open_tokenizer(DEMO "/base");
    struct ids ids = {0};
    const char characters[] = "a= \n0'";
    for (size_t i = 0; characters[i]; i++) {
        size_t total = 0;
        memset(text, characters[i], N);
        feed(t, text, N, 10000, &ids);
        for (size_t j = 0; j < ids.n; j++)
            total += tokenizer_vocabulary(t)->tokens[ids.data[j]].size;
        assert_int_equal(total, N);
    }
    tokenizer_close(t);
    mem_free(ids.data);
}

static void white_space(void **state)
{
    (void)state;
    const char *spaces[] = {" ",
                            "\t",
                            "\r",
                            "\xc2\x85",
                            "\xc2\xa0",
                            "\xe1\x9a\x80",
                            "\xe2\x80\x8a",
                            "\xe2\x80\xa9",
                            "\xe2\x80\xaf",
                            "\xe3\x80\x80"};
    const char *others[] = {"",
                            "x",
                            "\x08",
                            "\xc2\x86",
                            "\xe1\xa0\x8e",
                            "\xe2\x80\x8b",
                            "\xe3\x80\x81",
                            "\xef\xbb\xbf",
                            "\xf0\x9f\x98\x80"};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        size_t n = strlen(spaces[i]);
        assert_int_equal(utf8_space_at(spaces[i], spaces[i] + n), n);
        assert_int_equal(utf8_space_before(spaces[i], spaces[i] + n), n);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        size_t n = strlen(others[i]);
        assert_int_equal(utf8_space_at(others[i], others[i] + n), 0);
        assert_int_equal(utf8_space_before(others[i], others[i] + n), 0);
    }
}

/* Packing, of documents that stand for themselves. */
static void pack_all(const struct pack_options *o, const char *const *documents, int expected, struct err *e)
{
    struct pack p;
    uint32_t ids[64];
    int rc = pack_open(&p, o, e);
    for (size_t d = 0; !rc && documents[d]; d++) {
        size_t n = strlen(documents[d]);
        for (size_t i = 0; i < n; i++)
            ids[i] = (uint32_t)documents[d][i];
        assert_int_equal(pack_begin(&p, e), 0);
        assert_int_equal(pack_ids(&p, ids, n / 2, e), 0);
        assert_int_equal(pack_ids(&p, ids + n / 2, n - n / 2, e), 0);
        assert_int_equal(pack_end(&p, e), 0);
    }
    if (!rc)
        rc = pack_commit(&p, e);
    pack_abandon(&p);
    assert_int_equal(rc, expected);
}

static void holds(const char *path, size_t rows, size_t columns, const char *expected)
{
    struct npy n;
    struct err e = {0};
    if (npy_open(&n, path, &e))
        fail_msg("%s", e.message);
    assert_int_equal(n.shape[0], rows);
    assert_int_equal(n.n_dims == 2 ? n.shape[1] : 0, columns);
    for (size_t i = 0; i < rows * (columns ? columns : 1); i++) {
        uint32_t x = 0;
        memcpy(&x, n.data + i * n.item_size, n.item_size);
        assert_int_equal(x, (uint32_t)expected[i]);
    }
    assert_int_equal((size_t)(n.data - n.map.data), 128);
    npy_close(&n);
}

static void packing(void **state)
{
    (void)state;
    struct err e = {0};
    char path[512], lengths[512];
    strcpy(path, scratch_path("packed.npy"));
    strcpy(lengths, scratch_path("packed.lengths.npy"));
    const char *documents[] = {"abcde", "", "fg", "hijklmnop", NULL}, *nothing[] = {"ab", NULL}, *empty[] = {"", NULL};
    struct pack_options o = {.path = path,
                             .seq_len = 4,
                             .bos = true,
                             .bos_id = '^',
                             .eos_id = '$',
                             .narrow = true,
                             .max_tokens = UINT64_MAX};
    pack_all(&o, documents, 0, &e);
    holds(path, 6, 4, "^abc^de$^$fg^$hi^jkl^mno");
    o.bos = false;
    o.narrow = false;
    pack_all(&o, documents, 0, &e);
    holds(path, 4, 4, "abcde$$fg$hijklm");
    o.max_tokens = 11;
    pack_all(&o, documents, 0, &e);
    holds(path, 2, 4, "abcde$$f");
    o.max_tokens = UINT64_MAX;
    pack_all(&o, nothing, ERR_INPUT, &e);
    assert_non_null(strstr(e.message, "the text fills 2 positions, one sequence has 4"));
    holds(path, 2, 4, "abcde$$f"); /* still the last good one */
    o.per_document = o.bos = true;
    pack_all(&o, documents, 0, &e);
    holds(path, 3, 4, "^abc^fg$^hij");
    holds(lengths, 3, 0, "\4\3\4");
    o.max_tokens = 8;
    pack_all(&o, documents, 0, &e);
    holds(path, 2, 4, "^abc^fg$");
    pack_all(&o, empty, ERR_INPUT, &e);
    assert_int_equal(access(lengths, F_OK), 0);
    o.per_document = false;
    pack_all(&o, documents, 0, &e);
    assert_int_not_equal(access(lengths, F_OK), 0); /* the older tensor's */
}

/* Documents as text: [a][b]... */
static int gather_begin(void *self, struct err *e)
{
    (void)e;
    strcat(self, "[");
    return 0;
}

static int gather_text(void *self, const char *text, size_t n, struct err *e)
{
    (void)e;
    strncat(self, text, n);
    return 0;
}

static int gather_end(void *self, struct err *e)
{
    (void)e;
    strcat(self, "]");
    return 0;
}

static int gather(enum corpus_kind kind, const char *text, char *documents, struct err *e)
{
    struct corpus c = {.kind = kind, .field = "text", .sink = {documents, gather_begin, gather_text, gather_end}};
    *documents = 0;
    return corpus_read(&c, scratch_write("corpus", text, strlen(text)), e);
}

static void corpora(void **state)
{
    (void)state;
    struct err e = {0};
    char documents[256];
    assert_int_equal(gather(CORPUS_FILES, "a\r\nb\n", documents, &e), 0);
    assert_string_equal(documents, "[a\r\nb\n]");
    assert_int_equal(gather(CORPUS_LINES, "a\r\n\nb\rc\n\rd\r\n\r\ne", documents, &e), 0);
    assert_string_equal(documents, "[a][][b\rc][\rd][][e]");
    assert_int_equal(gather(CORPUS_LINES, "", documents, &e), 0);
    assert_string_equal(documents, "");
    assert_int_equal(gather(CORPUS_JSONL,
                            "{\"text\": \"a\\n\\u00e9\"}\r\n\n \r\n{\"x\": 1, \"text\": \"\"}\n{\"text\":\"\xff\"}",
                            documents, &e),
                     0);
    assert_string_equal(documents, "[a\n\xc3\xa9][][\xef\xbf\xbd]");
    assert_int_equal(gather(CORPUS_JSONL, "{\"text\": \"a\"}\n{\"tex\": 1}", documents, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "line 2: no field 'text'"));
    assert_int_equal(gather(CORPUS_JSONL, "{\"text\": 7}", documents, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "line 1: no text in field 'text'"));
    assert_int_equal(gather(CORPUS_JSONL, "\n[1]", documents, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "line 2: is not an object with a field 'text'"));
    assert_int_equal(gather(CORPUS_JSONL, "{\"text\": \"\\ud800\"}", documents, &e), 0);
    assert_string_equal(documents, "[\xef\xbf\xbd]");
    assert_int_equal(gather(CORPUS_JSONL, "{\"text\": \"a\"", documents, &e), ERR_INPUT);
}

/* What is lost of texts is counted: invalid UTF-8, lone surrogates, and lines that are left out. */
static void counts(void **state)
{
    (void)state;
    struct err e = {0};
    char documents[256] = "";
    const char *text = "{\"text\": \"a\xff\\ud83d\"}\n{\"text\": null}\n{\"text\": \"b\"}\nx\n";
    struct corpus c = {.kind = CORPUS_JSONL,
                       .field = "text",
                       .sink = {documents, gather_begin, gather_text, gather_end},
                       .skip_bad_lines = true};
    assert_int_equal(corpus_read(&c, scratch_write("corpus", text, strlen(text)), &e), 0);
    assert_string_equal(documents, "[a\xef\xbf\xbd\xef\xbf\xbd][b]");
    assert_int_equal(c.invalid, 2);
    assert_int_equal(c.bad_lines, 2);
    assert_non_null(strstr(c.first_bad_line.message, "corpus: line 2: no text in field 'text'"));

    struct ids ids = {0};
    struct tokenizer *t = open_tokenizer(FOLDER "gpt2");
    feed(t,
         "a\xff"
         "b\xe4\xb8",
         6, 1, &ids);
    assert_int_equal(tokenizer_invalid(t), 2);
    assert_int_equal(tokenizer_feed(t, "\xff", 1, &ids, &e), 0);
    tokenizer_drop(t);
    feed(t, "\xc3\xa9\xff", 3, 1, &ids);
    assert_int_equal(tokenizer_invalid(t), 4);
    tokenizer_close(t);
    mem_free(ids.data);
}

static void refuses(const char *json, const char *part)
{
    struct err e = {0};
    struct tokenizer *t = tokenizer_open(scratch_write("t.json", json, strlen(json)), &e);
    assert_null(t);
    if (!strstr(e.message, part))
        fail_msg("message \"%s\" lacks \"%s\"", e.message, part);
}

#define MODEL(more) \
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [[\"a\", \"b\"]]" more "}"
#define PRE ", \"pre_tokenizer\": {\"type\": \"ByteLevel\"}"
#define ADDED(more) ", \"added_tokens\": [{\"content\": \"<x>\", \"id\": 3}, " more "]"

static void refusals(void **state)
{
    (void)state;
    struct err e = {0};
    uint32_t id;
    struct tokenizer *t =
        tokenizer_open(scratch_write("t.json", "{" MODEL("") PRE ADDED("{\"content\": \"ab\", \"id\": 2}") "}",
                                     strlen("{" MODEL("") PRE ADDED("{\"content\": \"ab\", \"id\": 2}") "}")),
                       &e);
    assert_non_null(t); /* what the others below change */
    assert_int_equal(tokenizer_find(t, "<x>", &id, &e), 0);
    assert_int_equal(id, 3);
    assert_int_equal(tokenizer_find(t, "<y>", &id, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "no token '<y>'"));
    tokenizer_close(t);
    refuses("{", "line 1");
    refuses("\x1f\x8b\x08", "not JSON but gzip");
    refuses("{}", "model is none of known type");
    refuses("{" MODEL("") "}", "pre_tokenizer is none of known type");
    refuses("{" MODEL("") PRE ", \"normalizer\": {\"type\": \"NFC\"}}", "normalizer NFC");
    refuses("{" MODEL("") ", \"pre_tokenizer\": {\"type\": \"Metaspace\"}}",
            "pre_tokenizer is Metaspace, only ByteLevel");
    refuses("{" MODEL("") PRE ", \"decoder\": {\"type\": \"WordPiece\"}}", "decoder is WordPiece, only ByteLevel");
    refuses("{" PRE ", \"model\": {\"type\": \"Unigram\", \"vocab\": {}}}", "line 1");
    refuses("{\"model\": {\"type\": \"Unigram\", \"vocab\": {}}" PRE "}", "model is Unigram, only BPE");
    refuses("{" MODEL(", \"byte_fallback\": true") PRE "}", "model.byte_fallback is set");
    refuses("{" MODEL(", \"dropout\": 0.1") PRE "}", "model.dropout is set");
    refuses("{" MODEL(", \"ignore_merges\": true") PRE "}", "model.ignore_merges is set");
    refuses("{" MODEL(", \"end_of_word_suffix\": \"</w>\"") PRE "}", "model.end_of_word_suffix is set");
    refuses("{" MODEL(", \"unk_token\": \"?\"") PRE "}", "unk_token '?' is not in the vocabulary");
    refuses("{" MODEL(", \"unk_token\": \"a\", \"fuse_unk\": true") PRE "}", "fuse_unk, and byte 0x00 has no token");
    refuses("{" MODEL("") PRE ADDED("{\"content\": \"<y>\", \"id\": 7}") "}",
            "added token '<y>' has id 7, by its place it is 4");
    refuses("{" MODEL("") PRE ADDED("{\"content\": \"<y>\", \"id\": 4, \"single_word\": true}") "}",
            "'<y>': single_word");
    refuses("{" MODEL("") PRE ADDED("{\"content\": \"a\", \"id\": 4}") "}",
            "added token 'a' has id 4, by its place it is 0");
    refuses("{\"model\": {\"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [\"a b\"]}" PRE "}",
            "merge 0: 'ab' is not in the vocabulary");
    refuses("{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}" PRE "}", "merge 0: 'a' is not two tokens");
    refuses("{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}" PRE "}", "merge 0 is neither");
    refuses("{\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}" PRE "}", "id 0 belongs to two tokens");
    refuses("{\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}" PRE "}", "token 'a' has no id from 0");
    refuses("{\"model\": {\"vocab\": {\"a\": 99999999}, \"merges\": []}" PRE "}", "token 'a' has no id from 0");
    assert_null(tokenizer_open(scratch_folder, &e));
    assert_non_null(strstr(e.message, "no tokenizer.json there, nor vocab.json and merges.txt"));
    assert_null(tokenizer_open(scratch_path("absent"), &e));
}

/* Files with a few bytes changed are read or refused, no more. */
static void changed_files(void **state)
{
    (void)state;
    static char text[100];
    char *file, *changed;
    size_t size, opened = 0, trials = 400;
    struct ids ids = {0};
    assert_int_equal(file_read_text(FOLDER "prefix.json", 1 << 20, &file, &size, NULL), 0);
    changed = malloc(size);
    for (size_t trial = 0; trial < trials; trial++) {
        struct rng r;
        struct err e = {0};
        rng_init(&r, 9, RNG_TEST, trial);
        memcpy(changed, file, size);
        for (uint32_t n = 1 + rng_below(&r, 3); n; n--) {
            size_t from = rng_below(&r, (uint32_t)size - 16), to = rng_below(&r, (uint32_t)size - 16);
            if (rng_below(&r, 2))
                changed[to] = (char)('0' + rng_below(&r, 75));
            else
                memmove(changed + to, changed + from, 1 + rng_below(&r, 16));
        }
        struct tokenizer *t = tokenizer_open(scratch_write("t.json", changed, size), &e);
        if (t) {
            feed(t, text, difficult_text(&r, text, sizeof text), 7, &ids);
            opened++;
        } else {
            assert_true(e.code < 0 && *e.message);
        }
        tokenizer_close(t);
    }
    assert_true(opened > 0 && opened < trials);
    free(changed);
    mem_free(file);
    mem_free(ids.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),        cmocka_unit_test(cuts_do_not_matter),
        cmocka_unit_test(long_runs),     cmocka_unit_test(white_space),
        cmocka_unit_test(packing),       cmocka_unit_test(corpora),
        cmocka_unit_test(counts),        cmocka_unit_test(refusals),
        cmocka_unit_test(changed_files),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
