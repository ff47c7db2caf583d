/* allow_list.h - the public keys of the producers that may join: a file with a key a line, or a folder of *.public files.
 *
 * Read anew when the file, the folder or a file in it has changed; a list that cannot be read then leaves the old one in
 * force. One thread. */
#ifndef CROSSFEED_ALLOW_LIST_H
#define CROSSFEED_ALLOW_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "curve_keys.h"
#include "err.h"

struct allow_list {
    char path[4096];
    char (*keys)[CURVE_KEY_SIZE]; /* [n] */
    size_t n;
    uint64_t state; /* of what was read last: names, sizes and times of change */
};

/* Reads it; at least one key, none malformed. */
int allow_list_init(struct allow_list *a, const char *path, struct err *e);
void allow_list_release(struct allow_list *a); /* safe on a zeroed struct */

bool allow_list_has(const struct allow_list *a, const char *key);

/* 1: it had changed and is another list now; 0: as it was; or an error, the old list stays and the change is not looked
 * at again. */
int allow_list_refresh(struct allow_list *a, struct err *e);

#endif
