/* source_select.h - some of another source's sites, or differences of them, as a source of its own.
 *
 * It is for sources whose sites exist already, by name: recordings, imports, planted dictionaries. (source_model computes
 * no other sites than those that are wanted.) What is wanted is said as everywhere, see site_picks.h: "0:*,1-0:blocks.5.*".
 *
 * Sites that are picked whole have the bits that they had. A recording's come scaled, as they are stored; if none of the
 * sites is a difference, so do these, and the stream keeps its scale.
 *
 * A difference is taken of vectors in fp32 that are not scaled. A recording's rows x * scale have been rounded, so each is
 * divided by its site's scale first: x' = row / scale. The stream then has no scale (the run's is used, as with a model),
 * and offers both dtypes. What recording has rounded stays rounded: with bf16 each element of both vectors is off by up
 * to 0.2 % of itself, which is a lot of a small difference of large vectors, and is logged. So the rows are not those of a
 * live producer that takes the difference before it rounds; the models' fingerprints become others, which depend on the
 * scale and the dtype too, so that both cannot serve one run. Only of a recording in fp32 with scale 1 nothing is lost,
 * and the fingerprints stay. (A difference that was recorded as such is a site like any other.) */
#ifndef CROSSFEED_SOURCE_SELECT_H
#define CROSSFEED_SOURCE_SELECT_H

#include "err.h"
#include "source.h"

/* Puts in the place of *s, an open source, one that has the wanted sites only, and owns what *s was; or leaves *s alone, if
 * that has just these. Refuses what site_picks_match and stream_check do. After an error *s is as it was. compute fails
 * as the other source's does, and with ERR_INPUT at a value that is not finite. It holds so many sequences of the other
 * source's rows at a time as fit in 4 MB, at least one. */
int source_select(struct source *s, const char *sites, struct err *e);

#endif
