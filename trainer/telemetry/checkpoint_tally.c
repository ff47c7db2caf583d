/* checkpoint_tally.c - see checkpoint_tally.h. */
#include "checkpoint_tally.h"

static json_t *text_or_null(const char *text)
{
    return *text ? json_string(text) : json_null();
}

json_t *checkpoint_tally_to_json(const struct checkpoint_tally *t)
{
    return json_pack("{s:o, s:o, s:I, s:o, s:I, s:I, s:o}", "resumed_from",
                     t->resumed ? json_integer((json_int_t)t->resumed_from) : json_null(), "verified",
                     t->resumed ? json_boolean(t->verified) : json_null(), "damaged", (json_int_t)t->damaged,
                     "set_aside", text_or_null(t->set_aside), "saved", (json_int_t)t->saved, "failed_saves",
                     (json_int_t)t->failed, "failure", text_or_null(t->failure));
}
