/* allow_list.c - reads the allowed keys, and reads them again when their files change; see allow_list.h. */
#include "allow_list.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "file.h"
#include "mem.h"

#define MAX_KEYS 65536

/* What a file is read into. */
struct reading {
    struct allow_list *list;
    const struct allow_list *before; /* the list as it was; NULL: there was none, and a fault ends the reading */
    uint64_t file;
    struct err *why; /* of the first fault; its code is 0 until then */
};

static int add(void *context, const char *key, struct err *e)
{
    struct reading *r = context;
    struct allow_list *a = r->list;
    if (a->n == MAX_KEYS)
        return err_set(e, ERR_INPUT, "%s: more than %d keys", a->path, MAX_KEYS);
    if (a->n == a->room) {
        size_t room = a->room ? 2 * a->room : 16;
        struct allowed_key *more = mem_alloc(room, sizeof *more, "allowed keys", e);
        if (!more)
            return ERR_MEMORY;
        if (a->n)
            memcpy(more, a->keys, a->n * sizeof *more);
        mem_free(a->keys);
        a->keys = more;
        a->room = room;
    }
    a->keys[a->n].file = r->file;
    memcpy(a->keys[a->n++].key, key, CURVE_KEY_SIZE);
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
    while (rc == 0) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (!entry && errno)
            rc = err_errno(e, errno, "%s: cannot read", path);
        if (!entry)
            break;
        if (is_key_file(entry->d_name) && (rc = file_join(file, sizeof file, path, entry->d_name, e)) == 0)
            rc = visit(context, file, e);
    }
    if (folder)
        closedir(folder);
    return rc;
}

/* Keeps the keys that the file had before; 0: those of all files. */
static int keep(struct reading *r, uint64_t file, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && r->before && i < r->before->n; i++)
        if (!file || r->before->keys[i].file == file) {
            r->file = r->before->keys[i].file;
            rc = add(r, r->before->keys[i].key, e);
        }
    return rc;
}

/* Reads a file. One that is there and cannot be read keeps the keys that it had, unless it has none at all now. */
static int read_file(void *context, const char *path, struct err *e)
{
    struct reading *r = context;
    size_t n = r->list->n;
    uint64_t file = r->file = XXH3_64bits(path, strlen(path)) | 1; /* not 0 */
    int rc = curve_public_each(path, add, r, e);
    if (rc == 0 || !r->before || rc == ERR_MEMORY)
        return rc;
    r->list->n = n;
    if (access(path, F_OK) != 0) /* it went meanwhile, and its keys with it */
        return 0;
    if (!r->why->code)
        *r->why = *e;
    return rc == ERR_ABSENT ? 0 : keep(r, file, e);
}

/* Adds what can be seen of a file without reading it to a hash. It is a sum, so that the order of a folder does not matter. */
static int look_at_file(void *context, const char *path, struct err *e)
{
    uint64_t *state = context;
    struct stat st;
    (void)e;
    if (stat(path, &st) == 0) { /* of a folder, too: names come and go in it */
        const int64_t facts[] = {(int64_t)st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                                 st.st_ctim.tv_nsec};
        *state += XXH3_64bits(path, strlen(path)) ^ XXH3_64bits(facts, sizeof facts);
    }
    return 0;
}

static uint64_t look(const char *path)
{
    uint64_t state = 0;
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        look_at_file(&state, path, NULL);
    for_each_file(path, look_at_file, &state, NULL);
    return state;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(((const struct allowed_key *)a)->key, ((const struct allowed_key *)b)->key);
}

static void sort(struct allow_list *a)
{
    if (a->n)
        qsort(a->keys, a->n, sizeof *a->keys, compare_keys);
}

int allow_list_init(struct allow_list *a, const char *path, struct err *e)
{
    *a = (struct allow_list){.readable = true};
    if ((size_t)snprintf(a->path, sizeof a->path, "%s", path) >= sizeof a->path)
        return err_set(e, ERR_INPUT, "%.80s...: longer than a path may be", path);
    a->state = look(path);
    struct reading r = {.list = a};
    int rc = for_each_file(path, read_file, &r, e);
    if (rc == 0 && a->n == 0)
        rc = err_set(e, ERR_INPUT, "%s: a folder without *.public files: nobody could join", path);
    if (rc)
        allow_list_release(a);
    sort(a);
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
    struct allowed_key wanted;
    snprintf(wanted.key, sizeof wanted.key, "%s", key);
    return a->n && bsearch(&wanted, a->keys, a->n, sizeof *a->keys, compare_keys);
}

const char *allow_list_refusal(const struct allow_list *a, const char *key)
{
    if (!a->readable)
        return "the list of allowed keys cannot be read";
    return allow_list_has(a, key) ? NULL : "its key is not allowed";
}

bool allow_list_changed(const struct allow_list *a, struct allow_list *now, struct err *e)
{
    uint64_t state = look(a->path);
    if (state == a->state && a->readable)
        return false;
    struct err fault = {0}, why = {0};
    *now = (struct allow_list){.state = state};
    memcpy(now->path, a->path, sizeof now->path);
    struct reading r = {.list = now, .before = a, .why = &why};
    int rc = for_each_file(a->path, read_file, &r, &fault);
    if (rc && !why.code)
        why = fault;
    if (rc &&
        access(a->path, F_OK) == 0) { /* it is there, but what it says is not known; a list that is gone has no keys */
        now->n = 0;
        keep(&r, 0, &fault); /* short of memory, those that were kept stay on the list */
    }
    now->readable = why.code == 0;
    sort(now);
    if (state == a->state && !now->readable) { /* as unreadable as before, which was said */
        allow_list_release(now);
        return false;
    }
    *e = why;
    return true;
}
