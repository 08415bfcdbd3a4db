/* SPDX-License-Identifier: Apache-2.0 */
#include "pcr/halfspace/quadratic.h"

#include "linalg/linalg.h"
#include "linalg/products.h"
#include "runtime/parallel.h"

#include <math.h>
#include <string.h>

#define MAX_SWEEPS 32
/* Comings and goings in a sweep that Newton steps can as well deal with. */
#define FEW 8
#define MAX_STEPS 16
/* Relative rounding of the value, below which a loss is none. */
#define ROUNDING 1e-14

void
civ_pcr_quadratic_carve(civ_arena *arena, int64_t capacity, civ_pcr_quadratic *q)
{
    q->slope = civ_arena_take(arena, capacity, sizeof(double));
    q->trial = civ_arena_take(arena, capacity, sizeof(double));
    q->trial_slope = civ_arena_take(arena, capacity, sizeof(double));
    q->factored = civ_arena_take(arena, capacity, sizeof(int64_t));
    q->place = civ_arena_take(arena, capacity, sizeof(int64_t));
    q->factor = civ_arena_take(arena, capacity * capacity, sizeof(double));
    q->border = civ_arena_take(arena, (CIV_PCR_BORDER + 1) * capacity, sizeof(double));
}

void
civ_pcr_quadratic_evaluate(const civ_pcr_quadratic *q, const double *mu, double *value,
                           double *slope)
{
    civ_mat hessian = q->hessian;
    hessian.n_rows = hessian.n_cols = q->n;
    memcpy(slope, q->bound, (size_t)q->n * sizeof(double));
    civ_gemv(-1.0, &hessian, mu, 1.0, slope);
    *value = 0.5 * (civ_dot(q->n, mu, q->bound) + civ_dot(q->n, mu, slope));
}

void
civ_pcr_quadratic_extend(int64_t n, civ_pcr_quadratic *q)
{
    for (int64_t w = q->n; w < n; w++) {
        q->place[w] = -1;
    }
    q->n = n;
    civ_pcr_quadratic_evaluate(q, q->mu, &q->value, q->slope);
}

/* ---- sweeps -------------------------------------------------------------------- */

/* Sets every variable to its best value in turn; returns how many left zero or came to
 * it. */
static int64_t
sweep_once(civ_pcr_quadratic *q)
{
    int64_t crossings = 0;
    for (int64_t w = 0; w < q->n; w++) {
        const double *row = civ_at(&q->hessian, w, 0);
        double best = fmax(q->mu[w] + q->slope[w] / row[w], 0.0);
        double change = best - q->mu[w];
        if (change != 0.0) {
            crossings += (best > 0.0) != (q->mu[w] > 0.0);
            q->mu[w] = best;
            civ_axpy(q->n, -change, row, q->slope);
        }
    }
    return crossings;
}

civ_status
civ_pcr_quadratic_sweep(const civ_exec *exec, int64_t max_steps, civ_pcr_quadratic *q,
                        bool *settled)
{
    int64_t crossings = q->n, end = civ_min(q->steps + MAX_SWEEPS, max_steps);
    for (; q->steps < end && crossings > FEW; q->steps++) {
        CIV_TRY(civ_poll(exec));
        crossings = sweep_once(q);
    }
    *settled = crossings <= FEW;
    civ_pcr_quadratic_evaluate(q, q->mu, &q->value, q->slope);
    return CIV_OK;
}

/* ---- Newton steps -------------------------------------------------------------- */

static bool
is_free(const civ_pcr_quadratic *q, int64_t w)
{
    return q->mu[w] > 0.0 || q->slope[w] > 0.0;
}

static double
residual(const civ_pcr_quadratic *q)
{
    double largest = 0.0;
    for (int64_t w = 0; w < q->n; w++) {
        largest = is_free(q, w) ? fmax(largest, fabs(q->slope[w])) : largest;
    }
    return largest;
}

/* Copies a row of H for the variables of the factor. */
static void
pick(const civ_pcr_quadratic *q, int64_t w, int64_t count, double *out)
{
    const double *row = civ_at(&q->hessian, w, 0);
    for (int64_t i = 0; i < count; i++) {
        out[i] = row[q->factored[i]];
    }
}

static civ_status
pick_tile(void *arg, int64_t row, int worker)
{
    (void)worker;
    const civ_pcr_quadratic *q = arg;
    pick(q, q->factored[row], row + 1, q->factor + row * q->n_factored);
    return CIV_OK;
}

/* Factors H for the free variables. */
static civ_status
factorise(const civ_exec *exec, civ_pcr_quadratic *q)
{
    q->n_factored = 0;
    for (int64_t w = 0; w < q->n; w++) {
        q->place[w] = is_free(q, w) ? q->n_factored : -1;
        if (q->place[w] >= 0) {
            q->factored[q->n_factored++] = w;
        }
    }
    civ_mat factor = civ_f64(q->factor, q->n_factored, q->n_factored);
    CIV_TRY(civ_parallel_for(exec, q->n_factored, q->n_factored, pick_tile, q));
    return civ_spd_factor(exec, &factor);
}

/* Lists the variables that have left the factor, then those that have entered: at most
 * CIV_PCR_BORDER. Returns how many there are. */
static int64_t
list_changes(const civ_pcr_quadratic *q, int64_t *changes)
{
    int64_t count = 0;
    for (int entering = 0; entering < 2; entering++) {
        for (int64_t w = 0; w < q->n; w++) {
            bool enters = is_free(q, w);
            if (enters == (entering == 1) && (q->place[w] < 0) == enters) {
                if (count < CIV_PCR_BORDER) {
                    changes[count] = w;
                }
                count++;
            }
        }
    }
    return count;
}

/* Column of the border for a changed variable: its row of H when it has entered, else
 * the unit vector that will hold its step at zero. */
static void
fill_border(const civ_pcr_quadratic *q, int64_t w, double *out)
{
    if (q->place[w] < 0) {
        pick(q, w, q->n_factored, out);
    } else {
        memset(out, 0, (size_t)q->n_factored * sizeof(double));
        out[q->place[w]] = 1.0;
    }
}

/* Inner product of that column with x; `scratch` (n_factored). */
static double
border_dot(const civ_pcr_quadratic *q, int64_t w, const double *x, double *scratch)
{
    if (q->place[w] >= 0) {
        return x[q->place[w]];
    }
    pick(q, w, q->n_factored, scratch);
    return civ_dot(q->n_factored, scratch, x);
}

/* y (count) of the bordered system [H_ff B; B^T C] [x; y] = [slope_f; slope of those
 * that enter, 0 for those that leave], from border = H_ff^-1 [slope_f, B]. */
static civ_status
solve_border(const civ_pcr_quadratic *q, const int64_t *changes, int64_t count,
             double *y)
{
    double system[CIV_PCR_BORDER * CIV_PCR_BORDER];
    for (int64_t i = 0; i < count; i++) {
        int64_t w = changes[i];
        bool enters = q->place[w] < 0;
        y[i] = enters ? q->slope[w] : 0.0;
        y[i] -= border_dot(q, w, q->border, q->trial_slope);
        for (int64_t k = 0; k <= i; k++) {
            bool both = enters && q->place[changes[k]] < 0;
            system[i * count + k] = both ? *civ_at(&q->hessian, w, changes[k]) : 0.0;
            system[i * count + k] -=
                border_dot(q, w, q->border + (k + 1) * q->n_factored, q->trial_slope);
        }
    }
    return civ_symmetric_solve(count, system, y);
}

/* trial = mu plus the Newton step for the free variables, not below zero. */
static civ_status
try_step(const civ_exec *exec, civ_pcr_quadratic *q)
{
    int64_t changes[CIV_PCR_BORDER];
    double y[CIV_PCR_BORDER];
    int64_t count = q->n_factored > 0 ? list_changes(q, changes) : CIV_PCR_BORDER + 1;
    if (count > CIV_PCR_BORDER) {
        CIV_TRY(factorise(exec, q));
        count = 0;
    }
    int64_t n = q->n_factored;
    for (int64_t i = 0; i < n; i++) {
        q->border[i] = q->slope[q->factored[i]];
    }
    for (int64_t k = 0; k < count; k++) {
        fill_border(q, changes[k], q->border + (k + 1) * n);
    }
    civ_mat factor = civ_f64(q->factor, n, n), rows = civ_f64(q->border, count + 1, n);
    CIV_TRY(civ_spd_solve(exec, &factor, &rows));
    CIV_TRY(solve_border(q, changes, count, y));
    memcpy(q->trial, q->mu, (size_t)q->n * sizeof(double));
    for (int64_t k = 0; k < count; k++) {
        civ_axpy(n, -y[k], q->border + (k + 1) * n, q->border);
        q->trial[changes[k]] += q->place[changes[k]] < 0 ? y[k] : 0.0;
    }
    for (int64_t i = 0; i < n; i++) {
        q->trial[q->factored[i]] += q->border[i];
    }
    for (int64_t w = 0; w < q->n; w++) {
        q->trial[w] = is_free(q, w) ? fmax(q->trial[w], 0.0) : 0.0;
    }
    return CIV_OK;
}

/* Takes the trial point if it is better. */
static bool
accept(civ_pcr_quadratic *q)
{
    double value;
    civ_pcr_quadratic_evaluate(q, q->trial, &value, q->trial_slope);
    if (!(value >= q->value - ROUNDING * fabs(q->value))) {
        return false;
    }
    q->value = value;
    memcpy(q->mu, q->trial, (size_t)q->n * sizeof(double));
    memcpy(q->slope, q->trial_slope, (size_t)q->n * sizeof(double));
    return true;
}

civ_status
civ_pcr_quadratic_finish(const civ_exec *exec, double goal, int64_t max_steps,
                         civ_pcr_quadratic *q, bool *solved)
{
    int64_t end = civ_min(q->steps + MAX_STEPS, max_steps);
    bool better = true;
    for (; q->steps < end && better && residual(q) > goal; q->steps++) {
        CIV_TRY(civ_poll(exec));
        civ_status status = try_step(exec, q);
        if (status != CIV_SINGULAR) {
            CIV_TRY(status);
        }
        better = status == CIV_OK && accept(q);
    }
    *solved = residual(q) <= goal;
    return CIV_OK;
}
