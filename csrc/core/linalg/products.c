/* SPDX-License-Identifier: Apache-2.0 */
#include "linalg/products.h"

#include "kernels/dispatch.h"
#include "linalg/inner.h"
#include "linalg/lapack.h"
#include "linalg/lower.h"
#include "runtime/forks.h"
#include "runtime/parallel.h"

#include <limits.h>

/* Most rows and columns of the output that one tile computes: small outputs have small
 * tiles, so that there is one for each thread and less above the diagonal. */
#define TILE CIV_BLOCK
#define SMALL_TILE 128
/* Length of the inner dimension that is widened at a time. */
#define DEPTH 256

/* ---- small ------------------------------------------------------------------- */

static bool
fits(const civ_mat *x)
{
    return x->n_rows <= INT_MAX && x->n_cols <= INT_MAX && x->row_stride >= 0 &&
           x->row_stride <= INT_MAX && x->dtype == CIV_F64;
}

static int
stride(const civ_mat *x)
{
    return (int)civ_max(civ_max(x->row_stride, x->n_cols), 1);
}

static civ_status
gemm(CBLAS_TRANSPOSE op_a, CBLAS_TRANSPOSE op_b, double alpha, const civ_mat *a,
     const civ_mat *b, double beta, const civ_mat *c)
{
    CIV_FAIL_IF(!fits(a) || !fits(b) || !fits(c), CIV_INVALID_ARGUMENT);
    int64_t depth = op_a == CblasTrans ? a->n_rows : a->n_cols;
    int64_t rows = op_a == CblasTrans ? a->n_cols : a->n_rows;
    int64_t inner = op_b == CblasTrans ? b->n_cols : b->n_rows;
    int64_t cols = op_b == CblasTrans ? b->n_rows : b->n_cols;
    CIV_FAIL_IF(depth != inner || rows != c->n_rows || cols != c->n_cols, CIV_SHAPE);
    if (rows > 0 && cols > 0) {
        civ_blas_enter();
        CIV_CBLAS(dgemm)(CblasRowMajor, op_a, op_b, (int)rows, (int)cols, (int)depth,
                         alpha, a->data, stride(a), b->data, stride(b), beta, c->data,
                         stride(c));
        civ_blas_leave();
    }
    return CIV_OK;
}

civ_status
civ_gemm_nn(double alpha, const civ_mat *a, const civ_mat *b, double beta,
            const civ_mat *c)
{
    return gemm(CblasNoTrans, CblasNoTrans, alpha, a, b, beta, c);
}

civ_status
civ_gemm_nt(double alpha, const civ_mat *a, const civ_mat *b, double beta,
            const civ_mat *c)
{
    return gemm(CblasNoTrans, CblasTrans, alpha, a, b, beta, c);
}

civ_status
civ_gemm_tn(double alpha, const civ_mat *a, const civ_mat *b, double beta,
            const civ_mat *c)
{
    return gemm(CblasTrans, CblasNoTrans, alpha, a, b, beta, c);
}

static civ_status
lower_solve(CBLAS_SIDE side, CBLAS_TRANSPOSE op, const civ_mat *lower, const civ_mat *b)
{
    CIV_FAIL_IF(!fits(lower) || !fits(b), CIV_INVALID_ARGUMENT);
    int64_t order = side == CblasLeft ? b->n_rows : b->n_cols;
    CIV_FAIL_IF(lower->n_rows != lower->n_cols || lower->n_rows != order, CIV_SHAPE);
    if (b->n_rows > 0 && b->n_cols > 0) {
        civ_blas_enter();
        CIV_CBLAS(dtrsm)(CblasRowMajor, side, CblasLower, op, CblasNonUnit,
                         (int)b->n_rows, (int)b->n_cols, 1.0, lower->data,
                         stride(lower), b->data, stride(b));
        civ_blas_leave();
    }
    return CIV_OK;
}

civ_status
civ_lower_solve(const civ_mat *lower, const civ_mat *b)
{
    return lower_solve(CblasLeft, CblasNoTrans, lower, b);
}

civ_status
civ_lower_solve_right(const civ_mat *lower, const civ_mat *b)
{
    return lower_solve(CblasRight, CblasTrans, lower, b);
}

civ_status
civ_lower_solve_right_plain(const civ_mat *lower, const civ_mat *b)
{
    return lower_solve(CblasRight, CblasNoTrans, lower, b);
}

civ_status
civ_gemv(double alpha, const civ_mat *a, const double *x, double beta, double *y)
{
    CIV_FAIL_IF(!fits(a), CIV_INVALID_ARGUMENT);
    if (a->n_rows > 0 && a->n_cols > 0) {
        civ_blas_enter();
        CIV_CBLAS(dgemv)(CblasRowMajor, CblasNoTrans, (int)a->n_rows, (int)a->n_cols,
                         alpha, a->data, stride(a), x, 1, beta, y, 1);
        civ_blas_leave();
    }
    return CIV_OK;
}

double
civ_dot(int64_t n, const double *x, const double *y)
{
    assert(n <= INT_MAX);
    return CIV_CBLAS(ddot)((int)n, x, 1, y, 1);
}

void
civ_axpy(int64_t n, double alpha, const double *x, double *y)
{
    assert(n <= INT_MAX);
    CIV_CBLAS(daxpy)((int)n, alpha, x, 1, y, 1);
}

/* ---- large ------------------------------------------------------------------- */

/* Rows [row, row + n_rows) and columns [col, col + n_cols) of x as doubles. */
static civ_mat
block(const civ_mat *x, int64_t row, int64_t n_rows, int64_t col, int64_t n_cols,
      double *scratch)
{
    if (x->dtype == CIV_F64 && x->row_stride >= x->n_cols && x->row_stride <= INT_MAX) {
        return (civ_mat){civ_at(x, row, col), n_rows, n_cols, x->row_stride, CIV_F64};
    }
    int64_t skipped = col * (int64_t)civ_dtype_size(x->dtype);
    for (int64_t i = 0; i < n_rows; i++) {
        const char *source = (const char *)civ_row(x, row + i) + skipped;
        civ_kernel_table()->to_f64[x->dtype](source, n_cols, scratch + i * n_cols);
    }
    return civ_f64(scratch, n_rows, n_cols);
}

/* GRAM and MOMENT are symmetric: only the lower tiles are computed. Those of GRAM are
 * mirrored, those of MOMENT have a place in a packed triangle. */
typedef enum product_kind {
    PRODUCT_NT,
    PRODUCT_NN,
    PRODUCT_GRAM,
    PRODUCT_MOMENT
} product_kind;

typedef struct product_job {
    product_kind kind;
    const civ_mat *a;
    const civ_mat *b;
    const civ_mat *out;        /* of MOMENT the shape alone */
    const civ_lower *triangle; /* of MOMENT */
    int64_t depth;
    int64_t tile;         /* rows and columns of a tile */
    int64_t tile_columns; /* tiles in a row of tiles */
    double *scratch;      /* 2 TILE DEPTH doubles a worker */
} product_job;

/* One DEPTH-long slice of the inner dimension of a tile. */
static civ_status
add_slice(const product_job *job, const civ_mat *tile, int64_t row, int64_t col,
          int64_t start, double *scratch)
{
    int64_t n = civ_min(DEPTH, job->depth - start);
    double *other = scratch + TILE * DEPTH;
    double beta = start > 0 || job->kind == PRODUCT_MOMENT ? 1.0 : 0.0;
    if (job->kind == PRODUCT_MOMENT) {
        civ_mat left = block(job->a, start, n, row, tile->n_rows, scratch);
        civ_mat right = block(job->a, start, n, col, tile->n_cols, other);
        return civ_gemm_tn(1.0, &left, &right, beta, tile);
    }
    civ_mat left = block(job->a, row, tile->n_rows, start, n, scratch);
    if (job->kind == PRODUCT_NN) {
        civ_mat right = block(job->b, start, n, col, tile->n_cols, other);
        return civ_gemm_nn(1.0, &left, &right, beta, tile);
    }
    civ_mat right = block(job->b, col, tile->n_cols, start, n, other);
    return civ_gemm_nt(1.0, &left, &right, beta, tile);
}

/* Copies what lies below the diagonal to its place above. */
static void
mirror(const civ_mat *out, const civ_mat *tile, int64_t row, int64_t col)
{
    for (int64_t i = 0; i < tile->n_rows; i++) {
        int64_t end = civ_min(tile->n_cols, row + i - col);
        for (int64_t j = 0; j < end; j++) {
            *civ_at(out, col + j, row + i) = *civ_at(tile, i, j);
        }
    }
}

static civ_status
product_tile(void *arg, int64_t index, int worker)
{
    const product_job *job = arg;
    int64_t row = index / job->tile_columns * job->tile;
    int64_t col = index % job->tile_columns * job->tile;
    bool symmetric = job->kind == PRODUCT_MOMENT || job->kind == PRODUCT_GRAM;
    if (symmetric && col > row) {
        return CIV_OK;
    }
    int64_t n_rows = civ_min(job->tile, job->out->n_rows - row);
    int64_t n_cols = civ_min(job->tile, job->out->n_cols - col);
    civ_mat tile = {0};
    if (job->kind == PRODUCT_MOMENT) {
        tile = civ_lower_part(job->triangle, row, n_rows, col, n_cols);
    } else {
        tile = (civ_mat){civ_at(job->out, row, col), n_rows, n_cols,
                         job->out->row_stride, CIV_F64};
    }
    double *scratch = job->scratch + 2 * TILE * DEPTH * worker;
    for (int64_t start = 0; start < job->depth; start += DEPTH) {
        CIV_TRY(add_slice(job, &tile, row, col, start, scratch));
    }
    if (job->kind == PRODUCT_GRAM) {
        mirror(job->out, &tile, row, col);
    }
    return CIV_OK;
}

static civ_status
run_product(const civ_exec *exec, product_job *job)
{
    CIV_FAIL_IF(job->out->dtype != CIV_F64, CIV_DTYPE);
    CIV_FAIL_IF(job->out->row_stride < job->out->n_cols, CIV_INVALID_ARGUMENT);
    if (job->depth == 0 && job->kind != PRODUCT_MOMENT) {
        civ_set_zero(job->out);
    }
    bool small = civ_min(job->out->n_rows, job->out->n_cols) <= 2 * TILE;
    job->tile = small ? SMALL_TILE : TILE;
    int64_t tile_rows = (job->out->n_rows + job->tile - 1) / job->tile;
    job->tile_columns = (job->out->n_cols + job->tile - 1) / job->tile;
    int64_t n_tiles = tile_rows * job->tile_columns;
    if (n_tiles == 0 || job->depth == 0) {
        return CIV_OK;
    }
    int64_t cost = civ_min(job->tile, job->out->n_rows) *
                   civ_min(job->tile, job->out->n_cols) * job->depth / 32;
    civ_arena arena = {0};
    int64_t size = (int64_t)civ_workers(exec, n_tiles, cost) * 2 * TILE * DEPTH;
    civ_arena_take(&arena, size, sizeof(double));
    CIV_TRY(civ_arena_open(&arena));
    job->scratch = civ_arena_take(&arena, size, sizeof(double));
    civ_status status = civ_parallel_for(exec, n_tiles, cost, product_tile, job);
    civ_arena_close(&arena);
    return status;
}

civ_status
civ_product_nt(const civ_exec *exec, const civ_mat *a, const civ_mat *b,
               const civ_mat *out)
{
    CIV_FAIL_IF(a->n_cols != b->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(out->n_rows != a->n_rows || out->n_cols != b->n_rows, CIV_SHAPE);
    product_job job = {.kind = PRODUCT_NT, .a = a, .b = b, .out = out};
    job.depth = a->n_cols;
    return run_product(exec, &job);
}

/* The rows of a and b as they are. */
static civ_status
small_gram(const civ_exec *exec, const civ_mat *a, const civ_mat *b, const civ_mat *out)
{
    const double *x[SMALL_TILE], *y[SMALL_TILE];
    for (int64_t i = 0; i < a->n_rows; i++) {
        x[i] = civ_row(a, i);
        y[i] = civ_row(b, i);
    }
    return civ_inner_products(exec, &(civ_inner_block){x, y, a->n_rows, a->n_rows,
                                                       a->n_cols, false, true, *out});
}

civ_status
civ_gram(const civ_exec *exec, const civ_mat *a, const civ_mat *b, const civ_mat *out)
{
    CIV_FAIL_IF(a->n_cols != b->n_cols || a->n_rows != b->n_rows, CIV_SHAPE);
    CIV_FAIL_IF(out->n_rows != a->n_rows || out->n_cols != a->n_rows, CIV_SHAPE);
    if (a->n_rows <= SMALL_TILE && a->dtype == CIV_F64 && b->dtype == CIV_F64) {
        return small_gram(exec, a, b, out);
    }
    product_job job = {.kind = PRODUCT_GRAM, .a = a, .b = b, .out = out};
    job.depth = a->n_cols;
    return run_product(exec, &job);
}

civ_status
civ_product_nn(const civ_exec *exec, const civ_mat *a, const civ_mat *b,
               const civ_mat *out)
{
    CIV_FAIL_IF(a->n_cols != b->n_rows, CIV_SHAPE);
    CIV_FAIL_IF(out->n_rows != a->n_rows || out->n_cols != b->n_cols, CIV_SHAPE);
    product_job job = {.kind = PRODUCT_NN, .a = a, .b = b, .out = out};
    job.depth = a->n_cols;
    return run_product(exec, &job);
}

civ_status
civ_moment_add(const civ_exec *exec, const civ_mat *x, const civ_packed *out)
{
    CIV_FAIL_IF(out->n != x->n_cols, CIV_SHAPE);
    civ_mat shape = civ_f64(NULL, out->n, out->n);
    civ_lower triangle = civ_lower_packed(out);
    product_job job = {.kind = PRODUCT_MOMENT, .a = x, .b = x, .out = &shape};
    job.triangle = &triangle;
    job.depth = x->n_rows;
    return run_product(exec, &job);
}
