/* handover.c - see handover.h. */
#include "handover.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

void handover_init(struct handover *h)
{
    memset(h, 0, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    clock_init_condition(&h->changed);
}

void handover_release(struct handover *h)
{
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
}

void handover_stream(struct handover *h, const struct stream *stream)
{
    pthread_mutex_lock(&h->lock);
    h->stream_known = true;
    h->stream = *stream;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

void handover_scale(struct handover *h, const float *scale, uint32_t n_sites)
{
    pthread_mutex_lock(&h->lock);
    h->scale_known = true;
    memcpy(h->scale, scale, n_sites * sizeof *scale);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

void handover_evaluation(struct handover *h)
{
    pthread_mutex_lock(&h->lock);
    h->evaluation_ready = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

void handover_fail(struct handover *h, const struct err *why)
{
    pthread_mutex_lock(&h->lock);
    if (!h->failure.code)
        h->failure = *why;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

void handover_turn(struct handover *h, const struct ingest_counters *counters, bool *started, bool *ending,
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
static int wait_until(struct handover *h, const bool *ready, int timeout_ms, struct err *e)
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

int handover_wait_stream(struct handover *h, struct stream *stream, int timeout_ms, struct err *e)
{
    int result = wait_until(h, &h->stream_known, timeout_ms, e);
    if (result == 0)
        *stream = h->stream;
    pthread_mutex_unlock(&h->lock);
    return result;
}

int handover_wait_scale(struct handover *h, float *scale, uint32_t n_sites, int timeout_ms, struct err *e)
{
    int result = wait_until(h, &h->scale_known, timeout_ms, e);
    if (result == 0)
        memcpy(scale, h->scale, n_sites * sizeof *scale);
    pthread_mutex_unlock(&h->lock);
    return result;
}

int handover_wait_evaluation(struct handover *h, int timeout_ms, struct err *e)
{
    int result = wait_until(h, &h->evaluation_ready, timeout_ms, e);
    pthread_mutex_unlock(&h->lock);
    return result;
}

void handover_counters(struct handover *h, struct ingest_counters *counters)
{
    pthread_mutex_lock(&h->lock);
    *counters = h->counters;
    pthread_mutex_unlock(&h->lock);
}

void handover_start(struct handover *h)
{
    pthread_mutex_lock(&h->lock);
    h->started = true;
    pthread_mutex_unlock(&h->lock);
}

void handover_end(struct handover *h, bool ok, const char *reason)
{
    pthread_mutex_lock(&h->lock);
    h->ending = true;
    h->end.ok = ok;
    snprintf(h->end.reason, sizeof h->end.reason, "%s", reason);
    pthread_mutex_unlock(&h->lock);
}
