/* unpack.h - the bytes of a file as they were before gzip, zstd or xz packed them, as a stream: memory does not grow with the file.
 *
 * The format is known by the first bytes, whatever the name. A file may be several packed ones behind each other. Refused, by name: other
 * compressed files and archives, also inside a packed file; formats that the build leaves out; what is damaged or cut short. */
#ifndef CROSSFEED_UNPACK_H
#define CROSSFEED_UNPACK_H

#include <signal.h>
#include <stddef.h>

#include "err.h"

struct unpack;

/* Opens the file; path "-": standard input. NULL with e filled if it cannot be read. stop: when it is set, an interrupted read fails with
 * ERR_STOPPED; may be NULL. Both must stay. */
struct unpack *unpack_open(const char *path, const volatile sig_atomic_t *stop, struct err *e);
/* Reads up to size bytes (at least 1) to dst; *n becomes how many, 0 at the end. */
int unpack_read(struct unpack *u, char *dst, size_t size, size_t *n, struct err *e);
/* Safe on NULL. */
void unpack_close(struct unpack *u);

#endif
