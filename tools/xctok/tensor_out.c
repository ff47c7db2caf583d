/* tensor_out.c - .npy format 1.0, its header filled in at the end; see tensor_out.h. */
#include "tensor_out.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { HEADER = 128, PIECE = 4096 };

int tensor_out_open(struct tensor_out *t, const char *path, size_t columns, bool narrow, struct err *e)
{
    static const char blank[HEADER];
    *t = (struct tensor_out){.columns = columns, .narrow = narrow};
    if (file_out_open(&t->out, path, e))
        return e->code;
    return file_out_write(&t->out, blank, sizeof blank, e);
}

int tensor_out_row(struct tensor_out *t, const uint32_t *values, struct err *e)
{
    size_t n = t->columns ? t->columns : 1;
    uint16_t narrow[PIECE];
    t->rows++;
    if (!t->narrow)
        return file_out_write(&t->out, values, n * sizeof *values, e);
    for (size_t i = 0, m; i < n; i += m) {
        m = n - i < PIECE ? n - i : PIECE;
        for (size_t j = 0; j < m; j++)
            narrow[j] = (uint16_t)values[i + j];
        if (file_out_write(&t->out, narrow, m * sizeof *narrow, e))
            return e->code;
    }
    return 0;
}

int tensor_out_commit(struct tensor_out *t, struct err *e)
{
    char header[HEADER + 1], shape[64];
    if (t->columns)
        snprintf(shape, sizeof shape, "(%zu, %zu)", t->rows, t->columns);
    else
        snprintf(shape, sizeof shape, "(%zu,)", t->rows);
    memcpy(header, "\x93NUMPY\1\0\x76\0", 10); /* version 1.0, 118 bytes follow */
    int n = snprintf(header + 10, HEADER - 10, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                     t->narrow ? "<u2" : "<i4", shape);
    memset(header + 10 + n, ' ', (size_t)(HEADER - 10 - n));
    header[HEADER - 1] = '\n';
    if (fseek(t->out.f, 0, SEEK_SET) != 0)
        return err_errno(e, errno, "%s: cannot go back to its header", t->out.path);
    if (file_out_write(&t->out, header, HEADER, e))
        return e->code;
    return file_out_commit(&t->out, e);
}

void tensor_out_abandon(struct tensor_out *t)
{
    file_out_abandon(&t->out);
}
