/* compute.c - see compute.h. */
#include "compute.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "mem.h"
#include "wake.h"

#define N_BLOCKS 2 /* one is computed, one is sent */

enum block_state { BLOCK_FREE, BLOCK_COMPUTING, BLOCK_READY, BLOCK_SENDING };

struct compute {
    struct source *source;
    compute_keep *keep;
    void *keep_context;
    int wake; /* eventfd */

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool finished;
    unsigned session;
    struct message_welcome terms;
    struct message_lease leases[COMPUTE_MAX_LEASES]; /* of this session, oldest first */
    size_t n_leases;
    struct block blocks[N_BLOCKS];
    size_t block_rows;  /* that the blocks have room for; 0: they are not yet allocated */
    struct err failure; /* of keep */
    enum compute_activity activity;
    double since; /* clock_s when it began */
    double seconds[COMPUTE_ACTIVITIES];
};

int compute_new(struct compute **out, struct source *source, compute_keep *keep, void *keep_context, struct err *e)
{
    struct compute *c = *out = mem_alloc(1, sizeof *c, "producer", e);
    if (!c)
        return ERR_MEMORY;
    c->source = source;
    c->keep = keep;
    c->keep_context = keep_context;
    c->since = clock_s();
    for (size_t i = 0; i < N_BLOCKS; i++)
        c->blocks[i].owner = c;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (c->wake < 0) {
        err_errno(e, errno, "eventfd");
        compute_free(c);
        *out = NULL;
        return ERR_SYSTEM;
    }
    return 0;
}

void compute_free(struct compute *c)
{
    if (!c)
        return;
    if (c->wake >= 0)
        close(c->wake);
    for (size_t i = 0; i < N_BLOCKS; i++)
        rows_release(&c->blocks[i].rows);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    mem_free(c);
}

/* ---- the computing thread ---- */

/* Counts the time up to now for what was done, and begins another activity. The lock is held. */
static void turn_to(struct compute *c, enum compute_activity next)
{
    double now = clock_s();
    c->seconds[c->activity] += now - c->since;
    c->since = now;
    c->activity = next;
}

static struct block *find_block(struct compute *c, enum block_state state)
{
    for (size_t i = 0; i < N_BLOCKS; i++)
        if (c->blocks[i].state == (int)state)
            return &c->blocks[i];
    return NULL;
}

static void compute_block(struct source *source, struct block *b, enum row_dtype dtype, const float *scale)
{
    const struct stream *s = &source->stream;
    size_t n_rows = stream_block_rows(s, b->lease.count);
    rows_begin(&b->rows, s, n_rows, b->lease.scaled ? dtype : ROW_F32, b->lease.scaled ? scale : NULL);
    b->n_chunks = stream_chunk_count(s, b->rows.dtype, n_rows);
    b->failed = source_compute(source, b->lease.first, b->lease.count, &b->rows, &b->error) != 0;
    if (!b->failed)
        rows_checksums(&b->rows); /* here, not where they are sent: there it would hold up the sending */
}

/* Waits for a lease and a free block; NULL: finished. The lock is held. */
static struct block *wait_for_work(struct compute *c)
{
    struct block *b = NULL;
    while (!c->finished && !(c->n_leases && (b = find_block(c, BLOCK_FREE)))) {
        bool sending = find_block(c, BLOCK_SENDING) || find_block(c, BLOCK_READY);
        turn_to(c, sending ? COMPUTE_SENDING : COMPUTE_WAITING);
        pthread_cond_wait(&c->changed, &c->lock);
    }
    return c->finished ? NULL : b;
}

void compute_run(struct compute *c)
{
    float scale[STREAM_MAX_SITES];
    struct block *b;
    pthread_mutex_lock(&c->lock);
    while ((b = wait_for_work(c)) != NULL) {
        turn_to(c, COMPUTE_COMPUTING);
        b->state = BLOCK_COMPUTING;
        b->session = c->session;
        b->lease = c->leases[0];
        memmove(c->leases, c->leases + 1, --c->n_leases * sizeof c->leases[0]);
        enum row_dtype dtype = c->terms.dtype;
        uint32_t block_seqs = c->terms.block_seqs;
        memcpy(scale, c->terms.scale, sizeof scale);
        pthread_mutex_unlock(&c->lock);

        compute_block(c->source, b, dtype, scale);
        bool short_of_memory = b->failed && b->error.code == ERR_MEMORY;
        struct err kept = {0};
        if (short_of_memory) /* that is not the block's fault: we leave, and it is leased to others */
            kept = b->error;
        else if (c->keep && !b->failed)
            c->keep(c->keep_context, &b->lease, block_seqs, &b->rows, &kept);

        pthread_mutex_lock(&c->lock);
        turn_to(c, COMPUTE_WAITING);
        if (kept.code && !c->failure.code)
            c->failure = kept;
        b->state = short_of_memory ? BLOCK_FREE : BLOCK_READY;
        wake(c->wake);
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- the communicating thread ---- */

void compute_finish(struct compute *c)
{
    pthread_mutex_lock(&c->lock);
    c->finished = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

int compute_wake_fd(const struct compute *c)
{
    return c->wake;
}

void compute_begin_session(struct compute *c)
{
    pthread_mutex_lock(&c->lock);
    c->session++;
    c->n_leases = 0;
    pthread_mutex_unlock(&c->lock);
}

int compute_set_terms(struct compute *c, const struct message_welcome *terms, struct err *e)
{
    const struct stream *s = &c->source->stream;
    size_t block_rows = stream_block_rows(s, terms->block_seqs < s->n_seq ? terms->block_seqs : s->n_seq);
    int rc = 0;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < N_BLOCKS && rc == 0; i++)
        if (!c->blocks[i].rows.data)
            rc = rows_init(&c->blocks[i].rows, s, block_rows, e);
    if (rc == 0 && c->block_rows && block_rows > c->block_rows)
        rc = err_set(e, ERR_MISMATCH,
                     "WELCOME: blocks of %zu rows, this producer joined for blocks of %zu; start it anew", block_rows,
                     c->block_rows);
    if (rc == 0 && !c->block_rows)
        c->block_rows = block_rows;
    c->terms = *terms;
    pthread_mutex_unlock(&c->lock);
    return rc;
}

bool compute_queue(struct compute *c, const struct message_lease *lease)
{
    pthread_mutex_lock(&c->lock);
    bool room = c->n_leases < COMPUTE_MAX_LEASES;
    if (room)
        c->leases[c->n_leases++] = *lease;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return room;
}

struct block *compute_next(struct compute *c)
{
    struct block *b;
    pthread_mutex_lock(&c->lock);
    while ((b = find_block(c, BLOCK_READY)) != NULL && b->session != c->session) {
        b->state = BLOCK_FREE;
        pthread_cond_broadcast(&c->changed);
    }
    if (b) {
        b->state = BLOCK_SENDING;
        b->holders = 1;
    }
    pthread_mutex_unlock(&c->lock);
    return b;
}

void block_hold(struct block *b)
{
    pthread_mutex_lock(&b->owner->lock);
    b->holders++;
    pthread_mutex_unlock(&b->owner->lock);
}

void block_release(void *context)
{
    struct block *b = context;
    pthread_mutex_lock(&b->owner->lock);
    if (--b->holders == 0) {
        b->state = BLOCK_FREE;
        pthread_cond_broadcast(&b->owner->changed);
    }
    pthread_mutex_unlock(&b->owner->lock);
}

const void *block_chunk(const struct block *b, size_t i, struct message *m, size_t *bytes)
{
    const struct row_origin *origins;
    size_t n_rows;
    const unsigned char *data = rows_chunk(&b->rows, i, bytes, &n_rows, &origins);
    m->type = MESSAGE_BATCH;
    m->batch = (struct message_batch){.lease = b->lease.lease,
                                      .block = b->lease.block,
                                      .chunk = (uint32_t)i,
                                      .chunks = (uint32_t)b->n_chunks,
                                      .rows = (uint32_t)n_rows,
                                      .checksum = b->rows.checksums[i]};
    memcpy(m->batch.origins, origins, n_rows * sizeof *origins);
    return data;
}

int compute_failure(struct compute *c, struct err *e)
{
    pthread_mutex_lock(&c->lock);
    *e = c->failure;
    pthread_mutex_unlock(&c->lock);
    return e->code;
}

void compute_seconds(struct compute *c, double seconds[COMPUTE_ACTIVITIES])
{
    pthread_mutex_lock(&c->lock);
    turn_to(c, c->activity);
    memcpy(seconds, c->seconds, sizeof c->seconds);
    pthread_mutex_unlock(&c->lock);
}
