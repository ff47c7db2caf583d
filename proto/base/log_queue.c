/* log_queue.c - see log_queue.h. The lines stand in a ring, each after its size. */
#include "log_queue.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

#define RING_BYTES ((size_t)256 << 10)
#define EXIT_MS 1000
#define LINE_MS 100

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static pthread_cond_t changed;
static bool started;
static const char *prefix;
static char ring[RING_BYTES];
static size_t first, used;                         /* bytes */
static bool writing;                               /* the thread has a line in its hands */
static unsigned long long dropped, taken, written; /* lines; taken and written count those that stood in the ring */
static bool late;                                  /* somebody has waited in vain for the line that is being written */

static void copy_in(const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ring[(first + used + i) % RING_BYTES] = ((const char *)from)[i];
    used += size;
}

static void copy_out(void *to, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((char *)to)[i] = ring[(first + i) % RING_BYTES];
    first = (first + size) % RING_BYTES;
    used -= size;
}

/* Writes all of it, however long that takes. What cannot be written is lost. */
static void write_out(const char *line, size_t size)
{
    struct pollfd err = {.fd = STDERR_FILENO, .events = POLLOUT};
    while (size) {
        ssize_t n = write(STDERR_FILENO, line, size);
        if (n < 0 && errno == EAGAIN) /* somebody else made it so */
            poll(&err, 1, -1);
        else if (n < 0 && errno != EINTR)
            return;
        size -= n > 0 ? (size_t)n : 0;
        line += n > 0 ? n : 0;
    }
}

static void *writer_thread(void *nothing)
{
    char line[LOG_LINE_SIZE];
    pthread_mutex_lock(&lock);
    for (;;) {
        size_t size;
        bool of_ring;
        while (!used && !dropped) {
            writing = false;
            pthread_cond_broadcast(&changed);
            pthread_cond_wait(&changed, &lock);
        }
        of_ring = used > 0;
        if (of_ring) {
            copy_out(&size, sizeof size);
            copy_out(line, size);
        } else {
            size =
                (size_t)snprintf(line, sizeof line, "%s: ... and %llu lines that standard error did not take in time\n",
                                 prefix, dropped);
            dropped = 0;
        }
        writing = true;
        pthread_mutex_unlock(&lock);
        write_out(line, size);
        pthread_mutex_lock(&lock);
        written += of_ring;
        late = false;
        pthread_cond_broadcast(&changed);
    }
    return nothing;
}

/* Waits until all is written, or nothing moves any more. */
static void drain(void)
{
    pthread_mutex_lock(&lock);
    bool moves = true;
    while ((used || dropped || writing) && moves) {
        unsigned long long before = written;
        struct timespec until = clock_after(EXIT_MS);
        while (written == before && pthread_cond_timedwait(&changed, &lock, &until) != ETIMEDOUT)
            ;
        moves = written != before;
    }
    pthread_mutex_unlock(&lock);
}

void log_queue_start(const char *program)
{
    pthread_t thread;
    sigset_t all, old;
    prefix = program;
    clock_init_condition(&changed);
    sigfillset(&all); /* signals are for the other threads */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    started = pthread_create(&thread, NULL, writer_thread, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (started) {
        pthread_detach(thread);
        atexit(drain);
    }
}

bool log_queue_put(const char *line, size_t size)
{
    if (!started)
        return false;
    pthread_mutex_lock(&lock);
    if (used + sizeof size + size <= RING_BYTES) {
        copy_in(&size, sizeof size);
        copy_in(line, size);
        unsigned long long mine = ++taken;
        struct timespec until = clock_after(LINE_MS);
        pthread_cond_broadcast(&changed);
        while (written < mine && !late)
            late = pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT;
    } else {
        dropped++;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return true;
}
