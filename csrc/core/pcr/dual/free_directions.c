/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Displacements outside the span of the constraints: what the barrier holds there
 * becomes a displacement along directions of its own, orthogonal to everything.
 */
#include "pcr/dual/free_directions.h"

#include "linalg/linalg.h"
#include "linalg/products.h"
#include "pcr/dual/table.h"

#include <math.h>
#include <string.h>

/* Eigenvalues of I - N^1/2 G N^1/2 below this may stand for a free direction. */
#define NEARLY_SINGULAR 1e-3
/* Part of a random vector that must survive for a direction to be a free one. */
#define FREE_PART 1e-3
#define PROJECTION_RIDGE 1e-12

/* The search for one direction; rows has as many as fill_occupied leaves it. */
typedef struct search {
    civ_pcr_dual *s;
    civ_mat rows;    /* what it should be orthogonal to (.., d) */
    civ_mat gram;    /* of the rows */
    double *weights; /* one a row */
    bool found;
} search;

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

/* Everything that a free direction should be orthogonal to, as rows. */
static void
fill_occupied(const civ_pcr_dual *s, bool everything, civ_mat *rows)
{
    const civ_pcr_space *space = s->frame.space;
    size_t size = (size_t)space->d * sizeof(double);
    int64_t count = 0;
    for (int64_t e = 0; e < s->basis.n_free; e++) {
        memcpy(civ_at(rows, count++, 0), civ_at(&s->basis.free, e, 0), size);
    }
    if (everything) {
        for (int64_t j = 0; j < space->m; j++) {
            memcpy(civ_at(rows, count++, 0), civ_at(&space->outputs, j, 0), size);
        }
        for (int64_t l = 0; l < space->p; l++) {
            memcpy(civ_at(rows, count++, 0), civ_at(&space->points, l, 0), size);
        }
    } else {
        for (int64_t w = 0; w < s->set.n; w++) {
            civ_pcr_constraint_vector(space, s->set.prompt[w], s->set.point[w],
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

/* direction (1, d) loses what lies in the span of the rows; its norm is returned. */
static civ_status
project_out(search *job, const civ_mat *direction, double *norm)
{
    const civ_exec *exec = job->s->exec;
    int64_t n = job->rows.n_rows;
    civ_mat gram = civ_f64(job->gram.data, n, n), weights = civ_f64(job->weights, 1, n);
    CIV_TRY(civ_product_nt(exec, &job->rows, &job->rows, &gram));
    for (int64_t i = 0; i < n; i++) {
        *civ_at(&gram, i, i) += PROJECTION_RIDGE * (double)n;
    }
    CIV_TRY(civ_spd_factor(exec, &gram));
    for (int pass = 0; pass < 3; pass++) {
        CIV_TRY(civ_gemm_nt(1.0, direction, &job->rows, 0.0, &weights));
        CIV_TRY(civ_spd_solve(exec, &gram, &weights));
        CIV_TRY(civ_gemm_nn(-1.0, &weights, &job->rows, 1.0, direction));
    }
    const double *data = direction->data;
    *norm = sqrt(civ_dot(direction->n_cols, data, data));
    return CIV_OK;
}

static void
carve(civ_arena *arena, void *arg)
{
    search *job = arg;
    const civ_pcr_space *space = job->s->frame.space;
    int64_t most =
        CIV_PCR_FREE_DIRECTIONS + civ_max(space->m + space->p, job->s->set.n);
    job->rows = civ_take_f64(arena, most, space->d);
    job->gram = civ_take_f64(arena, most, most);
    job->weights = civ_arena_take(arena, most, sizeof(double));
}

static civ_status
find_direction(void *arg)
{
    search *job = arg;
    civ_pcr_dual *s = job->s;
    int64_t d = s->frame.space->d;
    civ_mat direction = civ_f64(civ_at(&s->basis.free, s->basis.n_free, 0), 1, d);
    for (int everything = 1; everything >= 0 && !job->found; everything--) {
        double norm, before;
        fill_occupied(s, everything, &job->rows);
        fill_random((uint64_t)s->basis.n_free, d, direction.data);
        before = sqrt(civ_dot(d, direction.data, direction.data));
        civ_status status = project_out(job, &direction, &norm);
        if (status != CIV_OK) {
            return status == CIV_SINGULAR ? CIV_OK : status;
        }
        job->found = norm > FREE_PART * before;
        for (int64_t x = 0; x < d && job->found; x++) {
            *civ_at(&direction, 0, x) /= norm;
        }
    }
    return CIV_OK;
}

/* Adds a direction orthogonal to the outputs and points, or if there is none to the
 * working set; *found tells whether there was one. */
static civ_status
add_direction(civ_pcr_dual *s, bool *found)
{
    search job = {.s = s};
    CIV_TRY(civ_run_in_arena(carve, find_direction, &job));
    *found = job.found;
    if (!job.found) {
        return CIV_OK;
    }
    int64_t e = s->basis.n_free++;
    civ_mat direction = civ_f64(civ_at(&s->basis.free, e, 0), 1, s->frame.space->d);
    return civ_pcr_dual_products(s, &direction, civ_at(&s->basis.free_table, e, 0));
}

/* sigma B is G N^1/2 v v^T N^1/2 G sigma / lambda for each eigenvalue lambda of
 * I - N^1/2 G N^1/2 that is almost zero. */
civ_status
civ_pcr_dual_open_free_directions(civ_pcr_dual *s)
{
    civ_pcr_dual_basis *basis = &s->basis;
    civ_pcr_dual_response *response = &s->response;
    civ_pcr_dual_work *work = &s->work;
    int64_t rows = basis->n_rows, n = s->set.n;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < rows; c++) {
            *civ_at(&work->squares, r, c) = (r == c) - response->root[r] *
                                                           *civ_at(&basis->gram, r, c) *
                                                           response->root[c];
        }
    }
    CIV_TRY(civ_symmetric_eigen(rows, work->squares.data, rows, work->scratch,
                                work->eigen));
    bool found = true;
    while (basis->n_free < civ_min(CIV_PCR_FREE_DIRECTIONS, rows) && found &&
           work->scratch[basis->n_free] < NEARLY_SINGULAR) {
        CIV_TRY(add_direction(s, &found));
    }
    civ_mat wide = civ_f64(response->anchor.data, rows, n + basis->n_free);
    for (int64_t r = 0; r < rows; r++) {
        memcpy(civ_at(&wide, r, 0), civ_at(&response->solution, r, 0),
               (size_t)n * sizeof(double));
        for (int64_t e = 0; e < basis->n_free; e++) {
            double size = sqrt(s->sigma / fmax(work->scratch[e], s->sigma * 1e-6));
            *civ_at(&wide, r, n + e) =
                size * response->root[r] * *civ_at(&work->squares, e, r);
        }
    }
    response->solution = civ_f64(response->solution.data, rows, n + basis->n_free);
    memcpy(response->solution.data, wide.data,
           (size_t)(rows * (n + basis->n_free)) * sizeof(double));
    return CIV_OK;
}
