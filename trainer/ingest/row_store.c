/* row_store.c - stores rows by their purpose and measures the first ones; see row_store.h. */
#include "row_store.h"

#include <string.h>

#include "mem.h"

static size_t rows_of(const struct plan *plan, const uint32_t *blocks, uint32_t n)
{
    size_t rows = 0;
    for (uint32_t i = 0; i < n; i++)
        rows += plan_block_rows(plan, blocks[i]);
    return rows;
}

/* Returns the dtype in which the first blocks come. */
static enum row_dtype first_dtype(const struct row_store_config *c)
{
    return c->scaled ? c->dtype : ROW_F32;
}

void row_store_memory(const struct row_store_config *c, size_t *evaluation_bytes, size_t *first_bytes,
                      size_t *kept_bytes)
{
    size_t row = stream_row_bytes(c->stream, c->dtype), rows = rows_of(c->plan, c->scale_blocks, c->n_scale_blocks);
    *evaluation_bytes = rows_of(c->plan, c->plan->eval_blocks, c->plan->n_eval) * (row + sizeof(bool));
    *first_bytes = rows * (stream_row_bytes(c->stream, first_dtype(c)) + sizeof(struct row_origin) + row +
                           c->stream->n_sites * sizeof(float));
    *first_bytes += rows ? c->plan->max_block_rows * row : 0; /* one block at a time is scaled */
    *kept_bytes = c->keep ? rows * row : 0;
}

int row_store_init(struct row_store *s, const struct row_store_config *c, struct err *e)
{
    *s = (struct row_store){.c = *c, .scale_blocks_left = c->n_scale_blocks, .evaluation_blocks_left = c->plan->n_eval};
    size_t row = stream_row_bytes(c->stream, c->dtype);
    s->evaluation_rows = rows_of(c->plan, c->plan->eval_blocks, c->plan->n_eval);
    s->first_rows = rows_of(c->plan, c->scale_blocks, c->n_scale_blocks);
    if ((s->evaluation = mem_alloc(s->evaluation_rows, row, "held-out rows", e)) &&
        (s->evaluation_masked = mem_alloc(s->evaluation_rows, sizeof *s->evaluation_masked, "held-out rows", e)) &&
        (s->first = mem_alloc(s->first_rows, stream_row_bytes(c->stream, first_dtype(c)), "rows to be measured", e)) &&
        (s->first_origins = mem_alloc(s->first_rows, sizeof *s->first_origins, "their origins", e)) &&
        (s->first_norms = mem_alloc(s->first_rows * c->stream->n_sites, sizeof *s->first_norms, "their norms", e)) &&
        (!c->keep || (s->kept = mem_alloc(s->first_rows, row, "measured rows", e))))
        return 0;
    row_store_release(s);
    return ERR_MEMORY;
}

static void release_first(struct row_store *s)
{
    mem_free(s->first);
    mem_free(s->first_origins);
    mem_free(s->first_norms);
    s->first = NULL;
    s->first_origins = NULL;
    s->first_norms = NULL;
}

void row_store_forget(struct row_store *s)
{
    mem_free(s->kept);
    s->kept = NULL;
    s->kept_rows = 0;
}

void row_store_release(struct row_store *s)
{
    release_first(s);
    row_store_forget(s);
    mem_free(s->evaluation);
    mem_free(s->evaluation_masked);
    *s = (struct row_store){0};
}

enum row_dtype row_store_dtype(const struct row_store *s, enum lease_purpose purpose)
{
    return purpose == FOR_SCALE ? first_dtype(&s->c) : s->c.dtype;
}

void row_store_store(struct row_store *s, struct lease_task *t, int answer, const struct message_batch *b,
                     const unsigned char *acts)
{
    struct lease_answer *a = &t->answers[answer];
    size_t row_bytes = stream_row_bytes(s->c.stream, row_store_dtype(s, t->purpose)),
           row = t->first_row + a->rows_taken;
    if (t->purpose == FOR_WINDOW && answer == 1) {
        shuffle_copy_store(s->c.shuffle, t->copy, a->rows_taken, b->rows, acts, b->origins);
    } else if (t->purpose == FOR_WINDOW) {
        shuffle_store(s->c.shuffle, &t->ticket, a->rows_taken, b->rows, acts, b->origins);
    } else if (t->purpose == FOR_EVALUATION) {
        memcpy(s->evaluation + row * row_bytes, acts, b->rows * row_bytes);
        for (size_t i = 0; i < b->rows; i++)
            s->evaluation_masked[row + i] = b->origins[i].token == ROW_MASKED;
    } else {
        memcpy(s->first + row * row_bytes, acts, b->rows * row_bytes);
        memcpy(s->first_origins + row, b->origins, b->rows * sizeof *s->first_origins);
    }
    a->rows_taken += b->rows;
    a->chunks_taken++;
}

/* Measures and, if they are to be kept, keeps those of n scaled rows that are not masked. *n_measured counts them. */
static void look_at(struct row_store *s, const unsigned char *rows, const struct row_origin *origins, size_t n,
                    size_t *n_measured)
{
    size_t row_bytes = stream_row_bytes(s->c.stream, s->c.dtype);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *row = rows + i * row_bytes;
        if (origins[i].token == ROW_MASKED)
            continue;
        if (s->c.keep)
            memcpy(s->kept + s->kept_rows++ * row_bytes, row, row_bytes);
        row_norms_of(row, s->c.stream, s->c.dtype, s->first_norms + (*n_measured)++, s->first_rows);
    }
}

/* Measures the scale over the first rows, unless it is known, and their norms. They then go to the shuffle. */
static int measure(struct row_store *s, float *scale, struct err *e)
{
    const struct row_store_config *c = &s->c;
    size_t row = 0, n_measured = 0, row_bytes = stream_row_bytes(c->stream, first_dtype(c));
    if (!c->scaled && scale_measure(c->scale_mode, c->scale_target, (const float *)(const void *)s->first,
                                    s->first_origins, s->first_rows, c->stream, scale, e))
        return e->code;
    unsigned char *scaled =
        mem_alloc(c->plan->max_block_rows, stream_row_bytes(c->stream, c->dtype), "scaled block", e);
    int rc = scaled ? 0 : ERR_MEMORY;
    for (uint32_t i = 0; i < c->n_scale_blocks && rc == 0; i++) {
        struct shuffle_ticket ticket;
        if (!shuffle_reserve(c->shuffle, &ticket) || ticket.block != c->scale_blocks[i]) {
            rc = err_set(e, ERR_INPUT, "measured block %u is not number %u of the run's order", c->scale_blocks[i], i);
            break;
        }
        const unsigned char *first = s->first + row * row_bytes, *rows = c->scaled ? first : scaled;
        if (!c->scaled)
            scale_apply((const float *)(const void *)first, ticket.n_rows, c->stream, scale, c->dtype, scaled);
        look_at(s, rows, s->first_origins + row, ticket.n_rows, &n_measured);
        shuffle_store(c->shuffle, &ticket, 0, ticket.n_rows, rows, s->first_origins + row);
        shuffle_complete(c->shuffle, &ticket);
        row += ticket.n_rows;
    }
    if (rc == 0)
        row_norms_finish(&s->norms, s->first_norms, n_measured, s->first_rows, c->stream);
    mem_free(scaled);
    release_first(s);
    return rc;
}

/* Removes the masked ones from the held-out rows, before the training thread sees them. */
static void drop_masked(struct row_store *s)
{
    size_t kept = 0, row_bytes = stream_row_bytes(s->c.stream, s->c.dtype);
    for (size_t i = 0; i < s->evaluation_rows; i++)
        if (!s->evaluation_masked[i])
            memmove(s->evaluation + kept++ * row_bytes, s->evaluation + i * row_bytes, row_bytes);
    s->evaluation_rows = kept;
}

int row_store_complete(struct row_store *s, const struct lease_task *t, float *scale, enum row_store_event *event,
                       struct err *e)
{
    *event = ROW_STORE_NOTHING;
    if (t->purpose == FOR_WINDOW) {
        shuffle_complete(s->c.shuffle, &t->ticket);
    } else if (t->purpose == FOR_EVALUATION && --s->evaluation_blocks_left == 0) {
        drop_masked(s);
        *event = ROW_STORE_EVALUATION;
    } else if (t->purpose == FOR_SCALE && --s->scale_blocks_left == 0) {
        *event = ROW_STORE_MEASURED;
        return measure(s, scale, e);
    }
    return 0;
}
