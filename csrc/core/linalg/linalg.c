/* SPDX-License-Identifier: Apache-2.0 */
#include "linalg/linalg.h"

#include "linalg/lapack.h"
#include "runtime/forks.h"
#include "runtime/parallel.h"

#include <limits.h>

/* Largest order of civ_symmetric_solve. */
#define SMALL 64

/* The one place where a size becomes a lapack_int. */
static civ_status
narrow(int64_t size, lapack_int *narrowed)
{
    CIV_FAIL_IF(size < 0 || size > INT_MAX, CIV_INVALID_ARGUMENT);
    *narrowed = (lapack_int)size;
    return CIV_OK;
}

/* The end of a LAPACK call. info > 0: the matrix has no factorisation; info < 0: we
 * passed nonsense. */
static civ_status
leave_with(lapack_int info)
{
    civ_blas_leave();
    CIV_FAIL_IF(info > 0, CIV_SINGULAR);
    return info < 0 ? CIV_INTERNAL : CIV_OK;
}

void
civ_linalg_init(void)
{
#ifdef CIV_LAPACK_SCIPY
    CIV_OPENBLAS(set_num_threads)(1);
#endif
}

const char *
civ_lapack_text(void)
{
#ifdef CIV_LAPACK_SCIPY
    return CIV_OPENBLAS(get_config)();
#else
    return "system LAPACKE";
#endif
}

civ_status
civ_cholesky(int64_t n, double *a, int64_t lda)
{
    lapack_int order, stride;
    CIV_TRY(narrow(n, &order));
    CIV_TRY(narrow(lda, &stride));
    civ_blas_enter();
    return leave_with(
        CIV_LAPACKE(dpotrf_work)(LAPACK_COL_MAJOR, 'U', order, a, stride));
}

civ_status
civ_cholesky_solve(int64_t n, int64_t n_rhs, const double *factor, int64_t lda,
                   double *b, int64_t ldb)
{
    lapack_int order, columns, stride_a, stride_b;
    CIV_TRY(narrow(n, &order));
    CIV_TRY(narrow(n_rhs, &columns));
    CIV_TRY(narrow(lda, &stride_a));
    CIV_TRY(narrow(ldb, &stride_b));
    civ_blas_enter();
    return leave_with(CIV_LAPACKE(dpotrs_work)(LAPACK_COL_MAJOR, 'U', order, columns,
                                               factor, stride_a, b, stride_b));
}

civ_status
civ_symmetric_solve(int64_t n, double *a, double *x)
{
    lapack_int pivots[SMALL];
    double work[SMALL];
    CIV_FAIL_IF(n < 0 || n > SMALL, CIV_INVALID_ARGUMENT);
    lapack_int order = (lapack_int)n, stride = (lapack_int)civ_max(n, 1);
    civ_blas_enter();
    return leave_with(CIV_LAPACKE(dsysv_work)(LAPACK_COL_MAJOR, 'U', order, 1, a,
                                              stride, pivots, x, stride, work, SMALL));
}

int64_t
civ_symmetric_eigen_work(int64_t n)
{
    lapack_int order;
    double size = 1.0;
    if (narrow(n, &order) != CIV_OK ||
        CIV_LAPACKE(dsyev_work)(LAPACK_COL_MAJOR, 'V', 'U', order, NULL,
                                (lapack_int)civ_max(n, 1), NULL, &size, -1) != 0) {
        return -1;
    }
    return (int64_t)size;
}

civ_status
civ_symmetric_eigen(int64_t n, double *a, int64_t lda, double *w, double *work)
{
    lapack_int order, stride, n_work;
    CIV_TRY(narrow(n, &order));
    CIV_TRY(narrow(lda, &stride));
    CIV_TRY(narrow(civ_symmetric_eigen_work(n), &n_work));
    civ_blas_enter();
    return leave_with(CIV_LAPACKE(dsyev_work)(LAPACK_COL_MAJOR, 'V', 'U', order, a,
                                              stride, w, work, n_work));
}

civ_status
civ_spd_solve(const civ_exec *exec, const civ_mat *factor, const civ_mat *b)
{
    CIV_FAIL_IF(factor->n_rows != factor->n_cols, CIV_SHAPE);
    CIV_FAIL_IF(b->n_cols != factor->n_rows, CIV_SHAPE);
    CIV_FAIL_IF(factor->dtype != CIV_F64 || b->dtype != CIV_F64, CIV_DTYPE);
    int64_t n_at_once = 64;
    for (int64_t i = 0; i < b->n_rows && b->n_cols > 0; i += n_at_once) {
        CIV_TRY(civ_poll(exec));
        CIV_TRY(civ_cholesky_solve(
            factor->n_rows, civ_min(n_at_once, b->n_rows - i), factor->data,
            factor->row_stride, (double *)b->data + i * b->row_stride, b->row_stride));
    }
    return CIV_OK;
}
