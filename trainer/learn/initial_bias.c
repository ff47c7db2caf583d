/* initial_bias.c - see initial_bias.h.
 *
 * For jumprelu's b_enc all rows' products with a tile of latents are in memory at a time, so that it stays small whatever d_sae is. */
#include "initial_bias.h"

#include <math.h>
#include <omp.h>

#include "geometric_median.h"
#include "log.h"
#include "mem.h"

#define TILE_FLOATS ((size_t)4 << 20) /* about that many in each workspace */
#define FIRES 10000.0                 /* latents of a row, at first */

const char *const b_dec_init_names[] = {
    [B_DEC_ZERO] = "zero", [B_DEC_MEAN] = "mean", [B_DEC_GEOMETRIC_MEDIAN] = "geometric-median", NULL};

/* Returns how many things of so many floats a workspace holds, 1 to n. */
static size_t that_fit(size_t floats, size_t n)
{
    size_t fit = TILE_FLOATS / floats;
    return fit < 1 ? 1 : fit < n ? fit : n;
}

/* What initial_b_enc works in. */
struct quantile_sizes {
    size_t rows, latents,
        threads; /* of a piece of rows, of a tile, and how many columns of n_rows are sorted at a time */
};

static struct quantile_sizes sizes_of(const struct backend_setup *s, size_t n_rows)
{
    return (struct quantile_sizes){that_fit(s->n_sites * s->d_model, n_rows), that_fit(n_rows, s->d_sae),
                                   (size_t)omp_get_max_threads()};
}

size_t initial_bias_memory(const struct backend_setup *s, enum b_dec_init how, size_t n_rows)
{
    size_t n_inputs = s->n_sites * s->d_model, b_dec = 0, b_enc = 0;
    struct quantile_sizes z = sizes_of(s, n_rows);
    if (how == B_DEC_MEAN)
        b_dec = n_inputs * (sizeof(float) + sizeof(double));
    else if (how == B_DEC_GEOMETRIC_MEDIAN)
        b_dec = n_inputs * (sizeof(float) + sizeof(double)) + geometric_median_memory(n_rows, s->n_sites, s->d_model);
    if (backend_has_thresholds(s))
        b_enc = (z.rows * n_inputs + (z.latents + z.threads) * n_rows + s->d_sae) * sizeof(float);
    return b_dec > b_enc ? b_dec : b_enc;
}

/* ---- b_dec ---- */

static int initial_b_dec(struct backend *b, enum b_dec_init how, const struct row_sample *rows, struct err *e)
{
    size_t n_inputs = rows->n_sites * rows->d_model, iterations = 0;
    float *bias = mem_alloc(n_inputs, sizeof *bias, "initial b_dec", e);
    double *sums = bias ? mem_alloc(n_inputs, sizeof *sums, "initial b_dec", e) : NULL;
    int rc = sums ? 0 : ERR_MEMORY;
    if (rc == 0 && how == B_DEC_MEAN) {
        row_sample_mean(rows, sums, bias);
    } else if (rc == 0) {
        rc = geometric_median(rows, GEOMETRIC_MEDIAN_ITERATIONS, GEOMETRIC_MEDIAN_TOLERANCE, bias, &iterations, e);
        if (rc == 0)
            log_line("b_dec: the geometric median of %zu rows, after %zu iterations", rows->n_rows, iterations);
    }
    if (rc == 0)
        rc = backend_put_all(b, "b_dec", bias, e);
    mem_free(sums);
    mem_free(bias);
    return rc;
}

/* ---- b_enc of jumprelu ---- */

/* Reorders v [n] so that the m greatest come first, 1 <= m <= n (Hoare's selection, as Wirth has it). */
static void greatest_first(float *v, size_t n, size_t m)
{
    ptrdiff_t low = 0, high = (ptrdiff_t)n - 1, nth = (ptrdiff_t)m - 1;
    while (low < high) {
        float pivot = v[nth];
        ptrdiff_t i = low, j = high;
        do {
            while (v[i] > pivot)
                i++;
            while (v[j] < pivot)
                j--;
            if (i <= j) {
                float swap = v[i];
                v[i++] = v[j];
                v[j--] = swap;
            }
        } while (i <= j);
        if (j < nth)
            low = i;
        if (nth < i)
            high = j;
    }
}

/* Returns a value that the m greatest of v [n] are above and the others below, 1 <= m <= n; v is reordered. */
static double between(float *v, size_t n, size_t m)
{
    greatest_first(v, n, m);
    float least = v[0], greatest = v[0], below = -INFINITY;
    for (size_t i = 1; i < m; i++) {
        least = v[i] < least ? v[i] : least;
        greatest = v[i] > greatest ? v[i] : greatest;
    }
    if (m == n) /* below all of them, by half of their mean distance */
        return (double)least - ((double)greatest - (double)least) / (2 * (double)n);
    for (size_t i = m; i < n; i++)
        below = v[i] > below ? v[i] : below;
    return ((double)least + (double)below) / 2;
}

/* Returns in how many of n rows each latent shall fire. */
static size_t firing_rows(size_t d_sae, size_t n)
{
    double share = FIRES / (double)d_sae, wanted = round(share * (double)n);
    if (share >= 1)
        log_line(
            "jumprelu: a latent should fire in %g / d_sae %zu of the rows at first, which is all: it does in all %zu",
            FIRES, d_sae, n);
    else if (wanted < 1)
        log_line("jumprelu: a latent should fire in %g / d_sae %zu of the rows at first, which is %.3g of %zu "
                 "(--scale-rows): it does in 1",
                 FIRES, d_sae, share * (double)n, n);
    return wanted < 1 ? 1 : wanted < (double)n ? (size_t)wanted : n;
}

struct quantile_work {
    struct quantile_sizes sizes;
    float *x;         /* [sizes.rows, n_inputs] */
    float *p;         /* [n_rows, sizes.latents] */
    float *column;    /* [sizes.threads, n_rows] */
    float *threshold; /* [d_sae], then the biases */
};

/* Sets the biases of latents [first, first + n): log threshold -> bias. */
static int tile_bias(struct quantile_work *w, struct backend *b, const struct row_sample *rows, size_t first, size_t n,
                     size_t firing, struct err *e)
{
    for (size_t row = 0, piece; row < rows->n_rows; row += piece) {
        piece = rows->n_rows - row < w->sizes.rows ? rows->n_rows - row : w->sizes.rows;
        row_sample_get(rows, row, piece, w->x);
        if (b->ops->preactivations(b, w->x, piece, first, n, w->p + row * n, e))
            return e->code;
    }
#pragma omp parallel for schedule(static) num_threads((int)w->sizes.threads)
    for (size_t j = 0; j < n; j++) {
        float *column = w->column + (size_t)omp_get_thread_num() * rows->n_rows;
        for (size_t row = 0; row < rows->n_rows; row++)
            column[row] = w->p[row * n + j];
        w->threshold[first + j] = (float)(exp((double)w->threshold[first + j]) - between(column, rows->n_rows, firing));
    }
    return 0;
}

/* Fills b_enc so that p > theta in as many rows as each latent shall fire in. */
static int initial_b_enc(struct backend *b, const struct row_sample *rows, struct err *e)
{
    const struct backend_setup *s = &b->setup;
    size_t n_inputs = s->n_sites * s->d_model, firing = firing_rows(s->d_sae, rows->n_rows);
    struct quantile_work w = {.sizes = sizes_of(s, rows->n_rows)};
    int rc = ERR_MEMORY;
    if ((w.x = mem_alloc(w.sizes.rows * n_inputs, sizeof(float), "rows for initial b_enc", e)) &&
        (w.p = mem_alloc(w.sizes.latents * rows->n_rows, sizeof(float), "products for initial b_enc", e)) &&
        (w.column = mem_alloc(w.sizes.threads * rows->n_rows, sizeof(float), "quantiles for initial b_enc", e)) &&
        (w.threshold = mem_alloc(s->d_sae, sizeof(float), "initial b_enc", e)))
        rc = backend_get_all(b, "log_threshold", w.threshold, e);
    for (size_t first = 0; rc == 0 && first < s->d_sae; first += w.sizes.latents) {
        size_t left = s->d_sae - first;
        rc = tile_bias(&w, b, rows, first, left < w.sizes.latents ? left : w.sizes.latents, firing, e);
    }
    if (rc == 0)
        rc = backend_put_all(b, "b_enc", w.threshold, e);
    mem_free(w.x);
    mem_free(w.p);
    mem_free(w.column);
    mem_free(w.threshold);
    return rc;
}

int initial_bias(struct backend *b, enum b_dec_init how, const struct row_sample *rows, struct err *e)
{
    if (how != B_DEC_ZERO && initial_b_dec(b, how, rows, e))
        return e->code;
    return backend_has_thresholds(&b->setup) ? initial_b_enc(b, rows, e) : 0;
}
