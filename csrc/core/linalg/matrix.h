/* SPDX-License-Identifier: Apache-2.0 */
/* Matrices as the core sees them: elements, memory, zeros. */
#ifndef CIV_MATRIX_H
#define CIV_MATRIX_H

#include "runtime/arena.h"

/* Address of row i of a matrix. */
CIV_INLINE void *
civ_row(const civ_mat *x, int64_t i)
{
    int64_t offset = i * x->row_stride * (int64_t)civ_dtype_size(x->dtype);
    return (char *)x->data + offset;
}

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

/* Whether the address ranges of two matrices meet. */
bool civ_overlap(const civ_mat *x, const civ_mat *y);

/* ALIAS unless out is x itself or lies apart from it. */
civ_status civ_check_output(const civ_mat *x, const civ_mat *out);

/* Sets all elements to zero, of any storage type. */
void civ_set_zero(const civ_mat *x);

/* Whether row i of a float64 matrix is zero throughout. */
bool civ_row_is_zero(const civ_mat *x, int64_t i);

#endif
