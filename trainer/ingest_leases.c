/* ingest_leases.c - which block goes to which producer, and what becomes of it when that cannot do it; see
 * ingest_leases.h. */
#include "ingest_leases.h"

#include <string.h>

#include "clock.h"
#include "ingest_peers.h"
#include "log.h"

#define FIRST_CREDIT 2    /* leases: one computed, the next one under way */
#define MUCH_WAITING 0.1f /* shares of a producer's time */
#define LITTLE_WAITING 0.02f
#define MAX_FAILURES 3 /* of one block, by whatever producers, before the run fails */

void ingest_add_tasks(struct ingest *in, const uint32_t *blocks, uint32_t n, enum lease_purpose purpose)
{
    size_t row = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct lease_task *t = leases_add(&in->leases); /* ingest_start checked that they fit */
        t->block = blocks[i];
        t->purpose = purpose;
        t->n_rows = plan_block_rows(in->intake.c.plan, blocks[i]);
        t->first_row = row;
        row += t->n_rows;
    }
}

/* The next block to lease to this producer; reserves a window block only now that somebody can compute it. */
static struct lease_task *next_task(struct ingest *in, int holder)
{
    struct lease_task *t = leases_waiting(&in->leases, holder);
    struct shuffle_ticket ticket;
    if (t || in->n_scale == 0 || in->leases.n == LEASES_MAX || !shuffle_reserve(in->intake.c.shuffle, &ticket))
        return t;
    t = leases_add(&in->leases);
    t->block = ticket.block;
    t->purpose = FOR_WINDOW;
    t->n_rows = ticket.n_rows;
    t->ticket = ticket;
    return t;
}

/* A producer that has all the leases it may hold and yet waits, does so for the way: more of them must be under way.
 * One that never waits needs no more than two, and what is queued there could be done elsewhere. */
void ingest_adjust_credit(struct ingest *in, int index)
{
    struct peer *p = &in->peers.peers[index];
    float waiting = 1 - p->computing - p->sending;
    bool counts = p->computing > 0 || p->sending > 0; /* else it did nothing at all, or does not say */
    if (counts && waiting > MUCH_WAITING && leases_held(&in->leases, index) >= p->credit)
        p->credit = p->credit < in->options.credit / 2 ? 2 * p->credit : in->options.credit;
    else if (waiting < LITTLE_WAITING && p->credit > FIRST_CREDIT)
        p->credit--;
}

void ingest_first_credit(struct ingest *in, int index)
{
    in->peers.peers[index].credit = in->options.credit < FIRST_CREDIT ? in->options.credit : FIRST_CREDIT;
}

void ingest_lease_blocks(struct ingest *in)
{
    struct peers *peers = &in->peers;
    size_t idle = 0; /* producers passed in a row that could take nothing */
    while (peers->n && idle < PEERS_MAX) {
        size_t i = peers->next;
        peers->next = (i + 1) % PEERS_MAX;
        struct peer *p = &peers->peers[i];
        if (!p->here || leases_held(&in->leases, (int)i) >= p->credit) {
            idle++;
            continue;
        }
        struct lease_task *t = next_task(in, (int)i);
        if (!t) {
            idle++;
            continue;
        }
        leases_grant(&in->leases, t, (int)i);
        struct message *m = &in->message;
        m->type = MESSAGE_LEASE;
        m->lease = (struct message_lease){.lease = t->lease,
                                          .block = t->block,
                                          .first = plan_block_first(in->intake.c.plan, t->block),
                                          .count = plan_block_seqs(in->intake.c.plan, t->block),
                                          .scaled = t->purpose != FOR_SCALE};
        if (link_send(in->link, &p->address, m, NULL)) {
            ingest_lose(in, (int)i, "is gone");
            continue;
        }
        in->counters.blocks_leased++;
        idle = 0;
    }
}

/* The producer is not asked for this block again; others may have it. */
static void take_refusal(struct ingest *in, int index, struct lease_task *t, const char *text)
{
    struct peer *p = &in->peers.peers[index];
    if (p->absent++ == 0)
        log_line("producer %s: block %u: %s; it is asked for others", p->name, t->block, text);
    leases_refuse(&in->leases, t);
}

void ingest_check_refusals(struct ingest *in, struct err *e)
{
    uint64_t here[PEERS_MAX / 64];
    size_t n = 0;
    int64_t now = clock_ms();
    peers_here(&in->peers, here);
    const struct lease_task *t = in->peers.n ? leases_nobodys(&in->leases, here, &n) : NULL;
    if (!t) {
        in->nobodys_since_ms = 0;
        return;
    }
    uint32_t first = plan_block_first(in->intake.c.plan, t->block),
             last = first + plan_block_seqs(in->intake.c.plan, t->block) - 1;
    if (!in->nobodys_since_ms) {
        in->nobodys_since_ms = now;
        log_line("none of the %zu producers has sequences %u to %u; waiting %u s for one that has", in->peers.n, first,
                 last, in->options.timeout_ms / 1000);
    }
    if (now - in->nobodys_since_ms < (int64_t)in->options.timeout_ms)
        return;
    err_set(e, ERR_ABSENT,
            "none of the %zu producers has sequences %u to %u (block %u), recorded nowhere, and %zu more blocks",
            in->peers.n, first, last, t->block, n - 1);
    ingest_fail(in, e);
}

void ingest_take_error(struct ingest *in, int index, struct err *e)
{
    const struct message_error *m = &in->message.error;
    struct lease_task *t = leases_find(&in->leases, m->lease, index);
    if (!t) {
        log_line("producer %s: %s: %s", in->peers.peers[index].name, m->code, m->text);
        return;
    }
    if (strcmp(m->code, "not-recorded") == 0) {
        take_refusal(in, index, t, m->text);
        return;
    }
    in->peers.peers[index].failures++;
    log_line("producer %s: block %u: %s: %s; block leased again", in->peers.peers[index].name, t->block, m->code,
             m->text);
    if (in->peers.n > 1) /* others are asked, so that one broken producer does not end the run */
        leases_refuse(&in->leases, t);
    else
        leases_give_back(&in->leases, t);
    if (++t->failures < MAX_FAILURES)
        return;
    err_set(e, ERR_PEER, "block %u (sequences %u to %u) failed %u times, last: producer %s: %s", t->block,
            plan_block_first(in->intake.c.plan, t->block),
            plan_block_first(in->intake.c.plan, t->block) + plan_block_seqs(in->intake.c.plan, t->block) - 1,
            t->failures, in->peers.peers[index].name, m->text);
    ingest_fail(in, e);
}
