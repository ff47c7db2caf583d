/* name_order.h - the order of names that have numbers in them: "layer_2" stands before "layer_10". */
#ifndef CROSSFEED_NAME_ORDER_H
#define CROSSFEED_NAME_ORDER_H

#include <stddef.h>

/* Compares as strcmp does, but digits that stand together count as one number, of any length. Names that differ in leading
 * zeros only are in the order of strcmp, so that 0 means the same text. */
int name_order(const char *a, const char *b);

/* Does so with the first a_length and b_length characters, which hold no NUL. */
int name_order_n(const char *a, size_t a_length, const char *b, size_t b_length);

#endif
