/* ingest_leases.c - which block goes to which producer; see ingest_leases.h. */
#include "ingest_leases.h"

#include <math.h>
#include <string.h>

#include "audit.h"
#include "clock.h"
#include "ingest_drop.h"

/* A block is late when another producer could compute it LATE_FACTOR times before it comes, and LATE_MIN_MS (jitter) besides. */
#define LATE_FACTOR 1.5
#define LATE_MIN_MS 200

void ingest_add_tasks(struct ingest *in, const uint32_t *blocks, uint32_t n, enum lease_purpose purpose)
{
    size_t row = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct lease_task *t = leases_add(&in->leases); /* ingest_start checked that they fit */
        t->block = blocks[i];
        t->purpose = purpose;
        t->n_rows = plan_block_rows(in->row_store.c.plan, blocks[i]);
        t->first_row = row;
        row += t->n_rows;
    }
}

/* Adds a block that is not in the table yet; NULL if there is none. Its slots are reserved only now that somebody can compute it. */
static struct lease_task *reserve_task(struct ingest *in)
{
    const struct row_store_config *c = &in->row_store.c;
    struct shuffle_ticket ticket;
    if (in->scale.n == 0 || in->row_store.scale_blocks_left || in->leases.n == LEASES_MAX ||
        !shuffle_reserve(c->shuffle, &ticket))
        return NULL;
    struct lease_task *t = leases_add(&in->leases);
    t->block = ticket.block;
    t->purpose = FOR_WINDOW;
    t->n_rows = ticket.n_rows;
    t->ticket = ticket;
    t->audit = audit_chosen(c->plan->seed, in->options.audit, ticket.g, ticket.block);
    return t;
}

/* Returns whether a second producer may answer a window's block beside the first: the run will wait for it, and there is room to keep its
 * rows apart. */
static bool may_be_copied(const struct ingest *in, const struct lease_task *t, int under_way)
{
    struct shuffle *shuffle = in->row_store.c.shuffle;
    return (under_way == 1 || t->copy != SHUFFLE_NO_COPY || shuffle_copy_room(shuffle)) &&
           shuffle_urgent(shuffle, &t->ticket);
}

/* Returns a block that another producer holds and that the run will wait for, if this producer, which has nothing else to do, would be done
 * with it well before; else NULL. A window's block is answered by both, and their rows are kept apart. Raw and held-out rows have one place
 * only, so such a block is taken away from the other, each time after twice the patience: two who misjudge each other could otherwise go on
 * with that for ever. */
static struct lease_task *late_task(struct ingest *in, int index, double fastest, int64_t now, int *answer)
{
    struct leases *l = &in->leases;
    double row_ms = speed_row_ms(&in->producers.list[index].speed, now);
    if (row_ms <= 0)
        row_ms = fastest;
    if (row_ms <= 0 || l->n_owed == LEASES_MAX || leases_held(l, index) > 0)
        return NULL;
    struct lease_task *first = NULL;
    for (size_t i = 0; i < l->n; i++) {
        struct lease_task *t = &l->tasks[i];
        int under_way = t->answers[0].lease ? 0 : 1, holder = t->answers[under_way].holder;
        if (t->audit || (first && t->order > first->order) || leases_refused(t, index) ||
            !t->answers[under_way].lease || t->answers[1 - under_way].lease || holder == index ||
            (t->purpose == FOR_WINDOW && !may_be_copied(in, t, under_way)))
            continue;
        size_t rows = leases_rows_until(l, holder, t->answers[under_way].lease);
        double remaining = speed_remaining_ms(&in->producers.list[holder].speed, rows, row_ms, now);
        if (remaining < ldexp(LATE_MIN_MS + LATE_FACTOR * row_ms * (double)t->n_rows, (int)t->taken_away))
            continue;
        first = t;
        *answer = 1 - under_way;
    }
    if (first && in->producers.list[first->answers[1 - *answer].holder].blocks == 0)
        probation_failed(&in->probation, in->options.timeout_ms, now);
    if (first && first->purpose != FOR_WINDOW) {
        leases_take_away(l, first, 1 - *answer);
        *answer = 0;
    }
    return first;
}

/* Returns the time that a row takes the fastest producer; 0 if it is not known of any. */
static double fastest_row_ms(const struct producers *producers)
{
    double fastest = 0;
    for (int i = 0; i < PRODUCERS_MAX; i++) {
        double row_ms = producers->list[i].here ? producers->list[i].speed.row_ms : 0;
        if (row_ms > 0 && (fastest <= 0 || row_ms < fastest))
            fastest = row_ms;
    }
    return fastest;
}

/* Returns the block that this producer shall compute next, and which of the block's answers that will be; NULL if there is nothing now. */
static struct lease_task *next_task(struct ingest *in, int index, double fastest, int64_t now, int *answer)
{
    struct shuffle *shuffle = in->row_store.c.shuffle;
    struct lease_task *t =
        leases_waiting(&in->leases, index, &in->producers.holders, shuffle_copy_room(shuffle), answer);
    if (!t && (t = reserve_task(in)) != NULL)
        *answer = 0;
    if (!t && (t = late_task(in, index, fastest, now, answer)) != NULL)
        in->counters.blocks_duplicated++;
    if (t && *answer == 1 && t->copy == SHUFFLE_NO_COPY)
        shuffle_copy_reserve(shuffle, &t->copy); /* there is room: leases_waiting and late_task have looked */
    return t;
}

/* Returns how many bytes of a producer may wait to be read: its answers, and the rest of those that a bad chunk has ended. */
static uint64_t bytes_to_come(const struct ingest *in, int index)
{
    const struct producer *p = &in->producers.list[index];
    return listener_answer_bytes(&in->stream, in->scale.n ? in->options.dtype : ROW_F32,
                                 in->row_store.c.plan->max_block_rows,
                                 leases_held(&in->leases, index) + (p->faults ? STRIKES_OUT : 0));
}

/* Returns the bytes of the largest block's rows and origins. */
static size_t block_bytes_of(const struct ingest *in)
{
    const struct row_store_config *c = &in->row_store.c;
    return c->plan->max_block_rows * (stream_row_bytes(c->stream, c->dtype) + sizeof(struct row_origin));
}

void ingest_lease_blocks(struct ingest *in)
{
    struct producers *producers = &in->producers;
    int64_t now = clock_ms();
    double fastest = fastest_row_ms(producers);
    size_t idle = 0; /* places in a row that could take no lease */
    size_t block_bytes = block_bytes_of(in), leased = 0;
    for (int i = 0; i < PRODUCERS_MAX; i++)
        leased += producers->list[i].here ? leases_held(&in->leases, i) : 0;
    size_t most_leased = credit_bytes(block_bytes, in->options.credit) / block_bytes;
    size_t unproven = credit_unproven(producers, &in->leases, &in->probation, now);
    while (producers->n && idle < PRODUCERS_MAX) {
        int i = (int)producers->next, answer;
        producers->next = (producers->next + 1) % PRODUCERS_MAX;
        struct producer *p = &producers->list[i];
        struct lease_task *t = NULL;
        size_t held = leases_held(&in->leases, i);
        if (held < credit_now(p, fastest, unproven, now) && (held < INGEST_FIRST_CREDIT || leased < most_leased))
            t = next_task(in, i, fastest, now, &answer);
        if (!t) {
            idle++;
            continue;
        }
        unproven -= p->blocks == 0;
        leased++;
        leases_grant(&in->leases, t, answer, i, producers->holders.whose[i]);
        speed_leased(&p->speed, t->n_rows, now);
        listener_vouch(in->listener, &p->address, bytes_to_come(in, i));
        struct message *m = &in->message;
        m->type = MESSAGE_LEASE;
        m->lease = (struct message_lease){.lease = t->answers[answer].lease,
                                          .block = t->block,
                                          .first = plan_block_first(in->row_store.c.plan, t->block),
                                          .count = plan_block_seqs(in->row_store.c.plan, t->block),
                                          .scaled = t->purpose != FOR_SCALE || in->row_store.c.scaled};
        if (link_send(in->link, &p->address, m, NULL)) {
            ingest_lose(in, i, "is gone");
            continue;
        }
        in->counters.blocks_leased++;
        idle = 0;
    }
}
