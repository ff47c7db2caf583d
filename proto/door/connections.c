/* connections.c - the table of connections and the rules by which they go; see connections.h. */
#include "connections.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "mem.h"
#include "socket_bytes.h"

#define AMBIGUOUS_MS 2000 /* a connection is ambiguous for no longer than this, however busy the link is */
#define MAX_AFTER 16      /* messages from a refused connection, after which it is shut at once */
#define MAX_SAID 64       /* messages from a stranger, after which it is shut: each of them may ask for an answer */

void connections_init(struct connections *c, const struct connection_limits *limits, struct refusals *refusals)
{
    *c = (struct connections){.limits = *limits, .refusals = refusals};
}

void connections_release(struct connections *c)
{
    mem_free(c->connections);
    mem_free(c->members);
    *c = (struct connections){0};
}

/* Returns the connection at fd; NULL if there is none. */
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

/* Writes where the peer is that is connected at fd. */
static void describe(int fd, const struct sockaddr_storage *peer, char address[CONNECTION_ADDRESS_SIZE])
{
    struct ucred process;
    socklen_t size = sizeof process;
    snprintf(address, CONNECTION_ADDRESS_SIZE, "somebody");
    if (peer->ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)peer)->sin_addr, address, CONNECTION_ADDRESS_SIZE);
    } else if (peer->ss_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)peer)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(a))
            inet_ntop(AF_INET, a->s6_addr + 12, address, CONNECTION_ADDRESS_SIZE);
        else
            inet_ntop(AF_INET6, a, address, CONNECTION_ADDRESS_SIZE);
    } else if (peer->ss_family == AF_UNIX && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &process, &size) == 0) {
        snprintf(address, CONNECTION_ADDRESS_SIZE, "process %ld", (long)process.pid);
    }
}

/* Makes room for descriptors below n. */
static int grow_connections(struct connections *c, size_t n, struct err *e)
{
    struct connection *more = mem_alloc(n, sizeof *more, "connections", e);
    if (!more)
        return ERR_MEMORY;
    if (c->n_connections)
        memcpy(more, c->connections, c->n_connections * sizeof *more);
    mem_free(c->connections);
    c->connections = more;
    c->n_connections = n;
    return 0;
}

/* Makes room for so many members. */
static int grow_members(struct connections *c, size_t room, struct err *e)
{
    struct connection_member *more = mem_alloc(room, sizeof *more, "members", e);
    if (!more)
        return ERR_MEMORY;
    if (c->n_members)
        memcpy(more, c->members, c->n_members * sizeof *more);
    mem_free(c->members);
    c->members = more;
    c->members_room = room;
    return 0;
}

/* Makes the table large enough for the descriptor. */
static bool make_room(struct connections *c, int fd)
{
    return (size_t)fd < c->n_connections || grow_connections(c, 2 * ((size_t)fd + 1), NULL) == 0;
}

int connections_reserve(struct connections *c, size_t descriptors, size_t members, struct err *e)
{
    int rc = descriptors > c->n_connections ? grow_connections(c, descriptors, e) : 0;
    return rc == 0 && members > c->members_room ? grow_members(c, members, e) : rc;
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

/* Binds a connection to its peer, of whom the link was given so many bytes; if somebody vouches for it, it is a member. */
static void bind_to(struct connections *c, struct connection *k, const struct routing_id *peer, uint64_t given)
{
    const struct connection_member *m = find_member(c, peer);
    k->bound = *peer;
    k->given = given;
    if (k->state == CONNECTION_STRANGER && m) {
        k->allowed = m->allowed;
        set_state(c, k, CONNECTION_MEMBER);
    }
}

void connections_enter(struct connections *c, int fd, int64_t now_ms)
{
    if (fd < 0)
        return;
    if (!make_room(c, fd)) {
        struct sockaddr_storage peer;
        char address[CONNECTION_ADDRESS_SIZE];
        get_peer(fd, &peer);
        describe(fd, &peer, address);
        refusals_note(c->refusals, REFUSAL_TOO_MANY, "closed a connection from %s: no memory is left to watch it",
                      address);
        shutdown(fd, SHUT_RDWR);
        return;
    }
    struct connection *k = &c->connections[fd];
    if (k->early && k->state != CONNECTION_ABSENT) { /* a message told of it before */
        k->early = false;
        return;
    }
    connections_leave(c, fd);
    *k = (struct connection){.number = ++c->last_number,
                             .used_before = k->number != 0,
                             .since_ms = now_ms,
                             .entered_ms = now_ms,
                             .entered_empties = c->empties};
    get_peer(fd, &k->peer);
    set_state(c, k, CONNECTION_STRANGER);
}

/* Lets a connection in by a message that came over it before ZeroMQ told of it: it tells both at once, but to two threads. Only over a
 * descriptor that nobody had before; else the message may be from whoever had it. Returns NULL if it cannot be known. */
static struct connection *enter_early(struct connections *c, int fd, int64_t now_ms)
{
    if (fd < 0 || ((size_t)fd < c->n_connections && c->connections[fd].number != 0))
        return NULL;
    connections_enter(c, fd, now_ms);
    struct connection *k = find(c, fd);
    if (k)
        k->early = true;
    return k;
}

void connections_leave(struct connections *c, int fd)
{
    struct connection *k = find(c, fd);
    if (k)
        set_state(c, k, CONNECTION_ABSENT);
}

void connections_empty(struct connections *c)
{
    c->empties++;
}

/* Returns whether messages of whoever had the descriptor before may still come. The queue must have been empty twice since, because the
 * first time may have been seen before the connection came and told after. */
static bool ambiguous(const struct connections *c, const struct connection *k, int64_t now_ms)
{
    return k->used_before && c->empties < k->entered_empties + 2 && now_ms - k->entered_ms < AMBIGUOUS_MS;
}

/* Returns the connection at fd if it is bound to the peer, else NULL. */
static struct connection *find_bound(const struct connections *c, int fd, const struct routing_id *peer)
{
    struct connection *k = find(c, fd);
    return k && k->bound.size && same(&k->bound, peer) ? k : NULL;
}

bool connections_heard(struct connections *c, int fd, const struct routing_id *peer, uint64_t wire_bytes,
                       int64_t now_ms)
{
    struct connection *k = find(c, fd);
    if (!k)
        k = enter_early(c, fd, now_ms);
    if (k && !k->bound.size && !ambiguous(c, k, now_ms))
        bind_to(c, k, peer, socket_bytes_held(fd, wire_bytes)); /* all that came before this message */
    else if (k && !k->bound.size)
        k->heard = *peer;
    k = find_bound(c, fd, peer);
    if (!k)
        return true;
    k->given += wire_bytes;
    if (k->state == CONNECTION_REFUSED)
        k->after++;
    if (k->state == CONNECTION_STRANGER)
        k->said++;
    return k->state == CONNECTION_MEMBER || (k->state == CONNECTION_STRANGER && k->said <= MAX_SAID);
}

/* Writes down for how much of the peer somebody vouches; with 0, forgets the peer. */
static void remember_member(struct connections *c, const struct routing_id *peer, uint64_t allowed)
{
    struct connection_member *m = find_member(c, peer);
    if (m && allowed)
        m->allowed = allowed;
    else if (m)
        *m = c->members[--c->n_members];
    if (m || !allowed)
        return;
    if (c->n_members == c->members_room && grow_members(c, 2 * c->n_members + 1, NULL))
        return; /* a connection of it that is yet to be bound will be taken for a stranger's */
    c->members[c->n_members++] = (struct connection_member){*peer, allowed};
}

void connections_vouch(struct connections *c, int fd, const struct routing_id *peer, uint64_t allowed, int64_t now_ms)
{
    remember_member(c, peer, allowed);
    struct connection *k = find_bound(c, fd, peer);
    if (!k || (k->state != CONNECTION_STRANGER && k->state != CONNECTION_MEMBER))
        return;
    set_state(c, k, allowed ? CONNECTION_MEMBER : CONNECTION_STRANGER);
    k->said = 0;
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
    static const struct sockaddr_storage unknown;
    bool known = fd >= 0 && (size_t)fd < c->n_connections;
    describe(fd, known ? &c->connections[fd].peer : &unknown, address);
}

/* ---- what must go ---- */

/* Shuts the connection, unless it has gone by itself and its descriptor is another one's, of which we have yet to hear. */
static void shut(struct connections *c, struct connection *k)
{
    int fd = (int)(k - c->connections);
    struct sockaddr_storage peer;
    if (get_peer(fd, &peer) && memcmp(&peer, &k->peer, sizeof peer) == 0)
        shutdown(fd, SHUT_RDWR);
    set_state(c, k, CONNECTION_SHUT);
}

/* Shuts the connection, counts it and says why. */
static void turn_out(struct connections *c, struct connection *k, enum refusal kind, const char *why)
{
    char address[CONNECTION_ADDRESS_SIZE];
    connections_address(c, (int)(k - c->connections), address);
    refusals_note(c->refusals, kind, "closed a connection from %s: it %s", address, why);
    shut(c, k);
}

void connections_revoke(struct connections *c, const struct allow_list *allowed)
{
    for (size_t i = 0; i < c->n_connections; i++) {
        struct connection *k = &c->connections[i];
        if (k->bound.size && k->state != CONNECTION_ABSENT && k->state != CONNECTION_SHUT &&
            !allow_list_has(allowed, k->bound.key))
            turn_out(c, k, REFUSAL_KEY, "has a key that is not allowed any more");
    }
}

/* Returns the member that was heard over a connection which is not bound yet, since its message may have been another's; NULL: none. Until
 * its next message binds the connection, it may be what the member is, or a producer that is vouched for would be closed as a stranger. */
static const struct connection_member *member_heard(const struct connections *c, const struct connection *k)
{
    return k->state == CONNECTION_STRANGER && !k->bound.size && k->heard.size ? find_member(c, &k->heard) : NULL;
}

/* Closes the oldest strangers until there are no more than may be. */
static void thin_out(struct connections *c)
{
    while (c->n_strangers > c->limits.strangers) {
        struct connection *oldest = NULL;
        for (size_t i = 0; i < c->n_connections; i++) {
            struct connection *k = &c->connections[i];
            if (k->state == CONNECTION_STRANGER && !member_heard(c, k) && (!oldest || k->number < oldest->number))
                oldest = k;
        }
        if (!oldest)
            return;
        turn_out(c, oldest, REFUSAL_TOO_MANY, "is the oldest of too many that did not become producers");
    }
}

/* Returns whether ZeroMQ holds more for this connection than it may. */
static bool too_much(const struct connections *c, const struct connection *k, int64_t now_ms)
{
    if (k->state == CONNECTION_MEMBER)
        return k->held > k->allowed;
    const struct connection_member *m = member_heard(c, k);
    if (m)
        return k->held > m->allowed;
    /* while messages over it may be another peer's, its own ones are not counted as given either */
    return k->state == CONNECTION_STRANGER && !ambiguous(c, k, now_ms) && k->held > c->limits.stranger_held;
}

void connections_tick(struct connections *c, int64_t now_ms)
{
    uint64_t others = 0;
    struct connection *largest = NULL; /* of those that are not members */
    size_t left = c->n_here;
    for (size_t i = 0; left && i < c->n_connections; i++) {
        struct connection *k = &c->connections[i];
        if (k->state == CONNECTION_ABSENT)
            continue;
        left--;
        if (k->state == CONNECTION_SHUT)
            continue;
        k->held = socket_bytes_held((int)i, k->given);
        if (too_much(c, k, now_ms))
            turn_out(c, k, REFUSAL_MEMORY, "sends more at a time than the protocol allows");
        else if (k->state == CONNECTION_STRANGER && now_ms - k->since_ms > c->limits.stranger_ms)
            turn_out(c, k, REFUSAL_IDLE, "connected and did not become a producer");
        else if (k->state == CONNECTION_STRANGER && k->said > MAX_SAID)
            turn_out(c, k, REFUSAL_MESSAGE, "sends message after message and does not become a producer");
        else if (k->state == CONNECTION_REFUSED &&
                 (now_ms - k->since_ms > c->limits.refused_ms || k->after > MAX_AFTER))
            shut(c, k);
        if ((k->state != CONNECTION_STRANGER && k->state != CONNECTION_REFUSED) || member_heard(c, k))
            continue;
        others += k->held;
        if (!largest || k->held > largest->held)
            largest = k;
    }
    if (others > c->limits.others_held)
        turn_out(c, largest, REFUSAL_MEMORY, "sends the most while strangers together send too much at a time");
    thin_out(c);
}
