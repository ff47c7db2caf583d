/* status_json.c - see status_json.h. */
#include "status_json.h"

#include <math.h>
#include <time.h>
#include <unistd.h>

#include "json_file.h"
#include "ledger.h"
#include "text.h"
#include "version.h"

#define STATUS_TEXT_SIZE 1024

/* Returns the text, which may be a peer's, as it may be shown; null if there is none. */
static json_t *text_or_null(const char *text)
{
    char shown[STATUS_TEXT_SIZE];
    text_escape(shown, sizeof shown, text);
    return *text ? json_string(shown) : json_null();
}

/* Returns a count that is NaN if it is not known. */
static json_t *count_or_null(double x)
{
    return isnan(x) ? json_null() : json_integer((json_int_t)x);
}

static json_t *producer_to_json(const struct ingest_producer *p, const struct rate *rows_rate)
{
    char name[STATUS_TEXT_SIZE];
    text_escape(name, sizeof name, p->name);
    return json_pack("{s:I, s:o, s:o, s:o, s:f, s:I, s:o, s:I, s:I, s:I, s:o, s:o, s:o}", "number",
                     (json_int_t)p->number, "name", json_string(name), "address", text_or_null(p->address), "key",
                     text_or_null(p->key), "here_s", p->here_s, "rows", (json_int_t)p->rows, "rows_per_s",
                     json_real_or_null(rate_value(rows_rate)), "blocks_done", (json_int_t)p->blocks_done, "leases",
                     (json_int_t)p->leases, "errors", (json_int_t)p->errors, "computing",
                     json_real_or_null(status_share(p, STATUS_COMPUTING)), "sending",
                     json_real_or_null(status_share(p, STATUS_SENDING)), "waiting",
                     json_real_or_null(status_share(p, STATUS_WAITING)));
}

json_t *status_to_json(const struct status_snapshot *s)
{
    json_t *producers = json_array(), *ledger = ledger_to_json(&s->ingest.counters);
    for (size_t i = 0; i < s->ingest.n_producers; i++)
        json_array_append_new(producers, producer_to_json(&s->ingest.producers[i], &s->producer_rates[i]));
    json_object_set_new(ledger, "batches_skipped", json_integer((json_int_t)s->batches_skipped));
    json_object_set_new(ledger, "rows_masked", json_integer((json_int_t)s->ingest.rows_masked));
    const char *path = !s->has_step ? NULL : s->path == STEP_SPARSE ? "sparse" : "dense";
    json_t *status = json_pack(
        "{s:o, s:s, s:o, s:I, s:s, s:I, s:f, s:I, s:I, s:I, s:o, s:o, s:s?, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
        "s:{s:I, s:I}, s:{s:o, s:o, s:o}, s:o, s:o}",
        "run", text_or_null(s->run), "phase", status_phase_names[s->phase], "reason", text_or_null(s->reason),
        "written_unix", (json_int_t)time(NULL), "software", CROSSFEED_SOFTWARE, "pid", (json_int_t)getpid(), "up_s",
        s->up_s, "step", (json_int_t)s->step, "total_steps", (json_int_t)s->total_steps, "rows",
        (json_int_t)(s->step * s->batch_size), "rows_per_s", json_real_or_null(status_rows_per_s(s)), "eta_s",
        json_real_or_null(status_eta_s(s)), "path", path, "loss", json_real_or_null(s->loss), "l0",
        json_real_or_null(s->l0), "fvu", json_real_or_null(s->fvu), "fvu_typical", json_real_or_null(s->fvu_typical),
        "clipped", json_real_or_null(s->clipped), "dead", count_or_null(s->dead), "silent", count_or_null(s->silent),
        "collapse", text_or_null(s->collapse), "window", "rows", (json_int_t)s->ingest.window_rows, "slots",
        (json_int_t)s->ingest.window_slots, "waiting", "trainer", json_real_or_null(status_waiting(s)), "producers",
        json_real_or_null(status_mean_share(s, STATUS_WAITING)), "producers_sending",
        json_real_or_null(status_mean_share(s, STATUS_SENDING)), "ledger", ledger, "producers", producers);
    json_object_set_new(status, "checkpoints", checkpoint_tally_to_json(&s->checkpoints));
    return status;
}
