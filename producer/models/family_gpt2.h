/* family_gpt2.h - GPT-2 and what has its architecture, as Hugging Face's GPT2Model and GPT2LMHeadModel.
 *
 * Layers are layer_pre_norm's, numerically as GPT2Model in eval mode; positions are learned. Of config.json it reads
 * what decides the result of a forward pass. Ignored: dropout (inference), reorder_and_upcast_attn (no effect in fp32),
 * everything about generation. Refused: an activation that mlp.h does not have, cross-attention, an n_embd that n_head
 * does not divide, values of a wrong type. Matrices are stored as Hugging Face's Conv1D does, [in, out]: y = x W + b */
#ifndef CROSSFEED_FAMILY_GPT2_H
#define CROSSFEED_FAMILY_GPT2_H

struct family;
extern const struct family family_gpt2;

#endif
