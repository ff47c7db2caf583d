/* clock.h - monotonic time, so that clock jumps do not matter. */
#ifndef CROSSFEED_CLOCK_H
#define CROSSFEED_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* Returns seconds since some moment in the past. */
static inline double clock_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Returns the same in whole milliseconds. */
static inline int64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Returns the moment ms milliseconds from now, for pthread_cond_timedwait on a condition of clock_init_condition. */
static inline struct timespec clock_after(int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

/* Initialises a condition whose timed waits go by this clock. */
static inline void clock_init_condition(pthread_cond_t *c)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(c, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

#endif
