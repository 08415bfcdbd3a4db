/* SPDX-License-Identifier: Apache-2.0 */
#include "pcr/exact.h"

#include <string.h>

civ_pcr_options
civ_pcr_options_default(void)
{
    return (civ_pcr_options){.struct_size = sizeof(civ_pcr_options),
                             .tolerance = 1e-10,
                             .max_iterations = 100000};
}

static civ_status
check_matrix(const civ_mat *x, int64_t n_rows, int64_t n_cols)
{
    CIV_FAIL_IF(x->n_rows != n_rows || x->n_cols != n_cols, CIV_SHAPE);
    CIV_FAIL_IF(x->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(x->row_stride < n_cols, CIV_INVALID_ARGUMENT);
    return CIV_OK;
}

civ_status
civ_pcr_check(const civ_pcr_problem *problem, const civ_pcr_options *options,
              const civ_pcr_result *result)
{
    int64_t m = problem->outputs.n_rows, d = problem->outputs.n_cols;
    int64_t n = problem->concepts.n_rows, k = problem->directions.n_rows;
    CIV_FAIL_IF(options->struct_size != sizeof(civ_pcr_options), CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(!(options->tolerance > 0.0), CIV_INVALID_ARGUMENT);
    CIV_FAIL_IF(options->max_iterations < 0 || d < 1, CIV_INVALID_ARGUMENT);
    CIV_TRY(check_matrix(&problem->gram, m, m));
    CIV_TRY(check_matrix(&problem->outputs, m, d));
    CIV_TRY(check_matrix(&problem->concepts, n, d));
    CIV_TRY(check_matrix(&problem->radius, m, n));
    CIV_TRY(check_matrix(&problem->directions, k, d));
    CIV_TRY(check_matrix(&problem->offsets, m, k));
    CIV_TRY(check_matrix(&result->coefficients, m, d));
    CIV_TRY(check_matrix(&result->multipliers, m, n + k));
    CIV_TRY(check_matrix(&result->displacements, m, d));
    CIV_TRY(check_matrix(&result->margins, m, n + k));
    CIV_TRY(check_matrix(&result->history, result->history.n_rows, CIV_PCR_HISTORY));
    for (int64_t j = 0; j < m; j++) {
        CIV_FAIL_IF(!(*civ_at(&problem->gram, j, j) > 0.0), CIV_INVALID_ARGUMENT);
    }
    return CIV_OK;
}

void
civ_pcr_record(const civ_pcr_result *result, civ_pcr_info *info,
               const double row[CIV_PCR_HISTORY])
{
    if (info->history_rows < result->history.n_rows) {
        memcpy(civ_at(&result->history, info->history_rows, 0), row,
               CIV_PCR_HISTORY * sizeof(double));
        info->history_rows++;
    }
}

static bool
has_balls(const civ_pcr_space *space)
{
    for (int64_t c = 0; c < space->first[space->m]; c++) {
        if (civ_pcr_is_ball(space, space->list[c])) {
            return true;
        }
    }
    return false;
}

static void
set_zero(const civ_mat *x)
{
    for (int64_t i = 0; i < x->n_rows; i++) {
        memset(civ_at(x, i, 0), 0, (size_t)x->n_cols * sizeof(double));
    }
}

static civ_status
solve_in(const civ_exec *exec, const civ_pcr_space *space,
         const civ_pcr_options *options, const civ_pcr_result *result,
         civ_pcr_info *info)
{
    set_zero(&result->coefficients);
    set_zero(&result->multipliers);
    info->unit = space->unit;
    if (space->unit == 0.0) {
        return CIV_OK;
    }
    return has_balls(space)
               ? civ_pcr_dual_solve(exec, space, options, result, info)
               : civ_pcr_halfspace_solve(exec, space, options, result, info);
}

/*
 * Where the dual seems to have no limit, or has come to rest without a solution: looks
 * for the proof that there is none.
 */
static civ_status
examine(const civ_exec *exec, const civ_pcr_problem *problem,
        const civ_pcr_space *space, const civ_pcr_options *options,
        const civ_pcr_result *result, civ_pcr_info *info)
{
    bool proved = false, unbounded = info->outcome == CIV_INFEASIBLE;
    if (!unbounded) {
        CIV_TRY(civ_pcr_finish(exec, problem, options, result, info));
    }
    if (unbounded || (info->outcome == CIV_STALLED && space->n < space->p)) {
        CIV_TRY(civ_pcr_contradicts(exec, space, &result->multipliers, &proved));
    }
    if (!unbounded && !proved) {
        return CIV_OK;
    }
    set_zero(&result->coefficients);
    info->outcome = proved ? CIV_INFEASIBLE : CIV_STALLED;
    return civ_pcr_finish(exec, problem, options, result, info);
}

civ_status
civ_pcr_exact(const civ_exec *exec, const civ_pcr_problem *problem,
              const civ_pcr_options *options, const civ_pcr_result *result,
              civ_pcr_info *info)
{
    CIV_TRY(civ_pcr_check(problem, options, result));
    *info = (civ_pcr_info){.outcome = CIV_CONVERGED};
    civ_pcr_space space;
    civ_arena arena = {0};
    civ_pcr_space_carve(&arena, problem, &space);
    CIV_TRY(civ_arena_open(&arena));
    civ_pcr_space_carve(&arena, problem, &space);
    civ_status status = civ_pcr_space_fill(exec, problem, &space);
    if (status == CIV_OK) {
        status = solve_in(exec, &space, options, result, info);
    }
    if (status == CIV_OK) {
        status = examine(exec, problem, &space, options, result, info);
    }
    civ_arena_close(&arena);
    return status;
}
