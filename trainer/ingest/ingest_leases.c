/* ingest_leases.c - which block goes to which producer, and what becomes of it when that cannot do it; see ingest_leases.h. */
#include "ingest_leases.h"

#include <math.h>
#include <string.h>

#include "audit.h"
#include "clock.h"
#include "ingest_drop.h"
#include "log.h"

#define MAX_FAILURES 3 /* times that producers could not compute a block, after which the run fails */
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
    uint64_t here[PRODUCERS_MAX / 64];
    producers_here(&in->producers, here);
    struct lease_task *t = leases_waiting(&in->leases, index, here, shuffle_copy_room(shuffle), answer);
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
        leases_grant(&in->leases, t, answer, i);
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

/* Asks the producer for this block no more; others may have it. */
static void take_refusal(struct ingest *in, int index, struct lease_task *t, int answer, const char *text)
{
    struct producer *p = &in->producers.list[index];
    if (p->absent++ == 0)
        log_line("producer %s: block %u: %s; it is asked for others", p->name, t->block, text);
    leases_refuse(&in->leases, t, answer);
}

void ingest_check_refusals(struct ingest *in, struct err *e)
{
    uint64_t here[PRODUCERS_MAX / 64];
    size_t n = 0;
    int64_t now = clock_ms();
    producers_here(&in->producers, here);
    const struct lease_task *t = in->producers.n ? leases_nobodys(&in->leases, here, &n) : NULL;
    if (!t) {
        in->nobodys_since_ms = 0;
        return;
    }
    uint32_t first = plan_block_first(in->row_store.c.plan, t->block),
             last = first + plan_block_seqs(in->row_store.c.plan, t->block) - 1;
    if (!in->nobodys_since_ms) {
        in->nobodys_since_ms = now;
        log_line("none of the %zu producers has sequences %u to %u; waiting %u s for one that has", in->producers.n,
                 first, last, in->options.timeout_ms / 1000);
    }
    if (now - in->nobodys_since_ms < (int64_t)in->options.timeout_ms)
        return;
    err_set(e, ERR_ABSENT,
            "none of the %zu producers has sequences %u to %u (block %u), recorded nowhere, and %zu more blocks",
            in->producers.n, first, last, t->block, n - 1);
    ingest_fail(in, e);
}

/* Returns whether a producer other than this one is here and has not refused the block. */
static bool another_may_try(const struct ingest *in, const struct lease_task *t, int index)
{
    for (int i = 0; i < PRODUCERS_MAX; i++)
        if (i != index && in->producers.list[i].here && !leases_refused(t, i))
            return true;
    return false;
}

void ingest_take_error(struct ingest *in, int index, struct err *e)
{
    const struct message_error *m = &in->message.error;
    int answer;
    struct producer *p = &in->producers.list[index];
    struct lease_task *t = leases_find(&in->leases, m->lease, index, &answer);
    bool owed = !t && leases_settle(&in->leases, m->lease, index);
    if (t || owed)
        speed_answered(&p->speed, 0, leases_held(&in->leases, index) > (t ? 1 : 0), clock_ms());
    if (!t) {
        log_line("producer %s: %s: %s", p->name, m->code, m->text);
        return;
    }
    if (strcmp(m->code, "not-recorded") == 0) {
        take_refusal(in, index, t, answer, m->text);
        return;
    }
    p->failures++;
    log_line("producer %s: block %u: %s: %s; block leased again", p->name, t->block, m->code, m->text);
    ingest_fail_block(in, index, t, answer, m->text, e);
}

void ingest_fail_block(struct ingest *in, int index, struct lease_task *t, int answer, const char *why, struct err *e)
{
    if (another_may_try(in, t, index)) /* so that one broken producer does not end the run */
        leases_refuse(&in->leases, t, answer);
    else
        leases_give_back(&in->leases, t, answer);
    if (++t->failures < MAX_FAILURES)
        return;
    err_set(e, ERR_PEER, "block %u (sequences %u to %u) failed %u times, last: producer %s: %s", t->block,
            plan_block_first(in->row_store.c.plan, t->block),
            plan_block_first(in->row_store.c.plan, t->block) + plan_block_seqs(in->row_store.c.plan, t->block) - 1,
            t->failures, in->producers.list[index].name, why);
    ingest_fail(in, e);
}
