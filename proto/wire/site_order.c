/* site_order.c - see site_order.h. */
#include "site_order.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "name_order.h"
#include "site_parts.h"

const char *const site_hook_points[] = {
    "hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post", NULL,
};

/* Returns the place of a point in its layer; any other point stands behind those that are known. */
static size_t place(const char *point)
{
    size_t i = 0;
    while (site_hook_points[i] && strcmp(site_hook_points[i], point) != 0)
        i++;
    return i;
}

static int compare(size_t a, size_t b)
{
    return (a > b) - (a < b);
}

/* Compares hook points: by what stands before the last dot, then by the point of the layer. */
static int compare_hook_points(const char *a, const char *b)
{
    const char *a_dot = strrchr(a, '.'), *b_dot = strrchr(b, '.');
    size_t a_layer = a_dot ? (size_t)(a_dot - a) : 0, b_layer = b_dot ? (size_t)(b_dot - b) : 0;
    const char *a_point = a_dot ? a_dot + 1 : a, *b_point = b_dot ? b_dot + 1 : b;
    int order = name_order_n(a, a_layer, b, b_layer);
    if (order == 0)
        order = compare(place(a_point), place(b_point));
    return order ? order : name_order(a, b);
}

int site_order(const char *a, const char *b)
{
    struct site_parts x = site_parts(a), y = site_parts(b);
    int order = compare(x.n_models == 2, y.n_models == 2);
    if (order == 0)
        order = compare(x.model, y.model);
    if (order == 0)
        order = compare(x.less, y.less);
    if (order == 0)
        order = compare_hook_points(x.hook_point, y.hook_point);
    return order ? order : strcmp(a, b);
}
