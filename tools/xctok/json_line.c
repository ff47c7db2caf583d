/* json_line.c - a JSON object from its first byte to its last, with nothing kept but keys and one text; see json_line.h. */
#include "json_line.h"

#include <stdbool.h>
#include <string.h>

#include "mem.h"

struct scan {
    const char *begin, *p, *end;
    struct err *e;
};

/* Where the bytes of a text go; data NULL: nowhere. */
struct sink {
    char *data;
    size_t n;
    uint64_t surrogates;
};

static int expected(const struct scan *s, const char *what)
{
    return err_set(s->e, ERR_INPUT, "not JSON, byte %zu: %s", (size_t)(s->p - s->begin), what);
}

static void skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
}

static bool take(struct scan *s, char c)
{
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

static bool take_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return false;
    s->p += n;
    return true;
}

/* ---- texts ---- */

/* Reads the four digits of \uXXXX; -1 if they are not there. */
static int four_digits(const struct scan *s, const char *p)
{
    int x = 0;
    if (s->end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *digit = p[i] ? strchr(digits, p[i]) : NULL;
        if (!digit)
            return -1;
        x = x << 4 | (int)((digit - digits) & 15);
    }
    return x;
}

static void put(struct sink *out, const char *bytes, size_t n)
{
    if (out->data)
        memcpy(out->data + out->n, bytes, n);
    out->n += n;
}

static void put_character(struct sink *out, unsigned c)
{
    char b[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        b[i] = (char)(0x80 | (c & 0x3f));
    b[0] = (char)(first[n] | c);
    put(out, b, n);
}

/* Reads what follows the 'u' of an escape, and the escape after it if both are a pair of surrogates. */
static int escaped_character(struct scan *s, struct sink *out)
{
    int c = four_digits(s, s->p);
    if (c < 0)
        return expected(s, "four hexadecimal digits are missing");
    s->p += 4;
    if (c >= 0xd800 && c < 0xdc00 && s->end - s->p >= 6 && s->p[0] == '\\' && s->p[1] == 'u') {
        int low = four_digits(s, s->p + 2);
        if (low >= 0xdc00 && low < 0xe000) {
            s->p += 6;
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    if (c >= 0xd800 && c < 0xe000) {
        out->surrogates++;
        c = 0xfffd;
    }
    put_character(out, (unsigned)c);
    return 0;
}

/* Reads a text behind its opening quote. It has at most as many bytes as it takes in the line. */
static int read_text(struct scan *s, struct sink *out)
{
    static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    for (;;) {
        const char *from = s->p;
        while (s->p < s->end && *s->p != '"' && *s->p != '\\' && (unsigned char)*s->p >= 0x20)
            s->p++;
        put(out, from, (size_t)(s->p - from));
        if (s->p == s->end)
            return expected(s, "a text does not end");
        if (take(s, '"'))
            return 0;
        if (!take(s, '\\'))
            return expected(s, "a control character in a text");
        if (take(s, 'u')) {
            if (escaped_character(s, out))
                return s->e->code;
            continue;
        }
        const char *escape = s->p < s->end && *s->p ? strchr(escapes, *s->p) : NULL;
        if (!escape)
            return expected(s, "an unknown escape");
        put(out, meant + (escape - escapes), 1);
        s->p++;
    }
}

/* ---- values ---- */

static bool digits(struct scan *s)
{
    const char *from = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        s->p++;
    return s->p > from;
}

/* Passes a number; what is no part of one stays, as Python's "1." is 1 and a point too many. */
static bool number(struct scan *s)
{
    take(s, '-');
    if (!take(s, '0') && !digits(s))
        return false;
    const char *whole = s->p;
    if (take(s, '.') && !digits(s))
        s->p = whole;
    const char *mantissa = s->p;
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+'))
            take(s, '-');
        if (!digits(s))
            s->p = mantissa;
    }
    return true;
}

/* Passes the quotes, colon and white space of a key, whose bytes go to out. */
static int read_key(struct scan *s, struct sink *out)
{
    skip_space(s);
    if (!take(s, '"'))
        return expected(s, "a key in quotes is missing");
    if (read_text(s, out))
        return s->e->code;
    skip_space(s);
    if (!take(s, ':'))
        return expected(s, "a ':' is missing");
    skip_space(s);
    return 0;
}

/* Passes a value without recursion: `open` holds the closing brackets that are due. */
static int skip_value(struct scan *s)
{
    char open[JSON_LINE_DEPTH];
    size_t depth = 0;
    struct sink nowhere = {0};
    for (;;) {
        bool opened = false;
        if (take(s, '"')) {
            if (read_text(s, &nowhere))
                return s->e->code;
        } else if (s->p < s->end && (*s->p == '{' || *s->p == '[')) {
            if (depth == JSON_LINE_DEPTH)
                return expected(s, "nested too deep");
            open[depth++] = *s->p++ == '{' ? '}' : ']';
            opened = true;
        } else if (!take_word(s, "null") && !take_word(s, "true") && !take_word(s, "false") && !take_word(s, "NaN") &&
                   !take_word(s, "Infinity") && !take_word(s, "-Infinity") && !number(s)) {
            return expected(s, "a value is missing");
        }
        for (skip_space(s); depth && take(s, open[depth - 1]); skip_space(s), opened = false)
            depth--;
        if (depth == 0)
            return 0;
        if (!opened && !take(s, ','))
            return expected(s, "a ',' is missing");
        skip_space(s);
        if (open[depth - 1] == '}' && read_key(s, &nowhere))
            return s->e->code;
    }
}

/* Makes room for a text of as many bytes as the rest of the line. */
static int reserve(const struct scan *s, char **buffer, size_t *capacity)
{
    size_t need = (size_t)(s->end - s->p) + 1;
    if (need <= *capacity)
        return 0;
    char *more = mem_realloc(*buffer, 2 * need, 1, "a line of JSON", s->e);
    if (!more)
        return ERR_MEMORY;
    *buffer = more;
    *capacity = 2 * need;
    return 0;
}

/* Reads "key": value; a text of the field wanted is kept, and *found says whether the last one of that key was a text. */
static int read_member(struct json_line *l, struct scan *s, const char *field, int *found)
{
    skip_space(s);
    if (reserve(s, &l->key, &l->key_capacity))
        return ERR_MEMORY;
    struct sink key = {.data = l->key};
    if (read_key(s, &key))
        return s->e->code;
    bool wanted = key.n == strlen(field) && memcmp(l->key, field, key.n) == 0;
    if (wanted)
        *found = s->p < s->end && *s->p == '"';
    if (!wanted || !*found)
        return skip_value(s);
    if (reserve(s, &l->text, &l->text_capacity))
        return ERR_MEMORY;
    struct sink text = {.data = l->text};
    s->p++;
    if (read_text(s, &text))
        return s->e->code;
    l->n = text.n;
    l->surrogates = text.surrogates;
    return 0;
}

int json_line_read(struct json_line *l, const char *line, size_t n, const char *field, struct err *e)
{
    struct scan s = {line, line, line + n, e};
    int found = -1;
    skip_space(&s);
    bool object = s.p < s.end && *s.p == '{';
    if (object) {
        s.p++;
        skip_space(&s);
        bool more = !take(&s, '}');
        while (more) {
            if (read_member(l, &s, field, &found))
                return e->code;
            skip_space(&s);
            more = !take(&s, '}');
            if (more && !take(&s, ','))
                return expected(&s, "a ',' is missing");
        }
    } else if (skip_value(&s)) {
        return e->code;
    }
    skip_space(&s);
    if (s.p < s.end)
        return expected(&s, "more after the end of the value");
    if (found == 1)
        return 0;
    return err_set(e, ERR_INPUT, "%s '%s'",
                   !object      ? "is not an object with a field"
                   : found == 0 ? "no text in field"
                                : "no field",
                   field);
}

void json_line_free(struct json_line *l)
{
    mem_free(l->text);
    mem_free(l->key);
    *l = (struct json_line){0};
}
