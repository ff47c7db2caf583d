/* messages.h - one sample of each message in each of its shapes, for the tests of the codec.
 *
 * Frames are handed to the decoder in heap blocks of their exact size, so that AddressSanitizer sees a read past the
 * end. To be included after cmocka.h. */
#ifndef CROSSFEED_MESSAGES_H
#define CROSSFEED_MESSAGES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"

static struct message m, back; /* 40 KB each */
static unsigned char frame[MESSAGE_MAX_BYTES];

/* ---- samples ---- */

static inline void hello(uint32_t n_sites, uint32_t n_models, bool scale)
{
    struct stream *s = &m.hello.stream;
    m.type = MESSAGE_HELLO;
    m.hello.version = PROTOCOL_VERSION;
    strcpy(m.hello.software, "crossfeed 0.1.0");
    strcpy(m.hello.producer, "h\xc3\xb6st-7"); /* UTF-8 is text */
    s->n_sites = n_sites;
    s->d_model = 768;
    s->seq_len = 1024;
    s->rows_per_seq = 1023;
    s->n_seq = UINT32_MAX;
    s->vocab_size = 50257;
    s->n_models = n_models;
    s->can_bf16 = true;
    s->can_f32 = n_sites > 1;
    s->has_scale = scale;
    for (uint32_t i = 0; i < n_sites; i++) {
        snprintf(s->sites[i], SITE_NAME_SIZE, "%u:blocks.%u.hook_resid_post_%016u", i % 2, i, i);
        s->scale[i] = scale ? 0.1f + (float)i : 0;
    }
    memset(s->tokens_fingerprint, 'a', FINGERPRINT_SIZE - 1);
    for (uint32_t i = 0; i < n_models; i++)
        memset(s->model_fingerprints[i], '0' + (int)i, FINGERPRINT_SIZE - 1);
}

static inline void welcome(uint32_t n_scale)
{
    m.type = MESSAGE_WELCOME;
    strcpy(m.welcome.run, "0123456789abcdef0123456789abcdef");
    m.welcome.dtype = n_scale ? ROW_F32 : ROW_BF16;
    m.welcome.has_scale = n_scale > 0;
    m.welcome.n_scale = n_scale;
    for (uint32_t i = 0; i < n_scale; i++)
        m.welcome.scale[i] = 1.0f / (float)(i + 3);
    m.welcome.block_seqs = 4;
    m.welcome.credit = 2;
    m.welcome.heartbeat_ms = 1000;
    m.welcome.timeout_ms = 10000;
}

static inline void batch_rows(uint32_t rows)
{
    m.batch.rows = rows;
    m.batch.checksum = 0x0123456789abcdef;
    for (uint32_t i = 0; i < rows; i++)
        m.batch.origins[i] = (struct row_origin){i / 7, i % 7 + 1, UINT32_MAX - i};
}

/* Fills m with sample i of each shape; false when there is no more. */
static inline bool sample(int i)
{
    memset(&m, 0, sizeof m);
    switch (i) {
    case 0:
        hello(2, 2, false);
        return true;
    case 1:
        hello(1, 0, true);
        return true;
    case 2:
        welcome(0);
        return true;
    case 3:
        welcome(3);
        return true;
    case 4:
        m.type = MESSAGE_REJECT;
        memset(m.text.reason, 'x', MESSAGE_TEXT_SIZE - 1);
        return true;
    case 5:
        m.type = MESSAGE_LEASE;
        m.lease.lease = UINT64_MAX;
        m.lease.block = 65536;
        m.lease.first = 255;
        m.lease.count = 128;
        m.lease.scaled = true;
        return true;
    case 6:
        m.type = MESSAGE_BATCH;
        m.batch.lease = 127;
        m.batch.block = UINT32_MAX;
        m.batch.chunks = 3;
        batch_rows(3);
        return true;
    case 7:
        m.type = MESSAGE_ERROR;
        m.error.lease = 1;
        strcpy(m.error.code, "source");
        strcpy(m.error.text, "sequence 3: site 1: NaN");
        return true;
    case 8:
    case 9:
        m.type = i == 8 ? MESSAGE_PING : MESSAGE_PONG;
        m.ping.token = 1ull << 33;
        m.ping.computing = i == 8 ? 0.25f : 0;
        m.ping.sending = i == 8 ? 1 : 0;
        return true;
    case 10:
        m.type = MESSAGE_BYE;
        return true;
    case 11:
        m.type = MESSAGE_BYE_ACK;
        return true;
    case 12:
        m.type = MESSAGE_END;
        m.end.ok = true;
        strcpy(m.end.reason, "200000 steps done");
        return true;
    case 13:
        hello(STREAM_MAX_SITES, STREAM_MAX_MODELS, true);
        return true;
    case 14:
        welcome(STREAM_MAX_SITES);
        return true;
    case 15:
        m.type = MESSAGE_BATCH;
        batch_rows(CHUNK_MAX_ROWS);
        return true;
    default:
        return false;
    }
}
#define N_SMALL 13 /* samples of less than a kilobyte */

static inline size_t encode(void)
{
    struct err e = {0};
    size_t size = 0;
    if (message_encode(&m, frame, &size, &e))
        fail_msg("%s", e.message);
    assert_true(size > 0 && size <= MESSAGE_MAX_BYTES);
    return size;
}

/* message_decode into `back` of a block of just that size. */
static inline int decode(const unsigned char *data, size_t size, struct err *e)
{
    unsigned char *exact = malloc(size ? size : 1);
    memcpy(exact, data, size);
    int result = message_decode(&back, exact, size, e);
    free(exact);
    return result;
}

#endif
