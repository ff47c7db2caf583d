/* run_identity.h - which run a folder is of: OUT/run.json, {"software": ..., "run": id, "checksum": ...}, sealed (json_file.h).
 *
 * A run writes to the folder that it was started in and to no other: not to one that has taken its name since, not to a new one where it was
 * removed. So the folder is asked before each save. */
#ifndef CROSSFEED_RUN_IDENTITY_H
#define CROSSFEED_RUN_IDENTITY_H

#include "err.h"
#include "fingerprint.h"

#define RUN_IDENTITY_NAME "run.json"

/* Reads the folder's run. ERR_ABSENT: it does not say, as folders of older runs; ERR_DAMAGED: it cannot be told any more. */
int run_identity_read(const char *out, char run[FINGERPRINT_SIZE], struct err *e);

/* Says that the folder is the run's. */
int run_identity_write(const char *out, const char *run, struct err *e);

/* Refuses (ERR_SYSTEM) unless the folder at out is the open one, folder, which the caller has locked, and unless it is the run's; NULL: any
 * run's. If it does not say any more, that is put right, and said. */
int run_identity_check(const char *out, int folder, const char *run, struct err *e);

#endif
