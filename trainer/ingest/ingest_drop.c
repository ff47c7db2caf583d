/* ingest_drop.c - see ingest_drop.h. */
#include "ingest_drop.h"

#include <stdio.h>

#include "clock.h"

#define WHO_SIZE (MESSAGE_NAME_SIZE + 32)

void ingest_drop(struct ingest *in, int index, const char *why)
{
    struct producer *p = &in->producers.list[index];
    size_t n = leases_forget(&in->leases, index);
    if (n && !p->blocks)
        probation_failed(&in->probation, in->options.timeout_ms, clock_ms());
    if (n)
        log_limited(&in->comings, "producer %s %s; %zu blocks leased again", p->name, why, n);
    else
        log_limited(&in->comings, "producer %s %s", p->name, why);
    listener_vouch(in->listener, &p->address, 0);
    producers_remove(&in->producers, index);
    if (in->producers.n == 0 && !in->orders.ending)
        log_limited(&in->comings, "no producer is left; waiting for one at %s", listener_endpoint(in->listener, 0));
}

void ingest_lose(struct ingest *in, int index, const char *why)
{
    in->counters.producers_lost++;
    ingest_drop(in, index, why);
}

/* Writes who that is, for the log; returns the producer's index, or -1. */
static int name_peer(const struct ingest *in, const struct link_peer *from, char who[WHO_SIZE])
{
    int index = producers_find(&in->producers, from);
    snprintf(who, WHO_SIZE, "producer %s", index >= 0 ? in->producers.list[index].name : "unknown");
    return index;
}

void ingest_put_out(struct ingest *in, const struct link_peer *from, const char *reason, const char *why)
{
    char who[WHO_SIZE];
    int index = name_peer(in, from, who);
    listener_refuse(in->listener, from, who, reason, false);
    if (index >= 0)
        ingest_lose(in, index, why);
}

void ingest_refuse(struct ingest *in, const struct link_peer *from, const struct err *e)
{
    in->counters.bad_chunks++;
    ingest_put_out(in, from, e->message, "broke the protocol, dropped");
}

void ingest_start_anew(struct ingest *in, const struct link_peer *from, const struct err *e)
{
    char who[WHO_SIZE];
    int index = name_peer(in, from, who);
    in->counters.bad_chunks++;
    listener_complain(in->listener, from, who, e->message);
    link_send_error(in->link, from, 0, "unknown-peer", e->message);
    if (index >= 0)
        ingest_lose(in, index, "shall join again");
}
