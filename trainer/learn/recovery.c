/* recovery.c - compares a decoder with the planted truth; see recovery.h.
 *
 * The cosines [n_latents, d_sae] are never held whole: learned latents are taken a tile at a time. */
#include "recovery.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gemm.h"
#include "mem.h"
#include "safetensors.h"

enum { TILE = 512 }; /* learned latents at a time */

/* Returns the model, of two that have half of the sites each, at whose sites alone v [width] is not 0; else -1. */
static int32_t only_model(const float *v, size_t width)
{
    bool in[2] = {false, false};
    for (size_t i = 0; i < width; i++)
        if (v[i] != 0)
            in[i >= width / 2] = true;
    return in[0] == in[1] ? -1 : in[1];
}

/* Finds the tensors of a truth about these sites. width: the bytes of a latent's vector. */
static int find(const struct safetensors *truth, size_t n_sites, size_t d_model, const struct tensor_view **kind,
                const struct tensor_view **directions, size_t *width, struct err *e)
{
    const struct tensor_view *k = *kind = safetensors_find(truth, "kind");
    if (!k || k->dtype != TENSOR_I32 || k->n_dims != 1 || k->shape[0] == 0)
        return err_set(e, ERR_INPUT, "%s: no tensor kind, I32 [n_latents]: not a planted truth", truth->path);
    size_t shape[3] = {k->shape[0], n_sites, d_model};
    if (!(*directions = safetensors_require(truth, "directions", 3, shape, e)))
        return ERR_INPUT;
    if (!size_product((size_t[]){n_sites, d_model, sizeof(float)}, 3, width))
        return err_set(e, ERR_MEMORY, "%s: %zu sites x d_model %zu does not fit in memory", truth->path, n_sites,
                       d_model);
    return 0;
}

static int load(struct recovery *r, const struct safetensors *truth, size_t n_sites, size_t d_model, struct err *e)
{
    const struct tensor_view *kind, *directions;
    size_t width;
    if (find(truth, n_sites, d_model, &kind, &directions, &width, e))
        return e->code;
    size_t n = kind->shape[0];
    *r = (struct recovery){.n_latents = n, .n_sites = n_sites, .d_model = d_model};
    if (!(r->planted = mem_alloc(n, width, "planted directions", e)) ||
        !(r->unit = mem_alloc(n, width, "planted directions", e)) ||
        !(r->kind = mem_alloc(n, sizeof *r->kind, "planted kinds", e)) ||
        !(r->products = mem_alloc(n, TILE * sizeof *r->products, "planted cosines", e)) ||
        !(r->learned = mem_alloc(TILE, width, "learned directions", e)) ||
        !(r->max_cosine = mem_alloc(n, sizeof *r->max_cosine, "planted cosines", e)) ||
        !(r->only_in = mem_alloc(n, sizeof *r->only_in, "planted kinds", e)) ||
        !(r->matches = mem_alloc(n, sizeof *r->matches, "matches of planted latents", e)) ||
        !(r->found_exclusive = mem_alloc(n, 1, "matches of planted latents", e)))
        return ERR_MEMORY;
    memcpy(r->kind, kind->data, kind->bytes);
    for (size_t l = 0; l < n; l++)
        if (r->kind[l] < 0 || r->kind[l] >= RECOVERY_KINDS)
            return err_set(e, ERR_INPUT, "%s: kind of latent %zu is %" PRId32 ", must be 0 to %d", truth->path, l,
                           r->kind[l], RECOVERY_KINDS - 1);
    const char *active = safetensors_metadata(truth, "active");
    r->active = active ? strtod(active, NULL) : 0;
    if (tensor_to_f32(truth, directions, r->planted, e))
        return e->code;
    for (size_t l = 0; l < n; l++)
        r->only_in[l] = only_model(r->planted + l * n_sites * d_model, n_sites * d_model);
    return 0;
}

int recovery_memory(const char *truth_path, size_t n_sites, size_t d_model, size_t *bytes, struct err *e)
{
    struct safetensors truth;
    const struct tensor_view *kind, *directions;
    size_t width, each, all;
    if (safetensors_open(&truth, truth_path, e))
        return e->code;
    int rc = find(&truth, n_sites, d_model, &kind, &directions, &width, e);
    const size_t of_latent = TILE * sizeof(float) + sizeof(float) + 2 * sizeof(int32_t) + sizeof(uint32_t) + 1;
    if (rc == 0 && (!size_mul(2, width, &each) || __builtin_add_overflow(each, of_latent, &each) ||
                    !size_mul(each, kind->shape[0], &all) || !size_mul(TILE, width, &each) ||
                    __builtin_add_overflow(all, each, bytes)))
        rc = err_set(e, ERR_MEMORY, "%s: %zu planted latents do not fit in memory", truth_path, kind->shape[0]);
    safetensors_close(&truth);
    return rc;
}

int recovery_init(struct recovery *r, const char *truth_path, size_t n_sites, size_t d_model, struct err *e)
{
    *r = (struct recovery){0};
    struct safetensors truth;
    int rc = safetensors_open(&truth, truth_path, e);
    if (rc)
        return rc;
    rc = load(r, &truth, n_sites, d_model, e);
    safetensors_close(&truth);
    if (rc)
        recovery_release(r);
    return rc;
}

void recovery_release(struct recovery *r)
{
    mem_free(r->planted);
    mem_free(r->kind);
    mem_free(r->unit);
    mem_free(r->products);
    mem_free(r->learned);
    mem_free(r->max_cosine);
    mem_free(r->only_in);
    mem_free(r->matches);
    mem_free(r->found_exclusive);
    *r = (struct recovery){0};
}

static double norm(const float *v, size_t n)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (double)v[i] * v[i];
    return sqrt(squares);
}

/* Returns 1 / |v|, or 0 of a zero vector. */
static double inverse_norm(const float *v, size_t n)
{
    double length = norm(v, n);
    return length > 0 ? 1 / length : 0;
}

/* Returns the model that a learned latent is called exclusive to, or -1. */
static int32_t called_exclusive(const float *v, size_t width)
{
    double d0 = norm(v, width / 2), d1 = norm(v + width / 2, width / 2), relative = d1 / (d0 + d1);
    return relative < RECOVERY_EXCLUSIVE ? 0 : relative > 1 - RECOVERY_EXCLUSIVE ? 1 : -1;
}

/* Counts what live latent j of the tile matches. products [n_latents, tile]; inverse: 1 over its norm. */
static void count_match(struct recovery *r, size_t j, size_t tile, float inverse, struct recovery_result *result)
{
    size_t width = r->n_sites * r->d_model, best = 0;
    float greatest = -2;
    for (size_t l = 0; l < r->n_latents; l++) {
        float cosine = r->products[l * tile + j] * inverse;
        if (cosine > greatest) {
            greatest = cosine;
            best = l;
        }
    }
    bool matched = (double)greatest >= RECOVERY_MATCH;
    result->live++;
    if (matched)
        r->matches[best]++;
    else
        result->spurious++;
    int32_t model = result->two_models ? called_exclusive(r->learned + j * width, width) : -1;
    if (model < 0)
        return;
    result->called++;
    if (matched && r->only_in[best] == model) {
        result->called_rightly++;
        r->found_exclusive[best] = 1;
    }
}

int recovery_measure(struct recovery *r, const struct backend *b, const float *scale, double threshold,
                     uint64_t dead_rows, struct recovery_result *result, struct err *e)
{
    size_t d_sae = b->setup.d_sae, n = r->n_latents, d_model = r->d_model, width = r->n_sites * d_model;
#pragma omp parallel for
    for (size_t l = 0; l < n; l++) {
        float *u = r->unit + l * width;
        for (size_t i = 0; i < width; i++)
            u[i] = scale[i / d_model] * r->planted[l * width + i];
        double factor = inverse_norm(u, width);
        for (size_t i = 0; i < width; i++)
            u[i] = (float)(u[i] * factor);
        r->max_cosine[l] = d_sae ? -1 : 0;
        r->matches[l] = 0;
        r->found_exclusive[l] = 0;
    }
    uint64_t trained = b->step * b->setup.batch_size;
    *result = (struct recovery_result){.active = r->active, .two_models = b->setup.two_models};
    for (size_t first = 0; first < d_sae; first += TILE) {
        size_t tile = d_sae - first < TILE ? d_sae - first : TILE;
        const float *w = r->learned;
        if (b->ops->get(b, "W_dec", &(struct backend_range){first, tile, 0, width, false}, r->learned, e))
            return e->code;
        float inverse[TILE];
        uint64_t silent[TILE]; /* for so many rows */
        if (b->ops->get(b, "rows_since_fired", &(struct backend_range){first, tile, 0, 1, false}, silent, e))
            return e->code;
        /* products [n, tile] = unit [n, width] * (w_dec [tile, width])^T */
        gemm(false, true, n, tile, width, 1, r->unit, width, w, width, 0, r->products, tile);
#pragma omp parallel for
        for (size_t j = 0; j < tile; j++)
            inverse[j] = (float)inverse_norm(w + j * width, width);
#pragma omp parallel for
        for (size_t l = 0; l < n; l++)
            for (size_t j = 0; j < tile; j++) {
                float cosine = r->products[l * tile + j] * inverse[j];
                if (cosine > r->max_cosine[l])
                    r->max_cosine[l] = cosine;
            }
        for (size_t j = 0; j < tile; j++)
            if (silent[j] < dead_rows && silent[j] < trained)
                count_match(r, j, tile, inverse[j], result);
    }
    size_t recovered = 0;
    for (size_t l = 0; l < n; l++) {
        int32_t k = r->kind[l];
        result->n[k]++;
        result->mean[k] += (double)r->max_cosine[l];
        result->mean_max_cosine += (double)r->max_cosine[l];
        if ((double)r->max_cosine[l] >= threshold) {
            result->recovered[k]++;
            recovered++;
        }
        result->duplicates += r->matches[l] > 1;
        if (result->two_models && r->only_in[l] >= 0) {
            result->exclusive++;
            result->found_exclusive += r->found_exclusive[l];
        }
    }
    for (int k = 0; k < RECOVERY_KINDS; k++)
        if (result->n[k])
            result->mean[k] /= (double)result->n[k];
    result->mean_max_cosine /= (double)n;
    result->fraction = (double)recovered / (double)n;
    return 0;
}
