/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The problem PCR of arXiv 2510.03567 with half-spaces alone: the dual is the quadratic
 * program
 *
 *     max b . mu - mu^T H mu / 2,  mu >= 0,  H_ww' = 2 G_jj' <u_l, u_l'>.
 */
#include "pcr/halfspace/solve.h"

#include "linalg/products.h"
#include "pcr/common/problem.h"
#include "pcr/halfspace/set.h"

#include <math.h>
#include <string.h>

/* Least number of constraints that may join at once. */
#define BATCH 64

typedef struct solver {
    const civ_pcr_options *options;
    const civ_pcr_result *result;
    civ_pcr_info *info;
    civ_pcr_halfspace s;
} solver;

static bool
value(void *arg, const double *mu, double *value, double *gradient)
{
    civ_pcr_halfspace *s = arg;
    civ_pcr_quadratic_evaluate(&s->program, mu, value, gradient);
    return true;
}

static void
curvature(void *arg, const int64_t *free, int64_t n_free, const civ_mat *out)
{
    const civ_pcr_halfspace *s = arg;
    for (int64_t i = 0; i < n_free; i++) {
        const double *row = civ_at(&s->hessian, free[i], 0);
        for (int64_t k = 0; k <= i; k++) {
            *civ_at(out, i, k) = row[free[k]];
        }
    }
}

/* A_j = -sum of mu u over the constraints of j. */
static void
write_solution(const civ_pcr_halfspace *s, const civ_pcr_result *result)
{
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    for (int64_t w = 0; w < s->set.n; w++) {
        int64_t j = s->set.prompt[w], l = s->set.point[w];
        double mu = unit * s->set.mu[w];
        double *row = civ_at(&result->coefficients, j, 0);
        const double *u = civ_at(&space->points, l, 0);
        *civ_at(&result->multipliers, j, l) = mu / space->length[l];
        for (int64_t x = 0; x < space->d && mu > 0.0; x++) {
            row[x] -= mu * u[x];
        }
    }
}

/* Sweeps, and to finish Newton steps with one factor: enough for most programs. */
static civ_status
solve_quickly(const civ_pcr_options *options, double goal, bool finish,
              civ_pcr_halfspace *s)
{
    bool settled, solved = true;
    CIV_TRY(civ_pcr_quadratic_sweep(s->exec, options->max_iterations, &s->program,
                                    &settled));
    if (settled && finish) {
        CIV_TRY(civ_pcr_quadratic_finish(s->exec, goal, options->max_iterations,
                                         &s->program, &solved));
    }
    s->stiff = !settled || !solved;
    return CIV_OK;
}

/* Newton's method for all others. */
static civ_status
solve_slowly(const civ_pcr_options *options, double goal, civ_pcr_halfspace *s)
{
    civ_pcr_model model = {s, s->set.n, CIV_PCR_INFEASIBLE, value, curvature};
    civ_pcr_newton_info newton = {.steps = s->program.steps};
    CIV_TRY(civ_pcr_newton(s->exec, &model, s->set.mu, goal, options->max_iterations,
                           &s->newton, &newton));
    s->program.steps = newton.steps;
    s->program.value = newton.value;
    memcpy(s->program.slope, s->newton.gradient, (size_t)s->set.n * sizeof(double));
    return CIV_OK;
}

static void
record(solver *c, double largest)
{
    const civ_pcr_halfspace *s = &c->s;
    double unit = civ_pcr_cost_unit(&s->frame), bound = s->program.value;
    double cost = civ_dot(s->set.n, s->set.mu, s->set.bound) - bound;
    civ_pcr_record(c->result, c->info,
                   (double[]){largest * s->frame.space->unit, unit * cost, unit * bound,
                              NAN, NAN});
}

/* Whether the dual has gone where there is no solution, or steps ran out. */
static bool
ended(solver *c)
{
    if (c->s.program.value > CIV_PCR_INFEASIBLE) {
        c->info->outcome = CIV_INFEASIBLE;
    } else if (c->s.program.steps >= c->options->max_iterations) {
        c->info->outcome = CIV_ITERATION_LIMIT;
    } else {
        return false;
    }
    return true;
}

/* Most constraints to let join: many where many have turned out to matter. */
static int64_t
most_joining(const civ_pcr_halfspace *s)
{
    int64_t positive = 0;
    for (int64_t w = 0; w < s->set.n; w++) {
        positive += s->set.mu[w] > 0.0;
    }
    return civ_max(BATCH, s->stiff ? s->set.n : CIV_PCR_GROWTH * positive);
}

/*
 * Lets violated constraints join until there is none. Among many new ones, sweeps
 * settle which of them matter; the program is solved to the last digits when few come.
 * Ends early when it proves stiff, unless that is known.
 */
static civ_status
iterate(solver *c)
{
    civ_pcr_halfspace *s = &c->s;
    bool known = s->stiff;
    double goal = c->options->tolerance, effort = CIV_PCR_EFFORT * goal;
    int64_t count = civ_pcr_rank_candidates(&s->frame, goal, BATCH);
    bool finished = count == 0;
    c->info->outcome = CIV_CONVERGED;
    while (count > 0 || !finished) {
        CIV_TRY(civ_pcr_halfspace_admit(s, count));
        bool few = count <= CIV_PCR_BORDER || s->set.n == civ_pcr_halfspace_count(s);
        finished = known || few;
        CIV_TRY(known ? solve_slowly(c->options, effort, s)
                      : solve_quickly(c->options, effort, finished, s));
        double largest = civ_pcr_halfspace_scan(s);
        record(c, largest);
        c->info->iterations = s->program.steps;
        if (ended(c) || s->stiff != known) {
            return CIV_OK;
        }
        count = civ_pcr_rank_candidates(&s->frame, goal, most_joining(s));
    }
    return CIV_OK;
}

static void
carve(civ_arena *arena, void *arg)
{
    solver *c = arg;
    civ_pcr_halfspace_carve(arena, &c->s);
}

static civ_status
run(void *arg)
{
    solver *c = arg;
    civ_pcr_halfspace *s = &c->s;
    const civ_pcr_space *space = s->frame.space;
    CIV_TRY(civ_gram(s->exec, &space->points, &space->points, &s->pair));
    civ_pcr_halfspace_start(s, s->frame.per_prompt);
    CIV_TRY(iterate(c));
    if (s->stiff && c->info->outcome != CIV_ITERATION_LIMIT) {
        civ_pcr_halfspace_start(s, civ_pcr_share(space, CIV_PCR_STIFF_OFFERS));
        CIV_TRY(iterate(c));
    }
    write_solution(s, c->result);
    return CIV_OK;
}

civ_status
civ_pcr_halfspace_solve(const civ_exec *exec, const civ_pcr_space *space,
                        const civ_pcr_options *options, const civ_pcr_result *result,
                        civ_pcr_info *info)
{
    solver c = {options, result, info, {.exec = exec, .frame = {.space = space}}};
    civ_status status = civ_run_in_arena(carve, run, &c);
    civ_arena_close(&c.s.growing);
    return status;
}
