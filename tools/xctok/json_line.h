/* json_line.h - one text out of a JSON object, read as Python's json module reads it.
 *
 * Beyond JSON that takes NaN, Infinity and -Infinity, numbers of any size, lone surrogates in texts (\ud83d: each becomes U+FFFD here, as
 * nothing else can be encoded) and repeated keys (the last one holds). Refused, as there, are control characters in texts, what follows the
 * object, and nesting deeper than JSON_LINE_DEPTH. */
#ifndef CROSSFEED_JSON_LINE_H
#define CROSSFEED_JSON_LINE_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

enum { JSON_LINE_DEPTH = 1000 };

struct json_line {
    char *text; /* [n], the field's; valid until the next line */
    size_t n;
    uint64_t surrogates; /* lone ones, of the text */
    char *key;
    size_t text_capacity, key_capacity;
};

/* Finds the text of the field in line [n], which is valid UTF-8. Returns ERR_INPUT with e filled if the line is no such object, or has no
 * such field or one that is no text. l is zeroed before the first call. */
int json_line_read(struct json_line *l, const char *line, size_t n, const char *field, struct err *e);
/* Safe on a zeroed struct. */
void json_line_free(struct json_line *l);

#endif
