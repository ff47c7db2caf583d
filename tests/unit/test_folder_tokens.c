/* What the files of a tokenizer folder add to its vocabulary; the expected lists are transformers 5's (interop/test_xctok_folders.py
 * compares more of them with it). */
#include "folder_tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdlib.h>

#include "scratch.h"
#include "vocabulary.h"

struct files {
    const char *config, *map, *added, *tokenizer; /* NULL: not there */
};

#define VOCAB "{\"a\": 0, \"b\": 1, \"ab\": 2, \"<|endoftext|>\": 3}"

static void put(const char *name, const char *text)
{
    if (text)
        scratch_write(name, text, strlen(text));
    else
        unlink(scratch_path(name));
}

static int load(struct vocabulary *v, struct files f, struct err *e)
{
    put("tokenizer_config.json", f.config);
    put("special_tokens_map.json", f.map);
    put("added_tokens.json", f.added);
    put("tokenizer.json", f.tokenizer);
    put("vocab.json", VOCAB);
    put("merges.txt", "#version: 0.2\na b\n");
    return vocabulary_load(v, scratch_folder, e);
}

/* The tokens added, in their order: id, text, and the letters of special, normalized, lstrip, rstrip. */
static void adds(struct files f, const char *expected)
{
    struct err e = {0};
    struct vocabulary v;
    char got[512] = "";
    if (load(&v, f, &e))
        fail_msg("%s", e.message);
    for (size_t i = 0; i < v.n_added; i++) {
        const struct added_token *t = v.added + i;
        size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, "%u%s:%s%s%s%s ", t->id, t->text, v.tokens[t->id].special ? "s" : "",
                 t->normalized ? "n" : "", t->lstrip ? "l" : "", t->rstrip ? "r" : "");
    }
    vocabulary_free(&v);
    assert_string_equal(got, expected);
}

static void refuses(struct files f, const char *part)
{
    struct err e = {0};
    struct vocabulary v;
    assert_int_not_equal(load(&v, f, &e), 0);
    if (!strstr(e.message, part))
        fail_msg("message \"%s\" lacks \"%s\"", e.message, part);
}

static void added_tokens(void **state)
{
    (void)state;
    adds((struct files){0}, "3<|endoftext|>:s ");
    adds((struct files){.added = "{\"<y>\": 5, \"<x>\": 4}"}, "4<x>:n 5<y>:n 3<|endoftext|>:s ");
    adds((struct files){.added = "{\"<x>\": 4}", .map = "{\"pad_token\": \"<x>\"}"}, "4<x>:s 3<|endoftext|>:s ");
    adds((struct files){.added = "{\"ab\": 2, \"\": 9}"}, "2ab:n 3<|endoftext|>:s ");
    refuses((struct files){.added = "{\"<x>\": 5}"}, "added token '<x>' has id 5, by its place it is 4");
    refuses((struct files){.added = "{\"ab\": 4}"}, "added token 'ab' has id 4, by its place it is 2");
    refuses((struct files){.added = "{\"<x>\": \"4\"}"}, "added_tokens.json: '<x>' has no id");
    refuses((struct files){.added = "{\"<x>\": 4"}, "added_tokens.json: not JSON");
}

static void names(void **state)
{
    (void)state;
    adds((struct files){.map = "{\"eos_token\": {\"content\": \"<e>\", \"lstrip\": true}, \"pad_token\": \"<p>\","
                               "\"additional_special_tokens\": [\"<x>\", \"<p>\"], \"x_token\": \"<m>\"}"},
         "3<|endoftext|>:s 4<e>:sl 5<p>:s 6<m>:s 7<x>:s ");
    adds((struct files){.config = "{\"pad_token\": {\"__type\": \"AddedToken\", \"content\": \"<p>\", \"rstrip\": true,"
                                  "\"normalized\": true}, \"eos_token\": \"<e>\"}",
                        .map = "{\"eos_token\": \"<f>\"}"},
         "3<|endoftext|>:s 4<f>:s 5<p>:snr ");
    adds((struct files){.config = "{\"bos_token\": null, \"eos_token\": null, \"unk_token\": \"ab\"}"}, "2ab:s ");
    adds((struct files){.config = "{\"image_token\": \"<i>\", \"extra_special_tokens\": {\"y_token\": \"<y>\"}}"},
         "3<|endoftext|>:s 4<i>:s 5<y>:s ");
    refuses((struct files){.config = "{\"pad_token\": {\"content\": \"<p>\"}}"}, "pad_token is neither a text nor an");
    refuses((struct files){.map = "{\"pad_token\": 7}"}, "pad_token is neither a text nor an");
    refuses((struct files){.config = "{\"extra_special_tokens\": \"<x>\"}"}, "neither a list nor an object");
}

static void decoder(void **state)
{
    (void)state;
    const char *config = "{\"added_tokens_decoder\": {\"5\": {\"content\": \"<y>\", \"lstrip\": true},"
                         "\"4\": {\"content\": \"<x>\", \"special\": true}}, \"pad_token\": \"<y>\"}";
    adds((struct files){.config = config, .map = "{\"pad_token\": \"<p>\"}", .added = "{\"<z>\": 6}"},
         "4<x>:s 5<y>:snl 3<|endoftext|>:s ");
    refuses((struct files){.config = "{\"added_tokens_decoder\": {\"9\": {\"content\": \"<x>\"}}}"}, "by its place");
    refuses((struct files){.config = "{\"added_tokens_decoder\": {\"4x\": {\"content\": \"<x>\"}}}"},
            "added_tokens_decoder '4x' is not an id and its token");
    refuses(
        (struct files){.config = "{\"added_tokens_decoder\": {\"4\": {\"content\": \"x\", \"single_word\": true}}}"},
        "added token 'x': single_word is not supported");
}

static void beside_tokenizer_json(void **state)
{
    (void)state;
    const char *tokenizer = "{\"model\": {\"type\": \"BPE\", \"vocab\": " VOCAB ", \"merges\": [\"a b\"]},"
                            "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false},"
                            "\"added_tokens\": [{\"content\": \"<x>\", \"id\": 4}]}";
    adds((struct files){.tokenizer = tokenizer}, "4<x>: ");
    adds((struct files){.tokenizer = tokenizer, .added = "{\"<x>\": 4, \"<y>\": 5}", .map = "{\"pad_token\": \"<x>\"}"},
         "4<x>:s 5<y>:n ");
    adds((struct files){.tokenizer = tokenizer,
                        .config = "{\"added_tokens_decoder\": {\"4\": {\"content\": \"<x>\", \"rstrip\": true}}}"},
         "4<x>:nr ");
    refuses((struct files){.tokenizer = tokenizer, .added = "{\"<x>\": 5}"}, "added token '<x>': 4 and 5");
    refuses((struct files){.tokenizer = tokenizer, .config = "{\"add_prefix_space\": true}"},
            "add_prefix_space is true in tokenizer_config.json and false in tokenizer.json");
}

static void other_classes(void **state)
{
    (void)state;
    struct err e = {0};
    struct vocabulary v;
    assert_int_equal(load(&v, (struct files){.config = "{\"add_prefix_space\": true}"}, &e), 0);
    assert_true(v.add_prefix_space);
    vocabulary_free(&v);
    refuses((struct files){.config = "{\"tokenizer_class\": \"Qwen2Tokenizer\"}"}, "tokenizer_class Qwen2Tokenizer");
    refuses((struct files){.config = "{\"split_special_tokens\": true}"}, "split_special_tokens is not supported");
    put("config.json", "{\"model_type\": \"clip\"}");
    refuses((struct files){0}, "model_type clip: without a tokenizer.json only GPT2Tokenizer's");
    adds((struct files){.config = "{\"tokenizer_class\": \"GPT2TokenizerFast\"}"}, "3<|endoftext|>:s ");
    put("config.json", "{\"model_type\": \"gpt2\"}");
    adds((struct files){0}, "3<|endoftext|>:s ");
    put("config.json", NULL);
    put("merges.txt", NULL);
    assert_int_not_equal(vocabulary_load(&v, scratch_folder, &e), 0);
    assert_non_null(strstr(e.message, "only vocab.json there, which is not read without merges.txt"));
    put("tokenizer.model", "x");
    assert_int_not_equal(vocabulary_load(&v, scratch_folder, &e), 0);
    assert_non_null(strstr(e.message, "only tokenizer.model there, which is not read without a tokenizer.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(added_tokens),          cmocka_unit_test(names),         cmocka_unit_test(decoder),
        cmocka_unit_test(beside_tokenizer_json), cmocka_unit_test(other_classes),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
