/* json_file.h - JSON as text and in files: read whole, written atomically, and out of memory noticed.
 *
 * Building an object takes many calls of jansson, which drop values without a word when memory is short unless each
 * result is looked at. Once json_use_mem has been called they need not be: the failure is remembered (mem.h), and what
 * turns the object into text refuses. */
#ifndef CROSSFEED_JSON_FILE_H
#define CROSSFEED_JSON_FILE_H

#include <stdbool.h>

#include <jansson.h>

#include "err.h"
#include "file_digest.h"

/* Lets jansson allocate through mem.h. Each program calls it once, before its first use of jansson. */
void json_use_mem(void);

/* Parses text, with jansson's flags, into *value, new and owned by the caller (json_decref); NULL on failure. Refuses what
 * is not JSON ("path: not JSON, line ..."). */
int json_parse(const char *text, size_t size, size_t flags, json_t **value, const char *path, struct err *e);

/* Returns value (borrowed) as NUL-terminated text, with jansson's flags, owned by the caller (mem_free). Returns NULL with
 * e filled (naming what) if memory is short, was short when the value was built, or value is NULL. */
char *json_text(const json_t *value, size_t flags, const char *what, struct err *e);

/* Reads the file's object into *value, new and owned by the caller (json_decref). Refuses what is not one object, repeated
 * keys, and more than 64 MB. */
int json_read_object(const char *path, json_t **value, struct err *e);

/* Writes value (borrowed) indented, numbers with all their digits; the file appears complete or not at all (file.h). NULL
 * is a value that could not be built: refused as by json_text. */
int json_write(const char *path, const json_t *value, struct err *e);
/* The same; tells the file's digest. */
int json_write_digest(const char *path, const json_t *value, struct file_digest *digest, struct err *e);

/* A sealed file ends with the XXH3-128 of all its bytes before: its object's last member is "checksum", and the hash is of what stands
 * before that key's first quote. json_write_sealed adds the member to value (which has none yet) and writes as json_write. */
int json_write_sealed(const char *path, json_t *value, struct err *e);

/* Reads as json_read_object. Without a checksum *sealed is false. With one that is not that of the bytes, or not the file's end, the file is
 * refused as damaged (ERR_DAMAGED), as is what is no object; ERR_ABSENT if there is no file. */
int json_read_sealed(const char *path, json_t **value, bool *sealed, struct err *e);

/* Whether the file is a JSON object with that key. */
bool json_file_has(const char *path, const char *key);

/* Returns a number, or null for NaN and infinity, which JSON lacks. */
json_t *json_real_or_null(double x);

#endif
