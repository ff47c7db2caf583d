/* waiting.c - see waiting.h. */
#include "waiting.h"

#include <inttypes.h>
#include <stdio.h>

#include "clock.h"
#include "ingest.h"
#include "metrics.h"

void waiting_begins(struct waiting *w)
{
    metrics_wait_begins(w->metrics);
    w->alone_since = 0;
}

int waiting_goes_on(struct waiting *w, uint64_t step, const char *what, struct err *e)
{
    struct ingest_counters c;
    char alone[512];
    if (*w->stop)
        return 1;
    ingest_counters(w->ingest, &c);
    if (c.producers) {
        w->alone_since = 0;
    } else {
        int64_t now = clock_ms();
        if (!w->alone_since)
            w->alone_since = now;
        if (w->timeout_s && now - w->alone_since >= 1000 * (int64_t)w->timeout_s)
            return err_set(e, ERR_PEER, "no producer at %s for %" PRIu64 " s (--wait-timeout)",
                           ingest_endpoint(w->ingest, 0), w->timeout_s);
        snprintf(alone, sizeof alone, "a producer at %s, none here for %" PRId64 " s", ingest_endpoint(w->ingest, 0),
                 (now - w->alone_since) / 1000);
        what = alone;
    }
    metrics_waiting(w->metrics, step, what);
    return 0;
}

int waiting_ends(struct waiting *w, int result)
{
    metrics_wait_ends(w->metrics);
    w->failed = result < 0;
    return result;
}
