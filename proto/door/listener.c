/* listener.c - opens and binds the ROUTER, and filters what it receives; see listener.h.
 *
 * Keys and guard are in place before anything is bound, or whoever connected in between would not be asked. */
#include "listener.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <zmq.h>

#include "allow_list.h"
#include "endpoint.h"
#include "guard.h"
#include "host_address.h"
#include "mem.h"
#include "zap.h"

#define MAX_ENDPOINTS 8
#define ENDPOINT_SIZE 128
#define BATCH_OVERHEAD 512              /* bytes of a BATCH on the wire beside rows and origins, with keys too */
#define SHORT_BYTES ((uint64_t)1 << 20) /* bytes of waiting messages that are no BATCH: with much to spare */
#define MAX_IGNORED 256                 /* messages of refused peers that one listener_receive drops */

struct listener {
    struct link *link;
    struct guard *guard;
    size_t n_endpoints; /* bound */
    char endpoints[MAX_ENDPOINTS][ENDPOINT_SIZE];
};

/* ---- opening and closing ---- */

static int check_access(size_t n, const struct listener_access *access, struct err *e)
{
    if (access && !access->curve_secret != !access->curve_allow)
        return err_set(e, ERR_INPUT, "--curve-secret and --curve-allow go together");
    if (n == 0 || n > MAX_ENDPOINTS)
        return err_set(e, ERR_INPUT, "%zu endpoints to listen on, must be 1 to %d", n, MAX_ENDPOINTS);
    return 0;
}

/* Makes the ROUTER with its keys, and the guard that watches it. */
static int open_router(struct listener *l, const struct listener_access *access, struct err *e)
{
    struct allow_list allowed = {0};
    struct curve_pair own = {0};
    bool keys = access && access->curve_secret;
    int rc = keys ? curve_pair_read(&own, access->curve_secret, e) : 0;
    if (rc == 0 && keys)
        rc = allow_list_init(&allowed, access->curve_allow, e);
    if (rc == 0)
        rc = link_new_router(&l->link, keys ? &own : NULL, e);
    if (rc == 0 && keys && zmq_setsockopt(link_socket(l->link), ZMQ_ZAP_DOMAIN, ZAP_DOMAIN, sizeof ZAP_DOMAIN - 1) != 0)
        rc = err_set(e, ERR_SYSTEM, "ZAP domain: %s", zmq_strerror(errno));
    if (rc == 0)
        rc = guard_new(&l->guard, l->link, keys ? &allowed : NULL, e);
    explicit_bzero(&own, sizeof own);
    allow_list_release(&allowed);
    return rc;
}

/* ZeroMQ allocates each payload, some MB, and frees it when it has been read. By default the C library gives such memory back to the
 * system each time, and the page faults of the next payload cost a quarter of the processor time that receiving takes. */
static void keep_freed_memory(void)
{
    mallopt(M_MMAP_THRESHOLD, 8 * (int)CHUNK_MAX_BYTES);
    mallopt(M_TRIM_THRESHOLD, 32 * (int)CHUNK_MAX_BYTES);
}

/* Reads an endpoint and writes the one to bind, in which the host is an address: ZeroMQ takes few names, and whether other machines reach
 * it is the address's to say. open: they may. */
static int take_endpoint(char bound[ENDPOINT_SIZE], const char *endpoint, bool open, struct err *e)
{
    struct endpoint p;
    struct host_address a;
    char address[HOST_ADDRESS_SIZE];
    if (endpoint_parse(&p, endpoint, ENDPOINT_LISTEN, e))
        return e->code;
    if (p.ipc) {
        snprintf(bound, ENDPOINT_SIZE, "%s", endpoint);
        return endpoint_in_use(&p) ? host_address_cannot_listen(endpoint, EADDRINUSE, e) : 0;
    }
    if (host_address_find(&a, &p, ENDPOINT_LISTEN, endpoint, e))
        return e->code;
    if (!open && !host_address_is_loopback(&a))
        return err_set(e, ERR_INPUT,
                       "%s: only loopback TCP (tcp://127.0.0.1:PORT) and ipc:// are open to all; others need "
                       "--curve-secret and --curve-allow, or --insecure to listen there without keys",
                       endpoint);
    host_address_text(&a, address);
    if (strcmp(p.host, "*") == 0) /* of IPv6 too, which ZeroMQ knows how to do */
        snprintf(bound, ENDPOINT_SIZE, "tcp://*:%u", (unsigned)p.port);
    else
        snprintf(bound, ENDPOINT_SIZE, "tcp://%s", address);
    return 0;
}

static int bind_endpoint(struct listener *l, const char *endpoint, bool open, struct err *e)
{
    char *bound = l->endpoints[l->n_endpoints];
    size_t size = ENDPOINT_SIZE;
    if (take_endpoint(bound, endpoint, open, e))
        return e->code;
    if (zmq_bind(link_socket(l->link), bound) != 0 ||
        zmq_getsockopt(link_socket(l->link), ZMQ_LAST_ENDPOINT, bound, &size) != 0)
        return host_address_cannot_listen(endpoint, errno, e);
    endpoint_plain_ipv4(bound);
    l->n_endpoints++;
    return 0;
}

int listener_open(struct listener **out, const char *const *endpoints, size_t n, const struct listener_access *access,
                  struct err *e)
{
    *out = NULL;
    bool open = access && (access->insecure || access->curve_secret);
    int rc = check_access(n, access, e);
    if (rc)
        return rc;
    struct listener *l = mem_alloc(1, sizeof *l, "listener", e);
    if (!l)
        return ERR_MEMORY;
    rc = open_router(l, access, e);
    keep_freed_memory();
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = bind_endpoint(l, endpoints[i], open, e);
    if (rc) {
        listener_close(l, 0);
        return rc;
    }
    *out = l;
    return 0;
}

void listener_close(struct listener *l, int linger_ms)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->n_endpoints; i++) /* ZeroMQ leaves the file of an ipc socket there */
        if (strncmp(l->endpoints[i], "ipc://", 6) == 0 && l->endpoints[i][6] != '@') /* '@': has no file */
            unlink(l->endpoints[i] + 6);
    link_close(l->link, linger_ms);
    guard_free(l->guard); /* the end of the link's context has ended its thread */
    mem_free(l);
}

const char *listener_endpoint(const struct listener *l, size_t i)
{
    return i < l->n_endpoints ? l->endpoints[i] : "";
}

struct link *listener_link(struct listener *l)
{
    return l->link;
}

/* ---- receiving ---- */

int listener_receive(struct listener *l, struct link_peer *peer, struct message *m, struct link_payload *payload,
                     struct err *e)
{
    for (int i = 0; i < MAX_IGNORED; i++) {
        int got = link_receive(l->link, peer, m, payload, e);
        if (got == 0)
            guard_empty(l->guard);
        if (got != 1 && got != ERR_PEER && got != ERR_DAMAGED)
            return got;
        if (guard_heard(l->guard, peer, link_received_bytes(l->link)))
            return got;
        link_payload_release(payload); /* the peer was refused before and is on its way out */
    }
    return 0;
}

/* ---- judging peers ---- */

void listener_vouch(struct listener *l, const struct link_peer *peer, uint64_t bytes)
{
    guard_vouch(l->guard, peer, bytes);
}

uint64_t listener_answer_bytes(const struct stream *s, enum row_dtype dtype, size_t rows, size_t leases)
{
    uint64_t answer = rows * (stream_row_bytes(s, dtype) + sizeof(struct row_origin)) +
                      stream_chunk_count(s, dtype, rows) * BATCH_OVERHEAD;
    return SHORT_BYTES + leases * answer;
}

void listener_complain(struct listener *l, const struct link_peer *peer, const char *who, const char *why)
{
    guard_complain(l->guard, peer, who, why);
}

void listener_refuse(struct listener *l, const struct link_peer *peer, const char *who, const char *why, bool for_now)
{
    guard_complain(l->guard, peer, who, why); /* before the peer knows */
    if (peer->size && for_now)
        link_send_error(l->link, peer, 0, "not-now", why);
    else if (peer->size)
        link_send_text(l->link, peer, MESSAGE_REJECT, why);
    guard_expel(l->guard, peer);
}

void listener_describe(const struct listener *l, const struct link_peer *peer, char text[LISTENER_DESCRIPTION_SIZE])
{
    guard_describe(l->guard, peer, text, LISTENER_DESCRIPTION_SIZE);
}

void listener_refusals(const struct listener *l, uint64_t counts[REFUSAL_KINDS])
{
    guard_counts(l->guard, counts);
}
