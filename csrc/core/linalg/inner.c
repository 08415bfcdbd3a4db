/* SPDX-License-Identifier: Apache-2.0 */
#include "linalg/inner.h"

#include "kernels/dispatch.h"
#include "linalg/matrix.h"
#include "runtime/parallel.h"

/* Blocks of the kernel in a tile, each way. */
#define TILE 4
/* Columns multiplied at a time: the rows of a tile then stay in the cache. */
#define DEPTH 512
/* Sums of a tile for any kernel: CIV_DOT_ROWS rows, vectors of CIV_DOT_LANES. */
#define SUMS (TILE * TILE * CIV_DOT_ROWS * CIV_DOT_ROWS * CIV_DOT_LANES)

typedef struct inner_job {
    const civ_inner_block *block;
    const civ_kernels *kernels;
    civ_dots_fn terms;
    int64_t rows;    /* of a block of the kernel: dot_rows, or 1 */
    int64_t columns; /* of it */
    int64_t tile_columns;
} inner_job;

/* Vectors [first, first + dot_rows) from column `start` on; the last one again where
 * there are none. */
static void
point_at(const double *const *x, int64_t n, int64_t first, int64_t count, int64_t start,
         const double **out)
{
    for (int64_t i = 0; i < count; i++) {
        out[i] = x[civ_min(first + i, n - 1)] + start;
    }
}

/* Whether all of a block of the kernel lies where the mirror will fill it. */
static bool
is_above(const civ_inner_block *block, int64_t row, int64_t height, int64_t col,
         int64_t width)
{
    return block->symmetric && col > row + height - 1 && col + width <= block->n_x;
}

static void
multiply(const inner_job *job, int64_t row, int64_t col, int64_t start, double *sums)
{
    const civ_inner_block *block = job->block;
    int64_t rows = job->rows, columns = job->columns;
    int64_t size = rows * columns * job->kernels->dot_lanes;
    int64_t depth = civ_min(DEPTH, block->depth - start);
    const double *x[CIV_DOT_ROWS], *y[CIV_DOT_ROWS];
    for (int64_t i = row; i < civ_min(row + TILE * rows, block->n_x); i += rows) {
        point_at(block->x, block->n_x, i, rows, start, x);
        double *block_sums = sums + (i - row) / rows * TILE * size;
        int64_t end = civ_min(col + TILE * columns, block->n_y);
        for (int64_t k = col; k < end; k += columns) {
            if (!is_above(block, i, rows, k, columns)) {
                point_at(block->y, block->n_y, k, columns, start, y);
                job->terms(x, y, depth, block_sums + (k - col) / columns * size);
            }
        }
    }
}

/* Sums up the lanes of one element. */
static double
fold(const inner_job *job, int64_t i, int64_t k, const double *sums)
{
    int64_t rows = job->rows, columns = job->columns, lanes = job->kernels->dot_lanes;
    int64_t block = i / rows * TILE + k / columns;
    int64_t place = (block * rows + i % rows) * columns + k % columns;
    const double *lane = sums + place * lanes;
    double sum = 0.0;
    for (int64_t x = 0; x < lanes; x++) {
        sum += lane[x];
    }
    return sum;
}

static civ_status
inner_tile(void *arg, int64_t index, int worker)
{
    (void)worker;
    const inner_job *job = arg;
    const civ_inner_block *block = job->block;
    int64_t height = TILE * job->rows, width = TILE * job->columns;
    int64_t row = index / job->tile_columns * height;
    int64_t col = index % job->tile_columns * width;
    if (is_above(block, row, height, col, width)) {
        return CIV_OK;
    }
    double sums[SUMS] = {0};
    for (int64_t start = 0; start < block->depth; start += DEPTH) {
        multiply(job, row, col, start, sums);
    }
    for (int64_t i = row; i < civ_min(row + height, block->n_x); i++) {
        for (int64_t k = col; k < civ_min(col + width, block->n_y); k++) {
            bool twice = block->symmetric && k < block->n_x;
            if (!twice || k <= i) {
                double value = fold(job, i - row, k - col, sums);
                *civ_at(&block->out, i, k) = value;
                if (twice) {
                    *civ_at(&block->out, k, i) = value;
                }
            }
        }
    }
    return CIV_OK;
}

civ_status
civ_inner_products(const civ_exec *exec, const civ_inner_block *block)
{
    CIV_FAIL_IF(block->out.n_rows != block->n_x || block->out.n_cols != block->n_y,
                CIV_SHAPE);
    CIV_FAIL_IF(block->out.dtype != CIV_F64, CIV_DTYPE);
    inner_job job = {.block = block, .kernels = civ_kernel_table()};
    const civ_kernels *kernels = job.kernels;
    if (block->n_x == 1) {
        job.terms = block->distances ? kernels->row_distances : kernels->row_dots;
    } else {
        job.terms = block->distances ? kernels->distances : kernels->dots;
    }
    job.rows = block->n_x == 1 ? 1 : kernels->dot_rows;
    job.columns = kernels->dot_rows;
    int64_t height = TILE * job.rows, width = TILE * job.columns;
    int64_t tile_rows = (block->n_x + height - 1) / height;
    job.tile_columns = (block->n_y + width - 1) / width;
    int64_t cost =
        civ_min(height, block->n_x) * civ_min(width, block->n_y) * block->depth / 16;
    return civ_parallel_for(exec, tile_rows * job.tile_columns, cost, inner_tile, &job);
}
