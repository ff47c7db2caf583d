/* checkpoint.c - writes, verifies and loads a checkpoint; see checkpoint.h. */
#include "checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json_file.h"
#include "mem.h"
#include "safetensors.h"
#include "version.h"
#include "weights_file.h"

#define PATH_SIZE 4096
#define WEIGHTS "crosscoder.safetensors"
#define STATE "state.safetensors"
#define CONFIG "cfg.json"
#define SMALL_FILES ((size_t)32 << 10) /* room for headers, cfg.json, the manifest and what blocks round up to */
#define NUMBER_MAX 1000000000000000ull
#define PIECE_BYTES ((size_t)4 << 20)

/* The tensors of state.safetensors, in its order: names as the backend has them, and how the file writes them. */
static const struct {
    const char *name;
    enum tensor_dtype dtype;
} state_tensors[] = {{"adam_m", TENSOR_F32}, {"adam_v", TENSOR_F32}, {"rows_since_fired", TENSOR_I64}};
enum { N_STATE = sizeof state_tensors / sizeof *state_tensors };

/* Returns how many elements of a vector go in the piece that begins at `first`. */
static size_t piece_of(const struct backend_tensor *t, size_t first)
{
    size_t piece = PIECE_BYTES / (t->dtype == BACKEND_F32 ? sizeof(float) : sizeof(uint64_t));
    return t->rows - first < piece ? t->rows - first : piece;
}

/* Returns the bytes of the largest piece. No vector of the state is longer than the moments. */
static size_t piece_bytes(const struct backend_setup *s)
{
    size_t n_params = 0;
    backend_n_params(s->n_sites, s->d_model, s->d_sae, &n_params,
                     NULL); /* they fit: the backend is open, or was sized */
    n_params += backend_has_thresholds(s) ? s->d_sae : 0;
    return n_params < PIECE_BYTES / sizeof(float) ? n_params * sizeof(float) : PIECE_BYTES;
}

size_t checkpoint_memory(const struct backend_setup *s, bool centred)
{
    size_t weights = weights_file_memory(s, centred), piece = piece_bytes(s);
    return weights > piece ? weights : piece;
}

static int write_vector(struct safetensors_writer *w, const struct backend *b, const char *name, void *piece,
                        struct err *e)
{
    struct backend_tensor t;
    if (backend_find(b, name, &t, e))
        return e->code;
    for (size_t first = 0, n; first < t.rows; first += n) {
        n = piece_of(&t, first);
        if (b->ops->get(b, name, &(struct backend_range){first, n, 0, 1, false}, piece, e) ||
            safetensors_write_data(w, piece, n * (t.dtype == BACKEND_F32 ? sizeof(float) : sizeof(uint64_t)), e))
            return e->code;
    }
    return 0;
}

static int write_state(const char *folder, const struct backend *b, const struct plan_place *next,
                       struct file_digest *digest, struct err *e)
{
    char path[PATH_SIZE], step[32], rows[32], window[32], position[32], clipped[32], since[32], skipped[32];
    struct safetensors_writer w = {0};
    struct tensor_spec specs[N_STATE];
    for (size_t i = 0; i < N_STATE; i++) {
        struct backend_tensor t;
        if (backend_find(b, state_tensors[i].name, &t, e))
            return e->code;
        specs[i] = (struct tensor_spec){state_tensors[i].name, state_tensors[i].dtype, 1, {t.rows}};
    }
    snprintf(step, sizeof step, "%llu", (unsigned long long)b->step);
    snprintf(rows, sizeof rows, "%llu", (unsigned long long)(b->step * b->setup.batch_size));
    snprintf(window, sizeof window, "%llu", (unsigned long long)next->window);
    snprintf(position, sizeof position, "%zu", next->position);
    snprintf(clipped, sizeof clipped, "%llu", (unsigned long long)b->clipped);
    snprintf(since, sizeof since, "%llu", (unsigned long long)b->clipped_since);
    snprintf(skipped, sizeof skipped, "%llu", (unsigned long long)b->skipped);
    const char *metadata[] = {
        "step",     step,         "rows",          rows,  "window",  window,  "position", position,
        "clipped",  clipped,      "clipped_since", since, "skipped", skipped, "software", CROSSFEED_SOFTWARE,
        "manifest", MANIFEST_NAME};
    void *piece = mem_alloc(1, piece_bytes(&b->setup), "piece of a checkpoint", e);
    int rc = !piece ? ERR_MEMORY : file_join(path, sizeof path, folder, STATE, e);
    if (!rc)
        rc = safetensors_write_begin(&w, path, specs, N_STATE, metadata, sizeof metadata / sizeof *metadata / 2, e);
    for (size_t i = 0; !rc && i < N_STATE; i++)
        rc = write_vector(&w, b, state_tensors[i].name, piece, e);
    if (!rc)
        rc = safetensors_write_commit(&w, e);
    if (rc)
        safetensors_write_abandon(&w);
    *digest = w.out.digest;
    mem_free(piece);
    return rc;
}

void checkpoint_name(char name[CHECKPOINT_NAME_SIZE], uint64_t step)
{
    snprintf(name, CHECKPOINT_NAME_SIZE, "step_%010llu", (unsigned long long)step);
}

uint64_t checkpoint_step(const char *path)
{
    return strtoull(strrchr(path, '_') + 1, NULL, 10);
}

size_t checkpoint_bytes(const struct backend *b, bool centred)
{
    size_t bytes = weights_file_bytes(&b->setup, centred) + SMALL_FILES;
    for (size_t i = 0; i < N_STATE; i++) {
        struct backend_tensor t;
        if (backend_find(b, state_tensors[i].name, &t, NULL) == 0)
            bytes += t.rows * tensor_dtype_size(state_tensors[i].dtype);
    }
    return bytes;
}

int checkpoint_write(const char *folder, const struct backend *b, const struct normalisation *n,
                     const struct plan_place *next, const json_t *cfg, struct err *e)
{
    char file[PATH_SIZE];
    struct checkpoint_manifest m = {.step = b->step};
    snprintf(m.run, sizeof m.run, "%s", json_string_value(json_object_get(cfg, "run")));
    if (file_join(file, sizeof file, folder, WEIGHTS, e) ||
        weights_file_write(file, b, n, checkpoint_manifest_add(&m, WEIGHTS), e) ||
        write_state(folder, b, next, checkpoint_manifest_add(&m, STATE), e) ||
        file_join(file, sizeof file, folder, CONFIG, e) ||
        json_write_digest(file, cfg, checkpoint_manifest_add(&m, CONFIG), e) ||
        checkpoint_manifest_write(folder, &m, e))
        return e->code;
    return file_sync_folder(folder, e);
}

/* ---- verifying ---- */

/* Reads the run's id from cfg.json. */
static int read_run(const char *path, char run[FINGERPRINT_SIZE], struct err *e)
{
    json_t *cfg;
    int rc = checkpoint_config(path, &cfg, e);
    if (rc == 0) {
        const char *text = json_string_value(json_object_get(cfg, "run"));
        snprintf(run, FINGERPRINT_SIZE, "%s", text ? text : "");
    }
    json_decref(cfg);
    return rc;
}

/* Returns what it means that a file of a checkpoint without a manifest cannot be parsed, or is not there. */
static int broken(struct err *e)
{
    if (e->code != ERR_MEMORY)
        e->code = ERR_DAMAGED;
    return e->code;
}

/* Fills the id of a checkpoint without a manifest. Whoever wrote one says so in the state, too. */
static int identify_old(const char *path, struct checkpoint_id *id, struct err *e)
{
    char file[PATH_SIZE];
    struct safetensors s = {0};
    if (file_join(file, sizeof file, path, WEIGHTS, e) || safetensors_open(&s, file, e))
        return broken(e);
    safetensors_close(&s);
    if (file_join(file, sizeof file, path, STATE, e) || safetensors_open(&s, file, e) || read_run(path, id->run, e)) {
        safetensors_close(&s);
        return broken(e);
    }
    int rc =
        !safetensors_metadata(&s, "manifest") ? 0 : err_set(e, ERR_DAMAGED, "%s: its manifest.json is missing", path);
    safetensors_close(&s);
    return rc;
}

int checkpoint_identify(const char *path, struct checkpoint_id *id, struct err *e)
{
    *id = (struct checkpoint_id){.step = checkpoint_step(path)};
    int rc = checkpoint_manifest_read(path, &id->manifest, e);
    id->has_manifest = rc == 0;
    if (rc == ERR_ABSENT)
        return identify_old(path, id, e);
    if (rc)
        return rc;
    memcpy(id->run, id->manifest.run, sizeof id->run);
    if (id->manifest.step != id->step)
        return err_set(e, ERR_DAMAGED, "%s: its manifest is of step %llu", path, (unsigned long long)id->manifest.step);
    return 0;
}

int checkpoint_verify(const char *path, const struct checkpoint_id *id, struct err *e)
{
    static const char *const names[] = {WEIGHTS, STATE, CONFIG};
    if (!id->has_manifest)
        return 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t k = 0;
        while (k < id->manifest.n_files && strcmp(id->manifest.files[k].name, names[i]) != 0)
            k++;
        if (k == id->manifest.n_files)
            return err_set(e, ERR_DAMAGED, "%s: its manifest does not name %s", path, names[i]);
    }
    return checkpoint_manifest_verify(path, &id->manifest, e);
}

/* ---- loading ---- */

int checkpoint_config(const char *path, json_t **cfg, struct err *e)
{
    char file[PATH_SIZE];
    *cfg = NULL;
    return file_join(file, sizeof file, path, CONFIG, e) ? e->code : json_read_object(file, cfg, e);
}

static int read_vector(const struct safetensors *s, size_t i, struct backend *b, struct err *e)
{
    const char *name = state_tensors[i].name;
    const struct tensor_view *t = safetensors_find(s, name);
    struct backend_tensor want;
    if (backend_find(b, name, &want, e))
        return e->code;
    if (!t)
        return err_set(e, ERR_INPUT, "%s: no tensor %s", s->path, name);
    if (t->dtype != state_tensors[i].dtype)
        return err_set(e, ERR_INPUT, "%s: %s is %s, expected %s", s->path, name, tensor_dtype_name(t->dtype),
                       tensor_dtype_name(state_tensors[i].dtype));
    if (tensor_expect_shape(s, t, 1, &want.rows, e))
        return e->code;
    /* In pieces, so that the map of the file does not add to the peak memory. */
    size_t size = tensor_dtype_size(t->dtype);
    for (size_t first = 0, n; first < want.rows; first += n) {
        n = piece_of(&want, first);
        const unsigned char *data = t->data + first * size;
        if (b->ops->put(b, name, &(struct backend_range){first, n, 0, 1, false}, data, e))
            return e->code;
        file_map_passed(data, n * size);
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

int checkpoint_load(const char *path, struct backend *b, struct normalisation *n, struct plan_place *next,
                    struct err *e)
{
    char file[PATH_SIZE];
    struct safetensors s = {0};
    if (file_join(file, sizeof file, path, WEIGHTS, e) || weights_file_load(file, b, n, e) ||
        file_join(file, sizeof file, path, STATE, e) || safetensors_open(&s, file, e))
        return e->code;
    uint64_t rows = 0, position = 0, batch = b->setup.batch_size;
    int rc = read_number(&s, "step", &b->step, e);
    if (rc == 0)
        rc = read_number(&s, "rows", &rows, e);
    if (rc == 0)
        rc = read_number(&s, "window", &next->window, e);
    if (rc == 0)
        rc = read_number(&s, "position", &position, e);
    next->position = position;
    b->clipped = 0;
    b->clipped_since = b->step;
    if (rc == 0 && safetensors_metadata(&s, "clipped") && (rc = read_number(&s, "clipped", &b->clipped, e)) == 0)
        rc = read_number(&s, "clipped_since", &b->clipped_since, e);
    if (rc == 0 && (b->clipped_since > b->step || b->clipped > b->step - b->clipped_since))
        rc = err_set(e, ERR_INPUT, "%s: %llu steps clipped since step %llu, there were %llu", file,
                     (unsigned long long)b->clipped, (unsigned long long)b->clipped_since, (unsigned long long)b->step);
    b->skipped = 0;
    if (rc == 0 && safetensors_metadata(&s, "skipped")) /* older ones passed no batch over */
        rc = read_number(&s, "skipped", &b->skipped, e);
    if (rc == 0 && b->skipped > b->step)
        rc = err_set(e, ERR_INPUT, "%s: %llu batches passed over in %llu steps", file, (unsigned long long)b->skipped,
                     (unsigned long long)b->step);
    if (rc == 0 && (rows % batch || rows / batch != b->step))
        rc = err_set(e, ERR_INPUT, "%s: %llu rows, %llu steps of %llu make %llu", file, (unsigned long long)rows,
                     (unsigned long long)b->step, (unsigned long long)batch, (unsigned long long)(b->step * batch));
    for (size_t i = 0; rc == 0 && i < N_STATE; i++)
        rc = read_vector(&s, i, b, e);
    safetensors_close(&s);
    return rc;
}
