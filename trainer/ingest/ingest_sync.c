/* ingest_sync.c - copies under the lock, and waits for changes; see ingest_sync.h. */
#include "ingest_sync.h"

#include <errno.h>
#include <string.h>

#include "clock.h"
#include "text.h"
#include "wake.h"

void ingest_sync_init(struct ingest_sync *s)
{
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    clock_init_condition(&s->changed);
}

void ingest_sync_release(struct ingest_sync *s)
{
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
}

/* ---- for the ingest thread ---- */

void ingest_sync_stream(struct ingest_sync *s, const struct stream *stream)
{
    pthread_mutex_lock(&s->lock);
    s->stream_known = true;
    s->stream = *stream;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void ingest_sync_measured(struct ingest_sync *s, const struct ingest_measured *measured)
{
    pthread_mutex_lock(&s->lock);
    s->measured_known = true;
    s->measured = *measured;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void ingest_sync_evaluation(struct ingest_sync *s)
{
    pthread_mutex_lock(&s->lock);
    s->evaluation_ready = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void ingest_sync_fail(struct ingest_sync *s, const struct err *why)
{
    pthread_mutex_lock(&s->lock);
    if (!s->failure.code)
        s->failure = *why;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void ingest_sync_turn(struct ingest_sync *s, const struct ingest_counters *counters, struct ingest_orders *orders)
{
    pthread_mutex_lock(&s->lock);
    s->counters = *counters;
    *orders = s->orders;
    pthread_mutex_unlock(&s->lock);
}

void ingest_sync_publish(struct ingest_sync *s, const struct ingest_snapshot *snapshot, bool last)
{
    pthread_mutex_lock(&s->lock);
    s->snapshot = *snapshot;
    s->orders.snapshot_wanted = false;
    s->stopped |= last;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* ---- for the other threads ---- */

/* Takes the lock and waits until *ready. Returns with the lock taken. */
static int wait_until(struct ingest_sync *s, const bool *ready, int timeout_ms, struct err *e)
{
    struct timespec until = clock_after(timeout_ms);
    int timed_out = 0;
    pthread_mutex_lock(&s->lock);
    while (!*ready && !s->failure.code && !timed_out)
        timed_out = pthread_cond_timedwait(&s->changed, &s->lock, &until) == ETIMEDOUT;
    if (s->failure.code) {
        *e = s->failure;
        return e->code;
    }
    return *ready ? 0 : 1;
}

int ingest_sync_wait_stream(struct ingest_sync *s, struct stream *stream, int timeout_ms, struct err *e)
{
    int rc = wait_until(s, &s->stream_known, timeout_ms, e);
    if (rc == 0)
        *stream = s->stream;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int ingest_sync_wait_measured(struct ingest_sync *s, struct ingest_measured *measured, int timeout_ms, struct err *e)
{
    int rc = wait_until(s, &s->measured_known, timeout_ms, e);
    if (rc == 0)
        *measured = s->measured;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int ingest_sync_wait_evaluation(struct ingest_sync *s, int timeout_ms, struct err *e)
{
    int rc = wait_until(s, &s->evaluation_ready, timeout_ms, e);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void ingest_sync_counters(struct ingest_sync *s, struct ingest_counters *counters)
{
    pthread_mutex_lock(&s->lock);
    *counters = s->counters;
    pthread_mutex_unlock(&s->lock);
}

void ingest_sync_snapshot(struct ingest_sync *s, struct ingest_snapshot *snapshot, int wake_fd, int timeout_ms)
{
    struct timespec until = clock_after(timeout_ms);
    int timed_out = 0;
    pthread_mutex_lock(&s->lock);
    s->orders.snapshot_wanted = true;
    wake(wake_fd);
    while (s->orders.snapshot_wanted && !s->stopped && !timed_out)
        timed_out = pthread_cond_timedwait(&s->changed, &s->lock, &until) == ETIMEDOUT;
    *snapshot = s->snapshot;
    pthread_mutex_unlock(&s->lock);
}

void ingest_sync_start(struct ingest_sync *s)
{
    pthread_mutex_lock(&s->lock);
    s->orders.started = true;
    pthread_mutex_unlock(&s->lock);
}

void ingest_sync_end(struct ingest_sync *s, bool ok, const char *reason)
{
    pthread_mutex_lock(&s->lock);
    s->orders.ending = true;
    s->orders.end.ok = ok;
    text_escape(s->orders.end.reason, sizeof s->orders.end.reason, reason); /* it goes into a message */
    pthread_mutex_unlock(&s->lock);
}
