/* stream.c - compares and checks stream descriptions, and the arithmetic of blocks and chunks; see stream.h. */
#include "stream.h"

#include <math.h>
#include <string.h>

#include "mem.h"
#include "site_parts.h"

size_t row_dtype_size(enum row_dtype dtype)
{
    return dtype == ROW_BF16 ? 2 : 4;
}

const char *const row_dtype_names[] = {[ROW_BF16] = "bf16", [ROW_F32] = "fp32", NULL};

const char *row_dtype_name(enum row_dtype dtype)
{
    return row_dtype_names[dtype];
}

int row_dtype_parse(enum row_dtype *dtype, const char *name, struct err *e)
{
    if (strcmp(name, "bf16") == 0)
        *dtype = ROW_BF16;
    else if (strcmp(name, "fp32") == 0)
        *dtype = ROW_F32;
    else
        return err_set(e, ERR_INPUT, "dtype '%s': must be bf16 or fp32", name);
    return 0;
}

static int differ(struct err *e, const char *what, uint32_t theirs, uint32_t ours)
{
    return err_set(e, ERR_MISMATCH, "%s %u, run has %u", what, theirs, ours);
}

int stream_compare(const struct stream *ours, const struct stream *theirs, struct err *e)
{
    if (theirs->n_sites != ours->n_sites)
        return differ(e, "number of sites", theirs->n_sites, ours->n_sites);
    for (uint32_t i = 0; i < ours->n_sites; i++)
        if (strcmp(theirs->sites[i], ours->sites[i]) != 0)
            return err_set(e, ERR_MISMATCH, "site %u: %s, run has %s", i, theirs->sites[i], ours->sites[i]);
    if (theirs->d_model != ours->d_model)
        return differ(e, "d_model", theirs->d_model, ours->d_model);
    if (theirs->seq_len != ours->seq_len)
        return differ(e, "seq_len", theirs->seq_len, ours->seq_len);
    if (theirs->rows_per_seq != ours->rows_per_seq)
        return differ(e, "rows per sequence (--keep-bos)", theirs->rows_per_seq, ours->rows_per_seq);
    if (theirs->n_seq != ours->n_seq)
        return differ(e, "number of sequences", theirs->n_seq, ours->n_seq);
    if (theirs->vocab_size != ours->vocab_size)
        return differ(e, "vocabulary size", theirs->vocab_size, ours->vocab_size);
    if (theirs->n_models != ours->n_models)
        return differ(e, "number of models", theirs->n_models, ours->n_models);
    if (strcmp(theirs->tokens_fingerprint, ours->tokens_fingerprint) != 0)
        return err_set(e, ERR_MISMATCH, "tokens have fingerprint %s, run has %s", theirs->tokens_fingerprint,
                       ours->tokens_fingerprint);
    for (uint32_t i = 0; i < ours->n_models; i++)
        if (strcmp(theirs->model_fingerprints[i], ours->model_fingerprints[i]) != 0)
            return err_set(
                e, ERR_MISMATCH,
                "model %u has fingerprint %s, run has %s (other weights, or --center-writing-weights on one side only)",
                i, theirs->model_fingerprints[i], ours->model_fingerprints[i]);
    return 0;
}

/* Whether a text is printable ASCII, which goes into logs and cfg.json as it is. */
static bool is_plain(const char *text)
{
    while (*text > 0x20 && *text < 0x7f)
        text++;
    return *text == '\0';
}

/* Refuses a site's name that says of which model it is otherwise than the number of models asks for: of several each name says it, of one
 * none does. */
static int check_site_models(const struct stream *s, uint32_t site, struct err *e)
{
    const char *name = s->sites[site];
    struct site_parts p = site_parts(name);
    uint32_t greatest = p.n_models == 2 && p.less > p.model ? p.less : p.model;
    if (s->n_models < 2 && p.n_models)
        return err_set(e, ERR_INPUT, "site %u (%s) names a model, but there is %s", site, name,
                       s->n_models ? "one only" : "none");
    if (s->n_models >= 2 && !p.n_models)
        return err_set(e, ERR_INPUT, "site %u (%s) names no model, but there are %u: must be 0:%s, or another's", site,
                       name, s->n_models, name);
    if (p.n_models && greatest >= s->n_models)
        return err_set(e, ERR_INPUT, "site %u (%s) names model %u, but there are %u, counted from 0", site, name,
                       greatest, s->n_models);
    return 0;
}

/* Each name is compared with all others by its hash: a stranger's HELLO of 512 long names, all but the same, shall cost little. */
static int check_sites(const struct stream *s, struct err *e)
{
    uint64_t hashes[STREAM_MAX_SITES];
    for (uint32_t i = 0; i < s->n_sites; i++) {
        if (!is_plain(s->sites[i]))
            return err_set(e, ERR_INPUT, "name of site %u: must be printable ASCII without spaces", i);
        if (check_site_models(s, i, e))
            return e->code;
        hashes[i] = fingerprint_checksum(s->sites[i], strlen(s->sites[i]), NULL, 0);
        for (uint32_t k = 0; k < i; k++)
            if (hashes[k] == hashes[i] && strcmp(s->sites[k], s->sites[i]) == 0)
                return err_set(e, ERR_INPUT, "sites %u and %u are both %s", k, i, s->sites[i]);
    }
    return 0;
}

int stream_check(const struct stream *s, struct err *e)
{
    struct err own;
    e = e ? e : &own;
    if (s->n_sites == 0 || s->n_sites > STREAM_MAX_SITES)
        return err_set(e, ERR_INPUT, "%u sites, must be 1 to %d", s->n_sites, STREAM_MAX_SITES);
    if (s->n_models > STREAM_MAX_MODELS)
        return err_set(e, ERR_INPUT, "%u models, at most %d", s->n_models, STREAM_MAX_MODELS);
    if (s->d_model == 0 || s->seq_len == 0 || s->n_seq == 0)
        return err_set(e, ERR_INPUT, "d_model %u, seq_len %u, n_seq %u: none may be 0", s->d_model, s->seq_len,
                       s->n_seq);
    if (s->rows_per_seq == 0 || s->rows_per_seq > s->seq_len)
        return err_set(e, ERR_INPUT, "%u rows per sequence of %u tokens", s->rows_per_seq, s->seq_len);
    size_t row = 0, total = 0;
    size_t row_factors[] = {s->n_sites, s->d_model, 4}, total_factors[] = {s->n_seq, s->rows_per_seq};
    if (!size_product(row_factors, 3, &row) || row > CHUNK_MAX_BYTES)
        return err_set(e, ERR_INPUT, "a row of %u sites x d_model %u in fp32 is larger than a chunk of %zu bytes",
                       s->n_sites, s->d_model, CHUNK_MAX_BYTES);
    if (!size_product(total_factors, 2, &total) || total > SIZE_MAX / row)
        return err_set(e, ERR_INPUT, "%u sequences x %u rows do not fit in a size", s->n_seq, s->rows_per_seq);
    if (!s->can_bf16 && !s->can_f32)
        return err_set(e, ERR_INPUT, "no dtype offered");
    if (check_sites(s, e))
        return e->code;
    bool plain = is_plain(s->tokens_fingerprint);
    for (uint32_t i = 0; i < s->n_models; i++)
        plain = plain && is_plain(s->model_fingerprints[i]);
    if (!plain)
        return err_set(e, ERR_INPUT, "fingerprints must be printable ASCII without spaces");
    for (uint32_t i = 0; s->has_scale && i < s->n_sites; i++)
        if (!(s->scale[i] > 0) || !isfinite(s->scale[i]))
            return err_set(e, ERR_INPUT, "scale of site %u is %g, must be positive", i, (double)s->scale[i]);
    return 0;
}

/* Returns whether a site is of that model. */
static bool is_of_model(const char *site, uint32_t model)
{
    struct site_parts p = site_parts(site);
    return p.n_models == 1 && p.model == model;
}

int stream_pairs_models(const struct stream *s, struct err *e)
{
    uint32_t half = 0;
    while (half < s->n_sites && is_of_model(s->sites[half], 0))
        half++;
    if (half == 0)
        return err_set(e, ERR_INPUT, "site 0 (%s) pairs with none: the sites of two models are 0:... and 1:...",
                       s->sites[0]);
    for (uint32_t i = 0; i < half; i++) {
        uint32_t partner = half + i;
        const char *name = s->sites[i], *other = partner < s->n_sites ? s->sites[partner] : NULL;
        if (!other)
            return err_set(e, ERR_INPUT, "site %u (%s) pairs with none: %u sites are of model 0, %u follow", i, name,
                           half, s->n_sites - half);
        if (!is_of_model(other, 1) || strcmp(site_parts(name).hook_point, site_parts(other).hook_point) != 0)
            return err_set(e, ERR_INPUT, "site %u (%s) pairs with none: in its place in the second half, site %u is %s",
                           i, name, partner, other);
    }
    if (s->n_sites > 2 * half)
        return err_set(e, ERR_INPUT, "site %u (%s) pairs with none: %u sites are of model 0, %u follow", 2 * half,
                       s->sites[2 * half], half, s->n_sites - half);
    return 0;
}

size_t stream_row_bytes(const struct stream *s, enum row_dtype dtype)
{
    return (size_t)s->n_sites * s->d_model * row_dtype_size(dtype);
}

size_t stream_chunk_rows(const struct stream *s, enum row_dtype dtype)
{
    size_t rows = CHUNK_BYTES / stream_row_bytes(s, dtype);
    return rows == 0 ? 1 : rows < CHUNK_MAX_ROWS ? rows : CHUNK_MAX_ROWS;
}

size_t stream_block_rows(const struct stream *s, uint32_t n_sequences)
{
    return (size_t)n_sequences * s->rows_per_seq;
}

size_t stream_chunk_count(const struct stream *s, enum row_dtype dtype, size_t rows)
{
    size_t per_chunk = stream_chunk_rows(s, dtype);
    return (rows + per_chunk - 1) / per_chunk;
}
