/* mem.c - aligned zeroed allocations and checked sizes; see mem.h.
 *
 * calloc gives large blocks as untouched zero pages, so peak RSS counts what was used, not what was reserved. */
#include "mem.h"

#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef CROSSFEED_FAULTS
#include <pthread.h>
#include <stdatomic.h>
#endif

#define LARGE ((size_t)4 << 20)
#define ALIGNMENT ((size_t)64)
#define MAPPED (1 << 20)

/* What lies just before a block that mem_alloc returned. */
struct head {
    void *raw;    /* what calloc returned */
    size_t bytes; /* of the block */
};

/* Blocks of MAPPED bytes and more are mappings of their own for the whole run: they go back to the kernel when they are freed, and a new one is
 * not touched. Left to itself, glibc raises that size to the largest block that was ever freed, and takes the next one out of the heap, where
 * it sets all of it to zero and keeps it. Messages are smaller: they stay in the heap, which is trimmed only when much of it is free. */
__attribute__((constructor)) static void keep_large_blocks_apart(void)
{
    mallopt(M_MMAP_THRESHOLD, MAPPED);
    mallopt(M_TRIM_THRESHOLD, MAPPED);
}

static _Thread_local size_t raw_failed; /* bytes that the last mem_raw_alloc could not get; 0: none since it was told */

#ifdef CROSSFEED_FAULTS
static unsigned long fail_first; /* 0: no allocation shall fail */
static bool fail_all_after;

static void read_environment(void)
{
    const char *text = getenv("CROSSFEED_FAIL_ALLOCATION");
    char *end;
    if (!text)
        return;
    fail_first = strtoul(text, &end, 10);
    fail_all_after = *end == '+';
}

/* Counts an allocation; true if it shall fail. */
static bool must_fail(const char *what)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static atomic_ulong count;
    pthread_once(&once, read_environment);
    unsigned long n = atomic_fetch_add(&count, 1) + 1;
    if (fail_first && n == fail_first)
        fprintf(stderr, "mem: allocation %lu (%s) fails as asked\n", n, what);
    return fail_first && (n == fail_first || (fail_all_after && n > fail_first));
}
#else
static bool must_fail(const char *what)
{
    (void)what;
    return false;
}
#endif

bool size_product(const size_t *factors, size_t n, size_t *out)
{
    size_t product = 1;
    for (size_t i = 0; i < n; i++)
        if (!size_mul(product, factors[i], &product))
            return false;
    *out = product;
    return true;
}

static struct head head_of(const void *block)
{
    struct head h;
    memcpy(&h, (const unsigned char *)block - sizeof h, sizeof h);
    return h;
}

/* Large blocks in large pages: strided work on a matrix else misses the TLB at every row. This is advice and may fail. */
static void advise_large_pages(unsigned char *raw, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = ((uintptr_t)raw + page - 1) / page * page;
    madvise((void *)start, ((uintptr_t)raw + bytes - start) / page * page, MADV_HUGEPAGE);
}

void *mem_alloc(size_t count, size_t size, const char *what, struct err *e)
{
    struct head h;
    if (!size_mul(count, size, &h.bytes) || h.bytes > PTRDIFF_MAX - ALIGNMENT - sizeof h) {
        err_set(e, ERR_MEMORY, "%s: %zu x %zu bytes does not fit in memory", what, count, size);
        return NULL;
    }
    /* calloc (lazy zero pages above the mmap threshold), aligned by hand. */
    h.raw = must_fail(what) ? NULL : calloc(1, h.bytes + ALIGNMENT + sizeof h);
    if (!h.raw) {
        err_set(e, ERR_MEMORY, "%s: cannot get %zu bytes of memory", what, h.bytes);
        return NULL;
    }
    if (h.bytes >= LARGE)
        advise_large_pages(h.raw, h.bytes);
    uintptr_t past_head = (uintptr_t)h.raw + sizeof h;
    unsigned char *block = (unsigned char *)h.raw + sizeof h + (ALIGNMENT - past_head % ALIGNMENT) % ALIGNMENT;
    memcpy(block - sizeof h, &h, sizeof h);
    return block;
}

void *mem_realloc(void *p, size_t count, size_t size, const char *what, struct err *e)
{
    void *block = mem_alloc(count, size, what, e);
    if (!p || !block)
        return block;
    size_t had = head_of(p).bytes, has = head_of(block).bytes;
    memcpy(block, p, had < has ? had : has);
    mem_free(p);
    return block;
}

char *mem_strdup(const char *text, const char *what, struct err *e)
{
    size_t size = strlen(text) + 1;
    char *copy = mem_alloc(size, 1, what, e);
    return copy ? memcpy(copy, text, size) : NULL;
}

void mem_free(void *p)
{
    if (p)
        free(head_of(p).raw);
}

void *mem_raw_alloc(size_t bytes)
{
    void *p = must_fail("for a library") ? NULL : malloc(bytes ? bytes : 1);
    if (!p)
        raw_failed = bytes ? bytes : 1;
    return p;
}

void mem_raw_free(void *p)
{
    free(p);
}

int mem_raw_failed(const char *what, struct err *e)
{
    size_t bytes = raw_failed;
    raw_failed = 0;
    return bytes ? err_set(e, ERR_MEMORY, "%s: cannot get %zu bytes of memory", what, bytes) : 0;
}

/* Returns the line "key:   123 kB" of /proc/self/status in bytes; 0 if it is not there. */
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
