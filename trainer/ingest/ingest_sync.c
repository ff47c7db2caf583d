/* ingest_sync.c - see ingest_sync.h. */
#include "ingest_sync.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

void ingest_sync_init(struct ingest_sync *h)
{
    memset(h, 0, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    clock_init_condition(&h->changed);
}

void ingest_sync_release(struct ingest_sync *h)
{
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
}

void ingest_sync_stream(struct ingest_sync *h, const struct stream *stream)
{
    pthread_mutex_lock(&h->lock);
    h->stream_known = true;
    h->stream = *stream;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

void ingest_sync_scale(struct ingest_sync *h, const float *scale, uint32_t n_sites)
{
    pthread_mutex_lock(&h->lock);
    h->scale_known = true;
    memcpy(h->scale, scale, n_sites * sizeof *scale);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

void ingest_sync_evaluation(struct ingest_sync *h)
{
    pthread_mutex_lock(&h->lock);
    h->evaluation_ready = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

void ingest_sync_fail(struct ingest_sync *h, const struct err *why)
{
    pthread_mutex_lock(&h->lock);
    if (!h->failure.code)
        h->failure = *why;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

void ingest_sync_turn(struct ingest_sync *h, const struct ingest_counters *counters, bool *started, bool *ending,
                      struct message_end *end)
{
    pthread_mutex_lock(&h->lock);
    h->counters = *counters;
    *started = h->started;
    *ending = h->ending;
    *end = h->end;
    pthread_mutex_unlock(&h->lock);
}

/* Waits, the lock taken, until *ready. The lock stays taken. */
static int wait_until(struct ingest_sync *h, const bool *ready, int timeout_ms, struct err *e)
{
    struct timespec until = clock_after(timeout_ms);
    int timed_out = 0;
    pthread_mutex_lock(&h->lock);
    while (!*ready && !h->failure.code && !timed_out)
        timed_out = pthread_cond_timedwait(&h->changed, &h->lock, &until) == ETIMEDOUT;
    if (h->failure.code) {
        *e = h->failure;
        return e->code;
    }
    return *ready ? 0 : 1;
}

int ingest_sync_wait_stream(struct ingest_sync *h, struct stream *stream, int timeout_ms, struct err *e)
{
    int rc = wait_until(h, &h->stream_known, timeout_ms, e);
    if (rc == 0)
        *stream = h->stream;
    pthread_mutex_unlock(&h->lock);
    return rc;
}

int ingest_sync_wait_scale(struct ingest_sync *h, float *scale, uint32_t n_sites, int timeout_ms, struct err *e)
{
    int rc = wait_until(h, &h->scale_known, timeout_ms, e);
    if (rc == 0)
        memcpy(scale, h->scale, n_sites * sizeof *scale);
    pthread_mutex_unlock(&h->lock);
    return rc;
}

int ingest_sync_wait_evaluation(struct ingest_sync *h, int timeout_ms, struct err *e)
{
    int rc = wait_until(h, &h->evaluation_ready, timeout_ms, e);
    pthread_mutex_unlock(&h->lock);
    return rc;
}

void ingest_sync_counters(struct ingest_sync *h, struct ingest_counters *counters)
{
    pthread_mutex_lock(&h->lock);
    *counters = h->counters;
    pthread_mutex_unlock(&h->lock);
}

void ingest_sync_start(struct ingest_sync *h)
{
    pthread_mutex_lock(&h->lock);
    h->started = true;
    pthread_mutex_unlock(&h->lock);
}

void ingest_sync_end(struct ingest_sync *h, bool ok, const char *reason)
{
    pthread_mutex_lock(&h->lock);
    h->ending = true;
    h->end.ok = ok;
    snprintf(h->end.reason, sizeof h->end.reason, "%s", reason);
    pthread_mutex_unlock(&h->lock);
}
