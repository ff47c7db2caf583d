/* cpu.h - which of the instruction sets that we compile inner loops for this processor runs.
 *
 * The default build is for any x86-64 (or another processor): faster versions are chosen at run time. */
#ifndef CROSSFEED_CPU_H
#define CROSSFEED_CPU_H

#include <stdbool.h>
#include <stddef.h>

static inline bool cpu_has_avx512(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    return false;
#endif
}

static inline bool cpu_has_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

/* Of inner loops compiled as NAME_avx512, NAME_avx2 and NAME_portable: pointers to all versions, best first. A processor
 * that runs one runs those behind it, too. */
#if defined(__x86_64__)
#define CPU_VERSIONS(name)                             \
    {                                                  \
        &name##_avx512, &name##_avx2, &name##_portable \
    }
#else
#define CPU_VERSIONS(name) \
    {                      \
        &name##_portable   \
    }
#endif

/* Index of the first of them that this processor runs. */
static inline size_t cpu_first_version(void)
{
#if defined(__x86_64__)
    return cpu_has_avx512() ? 0 : cpu_has_avx2() ? 1 : 2;
#else
    return 0;
#endif
}

#endif
