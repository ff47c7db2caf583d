/* allow_list.h - the public keys of the producers that may join: a file with a key a line, or a folder of *.public files.
 *
 * The list is read anew when the file, the folder or a file in it has changed. If it cannot be read then, the old list stays in force.
 * A list belongs to one thread. */
#ifndef CROSSFEED_ALLOW_LIST_H
#define CROSSFEED_ALLOW_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "curve_keys.h"
#include "err.h"

struct allow_list {
    char path[4096];
    char (*keys)[CURVE_KEY_SIZE]; /* [n], room for `room` */
    size_t n, room;
    uint64_t state; /* hash of names, sizes and times of change of the files that were read last */
};

/* Reads the file or folder at path. It is an error if it has no key, or a malformed one. */
int allow_list_init(struct allow_list *a, const char *path, struct err *e);
/* Frees the keys. A zeroed list is fine. */
void allow_list_release(struct allow_list *a);

/* Returns whether the key is on the list. */
bool allow_list_has(const struct allow_list *a, const char *key);

/* Looks whether the files have changed. Returns 1 if they have, and the list is the new one now; 0 if they have not; or an error if the
 * new list cannot be read: then the old one stays, and this change is not looked at again. */
int allow_list_refresh(struct allow_list *a, struct err *e);

#endif
