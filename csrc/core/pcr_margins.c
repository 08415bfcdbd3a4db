/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far outputs are from what constrains them. Independent of the solvers, so that
 * it can judge what they return.
 */
#include "products.h"

#include <math.h>
#include <string.h>

/* Squared distances below this part of the squared norms are computed directly. */
#define CANCELLED 1e-3
#define ROWS_PER_TILE 64

typedef struct margins_job {
    const civ_mat *outputs;
    const civ_pcr_problem *problem;
    const civ_mat *out;
    civ_mat centred; /* concepts about their mean (n, d) */
    double *mean;    /* (d) */
    double *square;  /* squared norms of centred concepts (n) */
    double *scratch; /* (ROWS_PER_TILE d) a worker */
} margins_job;

static double
squared_distance(const double *x, const double *y, int64_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (x[i] - y[i]) * (x[i] - y[i]);
    }
    return sum;
}

static civ_status
concept_margins(const margins_job *job, int64_t first, int64_t rows, double *scratch)
{
    int64_t n = job->problem->concepts.n_rows, d = job->outputs->n_cols;
    civ_mat shifted = civ_f64(scratch, rows, d);
    for (int64_t i = 0; i < rows; i++) {
        const double *y = civ_at(job->outputs, first + i, 0);
        for (int64_t x = 0; x < d; x++) {
            scratch[i * d + x] = y[x] - job->mean[x];
        }
    }
    civ_mat out = {civ_at(job->out, first, 0), rows, n, job->out->row_stride, CIV_F64};
    CIV_TRY(civ_gemm_nt(-2.0, &shifted, &job->centred, 0.0, &out));
    for (int64_t i = 0; i < rows; i++) {
        const double *y = scratch + i * d;
        double square = civ_dot(d, y, y);
        for (int64_t l = 0; l < n; l++) {
            double both = square + job->square[l];
            double *margin = civ_at(&out, i, l);
            double distance = both + *margin;
            if (!(distance > CANCELLED * both)) {
                distance = squared_distance(y, civ_at(&job->centred, l, 0), d);
            }
            *margin = sqrt(distance) - *civ_at(&job->problem->radius, first + i, l);
        }
    }
    return CIV_OK;
}

static civ_status
direction_margins(const margins_job *job, int64_t first, int64_t rows)
{
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

static civ_status
margins_tile(void *arg, int64_t tile, int worker)
{
    const margins_job *job = arg;
    int64_t first = tile * ROWS_PER_TILE;
    int64_t rows = civ_min(ROWS_PER_TILE, job->outputs->n_rows - first);
    double *scratch = job->scratch + worker * ROWS_PER_TILE * job->outputs->n_cols;
    CIV_TRY(concept_margins(job, first, rows, scratch));
    return direction_margins(job, first, rows);
}

static void
centre(margins_job *job)
{
    const civ_mat *concepts = &job->problem->concepts;
    int64_t n = concepts->n_rows, d = concepts->n_cols;
    memset(job->mean, 0, (size_t)d * sizeof(double));
    for (int64_t l = 0; l < n; l++) {
        const double *c = civ_at(concepts, l, 0);
        for (int64_t x = 0; x < d; x++) {
            job->mean[x] += c[x];
        }
    }
    for (int64_t x = 0; x < d && n > 0; x++) {
        job->mean[x] /= (double)n;
    }
    for (int64_t l = 0; l < n; l++) {
        const double *c = civ_at(concepts, l, 0);
        double *row = civ_at(&job->centred, l, 0);
        for (int64_t x = 0; x < d; x++) {
            row[x] = c[x] - job->mean[x];
        }
        job->square[l] = civ_dot(d, row, row);
    }
}

static void
carve(civ_arena *arena, margins_job *job, int workers)
{
    int64_t n = job->problem->concepts.n_rows, d = job->outputs->n_cols;
    double *centred = civ_arena_take(arena, n * d, sizeof(double));
    job->centred = civ_f64(centred, n, d);
    job->mean = civ_arena_take(arena, d, sizeof(double));
    job->square = civ_arena_take(arena, n, sizeof(double));
    job->scratch = civ_arena_take(arena, workers * ROWS_PER_TILE * d, sizeof(double));
}

civ_status
civ_pcr_margins(const civ_exec *exec, const civ_pcr_problem *problem,
                const civ_mat *outputs, const civ_mat *out)
{
    int64_t m = problem->outputs.n_rows, d = problem->outputs.n_cols;
    int64_t p = problem->concepts.n_rows + problem->directions.n_rows;
    CIV_FAIL_IF(outputs->n_rows != m || outputs->n_cols != d, CIV_SHAPE);
    CIV_FAIL_IF(out->n_rows != m || out->n_cols != p, CIV_SHAPE);
    CIV_FAIL_IF(outputs->dtype != CIV_F64 || out->dtype != CIV_F64, CIV_DTYPE);
    margins_job job = {.outputs = outputs, .problem = problem, .out = out};
    int64_t tiles = (m + ROWS_PER_TILE - 1) / ROWS_PER_TILE;
    int64_t cost = ROWS_PER_TILE * d * (p + 1) / 4;
    int workers = civ_workers(exec, tiles, cost);
    civ_arena arena = {0};
    carve(&arena, &job, workers);
    CIV_TRY(civ_arena_open(&arena));
    carve(&arena, &job, workers);
    centre(&job);
    civ_status status = civ_parallel_for(exec, tiles, cost, margins_tile, &job);
    civ_arena_close(&arena);
    return status;
}
