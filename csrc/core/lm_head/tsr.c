/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Towards the safe region (TSR, arXiv 2510.03567): min over the ball of sum_j loss_j.
 * Nesterov's method with the gradient at y, a line search on the loss at x', and
 * restarts; nothing but inner products decides where to go, see first_order/pgd.h.
 */
#include "lm_head/head.h"
#include "lm_head/head_bounds.h"
#include "lm_head/head_tiles.h"
#include "runtime/parallel.h"

#include <math.h>
#include <string.h>

/* Growth of the step after one that was accepted at once. */
#define LONGER 1.5
#define SHORTER 0.5
/* Failures of the line search in a row after which rounding is all there is. */
#define MAX_HALVINGS 60

typedef struct state {
    const civ_exec *exec;
    const civ_head_problem *problem;
    const civ_head_options *options;
    const civ_head_result *result;
    civ_head_info *info;
    civ_head head;
    civ_pgd_point here;  /* y */
    civ_pgd_point trail; /* x */
    civ_mat gradient;    /* of the sum of the losses, at y */
    civ_mat response;    /* G gradient */
    double sum[CIV_PGD_SUMS];
    double loss; /* sum of the losses at y */
    double step;
    double safe_step; /* below the inverse of every curvature */
    double age;
    double curvature; /* the most negative one possible */
    bool settled;     /* nothing but rounding is left of the stationarity */
} state;

static void
carve(civ_arena *arena, void *arg)
{
    state *s = arg;
    const civ_head_result *result = s->result;
    civ_head_carve(s->exec, arena, s->problem, &s->head);
    s->here = (civ_pgd_point){result->coefficients, result->displacements};
    s->trail.coefficients = civ_head_matrix(arena, &s->head);
    s->trail.displacements = civ_head_matrix(arena, &s->head);
    s->gradient = civ_head_matrix(arena, &s->head);
    s->response = civ_head_matrix(arena, &s->head);
}

static double
total(const double *losses, int64_t m)
{
    double sum = 0.0;
    for (int64_t j = 0; j < m; j++) {
        sum += losses[j];
    }
    return sum;
}

static civ_status
start(state *s)
{
    civ_head_clear(&s->trail);
    CIV_TRY(civ_head_start(s->exec, &s->head, &s->here));
    double lipschitz = civ_head_curvature(&s->head, NULL, false);
    s->step = s->safe_step = lipschitz > 0.0 ? 1.0 / lipschitz : 1.0;
    s->age = 1.0;
    s->curvature = civ_head_curvature(&s->head, NULL, true);
    return CIV_OK;
}

/* Losses, gradient and inner products at y, and what they prove. */
static civ_status
look(state *s)
{
    civ_head_info *info = s->info;
    double *losses = s->result->losses;
    double m = (double)s->head.m;
    CIV_TRY(civ_head_evaluate(s->exec, &s->head, &s->here.displacements,
                              &s->here.displacements, 1.0, 0.0, losses, &s->gradient));
    CIV_TRY(civ_head_respond(s->exec, &s->head, NULL, &s->gradient, &s->response,
                             &s->here, &s->trail, s->sum));
    s->loss = total(losses, s->head.m);
    double slope = s->sum[CIV_GRAD_GRAD], along = -s->sum[CIV_GRAD_HERE];
    double square = s->sum[CIV_HERE_HERE], radius = s->options->radius;
    double gain = civ_head_reach(radius, s->curvature, slope, along, square);
    info->loss = s->loss / m;
    double reach = civ_head_reach(radius, 0.0, slope, along, square);
    s->settled |= reach <= s->head.noise * radius * sqrt(slope);
    info->stationarity = reach / m;
    info->bound = fmax(info->bound, (s->loss - gain) / m);
    info->norm = sqrt(fmax(square, 0.0));
    return CIV_OK;
}

/* By how much the quadratic model of the loss at y falls on the way to x'. */
static double
promise(const double *sum, const civ_pgd_move *move)
{
    double away = move->advance.scale * move->advance.step;
    double back = move->advance.scale - 1.0;
    double slope = back * sum[CIV_GRAD_HERE] - away * sum[CIV_GRAD_GRAD];
    double square = back * back * sum[CIV_HERE_HERE] -
                    2.0 * back * away * sum[CIV_GRAD_HERE] +
                    away * away * sum[CIV_GRAD_GRAD];
    return -slope - 0.5 * square / move->advance.step;
}

/*
 * The largest step, of those halved, that the quadratic model of the loss at y allows:
 * loss(x') <= loss(y) + <g, x' - y> + ||x' - y||^2 / (2 step).
 */
static civ_status
search(state *s, civ_pgd_move *move, bool *found)
{
    double rounding = s->head.noise * (s->loss + (double)s->head.m);
    *found = false;
    for (int i = 0; i < MAX_HALVINGS && !*found; i++) {
        *move = civ_pgd_plain_move(s->sum, s->step, s->options->radius);
        double model = s->loss - promise(s->sum, move);
        CIV_TRY(civ_head_evaluate(s->exec, &s->head, &s->here.displacements,
                                  &s->response, move->advance.scale, s->step,
                                  s->head.losses, NULL));
        *found = total(s->head.losses, s->head.m) <= model + rounding;
        s->step *= *found ? (i == 0 ? LONGER : 1.0) : SHORTER;
    }
    return CIV_OK;
}

/*
 * A step. Once the stationarity is no more than rounding, losses tell nothing either:
 * then the shortest step, which is always right, without momentum.
 */
static civ_status
plan(state *s, civ_pgd_move *move, bool *found)
{
    double radius = s->options->radius;
    *found = s->settled;
    if (s->settled) {
        *move = civ_pgd_plain_move(s->sum, s->safe_step, radius);
        return CIV_OK;
    }
    CIV_TRY(search(s, move, found));
    civ_pgd_vectors vectors = {&s->gradient, &s->response, &s->here, &s->trail,
                               s->head.losses};
    bool precise = s->head.lanes == CIV_F64;
    return civ_pgd_add_momentum(s->exec, s->sum, s->head.noise,
                                precise ? &vectors : NULL, s->age, radius, move);
}

static civ_status
run(void *arg)
{
    state *s = arg;
    const civ_head_options *options = s->options;
    civ_head_info *info = s->info;
    CIV_TRY(start(s));
    for (;;) {
        CIV_TRY(civ_poll(s->exec));
        CIV_TRY(look(s));
        bool converged =
            options->tolerance > 0.0 &&
            info->stationarity <= options->tolerance * fmax(1.0, info->loss);
        if (converged || info->iterations == options->max_iterations) {
            info->outcome = converged ? CIV_CONVERGED : CIV_ITERATION_LIMIT;
            break;
        }
        civ_pgd_move move;
        bool found;
        CIV_TRY(plan(s, &move, &found));
        if (!found) {
            info->outcome = CIV_STALLED;
            break;
        }
        CIV_TRY(civ_head_advance(s->exec, &s->head, &move.advance, NULL, &s->gradient,
                                 &s->response, &s->here, &s->trail));
        s->age = move.age;
        civ_head_record(s->result, info, move.advance.step);
        info->iterations++;
    }
    civ_head_record(s->result, info, NAN);
    return CIV_OK;
}

civ_status
civ_tsr(const civ_exec *exec, const civ_head_problem *problem,
        const civ_head_options *options, const civ_head_result *result,
        civ_head_info *info)
{
    CIV_TRY(civ_head_check(problem, options, result));
    *info = (civ_head_info){.bound = -INFINITY};
    state s = {.exec = exec,
               .problem = problem,
               .options = options,
               .result = result,
               .info = info};
    return civ_run_in_arena(carve, run, &s);
}
