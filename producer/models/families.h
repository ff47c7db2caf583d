/* families.h - the families of models that this build knows. */
#ifndef CROSSFEED_FAMILIES_H
#define CROSSFEED_FAMILIES_H

struct family;

extern const struct family *const families[]; /* NULL after the last */

#endif
