/* source_model.c - see source_model.h.
 *
 * A block is computed in pieces of a fixed number of sequences, model after model, and each site's vectors go from the
 * forward pass's workspace straight to their rows (model_rows). Pieces bound the workspace whatever the block's size, and
 * keep it small enough that much of it is still in cache when it is read. Their size depends on the stream alone, so a
 * block has the same bits whoever computes it. */
#include "source_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "model_run.h"
#include "log.h"
#include "mem.h"
#include "model_load.h"
#include "model_rows.h"
#include "precision.h"
#include "sites.h"
#include "tokens.h"

struct source_model {
    struct model models[STREAM_MAX_MODELS];
    uint32_t n_models;
    struct tokens tokens;
    struct site_list sites;                   /* of all models */
    size_t first_site[STREAM_MAX_MODELS + 1]; /* model m has sites first_site[m]..first_site[m + 1] */
    struct workspace workspace;
    struct model_rows piece;
    uint32_t *ids;           /* [piece.capacity, seq_len] */
    size_t seq_len, dropped; /* dropped: leading positions that give no row, 0 or 1 */
};

/* Fetches the token ids of the piece, and puts the origins of its rows. */
static void fetch_tokens(struct source_model *src)
{
    const struct model_rows *piece = &src->piece;
    size_t row = piece->first_row;
    for (size_t i = 0; i < piece->n; i++) {
        uint32_t *ids = src->ids + i * src->seq_len, sequence = (uint32_t)(piece->first_sequence + i);
        uint32_t length = tokens_length(&src->tokens, sequence);
        tokens_get(&src->tokens, sequence, ids);
        for (size_t position = src->dropped; position < src->seq_len; position++)
            rows_put_origin(
                piece->rows, row++,
                (struct row_origin){sequence, (uint32_t)position, position < length ? ids[position] : ROW_MASKED});
    }
}

static int compute(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e)
{
    struct source_model *src = self;
    struct model_rows *piece = &src->piece;
    int rc = 0;
    if (n > src->tokens.n_seq || first > src->tokens.n_seq - n)
        return err_set(e, ERR_INPUT, "sequences %" PRIu32 " to %" PRIu64 " asked for, the token tensor has %" PRIu32,
                       first, (uint64_t)first + n, src->tokens.n_seq);
    for (size_t done = 0; !rc && done < n; done += piece->n) {
        size_t left = n - done;
        model_rows_begin(piece, r, done * (src->seq_len - src->dropped), first + done,
                         left < piece->capacity ? left : piece->capacity);
        fetch_tokens(src);
        for (uint32_t m = 0; !rc && m < src->n_models; m++) {
            const struct model_request request = {.tokens = src->ids,
                                                  .n = piece->n,
                                                  .seq_len = src->seq_len,
                                                  .sites = src->sites.sites + src->first_site[m],
                                                  .n_sites = src->first_site[m + 1] - src->first_site[m],
                                                  .hook = model_rows_put,
                                                  .context = piece};
            rc = model_run(&src->workspace, &src->models[m], &request, e);
        }
    }
    return rc;
}

static void close_source(void *self)
{
    struct source_model *src = self;
    for (uint32_t m = 0; m < src->n_models; m++)
        model_close(&src->models[m]);
    tokens_close(&src->tokens);
    workspace_release(&src->workspace);
    model_rows_release(&src->piece);
    mem_free(src->ids);
    mem_free(src);
}

/* Refuses two folders that both have a tokenizer.json if the two differ. Sets *has to whether a has one. */
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

/* Refuses model m if it does not go with the earlier ones. */
static int compare_models(const struct source_model *src, uint32_t m, struct err *e)
{
    const struct model *a = &src->models[0], *b = &src->models[m];
    if (a->d_model != b->d_model)
        return err_set(e, ERR_MISMATCH, "%s has d_model %" PRIu32 ", %s has %" PRIu32, a->folder, a->d_model, b->folder,
                       b->d_model);
    if (a->vocab_size != b->vocab_size)
        return err_set(e, ERR_MISMATCH, "%s has vocab_size %" PRIu32 ", %s has %" PRIu32, a->folder, a->vocab_size,
                       b->folder, b->vocab_size);
    bool has = false;
    for (uint32_t i = 0; !has && i < m; i++) {
        int rc = compare_tokenizers(src->models[i].folder, b->folder, &has, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int open_models(struct source_model *src, const struct source_model_options *o, struct err *e)
{
    if (o->n_models < 1 || o->n_models > STREAM_MAX_MODELS)
        return err_set(e, ERR_INPUT, "%" PRIu32 " models, must be 1 to %d", o->n_models, STREAM_MAX_MODELS);
    const struct model_options options = {.center_writing_weights = o->center_writing_weights};
    for (uint32_t m = 0; m < o->n_models; m++) {
        int rc = model_open(&src->models[m], o->models[m], &options, e);
        if (rc)
            return rc;
        src->n_models++;
        rc = compare_models(src, m, e);
        if (rc)
            return rc;
    }
    return 0;
}

/* Opens the lengths that are given, or else those beside the tokens. */
static int open_lengths(struct source_model *src, const struct source_model_options *o, struct err *e)
{
    char beside[4096];
    if (o->lengths)
        return tokens_open_lengths(&src->tokens, o->lengths, e);
    if (npy_lengths_path(beside, sizeof beside, o->tokens, e))
        return e->code;
    if (access(beside, F_OK) != 0)
        return 0;
    if (o->no_lengths) {
        log_line("%s is not used: all tokens are taken for text", beside);
        return 0;
    }
    if (tokens_open_lengths(&src->tokens, beside, e))
        return err_prefix(e, "beside the tokens (--no-lengths leaves it out)");
    log_line("%s lies beside the tokens: rows behind each sequence's length are masked (--no-lengths declines)",
             beside);
    return 0;
}

static int open_tokens(struct source_model *src, const struct source_model_options *o, struct err *e)
{
    int rc = tokens_open(&src->tokens, o->tokens, o->seq_len, src->models[0].vocab_size, e);
    if (rc == 0)
        rc = open_lengths(src, o, e);
    if (rc)
        return rc;
    src->seq_len = src->tokens.seq_len;
    src->dropped = o->keep_bos ? 0 : 1;
    size_t has = src->tokens.file.shape[1];
    if (src->seq_len < has)
        log_line("%s: of each sequence the first %zu of %zu tokens are used (%.1f %%), as --seq-len says", o->tokens,
                 src->seq_len, has, 100 * (double)src->seq_len / (double)has);
    for (uint32_t m = 0; m < src->n_models; m++)
        if (src->seq_len > src->models[m].n_positions)
            return err_set(e, ERR_INPUT, "%s: seq_len %zu is more than the %" PRIu32 " positions of model %s",
                           o->tokens, src->seq_len, src->models[m].n_positions, src->models[m].folder);
    if (src->seq_len <= src->dropped)
        return err_set(e, ERR_INPUT,
                       "%s: seq_len %zu leaves no rows, as the first position (BOS) is dropped; --keep-bos keeps it",
                       o->tokens, src->seq_len);
    return 0;
}

static int open_sites(struct source_model *src, const char *globs, struct err *e)
{
    struct hook_points points[STREAM_MAX_MODELS];
    for (uint32_t m = 0; m < src->n_models; m++)
        points[m] = model_points(&src->models[m]);
    int rc = sites_match(&src->sites, globs, points, src->n_models, e);
    size_t i = 0;
    for (uint32_t m = 0; !rc && m < src->n_models; m++) {
        src->first_site[m] = i;
        while (i < src->sites.n && src->sites.sites[i].model == m)
            i++;
        src->first_site[m + 1] = i;
    }
    return rc;
}

static int reserve(struct source_model *src, struct err *e)
{
    int rc = model_rows_init(&src->piece, src->models, &src->sites, src->seq_len, src->dropped, e);
    if (rc)
        return rc;
    src->ids = mem_alloc(src->piece.capacity * src->seq_len, sizeof *src->ids, "token ids", e);
    rc = src->ids ? 0 : ERR_MEMORY;
    for (uint32_t m = 0; !rc && m < src->n_models; m++)
        rc = model_reserve(&src->workspace, &src->models[m], src->piece.capacity, src->seq_len, e);
    return rc;
}

/* Packs the models for bf16 products, and logs how far their activations then are from fp32, on the first sequence. */
static int pack_models(struct source_model *src, struct err *e)
{
    double error[STREAM_MAX_SITES];
    tokens_get(&src->tokens, 0, src->ids);
    for (uint32_t m = 0; m < src->n_models; m++) {
        size_t n = src->first_site[m + 1] - src->first_site[m], worst = 0;
        const struct site *sites = src->sites.sites + src->first_site[m];
        if (precision_pack(&src->models[m], &src->workspace, src->ids, src->seq_len, src->dropped, sites, n, error, e))
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
                 src->models[m].folder, 100 * sum / (double)n, n, 100 * error[worst], name);
    }
    return 0;
}

static int describe(struct stream *s, const struct source_model *src, struct err *e)
{
    *s = (struct stream){.n_sites = (uint32_t)src->sites.wanted.n,
                         .d_model = src->models[0].d_model,
                         .seq_len = (uint32_t)src->seq_len,
                         .rows_per_seq = (uint32_t)(src->seq_len - src->dropped),
                         .n_seq = src->tokens.n_seq,
                         .vocab_size = src->models[0].vocab_size,
                         .n_models = src->n_models,
                         .can_bf16 = true,
                         .can_f32 = true};
    for (size_t i = 0; i < src->sites.wanted.n; i++)
        site_list_name(s->sites[i], &src->sites, i, src->n_models);
    memcpy(s->tokens_fingerprint, src->tokens.fingerprint, FINGERPRINT_SIZE);
    for (uint32_t m = 0; m < src->n_models; m++)
        memcpy(s->model_fingerprints[m], src->models[m].fingerprint, FINGERPRINT_SIZE);
    return stream_check(s, e);
}

int source_model_open(struct source *s, const struct source_model_options *o, struct err *e)
{
    *s = (struct source){0};
    struct source_model *src = mem_alloc(1, sizeof *src, "model source", e);
    if (!src)
        return ERR_MEMORY;
    int rc = open_models(src, o, e);
    if (!rc)
        rc = open_tokens(src, o, e);
    if (!rc)
        rc = open_sites(src, o->sites, e);
    if (!rc)
        rc = reserve(src, e);
    if (!rc && o->bf16)
        rc = pack_models(src, e);
    if (!rc)
        rc = describe(&s->stream, src, e);
    if (rc) {
        close_source(src);
        return rc;
    }
    s->self = src;
    s->compute = compute;
    s->close = close_source;
    return 0;
}
