/* bpe.c - merges by a heap, a hash table of pairs, a direct-mapped cache; see bpe.h.
 *
 * A heap entry may be out of date: its symbols were since joined with others. It is then recognised as the tokenizers
 * package does, by the pair now at its position having no merge or one with another result. */
#include "bpe.h"

#include <stdbool.h>
#include <string.h>

#define XXH_INLINE_ALL /* short words: a call and a state for each would cost more than the hash */
#include <xxhash.h>

#include "mem.h"

enum { CACHE_SLOTS = 1 << 16, CACHE_BYTES = 30, CACHE_IDS = 8 };

struct bpe_slot {
    uint64_t pair; /* left << 32 | right; NO_PAIR = empty */
    uint32_t rank, result;
};
#define NO_PAIR UINT64_MAX

struct bpe_cached { /* one cache line; size 0 = empty */
    uint8_t size, n;
    char word[CACHE_BYTES];
    uint32_t ids[CACHE_IDS];
};

struct bpe_symbol {
    uint32_t id;
    int32_t previous, next; /* -1 = none */
};

int ids_reserve(struct ids *ids, size_t more, struct err *e)
{
    if (ids->capacity - ids->n >= more)
        return 0;
    size_t capacity = ids->capacity ? ids->capacity : 1024;
    while (capacity - ids->n < more)
        if (!size_mul(capacity, 2, &capacity))
            return err_set(e, ERR_MEMORY, "token ids: %zu more than %zu do not fit in memory", more, ids->n);
    uint32_t *data = mem_realloc(ids->data, capacity, sizeof *data, "token ids", e);
    if (!data)
        return ERR_MEMORY;
    ids->data = data;
    ids->capacity = capacity;
    return 0;
}

/* Returns the pair's slot, or the empty one where it would be. */
static struct bpe_slot *find(const struct bpe *b, uint32_t left, uint32_t right)
{
    uint64_t pair = (uint64_t)left << 32 | right, hash = pair * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(hash ^ hash >> 32) & (b->n_slots - 1);
    while (b->slots[i].pair != pair && b->slots[i].pair != NO_PAIR)
        i = (i + 1) & (b->n_slots - 1);
    return b->slots + i;
}

int bpe_init(struct bpe *b, const uint32_t byte_token[256], const struct bpe_merge *merges, size_t n_merges,
             struct err *e)
{
    *b = (struct bpe){.merges = merges, .n_slots = 64};
    memcpy(b->byte_token, byte_token, sizeof b->byte_token);
    while (b->n_slots / 2 < n_merges)
        b->n_slots *= 2;
    b->slots = mem_alloc(b->n_slots, sizeof *b->slots, "table of merges", e);
    b->cache = mem_alloc(CACHE_SLOTS, sizeof *b->cache, "cache of words", e);
    if (!b->slots || !b->cache) {
        bpe_free(b);
        return ERR_MEMORY;
    }
    for (size_t i = 0; i < b->n_slots; i++)
        b->slots[i].pair = NO_PAIR;
    for (size_t i = 0; i < n_merges; i++)
        *find(b, merges[i].left, merges[i].right) =
            (struct bpe_slot){(uint64_t)merges[i].left << 32 | merges[i].right, (uint32_t)i, merges[i].result};
    return 0;
}

void bpe_free(struct bpe *b)
{
    mem_free(b->slots);
    mem_free(b->cache);
    mem_free(b->symbols);
    mem_free(b->heap);
    *b = (struct bpe){0};
}

static int reserve(struct bpe *b, size_t n, struct err *e)
{
    if (n <= b->capacity)
        return 0;
    if (n > INT32_MAX)
        return err_set(e, ERR_INPUT, "a run of %zu bytes without a word's end, at most %d can be encoded", n,
                       INT32_MAX);
    size_t capacity = 2 * n; /* at most n - 1 pairs at first, and one more with each merge */
    mem_free(b->symbols);
    mem_free(b->heap);
    b->capacity = 0;
    b->symbols = mem_alloc(capacity, sizeof *b->symbols, "a run of bytes without a word's end", e);
    b->heap = mem_alloc(2 * capacity, sizeof *b->heap, "a run of bytes without a word's end", e);
    if (!b->symbols || !b->heap)
        return ERR_MEMORY;
    b->capacity = capacity;
    return 0;
}

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t x = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= x)
            break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

static void push(uint64_t *heap, size_t *n, uint64_t x)
{
    size_t i = (*n)++;
    for (; i && heap[(i - 1) / 2] > x; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = x;
}

static void push_pair(struct bpe *b, size_t *n_heap, int32_t left)
{
    int32_t right = b->symbols[left].next;
    const struct bpe_slot *s = find(b, b->symbols[left].id, b->symbols[right].id);
    if (s->pair != NO_PAIR)
        push(b->heap, n_heap, (uint64_t)s->rank << 32 | (uint32_t)left);
}

/* Joins symbols 0..n-1 in place until no pair has a merge. Symbol 0 stays the first. */
static void merge_all(struct bpe *b, size_t n)
{
    struct bpe_symbol *s = b->symbols;
    size_t n_heap = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        const struct bpe_slot *slot = find(b, s[i].id, s[i + 1].id);
        if (slot->pair != NO_PAIR)
            b->heap[n_heap++] = (uint64_t)slot->rank << 32 | (uint32_t)i;
    }
    for (size_t i = n_heap / 2; i-- > 0;)
        sift_down(b->heap, n_heap, i);
    while (n_heap) {
        uint64_t top = b->heap[0];
        b->heap[0] = b->heap[--n_heap];
        if (n_heap)
            sift_down(b->heap, n_heap, 0);
        int32_t left = (int32_t)(top & UINT32_MAX), right = s[left].next;
        uint32_t result = b->merges[top >> 32].result;
        if (s[left].id == BPE_NO_TOKEN || right < 0) /* joined to its left neighbour since, or now the last */
            continue;
        const struct bpe_slot *slot = find(b, s[left].id, s[right].id);
        if (slot->pair == NO_PAIR || slot->result != result)
            continue;
        s[left].id = result;
        s[left].next = s[right].next;
        s[right].id = BPE_NO_TOKEN;
        if (s[left].next >= 0) {
            s[s[left].next].previous = left;
            push_pair(b, &n_heap, left);
        }
        if (s[left].previous >= 0)
            push_pair(b, &n_heap, s[left].previous);
    }
}

int bpe_encode(struct bpe *b, const char *word, size_t n, struct ids *out, struct err *e)
{
    struct bpe_cached *cached = NULL;
    if (n <= CACHE_BYTES) {
        cached = b->cache + (XXH3_64bits(word, n) & (CACHE_SLOTS - 1));
        if (cached->size == n && memcmp(cached->word, word, n) == 0) {
            if (ids_reserve(out, CACHE_IDS, e))
                return e->code;
            memcpy(out->data + out->n, cached->ids, sizeof cached->ids);
            out->n += cached->n;
            return 0;
        }
    }
    if (reserve(b, n, e) || ids_reserve(out, n, e))
        return e->code;
    size_t n_symbols = 0, first = out->n;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = b->byte_token[(unsigned char)word[i]];
        if (id == BPE_NO_TOKEN)
            continue;
        b->symbols[n_symbols] = (struct bpe_symbol){id, (int32_t)n_symbols - 1, (int32_t)n_symbols + 1};
        n_symbols++;
    }
    if (n_symbols) {
        b->symbols[n_symbols - 1].next = -1;
        merge_all(b, n_symbols);
        for (int32_t i = 0; i >= 0; i = b->symbols[i].next)
            out->data[out->n++] = b->symbols[i].id;
    }
    if (cached && n && out->n - first <= CACHE_IDS) {
        cached->size = (uint8_t)n;
        cached->n = (uint8_t)(out->n - first);
        memcpy(cached->word, word, n);
        memcpy(cached->ids, out->data + first, cached->n * sizeof *cached->ids);
    }
    return 0;
}
