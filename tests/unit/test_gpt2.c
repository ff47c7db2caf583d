/* test_gpt2.c - the forward pass against Hugging Face's (tools/reference/gpt2_reference.py wrote the goldens): every
 * hook point of every layer of three random checkpoints and of the demo models, and the logits of the random ones,
 * within 1e-5 relative in fp32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "gemm.h"
#include "model_load.h"
#include "model_run.h"
#include "precision.h"

#define TOLERANCE 1e-5

static struct err e;

/* A model with its golden, and what comparing them found. */
struct fixture {
    struct model model;
    struct safetensors golden;
    const uint32_t *tokens; /* [n, seq_len] */
    size_t n, seq_len;
    struct site_list sites;
    bool centered;
    double worst;
    char worst_site[SITE_NAME_SIZE];
};

static void open_fixture(struct fixture *x, const char *folder, const char *golden, bool centered)
{
    *x = (struct fixture){.centered = centered};
    const struct model_options options = {.center_writing_weights = centered, .head = true};
    if (model_open(&x->model, folder, &options, &e) || safetensors_open(&x->golden, golden, &e))
        fail_msg("%s", e.message);
    const struct tensor_view *t = safetensors_find(&x->golden, "tokens");
    assert_true(t && t->dtype == TENSOR_I32 && t->n_dims == 2 && (uintptr_t)t->data % 4 == 0);
    x->tokens = (const uint32_t *)(const void *)t->data;
    x->n = t->shape[0];
    x->seq_len = t->shape[1];
    assert_int_equal(sites_match(&x->sites, "*", (const struct hook_points[]){model_points(&x->model)}, 1, &e), 0);
    assert_int_equal(x->sites.n, 5 * x->model.n_layer);
}

static void close_fixture(struct fixture *x)
{
    model_close(&x->model);
    safetensors_close(&x->golden);
}

/* Runs all of a fixture's tokens up to its last site. */
static void run(struct workspace *w, const struct fixture *x, pass_hook hook, void *context)
{
    const struct model_request r = {.tokens = x->tokens,
                                    .n = x->n,
                                    .seq_len = x->seq_len,
                                    .sites = x->sites.sites,
                                    .n_sites = x->sites.n,
                                    .hook = hook,
                                    .context = context};
    if (model_run(w, &x->model, &r, &e))
        fail_msg("%s", e.message);
}

/* relative error of a site = norm(ours - golden) / norm(golden), over the golden's sequences and positions */
static int compare(void *context, const struct site *site, float *vectors, struct err *error)
{
    (void)error;
    struct fixture *x = context;
    char name[SITE_NAME_SIZE + 16];
    memcpy(name, "centered:", 9);
    site_name(name + 9, site, 1);
    const struct tensor_view *positions =
        safetensors_find(&x->golden, x->centered ? "centered:positions" : "positions");
    const struct tensor_view *want = safetensors_find(&x->golden, x->centered ? name : name + 9);
    assert_true(positions && want && want->dtype == TENSOR_F32 && want->n_dims == 3);
    size_t n_pos = positions->shape[0], d = want->shape[2];
    assert_true(want->shape[0] == x->n && want->shape[1] == n_pos && d == x->model.d_model);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < x->n * n_pos * d; i++) {
        int32_t position;
        float golden;
        memcpy(&position, positions->data + i / d % n_pos * 4, 4);
        memcpy(&golden, want->data + i * 4, 4);
        size_t row = i / d / n_pos * x->seq_len + (size_t)position;
        double ours = (double)vectors[row * d + i % d];
        difference += (ours - (double)golden) * (ours - (double)golden);
        norm += (double)golden * (double)golden;
    }
    double relative = sqrt(difference / norm);
    if (!(relative <= x->worst)) { /* also NaN */
        x->worst = relative;
        strcpy(x->worst_site, name + 9);
    }
    return 0;
}

/* Adds to the sums of squares of the differences from the golden logits, and of these. */
struct logits_sums {
    const struct fixture *x;
    double difference, norm;
    size_t next; /* token */
};

static int compare_logits(void *context, size_t first, size_t n, const float *logits, struct err *error)
{
    (void)error;
    struct logits_sums *sums = context;
    const struct fixture *x = sums->x;
    const struct tensor_view *positions = safetensors_find(&x->golden, "positions"),
                             *want = safetensors_find(&x->golden, "logits");
    size_t n_pos = positions->shape[0], vocab = x->model.vocab_size;
    assert_true(first == sums->next && n > 0 && n <= HEAD_TOKENS);
    assert_true(want->dtype == TENSOR_F32 && want->n_dims == 3 && want->shape[1] == n_pos && want->shape[2] == vocab);
    for (size_t i = 0; i < x->n * n_pos; i++) {
        int32_t position;
        memcpy(&position, positions->data + i % n_pos * 4, 4);
        size_t token = i / n_pos * x->seq_len + (size_t)position;
        for (size_t j = 0; token >= first && token < first + n && j < vocab; j++) {
            float golden;
            memcpy(&golden, want->data + (i * vocab + j) * 4, 4);
            double difference = (double)logits[(token - first) * vocab + j] - (double)golden;
            sums->difference += difference * difference;
            sums->norm += (double)golden * (double)golden;
        }
    }
    sums->next += n;
    return 0;
}

/* Centring the weights that write to the residual stream does not change the logits. */
static void check_logits(struct workspace *w, const struct fixture *x)
{
    struct logits_sums sums = {.x = x};
    const struct model_request r = {
        .tokens = x->tokens, .n = x->n, .seq_len = x->seq_len, .logits = compare_logits, .context = &sums};
    if (model_run(w, &x->model, &r, &e))
        fail_msg("%s", e.message);
    assert_int_equal(sums.next, x->n * x->seq_len);
    double relative = sqrt(sums.difference / sums.norm);
    print_message("  logits: relative error %.2e\n", relative);
    assert_true(relative <= TOLERANCE);
}

static void check_golden(const char *folder, const char *golden, bool centered)
{
    struct fixture x;
    struct workspace w = {0};
    open_fixture(&x, folder, golden, centered);
    run(&w, &x, compare, &x);
    print_message("%s%s: %zu sites, worst relative error %.2e at %s\n", folder + (sizeof TEST_DATA - 1),
                  centered ? " centered" : "", x.sites.n, x.worst, x.worst_site);
    assert_true(x.worst <= TOLERANCE);
    if (safetensors_find(&x.golden, "logits"))
        check_logits(&w, &x);
    workspace_release(&w);
    close_fixture(&x);
}

static void test_goldens(void **state)
{
    (void)state;
    struct safetensors golden;
    assert_int_equal(safetensors_open(&golden, TEST_DATA "/gpt2/unscaled.safetensors", &e), 0);
    assert_non_null(safetensors_find(&golden, "logits")); /* the random checkpoints' goldens have them */
    safetensors_close(&golden);
    check_golden(TEST_DATA "/gpt2/odd_heads", TEST_DATA "/gpt2/odd_heads.safetensors", false);
    check_golden(TEST_DATA "/gpt2/sharded", TEST_DATA "/gpt2/sharded.safetensors", false);
    check_golden(TEST_DATA "/gpt2/unscaled", TEST_DATA "/gpt2/unscaled.safetensors", false);
}

static void test_centered(void **state)
{
    (void)state;
    check_golden(TEST_DATA "/gpt2/odd_heads", TEST_DATA "/gpt2/odd_heads.safetensors", true);
    check_golden(TEST_DATA "/gpt2/sharded", TEST_DATA "/gpt2/sharded.safetensors", true);
    check_golden(TEST_DATA "/gpt2/unscaled", TEST_DATA "/gpt2/unscaled.safetensors", true);
}

static void test_demo(void **state)
{
    (void)state;
    if (access(DEMO "/base/config.json", F_OK) || access(TEST_DATA "/gpt2/demo_base.safetensors", F_OK))
        skip();
    check_golden(DEMO "/base", TEST_DATA "/gpt2/demo_base.safetensors", false);
    check_golden(DEMO "/chat", TEST_DATA "/gpt2/demo_chat.safetensors", false);
}

/* Keeps all vectors of all sites, one after the other. */
struct keeper {
    float *data;
    size_t used, tokens, d;
};

static int keep(void *context, const struct site *site, float *vectors, struct err *error)
{
    (void)site;
    (void)error;
    struct keeper *k = context;
    memcpy(k->data + k->used, vectors, k->tokens * k->d * sizeof(float));
    k->used += k->tokens * k->d;
    return 0;
}

static void run_threads(const struct fixture *x, int threads, size_t n, const uint32_t *tokens, struct keeper *k)
{
    struct workspace w = {0};
    *k = (struct keeper){.tokens = n * x->seq_len, .d = x->model.d_model};
    k->data = calloc(x->sites.n * k->tokens * k->d, sizeof(float));
    assert_non_null(k->data);
    omp_set_num_threads(threads);
    gemm_set_threads(threads);
    struct fixture some = *x;
    some.tokens = tokens;
    some.n = n;
    run(&w, &some, keep, k);
    workspace_release(&w);
}

/* The same bits with 1 and 2 threads, for several numbers of sequences. */
static void test_threads(void **state)
{
    (void)state;
    struct fixture x;
    open_fixture(&x, TEST_DATA "/gpt2/odd_heads", TEST_DATA "/gpt2/odd_heads.safetensors", false);
    size_t most = 9;
    uint32_t *tokens = calloc(most * x.seq_len, sizeof *tokens);
    assert_non_null(tokens);
    for (size_t i = 0; i < most * x.seq_len; i++)
        tokens[i] = (uint32_t)(i * 7919 % x.model.vocab_size);
    for (size_t n = 1; n <= most; n += 4) {
        struct keeper one, two;
        run_threads(&x, 1, n, tokens, &one);
        run_threads(&x, 2, n, tokens, &two);
        assert_memory_equal(one.data, two.data, one.used * sizeof(float));
        free(one.data);
        free(two.data);
    }
    omp_set_num_threads(2);
    gemm_set_threads(2);
    free(tokens);
    close_fixture(&x);
}

/* A pass that stops early, in a workspace used for something larger before, gives what the full one gives. */
static void test_some_sites(void **state)
{
    (void)state;
    struct fixture x;
    struct workspace w = {0};
    open_fixture(&x, TEST_DATA "/gpt2/sharded", TEST_DATA "/gpt2/sharded.safetensors", false);
    struct keeper all, some = {.tokens = x.n * x.seq_len, .d = x.model.d_model};
    run_threads(&x, 2, x.n, x.tokens, &all);
    const struct site_list all_sites = x.sites;
    size_t site = some.tokens * some.d;
    some.data = calloc(2 * site, sizeof(float));
    assert_non_null(some.data);
    enum { ATTN_OUT = 1, MLP_OUT = 3 }; /* of a layer's five */
    x.sites = (struct site_list){.n = 2, .sites = {all_sites.sites[5 + ATTN_OUT], all_sites.sites[5 + MLP_OUT]}};
    assert_int_equal(model_reserve(&w, &x.model, 5, x.seq_len, &e), 0);
    memset(w.narrow.data, 0xff, w.narrow.size); /* NaN: nothing may be read before it is written */
    memset(w.wide.data, 0xff, w.wide.size);
    memset(w.out.data, 0xff, w.out.size);
    memset(w.scores.data, 0xff, w.scores.size);
    run(&w, &x, keep, &some);
    assert_int_equal(some.used, 2 * site);
    assert_memory_equal(some.data, all.data + (5 + ATTN_OUT) * site, site * sizeof(float));
    assert_memory_equal(some.data + site, all.data + (5 + MLP_OUT) * site, site * sizeof(float));
    free(some.data);
    free(all.data);
    workspace_release(&w);
    close_fixture(&x);
}

/* In bf16: near fp32 but not it, another fingerprint, and the same bits with 1 and 2 threads. */
static void test_bf16(void **state)
{
    (void)state;
    struct fixture x;
    struct workspace w = {0};
    open_fixture(&x, TEST_DATA "/gpt2/odd_heads", TEST_DATA "/gpt2/odd_heads.safetensors", false);
    double error[64];
    char fp32[FINGERPRINT_SIZE];
    memcpy(fp32, x.model.fingerprint, sizeof fp32);
    assert_true(x.sites.n <= 64);
    if (precision_pack(&x.model, &w, x.tokens, x.seq_len, 1, x.sites.sites, x.sites.n, error, &e)) {
        print_message("skipped: %s\n", e.message);
        workspace_release(&w);
        close_fixture(&x);
        skip();
    }
    assert_string_not_equal(fp32, x.model.fingerprint);
    for (size_t i = 0; i < x.sites.n; i++) {
        bool embedded = x.sites.sites[i].layer == 0 && strcmp(x.sites.sites[i].point, "hook_resid_pre") == 0;
        assert_true(embedded ? error[i] == 0 : error[i] > 1e-5 && error[i] < 0.02);
    }
    struct keeper one, two;
    run_threads(&x, 1, x.n, x.tokens, &one);
    run_threads(&x, 2, x.n, x.tokens, &two);
    assert_memory_equal(one.data, two.data, one.used * sizeof(float));
    free(one.data);
    free(two.data);
    workspace_release(&w);
    close_fixture(&x);
}

int main(void)
{
    omp_set_num_threads(2);
    gemm_set_threads(2);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens),    cmocka_unit_test(test_centered),
                                       cmocka_unit_test(test_demo),       cmocka_unit_test(test_threads),
                                       cmocka_unit_test(test_some_sites), cmocka_unit_test(test_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
