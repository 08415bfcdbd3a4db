/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a change of weights, after rounding, does to the outputs: one tile is a
 * register block of rows of the change against all inputs, in double precision.
 */
#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

/* Columns of the weights whose differences are multiplied at a time. */
#define DEPTH 512

typedef struct displacement_job {
    const civ_exec *exec;
    const civ_mat *base;
    const civ_mat *changed;
    const civ_mat *inputs;
    const civ_mat *displacement;
    const civ_kernels *kernels;
    int64_t n_panels; /* of gemm_cols inputs each */
    int64_t n_tiles;  /* of gemm_rows rows each */
    int64_t tile_cost;
    double *packed_inputs; /* (n_panels, n_cols, gemm_cols) */
    double *rows;          /* (gemm_rows, DEPTH) a worker */
    double *packed_rows;   /* the same, interleaved */
    double *sums;          /* (n_panels, gemm_rows, gemm_cols) a worker */
} displacement_job;

static civ_status
pack_inputs(void *arg, int64_t panel, int worker)
{
    (void)worker;
    const displacement_job *job = arg;
    const civ_mat *inputs = job->inputs;
    int64_t width = job->kernels->gemm_cols[CIV_F64];
    int64_t first = panel * width;
    int64_t count = civ_min(width, inputs->n_rows - first);
    job->kernels->interleave[CIV_F64](civ_row(inputs, first), inputs->row_stride, count,
                                      inputs->n_cols, width,
                                      job->packed_inputs + first * inputs->n_cols);
    return CIV_OK;
}

/* Differences of the rows from `row` on, columns [col, col + depth), interleaved. */
static void
pack_difference(const displacement_job *job, int64_t row, int64_t count, int64_t col,
                int64_t depth, int worker)
{
    int64_t height = job->kernels->gemm_rows;
    double *rows = job->rows + worker * height * DEPTH;
    size_t offset = (size_t)col * civ_dtype_size(job->base->dtype);
    for (int64_t i = 0; i < count; i++) {
        job->kernels->difference[job->base->dtype](
            (const char *)civ_row(job->changed, row + i) + offset,
            (const char *)civ_row(job->base, row + i) + offset, depth,
            rows + i * DEPTH);
    }
    job->kernels->interleave[CIV_F64](rows, DEPTH, count, depth, height,
                                      job->packed_rows + worker * height * DEPTH);
}

static civ_status
displacement_tile(void *arg, int64_t tile, int worker)
{
    const displacement_job *job = arg;
    int64_t height = job->kernels->gemm_rows, width = job->kernels->gemm_cols[CIV_F64];
    int64_t n_cols = job->base->n_cols;
    int64_t row = tile * height;
    int64_t count = civ_min(height, job->base->n_rows - row);
    double *sums = job->sums + worker * job->n_panels * height * width;
    for (int64_t i = 0; i < job->n_panels * height * width; i++) {
        sums[i] = 0.0;
    }
    for (int64_t col = 0; col < n_cols; col += DEPTH) {
        int64_t depth = civ_min(DEPTH, n_cols - col);
        pack_difference(job, row, count, col, depth, worker);
        for (int64_t panel = 0; panel < job->n_panels; panel++) {
            job->kernels->accumulate[CIV_F64](
                depth, job->packed_rows + worker * height * DEPTH,
                job->packed_inputs + (panel * n_cols + col) * width,
                sums + panel * height * width);
        }
    }
    for (int64_t j = 0; j < job->inputs->n_rows; j++) {
        double *target = (double *)civ_row(job->displacement, j) + row;
        for (int64_t i = 0; i < count; i++) {
            target[i] = sums[(j / width * height + i) * width + j % width];
        }
    }
    return CIV_OK;
}

static void
carve(civ_arena *arena, void *arg)
{
    displacement_job *job = arg;
    int workers = civ_workers(job->exec, job->n_tiles, job->tile_cost);
    int64_t height = job->kernels->gemm_rows, width = job->kernels->gemm_cols[CIV_F64];
    int64_t tile = workers * height * DEPTH;
    job->rows = civ_arena_take(arena, tile, sizeof(double));
    job->packed_rows = civ_arena_take(arena, tile, sizeof(double));
    job->sums =
        civ_arena_take(arena, workers * job->n_panels * height * width, sizeof(double));
    job->packed_inputs = civ_arena_take(arena, job->n_panels * job->base->n_cols,
                                        (size_t)width * sizeof(double));
}

static civ_status
run(void *arg)
{
    displacement_job *job = arg;
    int64_t panel_cost = job->kernels->gemm_cols[CIV_F64] * job->base->n_cols;
    CIV_TRY(civ_parallel_for(job->exec, job->n_panels, panel_cost, pack_inputs, job));
    return civ_parallel_for(job->exec, job->n_tiles, job->tile_cost, displacement_tile,
                            job);
}

civ_status
civ_displacement(const civ_exec *exec, const civ_mat *base, const civ_mat *changed,
                 const civ_mat *inputs, const civ_mat *displacement)
{
    CIV_FAIL_IF(base->dtype != changed->dtype, CIV_DTYPE);
    CIV_FAIL_IF(inputs->dtype != CIV_F64 || displacement->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(base->n_rows != changed->n_rows, CIV_SHAPE);
    CIV_FAIL_IF(base->n_cols != changed->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(inputs->n_cols != base->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(displacement->n_rows != inputs->n_rows, CIV_SHAPE);
    CIV_FAIL_IF(displacement->n_cols != base->n_rows, CIV_SHAPE);
    displacement_job job = {.exec = exec,
                            .base = base,
                            .changed = changed,
                            .inputs = inputs,
                            .displacement = displacement,
                            .kernels = civ_kernel_table()};
    int64_t width = job.kernels->gemm_cols[CIV_F64], height = job.kernels->gemm_rows;
    job.n_panels = (inputs->n_rows + width - 1) / width;
    job.n_tiles = (base->n_rows + height - 1) / height;
    job.tile_cost = height * base->n_cols * (inputs->n_rows / 4 + 1);
    return civ_run_in_arena(carve, run, &job);
}
