/* status_writer.c - see status_writer.h. */
#include "status_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "clock.h"
#include "file.h"
#include "ingest.h"
#include "json_file.h"
#include "log.h"
#include "mem.h"
#include "status.h"
#include "status_json.h"

#define NAME "status.json"
#define TEMPORARY \
    ".status.json.tmp" /* one name, unlike other outputs': one trainer has the folder, and a killed one leaves nothing that would stay */
#define STOP_MS 5000 /* that the last status.json may take */

struct status_writer {
    struct status *status;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the next five */
    pthread_cond_t changed;
    struct ingest *ingest; /* NULL: there is none yet */
    bool stopping;         /* once more, and no more */
    bool looking, ended;   /* the thread has the ingest or the status in its hands; it is about to return */
    bool abandoned;        /* the disk hangs and nobody waits for the thread: ingest and status are no more */
    /* the thread's own: */
    char path[4096]; /* for messages */
    int folder; /* the run's, open: if it is renamed, the file goes with it, and not into another that takes its name */
    bool write_failed; /* it was said already */
    struct ingest_snapshot taken;
    struct status_snapshot snapshot;
};

/* Returns whether the file was written and renamed; errno says why not. */
static bool replace_file(const struct status_writer *w, const char *text)
{
    unlinkat(w->folder, TEMPORARY, 0); /* a link that somebody has put there is not written through */
    int fd = openat(w->folder, TEMPORARY, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f) {
        int saved = errno;
        if (fd >= 0)
            close(fd);
        errno = saved;
        return false;
    }
    bool written = fputs(text, f) >= 0 && fputc('\n', f) >= 0 && fflush(f) == 0;
    int failed = written ? 0 : errno;
    if (fclose(f) != 0 && !failed)
        failed = errno;
    if (!failed && renameat(w->folder, TEMPORARY, w->folder, NAME) != 0)
        failed = errno;
    if (failed)
        unlinkat(w->folder, TEMPORARY, 0);
    errno = failed;
    return !failed;
}

static void write_file(struct status_writer *w)
{
    json_t *value = status_to_json(&w->snapshot);
    struct err e;
    char *text = json_text(value, JSON_INDENT(2) | JSON_REAL_PRECISION(9), "status", &e);
    bool written = text && replace_file(w, text);
    if (!written && !w->write_failed)
        log_line("%s: cannot write: %s; the run goes on", w->path, text ? strerror(errno) : e.message);
    w->write_failed |= !written;
    mem_free(text);
    json_decref(value);
}

static void release(struct status_writer *w)
{
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    if (w->folder >= 0)
        close(w->folder);
    mem_free(w);
}

static void *writer_thread(void *argument)
{
    struct status_writer *w = argument;
    pthread_mutex_lock(&w->lock);
    for (bool last = false; !last && !w->abandoned;) {
        last = w->stopping;
        w->looking = true;
        struct ingest *in = w->ingest;
        pthread_mutex_unlock(&w->lock);
        if (in) {
            ingest_snapshot(in, &w->taken);
            status_ingest(w->status, &w->taken);
        }
        status_snapshot(w->status, &w->snapshot);
        pthread_mutex_lock(&w->lock);
        w->looking = false;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
        write_file(w);
        struct timespec until = clock_after(STATUS_EVERY_MS);
        pthread_mutex_lock(&w->lock);
        while (!last && !w->stopping && pthread_cond_timedwait(&w->changed, &w->lock, &until) != ETIMEDOUT)
            ;
    }
    w->ended = true;
    bool abandoned = w->abandoned;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (abandoned)
        release(w);
    return NULL;
}

int status_writer_start(struct status_writer **out, struct status *status, const char *folder, struct err *e)
{
    *out = NULL;
    struct status_writer *w = mem_alloc(1, sizeof *w, "status writer", e);
    if (!w)
        return ERR_MEMORY;
    w->status = status;
    pthread_mutex_init(&w->lock, NULL);
    clock_init_condition(&w->changed);
    int rc = file_join(w->path, sizeof w->path, folder, NAME, e);
    w->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && w->folder < 0)
        rc = err_errno(e, errno, "%s: cannot open folder", folder);
    if (rc == 0 && (rc = pthread_create(&w->thread, NULL, writer_thread, w)) != 0)
        rc = err_errno(e, rc, "cannot start the status writer's thread");
    if (rc) {
        release(w);
        return rc;
    }
    *out = w;
    return 0;
}

void status_writer_watch(struct status_writer *w, struct ingest *in)
{
    pthread_mutex_lock(&w->lock);
    w->ingest = in;
    pthread_mutex_unlock(&w->lock);
}

void status_writer_stop(struct status_writer *w)
{
    if (!w)
        return;
    bool late = false;
    struct timespec until = clock_after(STOP_MS);
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->changed);
    while (!w->ended && !late)
        late = pthread_cond_timedwait(&w->changed, &w->lock, &until) == ETIMEDOUT;
    while (!w->ended && w->looking) /* which is soon over */
        pthread_cond_wait(&w->changed, &w->lock);
    bool abandoned = w->abandoned = !w->ended;
    if (abandoned) {
        log_line("%s: still being written after %d s; the run ends without it", w->path, STOP_MS / 1000);
        pthread_detach(w->thread);
    }
    pthread_mutex_unlock(&w->lock);
    if (abandoned) /* w is the thread's from now on, which frees it */
        return;
    pthread_join(w->thread, NULL);
    release(w);
}
