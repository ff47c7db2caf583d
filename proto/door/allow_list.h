/* allow_list.h - the public keys of the producers that may join: a file with a key a line, or a folder of *.public files.
 *
 * The list is read anew when the file, the folder or a file in it has changed, and it fails closed: a key that is not on it any more is off
 * at once, also when it was the last one or the whole list is gone. While any part of the list is there and cannot be read (a malformed
 * line, no permission), nobody new is admitted; the keys that this part had stay on the list, so that a slip of the pen does not end the
 * connections of those who are here. The caller locks. */
#ifndef CROSSFEED_ALLOW_LIST_H
#define CROSSFEED_ALLOW_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "curve_keys.h"
#include "err.h"

struct allowed_key {
    char key[CURVE_KEY_SIZE];
    uint64_t file; /* hash of the path of the file that has it */
};

struct allow_list {
    char path[4096];
    struct allowed_key *keys; /* [n] sorted by key, room for `room` */
    size_t n, room;
    bool readable;  /* all of it could be read */
    uint64_t state; /* hash of names, sizes and times of change of the files that were read last */
};

/* Reads the file or folder at path. It is an error if it has no key, or a malformed one. */
int allow_list_init(struct allow_list *a, const char *path, struct err *e);
/* Frees the keys. A zeroed list is fine. */
void allow_list_release(struct allow_list *a);

/* Returns whether the key is on the list: its connections may stay. */
bool allow_list_has(const struct allow_list *a, const char *key);

/* Returns NULL if somebody with the key may connect, else why not. */
const char *allow_list_refusal(const struct allow_list *a, const char *key);

/* Looks whether the files have changed, or whether what could not be read can be read now. Returns false if all is as it was. Returns true
 * and the list as it is now, whose content is the caller's; if it is not readable, e says why. a is only read. */
bool allow_list_changed(const struct allow_list *a, struct allow_list *now, struct err *e);

#endif
