/* random_gpt2.h - a GPT-2 with random weights as a Hugging Face folder, for measuring speed. */
#ifndef CROSSFEED_RANDOM_GPT2_H
#define CROSSFEED_RANDOM_GPT2_H

#include <stdint.h>

#include "err.h"

struct random_gpt2 {
    uint32_t vocab_size, n_positions, n_embd, n_layer, n_head; /* the MLP is 4 n_embd wide */
};

/* Writes config.json and model.safetensors (fp32, std 0.02 as GPT-2 is initialised, layer norms 1) into the folder,
 * which is made if it is not there. */
int random_gpt2_write(const char *folder, const struct random_gpt2 *c, struct err *e);

#endif
