/* cpu.h - which of the instruction sets that we compile inner loops for this processor runs.
 *
 * The default build is for any x86-64 (or another processor): faster versions are chosen at run time. */
#ifndef CROSSFEED_CPU_H
#define CROSSFEED_CPU_H

#include <stdbool.h>

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

#endif
