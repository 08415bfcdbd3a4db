/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The course of the dual solver. Mostly the dual has its maximum well inside its domain
 * and Newton's method goes there directly. Where it lies at the boundary: barrier,
 * free directions, proximal steps.
 */
#include "pcr/dual/solve.h"

#include "linalg/products.h"
#include "pcr/common/problem.h"
#include "pcr/dual/free_directions.h"
#include "pcr/dual/objective.h"
#include "pcr/dual/recover.h"
#include "pcr/dual/scan.h"
#include "pcr/dual/set.h"

#include <math.h>

/* Least number of constraints that may join at once. */
#define BATCH 8
/* The same where every check of all constraints is a pass over the points. */
#define LEAN_BATCH 48
/* Part of the last violation to which the dual is solved next on the direct way. */
#define DIRECT_EFFORT 0.1
/* Steps for one working set after which the direct way is given up. */
#define DIRECT_STEPS 20
/* Pivot of I - N^1/2 G N^1/2 below which the boundary is near. */
#define DIRECT_DEPTH 1e-2
/* Steps for one working set after which the way behind the direct one is given up: a
 * maximum at the boundary, with no direction free to leave it along, is never reached.
 */
#define MOST_STEPS 60
/* Violation left in a working set of so many constraints a prompt from which on nothing
 * more may join: the dual has no maximum nearby, and what it runs into says nothing. */
#define LOST 1e-2
#define CROWDED 4
/* Weights of the barrier relative to the expected cost, and the way between them. */
#define FIRST_SIGMA 1e-1
#define LAST_SIGMA 1e-6
#define SIGMA_STEP 0.02
/* How well a barrier problem is solved, relative to sigma. */
#define BARRIER_EFFORT 1e-2
/* Weight of the pull to the anchor; lowered while steps shrink too slowly. */
#define FIRST_KAPPA 1e-4
#define LAST_KAPPA 1e-9
#define SLOW 0.3
#define MAX_PROXIMAL 60
#define STATIONARY 1e-11

typedef struct solver {
    const civ_pcr_options *options;
    const civ_pcr_result *result;
    civ_pcr_info *info;
    civ_pcr_dual s;
} solver;

/* Whether the working set's dual has gone where there is no solution, or steps ran
 * out. */
static bool
ended(solver *c)
{
    if (c->s.progress.value > CIV_PCR_INFEASIBLE) {
        c->info->outcome = CIV_INFEASIBLE;
    } else if (c->s.progress.steps >= c->options->max_iterations) {
        c->info->outcome = CIV_ITERATION_LIMIT;
    } else {
        return false;
    }
    return true;
}

static void
record(solver *c, double largest)
{
    const civ_pcr_dual *s = &c->s;
    double cost = 0.0;
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        cost += civ_dot(s->basis.n_rows, civ_at(&s->basis.gram, r, 0),
                        civ_at(&s->work.squares, r, 0));
    }
    double unit = civ_pcr_cost_unit(&s->frame);
    double bound =
        s->kappa == 0.0 ? unit * (s->progress.value - s->response.barrier) : NAN;
    civ_pcr_record(
        c->result, c->info,
        (double[]){largest * s->frame.space->unit, unit * cost, bound, NAN, NAN});
}

/* Constraints to let join: the most violated at the start, else those beyond goal. */
static int64_t
count_joining(civ_pcr_dual *s, double goal)
{
    bool first = s->set.n == 0;
    int64_t batch = s->lean.on ? LEAN_BATCH : BATCH;
    return civ_pcr_rank_candidates(&s->frame, first ? 0.0 : goal,
                                   civ_max(batch, s->set.n));
}

/* Lets `count` ranked candidates join, and solves the dual of the working set. */
static civ_status
improve(civ_pcr_dual *s, int64_t count, double goal, int64_t max_steps)
{
    CIV_TRY(count > 0 ? civ_pcr_dual_admit(s, count) : civ_pcr_dual_prepare(s));
    return civ_pcr_dual_maximise(s, goal, max_steps);
}

/* Solves the working set, and lets violated constraints join, until none is; *settled
 * tells whether its dual could be solved. */
static civ_status
settle(solver *c, double goal, double *largest, bool *settled)
{
    civ_pcr_dual *s = &c->s;
    int64_t count = count_joining(s, goal);
    do {
        int64_t before = s->progress.steps;
        int64_t most = civ_min(before + MOST_STEPS, c->options->max_iterations);
        CIV_TRY(improve(s, count, goal, most));
        CIV_TRY(civ_pcr_dual_scan(s, largest));
        record(c, *largest);
        count = count_joining(s, goal);
        bool lost =
            s->progress.residual > LOST && s->set.n > CROWDED * s->frame.space->m;
        *settled = s->progress.steps - before < MOST_STEPS && !lost;
    } while (count > 0 && *settled && !ended(c));
    return CIV_OK;
}

/* Newton's method on the dual itself, ever more accurately while violated constraints
 * join; *solved tells whether it came to the maximum, well inside the domain. */
static civ_status
go_directly(solver *c, double *largest, bool *solved)
{
    civ_pcr_dual *s = &c->s;
    double finest = CIV_PCR_EFFORT * c->options->tolerance;
    double goal = fmax(DIRECT_EFFORT * s->frame.candidates[0].violation, finest);
    int64_t count = count_joining(s, goal);
    *solved = false;
    while (!*solved) {
        int64_t most = s->progress.steps + DIRECT_STEPS;
        most = civ_min(most, c->options->max_iterations);
        CIV_TRY(improve(s, count, goal, most));
        CIV_TRY(civ_pcr_dual_scan(s, largest));
        record(c, *largest);
        bool reached = s->progress.residual <= goal;
        if (ended(c) || !reached || civ_pcr_dual_depth(s) < DIRECT_DEPTH) {
            break;
        }
        count = count_joining(s, goal);
        *solved = count == 0 && goal <= finest;
        goal = count > 0 ? fmax(fmin(goal, DIRECT_EFFORT * *largest), finest) : finest;
    }
    return CIV_OK;
}

/* Cost that the most violated constraint alone would need. */
static double
expected_cost(const civ_pcr_dual *s)
{
    const civ_pcr_candidate *worst = &s->frame.candidates[0];
    double gram = *civ_at(&s->frame.space->gram, worst->prompt, worst->prompt);
    return worst->violation * worst->violation * s->frame.gram_unit / gram;
}

static civ_status
follow_barrier(solver *c, double *largest)
{
    civ_pcr_dual *s = &c->s;
    civ_pcr_rank_candidates(&s->frame, 0.0, 1);
    double cost = expected_cost(s);
    double finest = CIV_PCR_EFFORT * c->options->tolerance;
    bool settled;
    for (double part = FIRST_SIGMA; part > LAST_SIGMA; part *= SIGMA_STEP) {
        s->sigma = part * cost;
        CIV_TRY(settle(c, fmax(BARRIER_EFFORT * part, finest), largest, &settled));
        if (ended(c)) {
            return CIV_OK;
        }
    }
    return CIV_OK;
}

/* kappa ||A - anchor|| / ||A||: the error of stationarity. */
static double
stationarity(const civ_pcr_dual *s)
{
    const civ_pcr_dual_response *response = &s->response;
    int64_t columns = s->basis.pair.n_cols;
    double change = 0.0, size = 0.0;
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        const double *a = civ_at(&response->solution, r, 0);
        const double *anchor = civ_at(&response->anchor, r, 0);
        const double *a_pair = civ_at(&response->moved_pair, r, 0);
        const double *anchor_pair = civ_at(&response->anchor_pair, r, 0);
        for (int64_t x = 0; x < columns; x++) {
            change += (a[x] - anchor[x]) * (a_pair[x] - anchor_pair[x]);
            size += a[x] * a_pair[x];
        }
    }
    return size > 0.0 ? s->kappa * sqrt(fmax(change, 0.0) / size) : 0.0;
}

static civ_status
take_proximal_steps(solver *c, double *largest)
{
    civ_pcr_dual *s = &c->s;
    double error = INFINITY;
    bool settled = true;
    s->sigma = 0.0;
    s->kappa = FIRST_KAPPA;
    for (int step = 0; settled && step < MAX_PROXIMAL && error > STATIONARY; step++) {
        double before = error;
        CIV_TRY(settle(c, CIV_PCR_EFFORT * c->options->tolerance, largest, &settled));
        if (ended(c)) {
            return CIV_OK;
        }
        error = stationarity(s);
        if (error > SLOW * before) {
            s->kappa = fmax(0.1 * s->kappa, LAST_KAPPA);
        }
    }
    c->info->outcome = *largest <= c->options->tolerance ? CIV_CONVERGED : CIV_STALLED;
    return CIV_OK;
}

static void
write_multipliers(const solver *c)
{
    const civ_pcr_dual *s = &c->s;
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    for (int64_t w = 0; w < s->set.n; w++) {
        int64_t l = s->set.point[w];
        double scale = civ_pcr_is_ball(space, l) ? 1.0 / s->frame.gram_unit
                                                 : unit / space->length[l];
        *civ_at(&c->result->multipliers, s->set.prompt[w], l) = scale * s->set.mu[w];
    }
}

static void
carve(civ_arena *arena, void *arg)
{
    solver *c = arg;
    civ_pcr_dual_carve(arena, &c->s);
}

static civ_status
run(void *arg)
{
    solver *c = arg;
    civ_pcr_dual *s = &c->s;
    double largest = 0.0;
    civ_pcr_dual_start(false, s);
    if (civ_pcr_rank_candidates(&s->frame, c->options->tolerance, 1) == 0) {
        return CIV_OK;
    }
    bool solved;
    CIV_TRY(go_directly(c, &largest, &solved));
    if (!solved && !ended(c)) {
        civ_pcr_dual_start(true, s);
        CIV_TRY(follow_barrier(c, &largest));
    }
    if (!solved && !ended(c)) {
        CIV_TRY(civ_pcr_dual_open_free_directions(s));
        CIV_TRY(take_proximal_steps(c, &largest));
    }
    c->info->iterations = s->progress.steps;
    write_multipliers(c);
    return civ_pcr_dual_write_coefficients(s, &c->result->coefficients);
}

civ_status
civ_pcr_dual_solve(const civ_exec *exec, const civ_pcr_space *space,
                   const civ_pcr_options *options, const civ_pcr_result *result,
                   civ_pcr_info *info)
{
    solver c = {options, result, info, {.exec = exec, .frame = {.space = space}}};
    civ_status status = civ_run_in_arena(carve, run, &c);
    civ_arena_close(&c.s.work.growing);
    return status;
}
