/* text.c - see text.h. */
#include "text.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Takes the character at *at, of at most n bytes (n > 0), and moves *at behind it. Returns -1, and moves by one byte, if it is not UTF-8. */
static int32_t take_character(const char **at, size_t n)
{
    static const int32_t least[] = {0, 0x80, 0x800, 0x10000}; /* that needs so many bytes more */
    const unsigned char *p = (const unsigned char *)*at;
    size_t more = p[0] < 0x80 ? 0 : p[0] >> 5 == 6 ? 1 : p[0] >> 4 == 14 ? 2 : p[0] >> 3 == 30 ? 3 : 4;
    ++*at;
    if (more == 4 || more >= n)
        return -1;
    int32_t c = more ? p[0] & (0x3f >> more) : p[0];
    for (size_t i = 1; i <= more; i++) {
        if (p[i] >> 6 != 2)
            return -1;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return -1;
    *at += more;
    return c;
}

bool text_is_utf8(const char *text, size_t n)
{
    const char *end = text + n;
    while (text < end)
        if (take_character(&text, (size_t)(end - text)) < 0)
            return false;
    return true;
}

static bool may_be_shown(int32_t c)
{
    return !(c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
             (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069));
}

size_t text_escape(char *dst, size_t size, const char *text)
{
    size_t used = 0;
    const char *end = text + strlen(text);
    while (text < end) {
        const char *from = text;
        char piece[8];
        int32_t c = take_character(&text, (size_t)(end - text));
        size_t n = (size_t)(text - from);
        if (c >= 0 && may_be_shown(c))
            memcpy(piece, from, n);
        else if (c < 0x80)
            n = (size_t)snprintf(piece, sizeof piece, "\\x%02x", (unsigned)(unsigned char)*from);
        else
            n = (size_t)snprintf(piece, sizeof piece, "\\u%04x", (unsigned)c & 0xffff);
        if (n >= size - used)
            break;
        memcpy(dst + used, piece, n);
        used += n;
    }
    dst[used] = '\0';
    return used;
}
