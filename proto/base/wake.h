/* wake.h - an eventfd that tells a polling thread to look. */
#ifndef CROSSFEED_WAKE_H
#define CROSSFEED_WAKE_H

#include <stdint.h>
#include <unistd.h>

/* Tells whoever polls fd; -1: nobody is to be told. A write fails only if the counter is full, and then it is readable
 * anyway. */
static inline void wake(int fd)
{
    uint64_t one = 1;
    if (fd >= 0 && write(fd, &one, sizeof one) < 0)
        return;
}

#endif
