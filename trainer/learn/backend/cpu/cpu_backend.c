/* cpu_backend.c - the functions of backend.h around crosscoder.h (the parameters) and step.h (the step); see cpu_backend.h. */
#include "cpu_backend.h"

#include <string.h>

#include "mem.h"
#include "step.h"

struct cpu {
    struct backend base; /* first: a backend is a cpu */
    struct crosscoder c;
    struct train_state t;
    size_t rows; /* of the last encode */
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
    p->base = (struct backend){.ops = &backend_cpu, .setup = *setup};
    int rc = crosscoder_init(&p->c, setup->n_sites, setup->d_model, setup->d_sae, e);
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
    return rc;
}

static int cpu_encode(struct backend *b, const float *x, size_t rows, struct err *e)
{
    struct train_state *t = &of(b)->t;
    (void)e;
    forward_encode(&t->forward, &of(b)->c, &t->selection, x, rows);
    of(b)->rows = rows;
    return 0;
}

static int cpu_decode(struct backend *b, const float *x, size_t rows, struct pass_report *r, struct err *e)
{
    struct train_state *t = &of(b)->t;
    const struct term_input in = {&t->forward, &of(b)->c, rows, NULL};
    if (rows != of(b)->rows)
        return err_set(e, ERR_INPUT, "decode of %zu rows, encoded were %zu", rows, of(b)->rows);
    forward_decode(&t->forward, in.c, x, rows);
    objective_values(&t->objective, &in, r->term);
    r->l0 = forward_l0(&t->forward, in.c, rows);
    r->row_residual2 = t->forward.row_residual2;
    return 0;
}

/* ---- tensors ---- */

static bool cpu_tensor(const struct backend *b, size_t i, struct backend_tensor *t)
{
    const struct crosscoder *c = &((const struct cpu *)b)->c;
    const struct backend_tensor all[] = {
        {"W_enc", BACKEND_F32, c->d_sae, c->n_inputs},
        {"W_dec", BACKEND_F32, c->d_sae, c->n_inputs},
        {"b_enc", BACKEND_F32, c->d_sae, 1},
        {"b_dec", BACKEND_F32, c->n_inputs, 1},
        {"adam_m", BACKEND_F32, c->n_params, 1},
        {"adam_v", BACKEND_F32, c->n_params, 1},
        {"rows_since_fired", BACKEND_U64, c->d_sae, 1},
    };
    if (i >= sizeof all / sizeof *all)
        return false;
    *t = all[i];
    return true;
}

/* Finds the tensor's first element and checks that the range lies in it. */
static unsigned char *locate(const struct cpu *p, const char *name, const struct backend_range *range,
                             struct backend_tensor *t, struct err *e)
{
    const struct {
        const char *name;
        void *data;
    } where[] = {{"W_enc", p->c.w_enc},
                 {"W_dec", p->c.w_dec},
                 {"b_enc", p->c.b_enc},
                 {"b_dec", p->c.b_dec},
                 {"adam_m", p->t.m},
                 {"adam_v", p->t.v},
                 {"rows_since_fired", p->t.rows_since_fired}};
    if (backend_find(&p->base, name, t, e))
        return NULL;
    if (range->row > t->rows || range->n_rows > t->rows - range->row || range->column > t->columns ||
        range->n_columns > t->columns - range->column) {
        err_set(e, ERR_INPUT, "%s: rows %zu + %zu, columns %zu + %zu asked for, has %zu x %zu", name, range->row,
                range->n_rows, range->column, range->n_columns, t->rows, t->columns);
        return NULL;
    }
    for (size_t i = 0; i < sizeof where / sizeof *where; i++)
        if (strcmp(where[i].name, name) == 0)
            return where[i].data;
    return NULL;
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
    .tensor = cpu_tensor,
    .get = cpu_get,
    .put = cpu_put,
};
