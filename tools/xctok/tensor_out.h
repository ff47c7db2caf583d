/* tensor_out.h - a .npy tensor [rows, columns] or [rows] of integers, written row by row.
 *
 * The header has 128 bytes from the start and is filled in last, when the rows are counted; the file then gets its
 * name (file.h). uint16 or int32, little-endian. */
#ifndef CROSSFEED_TENSOR_OUT_H
#define CROSSFEED_TENSOR_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "file.h"

struct tensor_out {
    struct file_out out;
    size_t columns; /* 0: one dimension */
    size_t rows;    /* so far */
    bool narrow;    /* uint16, else int32 */
};

/* After any failure below, call tensor_out_abandon. */
int tensor_out_open(struct tensor_out *t, const char *path, size_t columns, bool narrow, struct err *e);
/* Writes a row: values [columns], or [1]; each fits the type. */
int tensor_out_row(struct tensor_out *t, const uint32_t *values, struct err *e);
/* Fills in the header and gives the file its name. */
int tensor_out_commit(struct tensor_out *t, struct err *e);
/* Removes what was written; safe on a zeroed struct and after commit. */
void tensor_out_abandon(struct tensor_out *t);

#endif
