/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense linear algebra in double precision, column-major, on one thread: wrappers of
 * the few LAPACK routines in use. A symmetric row-major lower triangle is a
 * column-major upper one, so callers with row-major data pass 'U' for "lower".
 * Sizes are int64_t here and narrowed in one checked place.
 */
#ifndef CIV_LINALG_H
#define CIV_LINALG_H

#include "runtime/common.h"

/* A = R^T R in place, upper triangle; SINGULAR when A is not positive definite. */
civ_status civ_cholesky(int64_t n, double *a, int64_t lda);

/* X = A^-1 B in place of B (n, n_rhs), from the factor of civ_cholesky. */
civ_status civ_cholesky_solve(int64_t n, int64_t n_rhs, const double *factor,
                              int64_t lda, double *b, int64_t ldb);

/* x = A^-1 x for a symmetric, perhaps indefinite A (n, n) of small order; destroys A,
 * of which it reads the upper triangle. SINGULAR when there is no inverse. */
civ_status civ_symmetric_solve(int64_t n, double *a, double *x);

/* Doubles of work that civ_symmetric_eigen needs; < 0 when n is too large. */
int64_t civ_symmetric_eigen_work(int64_t n);

/*
 * Eigenvalues, ascending, in w (n); eigenvectors replace A (n, n), one a column.
 * Reads the upper triangle. work: civ_symmetric_eigen_work(n) doubles.
 */
civ_status civ_symmetric_eigen(int64_t n, double *a, int64_t lda, double *w,
                               double *work);

/* Puts the library's own BLAS on one thread, where that cannot affect others. */
void civ_linalg_init(void);

#endif
