/* utf8.c - the WHATWG UTF-8 decoder with replacement, and white space; see utf8.h. */
#include "utf8.h"

#include <string.h>

static size_t replace(struct utf8 *u, char *out)
{
    memcpy(out, "\xef\xbf\xbd", 3);
    u->invalid++;
    return 3;
}

/* Opens a character with its first byte (0x80 or more); false if none starts so. */
static bool open_character(struct utf8 *u, unsigned char c)
{
    u->lower = 0x80;
    u->upper = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) {
        u->need = 1;
    } else if (c >= 0xe0 && c <= 0xef) {
        u->need = 2;
        if (c == 0xe0)
            u->lower = 0xa0; /* overlong */
        if (c == 0xed)
            u->upper = 0x9f; /* surrogates */
    } else if (c >= 0xf0 && c <= 0xf4) {
        u->need = 3;
        if (c == 0xf0)
            u->lower = 0x90;
        if (c == 0xf4)
            u->upper = 0x8f; /* beyond U+10FFFF */
    } else {
        return false;
    }
    u->pending[0] = c;
    u->n_pending = 1;
    return true;
}

size_t utf8_clean(struct utf8 *u, const char *in, size_t n, char *out)
{
    size_t written = 0;
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)in[i];
        if (u->need) {
            if (c < u->lower || c > u->upper) { /* c itself is looked at again */
                u->need = 0;
                written += replace(u, out + written);
                continue;
            }
            u->pending[u->n_pending++] = c;
            u->lower = 0x80;
            u->upper = 0xbf;
            i++;
            if (--u->need == 0) {
                memcpy(out + written, u->pending, u->n_pending);
                written += u->n_pending;
            }
        } else if (c < 0x80) {
            uint64_t eight;
            while (n - i >= 8 && (memcpy(&eight, in + i, 8), !(eight & 0x8080808080808080u))) {
                memcpy(out + written, &eight, 8);
                i += 8;
                written += 8;
            }
            if (i < n && (unsigned char)in[i] < 0x80)
                out[written++] = in[i++];
        } else {
            if (!open_character(u, c))
                written += replace(u, out + written);
            i++;
        }
    }
    return written;
}

size_t utf8_finish(struct utf8 *u, char *out)
{
    bool open = u->need;
    *u = (struct utf8){.invalid = u->invalid};
    return open ? replace(u, out) : 0;
}

size_t utf8_space_at(const char *p, const char *end)
{
    const unsigned char *c = (const unsigned char *)p;
    size_t n = (size_t)(end - p);
    if (n >= 1 && (c[0] == ' ' || (c[0] >= '\t' && c[0] <= '\r')))
        return 1;
    if (n >= 2 && c[0] == 0xc2 && (c[1] == 0x85 || c[1] == 0xa0))
        return 2;
    if (n < 3 || c[0] < 0xe1 || c[0] > 0xe3)
        return 0;
    unsigned code = (c[0] & 0xfu) << 12 | (c[1] & 0x3fu) << 6 | (c[2] & 0x3fu);
    bool space = code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
                 code == 0x202f || code == 0x205f || code == 0x3000;
    return space ? 3 : 0;
}

size_t utf8_space_before(const char *begin, const char *p)
{
    for (size_t n = 1; n <= 3 && (size_t)(p - begin) >= n; n++)
        if (((unsigned char)p[-(ptrdiff_t)n] & 0xc0) != 0x80) /* the character's first byte */
            return utf8_space_at(p - n, p) == n ? n : 0;
    return 0;
}
