/* SPDX-License-Identifier: Apache-2.0 */
#include "pcr/common/problem.h"
#include "pcr/common/space.h"
#include "pcr/dual/solve.h"
#include "pcr/farkas.h"
#include "pcr/finish.h"
#include "pcr/halfspace/solve.h"

#include <string.h>

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

static civ_status
solve_in(const civ_exec *exec, const civ_pcr_space *space,
         const civ_pcr_options *options, const civ_pcr_result *result,
         civ_pcr_info *info)
{
    civ_set_zero(&result->coefficients);
    civ_set_zero(&result->multipliers);
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
    civ_set_zero(&result->coefficients);
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
