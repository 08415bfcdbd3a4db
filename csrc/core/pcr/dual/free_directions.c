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

/* Eigenvalues of I - N^1/2 G N^1/2 below this may stand for a spare direction. */
#define NEARLY_SINGULAR 1e-3
/* Part of a random vector that must survive for a direction to be a free one. */
#define FREE_PART 1e-3
#define PROJECTION_RIDGE 1e-12

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

/* sigma B is G N^1/2 v v^T N^1/2 G sigma / lambda for each eigenvalue lambda of
 * I - N^1/2 G N^1/2 that is almost zero. */
civ_status
civ_pcr_open_spares(civ_pcr_dual *s)
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
