/* fake_listener.c - the functions of listener.h over fake_link.c; see fake_link.h. Nobody is turned away. */
#include "fake_link.h"
#include "fuzz.h"
#include "listener.h"

struct listener {
    struct link *link;
};

int listener_open(struct listener **l, const char *const *endpoints, size_t n, const struct listener_access *access,
                  struct err *e)
{
    (void)endpoints, (void)n, (void)access;
    *l = calloc(1, sizeof **l);
    MUST(*l);
    return link_new_router(&(*l)->link, NULL, e);
}

void listener_close(struct listener *l, int linger_ms)
{
    if (l)
        link_close(l->link, linger_ms);
    free(l);
}

const char *listener_endpoint(const struct listener *l, size_t i)
{
    (void)l, (void)i;
    return "nowhere";
}

struct link *listener_link(struct listener *l)
{
    return l->link;
}

int listener_receive(struct listener *l, struct link_peer *peer, struct message *m, struct link_payload *payload,
                     struct err *e)
{
    return link_receive(l->link, peer, m, payload, e);
}

void listener_vouch(struct listener *l, const struct link_peer *peer, uint64_t bytes)
{
    (void)peer, (void)bytes;
    MUST(l);
}

uint64_t listener_answer_bytes(const struct stream *s, enum row_dtype dtype, size_t rows, size_t leases)
{
    return rows * stream_row_bytes(s, dtype) * leases;
}

void listener_complain(struct listener *l, const struct link_peer *peer, const char *who, const char *why)
{
    (void)peer, (void)why;
    MUST(l && who);
}

void listener_refuse(struct listener *l, const struct link_peer *peer, const char *who, const char *why, bool for_now)
{
    MUST(l && who);
    if (peer->size && for_now)
        link_send_error(l->link, peer, 0, "not-now", why);
    else if (peer->size)
        link_send_text(l->link, peer, MESSAGE_REJECT, why);
}

void listener_refusals(const struct listener *l, uint64_t counts[REFUSAL_KINDS])
{
    MUST(l);
    memset(counts, 0, REFUSAL_KINDS * sizeof *counts);
}

void listener_describe(const struct listener *l, const struct link_peer *peer, char text[LISTENER_DESCRIPTION_SIZE])
{
    (void)peer;
    MUST(l);
    strcpy(text, "somewhere");
}
