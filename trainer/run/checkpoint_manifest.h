/* checkpoint_manifest.h - manifest.json: the commit record of a checkpoint, and of a run's results.
 *
 *   {"format": "crossfeed-checkpoint", "version": 1, "software": ..., "run": id, "step": N,
 *    "files": {"cfg.json": {"bytes": N, "xxh3": 32 hex digits of XXH3-128}, ...}, "checksum": ...}
 * It is written last, after all that it names, and sealed (json_file.h), so that a folder whose manifest holds is what one trainer wrote at one
 * step of one run, to the bit. Damage of any file is found, and files of different steps side by side. It is no signature: who may write the
 * folder may write a manifest. */
#ifndef CROSSFEED_CHECKPOINT_MANIFEST_H
#define CROSSFEED_CHECKPOINT_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "file_digest.h"

#define MANIFEST_NAME "manifest.json"
#define MANIFEST_MAX_FILES 4

struct checkpoint_manifest {
    char run[FINGERPRINT_SIZE]; /* the run's id */
    uint64_t step;
    size_t n_files;
    struct checkpoint_file {
        char name[64];
        struct file_digest digest;
    } files[MANIFEST_MAX_FILES];
};

/* Adds a file of that name (a literal), whose digest the caller fills; there are fewer than MANIFEST_MAX_FILES. */
struct file_digest *checkpoint_manifest_add(struct checkpoint_manifest *m, const char *name);

/* Writes folder/manifest.json. */
int checkpoint_manifest_write(const char *folder, const struct checkpoint_manifest *m, struct err *e);

/* Reads it. ERR_ABSENT if there is none; ERR_DAMAGED if it is not what was written. */
int checkpoint_manifest_read(const char *folder, struct checkpoint_manifest *m, struct err *e);

/* Reads all files of the folder that it names and compares: ERR_DAMAGED, naming the file and both values. */
int checkpoint_manifest_verify(const char *folder, const struct checkpoint_manifest *m, struct err *e);

/* Returns the bytes of all files that it names. */
size_t checkpoint_manifest_bytes(const struct checkpoint_manifest *m);

#endif
