/* preset.h - published recipes as sets of defaults: `--preset NAME` sets what no flag did, and cfg.json records what held.
 *
 *   seed           neelnanda-io/Crosscoders, utils.py at its head
 *   ckkissane      ckkissane/crosscoder-model-diff-replication, train.py
 *   batchtopk-2025 science-of-finetuning/crosscoder_learning (BatchTopKCrossCoderTrainer) and its diffing-toolkit
 *   jumprelu-2025  Anthropic's crosscoder update of January 2025, as three implementations read it
 *   diff-sae       diffing-toolkit, sae_difference.yaml; give the producer one difference site */
#ifndef CROSSFEED_PRESET_H
#define CROSSFEED_PRESET_H

#include "config.h"

/* Sets the keys of c->preset that no flag has set. */
void preset_apply(struct config *c);

#endif
