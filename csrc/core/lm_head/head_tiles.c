/* SPDX-License-Identifier: Apache-2.0 */
/* Passes over tiles of columns: G times the gradient, and products of gradients. */
#include "lm_head/head_tiles.h"

#include "runtime/parallel.h"

#include <string.h>

/* Rough operations for one element, beside the products. */
#define COST 4

static void *
at(const civ_mat *x, int64_t row, int64_t col)
{
    return (char *)civ_row(x, row) + (size_t)col * civ_dtype_size(x->dtype);
}

/* ---- tiles of columns: G times the gradient ----------------------------------- */

typedef struct respond_job {
    const civ_head *head;
    const civ_mat *gradient;
    const civ_mat *response;
    const civ_pgd_point *here;
    const civ_pgd_point *trail;
} respond_job;

/* The left operand: G with weighted columns, rounded to the lanes and packed. */
static void
pack_gram(civ_head *self, const double *weights)
{
    int64_t m = self->m, height = self->kernels->gemm_rows;
    int64_t item = (int64_t)civ_dtype_size(self->lanes);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < m; j++) {
            double weight = weights == NULL ? 1.0 : weights[j];
            double value = *civ_at(&self->problem->gram, i, j) * weight;
            if (self->lanes == CIV_F64) {
                ((double *)self->rows)[i * m + j] = value;
            } else {
                ((float *)self->rows)[i * m + j] = (float)value;
            }
        }
    }
    for (int64_t i = 0; i < m; i += height) {
        int64_t count = civ_min(height, m - i);
        self->kernels->interleave[self->lanes]((char *)self->rows + i * m * item, m,
                                               count, m, height,
                                               (char *)self->left + i * m * item);
    }
}

/* Columns [col, col + width) of x in panels, as the right operand of a product. */
static void
pack_tile(const civ_head *head, const civ_mat *x, int64_t col, int64_t width,
          void *packed)
{
    const civ_kernels *kernels = head->kernels;
    int64_t m = head->m, panel = kernels->gemm_cols[head->lanes];
    int64_t item = (int64_t)civ_dtype_size(head->lanes);
    for (int64_t j = 0; j < width; j += panel) {
        int64_t count = civ_min(panel, width - j);
        kernels->pack_columns[head->lanes](at(x, 0, col + j), x->row_stride, m, count,
                                           (char *)packed + j * m * item);
    }
}

/* Inner products of one tile, row after row. */
static void
sum_tile(const respond_job *job, int64_t col, int64_t width, double *sums)
{
    const civ_head *head = job->head;
    civ_dot_fn dot = head->kernels->dot[head->lanes];
    memset(sums, 0, CIV_PGD_SUMS * sizeof(double));
    for (int64_t j = 0; j < head->m; j++) {
        const void *g = at(job->gradient, j, col);
        const void *here = at(&job->here->displacements, j, col);
        const void *trail = at(&job->trail->coefficients, j, col);
        const void *moved = at(&job->trail->displacements, j, col);
        sums[CIV_GRAD_GRAD] += dot(g, at(job->response, j, col), width);
        sums[CIV_GRAD_HERE] += dot(g, here, width);
        sums[CIV_HERE_HERE] += dot(at(&job->here->coefficients, j, col), here, width);
        sums[CIV_GRAD_TRAIL] += dot(g, moved, width);
        sums[CIV_HERE_TRAIL] += dot(trail, here, width);
        sums[CIV_TRAIL_TRAIL] += dot(trail, moved, width);
    }
}

static civ_status
respond_tile(void *arg, int64_t tile, int worker)
{
    const respond_job *job = arg;
    const civ_head *head = job->head;
    void *packed = head->scratch + worker * head->worker_bytes;
    int64_t col = tile * head->tile;
    int64_t width = civ_min(head->tile, head->vocab - col);
    pack_tile(head, job->gradient, col, width, packed);
    civ_apply_block block = {
        .w = head->zeros,
        .w_stride = 0,
        .out = at(job->response, 0, col),
        .out_stride = job->response->row_stride,
        .n_rows = head->m,
        .n_cols = width,
        .rank = head->m,
        .left = head->left,
        .right = packed,
    };
    head->kernels->apply_block[head->lanes](&block);
    if (job->here != NULL) {
        sum_tile(job, col, width, head->sums + tile * CIV_PGD_SUMS);
    }
    return CIV_OK;
}

civ_status
civ_head_respond(const civ_exec *exec, civ_head *self, const double *weights,
                 const civ_mat *gradient, const civ_mat *response,
                 const civ_pgd_point *here, const civ_pgd_point *trail, double *sum)
{
    pack_gram(self, weights);
    respond_job job = {self, gradient, response, here, trail};
    int64_t cost = self->m * self->tile * (self->m / 8 + COST);
    CIV_TRY(civ_parallel_for(exec, self->n_tiles, cost, respond_tile, &job));
    for (int i = 0; here != NULL && i < CIV_PGD_SUMS; i++) {
        sum[i] = 0.0;
        for (int64_t tile = 0; tile < self->n_tiles; tile++) {
            sum[i] += self->sums[tile * CIV_PGD_SUMS + i];
        }
    }
    return CIV_OK;
}

/* ---- strips of columns: inner products of the gradients ------------------------ */

typedef struct align_job {
    const civ_head *head;
    const civ_mat *gradient;
    const civ_pgd_point *here;
} align_job;

/* Rows of a tile, `height` at a time, as an operand whose inner dimension is columns.
 */
static void
interleave_tile(const civ_head *head, const civ_mat *x, int64_t col, int64_t width,
                int64_t height, void *packed)
{
    int64_t item = (int64_t)civ_dtype_size(head->lanes);
    for (int64_t i = 0; i < head->m; i += height) {
        int64_t count = civ_min(height, head->m - i);
        head->kernels->interleave[head->lanes](at(x, i, col), x->row_stride, count,
                                               width, height,
                                               (char *)packed + i * width * item);
    }
}

/* Adds the products of all pairs of rows of a tile to blocks of gemm_rows by panel. */
static void
add_products(const civ_head *head, const civ_mat *gradient, int64_t col, int64_t width,
             char *packed, double *sums)
{
    const civ_kernels *kernels = head->kernels;
    int64_t height = kernels->gemm_rows, panel = kernels->gemm_cols[head->lanes];
    int64_t item = (int64_t)civ_dtype_size(head->lanes);
    char *right = packed + head->padded_rows * head->tile * item;
    interleave_tile(head, gradient, col, width, height, packed);
    interleave_tile(head, gradient, col, width, panel, right);
    for (int64_t i = 0; i < head->m; i += height) {
        for (int64_t j = 0; j < head->m; j += panel) {
            double *block = sums + i * head->padded_cols + j * height;
            kernels->accumulate[head->lanes](width, packed + i * width * item,
                                             right + j * width * item, block);
        }
    }
}

static civ_status
align_strip(void *arg, int64_t strip, int worker)
{
    const align_job *job = arg;
    const civ_head *head = job->head;
    civ_dot_fn dot = head->kernels->dot[head->lanes];
    int64_t m = head->m, products = head->padded_rows * head->padded_cols;
    double *sums = head->sums + strip * (products + 2 * m);
    double *along = sums + products, *squares = along + m;
    memset(sums, 0, (size_t)(products + 2 * m) * sizeof(double));
    int64_t last = (strip + 1) * head->n_tiles / head->n_strips;
    for (int64_t t = strip * head->n_tiles / head->n_strips; t < last; t++) {
        int64_t col = t * head->tile;
        int64_t width = civ_min(head->tile, head->vocab - col);
        add_products(head, job->gradient, col, width,
                     head->scratch + worker * head->worker_bytes, sums);
        for (int64_t j = 0; j < m; j++) {
            const void *moved = at(&job->here->displacements, j, col);
            along[j] += dot(at(job->gradient, j, col), moved, width);
            squares[j] += dot(at(&job->here->coefficients, j, col), moved, width);
        }
    }
    return CIV_OK;
}

civ_status
civ_head_align(const civ_exec *exec, civ_head *self, const civ_mat *gradient,
               const civ_pgd_point *here, const civ_mat *inner, double *along,
               double *square)
{
    align_job job = {self, gradient, here};
    int64_t m = self->m, height = self->kernels->gemm_rows;
    int64_t panel = self->kernels->gemm_cols[self->lanes];
    int64_t products = self->padded_rows * self->padded_cols;
    int64_t cost = m * (self->vocab / self->n_strips) * (m / 8 + COST);
    CIV_TRY(civ_parallel_for(exec, self->n_strips, cost, align_strip, &job));
    for (int64_t strip = 1; strip < self->n_strips; strip++) {
        const double *part = self->sums + strip * (products + 2 * m);
        for (int64_t i = 0; i < products + 2 * m; i++) {
            self->sums[i] += part[i];
        }
    }
    *square = 0.0;
    for (int64_t i = 0; i < m; i++) {
        along[i] = self->sums[products + i];
        *square += self->sums[products + m + i];
        for (int64_t j = 0; j < m; j++) {
            int64_t block = i / height * height * self->padded_cols;
            int64_t within =
                j / panel * panel * height + i % height * panel + j % panel;
            *civ_at(inner, i, j) =
                *civ_at(&self->problem->gram, i, j) * self->sums[block + within];
        }
    }
    return CIV_OK;
}
