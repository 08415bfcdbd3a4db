/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments, curvature and records of civ_tsr and civ_arr. */
#include "lm_head/head_bounds.h"

#include "first_order/losses.h"

#include <math.h>

/* Largest eigenvalue of diag(p) - p p^T over all probability vectors p. */
#define SOFTMAX_CURVATURE 0.5

civ_head_options
civ_head_options_default(void)
{
    return (civ_head_options){.struct_size = sizeof(civ_head_options),
                              .tolerance = 1e-6,
                              .max_iterations = 1000};
}

static civ_status
check_matrix(const civ_mat *x, int64_t m, int64_t vocab, civ_dtype dtype)
{
    CIV_FAIL_IF(x->n_rows != m || x->n_cols != vocab, CIV_SHAPE);
    return x->dtype == dtype ? CIV_OK : CIV_DTYPE;
}

civ_status
civ_head_check(const civ_head_problem *problem, const civ_head_options *options,
               const civ_head_result *result)
{
    int64_t m = problem->logits.n_rows, vocab = problem->logits.n_cols;
    civ_dtype lanes = civ_dtype_compute(problem->logits.dtype);
    CIV_FAIL_IF(options->struct_size != sizeof *options, CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(!(options->radius >= 0.0 && options->radius <= 0x1p1000),
                CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(!(options->tolerance >= 0.0), CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(options->max_iterations < 0, CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(m == 0 || vocab == 0, CIV_SHAPE);
    CIV_TRY(check_matrix(&problem->gram, m, m, CIV_F64));
    CIV_TRY(check_matrix(&result->coefficients, m, vocab, lanes));
    CIV_TRY(check_matrix(&result->displacements, m, vocab, lanes));
    CIV_FAIL_IF(result->history.n_rows > 0 &&
                    result->history.n_cols != CIV_HEAD_HISTORY,
                CIV_SHAPE);
    return civ_check_sets(&problem->sets, m, vocab);
}

/* Whether the set loss of row j has a Hessian that may be negative. */
static bool
is_convex(const civ_token_sets *sets, int64_t j)
{
    int64_t set = sets->n_sets == 1 ? 0 : j;
    return sets->offsets[set + 1] - sets->offsets[set] == 1;
}

double
civ_head_curvature(const civ_head *self, const double *weights, bool below)
{
    const civ_token_sets *sets = &self->problem->sets;
    double largest = 0.0;
    for (int64_t i = 0; i < self->m; i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < self->m; j++) {
            double weight = weights == NULL ? 1.0 : weights[j];
            bool counts = !below || (!is_convex(sets, i) && !is_convex(sets, j));
            sum += counts ? weight * fabs(*civ_at(&self->problem->gram, i, j)) : 0.0;
        }
        largest = fmax(largest, sum);
    }
    return SOFTMAX_CURVATURE * largest;
}

double
civ_head_reach(double radius, double curvature, double slope, double along,
               double square)
{
    double turned = slope - 2.0 * curvature * along + curvature * curvature * square;
    return 0.5 * curvature * (radius * radius + square) - along +
           radius * sqrt(fmax(turned, 0.0));
}

void
civ_head_record(const civ_head_result *result, civ_head_info *info, double step)
{
    if (info->history_rows < result->history.n_rows) {
        double *row = civ_at(&result->history, info->history_rows++, 0);
        row[CIV_HEAD_LOSS] = info->loss;
        row[CIV_HEAD_STATIONARITY] = info->stationarity;
        row[CIV_HEAD_BOUND] = info->bound;
        row[CIV_HEAD_STEP] = step;
    }
}
