/* scale_list.h - a scale as a user says it: a positive number a site, "0.51,0.49" in the order of the sites, or
 * "blocks.0.hook_resid_post=0.51,blocks.1.hook_resid_post=0.49" by their names, in any order. */
#ifndef CROSSFEED_SCALE_LIST_H
#define CROSSFEED_SCALE_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "stream.h"

struct scale_list {
    uint32_t n; /* values; 0: no scale */
    float values[STREAM_MAX_SITES];
    bool named;                                   /* else the values are in the order of the sites */
    char names[STREAM_MAX_SITES][SITE_NAME_SIZE]; /* [n] if named, each once */
};

/* Reads a text. Refuses, naming the text and the value: what is not a positive number, a name twice, values with names
 * beside values without. */
int scale_list_parse(struct scale_list *l, const char *text, struct err *e);

/* Makes a list of scale [n], in the order of the sites. */
void scale_list_set(struct scale_list *l, const float *scale, uint32_t n);

/* Puts the list's values into scale [s->n_sites], in the order of the stream's sites. Refuses another number of values
 * (both numbers), a name that is no site's, and a site that no name is for. */
int scale_list_match(const struct scale_list *l, const struct stream *s, float *scale, struct err *e);

#endif
