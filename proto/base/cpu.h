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

/* The functions between CPU_TARGET(...) and CPU_TARGET_END are compiled for these instruction sets: the ones that
 * cpu_has_avx512 and cpu_has_avx2 look for. Each compiler has its own words for it. */
#define CPU_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define CPU_AVX512 "avx512f,avx512bw,avx512dq,avx512vl"
#define CPU_TARGET(sets) CPU_PRAGMA(clang attribute push(__attribute__((target(sets))), apply_to = function))
#define CPU_TARGET_END CPU_PRAGMA(clang attribute pop)
#else
#define CPU_AVX512 "avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"
#define CPU_TARGET(sets) CPU_PRAGMA(GCC push_options) CPU_PRAGMA(GCC target(sets))
#define CPU_TARGET_END CPU_PRAGMA(GCC pop_options)
#endif
#define CPU_AVX2 "avx2"

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
