/* corpus.h - files of text, also packed ones (unpack.h), as documents: a file each, a line each, or a JSON object a line (JSONL).
 *
 * Lines end with LF, and a CR before it belongs to the line's end; otherwise text is passed on byte for byte, a file's
 * in pieces. An empty line is an empty document, in JSONL it is nothing. JSONL lines are held whole; invalid UTF-8 in
 * them becomes U+FFFD before they are read (json_line.h).
 *
 * Refused, with file and line, or left out and counted: what is no JSON object, has no such field, or one that is no
 * text. */
#ifndef CROSSFEED_CORPUS_H
#define CROSSFEED_CORPUS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

enum corpus_kind { CORPUS_FILES, CORPUS_LINES, CORPUS_JSONL };

/* Takes the documents; each function returns 0, or a negative code with e filled, which ends the reading. */
struct corpus_sink {
    void *self;
    int (*begin)(void *self, struct err *e);
    int (*text)(void *self, const char *text, size_t n, struct err *e);
    int (*end)(void *self, struct err *e);
};

struct corpus {
    enum corpus_kind kind;
    const char *field; /* of a JSONL object */
    struct corpus_sink sink;
    const volatile sig_atomic_t *stop; /* when set, reading ends with ERR_STOPPED; may be NULL */
    const int *done;                   /* when set, reading ends well; may be NULL */
    uint64_t bytes;                    /* of text so far, unpacked */
    bool skip_bad_lines;               /* leave bad lines of JSONL out */
    uint64_t bad_lines;                /* left out so far */
    struct err first_bad_line;         /* says what was wrong with the first */
    uint64_t invalid; /* U+FFFD in JSONL documents so far, for what was no UTF-8 and for lone surrogates */
};

/* Reads the file's documents into the sink; path "-": standard input. */
int corpus_read(struct corpus *c, const char *path, struct err *e);

#endif
