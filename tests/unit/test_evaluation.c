/* test_evaluation.c - metrics over several pieces against the plain formulas in double; FVU's corners. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "backend_problem.h"
#include "evaluation.h"
#include "mem.h"
#include "rng.h"

enum { SITES = 2, DIM = 5, INPUTS = SITES * DIM, LATENTS = 23, ROWS = 31 };

static struct err e;
static struct crosscoder c;
static float x[ROWS * INPUTS];

static int open_all(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1, RNG_TEST, 2);
    if (crosscoder_init(&c, SITES, DIM, LATENTS, false, &e))
        return -1;
    draw_weights(&c, 0.5, 4);
    for (size_t j = 0; j < LATENTS; j++)
        c.b_enc[j] = (float)(0.3 * rng_normal(&r));
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        x[i] = (float)(rng_normal(&r) + (double)(i % INPUTS)); /* a mean far from 0 */
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    crosscoder_release(&c);
    return 0;
}

struct plain {
    double l2, l1, l0, fvu[SITES + 1], token[SITES + 1], typical[SITES + 1]; /* index SITES: total */
    size_t silent;
};

static bool is_typical(const struct normalisation *by, size_t b)
{
    for (size_t s = 0; by && s < SITES; s++) {
        double squares = 0;
        for (size_t i = s * DIM; i < (s + 1) * DIM; i++)
            squares += pow((double)x[b * INPUTS + i] + (by->centred ? (double)by->mean[i] : 0), 2);
        if (by->median_norm[s] > 0 && sqrt(squares) >= 3 * (double)by->median_norm[s])
            return false;
    }
    return true;
}

static struct plain plain_metrics(const struct normalisation *by)
{
    struct plain p = {.silent = LATENTS};
    double mean[INPUTS] = {0}, r2[SITES + 1] = {0}, d2[SITES + 1] = {0}, typical_mean[INPUTS] = {0}, n_typical = 0,
           typical_r2[SITES + 1] = {0}, typical_d2[SITES + 1] = {0};
    bool fired[LATENTS] = {false};
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        mean[i % INPUTS] += (double)x[i] / ROWS;
    for (size_t b = 0; b < ROWS; b++)
        n_typical += is_typical(by, b);
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        typical_mean[i % INPUTS] += is_typical(by, i / INPUTS) ? (double)x[i] / n_typical : 0;
    for (size_t b = 0; b < ROWS; b++) {
        double out[INPUTS], row_r2[SITES + 1] = {0}, row_d2[SITES + 1] = {0}, row_t2[SITES + 1] = {0};
        for (size_t i = 0; i < INPUTS; i++)
            out[i] = (double)c.b_dec[i];
        for (size_t j = 0; j < LATENTS; j++) {
            double f = (double)c.b_enc[j], norm[SITES] = {0};
            for (size_t i = 0; i < INPUTS; i++)
                f += (double)c.w_enc[j * INPUTS + i] * (double)x[b * INPUTS + i];
            f = f > 0 ? f : 0;
            for (size_t i = 0; i < INPUTS; i++) {
                out[i] += f * (double)c.w_dec[j * INPUTS + i];
                norm[i / DIM] += pow((double)c.w_dec[j * INPUTS + i], 2);
            }
            p.l1 += f * (sqrt(norm[0]) + sqrt(norm[1])) / ROWS;
            p.l0 += (f > 0) / (double)ROWS;
            p.silent -= f > 0 && !fired[j];
            fired[j] |= f > 0;
        }
        for (size_t i = 0; i < INPUTS; i++) {
            double r = pow(out[i] - (double)x[b * INPUTS + i], 2), d = pow((double)x[b * INPUTS + i] - mean[i], 2);
            row_r2[i / DIM] += r, row_r2[SITES] += r;
            row_d2[i / DIM] += d, row_d2[SITES] += d;
            d = pow((double)x[b * INPUTS + i] - typical_mean[i], 2);
            row_t2[i / DIM] += d, row_t2[SITES] += d;
            p.l2 += r / ROWS;
        }
        for (size_t s = 0; s <= SITES; s++) {
            r2[s] += row_r2[s], d2[s] += row_d2[s];
            p.token[s] += row_r2[s] / row_t2[s] / ROWS;
            typical_r2[s] += is_typical(by, b) ? row_r2[s] : 0;
            typical_d2[s] += is_typical(by, b) ? row_t2[s] : 0;
        }
    }
    for (size_t s = 0; s <= SITES; s++) {
        p.fvu[s] = r2[s] / d2[s];
        p.typical[s] = typical_r2[s] / typical_d2[s];
    }
    return p;
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-5 * fabs(want)))
        fail_msg("%.9g, should be %.9g", got, want);
}

/* What needs typical rows is NaN where it is not known which they are. */
static void known(double got, double want, const struct normalisation *by)
{
    if (by)
        near(got, want);
    else
        assert_true(isnan(got));
}

/* Pieces of any length, in a workspace for 7 rows; twice, as in a run. */
static void pieces(const struct normalisation *by)
{
    struct evaluation v;
    struct evaluation_report r;
    struct plain want = plain_metrics(by);
    const struct backend_setup setup = relu_setup(SITES, DIM, LATENTS, 7, STEP_AUTO, false);
    const double weight[TERMS_MAX] = {1, 0.25};
    struct backend *b = open_cpu(&setup);
    put_params(b, c.params);
    assert_int_equal(evaluation_init(&v, b, &e), 0);
    evaluation_measure(&v, by, x, 20);
    evaluation_measure(&v, by, x + 20 * INPUTS, ROWS - 20);
    for (int i = 0; i < 2; i++) {
        evaluation_begin(&v);
        assert_int_equal(evaluation_add(&v, by, x, 5, &e), 0);
        assert_int_equal(evaluation_add(&v, by, x + 5 * INPUTS, ROWS - 5, &e), 0);
        assert_int_equal(evaluation_finish(&v, weight, &r, &e), 0);
        assert_int_equal(r.rows, ROWS);
        near(r.term[0], want.l2);
        near(r.term[1], want.l1);
        near(r.l0, want.l0);
        assert_int_equal(r.silent, want.silent);
        near(r.loss, want.l2 + 0.25 * want.l1);
        near(r.fvu.fvu, want.fvu[SITES]);
        near(r.fvu.fvu_token, want.token[SITES]);
        known(r.fvu.fvu_typical, want.typical[SITES], by);
        for (size_t s = 0; s < SITES; s++) {
            near(r.fvu.fvu_site[s], want.fvu[s]);
            near(r.fvu.fvu_token_site[s], want.token[s]);
            known(r.fvu.fvu_typical_site[s], want.typical[s], by);
        }
    }
    evaluation_begin(&v);
    assert_int_equal(evaluation_add(&v, by, x, 5, &e), 0);
    assert_int_equal(evaluation_finish(&v, weight, &r, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "31"));
    evaluation_release(&v);
    backend_cpu.close(b);
}

static void test_pieces(void **state)
{
    (void)state;
    c.b_enc[4] = c.b_enc[9] = -1000; /* silent ones */
    pieces(NULL);
}

/* Two rows are longer at one site than the others, and count neither in fvu_typical nor in the mean of fvu_token. A median of 0 bounds
 * nothing. Norms are those of rows that are not centred. */
static void test_typical(void **state)
{
    (void)state;
    static float mean[INPUTS], saved[ROWS * INPUTS];
    struct normalisation by = {.has_median_norm = true, .median_norm = {5, 0}, .mean = mean};
    memcpy(saved, x, sizeof x);
    for (size_t i = 0; i < DIM; i++)
        x[3 * INPUTS + i] = 60, x[19 * INPUTS + i] = -40;
    pieces(&by);
    for (size_t i = 0; i < INPUTS; i++)
        mean[i] = (float)i - 30;
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        x[i] -= mean[i % INPUTS];
    by.centred = true;
    pieces(&by);
    memcpy(x, saved, sizeof x);
    by.centred = false;
    by.median_norm[1] = 8;
    pieces(&by);
}

/* Residual equal to the deviation gives 1; none gives 0; a row at the mean counts in fvu and not in fvu_token; nothing is NaN, also where no
 * row is typical. */
static void test_fvu_corners(void **state)
{
    (void)state;
    struct fvu_sums s;
    struct fvu_means m;
    struct fvu fvu;
    const float rows[] = {-1, 3, 0, 3, 1, 6}; /* of 2 sites: means 0 and 4 */
    const double residual2[] = {1, 0, 6, 0, 1, 3};
    assert_int_equal(fvu_means_init(&m, 2, 1, 3, &e), 0);
    fvu_begin(&s, 2);
    fvu_finish(&s, &fvu);
    assert_true(isnan(fvu.fvu) && isnan(fvu.fvu_token) && isnan(fvu.fvu_site[1]) && isnan(fvu.fvu_typical));
    fvu_means_add(&m, NULL, rows, 3);
    fvu_add(&s, &m, NULL, rows, residual2, 3);
    fvu_finish(&s, &fvu);
    near(fvu.fvu_site[0], 8.0 / 2);
    near(fvu.fvu_token_site[0], 1);
    near(fvu.fvu_site[1], 3.0 / 6);
    near(fvu.fvu_token_site[1], (3.0 / 4) / 3);
    near(fvu.fvu, 11.0 / 8);
    near(fvu.fvu_token, (1.0 / 2 + 6.0 / 1 + 4.0 / 5) / 3);
    assert_true(isnan(fvu.fvu_typical) && isnan(fvu.fvu_typical_site[0]));

    const struct normalisation by = {.has_median_norm = true, .median_norm = {1, 0.5f}};
    fvu_means_clear(&m);
    fvu_means_add(&m, &by, rows, 3);
    fvu_begin(&s, 2);
    fvu_add(&s, &m, &by, rows, residual2, 3);
    fvu_finish(&s, &fvu);
    near(fvu.fvu, 11.0 / 8);
    assert_true(isnan(fvu.fvu_typical) && isnan(fvu.fvu_token) && isnan(fvu.fvu_token_site[0]));
    fvu_means_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces), cmocka_unit_test(test_typical),
                                       cmocka_unit_test(test_fvu_corners)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
