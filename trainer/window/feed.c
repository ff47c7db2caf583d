/* feed.c - see feed.h. */
#include "feed.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include <omp.h>

#include "clock.h"
#include "mem.h"
#include "scale.h"

#define TAKE_MS 100 /* how soon the thread notices that it shall end */

struct feed {
    struct feed_config c;
    struct shuffle *shuffle;
    uint64_t n_batches;
    const float *mean; /* [row_elements] to subtract; or NULL */
    float *x[2];
    struct row_origin *origins[2];
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    int taken;              /* the training thread's buffer; the other is the feed's */
    bool ready;             /* the feed's buffer holds the next batch, */
    struct plan_place next; /* of which this is the row after */
    struct err failure;
    bool ending;
};

int feed_memory(const struct feed_config *c, size_t *bytes, struct err *e)
{
    size_t x;
    if (!size_mul(c->row_elements, sizeof(float), &x) ||
        !size_mul(2 * c->batch_size, x + sizeof(struct row_origin), bytes))
        return err_set(e, ERR_MEMORY, "two batches of %zu rows of %zu values do not fit in memory", c->batch_size,
                       c->row_elements);
    return 0;
}

int feed_new(struct feed **out, const struct feed_config *c, struct err *e)
{
    size_t bytes;
    *out = NULL;
    if (feed_memory(c, &bytes, e))
        return e->code;
    struct feed *f = mem_alloc(1, sizeof *f, "feed", e);
    if (!f)
        return ERR_MEMORY;
    f->c = *c;
    pthread_mutex_init(&f->lock, NULL);
    clock_init_condition(&f->changed);
    for (int i = 0; i < 2; i++)
        if (!(f->x[i] = mem_alloc(c->batch_size, c->row_elements * sizeof(float), "batch", e)) ||
            !(f->origins[i] = mem_alloc(c->batch_size, sizeof *f->origins[i], "batch origins", e))) {
            feed_free(f);
            return ERR_MEMORY;
        }
    *out = f;
    return 0;
}

void feed_free(struct feed *f)
{
    if (!f)
        return;
    if (f->started) {
        pthread_mutex_lock(&f->lock);
        f->ending = true;
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        pthread_join(f->thread, NULL);
    }
    for (int i = 0; i < 2; i++) {
        mem_free(f->x[i]);
        mem_free(f->origins[i]);
    }
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    mem_free(f);
}

float *feed_buffer(struct feed *f)
{
    return f->x[f->taken]; /* which only feed_take changes */
}

/* Gathers one batch into the feed's buffer. false: the end, or a failure. */
static bool gather(struct feed *f)
{
    struct err e;
    int rc, mine = 1 - f->taken; /* taken cannot change before it is ready */
    bool ending = false;
    while ((rc = shuffle_take(f->shuffle, f->x[mine], f->origins[mine], f->c.batch_size, TAKE_MS, &e)) == 1 &&
           !ending) {
        pthread_mutex_lock(&f->lock);
        ending = f->ending;
        pthread_mutex_unlock(&f->lock);
    }
    if (rc == 0 && f->mean)
        scale_center(f->x[mine], f->c.batch_size, f->c.row_elements, f->mean);
    struct shuffle_state state;
    shuffle_state(f->shuffle, &state);
    pthread_mutex_lock(&f->lock);
    if (rc < 0)
        f->failure = e;
    f->ready = rc == 0;
    f->next = state.next;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return rc == 0;
}

static void *gather_all(void *argument)
{
    struct feed *f = argument;
    omp_set_num_threads(1); /* of this thread's own loops: the cores are the step's */
    for (uint64_t i = 0; i < f->n_batches && gather(f); i++) {
        pthread_mutex_lock(&f->lock);
        while (f->ready && !f->ending)
            pthread_cond_wait(&f->changed, &f->lock);
        bool ending = f->ending;
        pthread_mutex_unlock(&f->lock);
        if (ending)
            break;
    }
    return NULL;
}

int feed_start(struct feed *f, struct shuffle *s, uint64_t n_batches, const float *mean, struct err *e)
{
    f->mean = mean;
    f->shuffle = s;
    f->n_batches = n_batches;
    int rc = pthread_create(&f->thread, NULL, gather_all, f);
    if (rc)
        return err_errno(e, rc, "cannot start a thread");
    f->started = true;
    return 0;
}

int feed_take(struct feed *f, struct feed_batch *b, int timeout_ms, struct err *e)
{
    struct timespec until = clock_after(timeout_ms);
    int rc = 0;
    pthread_mutex_lock(&f->lock);
    while (!f->ready && !f->failure.code && rc == 0)
        if (pthread_cond_timedwait(&f->changed, &f->lock, &until) == ETIMEDOUT)
            rc = 1;
    if (f->ready) {
        f->taken = 1 - f->taken;
        f->ready = false;
        *b = (struct feed_batch){f->x[f->taken], f->origins[f->taken], f->next};
        pthread_cond_broadcast(&f->changed);
        rc = 0;
    } else if (f->failure.code) {
        *e = f->failure;
        rc = e->code;
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}
