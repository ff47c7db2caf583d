/* ingest_producers.c - HELLO, WELCOME, PING and END, and producers that fall silent; see ingest_producers.h. */
#include "ingest_producers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "ingest_drop.h"
#include "validate.h"

#define MAX_REST 100000 /* chunks of a block that are put up with after a bad one */
#define AWAY_MS \
    1000 /* a turn of the thread that takes this long means that the trainer was away; it should take a tenth of that */

int ingest_send_welcome(struct ingest *in, const struct producer *p)
{
    struct message *m = &in->message;
    m->type = MESSAGE_WELCOME;
    m->welcome = (struct message_welcome){.dtype = in->options.dtype,
                                          .has_scale = in->scale.n > 0,
                                          .n_scale = in->scale.n,
                                          .block_seqs = in->options.block_seqs,
                                          .credit = in->options.credit,
                                          .heartbeat_ms = in->options.heartbeat_ms,
                                          .timeout_ms = in->options.timeout_ms};
    if (m->welcome.block_seqs > in->stream.n_seq)
        m->welcome.block_seqs = in->stream.n_seq;
    memcpy(m->welcome.run, in->run_id, sizeof m->welcome.run);
    memcpy(m->welcome.scale, in->scale.values, sizeof m->welcome.scale);
    return link_send(in->link, &p->address, m, NULL);
}

int ingest_send_end(struct ingest *in, const struct link_peer *to)
{
    struct message *m = &in->message;
    m->type = MESSAGE_END;
    m->end = in->orders.end;
    return link_send(in->link, to, m, NULL);
}

/* Makes the first producer's stream the run's, and its scale too, if it has one and none is given. */
static void fix_stream(struct ingest *in, const struct stream *stream)
{
    float scale[STREAM_MAX_SITES];
    in->stream = *stream;
    in->stream_fixed = true;
    if (in->scale.n == 0 && stream->has_scale)
        scale_list_set(&in->scale, stream->scale, stream->n_sites);
    else if (in->scale.n &&
             scale_list_match(&in->scale, stream, scale, NULL) == 0) /* it does: validate_hello has seen */
        scale_list_set(&in->scale, scale, stream->n_sites);
    ingest_sync_stream(&in->sync, stream);
}

/* Returns the new producer's index; -1 if there is no place. Without keys anybody can say a HELLO that fits, and so take a place: those who
 * have not answered a block yet give way to the next. */
static int add_producer(struct ingest *in, const struct link_peer *from, const char *name, const char *known_as)
{
    int unproven;
    if (in->producers.n == PRODUCERS_MAX && (unproven = producers_unproven(&in->producers)) >= 0)
        ingest_lose(in, unproven, "has answered no block yet and makes room for another");
    return producers_add(&in->producers, from, name, known_as, clock_ms());
}

/* Returns how many messages a producer may send that answer no lease: PINGs and PONGs, twice as many as there should be, also when it or we
 * were away and they have queued up; and what is left of leases that a bad chunk has ended. */
static struct allowance uncalled(const struct ingest *in)
{
    const struct ingest_options *o = &in->options;
    size_t chunks = stream_chunk_count(&in->stream, ROW_F32, stream_block_rows(&in->stream, o->block_seqs));
    unsigned rest = chunks < MAX_REST ? (unsigned)chunks : MAX_REST;
    return (struct allowance){.burst = 1000 + 4 * (o->timeout_ms / o->heartbeat_ms) + STRIKES_OUT * rest,
                              .per_s = 50 + 4000 / o->heartbeat_ms};
}

/* Returns what a HELLO is judged by: as the run is now, or as it would be if the trainer started anew. */
static struct validate_terms terms(const struct ingest *in, bool anew)
{
    bool scale_known = anew ? in->options.scale != NULL : in->scale.n > 0;
    bool fixed = in->stream_fixed && !anew;
    return (struct validate_terms){.ours = in->stream_expected || fixed ? &in->stream : NULL,
                                   .need_bf16 = in->options.dtype == ROW_BF16,
                                   .need_f32 = in->options.dtype == ROW_F32 || !scale_known,
                                   .stream_fixed = fixed,
                                   .scale = scale_known ? &in->scale : NULL};
}

/* Returns whether the sender of the HELLO in in->message may join; if not, e says why, and *for_now whether the same HELLO may be welcome
 * later, or by this trainer started anew. */
static int judge_hello(const struct ingest *in, const char *known_as, bool *for_now, struct err *e)
{
    const struct message_hello *h = &in->message.hello;
    const struct validate_terms now = terms(in, false), anew = terms(in, true);
    int64_t out_ms = strikes_out(&in->strikes, known_as, clock_ms());
    *for_now = out_ms && out_ms != STRIKES_FOR_EVER;
    if (out_ms && !*for_now)
        return err_set(e, ERR_PEER, "%s was wrong too often and is not asked again in this run", known_as);
    if (out_ms)
        return err_set(e, ERR_PEER, "%s was wrong too often and is not asked for %" PRId64 " s (--ban-minutes)",
                       known_as, out_ms / 1000 + 1);
    if (validate_hello(&now, h, e) == 0)
        return 0;
    struct err then;
    *for_now = validate_hello(&anew, h, &then) == 0;
    return e->code;
}

void ingest_take_hello(struct ingest *in, const struct link_peer *from, struct err *e)
{
    struct message_hello *h = &in->message.hello;
    char name[MESSAGE_NAME_SIZE];
    const char *known_as = link_identity(from);
    memcpy(name, h->producer, sizeof name);
    int index = producers_find(&in->producers, from);
    struct allowance before = {0};
    if (index >= 0) {
        before = in->producers.list[index].uncalled;
        ingest_drop(in, index, "says HELLO again");
    }
    index = -1;
    bool for_now;
    if (judge_hello(in, known_as, &for_now, e) == 0) {
        index = add_producer(in, from, name, known_as);
        for_now = true;
        if (index < 0)
            err_set(e, ERR_PEER, "run has %d producers already", PRODUCERS_MAX);
        else
            credit_begin(&in->producers.list[index], in->options.credit);
    }
    if (index < 0) {
        in->counters.rejected++;
        char who[MESSAGE_NAME_SIZE + 32];
        snprintf(who, sizeof who, "producer %s rejected", name);
        listener_refuse(in->listener, from, who, e->message, for_now);
        return;
    }
    listener_vouch(in->listener, from, listener_answer_bytes(&h->stream, in->options.dtype, 0, 0));
    if (!in->stream_fixed)
        fix_stream(in, &h->stream);
    in->producers.list[index].uncalled = before.burst ? before : uncalled(in);
    if (ingest_send_welcome(in, &in->producers.list[index])) { /* the connection is gone by now */
        producers_remove(&in->producers, index);
        return;
    }
    char where[LISTENER_DESCRIPTION_SIZE];
    listener_describe(in->listener, from, where);
    in->counters.producers_seen++;
    log_limited(&in->comings, "producer %s joins (%s)", name, where);
}

void ingest_take_ping(struct ingest *in, int index)
{
    struct producer *p = &in->producers.list[index];
    p->reports = true;
    p->computing = in->message.ping.computing;
    p->sending = in->message.ping.sending;
    credit_adjust(p, leases_held(&in->leases, index), in->options.credit);
}

void ingest_ping(struct ingest *in)
{
    int64_t now = clock_ms();
    if (now - in->last_ping_ms < (int64_t)in->options.heartbeat_ms)
        return;
    in->last_ping_ms = now;
    struct message *m = &in->message;
    m->type = MESSAGE_PING;
    m->ping = (struct message_ping){.token = (uint64_t)now};
    for (int i = 0; i < PRODUCERS_MAX; i++)
        if (in->producers.list[i].here && link_send(in->link, &in->producers.list[i].address, m, NULL))
            ingest_lose(in, i, "is gone");
}

void ingest_drop_silent(struct ingest *in)
{
    int64_t now = clock_ms(), away = now - in->last_listened_ms;
    in->last_listened_ms = now;
    if (away > AWAY_MS)
        producers_forgive(&in->producers, away);
    for (int i = 0; i < PRODUCERS_MAX; i++) {
        const struct producer *p = &in->producers.list[i];
        if (p->here && now - p->last_heard_ms > (int64_t)in->options.timeout_ms)
            ingest_lose(in, i, "fell silent, dropped");
    }
}
