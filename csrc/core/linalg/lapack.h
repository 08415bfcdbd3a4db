/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LAPACKE and CBLAS symbols, which one of the two supported builds prefixes.
 * Only linalg.c and products.c include this. Use the `_work` variants, column-major,
 * with the caller's workspace, and never LAPACK inside a parallel region. All but
 * vector operations stand between civ_blas_enter and civ_blas_leave.
 */
#ifndef CIV_LAPACK_H
#define CIV_LAPACK_H

#include <cblas.h>
#include <lapacke.h>

#ifdef CIV_LAPACK_SCIPY
#define CIV_LAPACKE(name) scipy_LAPACKE_##name
#define CIV_CBLAS(name) scipy_cblas_##name
#define CIV_OPENBLAS(name) scipy_openblas_##name
#else
#define CIV_LAPACKE(name) LAPACKE_##name
#define CIV_CBLAS(name) cblas_##name
#endif

_Static_assert(sizeof(lapack_int) == 4, "LAPACK with 32-bit integers is expected");

#endif
