/* corpus.c - reads text in pieces and cuts it into documents; see corpus.h. */
#include "corpus.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "json_line.h"
#include "mem.h"
#include "unpack.h"
#include "utf8.h"

enum { PIECE = 1 << 18 };

/* A line so far, when it did not end in the piece where it began. */
struct line {
    char *data;
    size_t n, capacity;
    uint64_t number;
    struct json_line json; /* CORPUS_JSONL */
    bool open;             /* bytes of it were seen */
    bool cr;               /* CORPUS_LINES: the last byte seen was a CR, not passed on yet */
};

/* Takes note of a line that is no document, or ends the reading for it. */
static int bad_line(struct corpus *c, const char *path, const struct line *line, struct err *e)
{
    err_prefix(e, "%s: line %llu", path, (unsigned long long)line->number);
    if (c->skip_bad_lines) {
        if (c->bad_lines++ == 0)
            c->first_bad_line = *e;
        *e = (struct err){0};
        return 0;
    }
    size_t used = strlen(e->message);
    snprintf(e->message + used, sizeof e->message - used, " (--skip-bad-lines leaves such lines out)");
    return e->code;
}

/* Passes the field of a JSON line on as a document. */
static int put_object(struct corpus *c, const char *path, struct line *line, struct err *e)
{
    const char *p = line->data;
    size_t n = line->n, blank = 0;
    while (blank < n && (p[blank] == ' ' || p[blank] == '\t' || p[blank] == '\r'))
        blank++;
    if (blank == n)
        return 0;
    struct utf8 utf8 = {0};
    char *clean = mem_alloc(UTF8_CLEAN_MAX(n), 1, path, e);
    if (!clean)
        return ERR_MEMORY;
    size_t n_clean = utf8_clean(&utf8, p, n, clean);
    n_clean += utf8_finish(&utf8, clean + n_clean);
    int rc = json_line_read(&line->json, clean, n_clean, c->field, e);
    mem_free(clean);
    if (rc == ERR_INPUT)
        return bad_line(c, path, line, e);
    if (rc)
        return rc;
    c->invalid += utf8.invalid + line->json.surrogates;
    if (c->sink.begin(c->sink.self, e) || c->sink.text(c->sink.self, line->json.text, line->json.n, e))
        return e->code;
    return c->sink.end(c->sink.self, e);
}

/* Appends n bytes to the line. */
static int keep(struct line *line, const char *path, const char *p, size_t n, struct err *e)
{
    if (n == 0)
        return 0;
    if (line->capacity - line->n < n) {
        size_t capacity = 2 * (line->n + n);
        char *data = mem_realloc(line->data, capacity, 1, path, e);
        if (!data)
            return ERR_MEMORY;
        line->data = data;
        line->capacity = capacity;
    }
    memcpy(line->data + line->n, p, n);
    line->n += n;
    return 0;
}

/* Takes n bytes of a line, without its LF. */
static int part_of_line(struct corpus *c, const char *path, struct line *line, const char *p, size_t n, struct err *e)
{
    if (c->kind == CORPUS_JSONL)
        return keep(line, path, p, n, e);
    if (!line->open && c->sink.begin(c->sink.self, e))
        return e->code;
    line->open = true;
    if (n == 0)
        return 0;
    if (line->cr && c->sink.text(c->sink.self, "\r", 1, e))
        return e->code;
    line->cr = p[n - 1] == '\r';
    return c->sink.text(c->sink.self, p, n - line->cr, e);
}

static int end_of_line(struct corpus *c, const char *path, struct line *line, struct err *e)
{
    int rc = c->kind == CORPUS_JSONL ? put_object(c, path, line, e) : c->sink.end(c->sink.self, e);
    line->n = 0;
    line->open = line->cr = false;
    line->number++;
    return rc;
}

static int put_lines(struct corpus *c, const char *path, struct line *line, const char *p, size_t n, struct err *e)
{
    while (n && !(c->done && *c->done)) {
        const char *lf = memchr(p, '\n', n);
        size_t m = lf ? (size_t)(lf - p) : n;
        if (part_of_line(c, path, line, p, m, e) || (lf && end_of_line(c, path, line, e)))
            return e->code;
        m += lf != NULL;
        p += m;
        n -= m;
    }
    return 0;
}

static int read_all(struct corpus *c, struct unpack *u, const char *path, char *piece, struct line *line, struct err *e)
{
    size_t n;
    if (c->kind == CORPUS_FILES && c->sink.begin(c->sink.self, e))
        return e->code;
    while (!(c->done && *c->done)) {
        if (unpack_read(u, piece, PIECE, &n, e))
            return e->code;
        if (c->stop && *c->stop)
            return err_set(e, ERR_STOPPED, "stopped after %llu bytes", (unsigned long long)c->bytes);
        if (n == 0)
            break;
        c->bytes += n;
        if (c->kind == CORPUS_FILES ? c->sink.text(c->sink.self, piece, n, e) : put_lines(c, path, line, piece, n, e))
            return e->code;
    }
    if (c->kind == CORPUS_FILES)
        return c->sink.end(c->sink.self, e);
    if (c->done && *c->done)
        return 0;
    return line->open || line->n ? end_of_line(c, path, line, e) : 0; /* the last one had no LF */
}

int corpus_read(struct corpus *c, const char *path, struct err *e)
{
    struct line line = {.number = 1};
    struct unpack *u = unpack_open(path, c->stop, e);
    char *piece = u ? mem_alloc(PIECE, 1, path, e) : NULL;
    int rc = piece ? read_all(c, u, strcmp(path, "-") == 0 ? "standard input" : path, piece, &line, e) : e->code;
    mem_free(piece);
    mem_free(line.data);
    json_line_free(&line.json);
    unpack_close(u);
    return rc;
}
