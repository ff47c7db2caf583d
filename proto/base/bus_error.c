/* bus_error.c - a table of maps that a signal handler can read; see bus_error.h.
 *
 * The lock keeps writers apart. The handler takes none: an entry counts once `begin` is set, which is set last and
 * cleared first. A map that finds the table full is not named. */
#include "bus_error.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_MAPS = 1024, NAME_SIZE = 256 };

static struct {
    _Atomic uintptr_t begin; /* 0: free */
    size_t size;
    char path[NAME_SIZE]; /* its end, if it is longer */
} maps[MAX_MAPS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *prefix;

void bus_error_watch(const void *begin, size_t size, const char *path)
{
    size_t n = strlen(path);
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < MAX_MAPS; i++)
        if (!atomic_load(&maps[i].begin)) {
            maps[i].size = size;
            snprintf(maps[i].path, NAME_SIZE, "%s", path + (n < NAME_SIZE ? 0 : n - NAME_SIZE + 1));
            atomic_store(&maps[i].begin, (uintptr_t)begin);
            break;
        }
    pthread_mutex_unlock(&lock);
}

void bus_error_forget(const void *begin)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; begin && i < MAX_MAPS; i++)
        if (atomic_load(&maps[i].begin) == (uintptr_t)begin) {
            atomic_store(&maps[i].begin, 0);
            break;
        }
    pthread_mutex_unlock(&lock);
}

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(1);
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    uintptr_t at = (uintptr_t)info->si_addr;
    for (size_t i = 0; i < MAX_MAPS; i++) {
        uintptr_t begin = atomic_load(&maps[i].begin);
        size_t pages = (maps[i].size + 4095) / 4096 * 4096; /* of the smallest size that there is */
        if (!begin || at < begin || at - begin >= pages)
            continue;
        say(prefix);
        say(": ");
        say(maps[i].path);
        say(": cannot be read any more: cut short while in use, or its disk fails\n");
        _exit(1);
    }
    signal(number, SIG_DFL); /* It is no map of ours: the read is tried again, and kills as ever. */
}

void bus_error_catch(const char *program)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    prefix = program;
    sigaction(SIGBUS, &action, NULL);
}
