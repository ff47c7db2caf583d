/* forward_kernels.c - see forward_kernels.h. One source, forward_kernels_body.h, is compiled for each instruction set;
 * the compiler's vectoriser makes the vectors. */
#include "forward_kernels.h"

#include <math.h>
#include <string.h>

#include "bf16.h"
#include "cpu.h"

/* The range whose exponentials are normal numbers. */
#define EXP_LOWEST (-87.3f)
#define EXP_HIGHEST 88.3f

#if defined(__x86_64__)
CPU_TARGET(CPU_AVX512)
#define VERSION "AVX-512"
#define NAME(x) x##_avx512
#include "forward_kernels_body.h"
#undef VERSION
#undef NAME
CPU_TARGET_END

CPU_TARGET(CPU_AVX2)
#define VERSION "AVX2"
#define NAME(x) x##_avx2
#include "forward_kernels_body.h"
#undef VERSION
#undef NAME
CPU_TARGET_END
#endif

#define VERSION "portable"
#define NAME(x) x##_portable
#include "forward_kernels_body.h"

const struct forward_kernels *forward_kernels_version(size_t i)
{
    static const struct forward_kernels *const all[] = CPU_VERSIONS(kernels);
    size_t version = cpu_first_version() + i;
    return version < sizeof all / sizeof *all ? all[version] : NULL;
}

const struct forward_kernels *forward_kernels_best(void)
{
    return forward_kernels_version(0);
}
