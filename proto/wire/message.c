/* message.c - the field tables of wire protocol v1, and the encoder and decoder that walk them; see message.h. */
#include "message.h"

#include <math.h>
#include <string.h>

#include <msgpack.h>

#include "mpread.h"

enum kind { U32, U64, BOOL, SHARE, TEXT, DTYPE, DTYPES, SCALE, SITES, MODELS, ORIGINS };

struct field {
    const char *key;
    enum kind kind;
    size_t offset; /* of the value in struct message; for the composite kinds, of the struct that holds it */
    size_t size;   /* TEXT: capacity */
};

#define TEXT_OF(key, member)                                                             \
    {                                                                                    \
        key, TEXT, offsetof(struct message, member), sizeof((struct message *)0)->member \
    }
#define OF(key, kind, member)                          \
    {                                                  \
        key, kind, offsetof(struct message, member), 0 \
    }
#define END_OF_FIELDS   \
    {                   \
        NULL, U32, 0, 0 \
    }
#define MAX_PAIRS 256 /* of a map: more than ours have, for HELLOs of other versions */

static const struct field hello_fields[] = {
    OF("version", U32, hello.version),
    TEXT_OF("software", hello.software),
    TEXT_OF("producer", hello.producer),
    OF("sites", SITES, hello.stream),
    OF("d_model", U32, hello.stream.d_model),
    OF("seq_len", U32, hello.stream.seq_len),
    OF("rows_per_seq", U32, hello.stream.rows_per_seq),
    OF("n_seq", U32, hello.stream.n_seq),
    OF("vocab_size", U32, hello.stream.vocab_size),
    TEXT_OF("tokens", hello.stream.tokens_fingerprint),
    OF("models", MODELS, hello.stream),
    OF("dtypes", DTYPES, hello.stream),
    OF("scale", SCALE, hello),
    END_OF_FIELDS,
};
static const struct field welcome_fields[] = {
    TEXT_OF("run", welcome.run),
    OF("dtype", DTYPE, welcome.dtype),
    OF("scale", SCALE, welcome),
    OF("block_seqs", U32, welcome.block_seqs),
    OF("credit", U32, welcome.credit),
    OF("heartbeat_ms", U32, welcome.heartbeat_ms),
    OF("timeout_ms", U32, welcome.timeout_ms),
    END_OF_FIELDS,
};
static const struct field text_fields[] = {TEXT_OF("reason", text.reason), END_OF_FIELDS};
static const struct field lease_fields[] = {
    OF("lease", U64, lease.lease), OF("block", U32, lease.block),    OF("first", U32, lease.first),
    OF("count", U32, lease.count), OF("scaled", BOOL, lease.scaled), END_OF_FIELDS,
};
static const struct field batch_fields[] = {
    OF("lease", U64, batch.lease),         OF("block", U32, batch.block),
    OF("chunk", U32, batch.chunk),         OF("chunks", U32, batch.chunks),
    OF("rows", U32, batch.rows),           OF("checksum", U64, batch.checksum),
    OF("origins", ORIGINS, batch.origins), END_OF_FIELDS,
};
static const struct field error_fields[] = {OF("lease", U64, error.lease), TEXT_OF("code", error.code),
                                            TEXT_OF("text", error.text), END_OF_FIELDS};
static const struct field ping_fields[] = {OF("token", U64, ping.token), OF("computing", SHARE, ping.computing),
                                           OF("sending", SHARE, ping.sending), END_OF_FIELDS};
static const struct field pong_fields[] = {OF("token", U64, ping.token), END_OF_FIELDS};
static const struct field no_fields[] = {END_OF_FIELDS};
static const struct field end_fields[] = {OF("ok", BOOL, end.ok), TEXT_OF("reason", end.reason), END_OF_FIELDS};

static const struct {
    const char *name;
    const struct field *fields;
    size_t max_bytes; /* of its frame */
} types[MESSAGE_TYPES] = {
    [MESSAGE_HELLO] = {"HELLO", hello_fields, MESSAGE_MAX_BYTES},
    [MESSAGE_WELCOME] = {"WELCOME", welcome_fields, MESSAGE_MAX_BYTES},
    [MESSAGE_REJECT] = {"REJECT", text_fields, MESSAGE_SHORT_BYTES},
    [MESSAGE_LEASE] = {"LEASE", lease_fields, MESSAGE_SHORT_BYTES},
    [MESSAGE_BATCH] = {"BATCH", batch_fields, MESSAGE_MAX_BYTES},
    [MESSAGE_ERROR] = {"ERROR", error_fields, MESSAGE_SHORT_BYTES},
    [MESSAGE_PING] = {"PING", ping_fields, MESSAGE_SHORT_BYTES},
    [MESSAGE_PONG] = {"PONG", pong_fields, MESSAGE_SHORT_BYTES},
    [MESSAGE_BYE] = {"BYE", text_fields, MESSAGE_SHORT_BYTES},
    [MESSAGE_BYE_ACK] = {"BYE_ACK", no_fields, MESSAGE_SHORT_BYTES},
    [MESSAGE_END] = {"END", end_fields, MESSAGE_SHORT_BYTES},
};

const char *message_type_name(enum message_type type)
{
    return types[type].name;
}

/* Says where a SCALE lives in each of the two messages that have one. */
struct scale_place {
    bool *has;
    uint32_t *n;
    float *values;
};

static struct scale_place scale_of(struct message *m)
{
    if (m->type == MESSAGE_HELLO)
        return (struct scale_place){&m->hello.stream.has_scale, &m->hello.stream.n_sites, m->hello.stream.scale};
    return (struct scale_place){&m->welcome.has_scale, &m->welcome.n_scale, m->welcome.scale};
}

/* ---- encoding, by msgpack-c ---- */

struct out {
    unsigned char *data;
    size_t size;
    bool full; /* something did not fit: the frame is not usable */
};

static int out_write(void *context, const char *bytes, size_t n)
{
    struct out *o = context;
    if (o->full || n > MESSAGE_MAX_BYTES - o->size) {
        o->full = true;
        return -1;
    }
    memcpy(o->data + o->size, bytes, n);
    o->size += n;
    return 0;
}

static void pack_text(msgpack_packer *p, const char *text)
{
    msgpack_pack_str(p, strlen(text));
    msgpack_pack_str_body(p, text, strlen(text));
}

static void pack_field(msgpack_packer *p, const struct field *f, const struct message *m)
{
    const unsigned char *value = (const unsigned char *)m + f->offset;
    const struct stream *s = &m->hello.stream;
    switch (f->kind) {
    case U32:
        msgpack_pack_uint32(p, *(const uint32_t *)(const void *)value);
        break;
    case U64:
        msgpack_pack_uint64(p, *(const uint64_t *)(const void *)value);
        break;
    case BOOL:
        if (*(const bool *)value)
            msgpack_pack_true(p);
        else
            msgpack_pack_false(p);
        break;
    case SHARE:
        msgpack_pack_float(p, *(const float *)(const void *)value);
        break;
    case TEXT:
        pack_text(p, (const char *)value);
        break;
    case DTYPE:
        pack_text(p, row_dtype_name(*(const enum row_dtype *)(const void *)value));
        break;
    case DTYPES:
        msgpack_pack_array(p, (size_t)s->can_bf16 + (size_t)s->can_f32);
        if (s->can_bf16)
            pack_text(p, row_dtype_name(ROW_BF16));
        if (s->can_f32)
            pack_text(p, row_dtype_name(ROW_F32));
        break;
    case SCALE: {
        struct message *writable = (struct message *)(uintptr_t)m; /* only read through it */
        struct scale_place scale = scale_of(writable);
        if (!*scale.has) {
            msgpack_pack_nil(p);
            break;
        }
        msgpack_pack_array(p, *scale.n);
        for (uint32_t i = 0; i < *scale.n; i++)
            msgpack_pack_float(p, scale.values[i]);
        break;
    }
    case SITES:
        msgpack_pack_array(p, s->n_sites);
        for (uint32_t i = 0; i < s->n_sites; i++)
            pack_text(p, s->sites[i]);
        break;
    case MODELS:
        msgpack_pack_array(p, s->n_models);
        for (uint32_t i = 0; i < s->n_models; i++)
            pack_text(p, s->model_fingerprints[i]);
        break;
    case ORIGINS:
        msgpack_pack_bin(p, m->batch.rows * sizeof(struct row_origin));
        msgpack_pack_bin_body(p, m->batch.origins, m->batch.rows * sizeof(struct row_origin));
        break;
    }
}

int message_encode(const struct message *m, unsigned char *buffer, size_t *size, struct err *e)
{
    struct out out = {.data = buffer};
    msgpack_packer p;
    msgpack_packer_init(&p, &out, out_write);
    const struct field *fields = types[m->type].fields;
    size_t n = 0;
    while (fields[n].key)
        n++;
    msgpack_pack_map(&p, n + 1);
    pack_text(&p, "type");
    pack_text(&p, types[m->type].name);
    for (size_t i = 0; i < n; i++) {
        pack_text(&p, fields[i].key);
        pack_field(&p, &fields[i], m);
    }
    *size = out.size;
    if (out.full)
        return err_set(e, ERR_INPUT, "%s is larger than %zu bytes", types[m->type].name, MESSAGE_MAX_BYTES);
    return 0;
}

/* ---- decoding, by the bounded cursor ---- */

static void read_dtype(struct mpread *r, enum row_dtype *dtype)
{
    char name[8];
    mpread_text(r, name, sizeof name);
    if (!r->why && row_dtype_parse(dtype, name, NULL))
        mpread_fail(r, "unknown dtype");
}

/* Reads a scale. It may come before or after `sites`; its count is checked against n_sites once all is read. */
static void read_scale(struct mpread *r, bool *has, uint32_t *n, float *values)
{
    *n = 0;
    *has = !mpread_nil(r);
    if (!*has)
        return;
    *n = mpread_array(r, STREAM_MAX_SITES);
    for (uint32_t i = 0; i < *n && !r->why; i++) {
        values[i] = (float)mpread_float(r);
        if (!(values[i] > 0) || !isfinite(values[i]))
            mpread_fail(r, "scale that is not a positive number");
    }
}

/* Counts of the parts whose number another field gives; they are checked once all is read. */
struct counts {
    uint32_t scales;
    size_t origin_bytes;
};

static void read_field(struct mpread *r, const struct field *f, struct message *m, struct counts *counts)
{
    unsigned char *value = (unsigned char *)m + f->offset;
    struct stream *s = &m->hello.stream;
    switch (f->kind) {
    case U32:
        *(uint32_t *)(void *)value = (uint32_t)mpread_uint(r, UINT32_MAX);
        break;
    case U64:
        *(uint64_t *)(void *)value = mpread_uint(r, UINT64_MAX);
        break;
    case BOOL:
        *(bool *)value = mpread_bool(r);
        break;
    case SHARE:
        *(float *)(void *)value = (float)mpread_float(r);
        if (!(*(float *)(void *)value >= 0 && *(float *)(void *)value <= 1))
            mpread_fail(r, "share that is not from 0 to 1");
        break;
    case TEXT:
        mpread_text(r, (char *)value, f->size);
        break;
    case DTYPE:
        read_dtype(r, (enum row_dtype *)(void *)value);
        break;
    case DTYPES:
        for (uint32_t n = mpread_array(r, 8); n > 0 && !r->why; n--) {
            char name[16]; /* a dtype that we do not know is no harm: we do not ask for it */
            enum row_dtype dtype;
            mpread_text(r, name, sizeof name);
            if (!r->why && row_dtype_parse(&dtype, name, NULL) == 0)
                *(dtype == ROW_BF16 ? &s->can_bf16 : &s->can_f32) = true;
        }
        break;
    case SCALE: {
        struct scale_place scale = scale_of(m);
        read_scale(r, scale.has, &counts->scales, scale.values);
        break;
    }
    case SITES:
        s->n_sites = mpread_array(r, STREAM_MAX_SITES);
        for (uint32_t i = 0; i < s->n_sites && !r->why; i++)
            mpread_text(r, s->sites[i], SITE_NAME_SIZE);
        break;
    case MODELS:
        s->n_models = mpread_array(r, STREAM_MAX_MODELS);
        for (uint32_t i = 0; i < s->n_models && !r->why; i++)
            mpread_text(r, s->model_fingerprints[i], FINGERPRINT_SIZE);
        break;
    case ORIGINS:
        counts->origin_bytes = mpread_bin(r, m->batch.origins, sizeof m->batch.origins);
        break;
    }
}

/* Returns the version that a HELLO says first, whatever fields that version has; 0 if it does not. at: behind the type.
 */
static uint32_t hello_version(const struct mpread *at)
{
    struct mpread r = *at;
    char key[16] = "";
    mpread_text(&r, key, sizeof key);
    return strcmp(key, "version") == 0 ? (uint32_t)mpread_uint(&r, UINT32_MAX) : 0;
}

/* Reads the pairs of a map that follow its type into the zeroed m, whose type is set. */
static int decode_fields(struct message *m, struct mpread *r, uint32_t pairs, struct err *e)
{
    char key[16] = "";
    const char *name = types[m->type].name;
    const struct field *fields = types[m->type].fields;
    struct counts counts = {0};
    uint32_t seen = 0, expected = 0;
    while (fields[expected].key)
        expected++;
    if (pairs != expected + 1)
        return err_set(e, ERR_PEER, "%s with %u fields, has %u", name, pairs - 1, expected);
    for (uint32_t i = 0; i < expected && !r->why; i++) {
        mpread_text(r, key, sizeof key);
        uint32_t f = 0;
        while (fields[f].key && strcmp(fields[f].key, key) != 0)
            f++;
        if (r->why)
            break;
        if (!fields[f].key)
            return err_set(e, ERR_PEER, "%s with unknown field '%s'", name, key);
        if (seen & 1u << f)
            return err_set(e, ERR_PEER, "%s with field '%s' twice", name, key);
        seen |= 1u << f;
        read_field(r, &fields[f], m, &counts);
        if (r->why)
            return err_set(e, ERR_PEER, "%s: field '%s': %s", name, key, r->why);
    }
    if (r->why)
        return err_set(e, ERR_PEER, "%s: %s", name, r->why);
    if (r->at != r->end)
        return err_set(e, ERR_PEER, "%s: %zu bytes after its end", name, (size_t)(r->end - r->at));
    if (m->type == MESSAGE_WELCOME)
        m->welcome.n_scale = counts.scales;
    if (m->type == MESSAGE_HELLO && m->hello.stream.has_scale && counts.scales != m->hello.stream.n_sites)
        return err_set(e, ERR_PEER, "HELLO: %u scales for %u sites", counts.scales, m->hello.stream.n_sites);
    if (m->type == MESSAGE_BATCH && counts.origin_bytes != (size_t)m->batch.rows * sizeof(struct row_origin))
        return err_set(e, ERR_PEER, "BATCH: %zu bytes of origins for %u rows", counts.origin_bytes, m->batch.rows);
    return 0;
}

int message_decode(struct message *m, const unsigned char *data, size_t size, struct err *e)
{
    if (size > MESSAGE_MAX_BYTES)
        return err_set(e, ERR_PEER, "header frame of %zu bytes, at most %zu", size, MESSAGE_MAX_BYTES);
    struct mpread r;
    mpread_init(&r, data, size);
    uint32_t pairs = mpread_map(&r, MAX_PAIRS);
    char key[16] = "", name[16] = "";
    if (pairs)
        mpread_text(&r, key, sizeof key);
    if (strcmp(key, "type") == 0)
        mpread_text(&r, name, sizeof name);
    size_t type = 0;
    while (type < MESSAGE_TYPES && strcmp(name, types[type].name) != 0)
        type++;
    if (r.why)
        return err_set(e, ERR_PEER, "message: %s", r.why);
    if (type == MESSAGE_TYPES)
        return err_set(e, ERR_PEER, "message of unknown type '%s' (first key '%s', must be 'type')", name, key);
    if (size > types[type].max_bytes)
        return err_set(e, ERR_PEER, "%s of %zu bytes, at most %zu", name, size, types[type].max_bytes);
    memset(m, 0, sizeof *m);
    m->type = (enum message_type)type;
    const struct mpread behind_type = r;
    int rc = decode_fields(m, &r, pairs, e);
    uint32_t version = rc && m->type == MESSAGE_HELLO ? hello_version(&behind_type) : 0;
    if (version && version != PROTOCOL_VERSION)
        return err_set(e, ERR_PEER, "protocol version %u, run speaks %d", version, PROTOCOL_VERSION);
    return rc;
}
