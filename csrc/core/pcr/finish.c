/* SPDX-License-Identifier: Apache-2.0 */
/* From coefficients to what they do, with the vectors themselves. */
#include "pcr/finish.h"

#include "linalg/products.h"

#include <math.h>
#include <string.h>

/* Violation, in tolerances, from which on a solve has not converged: rounding is let
 * pass. */
#define BELIEVED 10.0

typedef struct finish {
    const civ_exec *exec;
    const civ_pcr_problem *problem;
    const civ_pcr_options *options;
    const civ_pcr_result *result;
    civ_pcr_info *info;
    int64_t n_used;  /* prompts with coefficients that are not zero: R */
    int64_t *used;   /* (m) */
    civ_mat weights; /* their columns of G (m, R) */
    civ_mat rows;    /* their coefficients (R, d) */
    civ_mat moved;   /* outputs and displacements (m, d) */
    double *length;  /* norms of the directions */
} finish;

static void
carve(civ_arena *arena, void *arg)
{
    finish *s = arg;
    int64_t m = s->problem->outputs.n_rows, d = s->problem->outputs.n_cols;
    s->used = civ_arena_take(arena, m, sizeof(int64_t));
    s->weights = civ_take_f64(arena, m, s->n_used);
    s->rows = civ_take_f64(arena, s->n_used, d);
    s->moved = civ_take_f64(arena, m, d);
    s->length = civ_arena_take(arena, s->problem->directions.n_rows, sizeof(double));
}

static void
gather(finish *s)
{
    const civ_mat *gram = &s->problem->gram, *coefficients = &s->result->coefficients;
    if (s->n_used == coefficients->n_rows) {
        s->weights = *gram;
        s->rows = *coefficients;
        return;
    }
    int64_t count = 0;
    for (int64_t j = 0; j < coefficients->n_rows; j++) {
        if (!civ_row_is_zero(coefficients, j)) {
            s->used[count++] = j;
        }
    }
    for (int64_t r = 0; r < s->n_used; r++) {
        memcpy(civ_at(&s->rows, r, 0), civ_at(coefficients, s->used[r], 0),
               (size_t)coefficients->n_cols * sizeof(double));
    }
    for (int64_t j = 0; j < coefficients->n_rows; j++) {
        for (int64_t r = 0; r < s->n_used; r++) {
            *civ_at(&s->weights, j, r) = *civ_at(gram, j, s->used[r]);
        }
    }
}

static void
add_outputs(finish *s)
{
    const civ_mat *outputs = &s->problem->outputs;
    const civ_mat *displacements = &s->result->displacements;
    for (int64_t j = 0; j < outputs->n_rows; j++) {
        const double *o = civ_at(outputs, j, 0);
        const double *moved = civ_at(displacements, j, 0);
        double *y = civ_at(&s->moved, j, 0);
        for (int64_t x = 0; x < outputs->n_cols; x++) {
            y[x] = o[x] + moved[x];
        }
    }
}

/* Largest violation, as a length. */
static double
worst_violation(const finish *s)
{
    const civ_pcr_problem *problem = s->problem;
    const civ_mat *margins = &s->result->margins;
    int64_t n = problem->concepts.n_rows, d = problem->outputs.n_cols;
    double worst = 0.0;
    for (int64_t l = n; l < margins->n_cols; l++) {
        const double *u = civ_at(&problem->directions, l - n, 0);
        s->length[l - n] = sqrt(civ_dot(d, u, u));
    }
    for (int64_t j = 0; j < margins->n_rows; j++) {
        for (int64_t l = 0; l < margins->n_cols; l++) {
            bool on = l >= n || *civ_at(&problem->radius, j, l) > 0.0;
            double violation = -*civ_at(margins, j, l);
            violation /= l < n ? 1.0 : s->length[l - n];
            if (on && !(violation <= worst)) {
                worst = violation;
            }
        }
    }
    return worst;
}

static civ_status
run(void *arg)
{
    finish *s = arg;
    civ_pcr_info *info = s->info;
    gather(s);
    CIV_TRY(civ_product_nn(s->exec, &s->weights, &s->rows, &s->result->displacements));
    add_outputs(s);
    CIV_TRY(civ_pcr_margins(s->exec, s->problem, &s->moved, &s->result->margins));
    info->violation = worst_violation(s);
    double believed = BELIEVED * s->options->tolerance * info->unit;
    if (info->outcome == CIV_CONVERGED && !(info->violation <= believed) &&
        info->unit > 0.0) {
        info->outcome = CIV_STALLED;
    }
    return CIV_OK;
}

civ_status
civ_pcr_finish(const civ_exec *exec, const civ_pcr_problem *problem,
               const civ_pcr_options *options, const civ_pcr_result *result,
               civ_pcr_info *info)
{
    finish s = {.exec = exec,
                .problem = problem,
                .options = options,
                .result = result,
                .info = info};
    for (int64_t j = 0; j < result->coefficients.n_rows; j++) {
        s.n_used += !civ_row_is_zero(&result->coefficients, j);
    }
    return civ_run_in_arena(carve, run, &s);
}
