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

static size_t rows_in_chunk(const struct rows *r, size_t chunk)
{
    size_t left = r->n_rows - chunk * r->chunk_rows;
    return left < r->chunk_rows ? left : r->chunk_rows;
}

static unsigned char *chunk_start(const struct rows *r, size_t chunk)
{
    return r->data + chunk * r->chunk_rows * (row_bytes(r) + sizeof(struct row_origin));
}

int rows_init(struct rows *r, const struct stream *s, size_t max_rows, struct err *e)
{
    *r = (struct rows){.n_sites = s->n_sites, .d_model = s->d_model};
    size_t one = stream_row_bytes(s, ROW_F32) + sizeof(struct row_origin);
    r->data = mem_alloc(max_rows, one, "outgoing block", e);
    r->data_size = max_rows * one;
    return r->data ? 0 : ERR_MEMORY;
}

void rows_release(struct rows *r)
{
    mem_free(r->data);
    *r = (struct rows){0};
}

void rows_begin(struct rows *r, const struct stream *s, size_t n_rows, enum row_dtype dtype, const float *scale)
{
    r->n_rows = n_rows;
    r->dtype = dtype;
    r->scale = scale;
    r->chunk_rows = stream_chunk_rows(s, dtype);
    assert(n_rows * (row_bytes(r) + sizeof(struct row_origin)) <= r->data_size);
}

void rows_put(struct rows *r, size_t row, size_t site, const float *vector)
{
    assert(row < r->n_rows && site < r->n_sites);
    size_t d = r->d_model, size = row_dtype_size(r->dtype);
    unsigned char *dst = chunk_start(r, row / r->chunk_rows) + (row % r->chunk_rows) * row_bytes(r) + site * d * size;
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
    size_t chunk = row / r->chunk_rows;
    memcpy(chunk_start(r, chunk) + rows_in_chunk(r, chunk) * row_bytes(r) + (row % r->chunk_rows) * sizeof origin, &origin,
           sizeof origin);
}

const unsigned char *rows_chunk(const struct rows *r, size_t i, size_t *bytes, size_t *n_rows)
{
    *n_rows = rows_in_chunk(r, i);
    *bytes = *n_rows * (row_bytes(r) + sizeof(struct row_origin));
    return chunk_start(r, i);
}
