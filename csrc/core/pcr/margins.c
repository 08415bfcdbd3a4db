/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far outputs are from what constrains them. Independent of the solvers, so that
 * it can judge what they return.
 */
#include "linalg/inner.h"
#include "linalg/products.h"
#include "runtime/parallel.h"

#include <math.h>

#define ROWS_PER_TILE 64

/* Distances minus radii. rows: for pointers to the outputs and concepts (m + n). */
static civ_status
concept_margins(const civ_exec *exec, const civ_pcr_problem *problem,
                const civ_mat *outputs, const civ_mat *out, const double **rows)
{
    int64_t m = outputs->n_rows, n = problem->concepts.n_rows;
    for (int64_t j = 0; j < m; j++) {
        rows[j] = civ_at(outputs, j, 0);
    }
    for (int64_t l = 0; l < n; l++) {
        rows[m + l] = civ_at(&problem->concepts, l, 0);
    }
    civ_inner_block block = {.x = rows, .y = rows + m, .n_x = m, .n_y = n};
    block.depth = outputs->n_cols;
    block.distances = true;
    block.out = (civ_mat){out->data, m, n, out->row_stride, CIV_F64};
    CIV_TRY(civ_inner_products(exec, &block));
    for (int64_t j = 0; j < m; j++) {
        for (int64_t l = 0; l < n; l++) {
            double *margin = civ_at(out, j, l);
            *margin = sqrt(*margin) - *civ_at(&problem->radius, j, l);
        }
    }
    return CIV_OK;
}

typedef struct margins_job {
    const civ_mat *outputs;
    const civ_pcr_problem *problem;
    const civ_mat *out;
} margins_job;

static civ_status
direction_margins(void *arg, int64_t tile, int worker)
{
    (void)worker;
    const margins_job *job = arg;
    int64_t first = tile * ROWS_PER_TILE;
    int64_t rows = civ_min(ROWS_PER_TILE, job->outputs->n_rows - first);
    int64_t n = job->problem->concepts.n_rows, k = job->problem->directions.n_rows;
    civ_mat y = {civ_at(job->outputs, first, 0), rows, job->outputs->n_cols,
                 job->outputs->row_stride, CIV_F64};
    civ_mat out = {civ_at(job->out, first, n), rows, k, job->out->row_stride, CIV_F64};
    CIV_TRY(civ_gemm_nt(-1.0, &y, &job->problem->directions, 0.0, &out));
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t l = 0; l < k; l++) {
            *civ_at(&out, i, l) += *civ_at(&job->problem->offsets, first + i, l);
        }
    }
    return CIV_OK;
}

civ_status
civ_pcr_margins(const civ_exec *exec, const civ_pcr_problem *problem,
                const civ_mat *outputs, const civ_mat *out)
{
    int64_t m = problem->outputs.n_rows, d = problem->outputs.n_cols;
    int64_t n = problem->concepts.n_rows, k = problem->directions.n_rows;
    CIV_FAIL_IF(outputs->n_rows != m || outputs->n_cols != d, CIV_SHAPE);
    CIV_FAIL_IF(out->n_rows != m || out->n_cols != n + k, CIV_SHAPE);
    CIV_FAIL_IF(outputs->dtype != CIV_F64 || out->dtype != CIV_F64, CIV_DTYPE);
    civ_arena arena = {0};
    civ_arena_take(&arena, m + n, sizeof(double *));
    CIV_TRY(civ_arena_open(&arena));
    const double **rows = civ_arena_take(&arena, m + n, sizeof(double *));
    civ_status status = concept_margins(exec, problem, outputs, out, rows);
    civ_arena_close(&arena);
    CIV_TRY(status);
    margins_job job = {outputs, problem, out};
    int64_t tiles = (m + ROWS_PER_TILE - 1) / ROWS_PER_TILE;
    int64_t cost = ROWS_PER_TILE * d * (k + 1) / 4;
    return k > 0 ? civ_parallel_for(exec, tiles, cost, direction_margins, &job)
                 : CIV_OK;
}
