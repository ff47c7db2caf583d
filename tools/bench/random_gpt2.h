/* random_gpt2.h - a GPT-2 with random weights as a Hugging Face folder, for measuring speed. */
#ifndef CROSSFEED_RANDOM_GPT2_H
#define CROSSFEED_RANDOM_GPT2_H

#include "err.h"
#include "gpt2_config.h"

/* Writes config.json and model.safetensors (fp32, std 0.02 as GPT-2 is initialised, layer norms 1) into the folder. */
int random_gpt2_write(const char *folder, const struct gpt2_config *c, struct err *e);

#endif
