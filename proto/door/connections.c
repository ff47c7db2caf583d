/* connections.c - see connections.h. */
#include "connections.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#define AMBIGUOUS_MS 2000 /* at most, however busy the link is */
#define MAX_AFTER 16      /* messages from a connection that was refused before it is shut at once */

void connections_init(struct connections *c, const struct connection_limits *limits, struct refusals *refusals)
{
    *c = (struct connections){.limits = *limits, .refusals = refusals};
}

void connections_release(struct connections *c)
{
    free(c->connections);
    free(c->members);
    *c = (struct connections){0};
}

static struct connection *find(const struct connections *c, int fd)
{
    bool here = fd >= 0 && (size_t)fd < c->n_connections && c->connections[fd].state != CONNECTION_ABSENT;
    return here ? &c->connections[fd] : NULL;
}

static void set_state(struct connections *c, struct connection *k, enum connection_state state)
{
    c->n_strangers -= k->state == CONNECTION_STRANGER;
    c->n_here -= k->state != CONNECTION_ABSENT;
    k->state = state;
    c->n_strangers += k->state == CONNECTION_STRANGER;
    c->n_here += k->state != CONNECTION_ABSENT;
}

static bool get_peer(int fd, struct sockaddr_storage *peer)
{
    socklen_t size = sizeof *peer;
    memset(peer, 0, sizeof *peer);
    return getpeername(fd, (struct sockaddr *)peer, &size) == 0;
}

void connections_enter(struct connections *c, int fd, int64_t now_ms)
{
    if (fd < 0)
        return;
    if ((size_t)fd >= c->n_connections) {
        size_t n = 2 * ((size_t)fd + 1);
        struct connection *more = realloc(c->connections, n * sizeof *more);
        if (!more)
            return; /* not watched, then */
        memset(more + c->n_connections, 0, (n - c->n_connections) * sizeof *more);
        c->connections = more;
        c->n_connections = n;
    }
    struct connection *k = &c->connections[fd];
    connections_leave(c, fd);
    *k = (struct connection){.number = ++c->last_number,
                             .used_before = k->number != 0,
                             .since_ms = now_ms,
                             .entered_ms = now_ms,
                             .entered_empties = c->empties};
    get_peer(fd, &k->peer);
    set_state(c, k, CONNECTION_STRANGER);
}

void connections_leave(struct connections *c, int fd)
{
    struct connection *k = find(c, fd);
    if (k)
        set_state(c, k, CONNECTION_ABSENT);
}

/* Bytes that ZeroMQ holds: received, less what still lies in the kernel and what we were given. 0 if the kernel does not say. */
static uint64_t held(int fd, uint64_t given)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    int unread = 0;
    /* unread first: what comes in between makes the result larger by that, not negative */
    if (ioctl(fd, SIOCINQ, &unread) != 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return 0;
    uint64_t out = (uint64_t)unread + given;
    return info.tcpi_bytes_received > out ? info.tcpi_bytes_received - out : 0;
}

void connections_empty(struct connections *c)
{
    c->empties++;
}

/* Messages of who had the descriptor before may still come. Two emptinesses, as one may have been seen before and told after. */
static bool ambiguous(const struct connections *c, const struct connection *k, int64_t now_ms)
{
    return k->used_before && c->empties < k->entered_empties + 2 && now_ms - k->entered_ms < AMBIGUOUS_MS;
}

static bool same(const struct routing_id *a, const struct routing_id *b)
{
    return a->size == b->size && memcmp(a->id, b->id, a->size) == 0;
}

static struct connection_member *find_member(const struct connections *c, const struct routing_id *peer)
{
    for (size_t i = 0; i < c->n_members; i++)
        if (same(&c->members[i].peer, peer))
            return &c->members[i];
    return NULL;
}

/* The peer's connection; NULL if it is not known to be at fd. */
static struct connection *find_bound(const struct connections *c, int fd, const struct routing_id *peer)
{
    struct connection *k = find(c, fd);
    return k && k->bound.size && same(&k->bound, peer) ? k : NULL;
}

bool connections_heard(struct connections *c, int fd, const struct routing_id *peer, uint64_t wire_bytes,
                       int64_t now_ms)
{
    struct connection *k = find(c, fd);
    if (k && !k->bound.size && !ambiguous(c, k, now_ms)) {
        k->bound = *peer;
        k->given = held(fd, wire_bytes); /* what came before, all of it */
        const struct connection_member *m = find_member(c, peer);
        if (k->state == CONNECTION_STRANGER && m) {
            k->allowed = m->allowed;
            set_state(c, k, CONNECTION_MEMBER);
        }
    }
    k = find_bound(c, fd, peer);
    if (!k)
        return true;
    k->given += wire_bytes;
    if (k->state == CONNECTION_REFUSED)
        k->after++;
    return k->state != CONNECTION_REFUSED && k->state != CONNECTION_SHUT;
}

static void remember_member(struct connections *c, const struct routing_id *peer, uint64_t allowed)
{
    struct connection_member *m = find_member(c, peer);
    if (m && allowed)
        m->allowed = allowed;
    else if (m)
        *m = c->members[--c->n_members];
    if (m || !allowed)
        return;
    struct connection_member *more = realloc(c->members, (c->n_members + 1) * sizeof *more);
    if (!more)
        return; /* it will be taken for a stranger */
    c->members = more;
    c->members[c->n_members++] = (struct connection_member){*peer, allowed};
}

void connections_vouch(struct connections *c, int fd, const struct routing_id *peer, uint64_t allowed, int64_t now_ms)
{
    remember_member(c, peer, allowed);
    struct connection *k = find_bound(c, fd, peer);
    if (!k || (k->state != CONNECTION_STRANGER && k->state != CONNECTION_MEMBER))
        return;
    set_state(c, k, allowed ? CONNECTION_MEMBER : CONNECTION_STRANGER);
    k->allowed = allowed;
    k->since_ms = now_ms;
}

void connections_refuse(struct connections *c, int fd, const struct routing_id *peer, int64_t now_ms)
{
    struct connection *k = find_bound(c, fd, peer);
    if (!k || (k->state != CONNECTION_STRANGER && k->state != CONNECTION_MEMBER))
        return;
    set_state(c, k, CONNECTION_REFUSED);
    k->since_ms = now_ms;
}

void connections_address(const struct connections *c, int fd, char address[CONNECTION_ADDRESS_SIZE])
{
    const struct connection *k = fd >= 0 && (size_t)fd < c->n_connections ? &c->connections[fd] : NULL;
    struct ucred process;
    socklen_t size = sizeof process;
    snprintf(address, CONNECTION_ADDRESS_SIZE, "somebody");
    if (!k)
        return;
    if (k->peer.ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)&k->peer)->sin_addr, address, CONNECTION_ADDRESS_SIZE);
    } else if (k->peer.ss_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)&k->peer)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(a))
            inet_ntop(AF_INET, a->s6_addr + 12, address, CONNECTION_ADDRESS_SIZE);
        else
            inet_ntop(AF_INET6, a, address, CONNECTION_ADDRESS_SIZE);
    } else if (k->peer.ss_family == AF_UNIX && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &process, &size) == 0) {
        snprintf(address, CONNECTION_ADDRESS_SIZE, "process %ld", (long)process.pid);
    }
}

/* ---- what must go ---- */

static void shut(struct connections *c, struct connection *k)
{
    int fd = (int)(k - c->connections);
    struct sockaddr_storage peer;
    /* gone by itself, or another one already whose coming we have yet to hear of: not ours to shut */
    if (get_peer(fd, &peer) && memcmp(&peer, &k->peer, sizeof peer) == 0)
        shutdown(fd, SHUT_RDWR);
    set_state(c, k, CONNECTION_SHUT);
}

static void turn_out(struct connections *c, struct connection *k, enum refusal kind, const char *why)
{
    char address[CONNECTION_ADDRESS_SIZE];
    connections_address(c, (int)(k - c->connections), address);
    refusals_note(c->refusals, kind, "closed a connection from %s: it %s", address, why);
    shut(c, k);
}

static int by_number(const void *a, const void *b)
{
    const struct connection *const *x = a, *const *y = b;
    return ((*x)->number > (*y)->number) - ((*x)->number < (*y)->number);
}

/* The oldest strangers go until there are no more than may be. */
static void thin_out(struct connections *c)
{
    struct connection **all = malloc(c->n_strangers * sizeof *all);
    size_t n = 0;
    for (size_t i = 0; all && i < c->n_connections; i++)
        if (c->connections[i].state == CONNECTION_STRANGER)
            all[n++] = &c->connections[i];
    if (all)
        qsort(all, n, sizeof *all, by_number);
    for (size_t i = 0; i + c->limits.strangers < n; i++)
        turn_out(c, all[i], REFUSAL_TOO_MANY, "is the oldest of too many that did not become producers");
    free(all);
}

/* Whether ZeroMQ holds more of this connection than it may. */
static bool too_much(const struct connections *c, const struct connection *k, int64_t now_ms)
{
    if (k->state == CONNECTION_MEMBER)
        return k->held > k->allowed;
    /* while messages may be another's, those of its own are not counted as given either */
    return k->state == CONNECTION_STRANGER && !ambiguous(c, k, now_ms) && k->held > c->limits.stranger_held;
}

void connections_tick(struct connections *c, int64_t now_ms)
{
    uint64_t others = 0;
    struct connection *largest = NULL; /* of the others */
    size_t left = c->n_here;
    for (size_t i = 0; left && i < c->n_connections; i++) {
        struct connection *k = &c->connections[i];
        if (k->state == CONNECTION_ABSENT)
            continue;
        left--;
        if (k->state == CONNECTION_SHUT)
            continue;
        k->held = held((int)i, k->given);
        if (too_much(c, k, now_ms))
            turn_out(c, k, REFUSAL_MEMORY, "sends more at a time than the protocol allows");
        else if (k->state == CONNECTION_STRANGER && now_ms - k->since_ms > c->limits.stranger_ms)
            turn_out(c, k, REFUSAL_IDLE, "connected and did not become a producer");
        else if (k->state == CONNECTION_REFUSED &&
                 (now_ms - k->since_ms > c->limits.refused_ms || k->after > MAX_AFTER))
            shut(c, k);
        if (k->state != CONNECTION_STRANGER && k->state != CONNECTION_REFUSED)
            continue;
        others += k->held;
        if (!largest || k->held > largest->held)
            largest = k;
    }
    if (others > c->limits.others_held)
        turn_out(c, largest, REFUSAL_MEMORY, "sends the most while strangers together send too much at a time");
    if (c->n_strangers > c->limits.strangers)
        thin_out(c);
}
