/* rows.c - scales, rounds and stores vectors straight into the outgoing chunks; see rows.h. */
#include "rows.h"

#include <assert.h>
#include <string.h>

#include "finite.h"
#include "mem.h"
#include "scale.h"

static size_t row_bytes(const struct rows *r)
{
    return r->n_sites * r->d_model * row_dtype_size(r->dtype);
}

int rows_init(struct rows *r, const struct stream *s, size_t max_rows, struct err *e)
{
    *r = (struct rows){.n_sites = s->n_sites, .d_model = s->d_model};
    r->data = mem_alloc(max_rows, stream_row_bytes(s, ROW_F32), "outgoing block", e);
    r->origins = mem_alloc(max_rows, sizeof *r->origins, "outgoing origins", e);
    r->checksums = mem_alloc(stream_chunk_count(s, ROW_F32, max_rows), sizeof *r->checksums, "checksums", e);
    r->max_rows = max_rows;
    if (r->data && r->origins && r->checksums)
        return 0;
    rows_release(r);
    return ERR_MEMORY;
}

void rows_release(struct rows *r)
{
    mem_free(r->data);
    mem_free(r->origins);
    mem_free(r->checksums);
    *r = (struct rows){0};
}

void rows_begin(struct rows *r, const struct stream *s, size_t n_rows, enum row_dtype dtype, const float *scale)
{
    r->n_rows = n_rows;
    r->acts = r->data;
    r->checksums_known = false;
    r->dtype = dtype;
    r->scale = scale;
    r->chunk_rows = stream_chunk_rows(s, dtype);
    assert(n_rows <= r->max_rows);
}

static unsigned char *place(const struct rows *r, size_t row, size_t site)
{
    assert(row < r->n_rows && site < r->n_sites);
    return r->data + row * row_bytes(r) + site * r->d_model * row_dtype_size(r->dtype);
}

static float factor(const struct rows *r, size_t site)
{
    return r->scale ? r->scale[site] : 1.0f;
}

void rows_put(struct rows *r, size_t row, size_t site, const float *vector)
{
    scale_vector(vector, r->d_model, factor(r, site), r->dtype, place(r, row, site));
}

size_t rows_put_difference(struct rows *r, size_t row, size_t site, const float *a, const float *b)
{
    float difference[256]; /* a piece of it */
    size_t d = r->d_model, step = sizeof difference / sizeof *difference, bad = d;
    unsigned char *dst = place(r, row, site);
    for (size_t first = 0; first < d; first += step) {
        size_t n = d - first < step ? d - first : step;
        for (size_t i = 0; i < n; i++)
            difference[i] = a[first + i] - b[first + i];
        size_t first_bad = finite_first_bad_f32(difference, n);
        if (bad == d && first_bad < n)
            bad = first + first_bad;
        scale_vector(difference, n, factor(r, site), r->dtype, dst + first * row_dtype_size(r->dtype));
    }
    return bad;
}

void rows_put_scaled(struct rows *r, size_t row, size_t site, const unsigned char *vector)
{
    memcpy(place(r, row, site), vector, r->d_model * row_dtype_size(r->dtype));
}

void rows_put_origin(struct rows *r, size_t row, struct row_origin origin)
{
    assert(row < r->n_rows);
    r->origins[row] = origin;
}

void rows_borrow(struct rows *r, const unsigned char *acts)
{
    r->acts = acts;
}

const unsigned char *rows_chunk(const struct rows *r, size_t i, size_t *bytes, size_t *n_rows,
                                const struct row_origin **origins)
{
    size_t first = i * r->chunk_rows, left = r->n_rows - first;
    *n_rows = left < r->chunk_rows ? left : r->chunk_rows;
    *bytes = *n_rows * row_bytes(r);
    *origins = r->origins + first;
    return r->acts + first * row_bytes(r);
}

static size_t n_chunks(const struct rows *r)
{
    return (r->n_rows + r->chunk_rows - 1) / r->chunk_rows;
}

const uint64_t *rows_checksums(struct rows *r)
{
    for (size_t i = 0; !r->checksums_known && i < n_chunks(r); i++) {
        size_t bytes, n_rows;
        const struct row_origin *origins;
        const unsigned char *acts = rows_chunk(r, i, &bytes, &n_rows, &origins);
        r->checksums[i] = fingerprint_checksum(acts, bytes, origins, n_rows * sizeof *origins);
    }
    r->checksums_known = true;
    return r->checksums;
}

void rows_known_checksums(struct rows *r, const unsigned char *checksums)
{
    memcpy(r->checksums, checksums, n_chunks(r) * sizeof *r->checksums);
    r->checksums_known = true;
}
