/* file.c - memory maps and atomic outputs; see file.h. */
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "bus_error.h"
#include "mem.h"
#include "overwrite.h"

#define PIECE ((size_t)256 << 10)
#define EARLY ((size_t)16 << 20)

int file_map(struct file_map *m, const char *path, struct err *e)
{
    *m = (struct file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "%s: cannot open", path);
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st) < 0) {
        rc = err_errno(e, errno, "%s: cannot stat", path);
    } else if (!S_ISREG(st.st_mode)) {
        rc = err_set(e, ERR_INPUT, "%s: not a regular file", path);
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = err_errno(e, errno, "%s: cannot map %lld bytes", path, (long long)st.st_size);
        else
            *m = (struct file_map){p, (size_t)st.st_size};
        if (m->data)
            bus_error_watch(m->data, m->size, path);
    }
    close(fd);
    return rc;
}

void file_unmap(struct file_map *m)
{
    bus_error_forget(m->data);
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct file_map){0};
}

void file_map_passed(const void *p, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)p / page * page;
    if (n)
        madvise((void *)begin, (uintptr_t)p + n - begin, MADV_DONTNEED); /* a read-only map: nothing can be lost */
}

/* The file is read, not mapped: one that shrinks meanwhile is just shorter. */
int file_read_text(const char *path, size_t max, char **text, size_t *size, struct err *e)
{
    struct stat st;
    int rc = 0;
    *text = NULL;
    *size = 0;
    FILE *f = fopen(path, "rbe");
    if (!f)
        return err_errno(e, errno, "%s: cannot open", path);
    if (fstat(fileno(f), &st) < 0)
        rc = err_errno(e, errno, "%s: cannot stat", path);
    else if (!S_ISREG(st.st_mode))
        rc = err_set(e, ERR_INPUT, "%s: not a regular file", path);
    else if ((size_t)st.st_size > max)
        rc = err_set(e, ERR_INPUT, "%s: %zu bytes, at most %zu expected", path, (size_t)st.st_size, max);
    else if (!(*text = mem_alloc((size_t)st.st_size + 1, 1, path, e)))
        rc = ERR_MEMORY;
    else if ((*size = fread(*text, 1, (size_t)st.st_size, f)) < (size_t)st.st_size && ferror(f))
        rc = err_errno(e, errno, "%s: cannot read", path);
    else
        (*text)[*size] = '\0';
    fclose(f);
    if (rc) {
        mem_free(*text);
        *text = NULL;
    }
    return rc;
}

/* Writes the folder that path lies in to folder [size]. */
static void parent_folder(const char *path, char *folder, size_t size)
{
    snprintf(folder, size, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        snprintf(folder, size, ".");
    else
        slash[slash == folder] = '\0';
}

int file_out_open(struct file_out *o, const char *path, struct err *e)
{
    *o = (struct file_out){0};
    if (strlen(path) >= sizeof o->path)
        return err_set(e, ERR_INPUT, "%.80s...: path of %zu bytes, at most %zu", path, strlen(path),
                       sizeof o->path - 1);
    snprintf(o->path, sizeof o->path, "%s", path);
    snprintf(o->temporary, sizeof o->temporary, "%s.tmp.%ld", path, (long)getpid());
    struct stat st; /* the rename would put a plain file where a device or pipe was */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return err_set(e, ERR_INPUT, "%s: exists and is not a regular file", path);
    if (overwrite_check_input(path, e))
        return e->code;
    unlink(o->temporary); /* of a process that had our id, or somebody's link: neither is written through */
    int fd = open(o->temporary, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    o->f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!o->f) {
        int rc = err_errno(e, errno, "%s: cannot create", o->path);
        if (fd >= 0) {
            close(fd);
            unlink(o->temporary);
        }
        return rc;
    }
    if (fingerprint_init(&o->hash, e) == 0)
        return 0;
    file_out_abandon(o);
    return ERR_MEMORY;
}

int file_out_write(struct file_out *o, const void *data, size_t size, struct err *e)
{
    const unsigned char *piece = data;
    for (size_t left = size, n; left; left -= n, piece += n) {
        n = left < PIECE ? left : PIECE; /* the hash finds it in the processor's cache */
        fingerprint_add(&o->hash, piece, n);
        if (fwrite(piece, 1, n, o->f) != n) {
            o->failed = o->failed ? o->failed : errno;
            return err_errno(e, o->failed, "%s: cannot write %zu bytes", o->path, size);
        }
    }
    /* The disk begins at once, rather than when the file is synced at its end. */
    if ((o->digest.bytes + size) / EARLY > o->digest.bytes / EARLY)
        sync_file_range(fileno(o->f), 0, 0, SYNC_FILE_RANGE_WRITE);
    o->digest.bytes += size;
    return 0;
}

int file_out_commit(struct file_out *o, struct err *e)
{
    int saved = o->failed; /* each errno is taken at its own call: stdio remembers that one failed, not why */
    if (!saved && (fflush(o->f) != 0 || fsync(fileno(o->f)) != 0))
        saved = errno;
    if (!saved && ferror(o->f))
        saved = EIO;
    if (fclose(o->f) != 0 && !saved)
        saved = errno;
    o->f = NULL;
    fingerprint_finish(&o->hash, o->digest.fingerprint);
    if (saved) {
        unlink(o->temporary);
        return err_errno(e, saved, "%s: cannot write", o->path);
    }
    if (rename(o->temporary, o->path) < 0) {
        saved = errno;
        unlink(o->temporary);
        return err_errno(e, saved, "%s: cannot rename the finished file into place", o->path);
    }
    char folder[sizeof o->path];
    parent_folder(o->path, folder, sizeof folder);
    return file_sync_folder(folder, e);
}

void file_out_abandon(struct file_out *o)
{
    if (!o->f)
        return;
    if (o->hash.state)
        fingerprint_finish(&o->hash, o->digest.fingerprint);
    fclose(o->f);
    o->f = NULL;
    unlink(o->temporary);
}

int file_copy(const char *from, const char *to, struct err *e)
{
    struct file_map m;
    struct file_out o;
    if (file_map(&m, from, e))
        return e->code;
    int rc = file_out_open(&o, to, e);
    if (rc == 0 && (rc = file_out_write(&o, m.data, m.size, e)) == 0)
        rc = file_out_commit(&o, e);
    else if (rc)
        file_out_abandon(&o);
    file_unmap(&m);
    return rc;
}

int file_write_new(const char *path, mode_t mode, const void *data, size_t size, struct err *e)
{
    char temporary[4096 + 32], folder[4096];
    if (strlen(path) >= sizeof folder)
        return err_set(e, ERR_INPUT, "%.80s...: path of %zu bytes, at most %zu", path, strlen(path), sizeof folder - 1);
    snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    int fd = open(temporary, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
    if (fd < 0)
        return err_errno(e, errno, "%s: cannot create", path);
    bool written = fchmod(fd, mode) == 0 && write(fd, data, size) == (ssize_t)size && fsync(fd) == 0;
    int saved = errno;
    close(fd);
    bool linked = written && link(temporary, path) == 0; /* unlike rename, it fails if there is something */
    if (written && !linked)
        saved = errno;
    unlink(temporary);
    if (!linked)
        return err_errno(e, saved, saved == EEXIST ? "%s: not overwritten" : "%s: cannot write", path);
    parent_folder(path, folder, sizeof folder);
    return file_sync_folder(folder, e);
}

int file_make_folder(const char *path, struct err *e)
{
    char partial[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof partial)
        return err_set(e, ERR_INPUT, "folder name of %zu bytes", n);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(partial, path, i);
        partial[i] = '\0';
        if (mkdir(partial, 0777) < 0 && errno != EEXIST)
            return err_errno(e, errno, "%s: cannot make folder", partial);
    }
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_SYSTEM, "%s: exists and is not a folder", path);
    return 0;
}

int file_make_folder_in(const char *path, struct err *e)
{
    struct stat st;
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
        return 0;
    return err_errno(e, errno, "%s: cannot make folder", path);
}

int file_free_bytes(const char *folder, size_t *available, struct err *e)
{
    struct statvfs fs;
    if (statvfs(folder, &fs) != 0)
        return err_errno(e, errno, "%s: cannot ask for free space", folder);
    *available = fs.f_blocks ? (size_t)fs.f_bavail * fs.f_frsize : SIZE_MAX;
    return 0;
}

int file_sync_folder(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "%s: cannot open folder", path);
    int rc = fsync(fd) < 0 ? err_errno(e, errno, "%s: cannot sync folder", path) : 0;
    close(fd);
    return rc;
}

int file_remove_tree(const char *path, struct err *e)
{
    if (unlink(path) == 0 || errno == ENOENT)
        return 0;
    DIR *folder = opendir(path);
    if (!folder)
        return errno == ENOENT ? 0 : err_errno(e, errno, "%s: cannot remove", path);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    if (rmdir(path) < 0)
        return err_errno(e, errno, "%s: cannot remove folder", path);
    return 0;
}

/* Whether the name is "NAME.tmp.PID" and no process has that id. */
static bool is_leftover(const char *name)
{
    char *end;
    const char *tmp = strstr(name, ".tmp.");
    long pid = tmp ? strtol(tmp + 5, &end, 10) : 0;
    return pid > 0 && *end == '\0' && kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

int file_remove_leftovers(const char *folder, struct err *e)
{
    DIR *files = opendir(folder);
    if (!files)
        return err_errno(e, errno, "%s: cannot read folder", folder);
    for (struct dirent *entry; (entry = readdir(files));)
        if (is_leftover(entry->d_name))
            unlinkat(dirfd(files), entry->d_name, 0);
    closedir(files);
    return 0;
}

int file_join(char *dst, size_t dst_size, const char *a, const char *b, struct err *e)
{
    int n = snprintf(dst, dst_size, "%s/%s", a, b);
    if (n < 0 || (size_t)n >= dst_size)
        return err_set(e, ERR_INPUT, "path %.80s.../%.80s is longer than %zu bytes", a, b, dst_size - 1);
    return 0;
}
