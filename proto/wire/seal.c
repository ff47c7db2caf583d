/* seal.c - XXH3-64 of the message, little-endian; see seal.h. */
#include "seal.h"

#include <inttypes.h>
#include <string.h>

#include "fingerprint.h"

size_t seal_add(unsigned char *frame, size_t size)
{
    uint64_t sum = fingerprint_checksum(frame, size, NULL, 0);
    memcpy(frame + size, &sum, SEAL_BYTES);
    return size + SEAL_BYTES;
}

int seal_check(const unsigned char *frame, size_t *size, struct err *e)
{
    uint64_t sealed, sum;
    if (*size < SEAL_BYTES)
        return err_set(e, ERR_DAMAGED, "damaged message: %zu bytes, its checksum has %zu", *size, SEAL_BYTES);
    size_t bytes = *size - SEAL_BYTES;
    memcpy(&sealed, frame + bytes, SEAL_BYTES);
    sum = fingerprint_checksum(frame, bytes, NULL, 0);
    if (sum != sealed)
        return err_set(e, ERR_DAMAGED, "damaged message: checksum %016" PRIx64 ", its %zu bytes have %016" PRIx64,
                       sealed, bytes, sum);
    *size = bytes;
    return 0;
}
