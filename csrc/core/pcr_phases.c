/* SPDX-License-Identifier: Apache-2.0 */
/* The course of the dual solver: barrier, spare directions, proximal steps. */
#include "pcr_dual.h"

#include "linalg.h"

#include <math.h>
#include <string.h>

/* Least number of constraints that may join at once. */
#define BATCH 8
/* Weights of the barrier relative to the expected cost, and the way between them. */
#define FIRST_SIGMA 1e-1
#define LAST_SIGMA 1e-6
#define SIGMA_STEP 0.02
/* How well a barrier problem is solved, relative to sigma. */
#define BARRIER_EFFORT 1e-2
/* Eigenvalues of I - N^1/2 G N^1/2 below this may stand for a spare direction. */
#define NEARLY_SINGULAR 1e-3
/* Part of a random vector that must survive for a direction to be a free one. */
#define FREE_PART 1e-3
#define PROJECTION_RIDGE 1e-12
/* Weight of the pull to the anchor; lowered while steps shrink too slowly. */
#define FIRST_KAPPA 1e-4
#define LAST_KAPPA 1e-9
#define SLOW 0.3
#define MAX_PROXIMAL 60
#define STATIONARY 1e-11

/* ---- spare directions ---------------------------------------------------------- */

/* The same numbers at every call: splitmix64. */
static void
fill_random(uint64_t seed, int64_t n, double *out)
{
    uint64_t state = seed;
    for (int64_t i = 0; i < n; i++) {
        state += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t z = state;
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
        out[i] = (double)(z >> 11) * 0x1p-52 - 1.0;
    }
}

/* Everything that a spare direction should be orthogonal to, as rows. */
static void
fill_occupied(const civ_pcr_dual *s, bool everything, civ_mat *rows)
{
    const civ_pcr_space *space = s->frame.space;
    size_t size = (size_t)space->d * sizeof(double);
    int64_t count = 0;
    for (int64_t e = 0; e < s->n_spare; e++) {
        memcpy(civ_at(rows, count++, 0), civ_at(&s->spare, e, 0), size);
    }
    if (everything) {
        for (int64_t j = 0; j < space->m; j++) {
            memcpy(civ_at(rows, count++, 0), civ_at(&space->outputs, j, 0), size);
        }
        for (int64_t l = 0; l < space->p; l++) {
            memcpy(civ_at(rows, count++, 0), civ_at(&space->points, l, 0), size);
        }
    } else {
        for (int64_t w = 0; w < s->active.n; w++) {
            civ_pcr_constraint_vector(space, s->active.prompt[w], s->active.point[w],
                                      civ_at(rows, count++, 0));
        }
    }
    rows->n_rows = count;
    for (int64_t i = 0; i < count; i++) {
        double *row = civ_at(rows, i, 0);
        double norm = sqrt(civ_dot(space->d, row, row));
        for (int64_t x = 0; x < space->d && norm > 0.0; x++) {
            row[x] /= norm;
        }
    }
}

/* direction (1, d) loses what lies in the span of rows; its norm is returned. */
static civ_status
project_out(const civ_pcr_dual *s, const civ_mat *rows, civ_mat *gram,
            const civ_mat *weights, const civ_mat *direction, double *norm)
{
    gram->n_rows = gram->n_cols = gram->row_stride = rows->n_rows;
    CIV_TRY(civ_product_nt(s->exec, rows, rows, gram));
    for (int64_t i = 0; i < rows->n_rows; i++) {
        *civ_at(gram, i, i) += PROJECTION_RIDGE * (double)rows->n_rows;
    }
    CIV_TRY(civ_spd_factor(s->exec, gram));
    for (int pass = 0; pass < 3; pass++) {
        CIV_TRY(civ_gemm_nt(1.0, direction, rows, 0.0, weights));
        CIV_TRY(civ_spd_solve(s->exec, gram, weights));
        CIV_TRY(civ_gemm_nn(-1.0, weights, rows, 1.0, direction));
    }
    const double *data = direction->data;
    *norm = sqrt(civ_dot(direction->n_cols, data, data));
    return CIV_OK;
}

/* Adds a direction orthogonal to the outputs and points, or if there is none to the
 * working set; *found tells whether there was one. */
static civ_status
add_direction(civ_pcr_dual *s, bool *found)
{
    const civ_pcr_space *space = s->frame.space;
    int64_t most = CIV_PCR_SPARES + civ_max(space->m + space->p, s->active.n);
    civ_arena arena = {0};
    civ_arena_take(&arena, most * (space->d + most + 1), sizeof(double));
    CIV_TRY(civ_arena_open(&arena));
    double *block =
        civ_arena_take(&arena, most * (space->d + most + 1), sizeof(double));
    civ_mat rows = civ_f64(block, most, space->d);
    civ_mat gram = civ_f64(block + most * space->d, most, most);
    civ_mat direction = civ_f64(civ_at(&s->spare, s->n_spare, 0), 1, space->d);
    civ_status status = CIV_OK;
    *found = false;
    for (int everything = 1; everything >= 0 && !*found; everything--) {
        fill_occupied(s, everything, &rows);
        civ_mat weights = civ_f64(block + most * (space->d + most), 1, rows.n_rows);
        double norm = 0.0, before;
        fill_random((uint64_t)s->n_spare, space->d, direction.data);
        before = sqrt(civ_dot(space->d, direction.data, direction.data));
        status = project_out(s, &rows, &gram, &weights, &direction, &norm);
        if (status != CIV_OK) {
            break;
        }
        *found = norm > FREE_PART * before;
        for (int64_t x = 0; x < space->d && *found; x++) {
            *civ_at(&direction, 0, x) /= norm;
        }
    }
    civ_arena_close(&arena);
    CIV_TRY(status == CIV_SINGULAR ? CIV_OK : status);
    if (*found) {
        CIV_TRY(civ_pcr_dual_products(s, &direction,
                                      civ_at(&s->spare_table, s->n_spare, 0)));
        s->n_spare++;
    }
    return CIV_OK;
}

/* Turns what the barrier holds outside the span into displacements along directions
 * of their own: sigma B is G N^1/2 v v^T N^1/2 G sigma / lambda for each eigenvalue
 * lambda of I - N^1/2 G N^1/2 that is almost zero. */
static civ_status
open_spares(civ_pcr_dual *s)
{
    int64_t rows = s->n_rows, n = s->active.n;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < rows; c++) {
            *civ_at(&s->squares, r, c) =
                (r == c) - s->root[r] * *civ_at(&s->gram, r, c) * s->root[c];
        }
    }
    CIV_TRY(
        civ_symmetric_eigen(rows, s->squares.data, rows, s->scratch, s->eigen_work));
    bool found = true;
    while (s->n_spare < civ_min(CIV_PCR_SPARES, rows) && found &&
           s->scratch[s->n_spare] < NEARLY_SINGULAR) {
        CIV_TRY(add_direction(s, &found));
    }
    civ_mat wide = civ_f64(s->anchor.data, rows, n + s->n_spare);
    for (int64_t r = 0; r < rows; r++) {
        memcpy(civ_at(&wide, r, 0), civ_at(&s->solution, r, 0),
               (size_t)n * sizeof(double));
        for (int64_t e = 0; e < s->n_spare; e++) {
            double size = sqrt(s->sigma / fmax(s->scratch[e], s->sigma * 1e-6));
            *civ_at(&wide, r, n + e) = size * s->root[r] * *civ_at(&s->squares, e, r);
        }
    }
    s->solution = civ_f64(s->solution.data, rows, n + s->n_spare);
    memcpy(s->solution.data, wide.data,
           (size_t)(rows * (n + s->n_spare)) * sizeof(double));
    return CIV_OK;
}

/* ---- phases -------------------------------------------------------------------- */

typedef struct course {
    const civ_pcr_options *options;
    const civ_pcr_result *result;
    civ_pcr_info *info;
    civ_pcr_dual *s;
} course;

/* Whether the working set's dual has gone where there is no solution, or steps ran
 * out. */
static bool
ended(course *c)
{
    if (c->s->progress.value > CIV_PCR_INFEASIBLE) {
        c->info->outcome = CIV_INFEASIBLE;
    } else if (c->s->progress.steps >= c->options->max_iterations) {
        c->info->outcome = CIV_ITERATION_LIMIT;
    } else {
        return false;
    }
    return true;
}

static void
record(course *c, double largest)
{
    const civ_pcr_dual *s = c->s;
    double cost = 0.0;
    for (int64_t r = 0; r < s->n_rows; r++) {
        cost += civ_dot(s->n_rows, civ_at(&s->gram, r, 0), civ_at(&s->squares, r, 0));
    }
    double unit = civ_pcr_cost_unit(&s->frame);
    double bound = s->kappa == 0.0 ? unit * (s->progress.value - s->barrier) : NAN;
    civ_pcr_record(
        c->result, c->info,
        (double[]){largest * s->frame.space->unit, unit * cost, bound, NAN, NAN});
}

/* Constraints to let join: the most violated at the start, else those beyond goal. */
static int64_t
count_joining(civ_pcr_dual *s, double goal)
{
    bool first = s->active.n == 0;
    return civ_pcr_rank_candidates(&s->frame, first ? 0.0 : goal,
                                   civ_max(BATCH, s->active.n));
}

/* Solves the working set, and lets violated constraints join, until none is. */
static civ_status
settle(course *c, double goal, double *largest)
{
    civ_pcr_dual *s = c->s;
    int64_t count = count_joining(s, goal);
    do {
        CIV_TRY(civ_pcr_dual_improve(s, count, goal, c->options->max_iterations));
        CIV_TRY(civ_pcr_dual_scan(s, largest));
        record(c, *largest);
        count = count_joining(s, goal);
    } while (count > 0 && !ended(c));
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
follow_barrier(course *c, double *largest)
{
    civ_pcr_dual *s = c->s;
    double cost = expected_cost(s);
    double finest = CIV_PCR_EFFORT * c->options->tolerance;
    for (double part = FIRST_SIGMA; part > LAST_SIGMA; part *= SIGMA_STEP) {
        s->sigma = part * cost;
        CIV_TRY(settle(c, fmax(BARRIER_EFFORT * part, finest), largest));
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
    int64_t columns = s->pair.n_cols;
    double change = 0.0, size = 0.0;
    for (int64_t r = 0; r < s->n_rows; r++) {
        const double *a = civ_at(&s->solution, r, 0);
        const double *anchor = civ_at(&s->anchor, r, 0);
        const double *a_pair = civ_at(&s->moved_pair, r, 0);
        const double *anchor_pair = civ_at(&s->anchor_pair, r, 0);
        for (int64_t x = 0; x < columns; x++) {
            change += (a[x] - anchor[x]) * (a_pair[x] - anchor_pair[x]);
            size += a[x] * a_pair[x];
        }
    }
    return size > 0.0 ? s->kappa * sqrt(fmax(change, 0.0) / size) : 0.0;
}

static civ_status
take_proximal_steps(course *c, double *largest)
{
    civ_pcr_dual *s = c->s;
    double error = INFINITY;
    s->sigma = 0.0;
    s->kappa = FIRST_KAPPA;
    for (int step = 0; step < MAX_PROXIMAL && error > STATIONARY; step++) {
        double before = error;
        CIV_TRY(settle(c, CIV_PCR_EFFORT * c->options->tolerance, largest));
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

/* coefficients of A (R, R) over the prompts' outputs and (R, p) over the points. */
static void
split_solution(const civ_pcr_dual *s, const civ_mat *over_outputs,
               const civ_mat *over_points)
{
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    for (int64_t r = 0; r < s->n_rows; r++) {
        double *outputs = civ_at(over_outputs, r, 0);
        double *points = civ_at(over_points, r, 0);
        const double *solution = civ_at(&s->solution, r, 0);
        memset(outputs, 0, (size_t)s->n_rows * sizeof(double));
        memset(points, 0, (size_t)space->p * sizeof(double));
        for (int64_t w = 0; w < s->active.n; w++) {
            int64_t l = s->active.point[w];
            bool ball = civ_pcr_is_ball(space, l);
            double weight = unit * solution[w] / (ball ? space->unit : 1.0);
            points[l] -= weight;
            outputs[s->local[w]] += ball ? weight : 0.0;
        }
    }
}

/* rows (R, d) = A in the problem's units. */
static civ_status
expand_solution(const civ_pcr_dual *s, const civ_mat *outputs,
                const civ_mat *over_outputs, const civ_mat *over_points,
                const civ_mat *rows)
{
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    for (int64_t r = 0; r < s->n_rows; r++) {
        memcpy(civ_at(outputs, r, 0), civ_at(&space->outputs, s->rows[r], 0),
               (size_t)space->d * sizeof(double));
    }
    split_solution(s, over_outputs, over_points);
    CIV_TRY(civ_product_nn(s->exec, over_points, &space->points, rows));
    CIV_TRY(civ_gemm_nn(1.0, over_outputs, outputs, 1.0, rows));
    civ_mat spare = s->spare, over_spare = s->solution;
    spare.n_rows = over_spare.n_cols = s->n_spare;
    over_spare.data = civ_at(&s->solution, 0, s->active.n);
    return s->n_spare > 0 ? civ_gemm_nn(unit, &over_spare, &spare, 1.0, rows) : CIV_OK;
}

static civ_status
write_coefficients(const course *c)
{
    const civ_pcr_dual *s = c->s;
    int64_t rows = s->n_rows, p = s->frame.space->p, d = s->frame.space->d;
    int64_t size = rows * (rows + p + 2 * d);
    civ_arena arena = {0};
    civ_arena_take(&arena, size, sizeof(double));
    CIV_TRY(civ_arena_open(&arena));
    double *block = civ_arena_take(&arena, size, sizeof(double));
    civ_mat over_outputs = civ_f64(block, rows, rows);
    civ_mat over_points = civ_f64(block + rows * rows, rows, p);
    civ_mat outputs = civ_f64(block + rows * (rows + p), rows, d);
    civ_mat expanded = civ_f64(block + rows * (rows + p + d), rows, d);
    civ_status status =
        expand_solution(s, &outputs, &over_outputs, &over_points, &expanded);
    for (int64_t r = 0; r < rows && status == CIV_OK; r++) {
        memcpy(civ_at(&c->result->coefficients, s->rows[r], 0), civ_at(&expanded, r, 0),
               (size_t)d * sizeof(double));
    }
    civ_arena_close(&arena);
    return status;
}

static void
write_multipliers(const course *c)
{
    const civ_pcr_dual *s = c->s;
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    for (int64_t w = 0; w < s->active.n; w++) {
        int64_t l = s->active.point[w];
        double scale = civ_pcr_is_ball(space, l) ? 1.0 / s->frame.gram_unit
                                                 : unit / space->length[l];
        *civ_at(&c->result->multipliers, s->active.prompt[w], l) =
            scale * s->active.mu[w];
    }
}

static civ_status
run(course *c)
{
    double largest = 0.0;
    if (civ_pcr_rank_candidates(&c->s->frame, c->options->tolerance, 1) == 0) {
        return CIV_OK;
    }
    CIV_TRY(follow_barrier(c, &largest));
    if (!ended(c)) {
        CIV_TRY(open_spares(c->s));
        CIV_TRY(take_proximal_steps(c, &largest));
    }
    c->info->iterations = c->s->progress.steps;
    write_multipliers(c);
    return write_coefficients(c);
}

civ_status
civ_pcr_dual_solve(const civ_exec *exec, const civ_pcr_space *space,
                   const civ_pcr_options *options, const civ_pcr_result *result,
                   civ_pcr_info *info)
{
    civ_pcr_dual s;
    civ_arena arena = {0};
    course c = {options, result, info, &s};
    civ_status status = civ_pcr_dual_open(exec, space, &arena, &s);
    if (status == CIV_OK) {
        status = run(&c);
    }
    civ_arena_close(&s.growing);
    civ_arena_close(&arena);
    return status;
}
