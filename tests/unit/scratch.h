/* scratch.h - a folder of this test's own, removed at its end. */
#ifndef CROSSFEED_SCRATCH_H
#define CROSSFEED_SCRATCH_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

static char scratch_folder[64];

/* cmocka group set-up and tear-down. */
static inline int scratch_open(void **state)
{
    (void)state;
    strcpy(scratch_folder, "/tmp/crossfeed-test-XXXXXX");
    return mkdtemp(scratch_folder) ? 0 : -1;
}

static inline int scratch_close(void **state)
{
    (void)state;
    return file_remove_tree(scratch_folder, NULL);
}

/* The path of a file there; valid until the fourth call after this one. */
static inline const char *scratch_path(const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch_folder, name);
    return path;
}

/* Writes bytes as a file of that name and returns its path. */
static inline const char *scratch_write(const char *name, const void *data, size_t size)
{
    const char *path = scratch_path(name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
    return path;
}

/* Files in the folder whose name contains `part`. */
static inline int scratch_count(const char *part)
{
    int n = 0;
    DIR *folder = opendir(scratch_folder);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        n += entry->d_name[0] != '.' && strstr(entry->d_name, part) != NULL;
    closedir(folder);
    return n;
}

#endif
