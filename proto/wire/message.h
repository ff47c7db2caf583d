/* message.h - the messages of wire protocol v1 as C structs, and their msgpack form (PROTOCOL.md).
 *
 * One table a message describes its fields; encoding, decoding and the strictness (every field once, none unknown,
 * bounded sizes, end of frame = end of map) all follow from it. Decoding reads through a bounded cursor and allocates
 * nothing. */
#ifndef CROSSFEED_MESSAGE_H
#define CROSSFEED_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "stream.h"

#define PROTOCOL_VERSION 1
#define MESSAGE_MAX_BYTES ((size_t)64 << 10)  /* a header frame; a payload is a frame of its own */
#define MESSAGE_SHORT_BYTES ((size_t)4 << 10) /* of all but those that carry sites, a scale or origins */
#define MESSAGE_TEXT_SIZE 512                 /* reasons and texts, with the NUL */
#define MESSAGE_NAME_SIZE 64                  /* software, producer id, with the NUL */

enum message_type {
    MESSAGE_HELLO,
    MESSAGE_WELCOME,
    MESSAGE_REJECT,
    MESSAGE_LEASE,
    MESSAGE_BATCH, /* the only one with a payload frame */
    MESSAGE_ERROR,
    MESSAGE_PING,
    MESSAGE_PONG,
    MESSAGE_BYE,
    MESSAGE_BYE_ACK,
    MESSAGE_END,
    MESSAGE_TYPES,
};

/* Returns the name that the wire has: "HELLO", ... */
const char *message_type_name(enum message_type type);

struct message_hello {
    uint32_t version;
    char software[MESSAGE_NAME_SIZE], producer[MESSAGE_NAME_SIZE];
    struct stream stream;
};

struct message_welcome {
    char run[FINGERPRINT_SIZE];
    enum row_dtype dtype;
    bool has_scale; /* false: the trainer is measuring it; a second WELCOME will bring it */
    uint32_t n_scale;
    float scale[STREAM_MAX_SITES]; /* [n_scale] */
    uint32_t block_seqs, credit, heartbeat_ms, timeout_ms;
};

struct message_lease {
    uint64_t lease;
    uint32_t block, first, count; /* sequences first .. first + count - 1 */
    bool scaled;                  /* false: raw fp32 rows */
};

struct message_batch {
    uint64_t lease;
    uint32_t block, chunk, chunks, rows;
    uint64_t checksum;                         /* XXH3-64 of the payload frame and the origins after it */
    struct row_origin origins[CHUNK_MAX_ROWS]; /* [rows] */
};

struct message_error {
    uint64_t lease;               /* 0: not about a lease */
    char code[MESSAGE_NAME_SIZE]; /* "unknown-peer", "source", ... */
    char text[MESSAGE_TEXT_SIZE];
};

struct message_text { /* REJECT and BYE */
    char reason[MESSAGE_TEXT_SIZE];
};

struct message_ping { /* PING and PONG */
    uint64_t token;
    /* PING: shares, 0 to 1, of the producer's time since its last PING; the rest it waited for leases */
    float computing, sending; /* sending: it did not compute, while what it had computed was on its way out */
};

struct message_end {
    bool ok; /* false: the run stopped on an error */
    char reason[MESSAGE_TEXT_SIZE];
};

struct message {
    enum message_type type;
    union {
        struct message_hello hello;
        struct message_welcome welcome;
        struct message_text text;
        struct message_lease lease;
        struct message_batch batch;
        struct message_error error;
        struct message_ping ping;
        struct message_end end;
    };
};

/* Writes the msgpack form into buffer [MESSAGE_MAX_BYTES]; *size = its bytes. Returns ERR_INPUT if it does not fit. */
int message_encode(const struct message *m, unsigned char *buffer, size_t *size, struct err *e);

/* Reads one whole frame, which may be unaligned; refuses (ERR_PEER) whatever is not exactly one known message. */
int message_decode(struct message *m, const unsigned char *data, size_t size, struct err *e);

#endif
