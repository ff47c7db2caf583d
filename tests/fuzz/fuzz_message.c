/* fuzz_message.c - any frame to the decoder of either side; a HELLO that passes, to the trainer's admission.
 *
 * What is let in must be a message like any other: the same after another trip. */
#include "validate.h"
#include "fuzz.h"
#include "message.h"

static struct message m, back; /* 50 KB each */

static void admit(void)
{
    static struct stream first;
    static const float scale[STREAM_MAX_SITES] = {1, 2};
    static unsigned char again[MESSAGE_MAX_BYTES];
    struct validate_terms terms = {.need_bf16 = true, .need_f32 = true};
    static struct scale_list list;
    struct err e = {0};
    size_t size;
    if (validate_hello(&terms, &m.hello, &e)) {
        MUST(e.code && e.message[0]);
        return;
    }
    first = m.hello.stream; /* the run's, as ingest.c would keep it */
    MUST(stream_row_bytes(&first, ROW_F32) <= CHUNK_MAX_BYTES && stream_chunk_rows(&first, ROW_F32) >= 1);
    terms.ours = &first;
    MUST(validate_hello(&terms, &m.hello, &e) == 0);
    terms.stream_fixed = true;
    scale_list_set(&list, scale, 2);
    terms.scale = &list;
    validate_hello(&terms, &m.hello, &e);
    MUST(message_encode(&m, again, &size, &e) == 0);
    MUST(stream_pairs_models(&first, &e) == 0 || e.code == ERR_INPUT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char again[MESSAGE_MAX_BYTES];
    struct err e = {0};
    if (message_decode(&m, data, size, &e)) {
        MUST(e.code == ERR_PEER && e.message[0]);
        return 0;
    }
    MUST(m.type < MESSAGE_TYPES && size <= MESSAGE_MAX_BYTES);
    MUST(message_encode(&m, again, &size, &e) == 0);
    MUST(message_decode(&back, again, size, &e) == 0);
    MUST(memcmp(&m, &back, sizeof m) == 0);
    if (m.type == MESSAGE_HELLO)
        admit();
    return 0;
}
