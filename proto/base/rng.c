/* rng.c - Philox4x32-10; see rng.h. */
#include "rng.h"

#include <math.h>

static void philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1], c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The counter is (position lo, position hi and purpose, index lo, index hi), so that streams never overlap. */
void rng_init(struct rng *r, uint64_t seed, enum rng_purpose purpose, uint64_t index)
{
    *r = (struct rng){.key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
                      .counter = {0, (uint32_t)purpose << 24, (uint32_t)index, (uint32_t)(index >> 32)},
                      .used = 4};
}

uint32_t rng_u32(struct rng *r)
{
    if (r->used == 4) {
        philox(r->key, r->counter, r->out);
        if (++r->counter[0] == 0)
            r->counter[1]++;
        r->used = 0;
    }
    return r->out[r->used++];
}

/* The method is Lemire's: "Fast random integer generation in an interval" (2019). */
uint32_t rng_below(struct rng *r, uint32_t n)
{
    uint64_t product = (uint64_t)rng_u32(r) * n;
    if ((uint32_t)product < n) {
        uint32_t threshold = (0u - n) % n;
        while ((uint32_t)product < threshold)
            product = (uint64_t)rng_u32(r) * n;
    }
    return (uint32_t)(product >> 32);
}

double rng_uniform(struct rng *r)
{
    return (double)rng_u32(r) * 0x1p-32;
}

double rng_normal(struct rng *r)
{
    double u = ((double)rng_u32(r) + 0.5) * 0x1p-32, v = rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void rng_permutation(struct rng *r, uint32_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        size_t j = rng_below(r, (uint32_t)i);
        uint32_t t = p[i - 1];
        p[i - 1] = p[j];
        p[j] = t;
    }
}
