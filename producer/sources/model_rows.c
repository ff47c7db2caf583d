/* model_rows.c - see model_rows.h. */
#include "model_rows.h"

#include <stdint.h>
#include <string.h>

#include "finite.h"
#include "mem.h"

#define PIECE_TOKENS ((size_t)8192)
#define KEPT_BYTES ((size_t)256 << 20)
#define NOT_KEPT SIZE_MAX

/* One of the wanted sites that take a site's vectors: as they are, or a difference from another model's. */
struct use {
    size_t wanted;
    const float *less; /* [n * seq_len, d], subtracted from the site's; or NULL */
    const float *from; /* likewise, from which the site's are subtracted; or NULL */
};
#define MAX_USES (2 * STREAM_MAX_MODELS) /* of a site: as it is, less each other model's, and each other's less it */

static float *kept(const struct model_rows *m, size_t site)
{
    return m->kept + m->kept_at[site] * m->capacity * m->seq_len * m->d;
}

/* Lists the uses of a site, but for those that wait for a later model; returns how many there are. */
static size_t list_uses(const struct model_rows *m, size_t site, struct use uses[MAX_USES])
{
    const struct site_picks *wanted = &m->sites->wanted;
    size_t n = 0;
    for (size_t i = 0; i < wanted->n; i++) {
        const struct site_pick *k = &wanted->picks[i];
        if (k->site == site && k->less == PICK_WHOLE)
            uses[n++] = (struct use){.wanted = i};
        else if (k->site == site && k->less < site) /* sites are ordered by model */
            uses[n++] = (struct use){.wanted = i, .less = kept(m, k->less)};
        else if (k->less == site && k->site < site)
            uses[n++] = (struct use){.wanted = i, .from = kept(m, k->site)};
    }
    return n;
}

/* Stores the vector at `at` of the site's vectors wherever it is used. Returns whether all that it stores is finite. */
static bool put_vector(struct rows *r, size_t row, const struct use *uses, size_t n, const float *vectors, size_t at)
{
    const float *x = vectors + at;
    bool finite = finite_first_bad_f32(x, r->d_model) == r->d_model;
    for (const struct use *u = uses; u < uses + n; u++)
        if (u->less)
            finite &= rows_put_difference(r, row, u->wanted, x, u->less + at) == r->d_model;
        else if (u->from)
            finite &= rows_put_difference(r, row, u->wanted, u->from + at, x) == r->d_model;
        else
            rows_put(r, row, u->wanted, x);
    return finite;
}

static int not_finite(const struct model_rows *m, const struct site *site, const float *vectors, size_t t,
                      struct err *e)
{
    char name[SITE_NAME_SIZE];
    size_t sequence = m->first_sequence + t / m->seq_len, position = t % m->seq_len;
    size_t i = finite_first_bad_f32(vectors + t * m->d, m->d);
    site_name(name, site, 1);
    if (i == m->d)
        return err_set(e, ERR_INPUT,
                       "model %s, %s, sequence %zu, position %zu: its difference from another model's is not finite",
                       m->models[site->model].folder, name, sequence, position);
    return err_set(e, ERR_INPUT, "model %s, %s, sequence %zu, position %zu: activation %zu is %g, must be finite",
                   m->models[site->model].folder, name, sequence, position, i, (double)vectors[t * m->d + i]);
}

int model_rows_put(void *context, const struct site *site, float *vectors, struct err *e)
{
    struct model_rows *m = context;
    struct use uses[MAX_USES];
    size_t index = (size_t)(site - m->sites->sites), seq_len = m->seq_len, n = m->n * seq_len, bad = n;
    size_t rows_per_seq = seq_len - m->dropped, n_uses = list_uses(m, index, uses);
    float *keep = m->kept_at[index] == NOT_KEPT ? NULL : kept(m, index);
#pragma omp parallel for reduction(min : bad)
    for (size_t t = 0; t < n; t++) {
        size_t sequence = t / seq_len, position = t % seq_len, at = t * m->d;
        if (position < m->dropped)
            continue;
        size_t row = m->first_row + sequence * rows_per_seq + position - m->dropped;
        if (!put_vector(m->rows, row, uses, n_uses, vectors, at) && t < bad)
            bad = t;
        if (keep)
            memcpy(keep + at, vectors + at, m->d * sizeof *keep);
    }
    return bad == n ? 0 : not_finite(m, site, vectors, bad, e);
}

void model_rows_begin(struct model_rows *m, struct rows *r, size_t first_row, size_t first_sequence, size_t n)
{
    m->rows = r;
    m->first_row = first_row;
    m->first_sequence = first_sequence;
    m->n = n;
}

/* Gives each site that the first model of a difference has its place in kept. */
static void plan_kept(struct model_rows *m)
{
    const struct site_picks *wanted = &m->sites->wanted;
    for (size_t site = 0; site < m->sites->n; site++)
        m->kept_at[site] = NOT_KEPT;
    for (size_t i = 0; i < wanted->n; i++) {
        const struct site_pick *k = &wanted->picks[i];
        size_t first = k->site < k->less ? k->site : k->less;
        if (k->less != PICK_WHOLE && m->kept_at[first] == NOT_KEPT)
            m->kept_at[first] = m->n_kept++;
    }
}

int model_rows_init(struct model_rows *m, const struct model *models, const struct site_list *sites, size_t seq_len,
                    size_t dropped, struct err *e)
{
    *m = (struct model_rows){
        .models = models, .sites = sites, .d = models[0].d_model, .seq_len = seq_len, .dropped = dropped};
    plan_kept(m);
    size_t values, tokens = PIECE_TOKENS, token_bytes = m->n_kept * m->d * sizeof *m->kept;
    if (token_bytes && tokens > KEPT_BYTES / token_bytes)
        tokens = KEPT_BYTES / token_bytes;
    m->capacity = seq_len < tokens ? tokens / seq_len : 1;
    if (!size_product((const size_t[]){m->n_kept, m->capacity, seq_len, m->d}, 4, &values))
        return err_set(e, ERR_MEMORY, "differences at %zu sites of %zu tokens do not fit in memory", m->n_kept,
                       seq_len);
    m->kept = mem_alloc(values, sizeof *m->kept, "vectors of differences", e);
    return m->kept ? 0 : ERR_MEMORY;
}

void model_rows_release(struct model_rows *m)
{
    mem_free(m->kept);
    m->kept = NULL;
}
