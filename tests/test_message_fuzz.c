/* test_message_fuzz.c - damaged frames: every byte of every message changed in turn, and random edits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "messages.h"
#include "rng.h"

/* What a mutation still lets in must be a message like any other: bounded, terminated, the same after another trip. */
static void check_taken(void)
{
    unsigned char again[MESSAGE_MAX_BYTES];
    size_t size;
    assert_true(back.type < MESSAGE_TYPES);
    memcpy(&m, &back, sizeof m);
    assert_int_equal(message_encode(&m, again, &size, NULL), 0);
    assert_int_equal(message_decode(&back, again, size, NULL), 0);
    assert_memory_equal(&m, &back, sizeof m);
}

static void mutations_do_no_harm(void **state)
{
    (void)state;
    static unsigned char original[MESSAGE_MAX_BYTES];
    for (int i = 0; i < N_SMALL; i++) {
        sample(i);
        size_t size = encode();
        memcpy(original, frame, size);
        for (size_t at = 0; at < size; at++)
            for (unsigned x = 1; x < 256; x++) {
                original[at] ^= (unsigned char)x;
                if (decode(original, size, NULL) == 0 && (x & (x - 1)) == 0)
                    check_taken();
                original[at] ^= (unsigned char)x;
            }
    }
}

static void garbage_does_no_harm(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1, RNG_TEST, 0);
    for (int turn = 0; turn < 20000; turn++) {
        sample((int)rng_below(&r, N_SMALL));
        size_t size = encode();
        for (uint32_t n = 1 + rng_below(&r, 8); n > 0; n--) { /* overwrite, insert or delete */
            size_t at = rng_below(&r, (uint32_t)size);
            uint32_t what = rng_below(&r, 3);
            if (what == 1 && size + 1 < sizeof frame)
                memmove(frame + at + 1, frame + at, size++ - at);
            if (what == 2 && size > 1)
                memmove(frame + at, frame + at + 1, --size - at);
            else
                frame[at] = (unsigned char)rng_u32(&r);
        }
        if (decode(frame, size, NULL) == 0)
            check_taken();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutations_do_no_harm),
        cmocka_unit_test(garbage_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
