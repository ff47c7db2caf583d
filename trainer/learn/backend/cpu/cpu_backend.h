/* cpu_backend.h - the backend "cpu" (backend.h): weights in this process's memory, steps by BLIS, OpenMP and the loops of kernels.h. */
#ifndef CROSSFEED_CPU_BACKEND_H
#define CROSSFEED_CPU_BACKEND_H

#include "backend.h"

extern const struct backend_ops backend_cpu;

#endif
