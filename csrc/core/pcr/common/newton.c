/* SPDX-License-Identifier: Apache-2.0 */
#include "pcr/common/newton.h"

#include "linalg/linalg.h"
#include "runtime/parallel.h"

#include <math.h>
#include <string.h>

/* Least relative ridge on the Hessian, and its growth while there is no factor. */
#define RIDGE 1e-13
#define RIDGE_GROWTH 100.0
/* Part of the promised gain that a step must deliver. */
#define ARMIJO 1e-4
/* Part of the slope that may come back with the opposite sign after a good step. */
#define OVERSHOOT 0.1
#define SHORTEN 0.3
#define SHORT 0.05
#define SHORTEST 1e-9
/* Factors of the model for one step that is stopped at bounds. */
#define MOST_ROUNDS 40
/* Parts of the way to the origin by which a point outside the domain is brought closer
 * to it: little at first, since a maximum that was near the boundary is mostly beyond
 * the next one by little, and deep inside, the function is too flat to lead back. */
#define LEAST_INWARDS 1e-15
#define INWARDS_GROWTH 4.0
#define MOST_INWARDS 0.1
/* Steps without gain, in value or residual, after which rounding has won. */
#define PATIENCE 4
/* Relative rounding of the value, below which a loss is none. */
#define ROUNDING 1e-14
/* Multipliers below this part of the largest are at zero, if they want to be. */
#define NEAR_ZERO 1e-14

void
civ_pcr_newton_carve(civ_arena *arena, int64_t n, civ_pcr_newton_work *work)
{
    work->gradient = civ_arena_take(arena, n, sizeof(double));
    work->trial = civ_arena_take(arena, n, sizeof(double));
    work->trial_gradient = civ_arena_take(arena, n, sizeof(double));
    work->step = civ_arena_take(arena, n, sizeof(double));
    work->free = civ_arena_take(arena, n, sizeof(int64_t));
    work->right = civ_arena_take(arena, n, sizeof(double));
    work->part_step = civ_arena_take(arena, n, sizeof(double));
    work->part = civ_arena_take(arena, n, sizeof(int64_t));
    work->matrix = civ_arena_take(arena, n * n, sizeof(double));
    work->factor = civ_arena_take(arena, n * n, sizeof(double));
}

/* Lists the variables that may move, zeroes those that need not, in mu itself. */
static int64_t
find_free(int64_t n, double *mu, civ_pcr_newton_work *work, double *residual)
{
    int64_t n_free = 0;
    double largest = 0.0;
    for (int64_t w = 0; w < n; w++) {
        largest = fmax(largest, mu[w]);
    }
    *residual = 0.0;
    for (int64_t w = 0; w < n; w++) {
        if (mu[w] <= NEAR_ZERO * largest && work->gradient[w] <= 0.0) {
            mu[w] = 0.0;
        } else {
            work->free[n_free++] = w;
            *residual = fmax(*residual, fabs(work->gradient[w]));
        }
    }
    return n_free;
}

/* out = step, solving (H + ridge) step = right side on the listed free variables. */
static civ_status
solve_part(const civ_exec *exec, int64_t n_free, const int64_t *part, int64_t n_part,
           const double *right, civ_pcr_newton_work *work)
{
    civ_mat matrix = civ_f64(work->matrix, n_free, n_free);
    civ_mat factor = civ_f64(work->factor, n_part, n_part);
    for (double ridge = RIDGE; ridge < 1.0; ridge *= RIDGE_GROWTH) {
        for (int64_t i = 0; i < n_part; i++) {
            const double *row = civ_at(&matrix, part[i], 0);
            for (int64_t k = 0; k <= i; k++) {
                *civ_at(&factor, i, k) = row[part[k]];
            }
            *civ_at(&factor, i, i) *= 1.0 + ridge;
            work->part_step[i] = right[part[i]];
        }
        civ_status status = civ_spd_factor(exec, &factor);
        if (status == CIV_OK) {
            return civ_cholesky_solve(n_part, 1, factor.data, n_part, work->part_step,
                                      n_part);
        }
        CIV_FAIL_IF(status != CIV_SINGULAR, status);
    }
    return CIV_SINGULAR;
}

/* trial = the point at length t of the path bent at the bounds; returns the gain
 * promised by the gradient. */
static double
bend(int64_t n, const double *mu, int64_t n_free, double t, civ_pcr_newton_work *work)
{
    double promised = 0.0;
    memcpy(work->trial, mu, (size_t)n * sizeof(double));
    for (int64_t i = 0; i < n_free; i++) {
        int64_t w = work->free[i];
        work->trial[w] = fmax(mu[w] + t * work->step[i], 0.0);
        promised += work->gradient[w] * (work->trial[w] - mu[w]);
    }
    return promised;
}

/*
 * Whether the trial point is better. The slope at the trial back along the way tells it
 * where the values cannot, because they agree to rounding: the function is concave.
 */
static bool
is_better(int64_t n, const double *mu, double value, double promised,
          const civ_pcr_newton_work *work, const civ_pcr_newton_info *info)
{
    if (value >= info->value + ARMIJO * promised - ROUNDING * fabs(info->value)) {
        return true;
    }
    double slope = 0.0;
    for (int64_t w = 0; w < n; w++) {
        slope += work->trial_gradient[w] * (work->trial[w] - mu[w]);
    }
    return slope >= -OVERSHOOT * promised;
}

/* Moves mu along the path; false when no point on it down to `shortest` is better. */
static bool
search(const civ_pcr_model *model, double *mu, int64_t n_free, double shortest,
       civ_pcr_newton_work *work, civ_pcr_newton_info *info)
{
    size_t size = (size_t)model->n * sizeof(double);
    for (double t = 1.0; t >= shortest; t *= SHORTEN) {
        double value;
        double promised = bend(model->n, mu, n_free, t, work);
        if (model->value(model->arg, work->trial, &value, work->trial_gradient) &&
            is_better(model->n, mu, value, promised, work, info)) {
            memcpy(mu, work->trial, size);
            memcpy(work->gradient, work->trial_gradient, size);
            info->value = value;
            return true;
        }
    }
    return false;
}

/* Adds t times the step of a part; reduces the right side by what H makes of it. */
static void
advance(int64_t n_free, const int64_t *part, int64_t n_part, double t,
        civ_pcr_newton_work *work)
{
    civ_mat matrix = civ_f64(work->matrix, n_free, n_free);
    for (int64_t k = 0; k < n_part; k++) {
        double change = t * work->part_step[k];
        int64_t c = part[k];
        work->step[c] += change;
        for (int64_t i = 0; i < n_part; i++) {
            int64_t r = part[i];
            work->right[r] -= change * *civ_at(&matrix, civ_max(r, c), civ_min(r, c));
        }
    }
}

/* Takes out of the part what stopped the way, and all else at a bound that would have
 * gone beyond it; returns how many are left. */
static int64_t
fix_at_bounds(const double *mu, int64_t blocking, int64_t n_part,
              civ_pcr_newton_work *work)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n_part; i++) {
        int64_t place = work->part[i];
        double least = -mu[work->free[place]];
        if (i == blocking || (work->part_step[i] < 0.0 && work->step[place] <= least)) {
            work->step[place] = least;
        } else {
            work->part[kept++] = place;
        }
    }
    return kept;
}

/*
 * The maximum of the quadratic model subject to the bounds, by fixing variables at the
 * bound that stops the way to it. For when bounds and a nearly
 * singular Hessian meet: the bent path then leads nowhere.
 */
static civ_status
stop_at_bounds(const civ_exec *exec, const double *mu, int64_t n_free,
               civ_pcr_newton_work *work)
{
    int64_t n_part = n_free;
    for (int64_t i = 0; i < n_free; i++) {
        work->part[i] = i;
        work->step[i] = 0.0;
        work->right[i] = work->gradient[work->free[i]];
    }
    for (int round = 0; n_part > 0 && round < MOST_ROUNDS; round++) {
        CIV_TRY(civ_poll(exec));
        CIV_TRY(solve_part(exec, n_free, work->part, n_part, work->right, work));
        double t = 1.0;
        int64_t blocking = -1;
        for (int64_t i = 0; i < n_part; i++) {
            double left = mu[work->free[work->part[i]]] + work->step[work->part[i]];
            if (left + t * work->part_step[i] < 0.0) {
                t = fmax(left, 0.0) / -work->part_step[i];
                blocking = i;
            }
        }
        advance(n_free, work->part, n_part, t, work);
        if (blocking < 0) {
            break;
        }
        n_part = fix_at_bounds(mu, blocking, n_part, work);
    }
    return CIV_OK;
}

/* One Newton step; *moved tells whether mu has changed for the better. */
static civ_status
take_step(const civ_exec *exec, const civ_pcr_model *model, double *mu, int64_t n_free,
          civ_pcr_newton_work *work, bool *moved, civ_pcr_newton_info *info)
{
    civ_mat matrix = civ_f64(work->matrix, n_free, n_free);
    model->curvature(model->arg, work->free, n_free, &matrix);
    for (int64_t i = 0; i < n_free; i++) {
        work->part[i] = i;
        work->right[i] = work->gradient[work->free[i]];
    }
    CIV_TRY(solve_part(exec, n_free, work->part, n_free, work->right, work));
    memcpy(work->step, work->part_step, (size_t)n_free * sizeof(double));
    *moved = search(model, mu, n_free, SHORT, work, info);
    if (!*moved) {
        CIV_TRY(stop_at_bounds(exec, mu, n_free, work));
        *moved = search(model, mu, n_free, SHORTEST, work, info);
    }
    return CIV_OK;
}

/* Evaluates at mu, which is scaled down until it lies in the domain. */
static civ_status
enter(const civ_pcr_model *model, double *mu, civ_pcr_newton_work *work,
      civ_pcr_newton_info *info)
{
    double part = LEAST_INWARDS;
    for (double scale = 1.0; scale > SHORTEST; scale *= 1.0 - part) {
        if (model->value(model->arg, mu, &info->value, work->gradient)) {
            return CIV_OK;
        }
        part = fmin(INWARDS_GROWTH * part, MOST_INWARDS);
        for (int64_t w = 0; w < model->n; w++) {
            mu[w] *= 1.0 - part;
        }
    }
    return CIV_INTERNAL;
}

civ_status
civ_pcr_newton(const civ_exec *exec, const civ_pcr_model *model, double *mu,
               double goal, int64_t max_steps, civ_pcr_newton_work *work,
               civ_pcr_newton_info *info)
{
    CIV_TRY(enter(model, mu, work, info));
    double best = INFINITY;
    int idle = 0;
    for (;;) {
        int64_t n_free = find_free(model->n, mu, work, &info->residual);
        bool unbounded = info->value > model->ceiling;
        if (info->residual <= goal || idle > PATIENCE || unbounded ||
            info->steps >= max_steps) {
            return CIV_OK;
        }
        CIV_TRY(civ_poll(exec));
        bool moved;
        double value = info->value;
        civ_status status = take_step(exec, model, mu, n_free, work, &moved, info);
        if (status == CIV_SINGULAR || (status == CIV_OK && !moved)) {
            model->value(model->arg, mu, &info->value, work->gradient);
            return CIV_OK;
        }
        CIV_TRY(status);
        info->steps++;
        bool gained = info->value > value + ROUNDING * fabs(value);
        idle = gained || info->residual < 0.5 * best ? 0 : idle + 1;
        best = fmin(best, info->residual);
    }
}
