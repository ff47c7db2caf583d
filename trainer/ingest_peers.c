/* ingest_peers.c - HELLO, WELCOME, REJECT, END, and producers that leave, fall silent or break the rules; see
 * ingest_peers.h.
 *
 * A producer is told REJECT and forgotten for what can only be wrong again. */
#include "ingest_peers.h"

#include <string.h>

#include "admission.h"
#include "clock.h"
#include "log.h"

void ingest_send_welcome(struct ingest *in, const struct peer *p)
{
    struct message *m = &in->message;
    m->type = MESSAGE_WELCOME;
    m->welcome = (struct message_welcome){.dtype = in->run.intake.dtype,
                                          .has_scale = in->has_scale,
                                          .n_scale = in->stream.n_sites,
                                          .block_seqs = in->run.intake.plan->block_seqs,
                                          .credit = in->options.credit,
                                          .heartbeat_ms = in->options.heartbeat_ms,
                                          .timeout_ms = in->options.timeout_ms};
    memcpy(m->welcome.run, in->run_id, sizeof m->welcome.run);
    memcpy(m->welcome.scale, in->scale, sizeof m->welcome.scale);
    link_send(in->link, &p->address, m, NULL);
}

void ingest_send_end(struct ingest *in, const struct link_peer *to)
{
    struct message *m = &in->message;
    m->type = MESSAGE_END;
    m->end = in->end;
    link_send(in->link, to, m, NULL);
}

void ingest_drop(struct ingest *in, int index, const char *why)
{
    struct peer *p = &in->peers.peers[index];
    size_t n = leases_forget(&in->leases, index);
    if (n)
        log_line("producer %s %s; %zu blocks leased again", p->name, why, n);
    else
        log_line("producer %s %s", p->name, why);
    peers_remove(&in->peers, index);
}

int ingest_take_hello(struct ingest *in, const struct link_peer *from, struct err *e)
{
    struct message_hello *h = &in->message.hello;
    char name[MESSAGE_NAME_SIZE];
    memcpy(name, h->producer, sizeof name);
    int index = peers_find(&in->peers, from);
    if (index >= 0)
        ingest_drop(in, index, "says HELLO again");
    index = -1;
    struct admission terms = {.ours = in->stream_known ? &in->stream : in->wanted.expected,
                              .need_bf16 = in->wanted.want_bf16,
                              .need_f32 = in->wanted.want_f32,
                              .stream_fixed = in->stream_known,
                              .scale = in->has_scale ? in->scale : in->wanted.scale,
                              .n_scale = in->has_scale ? in->stream.n_sites : in->wanted.n_scale};
    if (admit_producer(&terms, h, e) == 0) {
        index = peers_add(&in->peers, from, name, clock_ms());
        if (index < 0)
            err_set(e, ERR_PEER, "run has %d producers already", PEERS_MAX);
    }
    if (index < 0) {
        in->counters.rejected++;
        log_line("producer %s rejected: %s", name, e->message);
        link_send_text(in->link, from, MESSAGE_REJECT, e->message);
    }
    return index;
}

void ingest_refuse(struct ingest *in, const struct link_peer *from, const struct err *e)
{
    int index = peers_find(&in->peers, from);
    log_line("producer %s: %s", index >= 0 ? in->peers.peers[index].name : "unknown", e->message);
    in->counters.bad_chunks++;
    if (index >= 0) {
        in->counters.producers_lost++;
        ingest_drop(in, index, "broke the protocol, dropped");
    }
    if (from->size)
        link_send_text(in->link, from, MESSAGE_REJECT, e->message);
}

void ingest_welcome(struct ingest *in, int index)
{
    in->counters.producers_seen++;
    log_line("producer %s joins", in->peers.peers[index].name);
    ingest_send_welcome(in, &in->peers.peers[index]);
}

void ingest_drop_silent(struct ingest *in)
{
    int64_t now = clock_ms();
    for (int i = 0; i < PEERS_MAX; i++) {
        const struct peer *p = &in->peers.peers[i];
        if (p->here && now - p->last_heard_ms > (int64_t)in->options.timeout_ms) {
            in->counters.producers_lost++;
            ingest_drop(in, i, "fell silent, dropped");
        }
    }
}
