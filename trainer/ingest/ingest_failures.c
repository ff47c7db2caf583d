/* ingest_failures.c - see ingest_failures.h. */
#include "ingest_failures.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

#define FIRST_PAUSE_MS 1000 /* before a block that all have failed is asked for again; then twice as long each time, */
#define LONGEST_PAUSE_MS 60000
#define FINAL_RETRIES \
    1u /* at once, of a block whose rows were sent and cannot be taken: before their sender is out for that */

static uint32_t first_sequence(const struct ingest *in, const struct lease_task *t)
{
    return plan_block_first(in->row_store.c.plan, t->block);
}

static uint32_t last_sequence(const struct ingest *in, const struct lease_task *t)
{
    return first_sequence(in, t) + plan_block_seqs(in->row_store.c.plan, t->block) - 1;
}

/* Asks the producer for this block no more; others may have it. */
static void take_refusal(struct ingest *in, int index, struct lease_task *t, int answer, const char *text)
{
    struct producer *p = &in->producers.list[index];
    if (p->absent++ == 0)
        log_limited(&in->faults, "producer %s: block %u: %s; it is asked for others", p->name, t->block, text);
    leases_refuse(&in->leases, t, answer, false);
}

void ingest_fail_block(struct ingest *in, int index, struct lease_task *t, int answer, const char *why, bool final)
{
    snprintf(in->last_failure, sizeof in->last_failure, "producer %s: %s", in->producers.list[index].name, why);
    t->final |= final;
    leases_refuse(&in->leases, t, answer, true);
}

void ingest_take_error(struct ingest *in, int index)
{
    const struct message_error *m = &in->message.error;
    int answer;
    int64_t now = clock_ms();
    struct producer *p = &in->producers.list[index];
    struct lease_task *t = leases_find(&in->leases, m->lease, index, &answer);
    bool owed = !t && leases_settle(&in->leases, m->lease, index);
    if (t || owed)
        speed_answered(&p->speed, 0, leases_held(&in->leases, index) > (t ? 1 : 0), now);
    if (!t) {
        log_limited(&in->faults, "producer %s: %s: %s", p->name, m->code, m->text);
        return;
    }
    if (strcmp(m->code, "not-recorded") == 0) {
        take_refusal(in, index, t, answer, m->text);
        return;
    }
    p->failures++;
    if (p->blocks == 0)
        probation_failed(&in->probation, in->options.timeout_ms, now);
    log_limited(&in->faults, "producer %s: block %u: %s: %s; block leased again", p->name, t->block, m->code, m->text);
    ingest_fail_block(in, index, t, answer, m->text, false);
}

/* A block that all who are here have failed: begins a pause, or ends it, or fails the run. */
static void look_at_failed(struct ingest *in, struct lease_task *t, int64_t now, struct err *e)
{
    if (t->retry_ms && now >= t->retry_ms) {
        leases_retry(t);
    } else if (!t->retry_ms && t->retries >= (t->final ? FINAL_RETRIES : in->options.source_retries)) {
        err_set(e, ERR_PEER, "block %u (sequences %u to %u) failed %u times by all %zu producers here, last: %s",
                t->block, first_sequence(in, t), last_sequence(in, t), t->retries + 1, in->producers.n,
                in->last_failure);
        ingest_fail(in, e);
    } else if (!t->retry_ms && t->final) {
        t->retries++;
        leases_retry(t);
    } else if (!t->retry_ms) {
        int64_t pause = (int64_t)FIRST_PAUSE_MS << (t->retries < 6 ? t->retries : 6);
        pause = pause < LONGEST_PAUSE_MS ? pause : LONGEST_PAUSE_MS;
        t->retries++;
        t->retry_ms = now + pause;
        log_limited(&in->faults,
                    "block %u: all %zu producers here have failed it; asked for again in %" PRId64
                    " s, %u of %u times (--source-retries)",
                    t->block, in->producers.n, pause / 1000, t->retries, in->options.source_retries);
    }
}

/* Blocks that nobody here has, of which t is the first of n. */
static void look_at_absent(struct ingest *in, const struct lease_task *t, size_t n, int64_t now, struct err *e)
{
    if (!in->nobodys_since_ms) {
        in->nobodys_since_ms = now;
        log_limited(&in->faults, "none of the %zu producers has sequences %u to %u; waiting %u s for one that has",
                    in->producers.n, first_sequence(in, t), last_sequence(in, t), in->options.timeout_ms / 1000);
    }
    if (now - in->nobodys_since_ms < (int64_t)in->options.timeout_ms)
        return;
    err_set(e, ERR_ABSENT,
            "none of the %zu producers has sequences %u to %u (block %u), recorded nowhere, and %zu more blocks",
            in->producers.n, first_sequence(in, t), last_sequence(in, t), t->block, n - 1);
    ingest_fail(in, e);
}

void ingest_check_refusals(struct ingest *in, struct err *e)
{
    const uint64_t *here = in->producers.holders.here;
    struct leases *l = &in->leases;
    const struct lease_task *absent = NULL;
    size_t n_absent = 0;
    int64_t now = clock_ms();
    for (size_t i = 0; in->producers.n && i < l->n; i++) {
        struct lease_task *t = &l->tasks[i];
        if (!leases_nobodys(t, here))
            continue;
        if (leases_failed(t, here)) {
            look_at_failed(in, t, now, e);
            continue;
        }
        n_absent++;
        if (!absent || t->order < absent->order)
            absent = t;
    }
    if (absent)
        look_at_absent(in, absent, n_absent, now, e);
    else
        in->nobodys_since_ms = 0;
}
