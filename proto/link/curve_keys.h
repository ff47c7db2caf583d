/* curve_keys.h - CURVE key pairs and the files that hold them.
 *
 * A key is 40 characters of Z85 (ZeroMQ RFC 32). A key file is text, a key a line:
 *
 *     # a comment (no key begins with a hash)
 *     secret <40 characters>
 *     public <40 characters> whatever says whose it is
 *
 * NAME.secret has both lines and mode 0600; NAME.public has the second only. Where only public keys are wanted, the word "public" may be
 * left out. Refused are secret files that others may read, keys of another length or alphabet, a pair that does not belong together, and
 * a secret key where a public one is wanted. No message shows a secret key. */
#ifndef CROSSFEED_CURVE_KEYS_H
#define CROSSFEED_CURVE_KEYS_H

#include "err.h"

#define CURVE_KEY_SIZE 41 /* with the NUL */

struct curve_pair {
    char public_key[CURVE_KEY_SIZE], secret_key[CURVE_KEY_SIZE];
};

/* The keys of a producer: its own pair and the trainer's public key. */
struct curve_client {
    struct curve_pair own;
    char server[CURVE_KEY_SIZE];
};

/* Makes a new pair. */
int curve_pair_make(struct curve_pair *p, struct err *e);

/* Writes NAME.secret and NAME.public. It is an error if one of them is there already. */
int curve_pair_write(const struct curve_pair *p, const char *name, struct err *e);

/* Reads a NAME.secret. */
int curve_pair_read(struct curve_pair *p, const char *path, struct err *e);

/* Takes the public key from `text`, which is a key itself or the path of a file that holds one. */
int curve_public_read(char key[CURVE_KEY_SIZE], const char *text, struct err *e);

/* Calls each(context, key) for every public key of a file, of which there must be at least one (else ERR_ABSENT). It stops at the first
 * call that does not return 0 and returns that. */
int curve_public_each(const char *path, int (*each)(void *context, const char *key, struct err *e), void *context,
                      struct err *e);

#endif
