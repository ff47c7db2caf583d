/* pack.c - fills a row at a time and writes it; see pack.h. */
#include "pack.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"
#include "npy.h"
#include "overwrite.h"

static void start_row(struct pack *p)
{
    p->filled = 0;
    if (p->options.bos)
        p->row[p->filled++] = p->options.bos_id;
}

static bool is_token_tensor(const char *path, const char *mark)
{
    struct npy n;
    struct err e;
    (void)mark;
    if (npy_open(&n, path, &e))
        return false;
    bool is = n.n_dims <= 2 && (n.dtype == NPY_U16 || n.dtype == NPY_I32);
    npy_close(&n);
    return is;
}

int pack_open(struct pack *p, const struct pack_options *o, struct err *e)
{
    static const struct file_kind kind = {.name = "a token tensor or its lengths", .is = is_token_tensor};
    *p = (struct pack){.options = *o};
    if (npy_lengths_path(p->lengths_path, sizeof p->lengths_path, o->path, e) || overwrite_check(o->path, &kind, e) ||
        overwrite_check(p->lengths_path, &kind, e)) /* which may be removed */
        return e->code;
    p->row = mem_alloc(o->seq_len, sizeof *p->row, "sequence", e);
    if (!p->row || tensor_out_open(&p->tokens, o->path, o->seq_len, o->narrow, e))
        return e->code;
    if (o->per_document && tensor_out_open(&p->lengths, p->lengths_path, 0, false, e))
        return e->code;
    start_row(p);
    p->full = p->done = o->max_tokens < o->seq_len;
    return 0;
}

static int put_row(struct pack *p, struct err *e)
{
    const struct pack_options *o = &p->options;
    uint32_t length = (uint32_t)p->filled;
    while (p->filled < o->seq_len)
        p->row[p->filled++] = o->eos_id;
    if (tensor_out_row(&p->tokens, p->row, e) || (o->per_document && tensor_out_row(&p->lengths, &length, e)))
        return e->code;
    p->done = o->max_tokens / o->seq_len <= p->tokens.rows;
    p->full = p->done || o->per_document;
    start_row(p);
    return 0;
}

/* Puts ids into rows. A full row is written at once when packing; per document at its end, when its length is known. */
static int put(struct pack *p, const uint32_t *ids, size_t n, struct err *e)
{
    while (n && !p->full) {
        size_t room = p->options.seq_len - p->filled, m = n < room ? n : room;
        memcpy(p->row + p->filled, ids, m * sizeof *ids);
        p->filled += m;
        ids += m;
        n -= m;
        if (p->filled < p->options.seq_len)
            continue;
        if (p->options.per_document)
            p->full = true;
        else if (put_row(p, e))
            return e->code;
    }
    return 0;
}

int pack_begin(struct pack *p, struct err *e)
{
    bool first = p->documents++ == 0;
    if (!p->options.per_document)
        return first ? 0 : put(p, &p->options.eos_id, 1, e);
    p->full = p->done;
    return 0;
}

int pack_ids(struct pack *p, const uint32_t *ids, size_t n, struct err *e)
{
    p->n_ids += n;
    return put(p, ids, n, e);
}

int pack_end(struct pack *p, struct err *e)
{
    if (!p->options.per_document || p->done)
        return 0;
    if (p->filled > p->options.bos)
        return put_row(p, e);
    p->empty++;
    return 0;
}

int pack_commit(struct pack *p, struct err *e)
{
    const struct pack_options *o = &p->options;
    if (p->tokens.rows == 0 && o->per_document)
        return err_set(e, ERR_INPUT, "%s: no document of %llu has a token", o->path, (unsigned long long)p->documents);
    if (p->tokens.rows == 0)
        return err_set(e, ERR_INPUT, "%s: the text fills %zu positions, one sequence has %zu", o->path, p->filled,
                       o->seq_len);
    if (p->tokens.rows > UINT32_MAX)
        return err_set(e, ERR_INPUT, "%s: %zu sequences, at most %u", o->path, p->tokens.rows, UINT32_MAX);
    if (o->per_document && tensor_out_commit(&p->lengths, e))
        return e->code;
    if (!o->per_document && unlink(p->lengths_path) != 0 && errno != ENOENT)
        return err_errno(e, errno, "%s: cannot remove it, and it does not belong to the new %s", p->lengths_path,
                         o->path);
    return tensor_out_commit(&p->tokens, e);
}

void pack_abandon(struct pack *p)
{
    tensor_out_abandon(&p->tokens);
    tensor_out_abandon(&p->lengths);
    mem_free(p->row);
    p->row = NULL;
}
