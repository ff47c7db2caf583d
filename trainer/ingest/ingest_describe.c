/* ingest_describe.c - see ingest_describe.h. */
#include "ingest_describe.h"

#include <stdio.h>

#include "clock.h"

static void describe_producer(const struct ingest *in, int index, int64_t now_ms, struct ingest_producer *out)
{
    const struct producer *p = &in->producers.list[index];
    *out = (struct ingest_producer){.number = p->number,
                                    .here_s = 1e-3 * (double)(now_ms - p->joined_ms),
                                    .rows = p->rows,
                                    .blocks_done = p->blocks,
                                    .errors = p->faults + p->failures,
                                    .leases = (uint32_t)leases_held(&in->leases, index),
                                    .reports = p->reports,
                                    .computing = p->computing,
                                    .sending = p->sending};
    snprintf(out->name, sizeof out->name, "%s", p->name);
    snprintf(out->address, sizeof out->address, "%s", p->address.host);
    snprintf(out->key, sizeof out->key, "%s", p->address.key);
}

void ingest_describe(struct ingest *in, bool last)
{
    struct ingest_snapshot *s = &in->snapshot;
    int64_t now = clock_ms();
    s->counters = in->counters;
    s->n_producers = 0;
    for (int i = 0; i < PRODUCERS_MAX; i++)
        if (in->producers.list[i].here)
            describe_producer(in, i, now, &s->producers[s->n_producers++]);
    if (in->orders.started) {
        struct shuffle_state window;
        shuffle_state(in->row_store.c.shuffle, &window);
        s->window_rows = window.rows_held;
        s->window_slots = window.slots;
        s->rows_masked = window.rows_masked;
    }
    ingest_sync_publish(&in->sync, s, last);
}
