/* site_picks.h - which of the sites that there are, are wanted: globs over their names, and differences of two models.
 *
 * Names are those of site_parts.h. The list of globs (fnmatch(3), comma-separated) may have
 *   blocks.[4-8].*      matched against the hook point, of whatever model
 *   1:blocks.5.*        a glob with a ':' is matched against the whole name
 *   1-0:blocks.5.*      model 1's vector less model 0's at each hook point of the two that matches; the name of the
 *                       site is then 1-0:blocks.5.hook_resid_post. Where a site of that name is there already, as in a
 *                       recording of it, that one is meant. */
#ifndef CROSSFEED_SITE_PICKS_H
#define CROSSFEED_SITE_PICKS_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "stream.h"

#define PICK_WHOLE SIZE_MAX

struct site_pick {
    size_t site; /* the index of its name */
    size_t less; /* the site whose vector is subtracted from it, or PICK_WHOLE: none is */
};

struct site_picks {
    size_t n;
    struct site_pick picks[STREAM_MAX_SITES]; /* each once: whole sites in the order of the names, then
                                                 differences by the numbers of their models, and in that order */
};

/* Picks from names [n_names], n_names at least 1. Refuses with ERR_INPUT, naming the glob: one that matches nothing (the
 * message ends with hint, which says more of the names, or is ""); a difference of a model and itself, with a model that
 * is not there, or at a hook point that only one of the two has. Refuses more than STREAM_MAX_SITES sites, and names of
 * differences that are too long. */
int site_picks_match(struct site_picks *p, const char *globs, const char (*names)[SITE_NAME_SIZE], size_t n_names,
                     const char *hint, struct err *e);

/* Writes the name of a picked site. */
void site_pick_name(char name[SITE_NAME_SIZE], const struct site_pick *k, const char (*names)[SITE_NAME_SIZE]);

#endif
