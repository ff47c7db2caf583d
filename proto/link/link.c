/* link.c - ZeroMQ sockets with the options that measurements ask for; see link.h.
 *
 * Both high-water marks are off (0): leases bound what can be in flight, and the trainer's guard closes a connection that sends more.
 * (With a receive mark, a peer that fills its queue, sends a ZMTP PING and resets the connection ends the process: an assertion of
 * libzmq 4.3.4, out_event's `!_io_error`.) ZMTP heartbeats are off, because they drop links that back-pressure; PING and PONG are
 * messages of our own. Routing ids are ZeroMQ's, a new one for each connection. With ROUTER_MANDATORY and DONTWAIT, a send to a peer
 * that is gone fails instead of vanishing or hanging. */
#include "link.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <zmq.h>

#include "endpoint.h"
#include "host_address.h"
#include "mem.h"
#include "monitor.h"
#include "seal.h"
#include "socket_bytes.h"

#define HANDSHAKE_MS 5000
#define BACKLOG 1024 /* connections that wait to be accepted: a producer shall not be lost among strangers */
#define RECONNECT_MS 100
#define RECONNECT_MAX_MS 2000

struct link {
    void *context, *socket;
    bool router, curve;
    void *monitor;       /* of a DEALER */
    const char *trouble; /* of a DEALER: why it has no connection */
    bool shook, lost;    /* of a DEALER: it had a connection; and has lost it */
    int fd;              /* of a DEALER: its connection's descriptor; -1: it has none */
    uint64_t given;      /* of a DEALER: bytes on the wire of the messages that came over that */
    size_t received;     /* bytes on the wire of the message that is being received, or was received last */
    unsigned char encoded[MESSAGE_MAX_BYTES + SEAL_BYTES];
};

static int zmq_error(struct err *e, const char *what)
{
    return err_set(e, errno == ENOMEM ? ERR_MEMORY : ERR_SYSTEM, "%s: %s", what, zmq_strerror(errno));
}

/* ---- opening and closing ---- */

static int set_option(struct link *l, int option, int value, struct err *e)
{
    return zmq_setsockopt(l->socket, option, &value, sizeof value) == 0 ? 0 : zmq_error(e, "socket option");
}

static int set_key(struct link *l, int option, const char *key, struct err *e)
{
    l->curve = true;
    return zmq_setsockopt(l->socket, option, key, CURVE_KEY_SIZE) == 0 ? 0 : zmq_error(e, "CURVE key");
}

static int set_options(struct link *l, struct err *e)
{
    static const struct {
        int option, value;
    } both[] = {{ZMQ_SNDHWM, 0}, {ZMQ_RCVHWM, 0}, {ZMQ_LINGER, 0}, {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS}, {ZMQ_IPV6, 1}},
      router[] = {{ZMQ_BACKLOG, BACKLOG}, {ZMQ_ROUTER_MANDATORY, 1}},
      dealer[] = {{ZMQ_RECONNECT_IVL, RECONNECT_MS}, {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS}};
    int64_t max_size = (int64_t)(CHUNK_MAX_BYTES > MESSAGE_MAX_BYTES ? CHUNK_MAX_BYTES : MESSAGE_MAX_BYTES);
    int rc =
        zmq_setsockopt(l->socket, ZMQ_MAXMSGSIZE, &max_size, sizeof max_size) == 0 ? 0 : zmq_error(e, "frame size");
    for (size_t i = 0; rc == 0 && i < sizeof both / sizeof both[0]; i++)
        rc = set_option(l, both[i].option, both[i].value, e);
    for (size_t i = 0; rc == 0 && i < 2; i++)
        rc = l->router ? set_option(l, router[i].option, router[i].value, e)
                       : set_option(l, dealer[i].option, dealer[i].value, e);
    return rc;
}

/* Makes a link with its context and its socket, which has the options of its kind. */
static int link_open(struct link **out, int type, struct err *e)
{
    *out = NULL;
    struct link *l = mem_alloc(1, sizeof *l, "link", e);
    if (!l)
        return ERR_MEMORY;
    l->router = type == ZMQ_ROUTER;
    l->fd = -1;
    l->context = zmq_ctx_new();
    l->socket = l->context ? zmq_socket(l->context, type) : NULL;
    int rc = l->socket ? set_options(l, e) : zmq_error(e, "cannot make a socket");
    if (rc) {
        link_close(l, 0);
        return rc;
    }
    *out = l;
    return 0;
}

/* Opens the monitor, by which a DEALER learns what becomes of its connection. */
static int watch_connection(struct link *l, struct err *e)
{
    static const char endpoint[] = "inproc://monitor";
    if (zmq_socket_monitor(l->socket, endpoint, ZMQ_EVENT_ALL) != 0 ||
        !(l->monitor = zmq_socket(l->context, ZMQ_PAIR)) || zmq_connect(l->monitor, endpoint) != 0)
        return zmq_error(e, "cannot watch the connection");
    return 0;
}

static int set_client_keys(struct link *l, const struct curve_client *keys, struct err *e)
{
    int rc = set_key(l, ZMQ_CURVE_SERVERKEY, keys->server, e);
    if (rc == 0)
        rc = set_key(l, ZMQ_CURVE_PUBLICKEY, keys->own.public_key, e);
    return rc ? rc : set_key(l, ZMQ_CURVE_SECRETKEY, keys->own.secret_key, e);
}

/* Returns what is wrong with an endpoint's host, NULL if it is known: ZeroMQ asks for a name again and again, and does not say that there is
 * none. */
static const char *trouble_of_name(const struct endpoint *p, const char *text)
{
    struct host_address a;
    return !p->ipc && host_address_find(&a, p, ENDPOINT_CONNECT, text, NULL) ? "the host name does not resolve" : NULL;
}

int link_connect(struct link **out, const char *endpoint, const struct curve_client *keys, struct err *e)
{
    struct link *l;
    struct endpoint p;
    *out = NULL;
    int rc = endpoint_parse(&p, endpoint, ENDPOINT_CONNECT, e);
    if (rc || (rc = link_open(&l, ZMQ_DEALER, e)))
        return rc;
    l->trouble = trouble_of_name(&p, endpoint);
    rc = watch_connection(l, e);
    if (rc == 0 && keys)
        rc = set_client_keys(l, keys, e);
    if (rc == 0 && zmq_connect(l->socket, endpoint) != 0)
        rc = err_set(e, ERR_SYSTEM, "%s: cannot connect: %s", endpoint, zmq_strerror(errno));
    if (rc) {
        link_close(l, 0);
        return rc;
    }
    *out = l;
    return 0;
}

int link_new_router(struct link **out, const struct curve_pair *keys, struct err *e)
{
    struct link *l;
    int rc = link_open(&l, ZMQ_ROUTER, e);
    *out = NULL;
    if (rc)
        return rc;
    if (keys &&
        ((rc = set_key(l, ZMQ_CURVE_SECRETKEY, keys->secret_key, e)) || (rc = set_option(l, ZMQ_CURVE_SERVER, 1, e)))) {
        link_close(l, 0);
        return rc;
    }
    *out = l;
    return 0;
}

void link_close(struct link *l, int linger_ms)
{
    if (!l)
        return;
    if (l->socket) {
        zmq_socket_monitor(l->socket, NULL, 0); /* an event that comes while the context ends would be leaked */
        zmq_setsockopt(l->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_close(l->socket);
    }
    if (l->monitor)
        zmq_close(l->monitor);
    if (l->context)
        while (zmq_ctx_term(l->context) != 0 && errno == EINTR)
            ;
    mem_free(l);
}

void *link_context(const struct link *l)
{
    return l->context;
}

void *link_socket(const struct link *l)
{
    return l->socket;
}

/* ---- a DEALER's connection ---- */

/* Returns what an event of the monitor says about the connection, for a user; NULL if all is well. Whether ZeroMQ tells "mechanism
 * mismatch" or only that the connection was closed depends on who is faster. */
static const char *explain(const struct link *l, unsigned event, uint32_t value)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        return NULL;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        return "the trainer does not allow this producer's key";
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        if (value != ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
            return "what answers there does not speak the protocol";
        /* fall through */
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return l->curve ? "the handshake fails: the trainer has another key than --curve-server says, or none, or "
                          "something else answers there"
                        : "the handshake fails: the trainer wants CURVE keys (--curve-secret, --curve-server), or "
                          "something else answers there";
    case ZMQ_EVENT_DISCONNECTED:
        return l->trouble ? l->trouble : "the connection was lost";
    case ZMQ_EVENT_CONNECT_RETRIED:
        return l->trouble ? l->trouble : "nobody answers there";
    default:
        return l->trouble;
    }
}

static void take_events(struct link *l)
{
    unsigned event;
    uint32_t value;
    while (monitor_next(l->monitor, &event, &value)) {
        l->trouble = explain(l, event, value);
        l->shook |= event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
        l->lost |= l->shook && event == ZMQ_EVENT_DISCONNECTED;
        if (event == ZMQ_EVENT_CONNECTED || event == ZMQ_EVENT_DISCONNECTED) {
            l->fd = event == ZMQ_EVENT_CONNECTED ? (int)value : -1;
            l->given = 0;
        }
    }
}

const char *link_trouble(const struct link *l)
{
    return l->trouble;
}

bool link_lost(const struct link *l)
{
    return l->lost;
}

uint64_t link_held(const struct link *l)
{
    return socket_bytes_held(l->fd, l->given);
}

void link_poll(struct link *l, int fd, int timeout_ms)
{
    zmq_pollitem_t items[] = {{.socket = l->socket, .events = ZMQ_POLLIN},
                              {.fd = fd, .events = ZMQ_POLLIN},
                              {.socket = l->monitor, .fd = -1, .events = ZMQ_POLLIN}};
    zmq_poll(items, 3, timeout_ms); /* it passes over an item that has neither a socket nor a descriptor */
    if (l->monitor)
        take_events(l);
}

/* ---- sending ---- */

static int send_failed(struct err *e, const struct message *m)
{
    return err_set(e, ERR_PEER, "cannot send %s: %s", message_type_name(m->type), zmq_strerror(errno));
}

/* Sends the routing frame (of a ROUTER) and the encoded message. more: a payload frame follows. */
static int send_header(struct link *l, const struct link_peer *peer, const struct message *m, bool more, struct err *e)
{
    size_t size;
    int rc = message_encode(m, l->encoded, &size, e);
    if (rc)
        return rc;
    size = seal_add(l->encoded, size);
    assert(peer || !l->router);
    if (l->router && zmq_send(l->socket, peer->id, peer->size, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return send_failed(e, m);
    if (zmq_send(l->socket, l->encoded, size, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0)
        return send_failed(e, m);
    return 0;
}

int link_send(struct link *l, const struct link_peer *peer, const struct message *m, struct err *e)
{
    return send_header(l, peer, m, false, e);
}

struct release {
    void (*call)(void *context);
    void *context;
};

static void release_payload(void *data, void *hint)
{
    (void)data;
    struct release *r = hint;
    r->call(r->context);
    mem_free(r);
}

int link_send_payload(struct link *l, const struct message *m, const void *data, size_t size,
                      void (*release)(void *context), void *context, struct err *e)
{
    struct release *r = mem_alloc(1, sizeof *r, "payload", e);
    zmq_msg_t payload;
    if (!r) {
        release(context);
        return ERR_MEMORY;
    }
    *r = (struct release){release, context};
    if (zmq_msg_init_data(&payload, (void *)(uintptr_t)data, size, release_payload, r) != 0) {
        mem_free(r);
        release(context);
        return err_set(e, ERR_MEMORY, "payload of %zu bytes: out of memory", size);
    }
    int rc = send_header(l, NULL, m, true, e);
    if (rc == 0 && zmq_msg_send(&payload, l->socket, ZMQ_DONTWAIT) < 0)
        rc = send_failed(e, m);
    if (rc)
        zmq_msg_close(&payload);
    return rc;
}

/* ---- receiving ---- */

/* Adds what a frame is on the wire, with ZMTP's header and with what CURVE adds. */
static void count_frame(struct link *l, size_t size)
{
    size += l->curve ? 33 : 0;
    l->received += size + (size > 255 ? 9 : 2);
}

size_t link_received_bytes(const struct link *l)
{
    return l->received;
}

static bool more_follows(struct link *l)
{
    int more = 0;
    size_t size = sizeof more;
    return zmq_getsockopt(l->socket, ZMQ_RCVMORE, &more, &size) == 0 && more;
}

/* Throws away the rest of a message of several frames; returns how many frames that were. */
static size_t drain(struct link *l)
{
    size_t n = 0;
    zmq_msg_t frame;
    while (more_follows(l)) {
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, l->socket, ZMQ_DONTWAIT) >= 0) {
            n++;
            count_frame(l, zmq_msg_size(&frame));
        }
        zmq_msg_close(&frame);
    }
    return n;
}

/* Receives the frame after the header: a BATCH has exactly one, other messages have none. */
static int receive_payload(struct link *l, const struct message *m, struct link_payload *payload, struct err *e)
{
    if (!more_follows(l))
        return m->type == MESSAGE_BATCH ? err_set(e, ERR_PEER, "BATCH without a payload frame") : 0;
    if (m->type != MESSAGE_BATCH)
        return err_set(e, ERR_PEER, "%s with %zu more frames, has none", message_type_name(m->type), drain(l));
    zmq_msg_t *frame = mem_alloc(1, sizeof *frame, "payload", e);
    if (!frame)
        return drain(l), ERR_MEMORY;
    zmq_msg_init(frame);
    if (zmq_msg_recv(frame, l->socket, ZMQ_DONTWAIT) < 0) {
        int rc = zmq_error(e, "payload");
        zmq_msg_close(frame);
        mem_free(frame);
        return rc;
    }
    *payload = (struct link_payload){zmq_msg_data(frame), zmq_msg_size(frame), frame};
    count_frame(l, payload->size);
    if (more_follows(l)) {
        link_payload_release(payload);
        return err_set(e, ERR_PEER, "BATCH with %zu frames after its payload", drain(l));
    }
    return 0;
}

/* Writes the address that the frame came from; IPv4 as users write it, not mapped into IPv6. Of a Unix socket ZeroMQ knows the process, as
 * "localhost:UID:GID:PID". */
static void peer_host(zmq_msg_t *frame, char *host, size_t size)
{
    static const char mapped[] = "::ffff:", local[] = "localhost:";
    const char *address = zmq_msg_gets(frame, "Peer-Address");
    if (address && strncmp(address, local, sizeof local - 1) == 0) {
        snprintf(host, size, "process %s", strrchr(address, ':') + 1);
        return;
    }
    if (address && strncmp(address, mapped, sizeof mapped - 1) == 0 && strchr(address, '.'))
        address += sizeof mapped - 1;
    snprintf(host, size, "%s", address ? address : "");
}

/* Receives the routing frame of a ROUTER's message and then its header frame into `frame`. What ZeroMQ knows of the sender (its key
 * and descriptor) is kept with every frame but the first. */
static int receive_sender(struct link *l, struct link_peer *peer, zmq_msg_t *frame, struct err *e)
{
    size_t size = zmq_msg_size(frame);
    if (size > sizeof peer->id || !more_follows(l)) {
        drain(l); /* the peer chose an id of its own, longer than ZeroMQ's: it is none of ours */
        return err_set(e, ERR_PEER, "peer with a routing id of %zu bytes, at most %zu", size, sizeof peer->id);
    }
    memcpy(peer->id, zmq_msg_data(frame), size);
    peer->size = size;
    if (zmq_msg_recv(frame, l->socket, ZMQ_DONTWAIT) < 0)
        return zmq_error(e, "receive");
    const char *key = zmq_msg_gets(frame, "User-Id");
    snprintf(peer->key, sizeof peer->key, "%s", key ? key : "");
    peer->fd = zmq_msg_get(frame, ZMQ_SRCFD);
    return 0;
}

/* Decodes the header frame. */
static int take_header(struct link *l, struct link_peer *peer, zmq_msg_t *frame, struct message *m, struct err *e)
{
    size_t size = zmq_msg_size(frame);
    count_frame(l, size);
    int rc = seal_check(zmq_msg_data(frame), &size, e);
    if (rc == 0)
        rc = message_decode(m, zmq_msg_data(frame), size, e);
    if (rc == 0 && m->type == MESSAGE_HELLO)
        peer_host(frame, peer->host, sizeof peer->host);
    return rc;
}

int link_receive(struct link *l, struct link_peer *peer, struct message *m, struct link_payload *payload, struct err *e)
{
    zmq_msg_t frame;
    *payload = (struct link_payload){0};
    *peer = (struct link_peer){.fd = -1};
    l->received = 0;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, l->socket, ZMQ_DONTWAIT) < 0) {
        bool none = errno == EAGAIN || errno == EINTR;
        zmq_msg_close(&frame);
        return none ? 0 : zmq_error(e, "receive");
    }
    int rc = l->router ? receive_sender(l, peer, &frame, e) : 0;
    if (rc == 0 && (rc = take_header(l, peer, &frame, m, e)) != 0)
        drain(l);
    zmq_msg_close(&frame);
    if (rc == 0)
        rc = receive_payload(l, m, payload, e);
    l->given += l->received;
    return rc ? rc : 1;
}

void link_payload_release(struct link_payload *p)
{
    if (p->frame) {
        zmq_msg_close(p->frame);
        mem_free(p->frame);
    }
    *p = (struct link_payload){0};
}
