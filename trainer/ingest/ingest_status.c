/* ingest_status.c - see ingest_status.h. */
#include "ingest_status.h"

#include <stdio.h>

#include "clock.h"
#include "status.h"

void ingest_take_ping(struct ingest *in, int index)
{
    struct producer *p = &in->producers.list[index];
    p->reports = true;
    p->computing = in->message.ping.computing;
    p->sending = in->message.ping.sending;
}

static struct status_producer describe(const struct ingest *in, int index, int64_t now_ms)
{
    const struct producer *p = &in->producers.list[index];
    struct status_producer s = {.number = p->number,
                                .here_s = 1e-3 * (double)(now_ms - p->joined_ms),
                                .rows = p->rows,
                                .blocks_done = p->blocks,
                                .errors = p->faults + p->failures,
                                .leases = (uint32_t)leases_held(&in->leases, index),
                                .reports = p->reports,
                                .computing = p->computing,
                                .sending = p->sending};
    snprintf(s.name, sizeof s.name, "%s", p->name);
    snprintf(s.address, sizeof s.address, "%s", p->address.host);
    snprintf(s.key, sizeof s.key, "%s", p->address.key);
    return s;
}

void ingest_status(struct ingest *in, bool last)
{
    if (!in->options.status || (!last && !status_due(in->options.status)))
        return;
    static struct status_ingest report; /* 80 KB, of the one ingest there is */
    int64_t now = clock_ms();
    report.counters = in->counters;
    report.n_producers = 0;
    for (int i = 0; i < PRODUCERS_MAX; i++)
        if (in->producers.list[i].here)
            report.producers[report.n_producers++] = describe(in, i, now);
    if (in->started) {
        struct shuffle_state window;
        shuffle_state(in->row_store.c.shuffle, &window);
        report.window_rows = window.rows_held;
        report.window_slots = window.slots;
        report.rows_masked = window.rows_masked;
    }
    status_ingest(in->options.status, &report);
}
