/* report.c - the last table and summary.json; see report.h. */
#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include <jansson.h>

#include "file.h"
#include "json_file.h"
#include "ledger.h"
#include "mem.h"

static void print_recovered(const struct recovery_result *r)
{
    static const char *const kinds[RECOVERY_KINDS] = {"shared", "local", "exclusive"};
    printf("planted latents recovered (cosine above %.1f over the stacked vector): %.1f %%, mean max cosine %.3f",
           RECOVERY_THRESHOLD, 100 * r->fraction, r->mean_max_cosine);
    for (int i = 0; i < RECOVERY_KINDS; i++)
        printf("%s %zu of %zu %s", i ? "," : ";", r->recovered[i], r->n[i], kinds[i]);
    printf("\nof %zu live latents %zu match no planted one; several match the same planted one for %zu of these",
           r->live, r->spurious, r->duplicates);
    if (r->active > 0)
        printf("; planted L0 %.1f", r->active);
    printf("\n");
    if (r->two_models)
        printf(
            "exclusive to one model: %zu live latents are called so, %zu rightly; %zu of %zu planted ones were found\n",
            r->called, r->called_rightly, r->found_exclusive, r->exclusive);
}

/* Returns n / of, or null where there is nothing to divide by. */
static json_t *ratio(size_t n, size_t of)
{
    return of ? json_real((double)n / (double)of) : json_null();
}

static json_t *recovery_to_json(const struct recovery_result *r)
{
    json_t *j = json_pack("{s:I, s:I, s:I, s:f}", "live", (json_int_t)r->live, "spurious", (json_int_t)r->spurious,
                          "duplicates", (json_int_t)r->duplicates, "mean_max_cosine", r->mean_max_cosine);
    if (r->active > 0)
        json_object_set_new(j, "planted_l0", json_real(r->active));
    if (r->two_models)
        json_object_set_new(j, "exclusive",
                            json_pack("{s:I, s:I, s:I, s:I, s:o, s:o}", "called", (json_int_t)r->called,
                                      "called_rightly", (json_int_t)r->called_rightly, "planted",
                                      (json_int_t)r->exclusive, "found", (json_int_t)r->found_exclusive, "precision",
                                      ratio(r->called_rightly, r->called), "recall",
                                      ratio(r->found_exclusive, r->exclusive)));
    return j;
}

/* Prints which latents do nothing, as far as that is known. */
static void print_latents(const struct report *r)
{
    printf("\n%zu latents: ", r->d_sae);
    if (r->evaluation)
        printf("%zu silent on the held-out rows; ", r->evaluation->silent);
    if (r->step->dead_measurable)
        printf("%zu dead\n", r->step->dead);
    else
        printf("dead ones not measurable before %" PRIu64 " rows (--dead-rows)\n", r->dead_rows);
}

static void print_fvu(const char *of, double fvu, double typical, double token)
{
    printf("%-40s %10.4f %11.4f %10.4f\n", of, fvu, typical, token);
}

/* Prints what single rows will have of topk and batchtopk: the threshold is for them. */
static void print_threshold(const struct report *r)
{
    const struct evaluation_report *v = r->evaluation;
    if (v && v->has_threshold)
        printf("by threshold: L0 %.1f   fvu %.4f   fvu_typical %.4f   fvu_token %.4f\n", v->threshold_l0,
               v->threshold_fvu.fvu, v->threshold_fvu.fvu_typical, v->threshold_fvu.fvu_token);
    else if (r->has_k)
        printf("by threshold: not known, since the run ended before --threshold-start or has no held-out rows\n");
}

/* Returns how often the run went over its rows. */
static double epochs(const struct report *r)
{
    return (double)r->rows_expected / (double)r->epoch_rows;
}

static void print_table(const struct report *r, size_t peak)
{
    const struct fvu *fvu = r->evaluation ? &r->evaluation->fvu : &r->step->fvu;
    printf("\n%-40s %10s %11s %10s\n", r->evaluation ? "site (held-out rows)" : "site (last batch)", "fvu",
           "fvu_typical", "fvu_token");
    for (uint32_t i = 0; i < r->stream->n_sites; i++)
        print_fvu(r->stream->sites[i], fvu->fvu_site[i], fvu->fvu_typical_site[i], fvu->fvu_token_site[i]);
    print_fvu("all", fvu->fvu, fvu->fvu_typical, fvu->fvu_token);
    printf("\nL0 %.1f   loss %.4g", r->evaluation ? r->evaluation->l0 : r->step->l0,
           r->evaluation ? r->evaluation->loss : r->step->loss);
    if (r->rows_trained)
        printf("   %.0f rows/s   waiting for activations %.1f %%", r->rows_per_s, 100 * r->waiting_share);
    if (!isnan(r->clipped))
        printf("   gradient clipped in %.1f %% of the steps", 100 * r->clipped);
    print_latents(r);
    if (*r->collapse)
        printf("collapsed: %s\n", r->collapse);
    print_threshold(r);
    printf("peak memory %.1f MB, budget %.1f MB\n", (double)peak / 1e6, (double)r->budget_bytes / 1e6);
    if (r->recovered)
        print_recovered(r->recovered);
    printf("ledger: %" PRIu64 " rows expected, %" PRIu64 " trained (%s%.3f epochs of %" PRIu64 "), %" PRIu64
           " of them in this session; %" PRIu64 " rows received, %" PRIu64 " masked, %" PRIu64
           " duplicates dropped, %" PRIu64 " of %" PRIu64 " blocks leased again, %" PRIu64
           " leased twice as they were late, %" PRIu64 " bad chunks; %" PRIu64 " producers joined, %" PRIu64
           " lost, %" PRIu64 " rejected\n",
           r->rows_expected, r->rows_resumed + r->rows_trained, r->epoch_estimated ? "about " : "", epochs(r),
           r->epoch_rows, r->rows_trained, r->ingest.rows_received, r->rows_masked, r->ingest.duplicates_dropped,
           r->ingest.blocks_leased_again, r->ingest.blocks_leased, r->ingest.blocks_duplicated, r->ingest.bad_chunks,
           r->ingest.producers_seen, r->ingest.producers_lost, r->ingest.rejected);
    if (r->batches_skipped)
        printf("%" PRIu64 " of %" PRIu64 " batches passed over, as loss or gradient norm was not finite\n",
               r->batches_skipped, r->steps);
    if (r->ingest.audits)
        printf("audit: %" PRIu64 " blocks computed twice, %" PRIu64 " of them not the same to the bit\n",
               r->ingest.audits, r->ingest.audits_different);
    if (r->checkpoints->damaged)
        printf("resumed from step %" PRIu64 ": %" PRIu64 " newer checkpoints were damaged, the newest is now %s\n",
               r->checkpoints->resumed_from, r->checkpoints->damaged, r->checkpoints->set_aside);
    if (r->checkpoints->failed)
        printf("%" PRIu64 " saves failed and were tried again\n", r->checkpoints->failed);
    printf("wrote %s/crosscoder.safetensors, cfg.json, metrics.jsonl, summary.json, checkpoints/\n", r->out);
    fflush(stdout);
}

int report_is_written(const char *out, bool recovered, bool *written, struct err *e)
{
    char path[4096];
    json_t *summary = NULL;
    if (file_join(path, sizeof path, out, "summary.json", e))
        return e->code;
    *written = access(path, F_OK) == 0;
    if (!*written || !recovered)
        return 0;
    if (json_read_object(path, &summary, e))
        return e->code;
    *written = json_object_get(summary, "recovered") != NULL;
    json_decref(summary);
    return 0;
}

int report_write(const struct report *r, struct err *e)
{
    size_t peak = mem_peak_rss();
    const struct fvu *fvu = r->evaluation ? &r->evaluation->fvu : &r->step->fvu;
    char path[4096];
    json_t *ledger = ledger_to_json(&r->ingest);
    json_object_set_new(ledger, "rows_masked", json_integer((json_int_t)r->rows_masked));
    json_object_set_new(ledger, "batches_skipped", json_integer((json_int_t)r->batches_skipped));
    json_object_set_new(ledger, "rows_expected", json_integer((json_int_t)r->rows_expected));
    json_object_set_new(ledger, "rows_trained", json_integer((json_int_t)(r->rows_resumed + r->rows_trained)));
    json_object_set_new(ledger, "rows_this_session", json_integer((json_int_t)r->rows_trained));
    json_object_set_new(ledger, "epoch_rows", json_integer((json_int_t)r->epoch_rows));
    json_object_set_new(ledger, "epochs", json_real(epochs(r)));
    json_t *summary = json_pack(
        "{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:o}", "steps",
        (json_int_t)r->steps, "loss", json_real_or_null(r->evaluation ? r->evaluation->loss : r->step->loss), "l0",
        json_real_or_null(r->evaluation ? r->evaluation->l0 : r->step->l0), "fvu", json_real_or_null(fvu->fvu),
        "fvu_typical", json_real_or_null(fvu->fvu_typical), "fvu_token", json_real_or_null(fvu->fvu_token), "dead",
        r->step->dead_measurable ? json_integer((json_int_t)r->step->dead) : json_null(), "dead_rows",
        (json_int_t)r->dead_rows, "silent",
        r->evaluation ? json_integer((json_int_t)r->evaluation->silent) : json_null(), "clipped",
        json_real_or_null(r->clipped), "collapse", *r->collapse ? json_string(r->collapse) : json_null(), "rows_per_s",
        json_real_or_null(r->rows_per_s), "waiting", json_real_or_null(r->waiting_share), "peak_rss", (json_int_t)peak,
        "budget", (json_int_t)r->budget_bytes, "ledger", ledger);
    json_object_set_new(summary, "checkpoints", checkpoint_tally_to_json(r->checkpoints));
    if (*r->init_fingerprint)
        json_object_set_new(summary, "init_fingerprint", json_string(r->init_fingerprint));
    if (r->evaluation && r->evaluation->has_threshold) {
        json_object_set_new(summary, "threshold_l0", json_real_or_null(r->evaluation->threshold_l0));
        json_object_set_new(summary, "threshold_fvu", json_real_or_null(r->evaluation->threshold_fvu.fvu));
    }
    if (r->recovered) {
        json_object_set_new(summary, "recovered", json_real(r->recovered->fraction));
        json_object_set_new(summary, "recovery", recovery_to_json(r->recovered));
    }
    int rc = file_join(path, sizeof path, r->out, "summary.json", e);
    if (rc == 0)
        rc = json_write(path, summary, e);
    json_decref(summary);
    if (rc == 0)
        print_table(r, peak);
    if (rc == 0 && r->rows_resumed + r->rows_trained != r->rows_expected)
        rc = err_set(e, ERR_INPUT, "ledger: %" PRIu64 " rows expected, %" PRIu64 " trained", r->rows_expected,
                     r->rows_resumed + r->rows_trained);
    return rc;
}
