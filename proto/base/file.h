/* file.h - whole files: read-only memory maps, and outputs that appear complete or not at all.
 *
 * An output is written to "<path>.tmp.<pid>", fsynced, renamed over <path>, and its folder fsynced. A full disk or a
 * kill leaves the old file as it was; a leftover temporary is never read, and a link in its place never followed. */
#ifndef CROSSFEED_FILE_H
#define CROSSFEED_FILE_H

#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#include "err.h"
#include "file_digest.h"

struct file_map {
    const unsigned char *data; /* valid until file_unmap; NULL for an empty file */
    size_t size;               /* bytes */
};

/* Maps the whole regular file read-only. Refuses folders and what cannot be opened. A file that is cut short while it
 * is mapped: bus_error.h. */
int file_map(struct file_map *m, const char *path, struct err *e);
/* Unmaps it; safe on a zeroed struct. */
void file_unmap(struct file_map *m);
/* Tells the kernel that the n bytes at p, inside a map, have been read and need not stay in this process's memory.
 * Reading them again works. */
void file_map_passed(const void *p, size_t n);

/* Reads a small text file whole (at most max bytes) into a NUL-terminated string owned by the caller (mem_free). */
int file_read_text(const char *path, size_t max, char **text, size_t *size, struct err *e);

/* An output on its way: write with file_out_write, then commit or abandon. */
struct file_out {
    FILE *f;
    char path[4096];
    char temporary[4096 + 32];
    struct file_digest digest; /* once committed: of what was written, in the order in which it was */
    struct fingerprint hash;   /* of it so far */
    int failed;                /* errno of the first write that failed */
};

/* Opens the temporary. Refuses a path at which something other than a regular file, or an input of this process
 * (overwrite.h), lies. */
int file_out_open(struct file_out *o, const char *path, struct err *e);
/* Writes size bytes. */
int file_out_write(struct file_out *o, const void *data, size_t size, struct err *e);
/* Flushes, syncs and closes the file, gives it its name and syncs the folder. After a failure the old file is as it was
 * and the temporary is removed. */
int file_out_commit(struct file_out *o, struct err *e);
/* Closes and removes the temporary; safe after commit. */
void file_out_abandon(struct file_out *o);

/* Makes `to` the same bytes as the file `from`. */
int file_copy(const char *from, const char *to, struct err *e);

/* Writes a small file of exactly this mode, whole and synced or not there at all. Refuses a path at which something
 * lies. */
int file_write_new(const char *path, mode_t mode, const void *data, size_t size, struct err *e);

/* Makes a folder and those above it; one that is there is fine. */
int file_make_folder(const char *path, struct err *e);
/* Makes a folder in one that exists; one that is there is fine. */
int file_make_folder_in(const char *path, struct err *e);
/* Finds the bytes that may still be written to the folder's file system; SIZE_MAX if it does not say. */
int file_free_bytes(const char *folder, size_t *available, struct err *e);
/* Syncs a folder, so that names made or removed in it last. */
int file_sync_folder(const char *path, struct err *e);
/* Removes a file, or a folder of plain files (one level); a missing one is fine. */
int file_remove_tree(const char *path, struct err *e);
/* Removes what killed processes left half-written in a folder: the temporaries above of processes that are no more. */
int file_remove_leftovers(const char *folder, struct err *e);

/* Writes a "/" b to dst [dst_size]; returns ERR_INPUT if it does not fit. */
int file_join(char *dst, size_t dst_size, const char *a, const char *b, struct err *e);

#endif
