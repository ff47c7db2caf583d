/* name_order.c - see name_order.h. */
#include "name_order.h"

#include <stdbool.h>
#include <string.h>

static bool is_digit(const char *c, const char *end)
{
    return c < end && *c >= '0' && *c <= '9';
}

/* Compares the numbers at *a and *b, and moves both behind them. The longer one without leading zeros is the larger. */
static int compare_numbers(const char **a, const char *a_end, const char **b, const char *b_end)
{
    size_t a_length = 0, b_length = 0;
    for (; is_digit(*a, a_end) && **a == '0'; ++*a)
        ;
    for (; is_digit(*b, b_end) && **b == '0'; ++*b)
        ;
    while (is_digit(*a + a_length, a_end))
        a_length++;
    while (is_digit(*b + b_length, b_end))
        b_length++;
    int order = a_length != b_length ? (a_length < b_length ? -1 : 1) : memcmp(*a, *b, a_length);
    *a += a_length;
    *b += b_length;
    return order;
}

int name_order_n(const char *a, size_t a_length, const char *b, size_t b_length)
{
    const char *x = a, *y = b, *x_end = a + a_length, *y_end = b + b_length;
    int order = 0;
    while (order == 0 && x < x_end && y < y_end) {
        if (is_digit(x, x_end) && is_digit(y, y_end))
            order = compare_numbers(&x, x_end, &y, y_end);
        else
            order = (unsigned char)*x++ - (unsigned char)*y++;
    }
    if (order == 0)
        order = (x < x_end) - (y < y_end);
    if (order == 0)
        order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

int name_order(const char *a, const char *b)
{
    return name_order_n(a, strlen(a), b, strlen(b));
}
