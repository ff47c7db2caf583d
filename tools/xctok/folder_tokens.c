/* folder_tokens.c - tokenizer_config.json, special_tokens_map.json and added_tokens.json; see folder_tokens.h. */
#include "folder_tokens.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "json_file.h"
#include "mem.h"

/* In the order in which they are added. */
static const char *const standard_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                             "pad_token", "cls_token", "mask_token"};
enum { N_STANDARD = sizeof standard_names / sizeof *standard_names, N_DEFAULT = 3 };
static const char default_token[] = "<|endoftext|>";

struct reading {
    const char *folder;
    json_t *config, *map; /* objects; empty where the file is missing. map: tokens by name, of both files */
    json_t *added;        /* the result */
    json_t *known;        /* its entries, by content */
    json_t *named;        /* of `known`, those added for a name alone */
};

/* Reads folder/name, an empty object if it is missing. */
static int read_object(const char *folder, const char *name, json_t **object, struct err *e)
{
    char path[4096];
    *object = NULL;
    if (file_join(path, sizeof path, folder, name, e))
        return e->code;
    if (access(path, F_OK) == 0)
        return json_read_object(path, object, e);
    *object = json_object();
    return *object ? 0 : mem_raw_failed(path, e);
}

static bool among(const char *text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, list[i]) == 0)
            return true;
    return false;
}

/* Whether AutoTokenizer, or somebody who chose GPT2Tokenizer, reads the folder's vocab.json as GPT-2's. */
static int check_class(const struct reading *r, struct err *e)
{
    static const char *const classes[] = {"GPT2Tokenizer", "GPT2TokenizerFast"};
    static const char *const types[] = {"gpt2", "gpt_neo", "gptj", "gpt_bigcode", "codegen",
                                        "opt",  "phi",     "dbrx", "starcoder2"};
    json_t *model = NULL;
    if (read_object(r->folder, "config.json", &model, e))
        return e->code;
    const char *class = json_string_value(json_object_get(r->config, "tokenizer_class"));
    const char *type = json_string_value(json_object_get(model, "model_type"));
    if (!class)
        class = json_string_value(json_object_get(model, "tokenizer_class"));
    int rc = 0;
    if (class ? !among(class, classes, sizeof classes / sizeof *classes)
              : type && !among(type, types, sizeof types / sizeof *types))
        rc = err_set(e, ERR_INPUT,
                     "%s: %s %s: without a tokenizer.json only GPT2Tokenizer's vocab.json and merges.txt are read",
                     r->folder, class ? "tokenizer_class" : "model_type", class ? class : type);
    json_decref(model);
    return rc;
}

static void copy_flag(json_t *to, const json_t *from, const char *flag, bool otherwise)
{
    const json_t *own = json_object_get(from, flag);
    json_object_set_new(to, flag, json_boolean(own ? json_is_true(own) : otherwise));
}

/* Adds a token or, with `again`, gives one that is there these flags. flags: an object, or NULL for none. id: -1 if no
 * file says it. */
static int put(struct reading *r, const char *content, const json_t *flags, bool special, json_int_t id, bool again,
               struct err *e)
{
    json_t *entry = json_object_get(r->known, content);
    const json_t *had = json_object_get(entry, "id");
    if (json_is_integer(had) && id >= 0 && json_integer_value(had) != id)
        return err_set(e, ERR_INPUT, "%s: two files say two ids of added token '%s': %lld and %lld", r->folder, content,
                       (long long)json_integer_value(had), (long long)id);
    if (!*content || (entry && !again)) /* transformers leaves empty ones out */
        return 0;
    if (!entry) {
        entry = json_pack("{s:s, s:n}", "content", content, "id");
        json_array_append_new(r->added, entry);
        json_object_set(r->known, content, entry);
    }
    if (id >= 0)
        json_object_set_new(entry, "id", json_integer(id));
    json_object_set_new(entry, "special", json_boolean(special));
    copy_flag(entry, flags, "normalized", !special);
    copy_flag(entry, flags, "lstrip", false);
    copy_flag(entry, flags, "rstrip", false);
    copy_flag(entry, flags, "single_word", false);
    return mem_raw_failed(r->folder, e);
}

struct numbered {
    long long id;
    const char *content;
    const json_t *flags;
};

static int by_id(const void *a, const void *b)
{
    const struct numbered *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Puts tokens in the order of their ids. */
static int put_numbered(struct reading *r, struct numbered *tokens, size_t n, bool again, struct err *e)
{
    qsort(tokens, n, sizeof *tokens, by_id);
    for (size_t i = 0; i < n; i++) {
        bool special = json_is_true(json_object_get(tokens[i].flags, "special"));
        if (put(r, tokens[i].content, tokens[i].flags, special, tokens[i].id, again, e))
            return e->code;
    }
    return 0;
}

/* {"50257": {"content": "<pad>", ...}, ...} */
static int put_decoder(struct reading *r, json_t *decoder, struct err *e)
{
    const char *key;
    json_t *token;
    size_t n = 0;
    struct numbered *tokens = mem_alloc(json_object_size(decoder) + 1, sizeof *tokens, "added tokens", e);
    if (!tokens)
        return e->code;
    int rc = 0;
    json_object_foreach(decoder, key, token)
    {
        char *end;
        const char *content = json_string_value(json_object_get(token, "content"));
        tokens[n] = (struct numbered){strtoll(key, &end, 10), content, token};
        if (!content || *end || end == key || tokens[n].id < 0) {
            rc = err_set(e, ERR_INPUT, "%s/tokenizer_config.json: added_tokens_decoder '%s' is not an id and its token",
                         r->folder, key);
            break;
        }
        n++;
    }
    if (!rc)
        rc = put_numbered(r, tokens, n, true, e);
    mem_free(tokens);
    return rc;
}

/* The text of a token that is a string or an object; NULL if it is neither. */
static const char *token_text(const json_t *token)
{
    return json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
}

/* {"<pad>": 50257, ...}. special: the set of texts that are. */
static int put_added_tokens(struct reading *r, const json_t *special, struct err *e)
{
    const char *content;
    json_t *file, *id, *is_special = json_pack("{s:b}", "special", 1);
    size_t n = 0;
    int rc = read_object(r->folder, "added_tokens.json", &file, e);
    struct numbered *tokens = rc ? NULL : mem_alloc(json_object_size(file) + 1, sizeof *tokens, "added tokens", e);
    if (!rc && !tokens)
        rc = e->code;
    if (!rc)
        json_object_foreach(file, content, id)
        {
            if (!json_is_integer(id) || json_integer_value(id) < 0) {
                rc = err_set(e, ERR_INPUT, "%s/added_tokens.json: '%s' has no id", r->folder, content);
                break;
            }
            tokens[n++] = (struct numbered){json_integer_value(id), content,
                                            json_object_get(special, content) ? is_special : NULL};
        }
    if (!rc)
        rc = put_numbered(r, tokens, n, false, e);
    mem_free(tokens);
    json_decref(is_special);
    json_decref(file);
    return rc;
}

/* Takes a token that a name or a list says is special. Where it is known from 1 or 2 (folder_tokens.h) it keeps its flags. */
static int put_named(struct reading *r, const char *name, const json_t *token, bool typed, struct err *e)
{
    const char *content = token_text(token);
    if (json_is_null(token))
        return 0;
    if (!content || (typed && json_is_object(token) && !json_object_get(token, "__type")))
        return err_set(e, ERR_INPUT, "%s: %s is neither a text nor an added token", r->folder, name);
    if (json_object_get(r->known, content) && !json_object_get(r->named, content)) {
        if (strcmp(name, "extra_special_tokens") != 0)
            json_object_set_new(json_object_get(r->known, content), "special", json_true());
        return mem_raw_failed(r->folder, e);
    }
    json_object_set_new(r->named, content, json_true());
    return put(r, content, json_is_object(token) ? token : NULL, true, -1, true, e);
}

static bool is_model_specific(const char *key, const json_t *value)
{
    size_t n = strlen(key);
    return n > 6 && strcmp(key + n - 6, "_token") == 0 && (json_is_string(value) || json_is_object(value)) &&
           !among(key, standard_names, N_STANDARD);
}

/* Puts the tokens of a list, or of an object by name. */
static int put_extra(struct reading *r, json_t *extra, struct err *e)
{
    const char *key;
    json_t *token;
    size_t i;
    if (extra && !json_is_array(extra) && !json_is_object(extra))
        return err_set(e, ERR_INPUT, "%s: extra_special_tokens is neither a list nor an object", r->folder);
    json_object_foreach(extra, key, token) if (put_named(r, key, token, false, e)) return e->code;
    json_array_foreach(extra, i, token) if (put_named(r, "extra_special_tokens", token, false, e)) return e->code;
    return 0;
}

/* Puts all that is named: of config, or of the map where it names the same. */
static int put_names(struct reading *r, json_t *extra, bool defaults, struct err *e)
{
    const char *key;
    json_t *token;
    for (size_t i = 0; i < N_STANDARD; i++) {
        const json_t *in_map = json_object_get(r->map, standard_names[i]);
        json_t *own = json_object_get(r->config, standard_names[i]);
        json_t *otherwise = defaults && i < N_DEFAULT ? json_string(default_token) : json_null();
        int rc = mem_raw_failed(r->folder, e);
        if (!rc)
            rc = put_named(r, standard_names[i], in_map ? in_map : own ? own : otherwise, !in_map && own, e);
        json_decref(otherwise);
        if (rc)
            return rc;
    }
    json_object_foreach(r->map, key, token)
    {
        if (is_model_specific(key, token) && !json_object_get(r->config, key) && put_named(r, key, token, false, e))
            return e->code;
    }
    json_object_foreach(r->config, key, token)
    {
        if (is_model_specific(key, token) && put_named(r, key, token, true, e))
            return e->code;
    }
    return put_extra(r, extra, e);
}

static bool is_empty(const json_t *list)
{
    return !list || json_is_null(list) ||
           (json_is_array(list) ? json_array_size(list) == 0 : json_is_object(list) && json_object_size(list) == 0);
}

/* Returns the list (or object) of special tokens without a standard name, borrowed or NULL. */
static json_t *extra_tokens(const struct reading *r)
{
    static const char *const keys[] = {"extra_special_tokens", "additional_special_tokens"};
    for (size_t i = 0; i < 4; i++) {
        json_t *list = json_object_get(i < 2 ? r->config : r->map, keys[i % 2]);
        if (!is_empty(list))
            return list;
    }
    return NULL;
}

/* Makes the set of the texts that are special in added_tokens.json. */
static json_t *special_texts(const struct reading *r, json_t *extra)
{
    json_t *set = json_object(), *token;
    size_t i;
    for (i = 0; i < N_STANDARD; i++) {
        const json_t *in_map = json_object_get(r->map, standard_names[i]);
        const char *text = token_text(in_map ? in_map : json_object_get(r->config, standard_names[i]));
        if (text)
            json_object_set_new(set, text, json_true());
    }
    json_array_foreach(extra, i, token) if (token_text(token)) json_object_set_new(set, token_text(token), json_true());
    return set;
}

static int put_all(struct reading *r, const json_t *tokenizer, struct err *e)
{
    json_t *decoder = json_object_get(r->config, "added_tokens_decoder"), *token, *special;
    size_t i;
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, token)
    { /* as they are: vocabulary.c reads and checks them */
        const char *content = token_text(token);
        json_array_append(r->added, token);
        if (content)
            json_object_set(r->known, content, token);
    }
    if (!decoder && read_object(r->folder, "special_tokens_map.json", &r->map, e))
        return e->code;
    json_t *extra = extra_tokens(r);
    special = decoder ? NULL : special_texts(r, extra);
    int rc = mem_raw_failed(r->folder, e);
    if (!rc)
        rc = decoder ? put_decoder(r, decoder, e) : put_added_tokens(r, special, e);
    if (!rc)
        rc = put_names(r, extra, !tokenizer, e);
    json_decref(special);
    return rc;
}

static int check_config(struct folder_tokens *f, const struct reading *r, const json_t *tokenizer, struct err *e)
{
    const json_t *prefix = json_object_get(r->config, "add_prefix_space");
    bool own = json_is_true(json_object_get(json_object_get(tokenizer, "pre_tokenizer"), "add_prefix_space"));
    f->add_prefix_space = json_is_true(prefix);
    if (tokenizer && json_is_boolean(prefix) && json_is_true(prefix) != own)
        return err_set(e, ERR_INPUT, "%s: add_prefix_space is %s in tokenizer_config.json and %s in tokenizer.json",
                       r->folder, json_is_true(prefix) ? "true" : "false", own ? "true" : "false");
    if (json_is_true(json_object_get(r->config, "split_special_tokens")))
        return err_set(e, ERR_INPUT, "%s/tokenizer_config.json: split_special_tokens is not supported", r->folder);
    return tokenizer ? 0 : check_class(r, e);
}

int folder_tokens_read(struct folder_tokens *f, const char *folder, const json_t *tokenizer, struct err *e)
{
    struct reading r = {.folder = folder, .added = json_array(), .known = json_object(), .named = json_object()};
    *f = (struct folder_tokens){0};
    int rc = mem_raw_failed(folder, e);
    if (!rc)
        rc = read_object(folder, "tokenizer_config.json", &r.config, e);
    if (!rc)
        rc = check_config(f, &r, tokenizer, e);
    if (!rc)
        rc = put_all(&r, tokenizer, e);
    if (!rc)
        rc = mem_raw_failed(folder, e);
    if (!rc)
        f->added = json_incref(r.added);
    json_decref(r.added);
    json_decref(r.known);
    json_decref(r.named);
    json_decref(r.config);
    json_decref(r.map);
    return rc;
}

void folder_tokens_free(struct folder_tokens *f)
{
    json_decref(f->added);
    *f = (struct folder_tokens){0};
}
