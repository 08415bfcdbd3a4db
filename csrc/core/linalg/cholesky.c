/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cholesky factorisation by block columns. A block column first takes up what the ones
 * before it say about it, tile by tile; then its diagonal block is factored and the
 * tiles below are solved for. The tiles are fixed, so that the bits are the same for
 * any number of threads, and the caller may interrupt between them.
 */
#include "linalg/linalg.h"
#include "linalg/lower.h"
#include "linalg/products.h"
#include "runtime/parallel.h"

#include <math.h>

/* Rows of the right side that are solved for at once. */
#define AT_ONCE 64

typedef struct column_job {
    const civ_lower *a;
    int64_t start; /* first row and column of the diagonal block */
    int64_t width;
    int64_t first; /* first row of the first tile */
} column_job;

/* Some columns of a tile's rows. */
static civ_mat
tile_part(const column_job *job, int64_t tile, int64_t col, int64_t n_cols)
{
    int64_t row = job->first + tile * CIV_BLOCK;
    return civ_lower_part(job->a, row, civ_min(CIV_BLOCK, job->a->n - row), col,
                          n_cols);
}

/* Tile -= its rows, left of the column, times those of the diagonal block. */
static civ_status
update_tile(void *arg, int64_t tile, int worker)
{
    (void)worker;
    const column_job *job = arg;
    civ_mat target = tile_part(job, tile, job->start, job->width);
    civ_mat left = tile_part(job, tile, 0, job->start);
    civ_mat right = civ_lower_part(job->a, job->start, job->width, 0, job->start);
    return civ_gemm_nt(-1.0, &left, &right, 1.0, &target);
}

static civ_status
solve_tile(void *arg, int64_t tile, int worker)
{
    (void)worker;
    const column_job *job = arg;
    civ_mat target = tile_part(job, tile, job->start, job->width);
    civ_mat factor =
        civ_lower_part(job->a, job->start, job->width, job->start, job->width);
    return civ_lower_solve_right(&factor, &target);
}

/* Runs over the tiles from row `first` down; depth: length of a tile's inner products.
 */
static civ_status
for_tiles(const civ_exec *exec, column_job *job, int64_t first, int64_t depth,
          civ_tile_fn fn)
{
    job->first = first;
    int64_t n_tiles = (job->a->n - first + CIV_BLOCK - 1) / CIV_BLOCK;
    int64_t cost = CIV_BLOCK * job->width * depth / 32;
    return civ_parallel_for(exec, n_tiles, cost, fn, job);
}

static civ_status
factor(const civ_exec *exec, const civ_lower *a)
{
    for (int64_t start = 0; start < a->n; start += CIV_BLOCK) {
        column_job job = {a, start, civ_min(CIV_BLOCK, a->n - start), start};
        CIV_TRY(civ_poll(exec));
        if (start > 0) {
            CIV_TRY(for_tiles(exec, &job, start, start, update_tile));
        }
        civ_mat diagonal = civ_lower_part(a, start, job.width, start, job.width);
        CIV_TRY(civ_cholesky(job.width, diagonal.data, diagonal.row_stride));
        CIV_TRY(for_tiles(exec, &job, start + job.width, job.width / 2, solve_tile));
    }
    return CIV_OK;
}

civ_status
civ_spd_factor(const civ_exec *exec, const civ_mat *a)
{
    CIV_FAIL_IF(a->n_rows != a->n_cols || a->row_stride < a->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(a->dtype != CIV_F64, CIV_DTYPE);
    civ_lower lower = civ_lower_square(a);
    return factor(exec, &lower);
}

civ_status
civ_packed_factor(const civ_exec *exec, const civ_packed *a)
{
    civ_lower lower = civ_lower_packed(a);
    return factor(exec, &lower);
}

/* ---- solving with a packed factor ------------------------------------------------ */

typedef struct solve_job {
    const civ_lower *factor;
    const civ_mat *b;
} solve_job;

/* b <- b L^-T, block by block from the left. */
static civ_status
solve_forward(const civ_lower *factor, const civ_mat *b)
{
    for (int64_t start = 0; start < factor->n; start += CIV_BLOCK) {
        int64_t width = civ_min(CIV_BLOCK, factor->n - start);
        civ_mat target = {civ_at(b, 0, start), b->n_rows, width, b->row_stride,
                          CIV_F64};
        civ_mat diagonal = civ_lower_part(factor, start, width, start, width);
        if (start > 0) {
            civ_mat done = {b->data, b->n_rows, start, b->row_stride, CIV_F64};
            civ_mat row = civ_lower_part(factor, start, width, 0, start);
            CIV_TRY(civ_gemm_nt(-1.0, &done, &row, 1.0, &target));
        }
        CIV_TRY(civ_lower_solve_right(&diagonal, &target));
    }
    return CIV_OK;
}

/* b <- b L^-1, block by block from the right. */
static civ_status
solve_backward(const civ_lower *factor, const civ_mat *b)
{
    int64_t last = (factor->n - 1) / CIV_BLOCK * CIV_BLOCK;
    for (int64_t start = last; start >= 0; start -= CIV_BLOCK) {
        int64_t width = civ_min(CIV_BLOCK, factor->n - start);
        civ_mat target = {civ_at(b, 0, start), b->n_rows, width, b->row_stride,
                          CIV_F64};
        civ_mat diagonal = civ_lower_part(factor, start, width, start, width);
        CIV_TRY(civ_lower_solve_right_plain(&diagonal, &target));
        if (start > 0) {
            civ_mat rest = {b->data, b->n_rows, start, b->row_stride, CIV_F64};
            civ_mat row = civ_lower_part(factor, start, width, 0, start);
            CIV_TRY(civ_gemm_nn(-1.0, &target, &row, 1.0, &rest));
        }
    }
    return CIV_OK;
}

static civ_status
solve_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const solve_job *job = arg;
    int64_t row = index * AT_ONCE;
    civ_mat rows = {civ_at(job->b, row, 0), civ_min(AT_ONCE, job->b->n_rows - row),
                    job->b->n_cols, job->b->row_stride, CIV_F64};
    CIV_TRY(solve_forward(job->factor, &rows));
    return solve_backward(job->factor, &rows);
}

civ_status
civ_packed_solve(const civ_exec *exec, const civ_packed *factor, const civ_mat *b)
{
    CIV_FAIL_IF(b->n_cols != factor->n || b->row_stride < b->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(b->dtype != CIV_F64, CIV_DTYPE);
    if (factor->n == 0 || b->n_rows == 0) {
        return CIV_OK;
    }
    civ_lower lower = civ_lower_packed(factor);
    solve_job job = {&lower, b};
    int64_t n_tiles = (b->n_rows + AT_ONCE - 1) / AT_ONCE;
    int64_t cost = AT_ONCE * factor->n * factor->n / 32;
    return civ_parallel_for(exec, n_tiles, cost, solve_rows, &job);
}

int64_t
civ_packed_size(int64_t n)
{
    int64_t blocks = n / CIV_BLOCK, rest = n % CIV_BLOCK;
    return CIV_BLOCK * CIV_BLOCK * (blocks * (blocks + 1) / 2) + rest * n;
}

int64_t
civ_packed_order(int64_t size)
{
    /* Of n there are more than n n / 2, and at most so many and a block for each row.
     */
    int64_t n = (int64_t)sqrt(2.0 * (double)size);
    while (n > 0 && civ_packed_size(n) > size) {
        n--;
    }
    return civ_packed_size(n) == size ? n : -1;
}
