/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products in double precision. The small ones run on one thread and take
 * float64 matrices; the large ones take any storage type, work tile by tile and give
 * the same bits for any number of threads.
 */
#ifndef CIV_PRODUCTS_H
#define CIV_PRODUCTS_H

#include "linalg/matrix.h"

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

/* b (n_rows, n) <- b L^-1. */
civ_status civ_lower_solve_right_plain(const civ_mat *lower, const civ_mat *b);

/* y = alpha a x + beta y. */
civ_status civ_gemv(double alpha, const civ_mat *a, const double *x, double beta,
                    double *y);

double civ_dot(int64_t n, const double *x, const double *y);

/* y = alpha x + y. */
void civ_axpy(int64_t n, double alpha, const double *x, double *y);

/* ---- large: parallel, any storage type ----------------------------------------- */

/* civ_product_nt, civ_product_nn and civ_moment_add are in cintervene.h. */

#endif
