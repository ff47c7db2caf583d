/* zap.c - see zap.h. The frames of a request are version, request id, domain, address, identity, mechanism, credentials; those of a reply
 * are version, request id, status code, status text, user id, metadata. */
#include "zap.h"

#include <string.h>

#include <zmq.h>

static bool more_follows(void *socket)
{
    int more = 0;
    size_t size = sizeof more;
    return zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size) == 0 && more;
}

/* Takes the next frame as a string; "" if there is no frame, or it does not fit. */
static void take_text(void *socket, char *text, size_t size)
{
    text[0] = '\0';
    if (!more_follows(socket))
        return;
    int got = zmq_recv(socket, text, size, ZMQ_DONTWAIT);
    text[got >= 0 && (size_t)got < size ? got : 0] = '\0';
}

int zap_receive(void *socket, struct zap_request *r)
{
    char identity[256];
    unsigned char key[32];
    *r = (struct zap_request){0};
    int got = zmq_recv(socket, r->version, sizeof r->version, ZMQ_DONTWAIT);
    if (got < 0)
        return 0;
    r->version[(size_t)got < sizeof r->version ? got : 0] = '\0';
    if (more_follows(socket) && (got = zmq_recv(socket, r->id, sizeof r->id, ZMQ_DONTWAIT)) > 0)
        r->id_size = (size_t)got < sizeof r->id ? (size_t)got : 0;
    take_text(socket, r->domain, sizeof r->domain);
    take_text(socket, r->address, sizeof r->address);
    take_text(socket, identity, sizeof identity);
    take_text(socket, r->mechanism, sizeof r->mechanism);
    if (more_follows(socket) && zmq_recv(socket, key, sizeof key, ZMQ_DONTWAIT) == sizeof key)
        zmq_z85_encode(r->key, key, sizeof key);
    while (more_follows(socket))
        take_text(socket, identity, sizeof identity);
    return 1;
}

const char *zap_refusal(const struct zap_request *r, const struct allow_list *allowed)
{
    if (strcmp(r->version, "1.0") != 0 || strcmp(r->domain, ZAP_DOMAIN) != 0)
        return "not a request of ours";
    if (strcmp(r->mechanism, "CURVE") != 0 || !*r->key)
        return "no key";
    return allow_list_refusal(allowed, r->key);
}

void zap_reply(void *socket, const struct zap_request *r, const char *refusal)
{
    const char *frames[] = {"1.0", r->id, refusal ? "400" : "200", refusal ? refusal : "OK", refusal ? "" : r->key, ""};
    for (size_t i = 0; i < 6; i++)
        zmq_send(socket, frames[i], i == 1 ? r->id_size : strlen(frames[i]), ZMQ_DONTWAIT | (i < 5 ? ZMQ_SNDMORE : 0));
}
