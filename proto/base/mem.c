/* mem.c - aligned zeroed allocations and checked sizes; see mem.h.
 *
 * calloc gives large blocks as untouched zero pages, so peak RSS counts what was used, not what was reserved. */
#include "mem.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LARGE ((size_t)4 << 20)

bool size_product(const size_t *factors, size_t n, size_t *out)
{
    size_t product = 1;
    for (size_t i = 0; i < n; i++)
        if (!size_mul(product, factors[i], &product))
            return false;
    *out = product;
    return true;
}

void *mem_alloc(size_t count, size_t size, const char *what, struct err *e)
{
    size_t bytes;
    if (!size_mul(count, size, &bytes) || bytes > SIZE_MAX - 128) {
        err_set(e, ERR_MEMORY, "%s: %zu x %zu bytes does not fit in memory", what, count, size);
        return NULL;
    }
    /* calloc (lazy zero pages above the mmap threshold), aligned by hand; the raw pointer lies just before the block.
     */
    unsigned char *raw = calloc(1, bytes + 64 + sizeof(void *));
    if (!raw) {
        err_set(e, ERR_MEMORY, "%s: cannot get %zu bytes of memory", what, bytes);
        return NULL;
    }
    /* Large blocks in large pages: strided work on a matrix else misses the TLB at every row. Advice, may fail. */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = ((uintptr_t)raw + page - 1) / page * page;
    if (bytes >= LARGE)
        madvise((void *)start, ((uintptr_t)raw + bytes - start) / page * page, MADV_HUGEPAGE);
    unsigned char *p = (unsigned char *)(((uintptr_t)raw + sizeof(void *) + 63) & ~(uintptr_t)63);
    memcpy(p - sizeof(void *), &raw, sizeof raw);
    return p;
}

void mem_free(void *p)
{
    if (!p)
        return;
    void *raw;
    memcpy(&raw, (unsigned char *)p - sizeof(void *), sizeof raw);
    free(raw);
}

/* A line "key:   123 kB" of /proc/self/status, in bytes. */
static size_t own_status(const char *key)
{
    char line[256];
    size_t kilobytes = 0, n = strlen(key);
    FILE *f = fopen("/proc/self/status", "re");
    while (f && kilobytes == 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && line[n] == ':')
            kilobytes = strtoull(line + n + 1, NULL, 10);
    if (f)
        fclose(f);
    return kilobytes * 1024;
}

size_t mem_rss(void)
{
    return own_status("VmRSS");
}

size_t mem_peak_rss(void)
{
    return own_status("VmHWM");
}
