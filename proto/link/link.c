/* link.c - ZeroMQ sockets with the options that DESIGN's measurements ask for; see link.h.
 *
 * Both HWMs are off (0): what can be in flight is bounded by leases, and the guard closes a connection that sends more. (With a
 * receive HWM, a peer that fills its queue, sends a ZMTP PING and resets the connection ends the process by an assertion
 * of libzmq 4.3.4, out_event's `!_io_error`.) ZMTP heartbeats stay off (they drop links that back-pressure); PING/PONG are
 * messages of ours. Routing ids are ZeroMQ's own, fresh for each connection. ROUTER_MANDATORY and DONTWAIT: a send to a
 * peer that is gone fails instead of vanishing or hanging. */
#include "link.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zmq.h>

#include "allow_list.h"
#include "endpoint.h"
#include "guard.h"
#include "monitor.h"
#include "seal.h"
#include "zap.h"

#define MAX_ENDPOINTS 8
#define HANDSHAKE_MS 5000
#define BACKLOG 1024       /* connections that wait to be accepted: a producer is not to be lost among strangers */
#define BATCH_OVERHEAD 512 /* bytes on the wire beside rows and origins, with keys too */
#define SHORT_BYTES ((uint64_t)1 << 20) /* messages that wait and are no BATCH: with much to spare */
#define MAX_IGNORED 256                 /* messages of refused peers that are dropped in one link_receive */

struct link {
    void *context, *socket;
    bool router, curve;
    struct guard *guard; /* of a ROUTER */
    void *monitor;       /* of a DEALER */
    const char *trouble; /* of a DEALER: why it has no connection */
    bool shook, lost;    /* of a DEALER: it had a connection; and has that no more */
    size_t received;     /* bytes on the wire of the message being received */
    size_t n_endpoints;
    char endpoints[MAX_ENDPOINTS][256];
    unsigned char encoded[MESSAGE_MAX_BYTES + SEAL_BYTES];
};

static int zmq_error(struct err *e, const char *what)
{
    return err_set(e, ERR_SYSTEM, "%s: %s", what, zmq_strerror(errno));
}

static int set_option(struct link *l, int option, int value, struct err *e)
{
    if (zmq_setsockopt(l->socket, option, &value, sizeof value) != 0)
        return zmq_error(e, "socket option");
    return 0;
}

static int set_key(struct link *l, int option, const char *key, struct err *e)
{
    if (zmq_setsockopt(l->socket, option, key, CURVE_KEY_SIZE) != 0)
        return zmq_error(e, "CURVE key");
    l->curve = true;
    return 0;
}

static int link_open(struct link **out, bool router, struct err *e)
{
    struct link *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l)
        return err_set(e, ERR_MEMORY, "link: out of memory");
    l->router = router;
    l->context = zmq_ctx_new();
    l->socket = l->context ? zmq_socket(l->context, router ? ZMQ_ROUTER : ZMQ_DEALER) : NULL;
    if (!l->socket) {
        zmq_error(e, "cannot make a socket");
        link_close(l, 0);
        return ERR_SYSTEM;
    }
    int64_t max_size = (int64_t)(CHUNK_MAX_BYTES > MESSAGE_MAX_BYTES ? CHUNK_MAX_BYTES : MESSAGE_MAX_BYTES);
    if (set_option(l, ZMQ_SNDHWM, 0, e) || set_option(l, ZMQ_RCVHWM, 0, e) || set_option(l, ZMQ_LINGER, 0, e) ||
        set_option(l, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS, e) || set_option(l, ZMQ_IPV6, 1, e) ||
        (router && set_option(l, ZMQ_BACKLOG, BACKLOG, e)) || (router && set_option(l, ZMQ_ROUTER_MANDATORY, 1, e)) ||
        (!router && (set_option(l, ZMQ_RECONNECT_IVL, 100, e) || set_option(l, ZMQ_RECONNECT_IVL_MAX, 2000, e)))) {
        link_close(l, 0);
        return ERR_SYSTEM;
    }
    if (zmq_setsockopt(l->socket, ZMQ_MAXMSGSIZE, &max_size, sizeof max_size) != 0) {
        zmq_error(e, "socket option");
        link_close(l, 0);
        return ERR_SYSTEM;
    }
    *out = l;
    return 0;
}

/* ZeroMQ allocates each payload, some MB, and frees it when it has been read; by default the C library gives such memory back to
 * the system each time, and the page faults of the next ones cost a quarter of the processor time that receiving takes. */
static void keep_freed_memory(void)
{
    mallopt(M_MMAP_THRESHOLD, 8 * (int)CHUNK_MAX_BYTES);
    mallopt(M_TRIM_THRESHOLD, 32 * (int)CHUNK_MAX_BYTES);
}

/* Keys, and the guard: before anything is bound, or who came in between would not be asked. */
static int secure(struct link *l, const struct link_door *door, struct err *e)
{
    struct allow_list allowed = {0};
    struct curve_pair own = {0};
    bool keys = door && door->curve_secret;
    int rc = 0;
    if (keys &&
        ((rc = curve_pair_read(&own, door->curve_secret, e)) ||
         (rc = allow_list_init(&allowed, door->curve_allow, e)) ||
         (rc = set_key(l, ZMQ_CURVE_SECRETKEY, own.secret_key, e)) || (rc = set_option(l, ZMQ_CURVE_SERVER, 1, e))))
        goto out;
    if (keys && zmq_setsockopt(l->socket, ZMQ_ZAP_DOMAIN, ZAP_DOMAIN, sizeof ZAP_DOMAIN - 1) != 0)
        rc = zmq_error(e, "ZAP domain");
    else
        rc = guard_new(&l->guard, l->context, l->socket, keys ? &allowed : NULL, e);
out:
    explicit_bzero(&own, sizeof own);
    allow_list_release(&allowed);
    return rc;
}

int link_listen(struct link **out, const char *const *endpoints, size_t n, const struct link_door *door, struct err *e)
{
    bool open = door && (door->insecure || door->curve_secret);
    *out = NULL;
    if (door && !door->curve_secret != !door->curve_allow)
        return err_set(e, ERR_INPUT, "--curve-secret and --curve-allow go together");
    if (n == 0 || n > MAX_ENDPOINTS)
        return err_set(e, ERR_INPUT, "%zu endpoints to listen on, must be 1 to %d", n, MAX_ENDPOINTS);
    for (size_t i = 0; i < n; i++) {
        if (endpoint_check(endpoints[i], e))
            return ERR_INPUT;
        if (!open && !endpoint_is_local(endpoints[i]))
            return err_set(e, ERR_INPUT,
                           "%s: only loopback TCP (tcp://127.0.0.1:PORT) and ipc:// are open to all; others need "
                           "--curve-secret and --curve-allow, or --insecure to listen there without keys",
                           endpoints[i]);
    }
    struct link *l;
    if (link_open(&l, true, e))
        return ERR_SYSTEM;
    if (secure(l, door, e)) {
        link_close(l, 0);
        return e->code;
    }
    keep_freed_memory();
    for (size_t i = 0; i < n; i++) {
        static const char localhost[] = "tcp://localhost:"; /* ZeroMQ resolves no names when it binds */
        size_t name = strncmp(endpoints[i], localhost, sizeof localhost - 1) == 0 ? sizeof localhost - 1 : 0;
        char address[sizeof l->endpoints[i]];
        snprintf(address, sizeof address, "%s%s", name ? "tcp://127.0.0.1:" : "", endpoints[i] + name);
        int bound = endpoint_in_use(endpoints[i]) ? (errno = EADDRINUSE, -1) : zmq_bind(l->socket, address);
        size_t size = sizeof l->endpoints[i];
        if (bound != 0 || zmq_getsockopt(l->socket, ZMQ_LAST_ENDPOINT, l->endpoints[i], &size) != 0) {
            err_set(e, ERR_SYSTEM, "%s: cannot listen: %s", endpoints[i], zmq_strerror(errno));
            link_close(l, 0);
            return ERR_SYSTEM;
        }
        endpoint_plain_ipv4(l->endpoints[i]);
        l->n_endpoints++;
    }
    *out = l;
    return 0;
}

const char *link_endpoint(const struct link *l, size_t i)
{
    return i < l->n_endpoints ? l->endpoints[i] : "";
}

static int watch_connection(struct link *l, struct err *e)
{
    static const char endpoint[] = "inproc://monitor";
    if (zmq_socket_monitor(l->socket, endpoint, ZMQ_EVENT_ALL) != 0 ||
        !(l->monitor = zmq_socket(l->context, ZMQ_PAIR)) || zmq_connect(l->monitor, endpoint) != 0)
        return zmq_error(e, "cannot watch the connection");
    return 0;
}

int link_connect(struct link **out, const char *endpoint, const struct curve_client *keys, struct err *e)
{
    struct link *l;
    *out = NULL;
    if (endpoint_check(endpoint, e))
        return ERR_INPUT;
    if (link_open(&l, false, e))
        return ERR_SYSTEM;
    if (watch_connection(l, e) || (keys && (set_key(l, ZMQ_CURVE_SERVERKEY, keys->server, e) ||
                                            set_key(l, ZMQ_CURVE_PUBLICKEY, keys->own.public_key, e) ||
                                            set_key(l, ZMQ_CURVE_SECRETKEY, keys->own.secret_key, e)))) {
        link_close(l, 0);
        return ERR_SYSTEM;
    }
    if (zmq_connect(l->socket, endpoint) != 0) {
        err_set(e, ERR_SYSTEM, "%s: cannot connect: %s", endpoint, zmq_strerror(errno));
        link_close(l, 0);
        return ERR_SYSTEM;
    }
    *out = l;
    return 0;
}

void link_close(struct link *l, int linger_ms)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n_endpoints; i++) /* ZeroMQ leaves the file of an ipc socket there */
        if (strncmp(l->endpoints[i], "ipc://", 6) == 0 && l->endpoints[i][6] != '@') /* '@': has none */
            unlink(l->endpoints[i] + 6);
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
    guard_free(l->guard); /* the end of the context ended its thread */
    free(l);
}

/* ---- who is there ---- */

static struct routing_id routing_id(const struct link_peer *peer)
{
    struct routing_id p = {.size = peer->size};
    memcpy(p.id, peer->id, peer->size);
    return p;
}

void link_vouch(struct link *l, const struct link_peer *peer, uint64_t bytes)
{
    struct routing_id id = routing_id(peer);
    guard_vouch(l->guard, peer->fd, &id, bytes);
}

uint64_t link_answer_bytes(const struct stream *s, enum row_dtype dtype, size_t rows, size_t leases)
{
    uint64_t answer = rows * (stream_row_bytes(s, dtype) + sizeof(struct row_origin)) +
                      stream_chunk_count(s, dtype, rows) * BATCH_OVERHEAD;
    return SHORT_BYTES + leases * answer;
}

void link_complain(struct link *l, const struct link_peer *peer, const char *who, const char *why)
{
    guard_complain(l->guard, peer->fd, who, peer->key, why);
}

void link_refuse(struct link *l, const struct link_peer *peer, const char *who, const char *why)
{
    struct routing_id id = routing_id(peer);
    link_complain(l, peer, who, why); /* before the peer knows */
    if (peer->size)
        link_send_text(l, peer, MESSAGE_REJECT, why);
    guard_expel(l->guard, peer->fd, &id);
}

void link_describe(const struct link *l, const struct link_peer *peer, char text[LINK_DESCRIPTION_SIZE])
{
    char address[CONNECTION_ADDRESS_SIZE];
    guard_address(l->guard, peer->fd, address);
    snprintf(text, LINK_DESCRIPTION_SIZE, "%s%s%s", address, *peer->key ? ", key " : "", peer->key);
}

void link_refusals(const struct link *l, uint64_t counts[REFUSAL_KINDS])
{
    guard_counts(l->guard, counts);
}

/* Whether ZeroMQ says "mechanism mismatch" or just that the connection was closed depends on who is faster. */
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

/* ---- sending ---- */

static int send_failed(struct err *e, const struct message *m)
{
    return err_set(e, ERR_PEER, "cannot send %s: %s", message_type_name(m->type), zmq_strerror(errno));
}

/* The routing frame (ROUTER) and the encoded message; more: a payload frame follows. */
static int send_header(struct link *l, const struct link_peer *peer, const struct message *m, bool more, struct err *e)
{
    size_t size;
    if (message_encode(m, l->encoded, &size, e))
        return ERR_INPUT;
    size = seal_add(l->encoded, size);
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
    free(r);
}

int link_send_payload(struct link *l, const struct message *m, const void *data, size_t size,
                      void (*release)(void *context), void *context, struct err *e)
{
    struct release *r = malloc(sizeof *r);
    zmq_msg_t payload;
    if (!r || (*r = (struct release){release, context},
               zmq_msg_init_data(&payload, (void *)(uintptr_t)data, size, release_payload, r) != 0)) {
        free(r);
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

/* Bytes of a frame on the wire: ZMTP's header, and what CURVE adds. */
static void count_frame(struct link *l, size_t size)
{
    size += l->curve ? 33 : 0;
    l->received += size + (size > 255 ? 9 : 2);
}

static bool more_follows(struct link *l)
{
    int more = 0;
    size_t size = sizeof more;
    return zmq_getsockopt(l->socket, ZMQ_RCVMORE, &more, &size) == 0 && more;
}

/* Throws away the rest of a multipart message; returns how many frames that were. */
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

/* The frame after the header, if any: a BATCH has exactly one, others none. */
static int receive_payload(struct link *l, const struct message *m, struct link_payload *payload, struct err *e)
{
    if (!more_follows(l))
        return m->type == MESSAGE_BATCH ? err_set(e, ERR_PEER, "BATCH without a payload frame") : 0;
    if (m->type != MESSAGE_BATCH)
        return err_set(e, ERR_PEER, "%s with %zu more frames, has none", message_type_name(m->type), drain(l));
    zmq_msg_t *frame = malloc(sizeof *frame);
    if (!frame)
        return drain(l), err_set(e, ERR_MEMORY, "payload: out of memory");
    zmq_msg_init(frame);
    if (zmq_msg_recv(frame, l->socket, ZMQ_DONTWAIT) < 0) {
        int rc = zmq_error(e, "payload");
        zmq_msg_close(frame);
        free(frame);
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

/* Where the frame came from; IPv4 as users write it, not mapped into IPv6. */
static void peer_host(zmq_msg_t *frame, char *host, size_t size)
{
    static const char mapped[] = "::ffff:";
    const char *address = zmq_msg_gets(frame, "Peer-Address");
    if (address && strncmp(address, mapped, sizeof mapped - 1) == 0 && strchr(address, '.'))
        address += sizeof mapped - 1;
    snprintf(host, size, "%s", address ? address : "");
}

/* What ZeroMQ knows of a message's sender is written at its frames but the first. */
static void take_sender(struct link_peer *peer, zmq_msg_t *frame)
{
    const char *key = zmq_msg_gets(frame, "User-Id");
    snprintf(peer->key, sizeof peer->key, "%s", key ? key : "");
    peer->fd = zmq_msg_get(frame, ZMQ_SRCFD);
}

static int receive_one(struct link *l, struct link_peer *peer, struct message *m, struct link_payload *payload,
                       struct err *e)
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
    if (l->router) {
        peer->size = zmq_msg_size(&frame);
        if (peer->size > sizeof peer->id || !more_follows(l)) {
            /* a peer chose an id of its own, longer than ZeroMQ's: it is not one of ours */
            size_t size = peer->size;
            peer->size = 0;
            drain(l);
            zmq_msg_close(&frame);
            return err_set(e, ERR_PEER, "peer with a routing id of %zu bytes, at most %zu", size, sizeof peer->id);
        }
        memcpy(peer->id, zmq_msg_data(&frame), peer->size);
        if (zmq_msg_recv(&frame, l->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frame);
            return zmq_error(e, "receive");
        }
        take_sender(peer, &frame);
    }
    size_t size = zmq_msg_size(&frame);
    count_frame(l, size);
    int rc = seal_check(zmq_msg_data(&frame), &size, e);
    if (rc == 0)
        rc = message_decode(m, zmq_msg_data(&frame), size, e);
    if (rc == 0 && m->type == MESSAGE_HELLO)
        peer_host(&frame, peer->host, sizeof peer->host);
    zmq_msg_close(&frame);
    if (rc)
        drain(l);
    else
        rc = receive_payload(l, m, payload, e);
    return rc ? rc : 1;
}

int link_receive(struct link *l, struct link_peer *peer, struct message *m, struct link_payload *payload, struct err *e)
{
    if (!l->router)
        return receive_one(l, peer, m, payload, e);
    for (int i = 0; i < MAX_IGNORED; i++) {
        int got = receive_one(l, peer, m, payload, e);
        struct routing_id id = routing_id(peer);
        if (got == 0)
            guard_empty(l->guard);
        if ((got != 1 && got != ERR_PEER && got != ERR_DAMAGED) || guard_heard(l->guard, peer->fd, &id, l->received))
            return got;
        link_payload_release(payload); /* it was refused before and is on its way out */
    }
    return 0;
}

void link_payload_release(struct link_payload *p)
{
    if (p->frame) {
        zmq_msg_close(p->frame);
        free(p->frame);
    }
    *p = (struct link_payload){0};
}

void link_poll(struct link *l, int fd, int timeout_ms)
{
    zmq_pollitem_t items[] = {{.socket = l->socket, .events = ZMQ_POLLIN},
                              {.fd = fd, .events = ZMQ_POLLIN},
                              {.socket = l->monitor, .fd = -1, .events = ZMQ_POLLIN}};
    zmq_poll(items, 3, timeout_ms); /* one with neither socket nor descriptor is passed over */
    if (l->monitor)
        take_events(l);
}
