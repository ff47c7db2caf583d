/* fingerprint.c - XXH3 by libxxhash; see fingerprint.h. */
#include "fingerprint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#ifdef __x86_64__
#include <xxh_x86dispatch.h> /* the same hashes by the widest vectors that the processor has; the plain calls use SSE2 only */
#else
#include <xxhash.h>
#endif

#include "mem.h"

uint64_t fingerprint_checksum(const void *data, size_t size, const void *more, size_t more_size)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, data, size);
    XXH3_64bits_update(&state, more, more_size);
    return XXH3_64bits_digest(&state);
}

int fingerprint_init(struct fingerprint *f, struct err *e)
{
    f->state = mem_alloc(1, sizeof(XXH3_state_t), "fingerprint", e);
    if (!f->state)
        return ERR_MEMORY;
    XXH3_128bits_reset(f->state);
    return 0;
}

void fingerprint_add(struct fingerprint *f, const void *data, size_t size)
{
    XXH3_128bits_update(f->state, data, size);
}

void fingerprint_add_text(struct fingerprint *f, const char *text)
{
    fingerprint_add(f, text, strlen(text) + 1);
}

void fingerprint_finish(struct fingerprint *f, char hex[FINGERPRINT_SIZE])
{
    XXH128_hash_t h = XXH3_128bits_digest(f->state);
    snprintf(hex, FINGERPRINT_SIZE, "%016" PRIx64 "%016" PRIx64, h.high64, h.low64);
    mem_free(f->state);
    f->state = NULL;
}

bool fingerprint_is(const char *text)
{
    return strlen(text) == FINGERPRINT_SIZE - 1 && strspn(text, "0123456789abcdef") == FINGERPRINT_SIZE - 1;
}
