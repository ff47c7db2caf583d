/* ingest_rows.c - checks the chunks that come back and puts their rows where they belong; see ingest_rows.h.
 *
 * A bad chunk costs a producer the lease, and three of them its place. */
#include "ingest_rows.h"

#include "admission.h"
#include "ingest_leases.h"
#include "ingest_peers.h"
#include "log.h"

#define MAX_FAULTS 3 /* bad chunks of one producer before it is dropped */

void ingest_announce_scale(struct ingest *in)
{
    in->n_scale = in->stream.n_sites;
    handover_scale(&in->handover, in->scale, in->n_scale);
    ingest_add_tasks(in, in->intake.c.plan->eval_blocks, in->intake.c.plan->n_eval, FOR_EVALUATION);
}

static void complete_task(struct ingest *in, struct lease_task *t, struct err *e)
{
    enum intake_event event;
    int result = intake_complete(&in->intake, t, in->scale, &event, e);
    leases_done(&in->leases, t);
    in->counters.blocks_done++;
    if (result) {
        ingest_fail(in, e);
    } else if (event == INTAKE_EVALUATION) {
        handover_evaluation(&in->handover);
    } else if (event == INTAKE_SCALE) {
        ingest_announce_scale(in);
        for (int i = 0; i < PEERS_MAX; i++)
            if (in->peers.peers[i].here)
                ingest_send_welcome(in, &in->peers.peers[i]);
    }
}

void ingest_take_batch(struct ingest *in, int index, const struct link_payload *payload, struct err *e)
{
    const struct message_batch *b = &in->message.batch;
    struct peer *p = &in->peers.peers[index];
    struct lease_task *t = leases_find(&in->leases, b->lease, index);
    if (!t) {
        in->counters.duplicates_dropped += b->rows;
        return;
    }
    struct chunk_place place = {.block = t->block,
                                .first_sequence = plan_block_first(in->intake.c.plan, t->block),
                                .n_rows = t->n_rows,
                                .rows_taken = t->rows_taken,
                                .chunks_taken = t->chunks_taken,
                                .dtype = intake_dtype(&in->intake, t->purpose)};
    if (admit_chunk(&in->stream, &place, b, payload->data, payload->size, e)) {
        in->counters.bad_chunks++;
        leases_give_back(&in->leases, t);
        log_line("producer %s: %s; block leased again", p->name, e->message);
        if (++p->faults >= MAX_FAULTS) {
            link_send_text(in->link, &p->address, MESSAGE_REJECT, e->message);
            ingest_lose(in, index, "sent too many bad chunks, dropped");
        }
        return;
    }
    intake_store(&in->intake, t, b, payload->data);
    p->rows += b->rows;
    in->counters.rows_received += b->rows;
    if (t->rows_taken == t->n_rows) {
        p->blocks++;
        complete_task(in, t, e);
    }
}
