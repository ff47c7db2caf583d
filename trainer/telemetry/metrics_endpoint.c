/* metrics_endpoint.c - see metrics_endpoint.h. This is the only file that uses libmicrohttpd. The socket is opened here and not by the
 * library, whose errors do not say what is wrong. Its time-out is one of silence, and clients that send a byte now and then would keep all
 * places for ever: so the connection that is here longest gives way to the next one, and none stays for long. */
#include "metrics_endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "clock.h"
#include "host_address.h"
#include "mem.h"
#include "status_text.h"

#define MAX_CONNECTIONS 16
#define LIBRARY_CONNECTIONS 64 /* that the library may have: those which gave way are among them until it has noticed */
#define TIMEOUT_S 10           /* of silence, */
#define LIFE_MS 30000          /* and in all, if somebody else comes */
#define CONNECTION_BYTES ((size_t)16 << 10) /* request line and headers */

struct metrics_endpoint {
    struct MHD_Daemon *daemon;
    struct status *status;
    char url[128];
    /* used by the daemon's one thread: */
    struct status_snapshot snapshot;
    struct place {
        int fd; /* -1: free */
        int64_t since_ms;
    } places[MAX_CONNECTIONS];
};

/* Returns the listening socket and writes its url; negative: the error. */
static int listen_at(const char *text, bool insecure, char *url, size_t url_size, struct err *e)
{
    struct endpoint p;
    struct host_address a;
    char address[HOST_ADDRESS_SIZE];
    if (endpoint_parse(&p, text, ENDPOINT_HTTP, e) || host_address_find(&a, &p, ENDPOINT_HTTP, text, e))
        return e->code;
    if (!insecure && !host_address_is_loopback(&a))
        return err_set(e, ERR_INPUT,
                       "%s: only loopback (127.0.0.1:PORT, [::1]:PORT) is served to all; use --insecure to show the "
                       "run's state there",
                       text);
    int one = 1, fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) || bind(fd, &a.any, a.size) ||
        listen(fd, LIBRARY_CONNECTIONS) || getsockname(fd, &a.any, &a.size)) {
        int rc = host_address_cannot_listen(text, errno, e);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    host_address_text(&a, address);
    snprintf(url, url_size, "http://%s/metrics", address);
    return fd;
}

static enum MHD_Result reply(struct MHD_Connection *c, unsigned code, char *text, size_t size,
                             enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(size, text, mode);
    if (!r) {
        if (mode == MHD_RESPMEM_MUST_FREE)
            free(text);
        return MHD_NO;
    }
    MHD_add_response_header(r, "Content-Type",
                            code == MHD_HTTP_OK ? "text/plain; version=0.0.4; charset=utf-8" : "text/plain");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, "Allow", "GET");
    enum MHD_Result queued = MHD_queue_response(c, code, r);
    MHD_destroy_response(r);
    return queued;
}

/* Answers a request at once, before any body of it is read. */
static enum MHD_Result answer(void *context, struct MHD_Connection *c, const char *url, const char *method,
                              const char *version, const char *upload, size_t *upload_size, void **request)
{
    static char not_found[] = "only /metrics is here\n", not_allowed[] = "only GET\n", failed[] = "out of memory\n";
    struct metrics_endpoint *m = context;
    size_t size = 0;
    (void)version, (void)upload, (void)upload_size, (void)request;
    if (strcmp(url, "/metrics") != 0)
        return reply(c, MHD_HTTP_NOT_FOUND, not_found, sizeof not_found - 1, MHD_RESPMEM_PERSISTENT);
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0)
        return reply(c, MHD_HTTP_METHOD_NOT_ALLOWED, not_allowed, sizeof not_allowed - 1, MHD_RESPMEM_PERSISTENT);
    status_snapshot(m->status, &m->snapshot);
    char *text = status_to_text(&m->snapshot, &size);
    if (!text)
        return reply(c, MHD_HTTP_INTERNAL_SERVER_ERROR, failed, sizeof failed - 1, MHD_RESPMEM_PERSISTENT);
    return reply(c, MHD_HTTP_OK, text, size, MHD_RESPMEM_MUST_FREE);
}

/* Ends the connection that has the place, and frees it; the library notices that it was shut. */
static void give_way(struct place *p)
{
    shutdown(p->fd, SHUT_RDWR);
    p->fd = -1;
}

/* Gives a new connection a place, or takes that of one that has ended. */
static void watch_connection(void *context, struct MHD_Connection *c, void **socket_context,
                             enum MHD_ConnectionNotificationCode code)
{
    struct metrics_endpoint *m = context;
    struct place *place = NULL, *oldest = m->places;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    int64_t now = clock_ms();
    (void)socket_context;
    for (size_t i = 0; info && i < MAX_CONNECTIONS; i++) {
        struct place *p = &m->places[i];
        if (code == MHD_CONNECTION_NOTIFY_CLOSED && p->fd == info->connect_fd)
            p->fd = -1;
        if (code == MHD_CONNECTION_NOTIFY_STARTED && p->fd >= 0 && now - p->since_ms > LIFE_MS)
            give_way(p);
        if (p->fd < 0)
            place = p;
        else if (p->since_ms < oldest->since_ms)
            oldest = p;
    }
    if (!info || code != MHD_CONNECTION_NOTIFY_STARTED)
        return;
    if (!place)
        give_way(place = oldest);
    *place = (struct place){info->connect_fd, now};
}

int metrics_endpoint_start(struct metrics_endpoint **out, const char *address, bool insecure, struct status *status,
                           struct err *e)
{
    *out = NULL;
    struct metrics_endpoint *m = mem_alloc(1, sizeof *m, "metrics endpoint", e);
    if (!m)
        return ERR_MEMORY;
    m->status = status;
    for (size_t i = 0; i < MAX_CONNECTIONS; i++)
        m->places[i].fd = -1;
    int fd = listen_at(address, insecure, m->url, sizeof m->url, e);
    if (fd < 0) {
        mem_free(m);
        return err_prefix(e, "--metrics-listen");
    }
    m->daemon =
        MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, answer, m, MHD_OPTION_LISTEN_SOCKET,
                         (MHD_socket)fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)LIBRARY_CONNECTIONS,
                         MHD_OPTION_NOTIFY_CONNECTION, watch_connection, m, MHD_OPTION_CONNECTION_TIMEOUT,
                         (unsigned)TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES, MHD_OPTION_END);
    if (!m->daemon) {
        close(fd);
        mem_free(m);
        return err_set(e, ERR_SYSTEM, "--metrics-listen %s: cannot start the HTTP server", address);
    }
    *out = m;
    return 0;
}

const char *metrics_endpoint_url(const struct metrics_endpoint *m)
{
    return m->url;
}

void metrics_endpoint_stop(struct metrics_endpoint *m)
{
    if (!m)
        return;
    MHD_stop_daemon(m->daemon); /* closes the socket */
    mem_free(m);
}
