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

/* Begins at data, which must stay there while it is read. */
void mpread_init(struct mpread *r, const void *data, size_t size);
/* Fails with that reason (a literal), unless it has failed before. */
void mpread_fail(struct mpread *r, const char *why);

/* Reads a map's head; returns its number of pairs, at most max. */
uint32_t mpread_map(struct mpread *r, uint32_t max);
/* Reads an array's head; returns its number of elements, at most max. */
uint32_t mpread_array(struct mpread *r, uint32_t max);
/* Reads a whole number from 0 to max. */
uint64_t mpread_uint(struct mpread *r, uint64_t max);
bool mpread_bool(struct mpread *r);
/* Reads a float32 or float64. */
double mpread_float(struct mpread *r);
/* Reads nil and returns true if it comes next; else returns false and reads nothing. */
bool mpread_nil(struct mpread *r);
/* Copies a bin of at most size bytes into dst; returns its size. */
size_t mpread_bin(struct mpread *r, void *dst, size_t size);
/* Copies a str of at most size - 1 bytes into dst, NUL-terminated. Control characters are refused (logs, terminals). */
void mpread_text(struct mpread *r, char *dst, size_t size);

#endif
