/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cholesky factorisation by block columns. A block column first takes up what the ones
 * before it say about it, tile by tile; then its diagonal block is factored and the
 * tiles below are solved for. The tiles are fixed, so that the bits are the same for
 * any number of threads, and the caller may interrupt between them.
 */
#include "linalg/linalg.h"
#include "linalg/products.h"
#include "runtime/parallel.h"

/* Columns of a block column, and rows of a tile below its diagonal block. */
#define WIDTH 256
#define HEIGHT 256

typedef struct column_job {
    const civ_mat *a;
    int64_t start; /* first row and column of the diagonal block */
    int64_t width;
    int64_t first; /* first row of the first tile */
} column_job;

static civ_mat
part(const civ_mat *a, int64_t row, int64_t n_rows, int64_t col, int64_t n_cols)
{
    return (civ_mat){civ_at(a, row, col), n_rows, n_cols, a->row_stride, CIV_F64};
}

/* Some columns of a tile's rows. */
static civ_mat
tile_part(const column_job *job, int64_t tile, int64_t col, int64_t n_cols)
{
    int64_t row = job->first + tile * HEIGHT;
    return part(job->a, row, civ_min(HEIGHT, job->a->n_rows - row), col, n_cols);
}

/* Tile -= its rows, left of the column, times those of the diagonal block. */
static civ_status
update_tile(void *arg, int64_t tile, int worker)
{
    (void)worker;
    const column_job *job = arg;
    civ_mat target = tile_part(job, tile, job->start, job->width);
    civ_mat left = tile_part(job, tile, 0, job->start);
    civ_mat right = part(job->a, job->start, job->width, 0, job->start);
    return civ_gemm_nt(-1.0, &left, &right, 1.0, &target);
}

static civ_status
solve_tile(void *arg, int64_t tile, int worker)
{
    (void)worker;
    const column_job *job = arg;
    civ_mat target = tile_part(job, tile, job->start, job->width);
    civ_mat factor = part(job->a, job->start, job->width, job->start, job->width);
    return civ_lower_solve_right(&factor, &target);
}

/* Runs over the tiles from row `first` down; depth: length of a tile's inner products.
 */
static civ_status
for_tiles(const civ_exec *exec, column_job *job, int64_t first, int64_t depth,
          civ_tile_fn fn)
{
    job->first = first;
    int64_t n_tiles = (job->a->n_rows - first + HEIGHT - 1) / HEIGHT;
    int64_t cost = HEIGHT * job->width * depth / 32;
    return civ_parallel_for(exec, n_tiles, cost, fn, job);
}

civ_status
civ_spd_factor(const civ_exec *exec, const civ_mat *a)
{
    CIV_FAIL_IF(a->n_rows != a->n_cols || a->row_stride < a->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(a->dtype != CIV_F64, CIV_DTYPE);
    for (int64_t start = 0; start < a->n_rows; start += WIDTH) {
        column_job job = {a, start, civ_min(WIDTH, a->n_rows - start), start};
        CIV_TRY(civ_poll(exec));
        if (start > 0) {
            CIV_TRY(for_tiles(exec, &job, start, start, update_tile));
        }
        CIV_TRY(civ_cholesky(job.width, civ_at(a, start, start), a->row_stride));
        CIV_TRY(for_tiles(exec, &job, start + job.width, job.width / 2, solve_tile));
    }
    return CIV_OK;
}
