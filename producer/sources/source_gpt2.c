/* source_gpt2.c - see source_gpt2.h.
 *
 * A block is computed in pieces of a fixed number of sequences, model after model, and each site's vectors go from the
 * forward pass's workspace straight to their rows. Pieces bound the workspace whatever the block's size, and keep it
 * small enough that much of it is still in cache when it is read. Their size depends on seq_len alone, so a block has
 * the same bits whoever computes it. */
#include "source_gpt2.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "finite.h"
#include "gpt2_forward.h"
#include "gpt2_model.h"
#include "log.h"
#include "mem.h"
#include "precision.h"
#include "sites.h"
#include "tokens.h"

#define PIECE_TOKENS ((size_t)8192) /* at least one sequence */

struct source_gpt2 {
    struct gpt2_model models[STREAM_MAX_MODELS];
    uint32_t n_models;
    struct tokens tokens;
    struct site_list sites;                   /* of all models */
    size_t first_site[STREAM_MAX_MODELS + 1]; /* model m has sites first_site[m]..first_site[m + 1] */
    struct gpt2_forward forward;
    uint32_t *ids;           /* [piece, seq_len] */
    size_t piece;            /* sequences */
    size_t seq_len, dropped; /* dropped: leading positions that give no row, 0 or 1 */
    /* of the piece being computed: */
    struct rows *rows;
    size_t first_row, first_sequence, n;
};

/* Stores one site's vectors [n * seq_len, d]; a gpt2_hook. */
static int put_site(void *context, const struct site *site, const float *vectors, struct err *e)
{
    struct source_gpt2 *g = context;
    size_t index = (size_t)(site - g->sites.sites), d = g->rows->d_model, seq_len = g->seq_len, n = g->n * seq_len,
           bad = n;
    size_t rows_per_seq = seq_len - g->dropped;
#pragma omp parallel for reduction(min : bad)
    for (size_t t = 0; t < n; t++) {
        size_t sequence = t / seq_len, position = t % seq_len;
        if (position < g->dropped)
            continue;
        if (finite_first_bad_f32(vectors + t * d, d) < d && t < bad)
            bad = t;
        rows_put(g->rows, g->first_row + sequence * rows_per_seq + position - g->dropped, index, vectors + t * d);
    }
    if (bad == n)
        return 0;
    char name[SITE_NAME_SIZE];
    site_name(name, site, 1);
    size_t i = finite_first_bad_f32(vectors + bad * d, d);
    return err_set(e, ERR_INPUT, "model %s, %s, sequence %zu, position %zu: activation %zu is %g, must be finite",
                   g->models[site->model].folder, name, g->first_sequence + bad / seq_len, bad % seq_len, i,
                   (double)vectors[bad * d + i]);
}

/* Token ids of the piece, and where its rows come from. */
static void fetch_tokens(struct source_gpt2 *g)
{
    size_t row = g->first_row;
    for (size_t i = 0; i < g->n; i++) {
        uint32_t *ids = g->ids + i * g->seq_len, sequence = (uint32_t)(g->first_sequence + i);
        uint32_t length = tokens_length(&g->tokens, sequence);
        tokens_get(&g->tokens, sequence, ids);
        for (size_t position = g->dropped; position < g->seq_len; position++)
            rows_put_origin(
                g->rows, row++,
                (struct row_origin){sequence, (uint32_t)position, position < length ? ids[position] : ROW_MASKED});
    }
}

static int compute(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e)
{
    struct source_gpt2 *g = self;
    int rc = 0;
    if (n > g->tokens.n_seq || first > g->tokens.n_seq - n)
        return err_set(e, ERR_INPUT, "sequences %" PRIu32 " to %" PRIu64 " asked for, the token tensor has %" PRIu32,
                       first, (uint64_t)first + n, g->tokens.n_seq);
    g->rows = r;
    for (size_t done = 0; !rc && done < n; done += g->n) {
        g->first_sequence = first + done;
        g->first_row = done * (g->seq_len - g->dropped);
        g->n = n - done < g->piece ? n - done : g->piece;
        fetch_tokens(g);
        for (uint32_t m = 0; !rc && m < g->n_models; m++)
            rc = gpt2_forward_run(&g->forward, &g->models[m], g->ids, g->n, g->seq_len,
                                  g->sites.sites + g->first_site[m], g->first_site[m + 1] - g->first_site[m], put_site,
                                  g, e);
    }
    return rc;
}

static void close_source(void *self)
{
    struct source_gpt2 *g = self;
    for (uint32_t m = 0; m < g->n_models; m++)
        gpt2_model_close(&g->models[m]);
    tokens_close(&g->tokens);
    gpt2_forward_release(&g->forward);
    mem_free(g->ids);
    mem_free(g);
}

/* Refuses if both have a tokenizer.json and they differ. *has: whether a has one. */
static int compare_tokenizers(const char *a, const char *b, bool *has, struct err *e)
{
    char path_a[4096], path_b[4096];
    struct file_map x = {0}, y = {0};
    int rc = file_join(path_a, sizeof path_a, a, "tokenizer.json", e);
    if (!rc)
        rc = file_join(path_b, sizeof path_b, b, "tokenizer.json", e);
    *has = !rc && access(path_a, F_OK) == 0;
    if (rc || !*has || access(path_b, F_OK) != 0)
        return rc;
    rc = file_map(&x, path_a, e);
    if (!rc)
        rc = file_map(&y, path_b, e);
    if (!rc) {
        size_t i = 0, shorter = x.size < y.size ? x.size : y.size;
        while (i < shorter && x.data[i] == y.data[i])
            i++;
        if (i < x.size || i < y.size)
            rc = err_set(e, ERR_MISMATCH, "%s (%zu bytes) and %s (%zu bytes) differ from byte %zu on", path_a, x.size,
                         path_b, y.size, i);
    }
    file_unmap(&x);
    file_unmap(&y);
    return rc;
}

/* Model m against the earlier ones. */
static int compare_models(const struct source_gpt2 *g, uint32_t m, struct err *e)
{
    const struct gpt2_model *a = &g->models[0], *b = &g->models[m];
    if (a->config.n_embd != b->config.n_embd)
        return err_set(e, ERR_MISMATCH, "%s has n_embd %" PRIu32 ", %s has %" PRIu32, a->folder, a->config.n_embd,
                       b->folder, b->config.n_embd);
    if (a->config.vocab_size != b->config.vocab_size)
        return err_set(e, ERR_MISMATCH, "%s has vocab_size %" PRIu32 ", %s has %" PRIu32, a->folder,
                       a->config.vocab_size, b->folder, b->config.vocab_size);
    bool has = false;
    for (uint32_t i = 0; !has && i < m; i++) {
        int rc = compare_tokenizers(g->models[i].folder, b->folder, &has, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int open_models(struct source_gpt2 *g, const struct source_gpt2_options *o, struct err *e)
{
    if (o->n_models < 1 || o->n_models > STREAM_MAX_MODELS)
        return err_set(e, ERR_INPUT, "%" PRIu32 " models, must be 1 to %d", o->n_models, STREAM_MAX_MODELS);
    for (uint32_t m = 0; m < o->n_models; m++) {
        int rc = gpt2_model_open(&g->models[m], o->models[m], o->center_writing_weights, e);
        if (rc)
            return rc;
        g->n_models++;
        rc = compare_models(g, m, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int open_tokens(struct source_gpt2 *g, const struct source_gpt2_options *o, struct err *e)
{
    int rc = tokens_open(&g->tokens, o->tokens, o->seq_len, g->models[0].config.vocab_size, e);
    if (rc == 0 && o->lengths)
        rc = tokens_open_lengths(&g->tokens, o->lengths, e);
    if (rc)
        return rc;
    g->seq_len = g->tokens.seq_len;
    g->dropped = o->keep_bos ? 0 : 1;
    for (uint32_t m = 0; m < g->n_models; m++)
        if (g->seq_len > g->models[m].config.n_positions)
            return err_set(e, ERR_INPUT, "%s: seq_len %zu is more than the n_positions %" PRIu32 " of model %s",
                           o->tokens, g->seq_len, g->models[m].config.n_positions, g->models[m].folder);
    if (g->seq_len <= g->dropped)
        return err_set(e, ERR_INPUT,
                       "%s: seq_len %zu leaves no rows, as the first position (BOS) is dropped; --keep-bos keeps it",
                       o->tokens, g->seq_len);
    return 0;
}

static int open_sites(struct source_gpt2 *g, const char *globs, struct err *e)
{
    uint32_t n_layers[STREAM_MAX_MODELS];
    for (uint32_t m = 0; m < g->n_models; m++)
        n_layers[m] = g->models[m].config.n_layer;
    int rc = sites_match(&g->sites, globs, n_layers, g->n_models, e);
    size_t i = 0;
    for (uint32_t m = 0; !rc && m < g->n_models; m++) {
        g->first_site[m] = i;
        while (i < g->sites.n && g->sites.sites[i].model == m)
            i++;
        g->first_site[m + 1] = i;
    }
    return rc;
}

static int reserve(struct source_gpt2 *g, struct err *e)
{
    g->piece = g->seq_len < PIECE_TOKENS ? PIECE_TOKENS / g->seq_len : 1;
    g->ids = mem_alloc(g->piece * g->seq_len, sizeof *g->ids, "token ids", e);
    int rc = g->ids ? 0 : ERR_MEMORY;
    for (uint32_t m = 0; !rc && m < g->n_models; m++)
        rc = gpt2_forward_reserve(&g->forward, &g->models[m], g->piece, g->seq_len, e);
    return rc;
}

/* The models of this source in bf16; says how far that is from fp32, on the first sequence. */
static int pack_models(struct source_gpt2 *g, struct err *e)
{
    double error[STREAM_MAX_SITES];
    tokens_get(&g->tokens, 0, g->ids);
    for (uint32_t m = 0; m < g->n_models; m++) {
        size_t n = g->first_site[m + 1] - g->first_site[m], worst = 0;
        const struct site *sites = g->sites.sites + g->first_site[m];
        if (precision_pack(&g->models[m], &g->forward, g->ids, g->seq_len, g->dropped, sites, n, error, e))
            return e->code;
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            sum += error[i];
            worst = error[i] > error[worst] ? i : worst;
        }
        char name[SITE_NAME_SIZE];
        if (n == 0)
            continue;
        site_name(name, &sites[worst], 1);
        log_line("model %s in bf16: off from fp32 by %.3f %% (mean of %zu sites over sequence 0), at most %.3f %% (%s)",
                 g->models[m].folder, 100 * sum / (double)n, n, 100 * error[worst], name);
    }
    return 0;
}

static int describe(struct stream *s, const struct source_gpt2 *g, struct err *e)
{
    *s = (struct stream){.n_sites = (uint32_t)g->sites.n,
                         .d_model = g->models[0].config.n_embd,
                         .seq_len = (uint32_t)g->seq_len,
                         .rows_per_seq = (uint32_t)(g->seq_len - g->dropped),
                         .n_seq = g->tokens.n_seq,
                         .vocab_size = g->models[0].config.vocab_size,
                         .n_models = g->n_models,
                         .can_bf16 = true,
                         .can_f32 = true};
    for (size_t i = 0; i < g->sites.n; i++)
        site_name(s->sites[i], &g->sites.sites[i], g->n_models);
    memcpy(s->tokens_fingerprint, g->tokens.fingerprint, FINGERPRINT_SIZE);
    for (uint32_t m = 0; m < g->n_models; m++)
        memcpy(s->model_fingerprints[m], g->models[m].fingerprint, FINGERPRINT_SIZE);
    return stream_check(s, e);
}

int source_gpt2_open(struct source *s, const struct source_gpt2_options *o, struct err *e)
{
    *s = (struct source){0};
    struct source_gpt2 *g = mem_alloc(1, sizeof *g, "GPT-2 source", e);
    if (!g)
        return ERR_MEMORY;
    int rc = open_models(g, o, e);
    if (!rc)
        rc = open_tokens(g, o, e);
    if (!rc)
        rc = open_sites(g, o->sites, e);
    if (!rc)
        rc = reserve(g, e);
    if (!rc && o->bf16)
        rc = pack_models(g, e);
    if (!rc)
        rc = describe(&s->stream, g, e);
    if (rc) {
        close_source(g);
        return rc;
    }
    s->self = g;
    s->compute = compute;
    s->close = close_source;
    return 0;
}
