/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Low-rank updates of weights. A tile is a fixed number of rows, and each sum runs
 * over its terms in order, so the number of threads cannot change a bit.
 */
#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

#include <string.h>

/* Panels of rows in a tile: enough to reuse a panel of `right` from cache. */
#define TILE_PANELS 8

typedef struct apply_job {
    const civ_exec *exec;
    const civ_mat *w;
    const civ_mat *left;
    const civ_mat *right;
    const civ_mat *out;
    civ_mat result; /* out, or where the result waits until it is whole */
    bool apart;     /* whether result is not out */
    const civ_kernels *kernels;
    int64_t tile_rows;
    int64_t panel_cols;
    int64_t n_panels;
    int64_t n_tiles;
    int64_t tile_cost;
    char *packed_right;
    char *packed_left; /* one tile a worker */
    size_t left_bytes;
} apply_job;

/* Packs columns [panel * panel_cols, ...) of `right`. */
static civ_status
pack_panel(void *arg, int64_t panel, int worker)
{
    (void)worker;
    const apply_job *job = arg;
    const civ_mat *right = job->right;
    int64_t col = panel * job->panel_cols;
    int64_t width = civ_min(job->panel_cols, right->n_cols - col);
    int64_t rank = right->n_rows;
    size_t item = civ_dtype_size(right->dtype);
    job->kernels->pack_columns[job->w->dtype](
        (const char *)right->data + (size_t)col * item, right->row_stride, rank, width,
        job->packed_right + (size_t)(col * rank) * item);
    return CIV_OK;
}

/* Packs rows [row, row + n_rows) of `left`, panel by panel. */
static void
pack_left(const apply_job *job, int64_t row, int64_t n_rows, void *packed)
{
    const civ_mat *left = job->left;
    int64_t height = job->kernels->gemm_rows, rank = left->n_cols;
    int64_t item = (int64_t)civ_dtype_size(left->dtype);
    for (int64_t i = 0; i < n_rows; i += height) {
        int64_t count = civ_min(height, n_rows - i);
        const void *source = civ_row(left, row + i);
        job->kernels->interleave[left->dtype](source, left->row_stride, count, rank,
                                              height, (char *)packed + i * rank * item);
    }
}

static civ_status
apply_tile(void *arg, int64_t tile, int worker)
{
    const apply_job *job = arg;
    int64_t row = tile * job->tile_rows;
    int64_t n_rows = civ_min(job->tile_rows, job->w->n_rows - row);
    void *left = job->packed_left + (size_t)worker * job->left_bytes;
    pack_left(job, row, n_rows, left);
    civ_apply_block block = {
        .w = civ_row(job->w, row),
        .out = civ_row(&job->result, row),
        .w_stride = job->w->row_stride,
        .out_stride = job->result.row_stride,
        .n_rows = n_rows,
        .n_cols = job->w->n_cols,
        .rank = job->left->n_cols,
        .left = left,
        .right = job->packed_right,
    };
    job->kernels->apply_block[job->w->dtype](&block);
    return CIV_OK;
}

static civ_status
check_apply(const civ_mat *w, const civ_mat *left, const civ_mat *right,
            const civ_mat *out)
{
    civ_dtype compute = civ_dtype_compute(w->dtype);
    CIV_FAIL_IF(left->dtype != compute || right->dtype != compute, CIV_DTYPE);
    CIV_FAIL_IF(out->dtype != w->dtype, CIV_DTYPE);
    CIV_FAIL_IF(left->n_rows != w->n_rows || right->n_cols != w->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(left->n_cols != right->n_rows, CIV_SHAPE);
    CIV_FAIL_IF(out->n_rows != w->n_rows || out->n_cols != w->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(civ_overlap(left, out) || civ_overlap(right, out), CIV_ALIAS);
    return civ_check_output(w, out);
}

static void
carve(civ_arena *arena, void *arg)
{
    apply_job *job = arg;
    int workers = civ_workers(job->exec, job->n_tiles, job->tile_cost);
    size_t item = civ_dtype_size(job->left->dtype);
    int64_t rank = job->left->n_cols;
    job->left_bytes = (size_t)(job->tile_rows * rank) * item;
    job->packed_left = civ_arena_take(arena, workers, job->left_bytes);
    job->packed_right =
        civ_arena_take(arena, job->n_panels * job->panel_cols, (size_t)rank * item);
    if (job->apart) {
        job->result.data =
            civ_arena_take(arena, job->w->n_rows,
                           (size_t)job->w->n_cols * civ_dtype_size(job->w->dtype));
        job->result.row_stride = job->w->n_cols;
    }
}

static civ_status
run(void *arg)
{
    apply_job *job = arg;
    int64_t panel_cost = job->panel_cols * job->right->n_rows;
    CIV_TRY(civ_parallel_for(job->exec, job->n_panels, panel_cost, pack_panel, job));
    CIV_TRY(civ_parallel_for(job->exec, job->n_tiles, job->tile_cost, apply_tile, job));
    size_t row_bytes = (size_t)job->w->n_cols * civ_dtype_size(job->w->dtype);
    for (int64_t i = 0; job->apart && i < job->w->n_rows; i++) {
        memcpy(civ_row(job->out, i), civ_row(&job->result, i), row_bytes);
    }
    return CIV_OK;
}

/*
 * Weights changed in place are changed as a whole or, when the call is interrupted, not
 * at all: what may take long is computed apart, what is brief is not interrupted.
 */
static void
keep_whole(apply_job *job, civ_exec *uninterrupted)
{
    if (!civ_overlap(job->w, job->out)) {
        return;
    }
    job->apart = !civ_is_brief(job->exec, job->n_tiles, job->tile_cost);
    if (!job->apart && job->exec != NULL) {
        *uninterrupted = *job->exec;
        uninterrupted->poll = NULL;
        job->exec = uninterrupted;
    }
}

civ_status
civ_lowrank_apply(const civ_exec *exec, const civ_mat *w, const civ_mat *left,
                  const civ_mat *right, const civ_mat *out)
{
    CIV_TRY(check_apply(w, left, right, out));
    const civ_kernels *kernels = civ_kernel_table();
    apply_job job = {.exec = exec,
                     .w = w,
                     .left = left,
                     .right = right,
                     .out = out,
                     .result = *out,
                     .kernels = kernels};
    job.tile_rows = TILE_PANELS * kernels->gemm_rows;
    job.panel_cols = kernels->gemm_cols[w->dtype];
    job.n_panels = (w->n_cols + job.panel_cols - 1) / job.panel_cols;
    job.n_tiles = (w->n_rows + job.tile_rows - 1) / job.tile_rows;
    job.tile_cost = job.tile_rows * w->n_cols * (left->n_cols / 4 + 1);
    civ_exec uninterrupted;
    keep_whole(&job, &uninterrupted);
    return civ_run_in_arena(carve, run, &job);
}
