/* checkpoint.c - saves, finds and loads checkpoints; see checkpoint.h. */
#include "checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "json_file.h"
#include "safetensors.h"
#include "version.h"
#include "weights_file.h"

#define PATH_SIZE 4096
#define NAME_FORMAT "step_%010llu"
#define NUMBER_MAX 1000000000000000ull
#define READ_PIECE ((size_t)4 << 20)

static int write_state(const char *folder, const struct train_state *t, const struct plan_place *next, struct err *e)
{
    char path[PATH_SIZE], step[32], rows[32], window[32], position[32];
    size_t n_params = t->c->n_params, d_sae = t->c->d_sae;
    struct safetensors_writer w = {0};
    const struct tensor_spec specs[] = {
        {"adam_m", TENSOR_F32, 1, {n_params}},
        {"adam_v", TENSOR_F32, 1, {n_params}},
        {"rows_since_fired", TENSOR_I64, 1, {d_sae}},
    };
    snprintf(step, sizeof step, "%llu", (unsigned long long)t->step);
    snprintf(rows, sizeof rows, "%llu", (unsigned long long)(t->step * t->batch_size));
    snprintf(window, sizeof window, "%llu", (unsigned long long)next->window);
    snprintf(position, sizeof position, "%zu", next->position);
    const char *metadata[] = {"step", step,       "rows",   rows,       "window",
                              window, "position", position, "software", CROSSFEED_SOFTWARE};
    if (file_join(path, sizeof path, folder, "state.safetensors", e) ||
        safetensors_write_begin(&w, path, specs, 3, metadata, 5, e) ||
        safetensors_write_data(&w, t->m, n_params * sizeof *t->m, e) ||
        safetensors_write_data(&w, t->v, n_params * sizeof *t->v, e) ||
        safetensors_write_data(&w, t->rows_since_fired, d_sae * sizeof *t->rows_since_fired, e) ||
        safetensors_write_commit(&w, e)) {
        safetensors_write_abandon(&w);
        return e->code;
    }
    return 0;
}

/* Names of finished checkpoints below folder, ascending; only "step_" and digits, so never a half-written one. */
static int is_checkpoint(const struct dirent *entry)
{
    return strncmp(entry->d_name, "step_", 5) == 0 && entry->d_name[5] &&
           strspn(entry->d_name + 5, "0123456789") == strlen(entry->d_name + 5);
}

static int list(const char *folder, struct dirent ***names, int *n, struct err *e)
{
    *n = scandir(folder, names, is_checkpoint, alphasort);
    if (*n < 0)
        return err_errno(e, errno, "%s: cannot list checkpoints", folder);
    return 0;
}

static void free_list(struct dirent **names, int n)
{
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

static int remove_old(const char *folder, size_t keep, struct err *e)
{
    struct dirent **names;
    int n, result = list(folder, &names, &n, e);
    if (result)
        return result;
    char path[PATH_SIZE];
    for (int i = 0; (size_t)i + keep < (size_t)n && result == 0; i++) {
        result = file_join(path, sizeof path, folder, names[i]->d_name, e);
        if (result == 0)
            result = file_remove_tree(path, e);
    }
    free_list(names, n);
    return result;
}

int checkpoint_save(const char *out, const struct crosscoder *c, const float *scale, const struct train_state *t,
                    const struct plan_place *next, const json_t *cfg, size_t keep, char *path, struct err *e)
{
    char folder[PATH_SIZE], name[64], final[PATH_SIZE], temporary[PATH_SIZE], file[PATH_SIZE];
    snprintf(name, sizeof name, NAME_FORMAT, (unsigned long long)t->step);
    if (file_join(folder, sizeof folder, out, "checkpoints", e) || file_make_folder(folder, e) ||
        file_join(final, sizeof final, folder, name, e) || file_join(temporary, sizeof temporary, folder, "tmp", e) ||
        file_remove_tree(temporary, e) || file_make_folder(temporary, e))
        return e->code;
    int rc = file_join(file, sizeof file, temporary, "crosscoder.safetensors", e);
    if (rc == 0)
        rc = weights_file_write(file, c, scale, e);
    if (rc == 0)
        rc = write_state(temporary, t, next, e);
    if (rc == 0)
        rc = file_join(file, sizeof file, temporary, "cfg.json", e);
    if (rc == 0)
        rc = json_write(file, cfg, e);
    if (rc == 0)
        rc = file_sync_folder(temporary, e);
    if (rc == 0)
        rc = file_remove_tree(final, e); /* the same step saved before (a run resumed and stopped at once) */
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
    return remove_old(folder, keep, e);
}

int checkpoint_latest(const char *out, char *path, struct err *e)
{
    char folder[PATH_SIZE];
    struct dirent **names;
    int n, result = file_join(folder, sizeof folder, out, "checkpoints", e);
    if (result)
        return result;
    if (access(folder, F_OK) != 0)
        return err_set(e, ERR_INPUT, "%s: no checkpoint to resume from", folder);
    if (list(folder, &names, &n, e))
        return e->code;
    if (n == 0)
        result = err_set(e, ERR_INPUT, "%s: no checkpoint to resume from", folder);
    else
        result = file_join(path, PATH_SIZE, folder, names[n - 1]->d_name, e);
    free_list(names, n);
    return result;
}

int checkpoint_config(const char *path, json_t **cfg, struct err *e)
{
    char file[PATH_SIZE];
    *cfg = NULL;
    return file_join(file, sizeof file, path, "cfg.json", e) ? e->code : json_read_object(file, cfg, e);
}

static int read_tensor(const struct safetensors *s, const char *name, enum tensor_dtype dtype, size_t n, void *dst,
                       struct err *e)
{
    const struct tensor_view *t = safetensors_find(s, name);
    if (!t)
        return err_set(e, ERR_INPUT, "%s: no tensor %s", s->path, name);
    if (t->dtype != dtype)
        return err_set(e, ERR_INPUT, "%s: %s is %s, expected %s", s->path, name, tensor_dtype_name(t->dtype),
                       tensor_dtype_name(dtype));
    if (tensor_expect_shape(s, t, 1, &n, e))
        return e->code;
    /* In pieces, so that the map of the file does not add to the peak memory. */
    for (size_t begin = 0; begin < t->bytes; begin += READ_PIECE) {
        size_t bytes = t->bytes - begin < READ_PIECE ? t->bytes - begin : READ_PIECE;
        memcpy((unsigned char *)dst + begin, t->data + begin, bytes);
        file_map_passed(t->data + begin, bytes);
    }
    return 0;
}

/* No counter of a run comes near NUMBER_MAX; beyond it, sums of them could overflow. */
static int read_number(const struct safetensors *s, const char *key, uint64_t *value, struct err *e)
{
    const char *text = safetensors_metadata(s, key);
    if (!text || !*text || text[strspn(text, "0123456789")] || (*value = strtoull(text, NULL, 10)) > NUMBER_MAX)
        return err_set(e, ERR_INPUT, "%s: %s is %s, must be a number of at most %llu", s->path, key,
                       text ? text : "missing", NUMBER_MAX);
    return 0;
}

int checkpoint_load(const char *path, struct crosscoder *c, float *scale, struct train_state *t,
                    struct plan_place *next, struct err *e)
{
    char file[PATH_SIZE];
    struct safetensors s = {0};
    if (file_join(file, sizeof file, path, "crosscoder.safetensors", e) || weights_file_load(file, c, scale, e) ||
        file_join(file, sizeof file, path, "state.safetensors", e) || safetensors_open(&s, file, e))
        return e->code;
    uint64_t rows = 0, position = 0;
    int rc = read_number(&s, "step", &t->step, e);
    if (rc == 0)
        rc = read_number(&s, "rows", &rows, e);
    if (rc == 0)
        rc = read_number(&s, "window", &next->window, e);
    if (rc == 0)
        rc = read_number(&s, "position", &position, e);
    next->position = position;
    if (rc == 0 && (rows % t->batch_size || rows / t->batch_size != t->step))
        rc = err_set(e, ERR_INPUT, "%s: %llu rows, %llu steps of %zu make %llu", file, (unsigned long long)rows,
                     (unsigned long long)t->step, t->batch_size, (unsigned long long)(t->step * t->batch_size));
    if (rc == 0)
        rc = read_tensor(&s, "adam_m", TENSOR_F32, c->n_params, t->m, e);
    if (rc == 0)
        rc = read_tensor(&s, "adam_v", TENSOR_F32, c->n_params, t->v, e);
    if (rc == 0)
        rc = read_tensor(&s, "rows_since_fired", TENSOR_I64, c->d_sae, t->rows_since_fired, e);
    safetensors_close(&s);
    return rc;
}
