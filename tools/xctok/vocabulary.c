/* vocabulary.c - parses tokenizer.json, or vocab.json and merges.txt; see vocabulary.h. */
#include "vocabulary.h"

#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "folder_tokens.h"
#include "json_file.h"
#include "mem.h"
#include "utf8.h"

enum { FILE_MAX = 1 << 29, ID_MAX = (1 << 22) - 1 };

/* Returns what GPT-2's bytes_to_unicode gives a byte: printable bytes stand for themselves, the others for U+0100 and
 * on, in order. */
static unsigned byte_character(unsigned byte)
{
    static const unsigned char gaps[][2] = {{0, 0x20}, {0x7f, 0xa0}, {0xad, 0xad}};
    unsigned before = 0;
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++) {
        if (byte >= gaps[i][0] && byte <= gaps[i][1])
            return 0x100 + before + byte - gaps[i][0];
        before += gaps[i][1] - gaps[i][0] + 1u;
    }
    return byte;
}

/* Writes the character's UTF-8, NUL-terminated, to dst; characters here are below U+0800. */
static size_t character_text(unsigned character, char dst[3])
{
    size_t n = 0;
    if (character < 0x80) {
        dst[n++] = (char)character;
    } else {
        dst[n++] = (char)(0xc0 | character >> 6);
        dst[n++] = (char)(0x80 | (character & 0x3f));
    }
    dst[n] = 0;
    return n;
}

/* Turns each character back into its byte, in place; text with a character that stands for no byte stays as it is,
 * whole. */
static void to_bytes(char *text, uint32_t *size)
{
    static short bytes[0x144]; /* by character, -1 = none */
    if (!bytes['!']) {
        memset(bytes, 0xff, sizeof bytes);
        for (unsigned b = 0; b < 256; b++)
            bytes[byte_character(b)] = (short)b;
    }
    uint32_t n = 0;
    for (int pass = 0; pass < 2; pass++) { /* first only looks */
        n = 0;
        for (uint32_t i = 0; i < *size;) {
            unsigned c = (unsigned char)text[i++];
            if (c >= 0xe0)
                return;
            if (c >= 0xc0)
                c = (c & 0x1f) << 6 | ((unsigned char)text[i++] & 0x3f);
            if (c >= sizeof bytes / sizeof *bytes || bytes[c] < 0)
                return;
            if (pass)
                text[n] = (char)bytes[c];
            n++;
        }
    }
    *size = n;
}

/* Makes a copy of text token id. */
static int set_token(struct vocabulary *v, const char *path, uint32_t id, const char *text, size_t size, struct err *e)
{
    struct token *t = v->tokens + id;
    if (t->bytes)
        return err_set(e, ERR_INPUT, "%s: id %u belongs to two tokens, the second is '%s'", path, id, text);
    t->bytes = mem_alloc(size + 1, 1, path, e);
    if (!t->bytes)
        return ERR_MEMORY;
    memcpy(t->bytes, text, size + 1);
    t->size = (uint32_t)size;
    to_bytes(t->bytes, &t->size);
    return 0;
}

static int token_id(const json_t *value, const char *path, const char *text, uint32_t *id, struct err *e)
{
    json_int_t x = json_is_integer(value) ? json_integer_value(value) : -1;
    if (x < 0 || x > ID_MAX)
        return err_set(e, ERR_INPUT, "%s: token '%s' has no id from 0 to %d", path, text, ID_MAX);
    *id = (uint32_t)x;
    return 0;
}

/* Makes v->tokens of {text: id, ...}, with room for n_added more. */
static int read_tokens(struct vocabulary *v, json_t *vocab, size_t n_added, const char *path, struct err *e)
{
    const char *text;
    json_t *value;
    uint32_t id = 0;
    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return err_set(e, ERR_INPUT, "%s: the vocabulary is not an object of tokens and ids", path);
    json_object_foreach(vocab, text, value)
    {
        if (token_id(value, path, text, &id, e))
            return e->code;
        if (id >= v->n_tokens)
            v->n_tokens = id + 1;
    }
    v->tokens = mem_alloc(v->n_tokens + n_added, sizeof *v->tokens, "vocabulary", e);
    if (!v->tokens)
        return e->code;
    json_object_foreach(vocab, text, value)
    {
        if (set_token(v, path, (uint32_t)json_integer_value(value), text, strlen(text), e))
            return e->code;
    }
    return 0;
}

static int known(json_t *vocab, const char *text, const char *path, size_t rank, uint32_t *id, struct err *e)
{
    const json_t *value = json_object_get(vocab, text);
    if (!value)
        return err_set(e, ERR_INPUT, "%s: merge %zu: '%s' is not in the vocabulary", path, rank, text);
    *id = (uint32_t)json_integer_value(value);
    return 0;
}

static int add_merge(struct vocabulary *v, json_t *vocab, const char *left, const char *right, const char *path,
                     struct err *e)
{
    struct bpe_merge *m = v->merges + v->n_merges;
    size_t n_left = strlen(left);
    char *joined = mem_alloc(n_left + strlen(right) + 1, 1, path, e);
    if (!joined)
        return ERR_MEMORY;
    strcpy(joined, left);
    strcpy(joined + n_left, right);
    int rc = known(vocab, left, path, v->n_merges, &m->left, e);
    if (!rc)
        rc = known(vocab, right, path, v->n_merges, &m->right, e);
    if (!rc)
        rc = known(vocab, joined, path, v->n_merges, &m->result, e);
    mem_free(joined);
    if (!rc)
        v->n_merges++;
    return rc;
}

/* Adds the merge of a line "a b". */
static int add_merge_line(struct vocabulary *v, json_t *vocab, char *line, const char *path, struct err *e)
{
    char *space = strchr(line, ' ');
    if (!space || space == line || !space[1] || strchr(space + 1, ' '))
        return err_set(e, ERR_INPUT, "%s: merge %zu: '%s' is not two tokens and one space", path, v->n_merges, line);
    *space = 0;
    return add_merge(v, vocab, line, space + 1, path, e);
}

/* Reads merges: ["a b", ...] or [["a", "b"], ...]. */
static int read_merges(struct vocabulary *v, json_t *vocab, const json_t *merges, const char *path, struct err *e)
{
    size_t i;
    json_t *merge;
    if (!json_is_array(merges))
        return err_set(e, ERR_INPUT, "%s: model.merges is not an array", path);
    v->merges = mem_alloc(json_array_size(merges), sizeof *v->merges, "merges", e);
    if (!v->merges)
        return e->code;
    json_array_foreach(merges, i, merge)
    {
        const char *left = json_string_value(json_array_get(merge, 0)),
                   *right = json_string_value(json_array_get(merge, 1));
        int rc;
        if (json_is_string(merge)) {
            char *line = mem_strdup(json_string_value(merge), path, e);
            rc = line ? add_merge_line(v, vocab, line, path, e) : ERR_MEMORY;
            mem_free(line);
        } else if (json_array_size(merge) == 2 && left && right) {
            rc = add_merge(v, vocab, left, right, path, e);
        } else {
            rc = err_set(e, ERR_INPUT, "%s: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", path, i);
        }
        if (rc)
            return rc;
    }
    return 0;
}

/* Finds each byte's token. unknown: the unknown token's text or NULL. */
static int read_alphabet(struct vocabulary *v, const json_t *vocab, const char *unknown, bool fuse, const char *path,
                         struct err *e)
{
    uint32_t missing = BPE_NO_TOKEN;
    if (unknown) {
        const json_t *id = json_object_get(vocab, unknown);
        if (!id)
            return err_set(e, ERR_INPUT, "%s: unk_token '%s' is not in the vocabulary", path, unknown);
        missing = (uint32_t)json_integer_value(id);
    }
    for (unsigned b = 0; b < 256; b++) {
        char text[3];
        character_text(byte_character(b), text);
        const json_t *id = json_object_get(vocab, text);
        v->byte_token[b] = id ? (uint32_t)json_integer_value(id) : missing;
        if (!id && unknown && fuse)
            return err_set(e, ERR_INPUT, "%s: fuse_unk, and byte 0x%02x has no token: not supported", path, b);
    }
    return 0;
}

static int add_token(struct vocabulary *v, const json_t *vocab, struct added_token a, bool special, const char *path,
                     struct err *e)
{
    /* This is the id that the tokenizers package gives, whatever the file says. */
    size_t n_vocab = json_object_size(vocab), id = n_vocab;
    const json_t *own = json_object_getn(vocab, a.text, a.size);
    for (size_t i = 0; i < v->n_added; i++)
        if (v->added[i].id >= id)
            id = v->added[i].id + 1;
    for (size_t i = 0; i < v->n_added; i++)
        if (v->added[i].size == a.size && memcmp(v->added[i].text, a.text, a.size) == 0)
            id = v->added[i].id;
    if (own)
        id = (size_t)json_integer_value(own);
    if (a.id == BPE_NO_TOKEN) {
        if (id > ID_MAX)
            return err_set(e, ERR_INPUT, "%s: no id is left for added token '%s'", path, a.text);
        a.id = (uint32_t)id;
    }
    if (id != a.id)
        return err_set(e, ERR_INPUT, "%s: added token '%s' has id %u, by its place it is %zu", path, a.text, a.id, id);
    for (size_t i = 0; i < v->n_added; i++)
        if ((a.rstrip && utf8_space_at(v->added[i].text, v->added[i].text + v->added[i].size)) ||
            (v->added[i].rstrip && utf8_space_at(a.text, a.text + a.size)))
            return err_set(e, ERR_INPUT,
                           "%s: added tokens '%s' and '%s': rstrip beside one that begins with white space"
                           " is not supported",
                           path, v->added[i].text, a.text);
    if (id >= v->n_tokens)
        v->n_tokens = id + 1;
    if (!v->tokens[id].bytes && set_token(v, path, a.id, a.text, a.size, e))
        return e->code;
    v->tokens[id].special |= special;
    struct added_token *copy = v->added + v->n_added;
    *copy = a;
    copy->text = mem_alloc(a.size + 1, 1, path, e);
    if (!copy->text)
        return ERR_MEMORY;
    memcpy(copy->text, a.text, a.size + 1);
    v->n_added++;
    return 0;
}

static int read_added(struct vocabulary *v, const json_t *vocab, const json_t *added, const char *path, struct err *e)
{
    size_t i;
    json_t *entry;
    v->added = mem_alloc(json_array_size(added) + 1, sizeof *v->added, "added tokens", e);
    if (!v->added)
        return e->code;
    json_array_foreach(added, i, entry)
    {
        json_t *content = json_object_get(entry, "content");
        if (!json_is_string(content))
            return err_set(e, ERR_INPUT, "%s: added token %zu has no content", path, i);
        struct added_token a = {.text = (char *)(uintptr_t)json_string_value(content), /* copied by add_token */
                                .size = json_string_length(content),
                                .id = BPE_NO_TOKEN,
                                .normalized = json_is_true(json_object_get(entry, "normalized")),
                                .lstrip = json_is_true(json_object_get(entry, "lstrip")),
                                .rstrip = json_is_true(json_object_get(entry, "rstrip"))};
        if (json_is_true(json_object_get(entry, "single_word")))
            return err_set(e, ERR_INPUT, "%s: added token '%s': single_word is not supported", path, a.text);
        if (a.size == 0)
            continue;
        const json_t *id = json_object_get(entry, "id"); /* null: the next one */
        if ((!json_is_null(id) && token_id(id, path, a.text, &a.id, e)) ||
            add_token(v, vocab, a, json_is_true(json_object_get(entry, "special")), path, e))
            return e->code;
    }
    return 0;
}

/* Refuses a component that is there and is not of that type ("type" absent passes for the model of old files). */
static int require_type(const json_t *component, const char *name, const char *type, const char *path, struct err *e)
{
    const json_t *own = json_object_get(component, "type");
    const char *text = json_string_value(own);
    if (text ? strcmp(text, type) == 0 : !own && json_is_object(json_object_get(component, "vocab")))
        return 0;
    return err_set(e, ERR_INPUT, "%s: %s is %s, only %s is supported", path, name, text ? text : "none of known type",
                   type);
}

static int check_model(const json_t *model, const char *path, struct err *e)
{
    static const char *const off[] = {"dropout", "byte_fallback", "ignore_merges", "continuing_subword_prefix",
                                      "end_of_word_suffix"};
    if (require_type(model, "model", "BPE", path, e))
        return e->code;
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        const json_t *x = json_object_get(model, off[i]);
        if (!x || json_is_null(x) || json_is_false(x) || (json_is_string(x) && json_string_length(x) == 0) ||
            (json_is_number(x) && !(json_number_value(x) > 0)))
            continue;
        return err_set(e, ERR_INPUT, "%s: model.%s is set, which is not supported", path, off[i]);
    }
    return 0;
}

static int read_tokenizer(struct vocabulary *v, const json_t *root, const json_t *added, const char *path,
                          struct err *e)
{
    const json_t *normalizer = json_object_get(root, "normalizer"), *model = json_object_get(root, "model");
    const json_t *pre = json_object_get(root, "pre_tokenizer"), *decoder = json_object_get(root, "decoder");
    const json_t *unknown = json_object_get(model, "unk_token");
    json_t *vocab = json_object_get(model, "vocab");
    if (normalizer && !json_is_null(normalizer)) {
        const char *type = json_string_value(json_object_get(normalizer, "type"));
        return err_set(e, ERR_INPUT, "%s: normalizer %s is not supported, only none is", path,
                       type ? type : "of no type");
    }
    if (check_model(model, path, e) || require_type(pre, "pre_tokenizer", "ByteLevel", path, e))
        return e->code;
    if (decoder && !json_is_null(decoder) && require_type(decoder, "decoder", "ByteLevel", path, e))
        return e->code;
    v->add_prefix_space = json_is_true(json_object_get(pre, "add_prefix_space"));
    v->use_regex = !json_is_false(json_object_get(pre, "use_regex"));
    if (read_tokens(v, vocab, json_array_size(added), path, e) ||
        read_merges(v, vocab, json_object_get(model, "merges"), path, e) ||
        read_alphabet(v, vocab, json_string_value(unknown), json_is_true(json_object_get(model, "fuse_unk")), path, e))
        return e->code;
    return read_added(v, vocab, added, path, e);
}

static json_t *load_json(const char *path, struct err *e)
{
    char *text;
    size_t size;
    if (file_read_text(path, FILE_MAX, &text, &size, e))
        return NULL;
    json_t *root;
    json_parse(text, size, 0, &root, path, e);
    mem_free(text);
    return root;
}

/* Reads merges.txt: a line "#version: ..." and then a merge a line. */
static int read_merge_lines(struct vocabulary *v, json_t *vocab, const char *path, struct err *e)
{
    char *text, *rest, *line;
    size_t size, n = 1;
    int rc = file_read_text(path, FILE_MAX, &text, &size, e);
    if (rc)
        return rc;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        n++;
    v->merges = mem_alloc(n, sizeof *v->merges, "merges", e);
    if (!v->merges)
        rc = e->code;
    for (rest = text; !rc && (line = strsep(&rest, "\n"));) {
        size_t length = strlen(line);
        if (length && line[length - 1] == '\r')
            line[--length] = 0;
        if (length && strncmp(line, "#version", 8) != 0)
            rc = add_merge_line(v, vocab, line, path, e);
    }
    mem_free(text);
    return rc;
}

static int load_gpt2(struct vocabulary *v, const char *folder, const char *vocab_file, const char *merges_file,
                     struct err *e)
{
    struct folder_tokens f = {0};
    json_t *vocab = load_json(vocab_file, e);
    if (!vocab)
        return e->code;
    int rc = folder_tokens_read(&f, folder, NULL, e);
    v->use_regex = true;
    v->add_prefix_space = f.add_prefix_space;
    if (!rc)
        rc = read_tokens(v, vocab, json_array_size(f.added), vocab_file, e);
    if (!rc)
        rc = read_merge_lines(v, vocab, merges_file, e);
    if (!rc)
        rc = read_alphabet(v, vocab, NULL, false, vocab_file, e);
    if (!rc)
        rc = read_added(v, vocab, f.added, folder, e);
    folder_tokens_free(&f);
    json_decref(vocab);
    return rc;
}

/* folder: where the file lies, if the files beside it count too; or NULL. */
static int load_tokenizer_json(struct vocabulary *v, const char *folder, const char *file, struct err *e)
{
    struct folder_tokens f = {0};
    json_t *root = load_json(file, e);
    if (!root)
        return e->code;
    int rc = folder ? folder_tokens_read(&f, folder, root, e) : 0;
    if (!rc)
        rc = read_tokenizer(v, root, folder ? f.added : json_object_get(root, "added_tokens"), file, e);
    folder_tokens_free(&f);
    json_decref(root);
    return rc;
}

/* Names what the folder has instead of a tokenizer that is read. */
static int no_tokenizer(const char *folder, struct err *e)
{
    static const char *const others[] = {"tokenizer.model", "spiece.model", "tekken.json", "vocab.txt", "vocab.json"};
    char path[4096];
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (file_join(path, sizeof path, folder, others[i], e) == 0 && access(path, F_OK) == 0)
            return err_set(e, ERR_INPUT, "%s: only %s there, which is not read without %s", folder, others[i],
                           strcmp(others[i], "vocab.json") == 0 ? "merges.txt" : "a tokenizer.json");
    return err_set(e, ERR_INPUT, "%s: no tokenizer.json there, nor vocab.json and merges.txt", folder);
}

int vocabulary_load(struct vocabulary *v, const char *path, struct err *e)
{
    char tokenizer[4096], vocab[4096], merges[4096];
    struct stat s;
    *v = (struct vocabulary){0};
    int rc;
    if (stat(path, &s) == 0 && !S_ISDIR(s.st_mode)) {
        rc = load_tokenizer_json(v, NULL, path, e);
    } else if (file_join(tokenizer, sizeof tokenizer, path, "tokenizer.json", e) ||
               file_join(vocab, sizeof vocab, path, "vocab.json", e) ||
               file_join(merges, sizeof merges, path, "merges.txt", e)) {
        return e->code;
    } else if (stat(tokenizer, &s) == 0) {
        rc = load_tokenizer_json(v, path, tokenizer, e);
    } else if (stat(vocab, &s) == 0 && stat(merges, &s) == 0) {
        rc = load_gpt2(v, path, vocab, merges, e);
    } else {
        return no_tokenizer(path, e);
    }
    if (rc)
        vocabulary_free(v);
    return rc;
}

void vocabulary_free(struct vocabulary *v)
{
    for (size_t i = 0; v->tokens && i < v->n_tokens; i++)
        mem_free(v->tokens[i].bytes);
    for (size_t i = 0; i < v->n_added; i++)
        mem_free(v->added[i].text);
    mem_free(v->tokens);
    mem_free(v->merges);
    mem_free(v->added);
    *v = (struct vocabulary){0};
}
