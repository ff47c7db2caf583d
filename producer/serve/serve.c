/* serve.c - the two threads of a producer at work: computing (compute.h) here, the conversation (session.h) on its own
 * thread; see serve.h. */
#include "serve.h"

#include <pthread.h>
#include <stdio.h>

#include "session.h"

struct conversation {
    struct compute *compute;
    struct session_options options;
    struct session_report report;
    int rc;
    struct err error;
};

static void *converse(void *argument)
{
    struct conversation *c = argument;
    c->rc = session_run(c->compute, &c->options, &c->report, &c->error);
    return NULL;
}

int serve(struct source *source, const struct serve_options *o, struct serve_report *report, struct err *e)
{
    struct conversation c = {.options = {.endpoint = o->endpoint,
                                         .keys = o->keys,
                                         .producer = o->producer,
                                         .stream = &source->stream,
                                         .give_up_after_ms = o->give_up_after_ms,
                                         .stop = o->stop}};
    pthread_t thread;
    double seconds[COMPUTE_ACTIVITIES];
    if (compute_new(&c.compute, source, o->keep, o->keep_context, e))
        return e->code;
    int rc = pthread_create(&thread, NULL, converse, &c);
    if (rc) {
        rc = err_errno(e, rc, "cannot start a thread");
    } else {
        compute_run(c.compute);
        pthread_join(thread, NULL);
        compute_seconds(c.compute, seconds);
        *report = (struct serve_report){.blocks = c.report.blocks,
                                        .rows = c.report.rows,
                                        .absent = c.report.absent,
                                        .computing_s = seconds[COMPUTE_COMPUTING],
                                        .sending_s = seconds[COMPUTE_SENDING],
                                        .waiting_s = seconds[COMPUTE_WAITING]};
        snprintf(report->end_reason, sizeof report->end_reason, "%s", c.report.end_reason);
        rc = c.rc;
        *e = c.error;
    }
    compute_free(c.compute);
    return rc;
}
