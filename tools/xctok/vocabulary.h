/* vocabulary.h - a byte-level BPE tokenizer as its files describe it.
 *
 * It reads Hugging Face's tokenizer.json (model BPE, pre-tokenizer ByteLevel, decoder ByteLevel or none), or GPT-2's
 * vocab.json + merges.txt with what older folders have beside them. It does not apply truncation, padding and
 * post_processor, as xctok does their work itself (ids are those of encode(text, add_special_tokens=False)).
 *
 * It refuses, by name: any normalizer, other models, pre-tokenizers and decoders, dropout, byte_fallback,
 * ignore_merges, a subword prefix or suffix, fuse_unk where a byte lacks its token, added tokens with single_word or
 * with an id other than the tokenizers package would give them, and merges whose parts or result are not in the
 * vocabulary. */
#ifndef CROSSFEED_VOCABULARY_H
#define CROSSFEED_VOCABULARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpe.h"
#include "err.h"

struct token {   /* size 0 and bytes NULL: no token has this id */
    char *bytes; /* what it decodes to */
    uint32_t size;
    bool special;
};

struct added_token { /* matched in the text before anything else */
    char *text;
    size_t size;
    uint32_t id;
    bool normalized;     /* matched after those that are not */
    bool lstrip, rstrip; /* takes the white space on that side with it */
};

struct vocabulary {
    struct token *tokens; /* [n_tokens], by id */
    size_t n_tokens;      /* the greatest id + 1 */
    struct bpe_merge *merges;
    size_t n_merges;
    uint32_t byte_token[256]; /* a byte's token; the unknown token or BPE_NO_TOKEN where it has none */
    struct added_token *added;
    size_t n_added;
    bool add_prefix_space, use_regex;
};

/* Reads the vocabulary at path: a tokenizer.json, a folder with one, or a folder with vocab.json and merges.txt. Of a
 * folder, the other files that add tokens count too: folder_tokens.h. */
int vocabulary_load(struct vocabulary *v, const char *path, struct err *e);
/* Safe on a zeroed struct. */
void vocabulary_free(struct vocabulary *v);

#endif
