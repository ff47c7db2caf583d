/* test_family.c - what it takes to add a family of models: `linear-norm-free`, made up, which no program knows. Its
 * layers have an MLP and nothing else (no norm, no attention), and hook points of their own:
 *   hook_in = x      hook_mlp_out = relu(x up + b) down + b      hook_out = hook_in + hook_mlp_out
 * All that it needs is in the first half of this file. It is run end to end by the source that actgen uses, and its
 * activations were computed by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "families.h"
#include "family_gpt2.h"
#include "gemm.h"
#include "mem.h"
#include "model_load.h"
#include "model_run.h"
#include "safetensors.h"
#include "scratch.h"
#include "source_model.h"

/* ---- the family ---- */

static int configure(struct model *m, const struct model_config *c, struct err *e)
{
    uint32_t *hidden = m->own = mem_alloc(1, sizeof *hidden, "configuration", e);
    if (!hidden)
        return ERR_MEMORY;
    if (model_config_size(c, "words", &m->vocab_size, e) || model_config_size(c, "width", &m->d_model, e) ||
        model_config_size(c, "depth", &m->n_layer, e) || model_config_size(c, "length", &m->n_positions, e) ||
        model_config_size(c, "hidden", hidden, e))
        return e->code;
    return 0;
}

static void identify(const struct model *m, char text[MODEL_TEXT_SIZE])
{
    snprintf(text, MODEL_TEXT_SIZE, "linear-norm-free words %u width %u depth %u hidden %u", m->vocab_size, m->d_model,
             m->n_layer, *(uint32_t *)m->own);
}

static void describe(const struct model *m, uint32_t layer, struct layer *l)
{
    (void)layer;
    size_t d = m->d_model, hidden = *(uint32_t *)m->own;
    l->mlp = (struct mlp){.up = {.k = d, .n = hidden}, .down = {.k = hidden, .n = d}, .activation = MLP_RELU};
}

static size_t embedding_tensors(struct model *m, struct want *wants)
{
    wants[0] = (struct want){"words.weight", &m->embedding.tokens, m->vocab_size, m->d_model, true};
    return 1;
}

static size_t layer_tensors(const struct model *m, struct layer *l, struct want *wants)
{
    size_t d = m->d_model, hidden = l->mlp.up.n;
    wants[0] = (struct want){"up.weight", &l->mlp.up.weight, d, hidden, false};
    wants[1] = (struct want){"up.bias", &l->mlp.up.bias, 0, hidden, false};
    wants[2] = (struct want){"down.weight", &l->mlp.down.weight, hidden, d, true};
    wants[3] = (struct want){"down.bias", &l->mlp.down.bias, 0, d, true};
    return 4;
}

static int run_layer(struct pass *p, const struct layer *l)
{
    int rc = pass_visit(p, "hook_in", p->x);
    if (rc)
        return rc;
#pragma omp parallel for
    for (size_t first = 0; first < p->tokens; first += p->piece) {
        struct err error;
        size_t end = pass_piece_end(p, first), d = p->d;
        memcpy(p->narrow.fp32 + first * d, p->x + first * d, (end - first) * d * sizeof(float));
        operand_round(&p->narrow, p->kernels, d, first, end);
        if (mlp_rows(&l->mlp, p->kernels, &p->narrow, &p->wide, p->out, first, end, &error))
            pass_fail(p, &error);
        for (size_t t = first; t < end; t++)
            p->kernels->add(p->out + t * d, l->mlp.down.bias, d);
    }
    if (p->failed || (rc = pass_visit(p, "hook_mlp_out", p->out)))
        return p->failed ? p->failed : rc;
    p->kernels->add(p->x, p->out, p->tokens * p->d);
    return pass_visit(p, "hook_out", p->x);
}

static const char *const points[] = {"hook_in", "hook_mlp_out", "hook_out", NULL};
static const char *const wrong_points[] = {"hook_in", "hook_out", "hook_mlp_out", NULL};

#define LINEAR_NORM_FREE(name, its_points)                                                                            \
    {                                                                                                                 \
        .model_type = (name), .prefix = "", .layer_prefix = "layer.", .points = (its_points), .configure = configure, \
        .identify = identify, .describe = describe, .embedding_tensors = embedding_tensors,                           \
        .layer_tensors = layer_tensors, .run = run_layer                                                              \
    }
static const struct family linear_norm_free = LINEAR_NORM_FREE("linear-norm-free", points);
/* The same with a mistake: its hook points do not come in the order in which run_layer visits them. */
static const struct family out_of_order = LINEAR_NORM_FREE("out-of-order", wrong_points);

/* The linker takes this table instead of families.c's. */
const struct family *const families[] = {&family_gpt2, &linear_norm_free, &out_of_order, NULL};

/* ---- a model of it: 3 words, width 2, 2 layers, 2 hidden values ---- */

static struct err e;
static struct source source;

static const float words[] = {1, 0, 0, 1, 2, 2};
static const float up_0[] = {1, -1, 0, 1}, up_bias_0[] = {0, 1}, down_0[] = {1, 0, 2, -1}, down_bias_0[] = {0.5f, 0};
static const float up_1[] = {0, 1, 1, 0}, up_bias_1[] = {-1, -2}, down_1[] = {1, 1, 0, 2}, down_bias_1[] = {0, 0};

/* Of each word, by hand: what the sites hold, in order. For word 1, x = (0, 1): relu(x up_0 + b) = relu(0, 2), times
 * down_0 plus b = (4.5, -2), and so on. */
static const float sites[3][6][2] = {
    {{1, 0}, {1.5f, 0}, {2.5f, 0}, {2.5f, 0}, {0, 1}, {2.5f, 1}},
    {{0, 1}, {4.5f, -2}, {4.5f, -1}, {4.5f, -1}, {0, 5}, {4.5f, 4}},
    {{2, 2}, {4.5f, -1}, {6.5f, 1}, {6.5f, 1}, {0, 9}, {6.5f, 10}},
};
static const uint16_t tokens[2][3] = {{0, 2, 1}, {1, 1, 0}};

static void write_config(const char *model_type, int depth)
{
    char text[256];
    int n =
        snprintf(text, sizeof text,
                 "{\"model_type\": \"%s\", \"words\": 3, \"width\": 2, \"depth\": %d, \"length\": 4, \"hidden\": 2}",
                 model_type, depth);
    scratch_write("config.json", text, (size_t)n);
}

static void write_model(void)
{
    const struct tensor_spec specs[] = {
        {"words.weight", TENSOR_F32, 2, {3, 2}},   {"layer.0.up.weight", TENSOR_F32, 2, {2, 2}},
        {"layer.0.up.bias", TENSOR_F32, 1, {2}},   {"layer.0.down.weight", TENSOR_F32, 2, {2, 2}},
        {"layer.0.down.bias", TENSOR_F32, 1, {2}}, {"layer.1.up.weight", TENSOR_F32, 2, {2, 2}},
        {"layer.1.up.bias", TENSOR_F32, 1, {2}},   {"layer.1.down.weight", TENSOR_F32, 2, {2, 2}},
        {"layer.1.down.bias", TENSOR_F32, 1, {2}},
    };
    const float *const values[] = {words, up_0, up_bias_0, down_0, down_bias_0, up_1, up_bias_1, down_1, down_bias_1};
    const size_t n = sizeof specs / sizeof *specs;
    struct safetensors_writer w;
    assert_int_equal(safetensors_write_begin(&w, scratch_path("model.safetensors"), specs, n, NULL, 0, &e), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(safetensors_write_data(&w, values[i], (i == 0 ? 6 : specs[i].n_dims * 2) * sizeof(float), &e),
                         0);
    assert_int_equal(safetensors_write_commit(&w, &e), 0);
}

static const char *write_tokens(void)
{
    unsigned char file[128 + sizeof tokens];
    memset(file, ' ', 127);
    file[127] = '\n';
    memcpy(file, "\x93NUMPY\x01\x00\x76\x00", 10);
    const char *header = "{'descr': '<u2', 'fortran_order': False, 'shape': (2, 3), }";
    memcpy(file + 10, header, strlen(header));
    memcpy(file + 128, tokens, sizeof tokens);
    return scratch_write("tokens.npy", file, sizeof file);
}

static const char *const models[] = {scratch_folder};

static struct source_model_options options(const char *globs)
{
    write_config("linear-norm-free", 2);
    write_model();
    return (struct source_model_options){
        .models = models, .n_models = 1, .tokens = write_tokens(), .sites = globs, .keep_bos = true};
}

/* ---- tests ---- */

/* Computes both sequences, and compares all sites of all rows with what they are by hand: exactly, as all numbers are
 * small multiples of a half, in bf16 as well. */
static void check_rows(void)
{
    struct rows r;
    assert_int_equal(rows_init(&r, &source.stream, 6, &e), 0);
    rows_begin(&r, &source.stream, 6, ROW_F32, NULL);
    assert_int_equal(source.compute(source.self, 0, 2, &r, &e), 0);
    for (size_t row = 0; row < 6; row++)
        assert_memory_equal(r.data + row * sizeof sites[0], sites[tokens[row / 3][row % 3]], sizeof sites[0]);
    rows_release(&r);
}

static void test_end_to_end(void **state)
{
    (void)state;
    struct source_model_options o = options("*");
    assert_int_equal(source_model_open(&source, &o, &e), 0);
    const struct stream *s = &source.stream;
    assert_true(s->n_sites == 6 && s->d_model == 2 && s->vocab_size == 3 && s->seq_len == 3);
    static const char *const names[] = {"blocks.0.hook_in", "blocks.0.hook_mlp_out", "blocks.0.hook_out",
                                        "blocks.1.hook_in", "blocks.1.hook_mlp_out", "blocks.1.hook_out"};
    for (size_t i = 0; i < 6; i++)
        assert_string_equal(s->sites[i], names[i]);
    check_rows();
    source.close(source.self);

    o.bf16 = true;
    if (source_model_open(&source, &o, &e)) {
        assert_non_null(strstr(e.message, "bf16 products need")); /* a processor, or oneDNN */
        print_message("without bf16: %s\n", e.message);
        return;
    }
    check_rows();
    source.close(source.self);
}

static void refuse(const struct source_model_options *o, const char *const *pieces)
{
    memset(&e, 0, sizeof e);
    assert_int_equal(source_model_open(&source, o, &e), ERR_INPUT);
    for (; *pieces; pieces++)
        if (!strstr(e.message, *pieces))
            fail_msg("\"%s\" does not say \"%s\"", e.message, *pieces);
}
#define REFUSE(options, ...) refuse(&(options), (const char *const[]){__VA_ARGS__, NULL})

static void test_refused(void **state)
{
    (void)state;
    struct source_model_options o = options(NULL); /* the default site is one that this family does not have */
    REFUSE(o, "'blocks.*.hook_resid_post'", "of each: hook_in, hook_mlp_out, hook_out");
    o.sites = "*";
    write_config("mamba", 2);
    REFUSE(o, "config.json: model_type is \"mamba\"", "known: gpt2, linear-norm-free, out-of-order");
    write_config("linear-norm-free", 1);
    REFUSE(o, "holds tensor layer.1.", "1 layers");
    write_config("linear-norm-free", 3);
    REFUSE(o, "no tensor layer.2.up.weight");
    write_config("linear-norm-free", 0);
    REFUSE(o, "config.json: depth is 0");
    write_config("linear-norm-free", 2);
    o.center_writing_weights = true;
    REFUSE(o, "centring its weights would change what a linear-norm-free model computes");
    struct model m;
    assert_int_equal(model_open(&m, scratch_folder, &(struct model_options){.head = true}, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "a linear-norm-free model has no head"));
}

/* A family whose hook points are not those that its layers visit is found out, not read wrongly. */
static void test_out_of_order(void **state)
{
    (void)state;
    struct source_model_options o = options("*");
    struct rows r;
    write_config("out-of-order", 2);
    assert_int_equal(source_model_open(&source, &o, &e), 0);
    assert_int_equal(rows_init(&r, &source.stream, 6, &e), 0);
    rows_begin(&r, &source.stream, 6, ROW_F32, NULL);
    assert_int_equal(source.compute(source.self, 0, 2, &r, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "layer 0 of a out-of-order model has no hook point hook_mlp_out"));
    rows_release(&r);
    source.close(source.self);
}

/* The other families are there as ever. */
static void test_gpt2_beside_it(void **state)
{
    (void)state;
    struct model m;
    assert_int_equal(model_open(&m, TEST_DATA "/gpt2/unscaled", NULL, &e), 0);
    assert_ptr_equal(m.family, &family_gpt2);
    model_close(&m);
}

int main(void)
{
    omp_set_num_threads(2);
    gemm_set_threads(2);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_end_to_end), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_out_of_order), cmocka_unit_test(test_gpt2_beside_it)};
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
