/* rng.h - counter-based random numbers: every stream is a pure function of (seed, purpose, index).
 *
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). No state survives a restart,
 * so a resumed run draws what the undisturbed one drew. */
#ifndef CROSSFEED_RNG_H
#define CROSSFEED_RNG_H

#include <stddef.h>
#include <stdint.h>

/* What a stream is for; a new use gets a new number, old ones never change. */
enum rng_purpose {
    RNG_BLOCK_ORDER = 1,  /* index = epoch */
    RNG_WINDOW_ORDER = 2, /* index = window */
    RNG_INIT_WEIGHTS = 3, /* index = latent */
    RNG_SYNTHETIC_DICTIONARY = 4,
    RNG_SYNTHETIC_ROWS = 5, /* index = sequence */
    RNG_TEST = 6,
    RNG_AUDIT = 7,           /* index = window << 32 | block */
    RNG_RESAMPLE = 8,        /* index = step */
    RNG_SYNTHETIC_RATES = 9, /* index = 0: which latents fire how often, 1: which are pairs */
};

struct rng {
    uint32_t key[2], counter[4], out[4];
    unsigned used; /* of out */
};

/* Begins the stream of that seed, purpose and index. */
void rng_init(struct rng *r, uint64_t seed, enum rng_purpose purpose, uint64_t index);
/* Returns the stream's next 32 bits. */
uint32_t rng_u32(struct rng *r);
/* Returns a uniform whole number in [0, n), without bias; n > 0. */
uint32_t rng_below(struct rng *r, uint32_t n);
/* Returns a uniform number in [0, 1), of 32 bits. */
double rng_uniform(struct rng *r);
/* Returns a standard normal number: one of the pair that Box-Muller gives. */
double rng_normal(struct rng *r);

/* Fills p with a uniform permutation of 0..n-1 (Fisher-Yates). n < 2^32. */
void rng_permutation(struct rng *r, uint32_t *p, size_t n);

#endif
