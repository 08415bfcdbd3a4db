/* SPDX-License-Identifier: Apache-2.0 */
#include "pcr/common/problem.h"
#include "pcr/common/space.h"
#include "pcr/dual/solve.h"
#include "pcr/farkas.h"
#include "pcr/finish.h"
#include "pcr/halfspace/solve.h"

typedef struct solve_job {
    const civ_exec *exec;
    const civ_pcr_problem *problem;
    const civ_pcr_options *options;
    const civ_pcr_result *result;
    civ_pcr_info *info;
    civ_pcr_space space;
} solve_job;

static void
carve(civ_arena *arena, void *arg)
{
    solve_job *job = arg;
    civ_pcr_space_carve(arena, job->problem, &job->space);
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

static civ_status
solve(const solve_job *job)
{
    const civ_pcr_space *space = &job->space;
    civ_set_zero(&job->result->coefficients);
    civ_set_zero(&job->result->multipliers);
    job->info->unit = space->unit;
    if (space->unit == 0.0) {
        return CIV_OK;
    }
    return has_balls(space) ? civ_pcr_dual_solve(job->exec, space, job->options,
                                                 job->result, job->info)
                            : civ_pcr_halfspace_solve(job->exec, space, job->options,
                                                      job->result, job->info);
}

static civ_status
finish(const solve_job *job)
{
    return civ_pcr_finish(job->exec, job->problem, job->options, job->result,
                          job->info);
}

/*
 * Where the dual seems to have no limit, or has come to rest without a solution: looks
 * for the proof that there is none.
 */
static civ_status
examine(const solve_job *job)
{
    const civ_pcr_space *space = &job->space;
    civ_pcr_info *info = job->info;
    bool proved = false, unbounded = info->outcome == CIV_INFEASIBLE;
    if (!unbounded) {
        CIV_TRY(finish(job));
    }
    if (unbounded || (info->outcome == CIV_STALLED && space->n < space->p)) {
        CIV_TRY(civ_pcr_farkas(job->exec, space, &job->result->multipliers, &proved));
    }
    if (!unbounded && !proved) {
        return CIV_OK;
    }
    civ_set_zero(&job->result->coefficients);
    info->outcome = proved ? CIV_INFEASIBLE : CIV_STALLED;
    return finish(job);
}

static civ_status
run(void *arg)
{
    solve_job *job = arg;
    CIV_TRY(civ_pcr_space_fill(job->exec, job->problem, &job->space));
    CIV_TRY(solve(job));
    return examine(job);
}

civ_status
civ_pcr_exact(const civ_exec *exec, const civ_pcr_problem *problem,
              const civ_pcr_options *options, const civ_pcr_result *result,
              civ_pcr_info *info)
{
    CIV_TRY(civ_pcr_check(problem, options, result));
    *info = (civ_pcr_info){.outcome = CIV_CONVERGED};
    solve_job job = {.exec = exec,
                     .problem = problem,
                     .options = options,
                     .result = result,
                     .info = info};
    return civ_run_in_arena(carve, run, &job);
}
