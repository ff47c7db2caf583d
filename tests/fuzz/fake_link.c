/* fake_link.c - the functions of link.h, over those of the target; see fake_link.h. */
#include "fake_link.h"

#include "fuzz.h"

struct link {
    bool router;
};

static bool disconnected; /* the DEALER that is open */

static int open_link(struct link **l, bool router)
{
    *l = calloc(1, sizeof **l);
    MUST(*l);
    (*l)->router = router;
    disconnected = false;
    fake_opened(true);
    return 0;
}

int link_new_router(struct link **l, const struct curve_pair *keys, struct err *e)
{
    (void)keys, (void)e;
    return open_link(l, true);
}

int link_connect(struct link **l, const char *endpoint, const struct curve_client *keys, struct err *e)
{
    (void)endpoint, (void)keys, (void)e;
    return open_link(l, false);
}

const char *link_trouble(const struct link *l)
{
    MUST(l && !l->router);
    return NULL;
}

bool link_lost(const struct link *l)
{
    MUST(l && !l->router);
    return disconnected;
}

uint64_t link_held(const struct link *l)
{
    MUST(l && !l->router);
    return 0;
}

void fake_disconnect(void)
{
    disconnected = true;
}

void link_close(struct link *l, int linger_ms)
{
    (void)linger_ms;
    if (l)
        fake_opened(false);
    free(l);
}

static int send_message(const struct link *l, const struct link_peer *peer, const struct message *m,
                        const unsigned char *data, size_t n_data, struct err *e)
{
    static _Thread_local unsigned char frame[MESSAGE_MAX_BYTES];
    static _Thread_local struct message back;
    size_t size;
    MUST(l && (peer != NULL) == l->router);
    MUST(message_encode(m, frame, &size, e) == 0);
    MUST(message_decode(&back, frame, size, e) == 0 && back.type == m->type);
    int rc = fake_sent(peer, &back, data, n_data);
    return rc < 0 ? err_set(e, ERR_PEER, "peer is gone") : rc;
}

int link_send(struct link *l, const struct link_peer *peer, const struct message *m, struct err *e)
{
    return send_message(l, peer, m, NULL, 0, e);
}

int link_send_payload(struct link *l, const struct message *m, const void *data, size_t size,
                      void (*release)(void *context), void *context, struct err *e)
{
    int rc = send_message(l, NULL, m, data, size, e);
    release(context);
    return rc;
}

int link_receive(struct link *l, struct link_peer *peer, struct message *m, struct link_payload *payload, struct err *e)
{
    MUST(l);
    *peer = (struct link_peer){0};
    *payload = (struct link_payload){0};
    return fake_receive(peer, m, payload, e);
}

void link_payload_release(struct link_payload *p)
{
    free(p->frame);
    *p = (struct link_payload){0};
}

void link_poll(struct link *l, int fd, int timeout_ms)
{
    (void)timeout_ms;
    MUST(l);
    fake_poll(fd);
}

int fake_link_decode(struct message *m, const uint8_t *data, size_t size, struct err *e)
{
    uint8_t *exact = malloc(size ? size : 1);
    MUST(exact);
    memcpy(exact, data, size);
    int rc = message_decode(m, exact, size, e);
    free(exact);
    return rc;
}

unsigned char *fake_link_payload(struct link_payload *p, size_t size)
{
    unsigned char *frame = calloc(1, size ? size : 1);
    MUST(frame);
    *p = (struct link_payload){frame, size, frame};
    return frame;
}
