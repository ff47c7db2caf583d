/* hf_checkpoint.h - the tensors of a model folder as Hugging Face ships it: model.safetensors, or, where that is
 * absent, the shards that model.safetensors.index.json lists. All files are memory-mapped. */
#ifndef CROSSFEED_HF_CHECKPOINT_H
#define CROSSFEED_HF_CHECKPOINT_H

#include <stddef.h>

#include "err.h"
#include "safetensors.h"

struct hf_checkpoint {
    struct safetensors *files; /* [n_files] */
    size_t n_files;
};

/* Maps all files. Refuses a folder with neither, an index that is not one, and shards outside of the folder. */
int hf_checkpoint_open(struct hf_checkpoint *c, const char *folder, struct err *e);
void hf_checkpoint_close(struct hf_checkpoint *c); /* safe on a zeroed struct */

/* Returns the tensor of that name and sets *file to the one that it is in; NULL if no file has it. Valid until
 * close. */
const struct tensor_view *hf_checkpoint_find(const struct hf_checkpoint *c, const char *name,
                                             const struct safetensors **file);

#endif
