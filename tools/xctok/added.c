/* added.c - finds candidates by first byte, then compares; see added.h. */
#include "added.h"

#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "utf8.h"

static int by_byte_and_length(const void *a, const void *b)
{
    const struct added_token *x = *(const struct added_token *const *)a, *y = *(const struct added_token *const *)b;
    if (x->text[0] != y->text[0])
        return (unsigned char)x->text[0] < (unsigned char)y->text[0] ? -1 : 1;
    return x->size > y->size ? -1 : x->size < y->size;
}

int added_init(struct added *a, const struct vocabulary *v, bool normalized, struct err *e)
{
    *a = (struct added){0};
    a->tokens = mem_alloc(v->n_added, sizeof *a->tokens, "added tokens", e);
    if (!a->tokens)
        return e->code;
    for (size_t i = 0; i < v->n_added; i++) {
        const struct added_token *t = v->added + i;
        if (t->normalized != normalized)
            continue;
        a->tokens[a->n_tokens++] = t;
        a->first[(unsigned char)t->text[0] + 1]++;
        if (t->size > a->longest)
            a->longest = t->size;
    }
    for (size_t b = 0; b < 256; b++)
        a->first[b + 1] += a->first[b];
    qsort(a->tokens, a->n_tokens, sizeof *a->tokens, by_byte_and_length);
    return 0;
}

void added_free(struct added *a)
{
    mem_free(a->tokens);
    *a = (struct added){0};
}

struct added_match added_find(const struct added *a, const char *text, size_t from, size_t end)
{
    struct added_match m = {.at = end, .start = end, .stop = end};
    size_t n;
    for (size_t i = from; a->n_tokens && i < end && !m.token; i++) {
        unsigned char b = (unsigned char)text[i];
        for (size_t j = a->first[b]; j < a->first[b + 1] && !m.token; j++)
            if (a->tokens[j]->size <= end - i && memcmp(a->tokens[j]->text, text + i, a->tokens[j]->size) == 0)
                m = (struct added_match){i, i, i + a->tokens[j]->size, a->tokens[j]};
    }
    if (!m.token)
        return m;
    while (m.token->lstrip && (n = utf8_space_before(text + from, text + m.start)))
        m.start -= n;
    while (m.token->rstrip && (n = utf8_space_at(text + m.stop, text + end)))
        m.stop += n;
    return m;
}
