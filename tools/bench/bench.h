/* bench.h - the parts of bench and what they share: options, medians, the table's lines. */
#ifndef CROSSFEED_BENCH_H
#define CROSSFEED_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "step.h"

enum { BENCH_MAX_REPS = 99 };

struct bench_options {
    size_t threads, reps;
    bool json; /* one line a part instead of a table */
    /* step */
    size_t n_inputs, n_sites, d_sae, batch, l0;
    size_t dead; /* latents, for AuxK */
    enum step_path path;
    bool recompute;
    const char *write; /* weights and batch */
    /* forward */
    uint32_t n_layer, d_model, n_head, seq_len, sequences;
    const char *model; /* folder of the random model; made, and left there, if it is not there; NULL: a temporary one */
};

/* One line: amount / seconds * 1e-9 in unit, and the share of the least time that `bound_name` allows. */
void bench_line(const char *name, double seconds, double whole, const char *whole_name, double amount, const char *unit,
                double least_seconds, const char *bound_name);

/* Sorts seconds [n]. */
double bench_median(double *seconds, size_t n);

/* A training step: encoder, threshold, decode, gradients, Adam, gathering a batch. */
int bench_step(const struct bench_options *o, struct err *e);
/* A step of each activation, as a ratio to relu's. */
int bench_objectives(const struct bench_options *o, struct err *e);
/* GPT-2's forward pass: embedding, QKV, attention, MLP, storing the rows; fp32, and bf16 where the processor has it. */
int bench_forward(const struct bench_options *o, struct err *e);
/* From a site's vectors to the window: rounding, checksums, the socket, storing. */
int bench_wire(const struct bench_options *o, struct err *e);
/* A checkpoint: saving and verifying it. */
int bench_save(const struct bench_options *o, struct err *e);

#endif
