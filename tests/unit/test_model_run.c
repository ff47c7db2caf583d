/* test_model_run.c - hooks that replace vectors, and passes that go on to the logits.
 *
 * That the pass goes on exactly as from what a hook left is shown by running from there indeed: a model that consists
 * of the remaining layers, whose embedding of token t is the vector that was left at token t. All later sites and the
 * logits have the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "gemm.h"
#include "mem.h"
#include "model_load.h"
#include "model_run.h"
#include "rng.h"
#include "safetensors.h"
#include "scratch.h"

#define ORIGINAL TEST_DATA "/gpt2/odd_heads"
enum { VOCAB = 211, POSITIONS = 40, D = 96, LAYERS = 5, HEADS = 3 };        /* its sizes */
enum { N = 5, SEQ_LEN = 37, TOKENS = N * SEQ_LEN, SITES = 5 * LAYERS };     /* TOKENS: more than HEAD_TOKENS */
enum { RESID_PRE, ATTN_OUT, RESID_MID, MLP_OUT, RESID_POST, REPLACED = 1 }; /* REPLACED: the layer */

static struct err e;
static struct model model; /* the original, with its head */
static struct workspace workspace;
static uint32_t tokens[TOKENS];

/* All that one pass showed. */
struct seen {
    float (*sites)[TOKENS][D]; /* [SITES], in forward order */
    float (*logits)[VOCAB];    /* [TOKENS] */
    size_t n_sites, n_logits;
    int replaced;           /* the index of the site that is replaced, -1: none */
    bool write_back;        /* overwrites each site's vectors with the same */
    const float (*with)[D]; /* [TOKENS] */
};

static struct seen new_seen(void)
{
    struct seen s = {.replaced = -1};
    s.sites = mem_alloc(SITES, sizeof *s.sites, "test", &e);
    s.logits = mem_alloc(TOKENS, sizeof *s.logits, "test", &e);
    assert_true(s.sites && s.logits);
    return s;
}

static void free_seen(struct seen *s)
{
    mem_free(s->sites);
    mem_free(s->logits);
}

static int look(void *context, const struct site *site, float *vectors, struct err *error)
{
    (void)site;
    (void)error;
    struct seen *s = context;
    float(*kept)[D] = s->sites[s->n_sites];
    memcpy(kept, vectors, sizeof *s->sites);
    if (s->write_back) {
        memset(vectors, 0xff, sizeof *s->sites);
        memcpy(vectors, kept, sizeof *s->sites);
    }
    if ((int)s->n_sites++ == s->replaced)
        memcpy(vectors, s->with, sizeof *s->sites);
    return 0;
}

static int look_at_logits(void *context, size_t first, size_t n, const float *logits, struct err *error)
{
    (void)error;
    struct seen *s = context;
    assert_int_equal(first, s->n_logits);
    memcpy(s->logits[first], logits, n * sizeof *s->logits);
    s->n_logits += n;
    return 0;
}

static void run(const struct model *m, const uint32_t *ids, const struct site *sites, size_t n_sites, struct seen *s)
{
    const struct model_request r = {.tokens = ids,
                                    .n = N,
                                    .seq_len = SEQ_LEN,
                                    .sites = sites,
                                    .n_sites = n_sites,
                                    .hook = look,
                                    .logits = look_at_logits,
                                    .context = s};
    s->n_sites = s->n_logits = 0;
    if (model_run(&workspace, m, &r, &e))
        fail_msg("%s", e.message);
    assert_int_equal(s->n_sites, n_sites);
    assert_int_equal(s->n_logits, TOKENS);
}

static void run_all(const struct model *m, const uint32_t *ids, struct seen *s)
{
    struct site_list list;
    const struct hook_points points = model_points(m);
    assert_int_equal(sites_match(&list, "*", &points, 1, &e), 0);
    run(m, ids, list.sites, list.n, s);
}

/* ---- the remaining layers as a model of their own ---- */

struct writer {
    struct tensor_spec specs[100];
    char names[100][64];
    const float *values[100];
    size_t n;
};

static void add(struct writer *w, const char *name, size_t rows, size_t columns, const float *values)
{
    assert_true(w->n < 100);
    snprintf(w->names[w->n], sizeof w->names[0], "%s", name);
    w->specs[w->n] = (struct tensor_spec){w->names[w->n], TENSOR_F32, rows ? 2 : 1, {rows ? rows : columns, columns}};
    w->values[w->n++] = values;
}

/* Opens a model of the original's layers from `first` on, whose residual stream starts with the given vectors at tokens
 * 0, 1, ...: wte has them, wpe is zero. Without attention, the first layer's attention adds 0. */
static void open_rest(struct model *rest, uint32_t first, bool attention, const float (*start)[D])
{
    static const float zeros[D * D];
    static float wte[VOCAB][D];
    static struct writer w;
    struct want wants[MODEL_MAX_WANTS];
    char text[512], name[64];
    w.n = 0;
    memcpy(wte, start, TOKENS * sizeof *wte);
    add(&w, "wte.weight", VOCAB, D, wte[0]);
    add(&w, "wpe.weight", POSITIONS, D, zeros);
    for (uint32_t i = first; i < LAYERS; i++) {
        size_t n = model.family->layer_tensors(&model, &model.layers[i], wants);
        for (size_t j = 0; j < n; j++) {
            snprintf(name, sizeof name, "h.%" PRIu32 ".%s", i - first, wants[j].name);
            bool off = i == first && !attention && strstr(name, "attn.c_proj");
            add(&w, name, wants[j].rows, wants[j].columns, off ? zeros : *wants[j].values);
        }
    }
    add(&w, "ln_f.weight", 0, D, model.head.norm.weight);
    add(&w, "ln_f.bias", 0, D, model.head.norm.bias);
    add(&w, "lm_head.weight", VOCAB, D, model.head.unembedding);
    struct safetensors_writer file;
    assert_int_equal(safetensors_write_begin(&file, scratch_path("model.safetensors"), w.specs, w.n, NULL, 0, &e), 0);
    for (size_t i = 0; i < w.n; i++) {
        size_t rows = w.specs[i].n_dims == 2 ? w.specs[i].shape[0] : 1,
               columns = w.specs[i].shape[w.specs[i].n_dims - 1];
        assert_int_equal(safetensors_write_data(&file, w.values[i], rows * columns * sizeof(float), &e), 0);
    }
    assert_int_equal(safetensors_write_commit(&file, &e), 0);
    int length = snprintf(text, sizeof text,
                          "{\"model_type\": \"gpt2\", \"vocab_size\": %d, \"n_positions\": %d, \"n_embd\": %d, "
                          "\"n_layer\": %d, \"n_head\": %d, \"tie_word_embeddings\": false}",
                          VOCAB, POSITIONS, D, LAYERS - (int)first, HEADS);
    scratch_write("config.json", text, (size_t)length);
    if (model_open(rest, scratch_folder, &(struct model_options){.head = true}, &e) ||
        (model.packed && model_pack(rest, &e)))
        fail_msg("%s", e.message);
}

/* Replaces the vectors at one hook point of layer REPLACED. */
static void check_replacement(int point, const float (*with)[D])
{
    static float start[TOKENS][D];
    struct seen replaced = new_seen(), from_there = new_seen();
    struct model rest;
    uint32_t ids[TOKENS], first = point >= MLP_OUT ? REPLACED + 1 : REPLACED;
    replaced.replaced = 5 * REPLACED + point;
    replaced.with = with;
    run_all(&model, tokens, &replaced);

    /* What the residual stream is behind the hook. */
    const float(*before)[D] = point == ATTN_OUT  ? replaced.sites[5 * REPLACED + RESID_PRE]
                              : point == MLP_OUT ? replaced.sites[5 * REPLACED + RESID_MID]
                                                 : NULL;
    for (size_t t = 0; t < TOKENS; t++) {
        ids[t] = (uint32_t)t;
        for (size_t i = 0; i < D; i++)
            start[t][i] = before ? before[t][i] + with[t][i] : with[t][i];
    }
    if (before) /* the next site shows it */
        assert_memory_equal(replaced.sites[replaced.replaced + 1], start, sizeof start);

    open_rest(&rest, first, point == RESID_PRE || first > REPLACED, start);
    run_all(&rest, ids, &from_there);
    for (size_t i = (size_t)replaced.replaced + 1; i < SITES; i++)
        if (i >= 5 * first)
            assert_memory_equal(replaced.sites[i], from_there.sites[i - 5 * first], sizeof *replaced.sites);
    assert_memory_equal(replaced.logits, from_there.logits, TOKENS * sizeof *replaced.logits);
    model_close(&rest);
    free_seen(&replaced);
    free_seen(&from_there);
}

static void check_replacements(void)
{
    static float with[TOKENS][D];
    struct rng r;
    rng_init(&r, 5, RNG_TEST, 0);
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t i = 0; i < D; i++)
            with[t][i] = (float)rng_normal(&r);
    for (int point = RESID_PRE; point <= RESID_POST; point++)
        check_replacement(point, (const float(*)[D])with);
}

static void test_replacement(void **state)
{
    (void)state;
    check_replacements();
}

/* What a hook sees does not depend on which other sites are looked at, nor does writing back the same change a bit. */
static void test_identity(void **state)
{
    (void)state;
    struct seen all = new_seen(), same = new_seen(), one = new_seen();
    struct site_list list;
    const struct hook_points points = model_points(&model);
    assert_int_equal(sites_match(&list, "*", &points, 1, &e), 0);
    run_all(&model, tokens, &all);
    same.write_back = true;
    run_all(&model, tokens, &same);
    assert_memory_equal(all.sites, same.sites, SITES * sizeof *all.sites);
    assert_memory_equal(all.logits, same.logits, TOKENS * sizeof *all.logits);
    one.write_back = true;
    for (size_t i = 0; i < SITES; i++) {
        run(&model, tokens, &list.sites[i], 1, &one);
        assert_memory_equal(all.sites[i], one.sites[0], sizeof *all.sites);
        assert_memory_equal(all.logits, one.logits, TOKENS * sizeof *all.logits);
    }
    run(&model, tokens, NULL, 0, &one);
    assert_memory_equal(all.logits, one.logits, TOKENS * sizeof *all.logits);
    free_seen(&all);
    free_seen(&same);
    free_seen(&one);
}

/* What a hook or a receiver of logits returns ends the pass and is returned. */
static int calls;

static int refuse_site(void *context, const struct site *site, float *vectors, struct err *error)
{
    (void)context;
    (void)vectors;
    calls++;
    return err_set(error, ERR_STOPPED, "at %s", site->point);
}

static int refuse_logits(void *context, size_t first, size_t n, const float *logits, struct err *error)
{
    (void)context;
    (void)logits;
    calls++;
    assert_true(first == 0 && n == HEAD_TOKENS);
    return err_set(error, ERR_ABSENT, "enough");
}

static void test_refused(void **state)
{
    (void)state;
    const struct site sites[] = {{0, 0, "hook_attn_out"}, {0, 3, "hook_mlp_out"}};
    struct model_request r = {.tokens = tokens,
                              .n = N,
                              .seq_len = SEQ_LEN,
                              .sites = sites,
                              .n_sites = 2,
                              .hook = refuse_site,
                              .logits = refuse_logits};
    calls = 0;
    assert_int_equal(model_run(&workspace, &model, &r, &e), ERR_STOPPED);
    assert_string_equal(e.message, "at hook_attn_out");
    r.n_sites = 0;
    assert_int_equal(model_run(&workspace, &model, &r, &e), ERR_ABSENT);
    assert_string_equal(e.message, "enough");
    assert_int_equal(calls, 2);
    r.logits = NULL; /* neither sites nor logits: there is nothing to do */
    assert_int_equal(model_run(&workspace, &model, &r, &e), 0);
}

/* The last, as it packs the model: the same in bf16. */
static void test_bf16(void **state)
{
    if (model_pack(&model, &e)) {
        print_message("skipped: %s\n", e.message);
        skip();
    }
    check_replacements();
    test_identity(state);
}

static int open_all(void **state)
{
    for (uint32_t t = 0; t < TOKENS; t++)
        tokens[t] = t * 7919 % VOCAB;
    return scratch_open(state) ? -1 : model_open(&model, ORIGINAL, &(struct model_options){.head = true}, &e);
}

static int close_all(void **state)
{
    model_close(&model);
    workspace_release(&workspace);
    return scratch_close(state);
}

int main(void)
{
    omp_set_num_threads(2);
    gemm_set_threads(2);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_replacement), cmocka_unit_test(test_identity),
                                       cmocka_unit_test(test_refused), cmocka_unit_test(test_bf16)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
