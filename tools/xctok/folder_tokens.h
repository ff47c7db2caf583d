/* folder_tokens.h - which tokens the files of a tokenizer folder add to its vocabulary, as transformers 5 has it.
 *
 * They come, each file where it is there, in this order:
 *   1. tokenizer.json's added_tokens;
 *   2. tokenizer_config.json's added_tokens_decoder, by id; or, only if that is missing, added_tokens.json, by id. A token
 *      that is there from 1 takes the flags of added_tokens_decoder, not those of added_tokens.json;
 *   3. named ones (bos_token, pad_token, image_token, ...) and extra_special_tokens or additional_special_tokens of
 *      tokenizer_config.json, over which special_tokens_map.json wins if there is no added_tokens_decoder. Those that are
 *      in 1 or 2 become special, the others come after them. Without tokenizer.json, bos_token, eos_token and unk_token
 *      are <|endoftext|> where no file names them.
 *
 * Refused, by name: a class or model_type that is not known to read vocab.json and merges.txt as GPT-2 does,
 * split_special_tokens, two ids for one token, an add_prefix_space that tokenizer.json contradicts, and names that are
 * not tokens. */
#ifndef CROSSFEED_FOLDER_TOKENS_H
#define CROSSFEED_FOLDER_TOKENS_H

#include <jansson.h>
#include <stdbool.h>

#include "err.h"

struct folder_tokens {
    json_t *added;         /* as tokenizer.json has it: objects with content, id and flags; id null: no file says it */
    bool add_prefix_space; /* of tokenizer_config.json; without tokenizer.json only */
};

/* Reads what lies in the folder. tokenizer: the tokenizer.json there, or NULL: vocab.json and merges.txt. */
int folder_tokens_read(struct folder_tokens *f, const char *folder, const json_t *tokenizer, struct err *e);
/* Safe on a zeroed struct. */
void folder_tokens_free(struct folder_tokens *f);

#endif
