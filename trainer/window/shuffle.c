/* shuffle.c - slots, two window records and the permutation that serves them; see shuffle.h.
 *
 * The lock guards the records and the free slots. Rows are copied outside it: the ingest thread writes only slots of
 * reserved, incomplete blocks; the training thread reads only slots of a complete window. */
#include "shuffle.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "bf16.h"
#include "clock.h"
#include "mem.h"
#include "wake.h"

struct window {
    uint64_t g;
    size_t n_rows, rows_reserved; /* n_rows: without the masked ones once it is complete */
    uint32_t *blocks;             /* [n_blocks], in the window's order */
    uint32_t n_blocks, blocks_reserved, blocks_complete;
    uint32_t *slot;  /* [n_rows]: where row i of the window lies */
    uint32_t *order; /* [n_rows]: the row served i-th */
};

struct shuffle {
    struct shuffle_config c;
    size_t row_bytes, n_slots;
    unsigned char *rows;        /* [n_slots, row_elements] of dtype */
    struct row_origin *origins; /* [n_slots] */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct window windows[2];          /* g is in windows[g % 2] */
    uint64_t serving, filling;         /* window numbers; filling is serving or serving + 1 */
    uint64_t rows_served, rows_masked; /* since shuffle_new */
    uint64_t rows_seen, rows_kept;     /* of the run's complete windows: all, and those that are not masked */
    uint64_t epoch_rows;               /* counted when an epoch ends; 0: none has ended since shuffle_new */
    uint32_t empty_windows;            /* in a row, in which every row was masked */
    size_t position;                   /* rows of `serving` already served */
    size_t batch_taken;                /* rows of the batch under way that shuffle_take has already delivered */
    uint64_t
        rows_planned; /* rows of all windows up to and including `filling`; masked ones count until they are known */
    uint32_t *free_slots; /* stack [n_free] */
    size_t n_free;
    uint32_t *copy_slots[SHUFFLE_COPIES]; /* [max_block_rows] each; the ingest thread's alone, and copy_used too */
    bool copy_used[SHUFFLE_COPIES];
    struct err failure;
};

static int sizes(const struct shuffle_config *c, size_t *slots, size_t *all, size_t *row_bytes, size_t *index_bytes,
                 struct err *e)
{
    size_t one;
    *slots = c->plan->window_rows + c->lookahead_rows;
    *all = *slots + SHUFFLE_COPIES * c->plan->max_block_rows;
    if (!size_mul(c->row_elements, row_dtype_size(c->dtype), &one) || !size_mul(*all, one, row_bytes) ||
        !size_mul(*all, sizeof(struct row_origin) + sizeof(uint32_t), index_bytes) || *all >= UINT32_MAX)
        return err_set(e, ERR_MEMORY, "window of %zu rows of %zu elements does not fit in memory", *all,
                       c->row_elements);
    *index_bytes += c->plan->window_rows * 4 * sizeof(uint32_t) + c->plan->window_blocks * 2 * sizeof(uint32_t);
    return 0;
}

int shuffle_memory(const struct shuffle_config *c, size_t *row_bytes, size_t *index_bytes, struct err *e)
{
    size_t slots, all;
    return sizes(c, &slots, &all, row_bytes, index_bytes, e);
}

/* Makes windows[g % 2] the record of window g; the lock is held or not yet needed. */
static void open_window(struct shuffle *s, uint64_t g)
{
    struct window *w = &s->windows[g % 2];
    w->g = g;
    w->n_rows = plan_window(s->c.plan, g, w->blocks, &w->n_blocks);
    w->rows_reserved = 0;
    w->blocks_reserved = w->blocks_complete = 0;
    s->filling = g;
    s->rows_planned += w->n_rows;
}

/* Checks that the place to start at lies in its window; it is called again once the window's masked rows are known. */
static int check_start(const struct shuffle *s, struct err *e)
{
    const struct plan_place *start = &s->c.start;
    size_t n_rows = s->windows[start->window % 2].n_rows;
    if (start->position && start->position >= n_rows)
        return err_set(e, ERR_MISMATCH, "window %llu has %zu rows, cannot go on at row %zu of it",
                       (unsigned long long)start->window, n_rows, start->position);
    return 0;
}

int shuffle_new(struct shuffle **out, const struct shuffle_config *c, struct err *e)
{
    struct shuffle *s = mem_alloc(1, sizeof *s, "shuffle", e);
    size_t bytes, index_bytes, all;
    *out = NULL;
    if (!s)
        return ERR_MEMORY;
    s->c = *c;
    pthread_mutex_init(&s->lock, NULL);
    clock_init_condition(&s->changed);
    int rc = sizes(c, &s->n_slots, &all, &bytes, &index_bytes, e);
    if (rc)
        goto out;
    s->row_bytes = c->row_elements * row_dtype_size(c->dtype);
    rc = ERR_MEMORY;
    if (!(s->rows = mem_alloc(all, s->row_bytes, "window", e)) ||
        !(s->origins = mem_alloc(all, sizeof *s->origins, "window origins", e)) ||
        !(s->free_slots = mem_alloc(s->n_slots, sizeof *s->free_slots, "window slots", e)))
        goto out;
    for (int i = 0; i < 2; i++) {
        struct window *w = &s->windows[i];
        if (!(w->blocks = mem_alloc(c->plan->window_blocks, sizeof *w->blocks, "window blocks", e)) ||
            !(w->slot = mem_alloc(c->plan->window_rows, sizeof *w->slot, "window slots", e)) ||
            !(w->order = mem_alloc(c->plan->window_rows, sizeof *w->order, "window order", e)))
            goto out;
    }
    for (uint32_t i = 0, slot = (uint32_t)s->n_slots; i < SHUFFLE_COPIES; i++) {
        s->copy_slots[i] = mem_alloc(c->plan->max_block_rows, sizeof(uint32_t), "window slots", e);
        if (!s->copy_slots[i])
            goto out;
        for (size_t row = 0; row < c->plan->max_block_rows; row++)
            s->copy_slots[i][row] = slot++;
    }
    for (size_t i = 0; i < s->n_slots; i++) /* the stack's top is slot 0 */
        s->free_slots[i] = (uint32_t)(s->n_slots - 1 - i);
    s->n_free = s->n_slots;

    s->serving = c->start.window;
    s->position = c->start.position;
    s->rows_planned = c->start_row - c->start.position;
    s->rows_seen = plan_rows_before(c->plan, c->start.window);
    s->rows_kept = s->rows_planned;
    open_window(s, c->start.window);
    if ((rc = check_start(s, e)))
        goto out;
    *out = s;
    return 0;
out:
    shuffle_free(s);
    return rc;
}

void shuffle_free(struct shuffle *s)
{
    if (!s)
        return;
    for (int i = 0; i < 2; i++) {
        mem_free(s->windows[i].blocks);
        mem_free(s->windows[i].slot);
        mem_free(s->windows[i].order);
    }
    for (int i = 0; i < SHUFFLE_COPIES; i++)
        mem_free(s->copy_slots[i]);
    mem_free(s->rows);
    mem_free(s->origins);
    mem_free(s->free_slots);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    mem_free(s);
}

bool shuffle_reserve(struct shuffle *s, struct shuffle_ticket *t)
{
    bool reserved = false;
    pthread_mutex_lock(&s->lock);
    struct window *w = &s->windows[s->filling % 2];
    if (w->blocks_reserved == w->n_blocks && s->filling <= s->serving && s->rows_planned < s->c.total_rows) {
        open_window(s, s->filling + 1);
        w = &s->windows[s->filling % 2];
    }
    if (w->blocks_reserved < w->n_blocks) {
        uint32_t block = w->blocks[w->blocks_reserved];
        size_t n_rows = plan_block_rows(s->c.plan, block);
        if (n_rows <= s->n_free) {
            *t = (struct shuffle_ticket){block, s->filling, (unsigned)(s->filling % 2), w->rows_reserved, n_rows};
            for (size_t i = 0; i < n_rows; i++)
                w->slot[w->rows_reserved + i] = s->free_slots[--s->n_free];
            w->rows_reserved += n_rows;
            w->blocks_reserved++;
            reserved = true;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return reserved;
}

bool shuffle_urgent(struct shuffle *s, const struct shuffle_ticket *t)
{
    pthread_mutex_lock(&s->lock);
    const struct window *w = &s->windows[t->window];
    bool urgent = w->g == s->serving || w->blocks_reserved == w->n_blocks;
    pthread_mutex_unlock(&s->lock);
    return urgent;
}

static uint32_t unused_copy(const struct shuffle *s)
{
    uint32_t i = 0;
    while (i < SHUFFLE_COPIES && s->copy_used[i])
        i++;
    return i < SHUFFLE_COPIES ? i : SHUFFLE_NO_COPY;
}

bool shuffle_copy_room(const struct shuffle *s)
{
    return unused_copy(s) != SHUFFLE_NO_COPY;
}

bool shuffle_copy_reserve(struct shuffle *s, uint32_t *copy)
{
    *copy = unused_copy(s);
    if (*copy == SHUFFLE_NO_COPY)
        return false;
    s->copy_used[*copy] = true;
    return true;
}

/* If the copy is kept, the two places change their slots. */
void shuffle_copy_end(struct shuffle *s, const struct shuffle_ticket *t, uint32_t copy, bool keep)
{
    uint32_t *first = s->windows[t->window].slot + t->first_row, *second = s->copy_slots[copy];
    for (size_t row = 0; keep && row < t->n_rows; row++) {
        uint32_t slot = first[row];
        first[row] = second[row];
        second[row] = slot;
    }
    s->copy_used[copy] = false;
}

const unsigned char *shuffle_row(const struct shuffle *s, const struct shuffle_ticket *t, uint32_t copy, size_t row,
                                 struct row_origin *origin)
{
    size_t slot = copy == SHUFFLE_NO_COPY ? s->windows[t->window].slot[t->first_row + row] : s->copy_slots[copy][row];
    *origin = s->origins[slot];
    return s->rows + slot * s->row_bytes;
}

static void store(struct shuffle *s, const uint32_t *slot, size_t n, const unsigned char *acts,
                  const struct row_origin *origins)
{
    for (size_t i = 0; i < n; i++) {
        memcpy(s->rows + slot[i] * s->row_bytes, acts + i * s->row_bytes, s->row_bytes);
        s->origins[slot[i]] = origins[i];
    }
}

void shuffle_store(struct shuffle *s, const struct shuffle_ticket *t, size_t row, size_t n, const unsigned char *acts,
                   const struct row_origin *origins)
{
    store(s, s->windows[t->window].slot + t->first_row + row, n, acts, origins);
}

void shuffle_copy_store(struct shuffle *s, uint32_t copy, size_t row, size_t n, const unsigned char *acts,
                        const struct row_origin *origins)
{
    store(s, s->copy_slots[copy] + row, n, acts, origins);
}

static void free_rows(struct shuffle *s, const struct window *w, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        s->free_slots[s->n_free++] = w->slot[w->order[i]];
}

/* Drops the masked rows of a window whose rows are all there; the lock is held. */
static void drop_masked(struct shuffle *s, struct window *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->n_rows; i++) {
        if (s->origins[w->slot[i]].token == ROW_MASKED)
            s->free_slots[s->n_free++] = w->slot[i];
        else
            w->slot[kept++] = w->slot[i];
    }
    s->rows_seen += w->n_rows;
    s->rows_kept += kept;
    s->rows_masked += w->n_rows - kept;
    s->rows_planned -= w->n_rows - kept;
    w->n_rows = kept;
    s->empty_windows = kept ? 0 : s->empty_windows + 1;
    if (s->empty_windows == s->c.plan->windows_per_epoch)
        err_set(&s->failure, ERR_INPUT, "all rows of an epoch are masked: there is nothing to train on");
}

void shuffle_complete(struct shuffle *s, const struct shuffle_ticket *t)
{
    struct window *w = &s->windows[t->window];
    pthread_mutex_lock(&s->lock);
    bool last = w->blocks_complete + 1 == w->n_blocks;
    if (last)
        drop_masked(s, w);
    pthread_mutex_unlock(&s->lock);
    if (last) /* outside the lock: nobody else looks at the order before the window is complete */
        plan_window_order(s->c.plan, w->g, w->order, w->n_rows);
    pthread_mutex_lock(&s->lock);
    w->blocks_complete++;
    if (last && w->g == s->c.start.window && check_start(s, &s->failure) == 0)
        free_rows(s, w, 0, s->c.start.position); /* an earlier session served them */
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void shuffle_fail(struct shuffle *s, const struct err *why)
{
    pthread_mutex_lock(&s->lock);
    if (!s->failure.code) /* the first one stays, however long it takes until the training thread looks */
        s->failure = *why;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* Waits, with the lock held, until the window being served is complete. Returns 0, 1 (timeout) or the failure. */
static int wait_for_window(struct shuffle *s, int timeout_ms, struct err *e)
{
    struct timespec until = clock_after(timeout_ms);
    for (;;) {
        const struct window *w = &s->windows[s->serving % 2];
        if (s->failure.code) {
            *e = s->failure;
            return e->code;
        }
        if (s->filling >= s->serving && w->g == s->serving && w->blocks_complete == w->n_blocks)
            return 0;
        if (pthread_cond_timedwait(&s->changed, &s->lock, &until) == ETIMEDOUT)
            return 1;
    }
}

static void gather(const struct shuffle *s, const struct window *w, size_t n, float *x, struct row_origin *origins)
{
    const uint32_t *order = w->order + s->position;
    size_t elements = s->c.row_elements;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        size_t slot = w->slot[order[i]];
        const unsigned char *src = s->rows + slot * s->row_bytes;
        float *dst = x + i * elements;
        if (s->c.dtype == ROW_F32)
            memcpy(dst, src, s->row_bytes);
        else
            bf16_to_f32_n(dst, src, elements);
        if (origins)
            origins[i] = s->origins[slot];
    }
}

/* Goes on to the next window, with the lock held. At the end of an epoch all before it were of the same size: that is when it is known. */
static void end_window(struct shuffle *s)
{
    uint64_t per_epoch = s->c.plan->windows_per_epoch;
    s->serving++;
    s->position = 0;
    if (s->serving % per_epoch == 0)
        s->epoch_rows = (s->c.start_row + s->rows_served) / (s->serving / per_epoch);
}

int shuffle_take(struct shuffle *s, float *x, struct row_origin *origins, size_t n, int timeout_ms, struct err *e)
{
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    while (s->batch_taken < n && (rc = wait_for_window(s, timeout_ms, e)) == 0) {
        const struct window *w = &s->windows[s->serving % 2];
        size_t take = w->n_rows - s->position, done = s->batch_taken;
        if (take > n - done)
            take = n - done;
        pthread_mutex_unlock(&s->lock);
        gather(s, w, take, x + done * s->c.row_elements, origins ? origins + done : NULL);
        pthread_mutex_lock(&s->lock);
        free_rows(s, w, s->position, s->position + take);
        s->position += take;
        s->rows_served += take;
        s->batch_taken += take;
        if (s->position == w->n_rows)
            end_window(s);
        wake(s->c.wake);
    }
    if (rc == 0)
        s->batch_taken = 0;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* Returns the rows of an epoch without the masked ones, counted or, at least 1, estimated; the lock is held. */
static uint64_t epoch_rows(const struct shuffle *s)
{
    uint64_t all = s->c.plan->epoch_rows;
    if (s->epoch_rows || s->rows_kept == s->rows_seen)
        return s->epoch_rows ? s->epoch_rows : all;
    double rows = (double)all * (double)s->rows_kept / (double)s->rows_seen;
    return rows < 1 ? 1 : (uint64_t)rows;
}

void shuffle_state(struct shuffle *s, struct shuffle_state *out)
{
    pthread_mutex_lock(&s->lock);
    *out = (struct shuffle_state){.next = {s->serving, s->position},
                                  .epoch = s->serving / s->c.plan->windows_per_epoch,
                                  .rows_held = s->n_slots - s->n_free,
                                  .slots = s->n_slots,
                                  .rows_served = s->rows_served,
                                  .rows_masked = s->rows_masked,
                                  .epoch_rows = epoch_rows(s),
                                  .epoch_estimated = !s->epoch_rows && s->rows_kept < s->rows_seen};
    pthread_mutex_unlock(&s->lock);
}
