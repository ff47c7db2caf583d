/* test_gpt2_load.c - what is refused when a GPT-2 folder is opened, and with which words; and what its fingerprint
 * sees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mem.h"
#include "model_load.h"
#include "scratch.h"

#define ORIGINAL TEST_DATA "/gpt2/unscaled" /* F32, names with "transformer.", buffers and a head to ignore */

static struct err e;
static struct model model;

/* config.json of ORIGINAL in the scratch folder, with key = value instead (value NULL: without it; key may be new). */
static void write_config(const char *key, const char *value)
{
    static const char *const keys[][2] = {{"model_type", "\"gpt2\""},
                                          {"vocab_size", "64"},
                                          {"n_positions", "24"},
                                          {"n_embd", "32"},
                                          {"n_layer", "3"},
                                          {"n_head", "2"},
                                          {"n_inner", "null"},
                                          {"activation_function", "\"relu\""},
                                          {"scale_attn_weights", "false"},
                                          {"scale_attn_by_inverse_layer_idx", "true"}};
    char text[2048] = "{\"x\": 0";
    size_t n = strlen(text);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!key || strcmp(key, keys[i][0]) != 0)
            n += (size_t)snprintf(text + n, sizeof text - n, ", \"%s\": %s", keys[i][0], keys[i][1]);
    if (key && value)
        n += (size_t)snprintf(text + n, sizeof text - n, ", \"%s\": %s", key, value);
    n += (size_t)snprintf(text + n, sizeof text - n, "}\n");
    scratch_write("config.json", text, n);
}

/* How a checkpoint is written again; tensors are named as in the file read. */
struct edit {
    const char *without, *transposed, *with_nan, *added_one, *renamed, *new_name;
    bool without_prefix;
};

static bool is(const char *name, const char *wanted)
{
    return wanted && strcmp(name, wanted) == 0;
}

/* The tensors of a folder that lie in files[first..], as one F32 file of that name in the scratch folder. */
static void write_tensors(const struct hf_checkpoint *c, const char *file_name, size_t first, size_t step,
                          struct edit edit)
{
    struct tensor_spec specs[256];
    const struct tensor_view *views[256];
    const struct safetensors *files[256];
    size_t n = 0, skipped = 0;
    for (size_t f = 0; f < c->n_files; f++)
        for (size_t i = 0; i < c->files[f].n_tensors; i++) {
            const struct tensor_view *t = &c->files[f].tensors[i];
            if (is(t->name, edit.without) || skipped++ % step != first)
                continue;
            assert_true(n < 256);
            struct tensor_spec *s = &specs[n];
            *s = (struct tensor_spec){.name = t->name, .dtype = TENSOR_F32, .n_dims = t->n_dims};
            memcpy(s->shape, t->shape, sizeof s->shape);
            if (is(t->name, edit.transposed)) {
                s->shape[0] = t->shape[1];
                s->shape[1] = t->shape[0];
            }
            if (is(t->name, edit.renamed))
                s->name = edit.new_name;
            else if (edit.without_prefix && strncmp(t->name, "transformer.", 12) == 0)
                s->name += 12;
            files[n] = &c->files[f];
            views[n++] = t;
        }
    struct safetensors_writer w;
    assert_int_equal(safetensors_write_begin(&w, scratch_path(file_name), specs, n, NULL, 0, &e), 0);
    for (size_t i = 0; i < n; i++) {
        size_t elements = views[i]->bytes / tensor_dtype_size(views[i]->dtype);
        float *x = mem_alloc(elements, 4, "test", &e);
        assert_non_null(x);
        assert_int_equal(tensor_to_f32(files[i], views[i], x, &e), 0);
        if (is(views[i]->name, edit.with_nan))
            x[7] = NAN;
        if (is(views[i]->name, edit.added_one))
            x[7] += 1;
        assert_int_equal(safetensors_write_data(&w, x, elements * 4, &e), 0);
        mem_free(x);
    }
    assert_int_equal(safetensors_write_commit(&w, &e), 0);
}

static void write_model(const char *folder, struct edit edit)
{
    struct hf_checkpoint c;
    assert_int_equal(hf_checkpoint_open(&c, folder, &e), 0);
    write_tensors(&c, "model.safetensors", 0, 1, edit);
    hf_checkpoint_close(&c);
}

static void accept(const char *folder, bool centered)
{
    if (model_open(&model, folder, &(struct model_options){.center_writing_weights = centered}, &e))
        fail_msg("%s", e.message);
}

/* Opening the scratch folder fails, and the message has each of the words (NULL-terminated). */
static void refuse(int code, const char *const *words)
{
    memset(&e, 0, sizeof e);
    assert_int_equal(model_open(&model, scratch_folder, NULL, &e), code);
    assert_int_equal(e.code, code);
    for (; *words; words++)
        if (!strstr(e.message, *words))
            fail_msg("\"%s\" does not name \"%s\"", e.message, *words);
}
#define REFUSE(code, ...) refuse(code, (const char *const[]){__VA_ARGS__, NULL})

static void start_over(void)
{
    file_remove_tree(scratch_path("model.safetensors.index.json"), NULL);
    write_config(NULL, NULL);
    write_model(ORIGINAL, (struct edit){0});
}

static void test_missing_files(void **state)
{
    (void)state;
    REFUSE(ERR_SYSTEM, scratch_folder, "config.json");
    write_config(NULL, NULL);
    REFUSE(ERR_INPUT, scratch_folder, "model.safetensors");
    write_model(ORIGINAL, (struct edit){0});
    accept(scratch_folder, false);
    model_close(&model);
}

static void test_config(void **state)
{
    (void)state;
    start_over();
    scratch_write("config.json", "{\"n_layer\": 3,", 14);
    REFUSE(ERR_INPUT, "config.json", "line 1");
    scratch_write("config.json", "[]", 2);
    REFUSE(ERR_INPUT, "config.json", "not an object");
    write_config("model_type", "\"llama\"");
    REFUSE(ERR_INPUT, "config.json", "model_type is \"llama\", expected one that is known: gpt2");
    write_config("model_type", NULL);
    REFUSE(ERR_INPUT, "model_type", "missing");
    write_config("n_head", NULL);
    REFUSE(ERR_INPUT, "n_head", "missing");
    write_config("n_head", "3");
    REFUSE(ERR_INPUT, "n_embd 32", "n_head 3");
    write_config("n_layer", "0");
    REFUSE(ERR_INPUT, "n_layer is 0");
    write_config("n_layer", "-1");
    REFUSE(ERR_INPUT, "n_layer is -1");
    write_config("n_layer", "3.0");
    REFUSE(ERR_INPUT, "n_layer is 3.0");
    write_config("n_embd", "99999999999");
    REFUSE(ERR_INPUT, "n_embd is 99999999999");
    write_config("activation_function", "\"quick_gelu\"");
    REFUSE(ERR_INPUT, "activation_function", "quick_gelu", "gelu_new");
    write_config("layer_norm_epsilon", "\"1e-5\"");
    REFUSE(ERR_INPUT, "layer_norm_epsilon", "1e-5");
    write_config("scale_attn_weights", "1");
    REFUSE(ERR_INPUT, "scale_attn_weights is 1");
    write_config("add_cross_attention", "true");
    REFUSE(ERR_INPUT, "add_cross_attention");
    write_config("n_inner", "64"); /* the file has 4 * 32 */
    REFUSE(ERR_INPUT, "h.0.mlp.c_fc.weight", "[32, 128]", "[32, 64]");
    write_config("n_layer", "4");
    REFUSE(ERR_INPUT, "h.3.ln_1.weight");
    write_config("n_layer", "2");
    REFUSE(ERR_INPUT, "holds tensor transformer.h.2.", "2 layers");
    write_config("n_positions", NULL);
    REFUSE(ERR_INPUT, "n_ctx", "missing");
    write_config("n_embd", "2147483646");
    REFUSE(ERR_INPUT, "wte.weight", "[64, 32]", "[64, 2147483646]");
}

static void test_tensors(void **state)
{
    (void)state;
    start_over();
    write_model(ORIGINAL, (struct edit){.without = "transformer.h.1.mlp.c_proj.bias"});
    REFUSE(ERR_INPUT, scratch_folder, "h.1.mlp.c_proj.bias");
    write_model(ORIGINAL, (struct edit){.transposed = "transformer.h.2.mlp.c_fc.weight"});
    REFUSE(ERR_INPUT, "model.safetensors", "h.2.mlp.c_fc.weight", "[128, 32]", "[32, 128]");
    write_model(ORIGINAL, (struct edit){.with_nan = "transformer.h.0.attn.c_attn.weight"});
    REFUSE(ERR_INPUT, "model.safetensors", "transformer.h.0.attn.c_attn.weight", "element 7", "nan");
    write_model(ORIGINAL, (struct edit){.with_nan = "lm_head.weight"}); /* not looked at */
    accept(scratch_folder, false);
    model_close(&model);
    write_model(ORIGINAL, (struct edit){.with_nan = "transformer.wte.weight"}); /* of a copy, too */
    assert_int_equal(model_open(&model, scratch_folder, &(struct model_options){.center_writing_weights = true}, &e),
                     ERR_INPUT);
    assert_non_null(strstr(e.message, "wte.weight: element 7"));
}

/* What would change the activations and would not be used is refused by name: a layer's tensor, an adapter. */
static void test_left_over(void **state)
{
    (void)state;
    static const char *const of_a_layer[] = {"transformer.h.1.attn.gate", "h.1.mlp.c_fc.weight",
                                             "transformer.h.01.ln_1.weight",
                                             "base_model.model.transformer.h.1.mlp.c_fc.weight",
                                             "h.2.attn.c_attn.base_layer.weight"},
                             *const adapter[] = {"transformer.h.1.attn.c_attn.lora_A.weight", "lora_embedding_A"},
                             *const harmless[] = {"h.1.attn.masked_bias", "score.weight", "breadth.1.x"},
                             *const beside[] = {"adapter_config.json", "adapter_model.safetensors",
                                                "adapter_model.bin"};
    start_over();
    for (size_t i = 0; i < sizeof of_a_layer / sizeof *of_a_layer; i++) {
        write_model(ORIGINAL, (struct edit){.renamed = "lm_head.weight", .new_name = of_a_layer[i]});
        REFUSE(ERR_INPUT, "model.safetensors", of_a_layer[i], "belongs to a layer");
    }
    for (size_t i = 0; i < sizeof adapter / sizeof *adapter; i++) {
        write_model(ORIGINAL, (struct edit){.renamed = "lm_head.weight", .new_name = adapter[i]});
        REFUSE(ERR_INPUT, "model.safetensors", adapter[i], "is an adapter's");
    }
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        write_model(ORIGINAL, (struct edit){.renamed = "lm_head.weight", .new_name = harmless[i]});
        accept(scratch_folder, false);
        model_close(&model);
    }
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        scratch_write(beside[i], "{}", 2);
        REFUSE(ERR_INPUT, scratch_folder, beside[i], "is an adapter's");
        remove(scratch_path(beside[i]));
    }
}

/* The head is looked at only if it is asked for; it is no part of the fingerprint. */
static void test_head(void **state)
{
    (void)state;
    const struct model_options with_head = {.head = true};
    char plain[FINGERPRINT_SIZE];
    start_over();
    accept(scratch_folder, false);
    assert_null(model.head.unembedding);
    memcpy(plain, model.fingerprint, sizeof plain);
    model_close(&model);
    assert_int_equal(model_open(&model, scratch_folder, &with_head, &e), 0);
    assert_ptr_equal(model.head.unembedding, model.embedding.tokens); /* tied, whatever lm_head.weight there is */
    assert_string_equal(model.fingerprint, plain);
    model_close(&model);

    write_config("tie_word_embeddings", "false");
    assert_int_equal(model_open(&model, scratch_folder, &with_head, &e), 0);
    assert_true(model.head.unembedding[0] == 0 && model.embedding.tokens[0] != 0); /* lm_head.weight is zeros there */
    model_close(&model);
    write_config("tie_word_embeddings", "0");
    REFUSE(ERR_INPUT, "tie_word_embeddings is 0");

    write_config(NULL, NULL);
    write_model(ORIGINAL, (struct edit){.without = "transformer.ln_f.bias"});
    accept(scratch_folder, false);
    model_close(&model);
    assert_int_equal(model_open(&model, scratch_folder, &with_head, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "no tensor ln_f.bias"));
}

static void test_truncated(void **state)
{
    (void)state;
    start_over();
    struct file_map whole;
    assert_int_equal(file_map(&whole, ORIGINAL "/model.safetensors", &e), 0);
    const size_t sizes[] = {0, 7, 8, 1000, whole.size / 2, whole.size - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        scratch_write("model.safetensors", whole.data, sizes[i]);
        REFUSE(ERR_INPUT, "model.safetensors");
    }
    file_unmap(&whole);
}

static void test_shards(void **state)
{
    (void)state;
    start_over();
    char single[FINGERPRINT_SIZE];
    accept(ORIGINAL, false);
    memcpy(single, model.fingerprint, sizeof single);
    model_close(&model);

    struct hf_checkpoint c;
    assert_int_equal(hf_checkpoint_open(&c, ORIGINAL, &e), 0);
    write_tensors(&c, "a.safetensors", 0, 2, (struct edit){.without_prefix = true});
    write_tensors(&c, "b.safetensors", 1, 2, (struct edit){.without_prefix = true});
    hf_checkpoint_close(&c);
    remove(scratch_path("model.safetensors"));
    const char *index = "{\"weight_map\": {\"wte.weight\": \"a.safetensors\", \"wpe.weight\": \"b.safetensors\"}}";
    scratch_write("model.safetensors.index.json", index, strlen(index));
    accept(scratch_folder, false);
    assert_string_equal(model.fingerprint, single);
    model_close(&model);

    index = "{\"weight_map\": {\"wte.weight\": \"a.safetensors\", \"wpe.weight\": \"c.safetensors\"}}";
    scratch_write("model.safetensors.index.json", index, strlen(index));
    REFUSE(ERR_SYSTEM, "c.safetensors");
    index = "{\"weight_map\": {\"wte.weight\": \"a.safetensors\"}}";
    scratch_write("model.safetensors.index.json", index, strlen(index));
    REFUSE(ERR_INPUT, "no tensor");
    index = "{\"weight_map\": {\"wte.weight\": \"../a.safetensors\"}}";
    scratch_write("model.safetensors.index.json", index, strlen(index));
    REFUSE(ERR_INPUT, "index.json", "wte.weight", "same folder");
    index = "{\"weight_map\": {}}";
    scratch_write("model.safetensors.index.json", index, strlen(index));
    REFUSE(ERR_INPUT, "index.json", "weight_map");
    index = "{\"weight_map\"";
    scratch_write("model.safetensors.index.json", index, strlen(index));
    REFUSE(ERR_INPUT, "index.json", "line 1");
    remove(scratch_path("model.safetensors.index.json"));
}

static void fingerprint_of(char fingerprint[FINGERPRINT_SIZE], const char *folder, bool centered)
{
    accept(folder, centered);
    memcpy(fingerprint, model.fingerprint, FINGERPRINT_SIZE);
    model_close(&model);
}

static void test_fingerprint(void **state)
{
    (void)state;
    start_over();
    char original[FINGERPRINT_SIZE], other[FINGERPRINT_SIZE];
    fingerprint_of(original, ORIGINAL, false);
    assert_int_equal(strlen(original), 32);
    fingerprint_of(other, scratch_folder, false);
    assert_string_equal(original, other);
    fingerprint_of(other, ORIGINAL, true);
    assert_string_not_equal(original, other);

    write_model(ORIGINAL, (struct edit){.without_prefix = true, .without = "lm_head.weight"});
    fingerprint_of(other, scratch_folder, false);
    assert_string_equal(original, other);
    write_model(ORIGINAL, (struct edit){.added_one = "transformer.ln_f.weight"}); /* comes after the last site */
    fingerprint_of(other, scratch_folder, false);
    assert_string_equal(original, other);
    write_model(ORIGINAL, (struct edit){.added_one = "transformer.h.2.mlp.c_proj.bias"});
    fingerprint_of(other, scratch_folder, false);
    assert_string_not_equal(original, other);

    write_model(ORIGINAL, (struct edit){0});
    const char *const changes[][2] = {{"layer_norm_epsilon", "1e-6"},
                                      {"n_head", "4"},
                                      {"scale_attn_weights", "true"},
                                      {"scale_attn_by_inverse_layer_idx", "false"},
                                      {"activation_function", "\"gelu\""}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        write_config(changes[i][0], changes[i][1]);
        fingerprint_of(other, scratch_folder, false);
        assert_string_not_equal(original, other);
    }
    write_config("resid_pdrop", "0.5");
    fingerprint_of(other, scratch_folder, false);
    assert_string_equal(original, other);

    /* F16 in three shards, and the same values in F32 in one file. */
    fingerprint_of(original, TEST_DATA "/gpt2/sharded", false);
    struct file_map config;
    assert_int_equal(file_map(&config, TEST_DATA "/gpt2/sharded/config.json", &e), 0);
    scratch_write("config.json", config.data, config.size);
    file_unmap(&config);
    write_model(TEST_DATA "/gpt2/sharded", (struct edit){0});
    fingerprint_of(other, scratch_folder, false);
    assert_string_equal(original, other);
}

/* F32 tensors are used where they lie, unless they are processed. */
static void test_in_place(void **state)
{
    (void)state;
    accept(ORIGINAL, false);
    assert_int_equal(model.n_owned, 0);
    model_close(&model);
    accept(ORIGINAL, true);
    assert_int_equal(model.n_owned, 2 + 4 * 3);
    for (size_t r = 0; r < 64; r++) {
        double sum = 0;
        for (size_t i = 0; i < 32; i++)
            sum += (double)model.embedding.tokens[r * 32 + i];
        assert_true(fabs(sum) < 1e-5);
    }
    model_close(&model);
    model_close(&model); /* harmless */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_files), cmocka_unit_test(test_config),   cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_truncated),     cmocka_unit_test(test_head),     cmocka_unit_test(test_shards),
        cmocka_unit_test(test_fingerprint),   cmocka_unit_test(test_in_place), cmocka_unit_test(test_left_over)};
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
