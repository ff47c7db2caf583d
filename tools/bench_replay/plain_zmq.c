/* plain_zmq.c - the yardstick; the socket options are those of proto/link/link.c. */
#include "plain_zmq.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
#include <zmq.h>

#include "clock.h"
#include "link.h"
#include "mem.h"

static void nothing(void *data, void *hint)
{
    (void)data;
    (void)hint;
}

/* The sender: all messages, then waits for a word, so that closing loses nothing. */
static int send_all(const struct plain_messages *m, const char *endpoint)
{
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    unsigned char *header = mem_alloc(m->header, 1, "header", NULL);
    char word;
    if (!socket || !header || zmq_connect(socket, endpoint) != 0)
        return 1;
    size_t at = 0;
    for (size_t i = 0; i < m->n; i++) {
        zmq_msg_t payload;
        at = at + m->payload > m->data_size ? 0 : at;
        zmq_msg_init_data(&payload, (void *)(uintptr_t)(m->data + at), m->payload, nothing, NULL);
        at += m->payload;
        if (zmq_send(socket, header, m->header, ZMQ_SNDMORE) < 0 || zmq_msg_send(&payload, socket, 0) < 0)
            return 1;
    }
    return zmq_recv(socket, &word, 1, 0) < 0;
}

static int receive_all(void *socket, size_t n, double *seconds, struct err *e)
{
    zmq_msg_t id, frame;
    double start = 0;
    zmq_msg_init(&id);
    for (size_t i = 0; i < n; i++)
        for (int part = 0; part < 3; part++) {
            zmq_msg_init(&frame);
            if (zmq_msg_recv(part ? &frame : &id, socket, 0) < 0) /* 20 s without a message */
                return err_errno(e, errno, "plain ZeroMQ: message %zu of %zu", i, n);
            zmq_msg_close(&frame);
            start = start > 0 ? start : clock_s();
        }
    *seconds = clock_s() - start;
    zmq_msg_send(&id, socket, ZMQ_SNDMORE);
    zmq_send(socket, "", 0, 0);
    return 0;
}

int plain_zmq(const struct plain_messages *m, double *seconds, struct err *e)
{
    int hwm = 0, limit_ms = 20000, linger_ms = 1000, status = 0;
    char endpoint[256];
    size_t size = sizeof endpoint;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_ROUTER);
    if (!socket || zmq_setsockopt(socket, ZMQ_RCVHWM, &hwm, sizeof hwm) ||
        zmq_setsockopt(socket, ZMQ_RCVTIMEO, &limit_ms, sizeof limit_ms) ||
        zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms) || zmq_bind(socket, "tcp://127.0.0.1:*") ||
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &size))
        return err_errno(e, errno, "plain ZeroMQ: cannot listen");
    pid_t sender = fork();
    if (sender == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(send_all(m, endpoint));
    }
    int rc = sender < 0 ? err_errno(e, errno, "cannot start a process") : receive_all(socket, m->n, seconds, e);
    zmq_close(socket);
    zmq_ctx_term(context);
    if (sender > 0 && rc)
        kill(sender, SIGKILL);
    if (sender > 0 && waitpid(sender, &status, 0) == sender && status != 0 && rc == 0)
        rc = err_set(e, ERR_SYSTEM, "plain ZeroMQ: the sender failed");
    return rc;
}
