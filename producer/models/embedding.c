/* embedding.c - see embedding.h. */
#include "embedding.h"

#include <string.h>

void embedding_rows(const struct embedding *w, const uint32_t *ids, size_t n, size_t seq_len, float *x)
{
    size_t d = w->d;
#pragma omp parallel for
    for (size_t t = 0; t < n; t++) {
        const float *word = w->tokens + (size_t)ids[t] * d;
        float *row = x + t * d;
        if (!w->positions) {
            memcpy(row, word, d * sizeof *row);
            continue;
        }
        const float *place = w->positions + t % seq_len * d;
        for (size_t i = 0; i < d; i++)
            row[i] = word[i] + place[i];
    }
}
