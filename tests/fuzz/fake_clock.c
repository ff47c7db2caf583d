/* fake_clock.c - a monotonic clock that jumps (the linker's --wrap puts it before the real one), so that silence and
 * time-outs can be scripted. Who waits for a condition until a time must set it right first. */
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "fake_link.h"

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_usleep(useconds_t us);

static _Atomic int64_t ahead_ms;

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = __real_clock_gettime(id, t);
    int64_t ahead = ahead_ms;
    if (rc == 0 && id == CLOCK_MONOTONIC) {
        int64_t ns = t->tv_nsec + ahead % 1000 * 1000000;
        t->tv_sec += ahead / 1000 + ns / 1000000000;
        t->tv_nsec = ns % 1000000000;
    }
    return rc;
}

/* Sleeping costs nothing. */
int __wrap_usleep(useconds_t us)
{
    fake_clock_jump(us / 1000);
    return 0;
}

int64_t fake_clock_set(int64_t ms)
{
    return atomic_exchange(&ahead_ms, ms);
}

void fake_clock_jump(int64_t ms)
{
    ahead_ms += ms;
}
