/* test_source_model.c - rows of one model and of a pair, and what is refused when models, tokens and sites do not fit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "bf16.h"
#include "gemm.h"
#include "mem.h"
#include "model_load.h"
#include "model_rows.h"
#include "model_run.h"
#include "scratch.h"
#include "source_model.h"

#define MODEL TEST_DATA "/gpt2/unscaled" /* n_embd 32, vocab_size 64, n_positions 24, 3 layers */
#define N_SEQ 150                        /* more than one piece of 2048 tokens */
#define SEQ_LEN 19

static struct err e;
static struct source source;
static const char *const one[] = {MODEL};
static const char *const pair[] = {MODEL, MODEL};

static uint16_t token(size_t sequence, size_t position)
{
    return (uint16_t)((sequence * 31 + position * 7) % 64);
}

/* A .npy of uint16 [n, seq_len]; the last id of the last sequence is `last`. */
static const char *write_tokens(size_t n, size_t seq_len, uint16_t last)
{
    size_t size = 128 + n * seq_len * 2;
    unsigned char *file = calloc(1, size);
    assert_non_null(file);
    memset(file, ' ', 127);
    file[127] = '\n';
    memcpy(file, "\x93NUMPY\x01\x00\x76\x00", 10);
    char header[100];
    int length =
        snprintf(header, sizeof header, "{'descr': '<u2', 'fortran_order': False, 'shape': (%zu, %zu), }", n, seq_len);
    memcpy(file + 10, header, (size_t)length);
    for (size_t s = 0; s < n; s++)
        for (size_t p = 0; p < seq_len; p++) {
            uint16_t id = s == n - 1 && p == seq_len - 1 ? last : token(s, p);
            memcpy(file + 128 + (s * seq_len + p) * 2, &id, 2);
        }
    const char *path = scratch_write("tokens.npy", file, size);
    free(file);
    return path;
}

/* Opening fails with code, and the message has each of the words (NULL-terminated). */
static void refuse(const struct source_model_options *o, int code, const char *const *words)
{
    memset(&e, 0, sizeof e);
    assert_int_equal(source_model_open(&source, o, &e), code);
    for (; *words; words++)
        if (!strstr(e.message, *words))
            fail_msg("\"%s\" does not name \"%s\"", e.message, *words);
}
#define REFUSE(options, code, ...) refuse(&(options), code, (const char *const[]){__VA_ARGS__, NULL})

static void open_source(const struct source_model_options *o)
{
    if (source_model_open(&source, o, &e))
        fail_msg("%s", e.message);
}

static void compute(struct rows *r, uint32_t first, uint32_t n, enum row_dtype dtype, const float *scale)
{
    size_t n_rows = stream_block_rows(&source.stream, n);
    assert_int_equal(rows_init(r, &source.stream, n_rows, &e), 0);
    rows_begin(r, &source.stream, n_rows, dtype, scale);
    if (source.compute(source.self, first, n, r, &e))
        fail_msg("%s", e.message);
}

/* The forward pass's vectors of one site for all sequences, in blocks of one sequence: [N_SEQ, SEQ_LEN, d]. */
static int keep(void *context, const struct site *site, float *vectors, struct err *error)
{
    (void)site;
    (void)error;
    memcpy(context, vectors, SEQ_LEN * 32 * sizeof(float));
    return 0;
}

static void reference(float *dst, struct site site)
{
    struct model m;
    struct workspace w = {0};
    assert_int_equal(model_open(&m, MODEL, NULL, &e), 0);
    for (size_t s = 0; s < N_SEQ; s++) {
        uint32_t ids[SEQ_LEN];
        for (size_t p = 0; p < SEQ_LEN; p++)
            ids[p] = token(s, p);
        const struct model_request r = {.tokens = ids,
                                        .n = 1,
                                        .seq_len = SEQ_LEN,
                                        .sites = &site,
                                        .n_sites = 1,
                                        .hook = keep,
                                        .context = dst + s * SEQ_LEN * 32};
        assert_int_equal(model_run(&w, &m, &r, &e), 0);
    }
    workspace_release(&w);
    model_close(&m);
}

/* Row and site of the block against the reference, scaled and rounded; close, as products of other sizes may differ in
 * their last bits. */
static void check_rows(const struct rows *r, size_t first, size_t n, size_t dropped, size_t site, const float *want,
                       float scale)
{
    size_t row = 0;
    const unsigned char *chunk = NULL;
    const struct row_origin *origins = NULL;
    size_t chunk_bytes, chunk_rows = 0, chunk_index = 0, in_chunk = 0;
    for (size_t s = first; s < first + n; s++)
        for (size_t p = dropped; p < SEQ_LEN; p++, row++, in_chunk++) {
            if (in_chunk == chunk_rows) {
                chunk = rows_chunk(r, chunk_index++, &chunk_bytes, &chunk_rows, &origins);
                in_chunk = 0;
            }
            for (size_t i = 0; i < 32; i++) {
                size_t element = (in_chunk * r->n_sites + site) * 32 + i;
                float x, y = want[(s * SEQ_LEN + p) * 32 + i] * scale;
                uint16_t h;
                memcpy(&h, chunk + (r->dtype == ROW_BF16 ? element * 2 : 0), 2);
                memcpy(&x, chunk + (r->dtype == ROW_BF16 ? 0 : element * 4), 4);
                float tolerance = r->dtype == ROW_BF16 ? 4e-3f * (y < 0 ? -y : y) + 1e-4f : 1e-4f;
                assert_float_equal(r->dtype == ROW_BF16 ? bf16_to_f32(h) : x, y, tolerance);
            }
            struct row_origin origin = origins[in_chunk];
            assert_int_equal(origin.sequence, s);
            assert_int_equal(origin.position, p);
            assert_int_equal(origin.token, token(s, p));
        }
    assert_int_equal(row, r->n_rows);
}

static void test_rows(void **state)
{
    (void)state;
    struct source_model_options o = {.models = one, .n_models = 1, .sites = "*attn_out,blocks.2.hook_resid_post"};
    o.tokens = write_tokens(N_SEQ, SEQ_LEN, token(N_SEQ - 1, SEQ_LEN - 1));
    float *attn_1 = calloc(N_SEQ * SEQ_LEN * 32, sizeof(float)), *post_2 = calloc(N_SEQ * SEQ_LEN * 32, sizeof(float));
    assert_true(attn_1 && post_2);
    reference(attn_1, (struct site){0, 1, "hook_attn_out"});
    reference(post_2, (struct site){0, 2, "hook_resid_post"});
    const float scale[4] = {1, 0.5f, 1, 0.25f};
    struct rows r;

    open_source(&o);
    const struct stream *s = &source.stream;
    assert_true(s->n_sites == 4 && s->d_model == 32 && s->seq_len == SEQ_LEN && s->rows_per_seq == SEQ_LEN - 1);
    assert_true(s->n_seq == N_SEQ && s->vocab_size == 64 && s->n_models == 1 && s->can_bf16 && s->can_f32 &&
                !s->has_scale);
    assert_string_equal(s->sites[1], "blocks.1.hook_attn_out");
    assert_string_equal(s->sites[3], "blocks.2.hook_resid_post");
    compute(&r, 0, N_SEQ, ROW_F32, NULL);
    check_rows(&r, 0, N_SEQ, 1, 1, attn_1, 1);
    check_rows(&r, 0, N_SEQ, 1, 3, post_2, 1);
    rows_release(&r);
    compute(&r, 30, 5, ROW_BF16, scale);
    check_rows(&r, 30, 5, 1, 1, attn_1, 0.5f);
    check_rows(&r, 30, 5, 1, 3, post_2, 0.25f);
    assert_int_equal(source.compute(source.self, N_SEQ - 1, 2, &r, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "150"));
    rows_release(&r);
    source.close(source.self);

    o.keep_bos = true;
    open_source(&o);
    assert_int_equal(source.stream.rows_per_seq, SEQ_LEN);
    compute(&r, 7, 3, ROW_F32, NULL);
    check_rows(&r, 7, 3, 0, 3, post_2, 1);
    rows_release(&r);
    source.close(source.self);
    free(attn_1);
    free(post_2);
}

/* Of a pair, the second model's sites follow the first's; of a model with itself they are the same. */
static void test_pair(void **state)
{
    (void)state;
    struct source_model_options o = {.models = pair, .n_models = 2, .tokens = write_tokens(4, SEQ_LEN, 1)};
    open_source(&o);
    const struct stream *s = &source.stream;
    assert_true(s->n_sites == 6 && s->n_models == 2);
    assert_string_equal(s->sites[2], "0:blocks.2.hook_resid_post");
    assert_string_equal(s->sites[3], "1:blocks.0.hook_resid_post");
    assert_string_equal(s->model_fingerprints[0], s->model_fingerprints[1]);
    struct rows r;
    compute(&r, 1, 3, ROW_F32, NULL);
    size_t bytes, n;
    const struct row_origin *origins;
    const unsigned char *chunk = rows_chunk(&r, 0, &bytes, &n, &origins);
    assert_int_equal(n, 3 * (SEQ_LEN - 1));
    for (size_t row = 0; row < n; row++)
        assert_memory_equal(chunk + row * 6 * 128, chunk + (row * 6 + 3) * 128, 3 * 128);
    rows_release(&r);
    source.close(source.self);
}

/* The same block twice, with another between and another number of threads: the same bytes. */
static void test_same_bits(void **state)
{
    (void)state;
    struct source_model_options o = {
        .models = one, .n_models = 1, .sites = "*", .tokens = write_tokens(N_SEQ, SEQ_LEN, 1)};
    struct rows a, b;
    open_source(&o);
    compute(&a, 3, 120, ROW_F32, NULL);
    compute(&b, 60, 13, ROW_F32, NULL);
    rows_release(&b);
    omp_set_num_threads(1);
    gemm_set_threads(1);
    compute(&b, 3, 120, ROW_F32, NULL);
    size_t bytes = a.n_rows * stream_row_bytes(&source.stream, ROW_F32);
    assert_memory_equal(a.data, b.data, bytes);
    rows_release(&a);
    rows_release(&b);
    source.close(source.self);
    omp_set_num_threads(2);
    gemm_set_threads(2);
}

static void test_tokens_refused(void **state)
{
    (void)state;
    struct source_model_options o = {.models = one, .n_models = 1, .tokens = write_tokens(3, SEQ_LEN, 64)};
    REFUSE(o, ERR_INPUT, "tokens.npy", "sequence 2", "position 18", "64");

    o.tokens = write_tokens(3, 25, 1);
    REFUSE(o, ERR_INPUT, "tokens.npy", "seq_len 25", "24 positions", MODEL);
    o.seq_len = 24;
    open_source(&o);
    assert_int_equal(source.stream.seq_len, 24);
    source.close(source.self);
    o.seq_len = 1;
    REFUSE(o, ERR_INPUT, "tokens.npy", "seq_len 1", "--keep-bos");
    o.keep_bos = true;
    open_source(&o);
    assert_int_equal(source.stream.rows_per_seq, 1);
    source.close(source.self);
    o.tokens = scratch_path("none.npy");
    REFUSE(o, ERR_SYSTEM, "none.npy");
}

static void test_sites_refused(void **state)
{
    (void)state;
    struct source_model_options o = {.models = one, .n_models = 1, .tokens = write_tokens(3, SEQ_LEN, 1)};
    o.sites = "blocks.3.hook_resid_post";
    REFUSE(o, ERR_INPUT, "blocks.3.hook_resid_post", "3 layers");
    o.sites = "1-0:blocks.1.hook_resid_post";
    REFUSE(o, ERR_INPUT, "'1-0:blocks.1.hook_resid_post': model 1 less model 0, but there is 1 model");
    o.n_models = 0;
    REFUSE(o, ERR_INPUT, "0 models");
    o.n_models = STREAM_MAX_MODELS + 1;
    REFUSE(o, ERR_INPUT, "9 models");
}

/* Copies MODEL into that folder of the scratch folder ("" or "second/"), with that tokenizer (NULL: none). */
static void copy_model(const char *to, const char *tokenizer)
{
    const char *const files[] = {"config.json", "model.safetensors"};
    char name[64], path[512];
    for (size_t i = 0; i < 2; i++) {
        struct file_map m;
        snprintf(path, sizeof path, "%s/%s", MODEL, files[i]);
        assert_int_equal(file_map(&m, path, &e), 0);
        snprintf(name, sizeof name, "%s%s", to, files[i]);
        scratch_write(name, m.data, m.size);
        file_unmap(&m);
    }
    snprintf(name, sizeof name, "%stokenizer.json", to);
    if (tokenizer)
        scratch_write(name, tokenizer, strlen(tokenizer));
    else
        remove(scratch_path(name));
}

/* Adds to one bias of a copied model, so that from layer 1 on its vectors are others than MODEL's. */
static void change_model(const char *to, float by)
{
    char name[64];
    struct safetensors f;
    snprintf(name, sizeof name, "%smodel.safetensors", to);
    assert_int_equal(safetensors_open(&f, MODEL "/model.safetensors", &e), 0);
    unsigned char *bytes = malloc(f.map.size);
    assert_non_null(bytes);
    memcpy(bytes, f.map.data, f.map.size);
    unsigned char *bias = bytes + (safetensors_find(&f, "transformer.h.1.attn.c_proj.bias")->data - f.map.data);
    for (size_t i = 0; i < 32; i++) {
        float x;
        memcpy(&x, bias + i * sizeof x, sizeof x);
        x += by * (float)i;
        memcpy(bias + i * sizeof x, &x, sizeof x);
    }
    scratch_write(name, bytes, f.map.size);
    free(bytes);
    safetensors_close(&f);
}

/* Site i of row t of raw rows. */
static const float *vector(const struct rows *r, size_t t, size_t i)
{
    return (const float *)(const void *)r->data + (t * r->n_sites + i) * 32;
}

/* What is sent of a pair, or of three models, is the difference of what is sent of each, in fp32; scaled and rounded as
 * any vector. Over several pieces. */
static void test_differences(void **state)
{
    (void)state;
    enum { N = 700, FIRST = 9, ROWS = (N - FIRST) * (SEQ_LEN - 1), WHOLE = 9, WANTED = 6 }; /* 431 sequences a piece */
    char second[512], third[512], tokens[512];
    snprintf(second, sizeof second, "%s/second", scratch_folder);
    snprintf(third, sizeof third, "%s/third", scratch_folder);
    snprintf(tokens, sizeof tokens, "%s", write_tokens(N, SEQ_LEN, 1));
    assert_int_equal(file_make_folder(second, &e), 0);
    assert_int_equal(file_make_folder(third, &e), 0);
    copy_model("second/", NULL);
    copy_model("third/", NULL);
    change_model("second/", 0.25f);
    change_model("third/", -1);
    const char *const models[] = {MODEL, second, third};
    struct source_model_options o = {.models = models, .n_models = 3, .tokens = tokens};
    struct rows whole, got;
    open_source(&o);
    compute(&whole, FIRST, N - FIRST, ROW_F32, NULL);
    assert_int_equal(whole.n_sites, WHOLE);
    source.close(source.self);

    o.sites = "2-1:blocks.2.*post,1-0:blocks.[12].*post,0-2:blocks.1.*post,0:blocks.2.*post,1:blocks.1.*post";
    static const struct {
        const char *name;
        size_t site, less; /* of the whole ones; less == site: none */
    } want[WANTED] = {{"0:blocks.2.hook_resid_post", 2, 2},   {"1:blocks.1.hook_resid_post", 4, 4},
                      {"0-2:blocks.1.hook_resid_post", 1, 7}, {"1-0:blocks.1.hook_resid_post", 4, 1},
                      {"1-0:blocks.2.hook_resid_post", 5, 2}, {"2-1:blocks.2.hook_resid_post", 8, 5}};
    open_source(&o);
    assert_int_equal(source.stream.n_sites, WANTED);
    assert_int_equal(source.stream.n_models, 3);
    compute(&got, FIRST, N - FIRST, ROW_F32, NULL);
    for (size_t i = 0; i < WANTED; i++) {
        double sum = 0;
        assert_string_equal(source.stream.sites[i], want[i].name);
        for (size_t t = 0; t < ROWS; t++)
            for (size_t k = 0; k < 32; k++) {
                float a = vector(&whole, t, want[i].site)[k], b = vector(&whole, t, want[i].less)[k];
                float x = want[i].site == want[i].less ? a : a - b;
                assert_memory_equal(vector(&got, t, i) + k, &x, sizeof x);
                sum += (double)(x < 0 ? -x : x);
            }
        assert_true(sum > ROWS);
    }
    assert_memory_equal(got.origins, whole.origins, ROWS * sizeof *got.origins);
    rows_release(&got);

    const float scale[WANTED] = {1, 2, 0.3f, 0.7f, 1.1f, 3};
    compute(&got, FIRST, N - FIRST, ROW_BF16, scale);
    for (size_t i = 0; i < WANTED; i++)
        for (size_t t = 0; t < ROWS; t++)
            for (size_t k = 0; k < 32; k++) {
                float a = vector(&whole, t, want[i].site)[k], b = vector(&whole, t, want[i].less)[k];
                uint16_t x = bf16_from_f32((want[i].site == want[i].less ? a : a - b) * scale[i]);
                assert_memory_equal(got.data + ((t * WANTED + i) * 32 + k) * sizeof x, &x, sizeof x);
            }
    rows_release(&got);
    rows_release(&whole);
    source.close(source.self);

    /* A model less itself is nothing, to the bit; the bias changes nothing before layer 1. */
    o.n_models = 2;
    o.sites = "1-0:blocks.0.hook_resid_post";
    open_source(&o);
    compute(&got, 0, 3, ROW_F32, NULL);
    for (size_t t = 0; t < got.n_rows; t++)
        for (size_t k = 0; k < 32; k++)
            assert_true(vector(&got, t, 0)[k] == 0);
    rows_release(&got);
    source.close(source.self);
    assert_int_equal(file_remove_tree(second, &e), 0);
    assert_int_equal(file_remove_tree(third, &e), 0);
}

/* What is kept of a piece is bounded: 32 sites of d_model 4096 are 512 KB a token, 256 MB are 512 tokens. */
static void test_memory_of_differences(void **state)
{
    (void)state;
    static struct site_list list;
    static struct model_rows m;
    static const struct model model = {.d_model = 4096};
    list.n = 64;
    list.wanted.n = 33;
    for (size_t i = 0; i < 32; i++)
        list.wanted.picks[i + 1] = (struct site_pick){.site = 32 + i, .less = i};
    list.wanted.picks[0] = (struct site_pick){.site = 3, .less = PICK_WHOLE};
    assert_int_equal(model_rows_init(&m, &model, &list, 100, 1, &e), 0);
    assert_true(m.n_kept == 32 && m.capacity == 5);
    model_rows_release(&m);
    assert_int_equal(model_rows_init(&m, &model, &list, 600, 1, &e), 0);
    assert_int_equal(m.capacity, 1);
    model_rows_release(&m);
    assert_int_equal(model_rows_init(&m, &model, &list, SIZE_MAX / 4096, 1, &e), ERR_MEMORY);
    model_rows_release(&m);
    list.wanted.n = 1; /* no difference */
    assert_int_equal(model_rows_init(&m, &model, &list, 100, 1, &e), 0);
    assert_true(m.n_kept == 0 && m.capacity == 81);
    model_rows_release(&m);
}

static void replace(char *text, const char *old, const char *new)
{
    char *at = strstr(text, old);
    assert_true(at && strlen(old) == strlen(new));
    memcpy(at, new, strlen(new));
}

static void test_pair_refused(void **state)
{
    (void)state;
    const char *const models[] = {MODEL, scratch_folder}, *const others[] = {TEST_DATA "/gpt2/odd_heads", MODEL};
    struct source_model_options o = {.models = others, .n_models = 2, .tokens = write_tokens(3, SEQ_LEN, 1)};
    REFUSE(o, ERR_MISMATCH, others[0], "96", others[1], "32");

    /* Another vocabulary: one word of the table less, config and tensor agreeing. */
    copy_model("", NULL);
    struct safetensors f;
    struct safetensors_writer w;
    struct tensor_spec specs[128];
    char *config;
    size_t size;
    assert_int_equal(file_read_text(MODEL "/config.json", 4096, &config, &size, &e), 0);
    replace(config, "\"vocab_size\": 64", "\"vocab_size\": 63");
    scratch_write("config.json", config, size);
    mem_free(config);
    assert_int_equal(safetensors_open(&f, MODEL "/model.safetensors", &e), 0);
    for (size_t i = 0; i < f.n_tensors; i++) {
        specs[i] =
            (struct tensor_spec){.name = f.tensors[i].name, .dtype = f.tensors[i].dtype, .n_dims = f.tensors[i].n_dims};
        memcpy(specs[i].shape, f.tensors[i].shape, sizeof specs[i].shape);
        if (strstr(specs[i].name, "wte"))
            specs[i].shape[0] = 63;
    }
    assert_int_equal(safetensors_write_begin(&w, scratch_path("model.safetensors"), specs, f.n_tensors, NULL, 0, &e),
                     0);
    for (size_t i = 0; i < f.n_tensors; i++)
        assert_int_equal(safetensors_write_data(&w, f.tensors[i].data,
                                                strstr(specs[i].name, "wte") ? 63 * 32 * 4 : f.tensors[i].bytes, &e),
                         0);
    assert_int_equal(safetensors_write_commit(&w, &e), 0);
    safetensors_close(&f);
    o.models = models;
    REFUSE(o, ERR_MISMATCH, MODEL, "vocab_size 64", scratch_folder, "63");
}

/* Tokenizers matter where two models have one: here the second and the third. */
static void test_tokenizers(void **state)
{
    (void)state;
    char second[128];
    snprintf(second, sizeof second, "%s/second", scratch_folder);
    assert_int_equal(file_make_folder(second, &e), 0);
    const char *const models[] = {MODEL, scratch_folder, second};
    struct source_model_options o = {.models = models, .n_models = 3};
    char tokens[128];
    snprintf(tokens, sizeof tokens, "%s", write_tokens(3, SEQ_LEN, 1));
    o.tokens = tokens;
    copy_model("", "{\"the\": 1}");
    copy_model("second/", NULL);
    open_source(&o);
    source.close(source.self);
    copy_model("second/", "{\"the\": 1}");
    open_source(&o);
    source.close(source.self);
    copy_model("second/", "{\"the\": 2}");
    REFUSE(o, ERR_MISMATCH, scratch_folder, "second/tokenizer.json", "byte 8");
    copy_model("second/", "{\"the\": 1} ");
    REFUSE(o, ERR_MISMATCH, "(10 bytes)", "(11 bytes)", "byte 10");
    assert_int_equal(file_remove_tree(second, &e), 0);
}

/* Finite weights, infinite activations: the error says where first. */
static void test_not_finite(void **state)
{
    (void)state;
    copy_model("", NULL);
    struct safetensors f;
    assert_int_equal(safetensors_open(&f, MODEL "/model.safetensors", &e), 0);
    unsigned char *bytes = malloc(f.map.size);
    assert_non_null(bytes);
    memcpy(bytes, f.map.data, f.map.size);
    const char *const biases[] = {"transformer.h.1.attn.c_proj.bias", "transformer.h.1.mlp.c_proj.bias"};
    for (size_t i = 0; i < 2; i++) {
        const float large = 3e38f;
        memcpy(bytes + (safetensors_find(&f, biases[i])->data - f.map.data) + 5 * 4, &large, 4);
    }
    scratch_write("model.safetensors", bytes, f.map.size);
    free(bytes);
    safetensors_close(&f);

    const char *const models[] = {scratch_folder};
    struct source_model_options o = {.models = models, .n_models = 1, .tokens = write_tokens(9, SEQ_LEN, 1)};
    struct rows r;
    open_source(&o);
    assert_int_equal(rows_init(&r, &source.stream, 5 * (SEQ_LEN - 1), &e), 0);
    rows_begin(&r, &source.stream, 5 * (SEQ_LEN - 1), ROW_F32, NULL);
    assert_int_equal(source.compute(source.self, 3, 5, &r, &e), ERR_INPUT);
    const char *const words[] = {scratch_folder, "blocks.1.hook_resid_post", "sequence 3",
                                 "position 1:", "activation 5 is inf"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(e.message, words[i]))
            fail_msg("\"%s\" does not name \"%s\"", e.message, words[i]);
    rows_release(&r);
    source.close(source.self);
}

int main(void)
{
    omp_set_num_threads(2);
    gemm_set_threads(2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),          cmocka_unit_test(test_pair),
        cmocka_unit_test(test_differences),   cmocka_unit_test(test_memory_of_differences),
        cmocka_unit_test(test_same_bits),     cmocka_unit_test(test_tokens_refused),
        cmocka_unit_test(test_sites_refused), cmocka_unit_test(test_pair_refused),
        cmocka_unit_test(test_tokenizers),    cmocka_unit_test(test_not_finite)};
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
