/* active.c - see active.h. For each strip: products, thresholded and counted tile by tile; then the latents' places in
 * the lists; then the entries. */
#include "active.h"

#include <string.h>

#include "gemm.h"
#include "kernels.h"
#include "mem.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t active_strip(size_t d_sae)
{
    return smaller(d_sae, (size_t)ACTIVE_TILE * ACTIVE_TILES);
}

size_t active_entries_bytes(size_t capacity)
{
    return capacity * ACTIVE_ENTRY + ROWS_AHEAD * sizeof(uint32_t);
}

int active_memory(size_t d_sae, size_t max_rows, size_t *bytes, struct err *e)
{
    size_t strip;
    if (!size_mul(max_rows, active_strip(d_sae) * sizeof(float), &strip) ||
        __builtin_add_overflow(strip, (d_sae + 1) * sizeof(size_t), bytes))
        return err_set(e, ERR_MEMORY, "active lists: batches of %zu rows with d_sae %zu do not fit", max_rows, d_sae);
    return 0;
}

void active_entries(struct active *a, size_t capacity, void *entries)
{
    a->capacity = capacity;
    a->row = entries;
    a->f = (float *)entries + capacity;
    a->grad = (float *)entries + 2 * capacity;
}

int active_init(struct active *a, const struct crosscoder *c, size_t max_rows, size_t capacity, void *entries,
                struct err *e)
{
    memset(a, 0, sizeof *a);
    if (max_rows > UINT32_MAX)
        return err_set(e, ERR_INPUT, "active lists: batches of %zu rows (at most %u)", max_rows, UINT32_MAX);
    active_entries(a, capacity, entries);
    if ((a->begin = mem_alloc(c->d_sae + 1, sizeof *a->begin, "active lists", e)) &&
        (a->strip = mem_alloc(max_rows * active_strip(c->d_sae), sizeof *a->strip, "strip of activations", e)))
        return 0;
    active_release(a);
    return ERR_MEMORY;
}

void active_release(struct active *a)
{
    mem_free(a->begin);
    mem_free(a->strip);
    memset(a, 0, sizeof *a);
}

/* Makes a tile of the products x W_enc^T, selects, and leaves in begin[j + 1] how many rows each of its latents j is kept in. */
static void encode_tile(struct active *a, const struct crosscoder *c, const struct selection *s, const float *x,
                        size_t rows, size_t first, size_t width, float *tile)
{
    uint32_t count[ACTIVE_TILE] = {0};
    /* tile [rows, width] = x [rows, n_inputs] W_enc[first..]^T [n_inputs, width] */
    gemm(false, true, rows, width, c->n_inputs, 1, x, c->n_inputs, c->w_enc + first * c->n_inputs, c->n_inputs, 0, tile,
         width);
    for (size_t row = 0; row < rows; row++)
        s->kind->keep(s, tile + row * width, c->b_enc + first, row, first, width, count);
    for (size_t j = 0; j < width; j++)
        a->begin[first + j + 1] = count[j];
}

/* Sums f over each latent's entries. */
static void sum_latents(const struct active *a, struct forward *w, size_t first, size_t n)
{
    for (size_t j = first; j < first + n; j++) {
        double sum = 0;
        size_t fired = 0;
        for (size_t e = a->begin[j]; e < a->begin[j + 1]; e++) {
            sum += (double)a->f[e];
            fired += a->f[e] != 0;
        }
        w->f_sum[j] = sum;
        w->fired[j] = fired;
    }
}

void active_list_tile(struct active *a, size_t rows, size_t first, size_t width, const float *tile)
{
    const struct kernels *k = kernels_best();
    size_t place[ACTIVE_TILE];
    uint32_t index[ACTIVE_TILE];
    memcpy(place, a->begin + first, width * sizeof *place);
    for (size_t row = 0; row < rows; row++) {
        const float *f = tile + row * width;
        size_t n = k->nonzeros(f, width, index);
        for (size_t i = 0; i < n; i++) {
            size_t at = place[index[i]]++;
            a->row[at] = (uint32_t)row;
            a->f[at] = f[index[i]];
        }
    }
}

/* Fills w->f [rows, d_sae]: latents [0, first) from the lists, [first, first + n) from the strip. */
static void spread(const struct active *a, struct forward *w, const struct crosscoder *c, size_t rows, size_t first,
                   size_t n)
{
#pragma omp parallel for schedule(static)
    for (size_t j0 = 0; j0 < first + n; j0 += ACTIVE_TILE) {
        size_t width = smaller(ACTIVE_TILE, first + n - j0);
        const float *tile = j0 < first ? NULL : a->strip + rows * (j0 - first);
        for (size_t row = 0; row < rows; row++)
            if (tile)
                memcpy(w->f + row * c->d_sae + j0, tile + row * width, width * sizeof(float));
            else
                memset(w->f + row * c->d_sae + j0, 0, width * sizeof(float));
        for (size_t j = j0; !tile && j < j0 + width; j++)
            for (size_t e = a->begin[j]; e < a->begin[j + 1]; e++)
                w->f[a->row[e] * c->d_sae + j] = a->f[e];
    }
}

void active_drop(struct active *a, size_t latents, bool (*stays)(void *context, uint32_t row, size_t latent, float f),
                 void *context)
{
    size_t to = 0;
    for (size_t j = 0, e = 0; j < latents; j++) {
        a->begin[j] = to;
        for (size_t end = a->begin[j + 1]; e < end; e++)
            if (stays(context, a->row[e], j, a->f[e])) {
                a->row[to] = a->row[e];
                a->f[to++] = a->f[e];
            }
    }
    a->begin[latents] = to;
}

bool active_encode(struct active *a, struct forward *w, const struct crosscoder *c, struct selection *s, const float *x,
                   size_t rows)
{
    forward_norms(w, c);
    if (s->kind->begin)
        s->kind->begin(s, w, c, rows);
    a->begin[0] = 0;
    for (size_t first = 0; first < c->d_sae; first += ACTIVE_TILE * ACTIVE_TILES) {
        size_t n = smaller(ACTIVE_TILE * ACTIVE_TILES, c->d_sae - first);
#pragma omp parallel for schedule(dynamic)
        for (size_t i = 0; i < n; i += ACTIVE_TILE)
            encode_tile(a, c, s, x, rows, first + i, smaller(ACTIVE_TILE, n - i), a->strip + rows * i);
        for (size_t j = first; j < first + n; j++)
            a->begin[j + 1] += a->begin[j];
        if (a->begin[first + n] > a->capacity) {
            if (!w->f)
                return false;
            spread(a, w, c, rows, first, n);
            forward_count(w, c, rows, 0, first + n);
            if (first + n < c->d_sae)
                forward_encode_from(w, c, s, x, rows, first + n);
            return false;
        }
#pragma omp parallel for schedule(dynamic)
        for (size_t i = 0; i < n; i += ACTIVE_TILE)
            active_list_tile(a, rows, first + i, smaller(ACTIVE_TILE, n - i), a->strip + rows * i);
        if (s->kind->settle)
            s->kind->settle(s, a, first + n, first + n == c->d_sae);
    }
#pragma omp parallel for schedule(static)
    for (size_t first = 0; first < c->d_sae; first += ACTIVE_TILE)
        sum_latents(a, w, first, smaller(ACTIVE_TILE, c->d_sae - first));
    return true;
}
