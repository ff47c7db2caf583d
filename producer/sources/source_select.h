/* source_select.h - some of another source's sites, or differences of them, as a source of its own.
 *
 * It is for sources whose sites exist already, by name: recordings, imports, planted dictionaries. (source_model
 * computes only the sites that are wanted.) What is wanted is said as everywhere, see site_picks.h:
 * "0:*,1-0:blocks.5.*".
 *
 * Sites that are picked whole have the bits that they had. A recording's are scaled already, as they are stored; if none
 * of the wanted sites is a difference, they are sent so, and the stream keeps its scale.
 *
 * A difference is taken of unscaled vectors in fp32. A recording has rows x * scale, rounded, so each is divided by its
 * site's scale first. The stream then has no scale (the run's is used, as with a model), and offers both dtypes. What
 * the recording has rounded stays rounded: with bf16 each element of both vectors is off by up to 0.2 % of itself,
 * which is a lot of a small difference of large vectors, and is logged. So the rows are not those of a live producer,
 * which subtracts before it rounds, and both must not serve one run: the models' fingerprints become others, which
 * depend on the scale and the dtype of the recording, too. A recording in fp32 with scale 1 has lost nothing, and
 * keeps its fingerprints. (A difference that was recorded as such is a site like any other.) */
#ifndef CROSSFEED_SOURCE_SELECT_H
#define CROSSFEED_SOURCE_SELECT_H

#include "err.h"
#include "source.h"

/* Replaces *s, an open source, by one that has only the wanted sites and owns what *s was; or leaves *s alone, if these
 * are all that it has. Refuses what site_picks_match and stream_check do. After an error *s is as it was. compute fails
 * as the other source's does, and with ERR_INPUT at a value that is not finite. It holds so many sequences of the other
 * source's rows at a time as fit in 4 MB, at least one. */
int source_select(struct source *s, const char *sites, struct err *e);

#endif
