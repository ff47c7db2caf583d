/* rows.c - scales, rounds and stores vectors straight into the outgoing chunks; see rows.h. */
#include "rows.h"

#include <assert.h>
#include <string.h>

#include "bf16.h"
#include "mem.h"

static size_t row_bytes(const struct rows *r)
{
    return r->n_sites * r->d_model * row_dtype_size(r->dtype);
}

int rows_init(struct rows *r, const struct stream *s, size_t max_rows, struct err *e)
{
    *r = (struct rows){.n_sites = s->n_sites, .d_model = s->d_model};
    r->data = mem_alloc(max_rows, stream_row_bytes(s, ROW_F32), "outgoing block", e);
    r->origins = mem_alloc(max_rows, sizeof *r->origins, "outgoing origins", e);
    r->max_rows = max_rows;
    if (r->data && r->origins)
        return 0;
    rows_release(r);
    return ERR_MEMORY;
}

void rows_release(struct rows *r)
{
    mem_free(r->data);
    mem_free(r->origins);
    *r = (struct rows){0};
}

void rows_begin(struct rows *r, const struct stream *s, size_t n_rows, enum row_dtype dtype, const float *scale)
{
    r->n_rows = n_rows;
    r->acts = r->data;
    r->dtype = dtype;
    r->scale = scale;
    r->chunk_rows = stream_chunk_rows(s, dtype);
    assert(n_rows <= r->max_rows);
}

void rows_put(struct rows *r, size_t row, size_t site, const float *vector)
{
    assert(row < r->n_rows && site < r->n_sites);
    size_t d = r->d_model, size = row_dtype_size(r->dtype);
    unsigned char *dst = r->data + row * row_bytes(r) + site * d * size;
    float scale = r->scale ? r->scale[site] : 1.0f;
    if (r->dtype == ROW_BF16) {
        for (size_t i = 0; i < d; i++) {
            uint16_t h = bf16_from_f32(vector[i] * scale);
            memcpy(dst + i * 2, &h, 2);
        }
    } else {
        for (size_t i = 0; i < d; i++) {
            float x = vector[i] * scale;
            memcpy(dst + i * 4, &x, 4);
        }
    }
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
