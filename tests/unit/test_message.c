/* test_message.c - every message survives the wire, and nothing that is not exactly one message gets in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "messages.h"

static void accepted(const unsigned char *data, size_t size)
{
    struct err e = {0};
    if (decode(data, size, &e))
        fail_msg("%s", e.message);
}

static void refused(const unsigned char *data, size_t size, const char *why)
{
    struct err e = {0};
    if (decode(data, size, &e) != ERR_PEER || e.code != ERR_PEER)
        fail_msg("taken, should be refused: %s", why);
    if (!strstr(e.message, why))
        fail_msg("refused with '%s', should say '%s'", e.message, why);
}

static void round_trip(void **state)
{
    (void)state;
    for (int i = 0; sample(i); i++) {
        size_t size = encode();
        accepted(frame, size);
        if (memcmp(&m, &back, sizeof m) != 0)
            fail_msg("sample %d (%s) came back different", i, message_type_name(m.type));
        memmove(frame + 1, frame, size); /* unaligned */
        assert_int_equal(message_decode(&back, frame + 1, size, NULL), 0);
        assert_memory_equal(&m, &back, sizeof m);
    }
}

static void every_type_has_a_sample(void **state)
{
    (void)state;
    unsigned seen = 0;
    for (int i = 0; sample(i); i++)
        seen |= 1u << m.type;
    assert_int_equal(seen, (1u << MESSAGE_TYPES) - 1);
}

static void truncations_are_refused(void **state)
{
    (void)state;
    for (int i = 0; sample(i); i++) {
        size_t size = encode(), step = size > 2000 ? 101 : 1;
        for (size_t cut = 0; cut < size; cut += step)
            refused(frame, cut, cut ? "ends early" : "message: frame ends early");
    }
}

static void trailing_bytes_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < N_SMALL; i++) {
        sample(i);
        size_t size = encode();
        frame[size] = 0xc0;
        refused(frame, size + 1, "1 bytes after its end");
    }
    refused(frame, MESSAGE_SHORT_BYTES, "after its end");
    refused(frame, MESSAGE_SHORT_BYTES + 1, "END of 4097 bytes, at most 4096");
    unsigned char *large = calloc(1, MESSAGE_MAX_BYTES + 1);
    refused(large, MESSAGE_MAX_BYTES + 1, "65537 bytes, at most 65536");
    free(large);
}

/* ---- frames taken apart and put together otherwise ---- */

struct piece {
    const unsigned char *key, *value, *end; /* key..value is the key's bytes, value..end the value's */
    char name[32];
};

static const unsigned char *after_value(const unsigned char *p)
{
    unsigned tag = *p++;
    size_t n = 0;
    if (tag <= 0x7f || tag == 0xc0 || tag == 0xc2 || tag == 0xc3)
        return p;
    if (tag >= 0xa0 && tag <= 0xbf)
        return p + (tag & 31);
    if (tag >= 0xca && tag <= 0xcb)
        return p + (tag == 0xca ? 4 : 8);
    if (tag >= 0xcc && tag <= 0xcf)
        return p + (1u << (tag - 0xcc));
    if (tag == 0xd9 || tag == 0xc4)
        return p + 1 + p[0];
    if (tag == 0xda || tag == 0xc5)
        return p + 2 + (p[0] << 8 | p[1]);
    if (tag >= 0x90 && tag <= 0x9f)
        n = tag & 15;
    else if (tag == 0xdc)
        n = (size_t)(p[0] << 8 | p[1]), p += 2;
    else
        fail_msg("%s: tag %02x was not expected of our own encoder", message_type_name(m.type), tag);
    while (n--)
        p = after_value(p);
    return p;
}

/* The pairs of the frame last encoded; returns their number. piece 0 is the type. */
static size_t take_apart(struct piece *pieces)
{
    static unsigned char copy[MESSAGE_MAX_BYTES];
    memcpy(copy, frame, sizeof copy);
    size_t n = copy[0] & 15;
    assert_int_equal(copy[0] & 0xf0, 0x80);
    const unsigned char *p = copy + 1;
    for (size_t i = 0; i < n; i++) {
        pieces[i].key = p;
        p = pieces[i].value = after_value(p);
        snprintf(pieces[i].name, sizeof pieces[i].name, "%.*s", pieces[i].key[0] & 31, (const char *)pieces[i].key + 1);
        p = pieces[i].end = after_value(p);
    }
    return n;
}

struct builder {
    unsigned char data[2 * MESSAGE_MAX_BYTES];
    size_t size;
};
static struct builder b;

static void put(const void *data, size_t size)
{
    memcpy(b.data + b.size, data, size);
    b.size += size;
}

static void begin(size_t pairs)
{
    b.size = 0;
    put(&(unsigned char){(unsigned char)(0x80 | pairs)}, 1);
}

static void put_piece(const struct piece *p)
{
    put(p->key, (size_t)(p->end - p->key));
}

/* The frame of sample i with the value of one field replaced. */
static void build_replaced(int i, const char *field, const void *value, size_t size)
{
    struct piece pieces[16];
    sample(i);
    encode();
    size_t n = take_apart(pieces);
    bool found = false;
    begin(n);
    for (size_t k = 0; k < n; k++) {
        if (strcmp(pieces[k].name, field) != 0) {
            put_piece(&pieces[k]);
            continue;
        }
        found = true;
        put(pieces[k].key, (size_t)(pieces[k].value - pieces[k].key));
        put(value, size);
    }
    assert_true(found);
}

#define REFUSE(i, field, value, why)                        \
    do {                                                    \
        build_replaced(i, field, value, sizeof(value) - 1); \
        refused(b.data, b.size, why);                       \
    } while (0)
#define ACCEPT(i, field, value)                             \
    do {                                                    \
        build_replaced(i, field, value, sizeof(value) - 1); \
        accepted(b.data, b.size);                           \
    } while (0)

static void missing_double_and_unknown_fields(void **state)
{
    (void)state;
    struct piece pieces[16];
    char why[64];
    for (int i = 0; i < N_SMALL; i++) {
        sample(i);
        encode();
        size_t n = take_apart(pieces);
        for (size_t k = 1; k < n; k++) {
            begin(n - 1); /* without field k */
            for (size_t j = 0; j < n; j++)
                if (j != k)
                    put_piece(&pieces[j]);
            refused(b.data, b.size, "fields, has");
            b.data[0]++; /* the map claims the pair, the frame has it not */
            refused(b.data, b.size, "ends early");

            begin(n); /* field k in another's place */
            put_piece(&pieces[0]);
            put_piece(&pieces[k]);
            for (size_t j = 1; j < n; j++)
                if (n == 2 || j != (k == 1 ? 2 : 1))
                    put_piece(&pieces[j]);
            if (n > 2) {
                snprintf(why, sizeof why, "field '%s' twice", pieces[k].name);
                refused(b.data, b.size, why);
            }

            begin(n); /* field k under another name */
            for (size_t j = 0; j < n; j++) {
                put_piece(&pieces[j]);
                if (j == k)
                    b.data[b.size - (size_t)(pieces[j].end - pieces[j].key) + 1] = 'Q';
            }
            snprintf(why, sizeof why, "unknown field 'Q%s'", pieces[k].name + 1);
            refused(b.data, b.size, why);
        }
        begin(n + 1); /* one more */
        for (size_t j = 0; j < n; j++)
            put_piece(&pieces[j]);
        put("\xa1x\x01", 3);
        refused(b.data, b.size, "fields, has");
    }
}

/* A later version's HELLO has other fields, or as many; both versions are named all the same. */
static void another_version_is_named(void **state)
{
    (void)state;
    static const unsigned char later[] = "\x84\xa4type\xa5HELLO\xa7version\x02\xa4mood\xa4good\xa3new\xc3";
    refused(later, sizeof later - 1, "protocol version 2, run speaks 1");
    static const unsigned char as_many[] =
        "\x8e\xa4type\xa5HELLO\xa7version\x02"
        "\xa1o\xc0\xa1p\xc0\xa1q\xc0\xa1r\xc0\xa1s\xc0\xa1t\xc0\xa1u\xc0\xa1v\xc0\xa1w\xc0\xa1x\xc0\xa1y\xc0\xa1z\xc0";
    refused(as_many, sizeof as_many - 1, "protocol version 2, run speaks 1");
    unsigned char many[4 + 200 * 3] = "\xde\x00\xca";
    size_t size = 3;
    memcpy(many + size, "\xa4type\xa5HELLO\xa7version\x02", 20);
    for (size += 20; size + 3 <= sizeof many; size += 3)
        memcpy(many + size, "\xa1x\xc0", 3);
    refused(many, size, "protocol version 2, run speaks 1");
    static const unsigned char hidden[] = "\x84\xa4type\xa5HELLO\xa4mood\xa4good\xa7version\x02\xa3new\xc3";
    refused(hidden, sizeof hidden - 1, "fields, has");
}

static void fields_come_in_any_order(void **state)
{
    (void)state;
    struct piece pieces[16];
    for (int i = 0; sample(i); i++) {
        encode();
        size_t n = take_apart(pieces);
        begin(n);
        put_piece(&pieces[0]);
        for (size_t k = n - 1; k > 0; k--) /* scale before sites, too */
            put_piece(&pieces[k]);
        accepted(b.data, b.size);
        assert_memory_equal(&m, &back, sizeof m);
    }
}

static void type_comes_first_and_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *why;
        size_t size;
    } cases[] = {
#define CASE(bytes, why) {bytes, why, sizeof(bytes) - 1}
        CASE("", "ends early"),
        CASE("\xc0", "not a map"),
        CASE("\x90", "not a map"),
        CASE("\x01", "not a map"),
        CASE("\xc1", "not a map"),
        CASE("\x80", "unknown type ''"),
        CASE("\x81\xa4type\xa7"
             "BYE_AC",
             "ends early"),
        CASE("\x81\xa4type\xa5"
             "HULLO",
             "unknown type 'HULLO'"),
        CASE("\x81\xa4type\xa5"
             "hello",
             "unknown type 'hello'"),
        CASE("\x81\xa4type\xa0", "unknown type ''"),
        CASE("\x81\xa4type\x01", "not a string"),
        CASE("\x81\xa4type\xc4\x07"
             "BYE_ACK",
             "not a string"), /* bin is not str */
        CASE("\x81\xa4"
             "Type\xa7"
             "BYE_ACK",
             "first key 'Type'"),
        CASE("\x82\xa5token\x01\xa4type\xa4PING", "first key 'token'"),
        CASE("\x81\x01\xa7"
             "BYE_ACK",
             "not a string"),
        CASE("\x81\xa4type\xbf"
             "a type with a name far too long",
             "too long"),
        /* counts that cost a careless reader gigabytes */
        CASE("\xdd\x04\x00\x00\x00", "not a map"),
        CASE("\xdf\xff\xff\xff\xff", "too many pairs"),
        CASE("\xdf\x00\x00\x01\x01", "too many pairs"),
        CASE("\xde\xff\xff", "too many pairs"),
        CASE("\x81\xdb\xff\xff\xff\xff", "too long"),
        CASE("\x81\xa4type\xdb\xff\xff\xff\xff", "too long"),
        CASE("\x81\xa4type\xda\xff\xff", "too long"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refused((const unsigned char *)cases[i].bytes, cases[i].size, cases[i].why);
}

/* Longer forms than needed are still the same values: encoders differ. */
static void all_forms_of_a_value(void **state)
{
    (void)state;
    static const char wide[] =
        "\xde\x00\x02\xd9\x04type\xda\x00\x04PONG\xdb\x00\x00\x00\x05token\xcf\0\0\0\0\0\0\0\x05";
    accepted((const unsigned char *)wide, sizeof wide - 1);
    assert_int_equal(back.type, MESSAGE_PONG);
    assert_int_equal(back.ping.token, 5);
    static const char map32[] = "\xdf\x00\x00\x00\x01\xa4type\xa7"
                                "BYE_ACK";
    accepted((const unsigned char *)map32, sizeof map32 - 1);
    ACCEPT(8, "token", "\x05");
    ACCEPT(8, "token", "\xcc\x05");
    ACCEPT(8, "token", "\xcd\x00\x05");
    ACCEPT(8, "token", "\xce\x00\x00\x00\x05");
    ACCEPT(3, "scale", "\xdd\x00\x00\x00\x01\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"); /* float64 1.0 */
    assert_true(back.welcome.n_scale == 1 && back.welcome.scale[0] == 1.0f);
    ACCEPT(0, "dtypes",
           "\x93\xa4"
           "bf16\xa4"
           "fp32\xa4"
           "int8"); /* a dtype of tomorrow */
    assert_true(back.hello.stream.can_bf16 && back.hello.stream.can_f32);
}

/* Each value in turn replaced by one of another type. */
static void wrong_types(void **state)
{
    (void)state;
    static const char *const wrong[] = {"\xc0",      "\xc1", "\xff",         "\xd0\x01",     "\xca\x3f\x80\x00\x00",
                                        "\xc4\x01x", "\x80", "\x91\x91\x90", "\xd4\x01\x01", "\xdf"};
    static const size_t sizes[] = {1, 1, 1, 2, 5, 3, 1, 3, 3, 5};
    static const char huge_map[] = "\xdf\xff\xff\xff\xff";
    struct piece pieces[16];
    for (int i = 0; i < N_SMALL; i++) {
        sample(i);
        encode();
        size_t n = take_apart(pieces);
        for (size_t k = 1; k < n; k++) {
            char name[32], why[64];
            strcpy(name, pieces[k].name);
            snprintf(why, sizeof why, "%s: field '%s'", message_type_name(m.type), name);
            for (size_t w = strcmp(name, "scale") == 0; w < sizeof wrong / sizeof wrong[0];
                 w++) { /* a scale may be nil, origins are a bin */
                bool share = strcmp(name, "computing") == 0 || strcmp(name, "sending") == 0;
                if ((w == 5 && strcmp(name, "origins") == 0) || (w == 4 && share)) /* 1.0 */
                    continue;
                build_replaced(i, name, w == 9 ? huge_map : wrong[w], sizes[w]);
                refused(b.data, b.size, why);
            }
            encode();
            take_apart(pieces);
        }
    }
    REFUSE(5, "scaled", "\x01", "not a boolean");
    REFUSE(5, "block", "\xc2", "not an unsigned integer");
    REFUSE(5, "block",
           "\xa1"
           "1",
           "not an unsigned integer");
    REFUSE(10, "reason", "\x01", "not a string");
    REFUSE(0, "sites", "\xa1x", "not an array");
    REFUSE(0, "sites", "\x92\xa1x\x01", "not a string");
    REFUSE(3, "scale", "\x91\x01", "not a float");
}

static void values_out_of_range(void **state)
{
    (void)state;
    REFUSE(8, "computing", "\xca\xbf\x80\x00\x00", "field 'computing': share that is not from 0 to 1"); /* -1 */
    REFUSE(8, "sending", "\xca\x3f\x80\x00\x01", "field 'sending': share that is not from 0 to 1");
    REFUSE(8, "sending", "\xca\x7f\xc0\x00\x00", "field 'sending': share that is not from 0 to 1"); /* NaN */
    REFUSE(5, "block", "\xcf\x00\x00\x00\x01\x00\x00\x00\x00", "field 'block': integer too large");
    REFUSE(5, "count", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "field 'count': integer too large");
    REFUSE(0, "sites", "\xdd\xff\xff\xff\xff", "field 'sites': array with too many");
    REFUSE(0, "sites", "\xdc\x02\x01", "field 'sites': array with too many"); /* 513 */
    REFUSE(0, "models", "\x99", "field 'models': array with too many");
    REFUSE(0, "dtypes", "\x99", "field 'dtypes': array with too many");
    REFUSE(3, "scale", "\xdd\x04\x00\x00\x00", "field 'scale': array with too many");
    REFUSE(0, "software", "\xdb\xff\xff\xff\xff", "field 'software': string too long");
    REFUSE(0, "tokens",
           "\xd9\x21"
           "0123456789abcdef0123456789abcdefX",
           "field 'tokens': string too long");
    REFUSE(2, "dtype",
           "\xa4"
           "fp16",
           "field 'dtype': unknown dtype");
    REFUSE(2, "dtype",
           "\xaa"
           "bfloat16xx",
           "field 'dtype': string too long");

    unsigned char text[3 + MESSAGE_TEXT_SIZE] = {0xda, MESSAGE_TEXT_SIZE >> 8, MESSAGE_TEXT_SIZE & 255};
    memset(text + 3, 'y', MESSAGE_TEXT_SIZE);
    build_replaced(10, "reason", text, sizeof text);
    refused(b.data, b.size, "field 'reason': string too long");
    text[1] = (MESSAGE_TEXT_SIZE - 1) >> 8;
    text[2] = (MESSAGE_TEXT_SIZE - 1) & 255;
    build_replaced(10, "reason", text, sizeof text - 1);
    accepted(b.data, b.size);
    assert_int_equal(strlen(back.text.reason), MESSAGE_TEXT_SIZE - 1);

    static unsigned char deep[60000]; /* arrays in arrays: refused at once, without recursion */
    memset(deep, 0x91, sizeof deep);
    build_replaced(0, "sites", deep, sizeof deep);
    refused(b.data, b.size, "not a string");
    refused(deep, sizeof deep, "not a map");
}

static void control_characters(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        unsigned char value[] = {0xa3, 'a', (unsigned char)c, 'b'};
        build_replaced(7, "text", value, sizeof value);
        if (c < 0x20 || c == 0x7f)
            refused(b.data, b.size, "field 'text': control character");
        else if (c >= 0x80)
            refused(b.data, b.size, "field 'text': string that is not UTF-8");
        else
            accepted(b.data, b.size);
    }
    ACCEPT(7, "text",
           "\xa9M\xc3\xbcller\xc2"
           "\x9b"); /* C1 is UTF-8: it is escaped where it is shown */
}

static void scales(void **state)
{
    (void)state;
    REFUSE(3, "scale", "\x91\xca\x00\x00\x00\x00", "not a positive number");                 /* 0 */
    REFUSE(3, "scale", "\x91\xca\x80\x00\x00\x00", "not a positive number");                 /* -0 */
    REFUSE(3, "scale", "\x91\xca\xbf\x80\x00\x00", "not a positive number");                 /* -1 */
    REFUSE(3, "scale", "\x91\xca\x7f\x80\x00\x00", "not a positive number");                 /* inf */
    REFUSE(3, "scale", "\x91\xca\x7f\xc0\x00\x00", "not a positive number");                 /* NaN */
    REFUSE(3, "scale", "\x91\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", "not a positive number"); /* NaN, 64 bits */
    REFUSE(3, "scale", "\x91\xcb\x7e\x37\xe4\x3c\x88\x00\x75\x9c", "not a positive number"); /* 1e300 */
    REFUSE(3, "scale", "\x91\xcb\x01\xa5\x6e\x1f\xc2\xf8\xf3\x59", "not a positive number"); /* 1e-300 */
    REFUSE(1, "scale", "\x92\xca\x3f\x80\x00\x00\xca\x3f\x80\x00\x00", "2 scales for 1 sites");
    REFUSE(1, "scale", "\x90", "0 scales for 1 sites");
    ACCEPT(1, "scale", "\xc0");
    assert_false(back.hello.stream.has_scale);
}

static void the_largest_hello_fits(void **state)
{
    (void)state;
    /* The largest HELLO fits, whatever its names: 512 sites of 63 characters with scales, 8 models. */
    sample(13);
    for (uint32_t i = 0; i < STREAM_MAX_SITES; i++)
        memset(m.hello.stream.sites[i], 's', SITE_NAME_SIZE - 1);
    accepted(frame, encode());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_type_has_a_sample),
        cmocka_unit_test(truncations_are_refused),
        cmocka_unit_test(trailing_bytes_are_refused),
        cmocka_unit_test(missing_double_and_unknown_fields),
        cmocka_unit_test(another_version_is_named),
        cmocka_unit_test(fields_come_in_any_order),
        cmocka_unit_test(type_comes_first_and_is_known),
        cmocka_unit_test(all_forms_of_a_value),
        cmocka_unit_test(wrong_types),
        cmocka_unit_test(values_out_of_range),
        cmocka_unit_test(control_characters),
        cmocka_unit_test(scales),
        cmocka_unit_test(the_largest_hello_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
