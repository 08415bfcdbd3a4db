/* SPDX-License-Identifier: Apache-2.0 */
/* From multipliers to vectors. */
#include "pcr/dual/recover.h"

#include "kernels/dispatch.h"
#include "linalg/products.h"
#include "runtime/parallel.h"

#include <string.h>

/* Columns of the solution put together at a time. */
#define PULL_COLUMNS 1024

/* ---- where nothing but the working set pulls ----------------------------------- */

typedef struct pull_job {
    const civ_pcr_dual *s;
    const civ_mat *pull; /* Q (R, d) */
} pull_job;

/* Columns of Q, in the problem's units, to which every constraint adds. */
static civ_status
pull_columns(void *arg, int64_t tile, int worker)
{
    (void)worker;
    const pull_job *job = arg;
    const civ_pcr_dual *s = job->s;
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    int64_t first = tile * PULL_COLUMNS,
            count = civ_min(PULL_COLUMNS, space->d - first);
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        memset(civ_at(job->pull, r, first), 0, (size_t)count * sizeof(double));
    }
    for (int64_t w = 0; w < s->set.n; w++) {
        int64_t l = s->set.point[w];
        double weight = unit * s->set.mu[w];
        const double *z = civ_at(&space->points, l, first);
        double *pull = civ_at(job->pull, s->basis.local[w], first);
        if (weight > 0.0 && civ_pcr_is_ball(space, l)) {
            const double *o = civ_at(&space->outputs, s->set.prompt[w], first);
            weight /= space->unit;
            civ_kernel_table()->add_difference(o, z, count, weight, pull);
        } else if (weight > 0.0) {
            civ_axpy(count, -weight, z, pull);
        }
    }
    return CIV_OK;
}

civ_status
civ_pcr_dual_recover(const civ_pcr_dual *s, const civ_mat *factors, const civ_mat *pull,
                     const civ_mat *rows)
{
    int64_t tiles = (s->frame.space->d + PULL_COLUMNS - 1) / PULL_COLUMNS;
    pull_job job = {s, pull};
    CIV_TRY(
        civ_parallel_for(s->exec, tiles, s->set.n * PULL_COLUMNS, pull_columns, &job));
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        for (int64_t c = 0; c < s->basis.n_rows; c++) {
            *civ_at(factors, r, c) =
                s->response.nu[r] * *civ_at(&s->response.matrix, r, c) + (r == c);
        }
    }
    return civ_product_nn(s->exec, factors, pull, rows);
}

/* ---- the result ---------------------------------------------------------------- */

/* A in the problem's units, and what it is put together from. */
typedef struct expansion {
    const civ_pcr_dual *s;
    const civ_mat *coefficients; /* the result (m, d) */
    civ_mat over_outputs;        /* (R, R) */
    civ_mat over_points;         /* (R, p) */
    civ_mat outputs;             /* (R, d) */
    civ_mat rows;                /* A (R, d) */
} expansion;

/* Coefficients of A over the prompts' outputs and over the points. */
static void
split_solution(expansion *e)
{
    const civ_pcr_dual *s = e->s;
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    civ_set_zero(&e->over_outputs);
    civ_set_zero(&e->over_points);
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        double *outputs = civ_at(&e->over_outputs, r, 0);
        double *points = civ_at(&e->over_points, r, 0);
        const double *solution = civ_at(&s->response.solution, r, 0);
        for (int64_t w = 0; w < s->set.n; w++) {
            int64_t l = s->set.point[w];
            bool ball = civ_pcr_is_ball(space, l);
            double weight = unit * solution[w] / (ball ? space->unit : 1.0);
            points[l] -= weight;
            outputs[s->basis.local[w]] += ball ? weight : 0.0;
        }
    }
}

static civ_status
expand_solution(expansion *e)
{
    const civ_pcr_dual *s = e->s;
    const civ_pcr_dual_basis *basis = &s->basis;
    const civ_pcr_space *space = s->frame.space;
    double unit = space->unit / s->frame.gram_unit;
    for (int64_t r = 0; r < basis->n_rows; r++) {
        memcpy(civ_at(&e->outputs, r, 0), civ_at(&space->outputs, basis->rows[r], 0),
               (size_t)space->d * sizeof(double));
    }
    split_solution(e);
    CIV_TRY(civ_product_nn(s->exec, &e->over_points, &space->points, &e->rows));
    CIV_TRY(civ_gemm_nn(1.0, &e->over_outputs, &e->outputs, 1.0, &e->rows));
    civ_mat free = basis->free, over_free = s->response.solution;
    free.n_rows = over_free.n_cols = basis->n_free;
    over_free.data = civ_at(&s->response.solution, 0, s->set.n);
    return basis->n_free > 0 ? civ_gemm_nn(unit, &over_free, &free, 1.0, &e->rows)
                             : CIV_OK;
}

static void
carve_expansion(civ_arena *arena, void *arg)
{
    expansion *e = arg;
    const civ_pcr_dual *s = e->s;
    int64_t rows = s->basis.n_rows, d = s->frame.space->d;
    e->over_outputs = civ_take_f64(arena, rows, rows);
    e->over_points = civ_take_f64(arena, rows, s->frame.space->p);
    e->outputs = civ_take_f64(arena, rows, d);
    e->rows = civ_take_f64(arena, rows, d);
}

static civ_status
write_coefficients(void *arg)
{
    expansion *e = arg;
    const civ_pcr_dual *s = e->s;
    bool plain = s->kappa == 0.0 && s->sigma == 0.0;
    CIV_TRY(plain ? civ_pcr_dual_recover(s, &e->over_outputs, &e->outputs, &e->rows)
                  : expand_solution(e));
    for (int64_t r = 0; r < s->basis.n_rows; r++) {
        memcpy(civ_at(e->coefficients, s->basis.rows[r], 0), civ_at(&e->rows, r, 0),
               (size_t)s->frame.space->d * sizeof(double));
    }
    return CIV_OK;
}

civ_status
civ_pcr_dual_write_coefficients(const civ_pcr_dual *s, const civ_mat *coefficients)
{
    expansion e = {.s = s, .coefficients = coefficients};
    return civ_run_in_arena(carve_expansion, write_coefficients, &e);
}
