/* look.c - reads the cache piece by piece and prints; see look.h. */
#include "look.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "json_file.h"
#include "mem.h"
#include "site_stats.h"
#include "stream_json.h"
#include "vocabulary.h"

#define SHOWN_VALUES 4 /* of a site, for people */
#define TEXT_ROWS 40   /* before and after a row */

/* One piece of a cache in memory. */
struct piece {
    float *values; /* [CACHE_PIECE_ROWS, n_sites, d_model] */
    struct row_origin origins[CACHE_PIECE_ROWS];
    size_t n, skip;
};

static int piece_init(struct piece *p, const struct stream *s, struct err *e)
{
    *p = (struct piece){0};
    p->values = mem_alloc((size_t)s->n_sites * s->d_model, CACHE_PIECE_ROWS * sizeof *p->values, "rows", e);
    return p->values ? 0 : ERR_MEMORY;
}

/* ---- statistics ---- */

static int gather(struct cache *c, struct site_stats *sites, size_t *rows, struct err *e)
{
    const struct stream *s = c->stream;
    struct piece p;
    int rc = piece_init(&p, s, e);
    *rows = 0;
    for (size_t first = 0; first < c->n_rows && rc == 0; first += p.n + p.skip) {
        rc = cache_read(c, first, c->n_rows - first, p.values, p.origins, &p.n, &p.skip, e);
        for (size_t i = 0; i < p.n && rc == 0; i++)
            for (uint32_t site = 0; site < s->n_sites && p.origins[i].token != ROW_MASKED; site++)
                site_stats_add(&sites[site], p.values + (i * s->n_sites + site) * s->d_model, s->d_model, first + i);
        *rows += p.n;
    }
    mem_free(p.values);
    return rc;
}

static void print_site(const struct cache *c, uint32_t site, const struct site_stats *t, const struct site_outlier *top,
                       size_t n)
{
    const struct stream *s = c->stream;
    printf("%-36s %10.5g %10.4g %10.4g %8zu %10.5g", s->sites[site], site_stats_mean_norm(t), (double)t->min,
           (double)t->max, t->nan + t->inf, site_stats_scale(t, s->d_model));
    if (s->has_scale)
        printf(" %10.5g %12.5g", (double)s->scale[site], site_stats_mean_norm(t) / (double)s->scale[site]);
    printf("  %zu", n);
    for (size_t i = 0; i < n && i < SITE_MAX_OUTLIERS; i++)
        printf("%s%" PRIu32 " (%.0fx)", i ? ", " : ": ", top[i].dim, top[i].factor);
    printf("\n");
    if (t->bad_rows)
        printf("    %zu rows with NaN or Inf, the first is row %zu\n", t->bad_rows, t->first_bad);
}

static void print_head(const struct cache *c, size_t rows)
{
    const struct stream *s = c->stream;
    const struct recording *r = &c->recording;
    if (c->is_recording)
        printf("recording %s: %s, scaled; %" PRIu32 " of %" PRIu32 " shards of %" PRIu32 " sequences\n", r->folder,
               row_dtype_name(r->dtype), r->n_recorded, r->n_shards, r->shard_seqs);
    printf("%zu of %zu rows of [%" PRIu32 " sites, d_model %" PRIu32 "]; %" PRIu32 " sequences of %" PRIu32 ", %" PRIu32
           " rows each\n",
           rows, c->n_rows, s->n_sites, s->d_model, s->n_seq, s->seq_len, s->rows_per_seq);
    if (s->tokens_fingerprint[0])
        printf("tokens %s, vocabulary %" PRIu32 "\n", s->tokens_fingerprint, s->vocab_size);
    for (uint32_t i = 0; i < s->n_models; i++)
        printf("%s %s\n", c->is_recording ? "model" : "contents", s->model_fingerprints[i]);
    printf("\n%-36s %10s %10s %10s %8s %10s", "site", "mean norm", "min", "max", "NaN/Inf", "implied");
    if (s->has_scale)
        printf(" %10s %12s", "scale", "norm/scale");
    printf("  dimensions over %dx the median mean square\n", SITE_OUTLIER_FACTOR);
}

static json_t *site_json(const struct cache *c, uint32_t site, const struct site_stats *t,
                         const struct site_outlier *top, size_t n)
{
    const struct stream *s = c->stream;
    json_t *outliers = json_array();
    for (size_t i = 0; i < n && i < SITE_MAX_OUTLIERS; i++)
        json_array_append_new(outliers,
                              json_pack("{s:I, s:f}", "dim", (json_int_t)top[i].dim, "factor", top[i].factor));
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:o}", "site", s->sites[site], "rows",
                     (json_int_t)t->rows, "bad_rows", (json_int_t)t->bad_rows, "nan", (json_int_t)t->nan, "inf",
                     (json_int_t)t->inf, "mean_norm", json_real_or_null(site_stats_mean_norm(t)), "min",
                     json_real_or_null((double)t->min), "max", json_real_or_null((double)t->max), "implied_scale",
                     json_real_or_null(site_stats_scale(t, s->d_model)), "scale",
                     s->has_scale ? json_real((double)s->scale[site]) : json_null(), "n_outliers", (json_int_t)n,
                     "outliers", outliers);
}

/* Prints value, which it frees; NULL is one that could not be built. */
static int print_json(json_t *value, size_t flags, struct err *e)
{
    char *text = json_text(value, flags | JSON_REAL_PRECISION(9), "output", e);
    json_decref(value);
    if (!text)
        return e->code;
    puts(text);
    mem_free(text);
    return 0;
}

static json_t *head_json(const struct cache *c, size_t rows, json_t *sites)
{
    const struct recording *r = &c->recording;
    json_t *head = json_pack("{s:s, s:o, s:I, s:I, s:o}", "kind", c->is_recording ? "recording" : "import", "stream",
                             stream_to_json(c->stream), "rows", (json_int_t)rows, "rows_whole", (json_int_t)c->n_rows,
                             "sites", sites);
    if (head && c->is_recording)
        json_object_update_new(head, json_pack("{s:s, s:I, s:I, s:I}", "dtype", row_dtype_name(r->dtype), "shard_seqs",
                                               (json_int_t)r->shard_seqs, "n_shards", (json_int_t)r->n_shards,
                                               "n_recorded", (json_int_t)r->n_recorded));
    return head;
}

int look_stats(struct cache *c, bool json, struct err *e)
{
    const struct stream *s = c->stream;
    size_t rows;
    json_t *list = json_array();
    struct site_stats *sites = mem_alloc(s->n_sites, sizeof *sites, "statistics", e);
    int rc = sites ? 0 : ERR_MEMORY;
    for (uint32_t i = 0; i < s->n_sites && rc == 0; i++)
        rc = site_stats_init(&sites[i], s->d_model, e);
    if (rc == 0)
        rc = gather(c, sites, &rows, e);
    if (rc == 0 && !json)
        print_head(c, rows);
    for (uint32_t i = 0; i < s->n_sites && rc == 0; i++) {
        struct site_outlier top[SITE_MAX_OUTLIERS];
        size_t n = site_stats_outliers(&sites[i], s->d_model, top);
        if (json)
            json_array_append_new(list, site_json(c, i, &sites[i], top, n));
        else
            print_site(c, i, &sites[i], top, n);
    }
    if (rc == 0 && json)
        rc = print_json(head_json(c, rows, json_incref(list)), JSON_INDENT(2), e);
    json_decref(list);
    for (uint32_t i = 0; sites && i < s->n_sites; i++)
        site_stats_release(&sites[i]);
    mem_free(sites);
    return rc;
}

/* ---- rows ---- */

static int print_row(const struct stream *s, size_t row, const struct row_origin *o, const float *values, bool json,
                     struct err *e)
{
    json_t *sites = json ? json_array() : NULL;
    if (!json)
        printf("row %zu: sequence %" PRIu32 ", position %" PRIu32 ", token %" PRIu32 "\n", row, o->sequence,
               o->position, o->token);
    for (uint32_t site = 0; site < s->n_sites; site++) {
        const float *v = values + (size_t)site * s->d_model;
        json_t *vector = json ? json_array() : NULL;
        if (!json)
            printf("    %-32s", s->sites[site]);
        for (uint32_t k = 0; k < (json || s->d_model < SHOWN_VALUES ? s->d_model : SHOWN_VALUES); k++) {
            if (json)
                json_array_append_new(vector, json_real_or_null((double)v[k]));
            else
                printf(" %12.6g", (double)v[k]);
        }
        if (json)
            json_array_append_new(sites, vector);
        else
            printf("%s\n", s->d_model > SHOWN_VALUES ? " ..." : "");
    }
    return json ? print_json(json_pack("{s:I, s:I, s:I, s:I, s:o}", "row", (json_int_t)row, "sequence",
                                       (json_int_t)o->sequence, "position", (json_int_t)o->position, "token",
                                       (json_int_t)o->token, "acts", sites),
                             JSON_COMPACT, e)
                : 0;
}

static int outside(const struct cache *c, size_t row, struct err *e)
{
    return err_set(e, ERR_INPUT, "row %zu: there are %zu rows", row, c->n_rows);
}

static int absent(const struct cache *c, size_t row, struct err *e)
{
    return err_set(e, ERR_ABSENT, "row %zu is not recorded in %s (%" PRIu32 " of %" PRIu32 " shards are)", row,
                   c->recording.folder, c->recording.n_recorded, c->recording.n_shards);
}

int look_rows(struct cache *c, size_t first, size_t stop, bool json, struct err *e)
{
    const struct stream *s = c->stream;
    struct piece p;
    if (stop > c->n_rows)
        return outside(c, stop - 1, e);
    int rc = piece_init(&p, s, e);
    for (size_t row = first; row < stop && rc == 0; row += p.n) {
        rc = cache_read(c, row, stop - row, p.values, p.origins, &p.n, &p.skip, e);
        if (rc == 0 && p.n == 0)
            rc = absent(c, row, e);
        for (size_t i = 0; i < p.n && rc == 0; i++)
            rc = print_row(s, row + i, &p.origins[i], p.values + i * s->n_sites * s->d_model, json, e);
    }
    mem_free(p.values);
    return rc;
}

/* ---- text ---- */

/* Prints a token. Control characters are shown as C writes them, so that a row's text stays on one line. */
static void print_token(const struct vocabulary *v, uint32_t id)
{
    if (id >= v->n_tokens || !v->tokens[id].bytes) {
        printf("<%" PRIu32 ">", id);
        return;
    }
    for (uint32_t i = 0; i < v->tokens[id].size; i++) {
        unsigned char b = (unsigned char)v->tokens[id].bytes[i];
        if (b == '\n')
            printf("\\n");
        else if (b < 0x20 || b == 0x7f)
            printf("\\x%02x", b);
        else
            putchar(b);
    }
}

int look_text(struct cache *c, size_t row, const char *tokenizer, struct err *e)
{
    const struct stream *s = c->stream;
    struct vocabulary v;
    struct piece p;
    if (!c->is_recording || !s->vocab_size)
        return err_set(e, ERR_INPUT, "there are no tokens: only the recording of a model with a vocabulary has them");
    if (row >= c->n_rows)
        return outside(c, row, e);
    if (vocabulary_load(&v, tokenizer, e))
        return e->code;
    size_t in_sequence = row % s->rows_per_seq, before = in_sequence < TEXT_ROWS ? in_sequence : TEXT_ROWS;
    size_t left = s->rows_per_seq - in_sequence, after = left < TEXT_ROWS ? left : TEXT_ROWS;
    int rc = piece_init(&p, s, e);
    if (rc == 0)
        rc = cache_read(c, row - before, before + after, p.values, p.origins, &p.n, &p.skip, e);
    if (rc == 0 && p.n == 0)
        rc = absent(c, row, e);
    if (rc == 0) {
        printf("row %zu: sequence %" PRIu32 ", position %" PRIu32 ", token %" PRIu32 "\n", row,
               p.origins[before].sequence, p.origins[before].position, p.origins[before].token);
        for (size_t i = 0; i < p.n; i++) {
            printf("%s", i == before ? "[[" : "");
            print_token(&v, p.origins[i].token);
            printf("%s", i == before ? "]]" : "");
        }
        printf("\n");
    }
    mem_free(p.values);
    vocabulary_free(&v);
    return rc;
}

/* ---- checksums ---- */

int look_verify(struct cache *c, struct err *e)
{
    const struct recording *r = &c->recording;
    uint32_t bad = 0;
    if (!c->is_recording)
        return err_set(e, ERR_INPUT, "only a recording has checksums");
    for (uint32_t i = 0; i < r->n_shards; i++) {
        int rc = recording_has(r, i) ? recording_verify_shard(r, i, e) : 0;
        if (rc == ERR_MEMORY) /* that says nothing of the shard */
            return rc;
        if (rc) {
            printf("%s\n", e->message);
            bad++;
        }
    }
    printf("%s: %" PRIu32 " of %" PRIu32 " recorded shards are as they were written\n", r->folder, r->n_recorded - bad,
           r->n_recorded);
    return bad ? err_set(e, ERR_INPUT, "%s: %" PRIu32 " damaged shards", r->folder, bad) : 0;
}
