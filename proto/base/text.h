/* text.h - text that others wrote: whether it is UTF-8, and a form of it that is safe to show.
 *
 * What a terminal obeys or a reader mistakes is shown as what it is: control characters, those of the second set (C1) too, line and
 * paragraph separators, and those that change the direction of writing. */
#ifndef CROSSFEED_TEXT_H
#define CROSSFEED_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Returns whether the n bytes are UTF-8 (RFC 3629: nothing overlong, no surrogates, nothing beyond U+10FFFF). */
bool text_is_utf8(const char *text, size_t n);

/* Writes text to dst [size], always NUL-terminated: a character that may not be shown as "\u202e", a byte that is not UTF-8 or is a control
 * character as "\x1b", all else as it is. It is cut after a whole character if it does not fit. Returns the bytes written, without the NUL. */
size_t text_escape(char *dst, size_t size, const char *text);

#endif
