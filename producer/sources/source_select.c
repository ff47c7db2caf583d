/* source_select.c - see source_select.h.
 *
 * The other source computes a piece of the block into rows of this source's own, in fp32 and raw if it can; from these
 * the wanted vectors are put into the block. Pieces bound the memory, whatever the block's size. */
#include "source_select.h"

#include <assert.h>
#include <inttypes.h>
#include <omp.h>
#include <string.h>

#include "bf16.h"
#include "finite.h"
#include "log.h"
#include "mem.h"
#include "site_picks.h"

#define PIECE_BYTES ((size_t)4 << 20)

struct selection {
    struct source inner;
    struct site_picks picks;       /* of inner's sites */
    bool wanted[STREAM_MAX_SITES]; /* of inner's sites: those that the picks need */
    bool as_stored;                /* the vectors are inner's, scaled already: their bytes are copied */
    enum row_dtype dtype;          /* of inner's rows */
    uint32_t piece;                /* sequences */
    struct rows rows;              /* of a piece, inner's */
    float *vectors;                /* [n_threads, 2, d_model] */
    int n_threads;
};

static const unsigned char *stored(const struct selection *sel, size_t row, size_t site)
{
    const struct rows *r = &sel->rows;
    return r->acts + (row * r->n_sites + site) * r->d_model * row_dtype_size(r->dtype);
}

/* Writes an inner vector as it was before it was scaled, fp32, to x [d_model]. */
static void load(const struct selection *sel, size_t row, size_t site, float *x)
{
    size_t d = sel->rows.d_model;
    if (sel->dtype == ROW_BF16)
        bf16_to_f32_n(x, stored(sel, row, site), d);
    else
        memcpy(x, stored(sel, row, site), d * sizeof *x);
    for (size_t i = 0; sel->inner.stream.has_scale && i < d; i++)
        x[i] /= sel->inner.stream.scale[site];
}

/* Puts the wanted vector i of a row of the piece as row `to` of r. a, b: room for [d_model] each. Returns the first
 * element that is not finite, d_model if all are or the vector is put as it is stored. */
static size_t put(const struct selection *sel, size_t row, size_t i, struct rows *r, size_t to, float *a, float *b)
{
    const struct site_pick *k = &sel->picks.picks[i];
    size_t d = r->d_model;
    if (sel->as_stored) {
        rows_put_scaled(r, to, i, stored(sel, row, k->site));
        return d;
    }
    load(sel, row, k->site, a);
    if (k->less != PICK_WHOLE) {
        load(sel, row, k->less, b);
        return rows_put_difference(r, to, i, a, b);
    }
    rows_put(r, to, i, a);
    return finite_first_bad_f32(a, d);
}

/* Says what is wrong with a row of the piece. */
static int not_finite(const struct selection *sel, size_t row, struct rows *r, size_t to, struct err *e)
{
    float *a = sel->vectors, *b = a + r->d_model;
    const struct row_origin *o = &sel->rows.origins[row];
    size_t i = 0, bad;
    while ((bad = put(sel, row, i, r, to, a, b)) == r->d_model)
        i++;
    char name[SITE_NAME_SIZE];
    site_pick_name(name, &sel->picks.picks[i], sel->inner.stream.sites);
    return err_set(e, ERR_INPUT, "%s, sequence %" PRIu32 ", position %" PRIu32 ": activation %zu is not finite", name,
                   o->sequence, o->position, bad);
}

/* Puts the rows of a piece as the rows of r from `first` on. */
static int put_piece(const struct selection *sel, struct rows *r, size_t first, struct err *e)
{
    size_t n = sel->rows.n_rows, d = r->d_model, bad = n;
#pragma omp parallel for num_threads(sel->n_threads) reduction(min : bad)
    for (size_t row = 0; row < n; row++) {
        float *a = sel->vectors + (size_t)omp_get_thread_num() * 2 * d;
        for (size_t i = 0; i < sel->picks.n; i++)
            if (put(sel, row, i, r, first + row, a, a + d) < d && row < bad)
                bad = row;
        rows_put_origin(r, first + row, sel->rows.origins[row]);
    }
    return bad == n ? 0 : not_finite(sel, bad, r, first + bad, e);
}

static int compute(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e)
{
    struct selection *sel = self;
    const struct stream *s = &sel->inner.stream;
    assert(!sel->as_stored || r->dtype == sel->dtype); /* the only one that the stream offers */
    for (uint32_t done = 0; done < n;) {
        uint32_t piece = n - done < sel->piece ? n - done : sel->piece;
        rows_begin(&sel->rows, s, stream_block_rows(s, piece), sel->dtype, NULL);
        int rc = sel->inner.compute(sel->inner.self, first + done, piece, &sel->rows, e);
        if (!rc)
            rc = put_piece(sel, r, stream_block_rows(s, done), e);
        if (rc)
            return rc;
        done += piece;
    }
    return 0;
}

static void release(struct selection *sel)
{
    rows_release(&sel->rows);
    mem_free(sel->vectors);
    mem_free(sel);
}

static void close_source(void *self)
{
    struct selection *sel = self;
    sel->inner.close(sel->inner.self);
    release(sel);
}

/* Gives the models other fingerprints, unless nothing was lost when their rows were rounded. */
static int mark_rounded(const struct selection *sel, struct stream *s, struct err *e)
{
    const struct stream *inner = &sel->inner.stream;
    bool exact = sel->dtype == ROW_F32;
    for (uint32_t i = 0; i < inner->n_sites; i++)
        exact = exact && (!sel->wanted[i] || inner->scale[i] == 1);
    for (uint32_t m = 0; !exact && m < s->n_models; m++) {
        struct fingerprint f;
        if (fingerprint_init(&f, e))
            return e->code;
        fingerprint_add_text(&f, "unscaled rows of");
        fingerprint_add_text(&f, row_dtype_name(sel->dtype));
        fingerprint_add_text(&f, inner->model_fingerprints[m]);
        for (uint32_t i = 0; i < inner->n_sites; i++)
            if (sel->wanted[i])
                fingerprint_add(&f, &inner->scale[i], sizeof inner->scale[i]);
        fingerprint_finish(&f, s->model_fingerprints[m]);
    }
    if (sel->dtype == ROW_BF16)
        log_line("the differences are of rows recorded in bf16: each element of both was off by up to 0.2 %%");
    return 0;
}

/* Describes the stream of the picked sites. */
static int describe(struct selection *sel, struct stream *s, struct err *e)
{
    const struct stream *inner = &sel->inner.stream;
    bool differences = false;
    *s = *inner;
    s->n_sites = (uint32_t)sel->picks.n;
    for (uint32_t i = 0; i < s->n_sites; i++) {
        const struct site_pick *k = &sel->picks.picks[i];
        site_pick_name(s->sites[i], k, inner->sites);
        s->scale[i] = inner->scale[k->site];
        sel->wanted[k->site] = true;
        if (k->less != PICK_WHOLE)
            differences = sel->wanted[k->less] = true;
    }
    sel->as_stored = inner->has_scale && !differences;
    sel->dtype = inner->can_f32 ? ROW_F32 : ROW_BF16;
    if (differences) {
        s->has_scale = false;
        s->can_bf16 = s->can_f32 = true;
    }
    int rc = differences && inner->has_scale ? mark_rounded(sel, s, e) : 0;
    return rc ? rc : stream_check(s, e);
}

static int reserve(struct selection *sel, struct err *e)
{
    const struct stream *s = &sel->inner.stream;
    size_t piece = PIECE_BYTES / (s->rows_per_seq * stream_row_bytes(s, ROW_F32));
    piece = piece < 1 ? 1 : piece < s->n_seq ? piece : s->n_seq;
    sel->piece = (uint32_t)piece;
    if (rows_init(&sel->rows, s, stream_block_rows(s, sel->piece), e))
        return e->code;
    sel->rows.wanted = sel->wanted;
    sel->n_threads = omp_get_max_threads();
    sel->vectors = mem_alloc((size_t)sel->n_threads * 2 * s->d_model, sizeof *sel->vectors, "vectors", e);
    return sel->vectors ? 0 : ERR_MEMORY;
}

/* Returns whether the picks are all sites that there are, as they are. */
static bool is_all(const struct selection *sel)
{
    bool all = sel->picks.n == sel->inner.stream.n_sites;
    for (size_t i = 0; i < sel->picks.n; i++)
        all = all && sel->picks.picks[i].less == PICK_WHOLE;
    return all;
}

int source_select(struct source *s, const char *sites, struct err *e)
{
    struct stream stream;
    struct selection *sel = mem_alloc(1, sizeof *sel, "selected sites", e);
    if (!sel)
        return ERR_MEMORY;
    sel->inner = *s;
    int rc = site_picks_match(&sel->picks, sites, s->stream.sites, s->stream.n_sites, "", e);
    bool all = !rc && is_all(sel);
    if (!rc && !all)
        rc = describe(sel, &stream, e);
    if (!rc && !all)
        rc = reserve(sel, e);
    if (rc || all) {
        release(sel);
        return rc;
    }
    *s = (struct source){.stream = stream, .self = sel, .compute = compute, .close = close_source};
    return 0;
}
