/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products in double precision. The small ones run on one thread and take
 * float64 matrices; the large ones take any storage type, work tile by tile and give
 * the same bits for any number of threads.
 */
#ifndef CIV_PRODUCTS_H
#define CIV_PRODUCTS_H

#include "runtime/runtime.h"

/* Row-major float64 view of adjacent rows. */
CIV_INLINE civ_mat
civ_f64(double *data, int64_t n_rows, int64_t n_cols)
{
    return (civ_mat){data, n_rows, n_cols, n_cols, CIV_F64};
}

/* A float64 matrix from an arena; without memory while measuring. */
CIV_INLINE civ_mat
civ_take_f64(civ_arena *arena, int64_t n_rows, int64_t n_cols)
{
    double *data = civ_arena_take(arena, n_rows * n_cols, sizeof(double));
    return civ_f64(data, n_rows, n_cols);
}

/* Element (i, j) of a float64 matrix. */
CIV_INLINE double *
civ_at(const civ_mat *x, int64_t i, int64_t j)
{
    return (double *)x->data + i * x->row_stride + j;
}

/* ---- small: one thread, float64, c may not overlap a or b ---------------------- */

/* c = alpha a b + beta c,  c = alpha a b^T + beta c,  c = alpha a^T b + beta c. */
civ_status civ_gemm_nn(double alpha, const civ_mat *a, const civ_mat *b, double beta,
                       const civ_mat *c);
civ_status civ_gemm_nt(double alpha, const civ_mat *a, const civ_mat *b, double beta,
                       const civ_mat *c);
civ_status civ_gemm_tn(double alpha, const civ_mat *a, const civ_mat *b, double beta,
                       const civ_mat *c);

/* b (n, n_rhs) <- L^-1 b, L (n, n) lower triangular, both row-major. */
civ_status civ_lower_solve(const civ_mat *lower, const civ_mat *b);

/* b (n_rows, n) <- b L^-T. */
civ_status civ_lower_solve_right(const civ_mat *lower, const civ_mat *b);

/* y = alpha a x + beta y. */
civ_status civ_gemv(double alpha, const civ_mat *a, const double *x, double beta,
                    double *y);

double civ_dot(int64_t n, const double *x, const double *y);

/* y = alpha x + y. */
void civ_axpy(int64_t n, double alpha, const double *x, double *y);

/* ---- large: parallel, any storage type ----------------------------------------- */

/* mean (n_cols) of the rows of x, and out = x - mean; float64. The mean of no rows is
 * zero. */
civ_status civ_centre(const civ_exec *exec, const civ_mat *x, double *mean,
                      const civ_mat *out);

/* civ_product_nt, civ_product_nn and civ_moment_add are in cintervene.h. */

#endif
