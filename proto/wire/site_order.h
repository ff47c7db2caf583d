/* site_order.h - the order in which sites are stacked, wherever their names come from.
 *
 * It is the order of a live run: whole sites before differences; these by the numbers of their models; of a model its
 * layers in the order of their numbers (name_order.h); of a layer its hook points in forward order. So activations that
 * come from files have the places that a model's own would have. Names that are no hook points are in the order of
 * name_order. */
#ifndef CROSSFEED_SITE_ORDER_H
#define CROSSFEED_SITE_ORDER_H

/* The hook points of the usual layer as TransformerLens names them, in forward order, NULL after the last. */
extern const char *const site_hook_points[];

/* Compares two names as strcmp does; 0: they are the same. */
int site_order(const char *a, const char *b);

#endif
