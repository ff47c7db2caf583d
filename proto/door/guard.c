/* guard.c - the guard's thread, and what the listener's thread tells it; see guard.h.
 *
 * ZeroMQ tells the events of its socket at a monitor socket. It tells a failed handshake without a descriptor, but the same I/O thread
 * tells the closing of that connection, with the descriptor, right after. A monitor that is not read blocks ZeroMQ's I/O thread, so
 * this thread reads it whatever else happens, until the context ends. */
#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <zmq.h>

#include "clock.h"
#include "connections.h"
#include "log.h"
#include "mem.h"
#include "monitor.h"
#include "zap.h"

#define MONITOR_ENDPOINT "inproc://monitor"
#define TICK_MS 20    /* between looks at the connections: what arrives within that time comes on top of the limits */
#define IDLE_MS 1000  /* the same while there are no connections */
#define ALLOW_MS 1000 /* between looks at the allow-list's files; before somebody is let in, */
#define ALLOW_NEW_MS \
    100 /* they were looked at so lately, that is, at once, and yet a crowd does not keep the disk busy */
#define MAX_STRANGERS 1024
#define FIRST_DESCRIPTORS 128 /* that there is room for from the start, */
#define FIRST_MEMBERS 16      /* and for so many members */
#define STRANGER_MS 30000
#define REFUSED_MS 1000
#define OTHERS_HELD ((uint64_t)1 << 30)

struct guard {
    pthread_t thread;
    bool started;
    void *zap, *monitor; /* sockets of the thread */
    bool keys;
    int64_t looked_ms;    /* when the thread last looked at the allow-list's files */
    const char *failed;   /* why the handshake failed whose closing is told next; NULL: none did */
    pthread_mutex_t lock; /* guards connections, and allowed, which the thread alone changes */
    struct connections connections;
    struct allow_list allowed;
    struct refusals refusals;
};

/* ---- who may connect ---- */

/* Looks whether the list has changed, unless that was done in the last so many ms. Who is here with a key that is off it has to go. */
static void look_at_allow_list(struct guard *g, int64_t not_since_ms)
{
    struct err e = {0};
    struct allow_list now, before;
    int64_t now_ms = clock_ms();
    if (now_ms - g->looked_ms < not_since_ms)
        return;
    g->looked_ms = now_ms;
    if (!allow_list_changed(&g->allowed, &now, &e))
        return;
    if (now.readable)
        log_line("%s: %zu keys allowed now", now.path, now.n);
    else
        log_line("%s; nobody new is admitted until that is mended", e.message);
    pthread_mutex_lock(&g->lock);
    before = g->allowed;
    g->allowed = now;
    connections_revoke(&g->connections, &g->allowed);
    pthread_mutex_unlock(&g->lock);
    allow_list_release(&before);
}

static void answer_zap(struct guard *g)
{
    struct zap_request r;
    while (zap_receive(g->zap, &r)) {
        look_at_allow_list(g, ALLOW_NEW_MS);
        const char *refusal = zap_refusal(&r, &g->allowed);
        zap_reply(g->zap, &r, refusal);
        if (!refusal)
            continue;
        static const char mapped[] = "::ffff:"; /* how ZeroMQ writes IPv4 */
        size_t skip = strncmp(r.address, mapped, sizeof mapped - 1) == 0 ? sizeof mapped - 1 : 0;
        refusals_note(&g->refusals, REFUSAL_KEY, "refused %s, key %s: %s", r.address + skip, r.key, refusal);
    }
}

/* ---- connections ---- */

/* Returns why a handshake failed, for the log. */
static const char *handshake_failure(const struct guard *g, unsigned event, uint32_t value)
{
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL && value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
        return g->keys ? "it shows no CURVE key" : "it wants CURVE keys, and this trainer has none";
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL && value == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)
        return "it holds another public key for this trainer";
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)
        return "it does not speak ZeroMQ's protocol";
    return value == EPIPE || value == ECONNRESET ? "it closed the connection before the handshake was done"
                                                 : "it did not shake hands in time";
}

static void take_event(struct guard *g, unsigned event, uint32_t value)
{
    char address[CONNECTION_ADDRESS_SIZE];
    pthread_mutex_lock(&g->lock);
    switch (event) {
    case ZMQ_EVENT_ACCEPTED:
        connections_enter(&g->connections, (int)value, clock_ms());
        break;
    case ZMQ_EVENT_DISCONNECTED:
        if (g->failed) {
            connections_address(&g->connections, (int)value, address);
            refusals_note(&g->refusals, REFUSAL_HANDSHAKE, "refused %s: %s", address, g->failed);
        }
        g->failed = NULL;
        connections_leave(&g->connections, (int)value);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        g->failed = handshake_failure(g, event, value);
        break;
    default: /* HANDSHAKE_FAILED_AUTH: counted where ZAP was answered */
        break;
    }
    pthread_mutex_unlock(&g->lock);
}

static void close_sockets(struct guard *g)
{
    if (g->zap)
        zmq_close(g->zap);
    if (g->monitor)
        zmq_close(g->monitor);
}

static void *guard_thread(void *argument)
{
    struct guard *g = argument;
    int64_t last_tick = 0;
    int wait = IDLE_MS;
    for (;;) {
        zmq_pollitem_t items[] = {{.socket = g->monitor, .events = ZMQ_POLLIN},
                                  {.socket = g->zap, .events = ZMQ_POLLIN}};
        if (zmq_poll(items, g->zap ? 2 : 1, wait) < 0 && errno == ETERM)
            break;
        unsigned event;
        uint32_t value;
        while (monitor_next(g->monitor, &event, &value))
            take_event(g, event, value);
        if (g->zap) {
            answer_zap(g);
            look_at_allow_list(g, ALLOW_MS);
        }
        pthread_mutex_lock(&g->lock);
        int64_t now = clock_ms();
        if (now - last_tick >= TICK_MS) {
            connections_tick(&g->connections, now);
            last_tick = now;
        }
        wait = g->connections.n_here ? TICK_MS : IDLE_MS;
        pthread_mutex_unlock(&g->lock);
    }
    close_sockets(g);
    return NULL;
}

/* ---- life ---- */

/* Returns the limits. Every connection costs a descriptor, and a checkpoint needs some: strangers get at most a quarter of them. */
static struct connection_limits limits(void)
{
    struct rlimit files = {0};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    size_t quarter = getrlimit(RLIMIT_NOFILE, &files) == 0 ? (size_t)files.rlim_cur / 4 : 64;
    return (struct connection_limits){.strangers = quarter < MAX_STRANGERS ? quarter : MAX_STRANGERS,
                                      .stranger_ms = STRANGER_MS,
                                      .refused_ms = REFUSED_MS,
                                      .stranger_held = 2 * MESSAGE_MAX_BYTES,
                                      .others_held = OTHERS_HELD};
}

static void *open_socket(void *context, int type, const char *endpoint, bool bind)
{
    int none = 0;
    void *socket = zmq_socket(context, type);
    if (!socket)
        return NULL;
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    if (type == ZMQ_PAIR)
        zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none); /* as many events as come */
    if ((bind ? zmq_bind(socket, endpoint) : zmq_connect(socket, endpoint)) != 0) {
        zmq_close(socket);
        return NULL;
    }
    return socket;
}

static int open_sockets(struct guard *g, struct link *link, struct err *e)
{
    void *context = link_context(link);
    if ((g->keys && !(g->zap = open_socket(context, ZMQ_REP, ZAP_ENDPOINT, true))) ||
        zmq_socket_monitor(link_socket(link), MONITOR_ENDPOINT, ZMQ_EVENT_ALL) != 0 ||
        !(g->monitor = open_socket(context, ZMQ_PAIR, MONITOR_ENDPOINT, false)))
        return err_set(e, ERR_SYSTEM, "cannot watch connections: %s", zmq_strerror(errno));
    return 0;
}

int guard_new(struct guard **out, struct link *link, struct allow_list *allowed, struct err *e)
{
    *out = NULL;
    struct guard *g = mem_alloc(1, sizeof *g, "guard", e);
    if (!g)
        return ERR_MEMORY;
    if (allowed) {
        g->keys = true;
        g->allowed = *allowed;
        *allowed = (struct allow_list){0};
    }
    pthread_mutex_init(&g->lock, NULL);
    refusals_init(&g->refusals);
    struct connection_limits l = limits();
    connections_init(&g->connections, &l, &g->refusals);
    int rc = connections_reserve(&g->connections, FIRST_DESCRIPTORS, FIRST_MEMBERS, e), failed;
    if (rc == 0)
        rc = open_sockets(g, link, e);
    if (rc == 0 && (failed = pthread_create(&g->thread, NULL, guard_thread, g)) != 0)
        rc = err_errno(e, failed, "cannot start the guard's thread");
    if (rc) {
        close_sockets(g);
        guard_free(g);
        return rc;
    }
    g->started = true;
    *out = g;
    return 0;
}

void guard_free(struct guard *g)
{
    if (!g)
        return;
    if (g->started)
        pthread_join(g->thread, NULL);
    connections_release(&g->connections);
    refusals_release(&g->refusals);
    allow_list_release(&g->allowed);
    pthread_mutex_destroy(&g->lock);
    mem_free(g);
}

/* ---- for the listener's thread ---- */

static struct routing_id routing_id(const struct link_peer *peer)
{
    struct routing_id id = {.size = peer->size};
    memcpy(id.id, peer->id, peer->size);
    memcpy(id.key, peer->key, sizeof id.key);
    return id;
}

void guard_empty(struct guard *g)
{
    pthread_mutex_lock(&g->lock);
    connections_empty(&g->connections);
    pthread_mutex_unlock(&g->lock);
}

bool guard_heard(struct guard *g, const struct link_peer *peer, uint64_t wire_bytes)
{
    struct routing_id id = routing_id(peer);
    pthread_mutex_lock(&g->lock);
    bool here = connections_heard(&g->connections, peer->fd, &id, wire_bytes, clock_ms());
    if (here && g->keys && !allow_list_has(&g->allowed, peer->key)) { /* it was when the connection was made */
        refusals_note(&g->refusals, REFUSAL_KEY, "refused key %s: it is not allowed any more", peer->key);
        connections_refuse(&g->connections, peer->fd, &id, clock_ms());
        here = false;
    }
    pthread_mutex_unlock(&g->lock);
    return here;
}

void guard_vouch(struct guard *g, const struct link_peer *peer, uint64_t allowed)
{
    struct routing_id id = routing_id(peer);
    pthread_mutex_lock(&g->lock);
    connections_vouch(&g->connections, peer->fd, &id, allowed, clock_ms());
    pthread_mutex_unlock(&g->lock);
}

void guard_expel(struct guard *g, const struct link_peer *peer)
{
    struct routing_id id = routing_id(peer);
    pthread_mutex_lock(&g->lock);
    connections_refuse(&g->connections, peer->fd, &id, clock_ms());
    pthread_mutex_unlock(&g->lock);
}

void guard_describe(struct guard *g, const struct link_peer *peer, char *text, size_t size)
{
    char address[CONNECTION_ADDRESS_SIZE];
    pthread_mutex_lock(&g->lock);
    connections_address(&g->connections, peer->fd, address);
    pthread_mutex_unlock(&g->lock);
    snprintf(text, size, "%s%s%s", address, *peer->key ? ", key " : "", peer->key);
}

void guard_complain(struct guard *g, const struct link_peer *peer, const char *who, const char *why)
{
    char where[CONNECTION_ADDRESS_SIZE + CURVE_KEY_SIZE + 8];
    guard_describe(g, peer, where, sizeof where);
    refusals_note(&g->refusals, REFUSAL_MESSAGE, "%s: %s (from %s)", who, why, where);
}

void guard_counts(struct guard *g, uint64_t counts[REFUSAL_KINDS])
{
    refusals_counts(&g->refusals, counts);
}
