/* cpu_backend.c - the functions of backend.h around crosscoder.h (the parameters) and step.h (the step); see cpu_backend.h. */
#include "cpu_backend.h"

#include <string.h>

#include "gemm.h"
#include "mem.h"
#include "step.h"

struct cpu {
    struct backend base; /* first: a backend is a cpu */
    struct crosscoder c;
    struct train_state t;
    size_t rows; /* of the last encode, */
    bool lists;  /* and whether it made lists */
};

static struct cpu *of(struct backend *b)
{
    return (struct cpu *)b;
}

static void cpu_close(struct backend *b)
{
    if (!b)
        return;
    train_state_release(&of(b)->t);
    crosscoder_release(&of(b)->c);
    mem_free(b);
}

static int cpu_open(struct backend **out, const struct backend_setup *setup, struct err *e)
{
    *out = NULL;
    struct cpu *p = mem_alloc(1, sizeof *p, "backend", e);
    if (!p)
        return ERR_MEMORY;
    p->base = (struct backend){.ops = &backend_cpu, .setup = *setup, .k = setup->most_k};
    int rc = crosscoder_init(&p->c, setup->n_sites, setup->d_model, setup->d_sae, backend_has_thresholds(setup), e);
    if (!rc)
        rc = train_state_init(&p->t, &p->c, &p->base.setup, e);
    if (rc)
        cpu_close(&p->base);
    else
        *out = &p->base;
    return rc;
}

static int cpu_step(struct backend *b, const float *x, const struct step_options *o, struct step_report *r,
                    struct err *e)
{
    of(b)->t.step = b->step;
    int rc = train_step(&of(b)->t, x, o, r, e);
    b->step = of(b)->t.step;
    if (rc == 0) {
        b->k = o->k;
        b->clipped += r->clipped;
    }
    return rc;
}

static int cpu_encode(struct backend *b, const float *x, size_t rows, enum encode_mode mode, size_t *taken,
                      struct err *e)
{
    struct cpu *p = of(b);
    struct train_state *t = &p->t;
    (void)e;
    t->selection.mode = mode;
    t->selection.k = b->k;
    p->lists = t->selection.kind->scope != SCOPE_ENTRY;
    if (!p->lists)
        forward_encode(&t->forward, &p->c, &t->selection, x, rows);
    else
        while (!active_encode(&t->active, &t->forward, &p->c, &t->selection, x, rows))
            rows = (rows + 1) / 2; /* one row always fits */
    p->rows = *taken = rows;
    return 0;
}

static int cpu_decode(struct backend *b, const float *x, size_t rows, struct pass_report *r, struct err *e)
{
    struct cpu *p = of(b);
    struct train_state *t = &p->t;
    const struct term_input in = {
        .setup = &b->setup, .w = &t->forward, .c = &p->c, .rows = rows, .lists = p->lists ? &t->active : NULL};
    if (rows != p->rows)
        return err_set(e, ERR_INPUT, "decode of %zu rows, encoded were %zu", rows, p->rows);
    if (p->lists)
        sparse_decode(&t->sparse, &t->active, &t->forward, &p->c, x, rows);
    else
        forward_decode(&t->forward, &p->c, x, rows);
    objective_values(&t->objective, &in, r->term);
    r->l0 = forward_l0(&t->forward, &p->c, rows);
    r->row_residual2 = t->forward.row_residual2;
    r->fired = t->forward.fired;
    return 0;
}

static int cpu_preactivations(const struct backend *b, const float *x, size_t rows, size_t first, size_t n, float *out,
                              struct err *e)
{
    const struct crosscoder *c = &((const struct cpu *)b)->c;
    if (first > c->d_sae || n > c->d_sae - first)
        return err_set(e, ERR_INPUT, "pre-activations of latents %zu + %zu, d_sae is %zu", first, n, c->d_sae);
    /* out [rows, n] = x [rows, n_inputs] W_enc[first..]^T [n_inputs, n] */
    gemm(false, true, rows, n, c->n_inputs, 1, x, c->n_inputs, c->w_enc + first * c->n_inputs, c->n_inputs, 0, out, n);
    for (size_t row = 0; row < rows; row++)
        for (size_t j = 0; j < n; j++)
            out[row * n + j] += c->b_enc[first + j];
    return 0;
}

/* ---- tensors ---- */

/* The tensors, in the order that backend.h says, and where they lie. */
static size_t tensors_of(const struct cpu *p, struct backend_tensor t[10], void *data[10])
{
    const struct crosscoder *c = &p->c;
    const struct train_state *s = &p->t;
    size_t n = 0;
#define TENSOR(...) (t[n] = (struct backend_tensor){__VA_ARGS__})
    TENSOR("W_enc", BACKEND_F32, c->d_sae, c->n_inputs), data[n++] = c->w_enc;
    TENSOR("W_dec", BACKEND_F32, c->d_sae, c->n_inputs), data[n++] = c->w_dec;
    TENSOR("b_enc", BACKEND_F32, c->d_sae, 1), data[n++] = c->b_enc;
    TENSOR("b_dec", BACKEND_F32, c->n_inputs, 1), data[n++] = c->b_dec;
    if (c->log_threshold)
        TENSOR("log_threshold", BACKEND_F32, c->d_sae, 1), data[n++] = c->log_threshold;
    TENSOR("adam_m", BACKEND_F32, c->n_params, 1), data[n++] = s->m;
    TENSOR("adam_v", BACKEND_F32, c->n_params, 1), data[n++] = s->v;
    TENSOR("rows_since_fired", BACKEND_U64, c->d_sae, 1), data[n++] = s->rows_since_fired;
    if (backend_has_k(&p->base.setup))
        TENSOR("threshold", BACKEND_F32, 1, 1), data[n++] = (float *)(uintptr_t)&s->selection.threshold;
#undef TENSOR
    return n;
}

static bool cpu_tensor(const struct backend *b, size_t i, struct backend_tensor *t)
{
    struct backend_tensor all[10];
    void *data[10];
    if (i >= tensors_of((const struct cpu *)b, all, data))
        return false;
    *t = all[i];
    return true;
}

/* Finds the tensor's first element and checks that the range lies in it. */
static unsigned char *locate(const struct cpu *p, const char *name, const struct backend_range *range,
                             struct backend_tensor *t, struct err *e)
{
    struct backend_tensor all[10];
    void *data[10];
    size_t i = 0;
    if (backend_find(&p->base, name, t, e))
        return NULL;
    if (range->row > t->rows || range->n_rows > t->rows - range->row || range->column > t->columns ||
        range->n_columns > t->columns - range->column) {
        err_set(e, ERR_INPUT, "%s: rows %zu + %zu, columns %zu + %zu asked for, has %zu x %zu", name, range->row,
                range->n_rows, range->column, range->n_columns, t->rows, t->columns);
        return NULL;
    }
    for (size_t n = tensors_of(p, all, data); i < n && strcmp(all[i].name, name) != 0;)
        i++;
    return data[i];
}

/* Copies element (i, j) of the range between the tensor and memory, either way. fp32 only if transposed. */
static void copy(unsigned char *tensor, const struct backend_tensor *t, const struct backend_range *r,
                 unsigned char *memory, bool out)
{
    size_t size = t->dtype == BACKEND_F32 ? sizeof(float) : sizeof(uint64_t);
    if (r->transposed) {
        float *w = (float *)(void *)tensor, *m = (float *)(void *)memory;
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < r->n_rows; i++)
            for (size_t j = 0; j < r->n_columns; j++) {
                float *here = w + (r->row + i) * t->columns + r->column + j, *there = m + j * r->n_rows + i;
                *(out ? there : here) = *(out ? here : there);
            }
        return;
    }
    bool whole = r->n_columns == t->columns; /* rows without gaps are one piece */
    size_t pieces = whole ? 1 : r->n_rows, bytes = r->n_columns * (whole ? r->n_rows : 1) * size;
    for (size_t i = 0; i < pieces; i++) {
        unsigned char *here = tensor + ((r->row + i) * t->columns + r->column) * size, *there = memory + i * bytes;
        memcpy(out ? there : here, out ? here : there, bytes);
    }
}

static int cpu_get(const struct backend *b, const char *name, const struct backend_range *range, void *out,
                   struct err *e)
{
    struct backend_tensor t;
    unsigned char *data = locate((const struct cpu *)b, name, range, &t, e);
    if (!data)
        return e->code;
    copy(data, &t, range, out, true);
    return 0;
}

static int cpu_put(struct backend *b, const char *name, const struct backend_range *range, const void *in,
                   struct err *e)
{
    struct backend_tensor t;
    unsigned char *data = locate(of(b), name, range, &t, e);
    if (!data)
        return e->code;
    copy(data, &t, range, (void *)(uintptr_t)in, false);
    of(b)->t.forward.norms_known = false;
    return 0;
}

const struct backend_ops backend_cpu = {
    .name = "cpu",
    .memory = train_step_memory,
    .open = cpu_open,
    .close = cpu_close,
    .step = cpu_step,
    .encode = cpu_encode,
    .decode = cpu_decode,
    .preactivations = cpu_preactivations,
    .tensor = cpu_tensor,
    .get = cpu_get,
    .put = cpu_put,
};
