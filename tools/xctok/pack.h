/* pack.h - documents' token ids into sequences of one length.
 *
 * Packed (the default), as TransformerLens' tokenize_and_concatenate: end-of-text between documents, the whole cut into
 * pieces of seq_len - 1, BOS before each; the last incomplete piece is dropped. It differs in that documents are
 * encoded whole, where TransformerLens cuts their text into 20 chunks anywhere, and starts afresh every 1000 documents.
 * An empty document counts (two ends of text in a row).
 *
 * Per document: BOS and the document's first seq_len - 1 tokens, filled up with end-of-text; how many positions are
 * text (BOS counted) goes to a second tensor int32 [n_seq], OUT.lengths.npy, for the padding to be masked from
 * training. Documents without tokens are left out. */
#ifndef CROSSFEED_PACK_H
#define CROSSFEED_PACK_H

#include "tensor_out.h"

struct pack_options {
    const char *path; /* OUT.npy */
    size_t seq_len;   /* at least 1, or 2 with BOS */
    bool bos, per_document;
    uint32_t bos_id, eos_id;
    bool narrow;         /* write uint16 */
    uint64_t max_tokens; /* of the tensor; a sequence that would go beyond is not begun */
};

struct pack {
    struct pack_options options;
    struct tensor_out tokens, lengths; /* lengths only if per_document */
    char lengths_path[4096];
    uint32_t *row; /* [seq_len] */
    size_t filled;
    bool full;          /* nothing more is wanted: of this document, or at all if `done` */
    bool done;          /* max_tokens reached */
    uint64_t documents; /* begun */
    uint64_t empty;     /* left out */
    uint64_t n_ids;     /* of documents, as given to pack_ids */
};

/* Refuses to take the place of files that are no such tensors (overwrite.h). After any failure below, call
 * pack_abandon. */
int pack_open(struct pack *p, const struct pack_options *o, struct err *e);
/* Begins a document. */
int pack_begin(struct pack *p, struct err *e);
/* Adds n ids to it. */
int pack_ids(struct pack *p, const uint32_t *ids, size_t n, struct err *e);
/* Ends it. */
int pack_end(struct pack *p, struct err *e);
/* Gives the tensors their names. Refuses a tensor without a sequence. A lengths file left from an earlier tensor of
 * this name is removed. */
int pack_commit(struct pack *p, struct err *e);
/* Removes what was written; safe on a zeroed struct and after commit. */
void pack_abandon(struct pack *p);

#endif
