/* settings.c - see settings.h. */
#include "settings.h"

#include <assert.h>
#include <stdint.h>

json_t *settings_to_json(const struct setting *rows, size_t n, const void *fields)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < n; i++)
        if (json_object_set_new(object, rows[i].flag.name, flag_to_json(&rows[i].flag, fields))) {
            json_decref(object);
            object = NULL;
        }
    return object;
}

/* A value outside the run's own fields, for comparing. */
union value {
    uint64_t count;
    double number;
    unsigned choice;
    bool on;
    char text[SETTING_TEXT_SIZE];
};

/* Refuses a resumed run whose flag says otherwise than the run did; words and texts are named in quotes. */
static int refuse_other(const struct setting *s, const void *fields, const struct flag *alone, const union value *saved,
                        const char *path, struct err *e)
{
    char now[SETTING_TEXT_SIZE], before[SETTING_TEXT_SIZE];
    const char *quote = s->flag.kind == FLAG_TEXT || s->flag.kind == FLAG_CHOICE ? "\"" : "";
    flag_text(&s->flag, fields, now, sizeof now);
    flag_text(alone, saved, before, sizeof before);
    return err_set(e, ERR_MISMATCH, "cannot resume: %s is %s%s%s, the run in %s has %s%s%s", s->flag.name, quote, now,
                   quote, path, quote, before, quote);
}

int settings_resume(const struct setting *rows, size_t n, void *fields, const bool *given, const json_t *saved,
                    const char *path, struct err *e)
{
    union value value = {0};
    char read[SETTING_TEXT_SIZE];
    for (size_t i = 0; i < n; i++) {
        const struct setting *s = &rows[i];
        const json_t *member = json_object_get(saved, s->flag.name);
        struct flag alone = s->flag; /* the same row for `value` */
        alone.offset = 0;
        assert(alone.size <= sizeof value);
        const char *text = member ? read : s->absent;
        if (!text && !s->fixed)
            continue;
        if (!text || (member && !flag_text_of_json(member, read, sizeof read)) || flag_set(&alone, &value, text, e))
            return err_set(e, ERR_INPUT, "%s: key %s is missing or wrong", path, s->flag.name);
        if (!given[i])
            flag_set(&s->flag, fields, text, e);
        else if (s->fixed && !flag_equal(&alone, (const unsigned char *)fields + s->flag.offset, &value))
            return refuse_other(s, fields, &alone, &value, path, e);
    }
    return 0;
}
