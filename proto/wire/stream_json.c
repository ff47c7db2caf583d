/* stream_json.c - a stream as JSON; see stream_json.h. */
#include "stream_json.h"

#include <stdio.h>
#include <string.h>

#include "mem.h"

json_t *stream_to_json(const struct stream *s)
{
    json_t *sites = json_array(), *models = json_array();
    for (uint32_t i = 0; i < s->n_sites; i++)
        json_array_append_new(sites, json_string(s->sites[i]));
    for (uint32_t i = 0; i < s->n_models; i++)
        json_array_append_new(models, json_string(s->model_fingerprints[i]));
    return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:o}", "sites", sites, "d_model", (json_int_t)s->d_model,
                     "seq_len", (json_int_t)s->seq_len, "rows_per_seq", (json_int_t)s->rows_per_seq, "n_seq",
                     (json_int_t)s->n_seq, "vocab_size", (json_int_t)s->vocab_size, "tokens", s->tokens_fingerprint,
                     "models", models);
}

static int text_list(const json_t *list, size_t max, char *dst, size_t size, uint32_t *n)
{
    if (!json_is_array(list) || json_array_size(list) > max)
        return -1;
    *n = (uint32_t)json_array_size(list);
    for (size_t i = 0; i < *n; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || strlen(text) >= size)
            return -1;
        snprintf(dst + i * size, size, "%s", text);
    }
    return 0;
}

int stream_from_json(struct stream *s, const json_t *saved, const char *path, struct err *e)
{
    json_t *sites, *models, *object = (json_t *)(uintptr_t)saved;
    json_int_t d_model, seq_len, rows_per_seq, n_seq, vocab_size;
    const char *tokens;
    *s = (struct stream){.can_bf16 = true, .can_f32 = true};
    int lacking = json_unpack(object, "{s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:o}", "sites", &sites, "d_model", &d_model,
                              "seq_len", &seq_len, "rows_per_seq", &rows_per_seq, "n_seq", &n_seq, "vocab_size",
                              &vocab_size, "tokens", &tokens, "models", &models);
    if (mem_raw_failed(path, e))
        return ERR_MEMORY;
    if (lacking || text_list(sites, STREAM_MAX_SITES, s->sites[0], SITE_NAME_SIZE, &s->n_sites) ||
        text_list(models, STREAM_MAX_MODELS, s->model_fingerprints[0], FINGERPRINT_SIZE, &s->n_models) ||
        strlen(tokens) >= FINGERPRINT_SIZE ||
        (uint64_t)(d_model | seq_len | rows_per_seq | n_seq | vocab_size) > UINT32_MAX) /* or one of them negative */
        return err_set(e, ERR_INPUT, "%s: its stream description is incomplete", path);
    s->d_model = (uint32_t)d_model;
    s->seq_len = (uint32_t)seq_len;
    s->rows_per_seq = (uint32_t)rows_per_seq;
    s->n_seq = (uint32_t)n_seq;
    s->vocab_size = (uint32_t)vocab_size;
    snprintf(s->tokens_fingerprint, FINGERPRINT_SIZE, "%s", tokens);
    return stream_check(s, e) ? err_prefix(e, "%s", path) : 0;
}
