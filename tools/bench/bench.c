/* bench.c - times the parts of Crossfeed, phase by phase, against what bounds each phase on this machine, measured in the
 * same run: bench step, bench forward, bench wire; without a name all three. bench save and bench objectives are run by name.
 *
 * Every repetition measures phases and bounds in turn, and medians are printed: a machine shared with others slows both
 * sides. Exit status as the programs'. */
#include "bench.h"

#include <argp.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "gemm.h"

void bench_line(const char *name, double seconds, double whole, const char *whole_name, double amount, const char *unit,
                double least_seconds, const char *bound_name)
{
    printf("%-28s %8.4f s %5.1f %% of the %s %8.1f %s, %5.1f %% of %s\n", name, seconds, 100 * seconds / whole,
           whole_name, amount / seconds * 1e-9, unit, 100 * least_seconds / seconds, bound_name);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *seconds, size_t n)
{
    qsort(seconds, n, sizeof *seconds, compare);
    return seconds[n / 2];
}

static const struct {
    const char *name;
    int (*run)(const struct bench_options *o, struct err *e);
    bool always; /* else only if it is named */
} parts[] = {{"step", bench_step, true},
             {"objectives", bench_objectives, false},
             {"forward", bench_forward, true},
             {"wire", bench_wire, true},
             {"save", bench_save, false}};

enum { N_PARTS = sizeof parts / sizeof *parts };

struct arguments {
    struct bench_options options;
    bool wanted[N_PARTS], any;
};

static const struct argp_option options[] = {
    {"threads", 't', "N", 0, "threads (all cores)", 1},
    {"reps", 'r', "N", 0, "repetitions, of which the median counts (5)", 1},
    {"json", 'j', NULL, 0, "one JSON line a part instead of a table", 1},
    {0, 0, 0, 0, "Step (and the rows of wire):", 2},
    {"n-inputs", 'n', "N", 0, "sites times d_model (9216)", 2},
    {"sites", 's', "N", 0, "sites (12)", 2},
    {"d-sae", 'd', "N", 0, "latents (16384)", 2},
    {"batch", 'b', "N", 0, "rows a step (2048)", 2},
    {"l0", 'l', "N", 0, "active latents a row (128)", 2},
    {"path", 'p', "PATH", 0, "auto, dense or sparse (auto)", 2},
    {"recompute", 'R', NULL, 0, "dense steps keep no gradients", 2},
    {"dead", 'x', "N", 0, "dead latents, for AuxK (500)", 2},
    {"write", 'w', "FILE", 0, "write weights and batch (safetensors) before the first step", 2},
    {0, 0, 0, 0, "Forward:", 3},
    {"layers", 'L', "N", 0, "layers (12)", 3},
    {"d-model", 'D', "N", 0, "n_embd (768)", 3},
    {"heads", 'H', "N", 0, "heads (12)", 3},
    {"seq-len", 'T', "N", 0, "tokens a sequence (1024)", 3},
    {"sequences", 'S', "N", 0, "sequences at a time (8)", 3},
    {"model", 'm', "DIR", 0, "the random model's folder; made, and kept, if it is not there", 3},
    {0},
};

static size_t count(const char *text, const char *what, struct argp_state *state)
{
    return (size_t)cli_whole(text, 1, UINT32_MAX, what, state);
}

static void want(struct arguments *a, const char *name, struct argp_state *state)
{
    for (size_t i = 0; i < N_PARTS; i++)
        if (strcmp(name, parts[i].name) == 0) {
            a->wanted[i] = a->any = true;
            return;
        }
    argp_error(state, "'%s': must be step, objectives, forward, wire or save", name);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct bench_options *o = &a->options;
    switch (key) {
    case 't':
        o->threads = count(text, "threads", state);
        return 0;
    case 'r':
        o->reps = (size_t)cli_whole(text, 1, BENCH_MAX_REPS, "reps", state);
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'n':
        o->n_inputs = count(text, "n-inputs", state);
        return 0;
    case 's':
        o->n_sites = count(text, "sites", state);
        return 0;
    case 'd':
        o->d_sae = count(text, "d-sae", state);
        return 0;
    case 'b':
        o->batch = count(text, "batch", state);
        return 0;
    case 'l':
        o->l0 = count(text, "l0", state);
        return 0;
    case 'p':
        o->path = strcmp(text, "dense") == 0 ? STEP_DENSE : strcmp(text, "sparse") == 0 ? STEP_SPARSE : STEP_AUTO;
        if (o->path == STEP_AUTO && strcmp(text, "auto") != 0)
            argp_error(state, "--path '%s': must be auto, dense or sparse", text);
        return 0;
    case 'R':
        o->recompute = true;
        return 0;
    case 'x':
        o->dead = count(text, "dead", state);
        return 0;
    case 'w':
        o->write = text;
        return 0;
    case 'L':
        o->n_layer = (uint32_t)count(text, "layers", state);
        return 0;
    case 'D':
        o->d_model = (uint32_t)count(text, "d-model", state);
        return 0;
    case 'H':
        o->n_head = (uint32_t)count(text, "heads", state);
        return 0;
    case 'T':
        o->seq_len = (uint32_t)count(text, "seq-len", state);
        return 0;
    case 'S':
        o->sequences = (uint32_t)count(text, "sequences", state);
        return 0;
    case 'm':
        o->model = text;
        return 0;
    case ARGP_KEY_ARG:
        want(a, text, state);
        return 0;
    case ARGP_KEY_END:
        if (o->n_inputs % o->n_sites)
            argp_error(state, "%zu inputs are not %zu sites of one size", o->n_inputs, o->n_sites);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        options, parse, "[step] [objectives] [forward] [wire] [save]", "Times the parts of Crossfeed.", NULL,
        NULL,    NULL};
    struct arguments a = {.options = {.threads = (size_t)omp_get_num_procs(),
                                      .reps = 5,
                                      .n_inputs = 9216,
                                      .n_sites = 12,
                                      .d_sae = 16384,
                                      .batch = 2048,
                                      .l0 = 128,
                                      .dead = 500,
                                      .n_layer = 12,
                                      .d_model = 768,
                                      .n_head = 12,
                                      .seq_len = 1024,
                                      .sequences = 8}};
    struct err e;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    omp_set_num_threads((int)a.options.threads);
    gemm_set_threads((int)a.options.threads);
    bool first = true;
    for (size_t i = 0; i < N_PARTS; i++) {
        if (a.any ? !a.wanted[i] : !parts[i].always)
            continue;
        if (!first && !a.options.json)
            putchar('\n');
        first = false;
        if (parts[i].run(&a.options, &e)) {
            fprintf(stderr, "bench %s: %s\n", parts[i].name, e.message);
            return 1;
        }
        fflush(stdout);
    }
    return 0;
}
