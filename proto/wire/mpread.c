/* mpread.c - the msgpack cursor; see mpread.h. Format: github.com/msgpack/msgpack/blob/master/spec.md */
#include "mpread.h"

#include <string.h>

#include "text.h"

void mpread_init(struct mpread *r, const void *data, size_t size)
{
    *r = (struct mpread){.at = data, .end = (const unsigned char *)data + size};
}

void mpread_fail(struct mpread *r, const char *why)
{
    if (!r->why)
        r->why = why;
}

static const unsigned char *take(struct mpread *r, size_t n)
{
    if (r->why)
        return NULL;
    if ((size_t)(r->end - r->at) < n) {
        mpread_fail(r, "frame ends early");
        return NULL;
    }
    const unsigned char *p = r->at;
    r->at += n;
    return p;
}

/* Reads a big-endian unsigned number of n bytes. */
static uint64_t take_be(struct mpread *r, size_t n)
{
    const unsigned char *p = take(r, n);
    uint64_t x = 0;
    for (size_t i = 0; p && i < n; i++)
        x = x << 8 | p[i];
    return x;
}

static unsigned take_tag(struct mpread *r)
{
    const unsigned char *p = take(r, 1);
    return p ? *p : 0xc1; /* 0xc1 is never used by msgpack */
}

/* Reads a count whose forms are: fix (tag base..base+fix_max), then 16 and 32 bits (tag16, tag16 + 1). */
static uint32_t take_count(struct mpread *r, unsigned base, unsigned fix_max, unsigned tag16, uint32_t max,
                           const char *not_one, const char *too_many)
{
    unsigned tag = take_tag(r);
    uint64_t n = 0;
    if (tag >= base && tag <= base + fix_max)
        n = tag - base;
    else if (tag == tag16)
        n = take_be(r, 2);
    else if (tag == tag16 + 1)
        n = take_be(r, 4);
    else
        mpread_fail(r, not_one);
    if (n > max)
        mpread_fail(r, too_many);
    return r->why ? 0 : (uint32_t)n;
}

uint32_t mpread_map(struct mpread *r, uint32_t max)
{
    return take_count(r, 0x80, 15, 0xde, max, "not a map", "map with too many pairs");
}

uint32_t mpread_array(struct mpread *r, uint32_t max)
{
    return take_count(r, 0x90, 15, 0xdc, max, "not an array", "array with too many elements");
}

uint64_t mpread_uint(struct mpread *r, uint64_t max)
{
    unsigned tag = take_tag(r);
    uint64_t x = 0;
    if (tag <= 0x7f)
        x = tag;
    else if (tag >= 0xcc && tag <= 0xcf)
        x = take_be(r, (size_t)1 << (tag - 0xcc));
    else
        mpread_fail(r, "not an unsigned integer");
    if (x > max)
        mpread_fail(r, "integer too large");
    return r->why ? 0 : x;
}

bool mpread_bool(struct mpread *r)
{
    unsigned tag = take_tag(r);
    if (tag != 0xc2 && tag != 0xc3)
        mpread_fail(r, "not a boolean");
    return tag == 0xc3;
}

double mpread_float(struct mpread *r)
{
    unsigned tag = take_tag(r);
    if (tag == 0xca) {
        uint32_t u = (uint32_t)take_be(r, 4);
        float x;
        memcpy(&x, &u, 4);
        return (double)x;
    }
    if (tag == 0xcb) {
        uint64_t u = take_be(r, 8);
        double x;
        memcpy(&x, &u, 8);
        return x;
    }
    mpread_fail(r, "not a float");
    return 0;
}

bool mpread_nil(struct mpread *r)
{
    if (r->why || r->at == r->end || *r->at != 0xc0)
        return false;
    r->at++;
    return true;
}

size_t mpread_bin(struct mpread *r, void *dst, size_t size)
{
    unsigned tag = take_tag(r);
    uint64_t n = 0;
    if (tag >= 0xc4 && tag <= 0xc6)
        n = take_be(r, (size_t)1 << (tag - 0xc4));
    else
        mpread_fail(r, "not a bin");
    if (n > size)
        mpread_fail(r, "bin too long");
    const unsigned char *p = take(r, r->why ? 0 : (size_t)n);
    if (r->why)
        return 0;
    memcpy(dst, p, (size_t)n);
    return (size_t)n;
}

void mpread_text(struct mpread *r, char *dst, size_t size)
{
    unsigned tag = take_tag(r);
    uint64_t n = 0;
    dst[0] = '\0';
    if (tag >= 0xa0 && tag <= 0xbf)
        n = tag - 0xa0;
    else if (tag >= 0xd9 && tag <= 0xdb)
        n = take_be(r, (size_t)1 << (tag - 0xd9));
    else
        mpread_fail(r, "not a string");
    if (n >= size)
        mpread_fail(r, "string too long");
    const unsigned char *p = take(r, r->why ? 0 : (size_t)n);
    for (size_t i = 0; p && i < n; i++)
        if (p[i] < 0x20 || p[i] == 0x7f)
            mpread_fail(r, "control character in a string");
    if (r->why || !p)
        return;
    if (!text_is_utf8((const char *)p, (size_t)n)) {
        mpread_fail(r, "string that is not UTF-8");
        return;
    }
    memcpy(dst, p, (size_t)n);
    dst[n] = '\0';
}
