/* families.c - see families.h. A family is added by its header and a line here. (This file has nothing else, so that a
 * program that defines a table of its own, as test_family.c does, is linked with that one instead.) */
#include "families.h"

#include <stddef.h>

#include "family_gpt2.h"

const struct family *const families[] = {
    &family_gpt2,
    NULL,
};
