/* overwrite.c - inputs are known by device and inode, so that links and other spellings of a path do not hide them; see overwrite.h. */
#include "overwrite.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { MAX_LISTS = 64 };

static struct list {
    const char *const *paths;
    size_t n;
} lists[MAX_LISTS];
static size_t n_lists;
static bool forced;

void overwrite_inputs(const char *const *paths, size_t n)
{
    assert(n_lists < MAX_LISTS);
    lists[n_lists++] = (struct list){paths, n};
}

void overwrite_force(void)
{
    forced = true;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Whether the file is the input at path, or in the folder at path. */
static bool is_input(const struct stat *file, const char *path)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return false;
    if (!S_ISDIR(s.st_mode))
        return same_file(file, &s);
    bool found = false;
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && !found && (entry = readdir(folder));)
        found = fstatat(dirfd(folder), entry->d_name, &s, 0) == 0 && S_ISREG(s.st_mode) && same_file(file, &s);
    if (folder)
        closedir(folder);
    return found;
}

int overwrite_check_input(const char *path, struct err *e)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return 0;
    for (size_t i = 0; i < n_lists; i++)
        for (size_t j = 0; j < lists[i].n; j++)
            if (is_input(&s, lists[i].paths[j]))
                return err_set(e, ERR_INPUT, "%s: not overwritten: it is an input (%s)", path, lists[i].paths[j]);
    return 0;
}

int overwrite_check(const char *path, const struct file_kind *kind, struct err *e)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return 0;
    if (!S_ISREG(s.st_mode))
        return err_set(e, ERR_INPUT, "%s: exists and is not a regular file", path);
    if (overwrite_check_input(path, e))
        return e->code;
    if (forced || s.st_size == 0 || kind->is(path, kind->mark))
        return 0;
    return err_set(e, ERR_INPUT, "%s: not overwritten without --force: it exists and is not %s", path, kind->name);
}
