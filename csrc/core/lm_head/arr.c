/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Away from the risk region (ARR, arXiv 2510.03567): max over the ball of min_j loss_j.
 * A step goes to where the least of the losses, linearised here, is largest: the
 * weights that mix their gradients come from mixture.h. A convex loss lies above its
 * linear model, so the least loss only rises; where sets make it lower, the step is
 * shortened.
 */
#include "lm_head/head.h"
#include "lm_head/head_bounds.h"
#include "lm_head/head_tiles.h"
#include "lm_head/mixture.h"
#include "runtime/parallel.h"

#include <math.h>
#include <string.h>

#define LONGER 2.0
#define SHORTER 0.25
/* Steps are at most this many times as long as what crosses the ball. */
#define FAR 1e4
#define MAX_SHORTENINGS 40
/* The weights need not be better than this part of the tolerance. */
#define SLACKNESS 0.05

typedef struct state {
    const civ_exec *exec;
    const civ_head_problem *problem;
    const civ_head_options *options;
    const civ_head_result *result;
    civ_head_info *info;
    civ_head head;
    civ_mixture mixture;
    civ_pgd_point here;
    civ_mat gradient; /* of each loss, here */
    civ_mat response; /* G diag(w) gradient */
    civ_mat ahead;    /* of each loss, where the step leads */
    double *losses;   /* here; head.losses: where the step leads */
    double *weights;
    double longest; /* step */
} state;

static void
carve(civ_arena *arena, void *arg)
{
    state *s = arg;
    const civ_head_result *result = s->result;
    civ_head_carve(s->exec, arena, s->problem, &s->head);
    int64_t m = s->head.m;
    s->here = (civ_pgd_point){result->coefficients, result->displacements};
    s->losses = result->losses;
    s->weights = result->weights;
    s->gradient = civ_head_matrix(arena, &s->head);
    s->response = civ_head_matrix(arena, &s->head);
    s->ahead = civ_head_matrix(arena, &s->head);
    s->mixture.inner = civ_take_f64(arena, m, m);
    s->mixture.along = civ_arena_take(arena, m, sizeof(double));
    s->mixture.work = civ_arena_take(arena, 5 * m, sizeof(double));
}

static double
least(const double *losses, int64_t m)
{
    double result = losses[0];
    for (int64_t j = 1; j < m; j++) {
        result = fmin(result, losses[j]);
    }
    return result;
}

static civ_status
start(state *s)
{
    CIV_TRY(civ_head_start(s->exec, &s->head, &s->here));
    for (int64_t j = 0; j < s->head.m; j++) {
        s->weights[j] = 1.0 / (double)s->head.m;
    }
    s->mixture.losses = s->losses;
    s->mixture.radius = s->options->radius;
    return civ_head_evaluate(s->exec, &s->head, &s->here.displacements,
                             &s->here.displacements, 1.0, 0.0, s->losses, &s->gradient);
}

/* The first step crosses the ball. */
static void
choose_step(state *s)
{
    double slope = 0.0;
    for (int64_t i = 0; i < s->head.m; i++) {
        for (int64_t j = 0; j < s->head.m; j++) {
            slope += s->weights[i] * s->weights[j] * *civ_at(&s->mixture.inner, i, j);
        }
    }
    double across = slope > 0.0 && s->mixture.radius > 0.0
                        ? 2.0 * s->mixture.radius / sqrt(slope)
                        : 1.0;
    s->longest = FAR * across;
    s->mixture.step = across;
}

/* What the weights prove about every change in the ball. */
static void
judge(const civ_mixture_info *mixed, state *s)
{
    civ_head_info *info = s->info;
    const civ_mixture *mixture = &s->mixture;
    double curvature = civ_head_curvature(&s->head, s->weights, false);
    double flat = civ_head_reach(mixture->radius, 0.0, mixed->slope, mixed->along,
                                 mixture->square);
    double curved = civ_head_reach(mixture->radius, curvature, mixed->slope,
                                   mixed->along, mixture->square);
    info->loss = least(s->losses, s->head.m);
    info->stationarity = mixed->loss + flat - info->loss;
    info->bound = fmin(info->bound, mixed->loss + curved);
    info->norm = sqrt(fmax(mixture->square, 0.0));
}

/* Looks where the present step leads; accepted when the model held its promise. */
static civ_status
look_ahead(const civ_mixture_info *mixed, state *s, bool *accepted)
{
    CIV_TRY(civ_head_respond(s->exec, &s->head, s->weights, &s->gradient, &s->response,
                             NULL, NULL, NULL));
    CIV_TRY(civ_head_evaluate(s->exec, &s->head, &s->here.displacements, &s->response,
                              mixed->scale, -s->mixture.step, s->head.losses,
                              &s->ahead));
    double before = least(s->losses, s->head.m);
    double after = least(s->head.losses, s->head.m);
    double promised = mixed->value - before;
    double rounding = s->head.noise * (1.0 + fabs(before));
    *accepted = after - before >= 0.5 * promised - rounding;
    return CIV_OK;
}

/*
 * Finds weights and step size, from the present ones on. *found is false when not even
 * a tiny step keeps half of its promise.
 */
static civ_status
search(double tolerance, state *s, civ_mixture_info *mixed, bool *found)
{
    *found = false;
    for (int i = 0; i < MAX_SHORTENINGS && !*found; i++) {
        CIV_TRY(look_ahead(mixed, s, found));
        if (!*found) {
            s->mixture.step *= SHORTER;
            CIV_TRY(civ_mixture_solve(&s->mixture, tolerance, s->weights, mixed));
        }
    }
    return CIV_OK;
}

static civ_status
advance(const civ_mixture_info *mixed, state *s)
{
    civ_advance move = {mixed->scale, -s->mixture.step, 1.0, 0.0};
    CIV_TRY(civ_head_advance(s->exec, &s->head, &move, s->weights, &s->gradient,
                             &s->response, &s->here, NULL));
    civ_mat left_behind = s->gradient;
    s->gradient = s->ahead;
    s->ahead = left_behind;
    memcpy(s->losses, s->head.losses, (size_t)s->head.m * sizeof(double));
    s->mixture.step = fmin(LONGER * s->mixture.step, s->longest);
    return CIV_OK;
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
        CIV_TRY(civ_head_align(s->exec, &s->head, &s->gradient, &s->here,
                               &s->mixture.inner, s->mixture.along,
                               &s->mixture.square));
        if (info->iterations == 0) {
            choose_step(s);
        }
        double goal = options->tolerance * fmax(1.0, least(s->losses, s->head.m));
        double exact = fmax(SLACKNESS * goal, 1e-14);
        civ_mixture_info mixed;
        CIV_TRY(civ_mixture_solve(&s->mixture, exact, s->weights, &mixed));
        judge(&mixed, s);
        bool converged = info->stationarity <= goal;
        if (converged || info->iterations == options->max_iterations) {
            info->outcome = converged ? CIV_CONVERGED : CIV_ITERATION_LIMIT;
            break;
        }
        bool found;
        CIV_TRY(search(exact, s, &mixed, &found));
        if (!found) {
            info->outcome = CIV_STALLED;
            break;
        }
        civ_head_record(s->result, info, s->mixture.step);
        CIV_TRY(advance(&mixed, s));
        info->iterations++;
    }
    civ_head_record(s->result, info, NAN);
    return CIV_OK;
}

civ_status
civ_arr(const civ_exec *exec, const civ_head_problem *problem,
        const civ_head_options *options, const civ_head_result *result,
        civ_head_info *info)
{
    CIV_TRY(civ_head_check(problem, options, result));
    *info = (civ_head_info){.bound = INFINITY};
    state s = {.exec = exec,
               .problem = problem,
               .options = options,
               .result = result,
               .info = info};
    return civ_run_in_arena(carve, run, &s);
}
