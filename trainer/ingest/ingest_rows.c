/* ingest_rows.c - checks the chunks that come back and puts their rows where they belong; see ingest_rows.h.
 *
 * A bad chunk costs a producer the lease, and three of them without a good block in between cost it its place. */
#include "ingest_rows.h"

#include <stdio.h>
#include <string.h>

#include "audit.h"
#include "clock.h"
#include "ingest_drop.h"
#include "ingest_failures.h"
#include "ingest_leases.h"
#include "ingest_producers.h"
#include "log.h"
#include "validate.h"

#define WHO_SIZE (MESSAGE_NAME_SIZE + LINK_IDENTITY_SIZE + 4)

void ingest_announce_measured(struct ingest *in)
{
    struct ingest_measured m = {
        .rows = in->row_store.kept, .n_rows = in->row_store.kept_rows, .norms = in->row_store.norms};
    in->scale.n = in->stream.n_sites;
    memcpy(m.scale, in->scale.values, sizeof m.scale);
    ingest_sync_measured(&in->sync, &m);
    ingest_add_tasks(in, in->row_store.c.plan->eval_blocks, in->row_store.c.plan->n_eval, FOR_EVALUATION);
}

/* Ends a task whose rows are all there, and does what follows from it. */
static void complete_task(struct ingest *in, struct lease_task *t, struct err *e)
{
    enum row_store_event event;
    int rc = row_store_complete(&in->row_store, t, in->scale.values, &event, e);
    leases_done(&in->leases, t);
    in->counters.blocks_done++;
    if (rc) {
        ingest_fail(in, e);
    } else if (event == ROW_STORE_EVALUATION) {
        if (in->row_store.evaluation_rows == 0)
            log_line("all held-out rows are masked: nothing will be evaluated");
        ingest_sync_evaluation(&in->sync);
    } else if (event == ROW_STORE_MEASURED) {
        bool known = in->scale.n > 0;
        ingest_announce_measured(in);
        for (int i = 0; i < PRODUCERS_MAX && !known; i++)
            if (in->producers.list[i].here)
                ingest_send_welcome(in, &in->producers.list[i]);
    }
}

/* Writes who the holder is: "gpu7 (10.0.0.7)". */
static void say_who(const struct ingest *in, int holder, char who[WHO_SIZE])
{
    const struct producer *p = holder < 0 ? NULL : &in->producers.list[holder];
    snprintf(who, WHO_SIZE, "%s (%s)", p ? p->name : "", p ? p->known_as : "gone");
}

/* Compares the two answers of an audited block. Returns ERR_MISMATCH if they are further apart than rounding explains. */
static int compare_answers(struct ingest *in, const struct lease_task *t, struct err *e)
{
    const struct row_store_config *c = &in->row_store.c;
    struct audit a = {0};
    for (size_t row = 0; row < t->n_rows; row++) {
        struct row_origin x_origin, y_origin;
        const unsigned char *x = shuffle_row(c->shuffle, &t->ticket, SHUFFLE_NO_COPY, row, &x_origin),
                            *y = shuffle_row(c->shuffle, &t->ticket, t->copy, row, &y_origin);
        audit_row(&a, c->stream, c->dtype, x, &x_origin, y, &y_origin);
    }
    in->counters.audits++;
    if (a.relative <= 0)
        return 0;
    char how[400];
    char one[WHO_SIZE], other[WHO_SIZE];
    say_who(in, t->answers[0].holder, one);
    say_who(in, t->answers[1].holder, other);
    audit_describe(&a, c->stream, how, sizeof how);
    bool rounding = a.relative <= in->options.audit_tolerance;
    if (in->counters.audits_different++ == 0 || !rounding)
        log_line("audit: the answers of producers %s and %s to block %u %s%s", one, other, t->block, how,
                 rounding ? "; that is rounding (--audit-tolerance)" : "");
    if (rounding)
        return 0;
    return err_set(e, ERR_MISMATCH,
                   "audit: producers %s and %s disagree on block %u by %.3g %% at site %s, --audit-tolerance is %g %%: "
                   "one of them computes something else",
                   one, other, t->block, 100 * a.relative, c->stream->sites[a.site], 100 * in->options.audit_tolerance);
}

/* Ends an answer whose rows are all there; the block is done unless it is audited and the other answer is not there yet. */
static void complete_answer(struct ingest *in, struct lease_task *t, int answer, struct err *e)
{
    if (t->audit) {
        if (!t->answers[1 - answer].complete)
            return;
        if (compare_answers(in, t, e)) {
            ingest_fail(in, e);
            return;
        }
    }
    if (t->copy != SHUFFLE_NO_COPY)
        shuffle_copy_end(in->row_store.c.shuffle, &t->ticket, t->copy, !t->audit && answer == 1);
    complete_task(in, t, e);
}

/* Drops a chunk of a lease that is void or owed: somebody else has answered for the block, or was given it. */
static void drop_chunk(struct ingest *in, int index, const struct message_batch *b)
{
    struct producer *p = &in->producers.list[index];
    in->counters.duplicates_dropped += b->rows;
    if (b->chunk + 1 == b->chunks && leases_settle(&in->leases, b->lease, index))
        speed_answered(&p->speed, p->speed.rows, leases_held(&in->leases, index) > 0, clock_ms());
}

/* Ends the lease, and after too many bad chunks in a row the producer's stay; and the run if a block's rows themselves are bad, whoever
 * computes them. */
static void take_bad_chunk(struct ingest *in, int index, struct lease_task *t, int answer, struct err *e)
{
    struct producer *p = &in->producers.list[index];
    in->counters.bad_chunks++;
    p->faults++;
    speed_answered(&p->speed, 0, leases_held(&in->leases, index) > 1, clock_ms());
    const struct err bad = *e;
    log_limited(&in->faults, "producer %s: %s; block leased again", p->name, bad.message);
    if (bad.code == ERR_INPUT) {
        ingest_fail_block(in, index, t, answer, bad.message, true);
        ingest_check_refusals(in, e); /* before it is out, and no longer one of those who have tried */
    } else {
        leases_give_back(&in->leases, t, answer);
    }
    /* others at its address may be right meanwhile: then it alone goes, else whoever comes from there is out for a while */
    bool out = ++p->strikes >= STRIKES_OUT;
    if (strikes_add(&in->strikes, p->known_as, clock_ms()) || out)
        ingest_put_out(in, &p->address, bad.message, "sent too many bad chunks, dropped");
}

void ingest_take_batch(struct ingest *in, int index, const struct link_payload *payload, struct err *e)
{
    const struct message_batch *b = &in->message.batch;
    struct producer *p = &in->producers.list[index];
    int answer;
    struct lease_task *t = leases_find(&in->leases, b->lease, index, &answer);
    if (!t) {
        drop_chunk(in, index, b);
        return;
    }
    const struct lease_answer *a = &t->answers[answer];
    struct chunk_place place = {.block = t->block,
                                .first_sequence = plan_block_first(in->row_store.c.plan, t->block),
                                .n_rows = t->n_rows,
                                .rows_taken = a->rows_taken,
                                .chunks_taken = a->chunks_taken,
                                .dtype = row_store_dtype(&in->row_store, t->purpose),
                                .max_abs = in->options.max_abs};
    if (validate_chunk(&in->stream, &place, b, payload->data, payload->size, e)) {
        take_bad_chunk(in, index, t, answer, e);
        return;
    }
    row_store_store(&in->row_store, t, answer, b, payload->data);
    p->rows += b->rows;
    in->counters.rows_received += b->rows;
    if (a->rows_taken < t->n_rows)
        return;
    if (p->blocks++ == 0)
        probation_passed(&in->probation);
    p->strikes = 0;
    strikes_clear(&in->strikes, p->known_as);
    leases_complete(t, answer);
    speed_answered(&p->speed, t->n_rows, leases_held(&in->leases, index) > 0, clock_ms());
    complete_answer(in, t, answer, e);
}
