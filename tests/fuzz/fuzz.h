/* fuzz.h - what a fuzz target is, and files made of its bytes.
 *
 * A target is one function over bytes. libFuzzer calls it (CROSSFEED_FUZZ), or replay.c, which feeds it the kept corpus
 * in the ordinary tests. Readers that take paths get the bytes through a memfd: no disk, no names to clean up. */
#ifndef CROSSFEED_FUZZ_H
#define CROSSFEED_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold whatever the bytes are; also in builds without assert. */
#define MUST(condition)                                                                    \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

/* The path of file `slot` (0 to 4) of this process, which now has these bytes. */
static inline const char *fuzz_file(int slot, const void *data, size_t size)
{
    static int files[5] = {-1, -1, -1, -1, -1};
    static char paths[5][32];
    if (files[slot] < 0) {
        files[slot] = memfd_create("fuzz", MFD_CLOEXEC);
        MUST(files[slot] >= 0);
        snprintf(paths[slot], sizeof paths[slot], "/proc/self/fd/%d", files[slot]);
    }
    MUST(ftruncate(files[slot], 0) == 0 && pwrite(files[slot], data, size, 0) == (ssize_t)size);
    return paths[slot];
}

/* A folder of this process, on memory, removed at exit. fuzz_link puts a name there that leads to a path. */
static char fuzz_folder_path[64];

static inline void fuzz_folder_remove(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", fuzz_folder_path);
    if (system(command) != 0)
        fprintf(stderr, "cannot remove %s\n", fuzz_folder_path);
}

static inline const char *fuzz_folder(void)
{
    if (!fuzz_folder_path[0]) {
        strcpy(fuzz_folder_path, "/dev/shm/crossfeed-fuzz-XXXXXX");
        MUST(mkdtemp(fuzz_folder_path));
        atexit(fuzz_folder_remove);
    }
    return fuzz_folder_path;
}

static inline void fuzz_link(const char *name, const char *target)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    unlink(path);
    MUST(symlink(target, path) == 0);
}

#endif
