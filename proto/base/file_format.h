/* file_format.h - what a file is by its first bytes, for messages that say what was given in place of what can be read: compressed files,
 * archives, and the containers of tables and tensors. */
#ifndef CROSSFEED_FILE_FORMAT_H
#define CROSSFEED_FILE_FORMAT_H

#include <stddef.h>

enum { FILE_FORMAT_HEAD = 512 }; /* bytes that suffice */

/* Returns the format's name ("gzip", "a zip archive"), NULL if the bytes begin no format known here. */
const char *file_format(const void *head, size_t n);

#endif
