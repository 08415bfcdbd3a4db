/* SPDX-License-Identifier: Apache-2.0 */
#include "pcr/common/space.h"

#include "linalg/centre.h"
#include "linalg/products.h"
#include "runtime/parallel.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* Length of outputs and concepts, in units, up to which their origin stays. */
#define SHORT 4.0
/* Outputs with which a point is multiplied at once. */
#define FEW 4

void
civ_pcr_space_carve(civ_arena *arena, const civ_pcr_problem *problem,
                    civ_pcr_space *space)
{
    int64_t m = problem->outputs.n_rows;
    int64_t n = problem->concepts.n_rows;
    int64_t p = n + problem->directions.n_rows;
    int64_t d = problem->outputs.n_cols;
    *space = (civ_pcr_space){.m = m, .n = n, .p = p, .d = d, .gram = problem->gram};
    space->outputs = civ_take_f64(arena, m, d);
    space->points = civ_take_f64(arena, p, d);
    space->cross = civ_take_f64(arena, m, p);
    space->limit = civ_take_f64(arena, m, p);
    space->output_square = civ_arena_take(arena, m, sizeof(double));
    space->point_square = civ_arena_take(arena, p, sizeof(double));
    space->origin = civ_arena_take(arena, d, sizeof(double));
    space->length = civ_arena_take(arena, p, sizeof(double));
    space->shift = civ_arena_take(arena, p, sizeof(double));
    space->first = civ_arena_take(arena, m + 1, sizeof(int64_t));
    space->list = civ_arena_take(arena, m * p, sizeof(int64_t));
}

/* Row i of `to` becomes row i of `from` as seen from the origin. */
static void
place_row(const civ_pcr_space *space, const civ_mat *from, const civ_mat *to, int64_t i)
{
    const double *source = civ_at(from, i, 0);
    double *target = civ_at(to, i, 0);
    for (int64_t x = 0; x < space->d; x++) {
        target[x] = source[x] - space->origin[x];
    }
}

static void
place_directions(const civ_pcr_problem *problem, civ_pcr_space *space)
{
    for (int64_t l = space->n; l < space->p; l++) {
        const double *u = civ_at(&problem->directions, l - space->n, 0);
        double length = sqrt(civ_dot(space->d, u, u));
        for (int64_t x = 0; x < space->d; x++) {
            *civ_at(&space->points, l, x) = u[x] / length;
        }
        space->length[l] = length;
        space->shift[l] =
            civ_dot(space->d, civ_at(&space->points, l, 0), space->origin);
    }
}

/* Limits in the moved and normalised coordinates, and the list of constraints. */
static void
place_limits(const civ_pcr_problem *problem, civ_pcr_space *space)
{
    int64_t count = 0;
    for (int64_t j = 0; j < space->m; j++) {
        space->first[j] = count;
        for (int64_t l = 0; l < space->p; l++) {
            double limit =
                civ_pcr_is_ball(space, l)
                    ? *civ_at(&problem->radius, j, l)
                    : *civ_at(&problem->offsets, j, l - space->n) / space->length[l] -
                          space->shift[l];
            *civ_at(&space->limit, j, l) = limit;
            if (civ_pcr_is_ball(space, l) ? limit > 0.0 : limit < INFINITY) {
                space->list[count++] = l;
            }
        }
    }
    space->first[space->m] = count;
}

double
civ_pcr_violation(const civ_pcr_space *space, int64_t j, int64_t l, double value,
                  double square)
{
    double limit = *civ_at(&space->limit, j, l);
    if (!civ_pcr_is_ball(space, l)) {
        return value - limit;
    }
    double distance = square - 2.0 * value + space->point_square[l];
    return limit - sqrt(fmax(distance, 0.0));
}

/* The largest length involved in a violated constraint. */
static double
violated_length(const civ_pcr_space *space)
{
    double unit = 0.0;
    for (int64_t j = 0; j < space->m; j++) {
        for (int64_t c = space->first[j]; c < space->first[j + 1]; c++) {
            int64_t l = space->list[c];
            double violation = civ_pcr_violation(
                space, j, l, *civ_at(&space->cross, j, l), space->output_square[j]);
            double length =
                civ_pcr_is_ball(space, l) ? *civ_at(&space->limit, j, l) : violation;
            if (violation > 0.0) {
                unit = fmax(unit, length);
            }
        }
    }
    return unit;
}

/* ---- inner products at the start ------------------------------------------------ */

typedef struct measure_job {
    civ_pcr_space *space;
    bool cross; /* inner products with the outputs too */
} measure_job;

/* Of one point, which lies in the cache after the first of them. */
static civ_status
measure_point(void *arg, int64_t l, int worker)
{
    (void)worker;
    const measure_job *job = arg;
    civ_pcr_space *space = job->space;
    const double *z = civ_at(&space->points, l, 0);
    space->point_square[l] = civ_dot(space->d, z, z);
    for (int64_t j = 0; job->cross && j < space->m; j++) {
        *civ_at(&space->cross, j, l) =
            civ_dot(space->d, civ_at(&space->outputs, j, 0), z);
    }
    return CIV_OK;
}

static civ_status
measure(const civ_exec *exec, civ_pcr_space *space)
{
    measure_job job = {space, space->m <= FEW};
    for (int64_t j = 0; j < space->m; j++) {
        const double *o = civ_at(&space->outputs, j, 0);
        space->output_square[j] = civ_dot(space->d, o, o);
    }
    int64_t cost = space->d * (job.cross ? space->m + 1 : 1) / 4;
    CIV_TRY(civ_parallel_for(exec, space->p, cost, measure_point, &job));
    return job.cross
               ? CIV_OK
               : civ_product_nt(exec, &space->outputs, &space->points, &space->cross);
}

/* ---- the origin ------------------------------------------------------------------ */

static civ_status
place(const civ_exec *exec, const civ_pcr_problem *problem, civ_pcr_space *space)
{
    for (int64_t j = 0; j < space->m; j++) {
        place_row(space, &problem->outputs, &space->outputs, j);
    }
    place_directions(problem, space);
    CIV_TRY(measure(exec, space));
    place_limits(problem, space);
    space->unit = violated_length(space);
    return CIV_OK;
}

double
civ_pcr_longest(const civ_pcr_space *space)
{
    double square = 0.0;
    for (int64_t j = 0; j < space->m; j++) {
        square = fmax(square, space->output_square[j]);
    }
    for (int64_t l = 0; l < space->n; l++) {
        square = fmax(square, space->point_square[l]);
    }
    return sqrt(square);
}

civ_status
civ_pcr_space_fill(const civ_exec *exec, const civ_pcr_problem *problem,
                   civ_pcr_space *space)
{
    civ_mat centred = space->points;
    for (int64_t i = 0; i < space->n; i++) {
        space->length[i] = 1.0;
        space->shift[i] = 0.0;
    }
    /* Only differences matter. Where the vectors are about as short as these, they do
     * well as they are, and need no copy. */
    if (space->n == space->p && problem->concepts.row_stride <= INT_MAX) {
        memset(space->origin, 0, (size_t)space->d * sizeof(double));
        space->points = problem->concepts;
        CIV_TRY(place(exec, problem, space));
        if (civ_pcr_longest(space) <= SHORT * space->unit) {
            return CIV_OK;
        }
        space->points = centred;
    }
    /* About the mean concept they lose fewest digits. */
    centred.n_rows = space->n;
    CIV_TRY(civ_centre(exec, &problem->concepts, space->origin, &centred));
    return place(exec, problem, space);
}

void
civ_pcr_constraint_vector(const civ_pcr_space *space, int64_t j, int64_t l, double *out)
{
    const double *o = civ_at(&space->outputs, j, 0);
    const double *z = civ_at(&space->points, l, 0);
    bool ball = civ_pcr_is_ball(space, l);
    double of_output = ball ? 1.0 / space->unit : 0.0;
    double of_point = ball ? -1.0 / space->unit : -1.0;
    for (int64_t x = 0; x < space->d; x++) {
        out[x] = of_output * o[x] + of_point * z[x];
    }
}
