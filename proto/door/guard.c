/* guard.c - see guard.h.
 *
 * ZeroMQ tells its socket's events at a monitor socket. A failed handshake is told without a descriptor, but the same I/O
 * thread tells the closing of that connection, with it, right after. The monitor blocks ZeroMQ's I/O thread when it is not read: the
 * thread reads it whatever else happens, until the context ends. */
#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <zmq.h>

#include "clock.h"
#include "link.h"
#include "log.h"
#include "monitor.h"
#include "zap.h"

#define MONITOR_ENDPOINT "inproc://monitor"
#define TICK_MS 20    /* while there are connections: what comes in meanwhile goes beyond the limits */
#define IDLE_MS 1000  /* without any */
#define ALLOW_MS 1000 /* between looks at the allow-list's files */
#define MAX_STRANGERS 1024

struct guard {
    pthread_t thread;
    bool started;
    void *zap, *monitor; /* the thread's own */
    struct allow_list allowed;
    bool keys;
    int64_t looked_ms;
    const char *failed;   /* the handshake whose closing is told next; NULL: none */
    pthread_mutex_t lock; /* guards connections */
    struct connections connections;
    struct refusals refusals;
};

/* ---- who may connect ---- */

static void look_at_allow_list(struct guard *g)
{
    struct err e = {0};
    int64_t now = clock_ms();
    if (now - g->looked_ms < ALLOW_MS)
        return;
    g->looked_ms = now;
    int changed = allow_list_refresh(&g->allowed, &e);
    if (changed > 0)
        log_line("%s: %zu keys allowed now", g->allowed.path, g->allowed.n);
    else if (changed < 0)
        log_line("%s; the %zu keys read before stay allowed", e.message, g->allowed.n);
}

static void answer_zap(struct guard *g)
{
    struct zap_request r;
    while (zap_receive(g->zap, &r)) {
        look_at_allow_list(g);
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
        if (g->zap)
            answer_zap(g);
        pthread_mutex_lock(&g->lock);
        int64_t now = clock_ms();
        if (now - last_tick >= TICK_MS) {
            connections_tick(&g->connections, now);
            last_tick = now;
        }
        wait = g->connections.n_here ? TICK_MS : IDLE_MS;
        pthread_mutex_unlock(&g->lock);
    }
    zmq_close(g->monitor);
    if (g->zap)
        zmq_close(g->zap);
    return NULL;
}

/* ---- life ---- */

/* Connections cost descriptors, and a checkpoint needs one: at most a quarter of them for strangers. */
static struct connection_limits limits(void)
{
    struct rlimit files = {0};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    size_t quarter = getrlimit(RLIMIT_NOFILE, &files) == 0 ? (size_t)files.rlim_cur / 4 : 64;
    return (struct connection_limits){.strangers = quarter < MAX_STRANGERS ? quarter : MAX_STRANGERS,
                                      .stranger_ms = 30000,
                                      .refused_ms = 1000,
                                      .stranger_held = 2 * MESSAGE_MAX_BYTES,
                                      .others_held = (uint64_t)1 << 30};
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

int guard_new(struct guard **out, void *context, void *socket, struct allow_list *allowed, struct err *e)
{
    struct guard *g = calloc(1, sizeof *g);
    *out = NULL;
    if (!g)
        return err_set(e, ERR_MEMORY, "guard: out of memory");
    if (allowed) {
        g->keys = true;
        g->allowed = *allowed;
        *allowed = (struct allow_list){0};
    }
    pthread_mutex_init(&g->lock, NULL);
    refusals_init(&g->refusals);
    struct connection_limits l = limits();
    connections_init(&g->connections, &l, &g->refusals);
    int rc = 0, failed;
    if ((g->keys && !(g->zap = open_socket(context, ZMQ_REP, ZAP_ENDPOINT, true))) ||
        zmq_socket_monitor(socket, MONITOR_ENDPOINT, ZMQ_EVENT_ALL) != 0 ||
        !(g->monitor = open_socket(context, ZMQ_PAIR, MONITOR_ENDPOINT, false)))
        rc = err_set(e, ERR_SYSTEM, "cannot watch connections: %s", zmq_strerror(errno));
    else if ((failed = pthread_create(&g->thread, NULL, guard_thread, g)) != 0)
        rc = err_errno(e, failed, "cannot start the guard's thread");
    if (rc) {
        if (g->zap)
            zmq_close(g->zap);
        if (g->monitor)
            zmq_close(g->monitor);
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
    free(g);
}

/* ---- for the link's thread ---- */

void guard_empty(struct guard *g)
{
    pthread_mutex_lock(&g->lock);
    connections_empty(&g->connections);
    pthread_mutex_unlock(&g->lock);
}

bool guard_heard(struct guard *g, int fd, const struct routing_id *peer, uint64_t wire_bytes)
{
    pthread_mutex_lock(&g->lock);
    bool here = connections_heard(&g->connections, fd, peer, wire_bytes, clock_ms());
    pthread_mutex_unlock(&g->lock);
    return here;
}

void guard_vouch(struct guard *g, int fd, const struct routing_id *peer, uint64_t allowed)
{
    pthread_mutex_lock(&g->lock);
    connections_vouch(&g->connections, fd, peer, allowed, clock_ms());
    pthread_mutex_unlock(&g->lock);
}

void guard_address(struct guard *g, int fd, char address[CONNECTION_ADDRESS_SIZE])
{
    pthread_mutex_lock(&g->lock);
    connections_address(&g->connections, fd, address);
    pthread_mutex_unlock(&g->lock);
}

void guard_complain(struct guard *g, int fd, const char *who, const char *key, const char *why)
{
    char address[CONNECTION_ADDRESS_SIZE];
    guard_address(g, fd, address);
    refusals_note(&g->refusals, REFUSAL_MESSAGE, "%s: %s (from %s%s%s)", who, why, address, *key ? ", key " : "", key);
}

void guard_expel(struct guard *g, int fd, const struct routing_id *peer)
{
    pthread_mutex_lock(&g->lock);
    connections_refuse(&g->connections, fd, peer, clock_ms());
    pthread_mutex_unlock(&g->lock);
}

void guard_counts(struct guard *g, uint64_t counts[REFUSAL_KINDS])
{
    refusals_counts(&g->refusals, counts);
}
