/* mpread.h - a bounded cursor over msgpack bytes: reads exactly what is asked for, never allocates.
 *
 * Sticky: after the first failure every read returns 0/false and `why` says what was wrong. msgpack-c's own unpacker
 * allocates by the counts that a peer claims (2 GB for five bytes), so it is used for packing only. */
#ifndef CROSSFEED_MPREAD_H
#define CROSSFEED_MPREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mpread {
    const unsigned char *at, *end;
    const char *why; /* NULL: no failure so far */
};

void mpread_init(struct mpread *r, const void *data, size_t size);
void mpread_fail(struct mpread *r, const char *why); /* keeps the first reason */

uint32_t mpread_map(struct mpread *r, uint32_t max);   /* number of pairs */
uint32_t mpread_array(struct mpread *r, uint32_t max); /* number of elements */
uint64_t mpread_uint(struct mpread *r, uint64_t max);
bool mpread_bool(struct mpread *r);
double mpread_float(struct mpread *r); /* float32 or float64 */
bool mpread_nil(struct mpread *r);     /* true and consumed if the next value is nil; else false, nothing consumed */
/* Copies a bin of at most size bytes into dst; returns its size. */
size_t mpread_bin(struct mpread *r, void *dst, size_t size);
/* Copies a str of at most size - 1 bytes into dst, NUL-terminated. Control characters are refused (logs, terminals). */
void mpread_text(struct mpread *r, char *dst, size_t size);

#endif
