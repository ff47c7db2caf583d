/* allow_list.c - reads the allowed keys, and reads them again when their files change; see allow_list.h. */
#include "allow_list.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "file.h"
#include "mem.h"

#define MAX_KEYS 65536

static int add(void *context, const char *key, struct err *e)
{
    struct allow_list *a = context;
    if (a->n == MAX_KEYS)
        return err_set(e, ERR_INPUT, "%s: more than %d keys", a->path, MAX_KEYS);
    if (a->n == a->room) {
        size_t room = a->room ? 2 * a->room : 16;
        char(*more)[CURVE_KEY_SIZE] = mem_alloc(room, sizeof *more, "allowed keys", e);
        if (!more)
            return ERR_MEMORY;
        if (a->n)
            memcpy(more, a->keys, a->n * sizeof *more);
        mem_free(a->keys);
        a->keys = more;
        a->room = room;
    }
    memcpy(a->keys[a->n++], key, CURVE_KEY_SIZE);
    return 0;
}

static bool is_key_file(const char *name)
{
    size_t size = strlen(name), ending = strlen(".public");
    return name[0] != '.' && size > ending && strcmp(name + size - ending, ".public") == 0;
}

/* Calls visit(context, path) for the file, or for each key file of the folder, until a call returns non-zero; returns that. */
static int for_each_file(const char *path, int (*visit)(void *context, const char *path, struct err *e), void *context,
                         struct err *e)
{
    char file[4096];
    struct stat st;
    if (stat(path, &st) != 0)
        return err_errno(e, errno, "%s: cannot open", path);
    if (!S_ISDIR(st.st_mode))
        return visit(context, path, e);
    DIR *folder = opendir(path);
    int rc = folder ? 0 : err_errno(e, errno, "%s: cannot open", path);
    for (struct dirent *entry; rc == 0 && (entry = readdir(folder));)
        if (is_key_file(entry->d_name) && (rc = file_join(file, sizeof file, path, entry->d_name, e)) == 0)
            rc = visit(context, file, e);
    if (folder)
        closedir(folder);
    return rc;
}

static int read_file(void *context, const char *path, struct err *e)
{
    return curve_public_each(path, add, context, e);
}

/* Adds what can be seen of a file without reading it to a hash. It is a sum, so that the order of a folder does not matter. */
static int look_at_file(void *context, const char *path, struct err *e)
{
    uint64_t *state = context;
    struct stat st;
    (void)e;
    if (stat(path, &st) == 0) {
        const int64_t facts[] = {(int64_t)st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                                 st.st_ctim.tv_nsec};
        *state += XXH3_64bits(path, strlen(path)) ^ XXH3_64bits(facts, sizeof facts);
    }
    return 0;
}

static uint64_t look(const char *path)
{
    uint64_t state = 0;
    for_each_file(path, look_at_file, &state, NULL);
    return state;
}

int allow_list_init(struct allow_list *a, const char *path, struct err *e)
{
    *a = (struct allow_list){0};
    if ((size_t)snprintf(a->path, sizeof a->path, "%s", path) >= sizeof a->path)
        return err_set(e, ERR_INPUT, "%.80s...: longer than a path may be", path);
    a->state = look(path);
    int rc = for_each_file(path, read_file, a, e);
    if (rc == 0 && a->n == 0)
        rc = err_set(e, ERR_INPUT, "%s: a folder without *.public files: nobody could join", path);
    if (rc)
        allow_list_release(a);
    return rc;
}

void allow_list_release(struct allow_list *a)
{
    mem_free(a->keys);
    a->keys = NULL;
    a->n = a->room = 0;
}

bool allow_list_has(const struct allow_list *a, const char *key)
{
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->keys[i], key) == 0)
            return true;
    return false;
}

int allow_list_refresh(struct allow_list *a, struct err *e)
{
    uint64_t state = look(a->path);
    struct allow_list fresh;
    if (state == a->state)
        return 0;
    a->state = state;
    int rc = allow_list_init(&fresh, a->path, e);
    if (rc)
        return rc;
    allow_list_release(a);
    *a = fresh;
    return 1;
}
