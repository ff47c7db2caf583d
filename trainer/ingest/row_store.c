/* row_store.c - stores rows by their purpose and settles the scale; see row_store.h. */
#include "row_store.h"

#include <string.h>

#include "mem.h"
#include "scale.h"

static size_t rows_of(const struct plan *plan, const uint32_t *blocks, uint32_t n)
{
    size_t rows = 0;
    for (uint32_t i = 0; i < n; i++)
        rows += plan_block_rows(plan, blocks[i]);
    return rows;
}

void row_store_memory(const struct row_store_config *c, size_t *evaluation_bytes, size_t *raw_bytes)
{
    size_t row = stream_row_bytes(c->stream, c->dtype);
    *evaluation_bytes = rows_of(c->plan, c->plan->eval_blocks, c->plan->n_eval) * (row + sizeof(bool));
    *raw_bytes = rows_of(c->plan, c->scale_blocks, c->n_scale_blocks) *
                 (stream_row_bytes(c->stream, ROW_F32) + sizeof(struct row_origin) + row);
}

int row_store_init(struct row_store *s, const struct row_store_config *c, struct err *e)
{
    *s = (struct row_store){.c = *c, .scale_blocks_left = c->n_scale_blocks, .evaluation_blocks_left = c->plan->n_eval};
    s->evaluation_rows = rows_of(c->plan, c->plan->eval_blocks, c->plan->n_eval);
    s->raw_rows = rows_of(c->plan, c->scale_blocks, c->n_scale_blocks);
    if ((s->evaluation = mem_alloc(s->evaluation_rows, stream_row_bytes(c->stream, c->dtype), "held-out rows", e)) &&
        (s->evaluation_masked = mem_alloc(s->evaluation_rows, sizeof *s->evaluation_masked, "held-out rows", e)) &&
        (s->raw = mem_alloc(s->raw_rows, stream_row_bytes(c->stream, ROW_F32), "rows for measuring the scale", e)) &&
        (s->raw_origins = mem_alloc(s->raw_rows, sizeof *s->raw_origins, "their origins", e)))
        return 0;
    row_store_release(s);
    return ERR_MEMORY;
}

static void release_raw(struct row_store *s)
{
    mem_free(s->raw);
    mem_free(s->raw_origins);
    s->raw = NULL;
    s->raw_origins = NULL;
}

void row_store_release(struct row_store *s)
{
    release_raw(s);
    mem_free(s->evaluation);
    mem_free(s->evaluation_masked);
    *s = (struct row_store){0};
}

enum row_dtype row_store_dtype(const struct row_store *s, enum lease_purpose purpose)
{
    return purpose == FOR_SCALE ? ROW_F32 : s->c.dtype;
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
        memcpy((unsigned char *)s->raw + row * row_bytes, acts, b->rows * row_bytes);
        memcpy(s->raw_origins + row, b->origins, b->rows * sizeof *s->raw_origins);
    }
    a->rows_taken += b->rows;
    a->chunks_taken++;
}

/* Measures the scale over the raw rows, which then go to the shuffle. */
static int settle_scale(struct row_store *s, float *scale, struct err *e)
{
    const struct row_store_config *c = &s->c;
    size_t row_elements = (size_t)c->stream->n_sites * c->stream->d_model, row = 0;
    struct scale_sums sums = {0};
    scale_add(&sums, (const unsigned char *)s->raw, s->raw_origins, s->raw_rows, c->stream);
    if (scale_finish(&sums, c->stream, scale, e))
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
        scale_apply(s->raw + row * row_elements, ticket.n_rows, c->stream, scale, c->dtype, scaled);
        shuffle_store(c->shuffle, &ticket, 0, ticket.n_rows, scaled, s->raw_origins + row);
        shuffle_complete(c->shuffle, &ticket);
        row += ticket.n_rows;
    }
    mem_free(scaled);
    release_raw(s);
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
        *event = ROW_STORE_SCALE;
        return settle_scale(s, scale, e);
    }
    return 0;
}
