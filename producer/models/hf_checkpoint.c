/* hf_checkpoint.c - opens one safetensors file or all shards of an index; see hf_checkpoint.h.
 *
 * The index only says which files there are: where a tensor lies is known from the shards' own headers. */
#include "hf_checkpoint.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json_file.h"
#include "mem.h"

#define INDEX_MAX_BYTES ((size_t)64 << 20)
#define MAX_SHARDS 1000 /* all are open at once */

static int open_files(struct hf_checkpoint *c, const char *folder, const char *const *names, size_t n, struct err *e)
{
    c->files = mem_alloc(n, sizeof *c->files, folder, e);
    if (!c->files)
        return ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        char path[4096];
        int rc = file_join(path, sizeof path, folder, names[i], e);
        if (!rc)
            rc = safetensors_open(&c->files[i], path, e);
        if (rc)
            return rc;
        c->n_files++;
    }
    return 0;
}

/* Collects the distinct files of the weight map {tensor: file} in names, which has room for one an entry. */
static int list_shards(const char **names, size_t *n, json_t *weight_map, const char *path, struct err *e)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(weight_map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || !*name || strchr(name, '/'))
            return err_set(e, ERR_INPUT, "%s: weight_map: %s: expected the name of a file in the same folder", path,
                           tensor);
        size_t i = 0;
        while (i < *n && strcmp(names[i], name) != 0)
            i++;
        if (i == MAX_SHARDS)
            return err_set(e, ERR_INPUT, "%s: weight_map: more than %d files", path, MAX_SHARDS);
        if (i == *n)
            names[(*n)++] = name;
    }
    return 0;
}

static int open_shards(struct hf_checkpoint *c, const char *folder, const char *path, struct err *e)
{
    char *text = NULL;
    const char **names = NULL;
    size_t size, n = 0;
    json_t *root = NULL;
    int rc = file_read_text(path, INDEX_MAX_BYTES, &text, &size, e);
    if (rc)
        return rc;
    rc = json_parse(text, size, 0, &root, path, e);
    json_t *weight_map = json_object_get(root, "weight_map");
    if (rc == 0 && !json_object_size(weight_map))
        rc = err_set(e, ERR_INPUT, "%s: no weight_map, or an empty one", path);
    if (rc == 0 && !(names = mem_alloc(json_object_size(weight_map), sizeof *names, path, e)))
        rc = ERR_MEMORY;
    if (names && (rc = list_shards(names, &n, weight_map, path, e)) == 0)
        rc = open_files(c, folder, names, n, e);
    mem_free(names);
    json_decref(root);
    mem_free(text);
    return rc;
}

int hf_checkpoint_open(struct hf_checkpoint *c, const char *folder, struct err *e)
{
    *c = (struct hf_checkpoint){0};
    char single[4096], index[4096];
    int rc = file_join(single, sizeof single, folder, "model.safetensors", e);
    if (!rc)
        rc = file_join(index, sizeof index, folder, "model.safetensors.index.json", e);
    if (rc)
        return rc;
    if (access(single, F_OK) == 0)
        rc = open_files(c, folder, (const char *const[]){"model.safetensors"}, 1, e);
    else if (access(index, F_OK) == 0)
        rc = open_shards(c, folder, index, e);
    else
        rc = err_set(e, ERR_INPUT,
                     "%s: has neither model.safetensors nor model.safetensors.index.json (a pytorch_model.bin is not "
                     "read: save it with safe_serialization)",
                     folder);
    if (rc)
        hf_checkpoint_close(c);
    return rc;
}

void hf_checkpoint_close(struct hf_checkpoint *c)
{
    for (size_t i = 0; i < c->n_files; i++)
        safetensors_close(&c->files[i]);
    mem_free(c->files);
    *c = (struct hf_checkpoint){0};
}

const struct tensor_view *hf_checkpoint_find(const struct hf_checkpoint *c, const char *name,
                                             const struct safetensors **file)
{
    for (size_t i = 0; i < c->n_files; i++) {
        const struct tensor_view *t = safetensors_find(&c->files[i], name);
        if (t) {
            *file = &c->files[i];
            return t;
        }
    }
    return NULL;
}
