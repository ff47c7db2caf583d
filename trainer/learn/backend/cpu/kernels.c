/* kernels.c - see kernels.h. One source (kernels_body.h) compiled for each instruction set; GCC's vector extensions
 * make the vectors, its vectoriser the element-wise loops. */
#include "kernels.h"

#include <math.h>
#include <string.h>

#include "cpu.h"

#if defined(__x86_64__)
CPU_TARGET(CPU_AVX512)
#define VEC 16
#define NAME(x) x##_avx512
#include "kernels_body.h"
#undef VEC
#undef NAME
CPU_TARGET_END

CPU_TARGET(CPU_AVX2)
#define VEC 8
#define NAME(x) x##_avx2
#include "kernels_body.h"
#undef VEC
#undef NAME
CPU_TARGET_END
#endif

#define VEC 4
#define NAME(x) x##_portable
#include "kernels_body.h"

const struct kernels *kernels_version(size_t i)
{
    static const struct kernels *const all[] = CPU_VERSIONS(kernels);
    size_t version = cpu_first_version() + i;
    return version < sizeof all / sizeof *all ? all[version] : NULL;
}

const struct kernels *kernels_best(void)
{
    return kernels_version(0);
}

uint32_t kernels_flush_denormals(void)
{
#if defined(__x86_64__)
    uint32_t mode = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode | 0x8040); /* flush to zero, denormals are zero */
    return mode;
#else
    return 0;
#endif
}

void kernels_restore_denormals(uint32_t mode)
{
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(mode);
#else
    (void)mode;
#endif
}
