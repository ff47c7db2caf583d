/* checkpoint_folder.c - see checkpoint_folder.h. */
#include "checkpoint_folder.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "file.h"
#include "log.h"

#define PATH_SIZE 4096
#define REMOVED "removed" /* what is being removed has this name: a kill leaves no half of a checkpoint */

/* ---- names ---- */

/* Only "step_" and digits, so never a half-written one. */
static int is_checkpoint(const struct dirent *entry)
{
    return strncmp(entry->d_name, "step_", 5) == 0 && entry->d_name[5] &&
           strspn(entry->d_name + 5, "0123456789") == strlen(entry->d_name + 5);
}

static int by_step(const struct dirent **a, const struct dirent **b)
{
    uint64_t x = checkpoint_step((*a)->d_name), y = checkpoint_step((*b)->d_name);
    return x < y ? -1 : x > y;
}

/* Names of finished checkpoints in a folder, ascending. */
struct list {
    struct dirent **names;
    int n;
};

static int list_open(struct list *l, const char *folder, struct err *e)
{
    l->n = scandir(folder, &l->names, is_checkpoint, by_step);
    if (l->n >= 0)
        return 0;
    l->names = NULL;
    l->n = 0;
    return errno == ENOENT ? 0 : err_errno(e, errno, "%s: cannot list checkpoints", folder);
}

static void list_close(struct list *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->names[i]);
    free(l->names);
}

static int list_of_run(struct list *l, const char *out, char folder[PATH_SIZE], struct err *e)
{
    *l = (struct list){0};
    return file_join(folder, PATH_SIZE, out, "checkpoints", e) ? e->code : list_open(l, folder, e);
}

int checkpoint_latest(const char *out, char *path, struct err *e)
{
    char folder[PATH_SIZE];
    struct list l;
    int rc = list_of_run(&l, out, folder, e);
    if (rc == 0 && l.n == 0)
        rc = err_set(e, ERR_ABSENT, "%s: no checkpoint to resume from", folder);
    else if (rc == 0)
        rc = file_join(path, PATH_SIZE, folder, l.names[l.n - 1]->d_name, e);
    list_close(&l);
    return rc;
}

int checkpoint_for_each(const char *out, int (*visit)(void *context, const char *path, struct err *e), void *context,
                        struct err *e)
{
    char folder[PATH_SIZE], path[PATH_SIZE];
    struct list l;
    int rc = list_of_run(&l, out, folder, e);
    for (int i = 0; rc == 0 && i < l.n; i++) {
        rc = file_join(path, sizeof path, folder, l.names[i]->d_name, e);
        if (rc == 0)
            rc = visit(context, path, e);
    }
    list_close(&l);
    return rc;
}

/* ---- of which run ---- */

/* Whether both ids are known, and not the same. */
static bool is_other_run(const char *run, const char *other)
{
    return *run && *other && strcmp(run, other) != 0;
}

/* Finds out whether the checkpoint says that it is the run's. What cannot be read says nothing. */
static int is_of_run(const char *path, const char *run, bool *is, struct err *e)
{
    struct checkpoint_id id;
    int rc = checkpoint_identify(path, &id, e);
    *is = rc == 0 && strcmp(id.run, run) == 0;
    return rc == ERR_MEMORY ? rc : 0;
}

int checkpoint_count(const char *out, const char *run, size_t *n, struct err *e)
{
    char folder[PATH_SIZE], path[PATH_SIZE];
    struct list l;
    bool own;
    int rc = list_of_run(&l, out, folder, e);
    *n = 0;
    for (int i = 0; rc == 0 && i < l.n; i++) {
        rc = file_join(path, sizeof path, folder, l.names[i]->d_name, e);
        if (rc == 0 && (rc = is_of_run(path, run, &own, e)) == 0)
            *n += own;
    }
    list_close(&l);
    return rc;
}

/* ---- choosing ---- */

/* Looks at one. 0: it is sound and the choice; 1: it is another run's; ERR_DAMAGED, or another error. */
static int judge(const char *path, const char *run, struct checkpoint_choice *c, struct err *e)
{
    struct checkpoint_id id;
    int rc = checkpoint_identify(path, &id, e);
    if (rc == 0 && is_other_run(run, id.run)) {
        err_set(e, ERR_INPUT, "%s is of run %s, this folder's is %s", path, id.run, run);
        return 1;
    }
    if (rc == 0)
        rc = checkpoint_verify(path, &id, e);
    if (rc)
        return rc;
    snprintf(c->path, sizeof c->path, "%s", path);
    snprintf(c->run, sizeof c->run, "%s", id.run);
    c->step = id.step;
    c->verified = id.has_manifest;
    return 0;
}

/* Says which steps there are, for who asked for one that is not. */
static int no_such_step(const struct list *l, const char *folder, uint64_t from, struct err *e)
{
    char steps[256] = "";
    for (int i = 0; i < l->n && strlen(steps) < sizeof steps - 32; i++)
        snprintf(steps + strlen(steps), sizeof steps - strlen(steps), "%s%" PRIu64, i ? ", " : "",
                 checkpoint_step(l->names[i]->d_name));
    return err_set(e, ERR_INPUT, "%s: no checkpoint of step %" PRIu64 "; those that there are: %s", folder, from,
                   *steps ? steps : "none");
}

int checkpoint_choose(const char *out, const char *run, uint64_t from, struct checkpoint_choice *c, struct err *e)
{
    char folder[PATH_SIZE], path[PATH_SIZE];
    struct list l;
    struct err found;
    int rc = list_of_run(&l, out, folder, e), judged = 1, seen = 0;
    *c = (struct checkpoint_choice){.asked = from != 0};
    for (int i = l.n - 1; rc == 0 && judged && i >= 0; i--) {
        if (from && checkpoint_step(l.names[i]->d_name) != from)
            continue;
        seen++;
        rc = file_join(path, sizeof path, folder, l.names[i]->d_name, e);
        if (rc || (judged = judge(path, run, c, &found)) == 0)
            break;
        if (from || (judged != 1 && judged != ERR_DAMAGED)) /* asked for, or not to be told */
            rc = err_set(e, judged == 1 || judged == ERR_DAMAGED ? ERR_INPUT : judged, "%s", found.message);
        else
            log_line("%s; it is ignored", found.message);
        c->n_damaged += judged == ERR_DAMAGED;
    }
    if (rc == 0 && judged && from)
        rc = no_such_step(&l, folder, from, e);
    else if (rc == 0 && judged && seen)
        rc = err_set(e, ERR_INPUT, "%s: none of its %d checkpoints is sound and of this run: %s", folder, seen,
                     found.message);
    else if (rc == 0 && judged)
        rc = err_set(e, ERR_INPUT, "%s: no checkpoint to resume from", folder);
    list_close(&l);
    return rc;
}

/* ---- setting aside ---- */

/* Renames a checkpoint to prefix_NAME, or a free name after that; tells the new name. */
static int rename_aside(const char *path, const char *prefix, char name[CHECKPOINT_ASIDE_SIZE], struct err *e)
{
    char to[PATH_SIZE + CHECKPOINT_ASIDE_SIZE];
    const char *base = strrchr(path, '/') + 1;
    snprintf(name, CHECKPOINT_ASIDE_SIZE, "%s_%s", prefix, base);
    for (int i = 2;; i++) {
        snprintf(to, sizeof to, "%.*s%s", (int)(base - path), path, name);
        if (access(to, F_OK) != 0)
            break;
        snprintf(name, CHECKPOINT_ASIDE_SIZE, "%s_%s.%d", prefix, base, i);
    }
    if (rename(path, to) != 0)
        return err_errno(e, errno, "%s: cannot rename it to %s", path, name);
    log_line("%s is set aside as %s", path, name);
    return 0;
}

int checkpoint_set_aside(const char *out, struct checkpoint_choice *c, struct err *e)
{
    char folder[PATH_SIZE], path[PATH_SIZE], name[CHECKPOINT_ASIDE_SIZE];
    struct list l;
    int rc = list_of_run(&l, out, folder, e);
    for (int i = l.n - 1; rc == 0 && i >= 0 && checkpoint_step(l.names[i]->d_name) > c->step; i--) {
        struct checkpoint_id id;
        if ((rc = file_join(path, sizeof path, folder, l.names[i]->d_name, e)))
            break;
        rc = checkpoint_identify(path, &id, e);
        if (rc == ERR_MEMORY)
            break;
        if (rc == 0 && is_other_run(c->run, id.run))
            continue;
        rc = rename_aside(path, c->asked ? "later" : "damaged", name, e);
        if (rc == 0 && !c->asked && !*c->damaged)
            memcpy(c->damaged, name, sizeof name);
    }
    list_close(&l);
    return rc;
}

/* ---- saving ---- */

/* Makes place for a finished checkpoint at path: one of the same run that is there is removed, anything else set aside. */
static int make_place(const char *path, const char *run, struct err *e)
{
    char name[CHECKPOINT_ASIDE_SIZE];
    if (access(path, F_OK) != 0)
        return 0;
    bool own;
    if (is_of_run(path, run, &own, e))
        return ERR_MEMORY;
    return own ? file_remove_tree(path, e) : rename_aside(path, "other", name, e);
}

/* Removes all of the run's checkpoints in folder but the newest `keep`. What cannot be removed is said, and stays. */
static void remove_old(const char *folder, const char *run, size_t keep)
{
    char path[PATH_SIZE], removed[PATH_SIZE];
    struct list l = {0};
    struct err e = {0};
    if (file_join(removed, sizeof removed, folder, REMOVED, &e) == 0 && file_remove_tree(removed, &e) == 0)
        list_open(&l, folder, &e);
    size_t kept = 0;
    int rc = e.code;
    for (int i = l.n - 1; rc == 0 && i >= 0; i--) {
        bool own = false;
        rc = file_join(path, sizeof path, folder, l.names[i]->d_name, &e);
        if (rc == 0)
            rc = is_of_run(path, run, &own, &e);
        if (rc || !own || kept++ < keep)
            continue;
        rc = rename(path, removed) == 0 ? file_remove_tree(removed, &e)
                                        : err_errno(&e, errno, "%s: cannot remove", path);
    }
    if (rc)
        log_line("old checkpoints stay: %s; the run goes on", e.message);
    list_close(&l);
}

/* Refuses to begin what will not fit. */
static int check_room(const char *folder, size_t bytes, struct err *e)
{
    size_t available;
    if (file_free_bytes(folder, &available, e))
        return e->code;
    if (available < bytes)
        return err_set(e, ERR_SYSTEM, "%s: a checkpoint takes %.1f MB, %.1f MB are free", folder, (double)bytes / 1e6,
                       (double)available / 1e6);
    return 0;
}

int checkpoint_save(const char *out, const struct backend *b, const struct normalisation *n,
                    const struct plan_place *next, const json_t *cfg, size_t keep, char *path, struct err *e)
{
    char folder[PATH_SIZE], name[CHECKPOINT_NAME_SIZE], final[PATH_SIZE], temporary[PATH_SIZE];
    const char *run = json_string_value(json_object_get(cfg, "run"));
    checkpoint_name(name, b->step);
    if (file_join(folder, sizeof folder, out, "checkpoints", e) || file_make_folder_in(folder, e) ||
        file_join(final, sizeof final, folder, name, e) || file_join(temporary, sizeof temporary, folder, "tmp", e) ||
        file_remove_tree(temporary, e) || check_room(folder, checkpoint_bytes(b, n->centred), e) ||
        file_make_folder(temporary, e))
        return e->code;
    int rc = checkpoint_write(temporary, b, n, next, cfg, e);
    if (rc == 0)
        rc = make_place(final, run, e);
    if (rc == 0 && rename(temporary, final) < 0)
        rc = err_errno(e, errno, "%s: cannot rename the finished checkpoint into place", final);
    if (rc == 0)
        rc = file_sync_folder(folder, e);
    if (rc) {
        file_remove_tree(temporary, NULL);
        return rc;
    }
    if (path)
        memcpy(path, final, sizeof final);
    remove_old(folder, run, keep);
    return 0;
}
