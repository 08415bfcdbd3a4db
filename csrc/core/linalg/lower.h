/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lower triangles, in a square matrix or packed by block rows (civ_packed), as one
 * thing of which blocks are matrices.
 */
#ifndef CIV_LOWER_H
#define CIV_LOWER_H

#include "linalg/matrix.h"

/* Rows of a block row, and columns of a block: all algorithms have blocks of this. */
#define CIV_BLOCK 256

typedef struct civ_lower {
    double *data;
    int64_t n;
    int64_t row_stride; /* of a square matrix; 0 where it is packed */
} civ_lower;

CIV_INLINE civ_lower
civ_lower_square(const civ_mat *a)
{
    return (civ_lower){a->data, a->n_rows, civ_max(a->row_stride, 1)};
}

CIV_INLINE civ_lower
civ_lower_packed(const civ_packed *a)
{
    return (civ_lower){a->data, a->n, 0};
}

/* Some rows of one block row, at most up to the end of its diagonal block. */
CIV_INLINE civ_mat
civ_lower_part(const civ_lower *a, int64_t row, int64_t n_rows, int64_t col,
               int64_t n_cols)
{
    if (a->row_stride > 0) {
        return (civ_mat){a->data + row * a->row_stride + col, n_rows, n_cols,
                         a->row_stride, CIV_F64};
    }
    int64_t block = row / CIV_BLOCK;
    int64_t stride = civ_min(a->n, (block + 1) * CIV_BLOCK);
    assert(row + n_rows <= stride && col + n_cols <= stride);
    double *start = a->data + CIV_BLOCK * CIV_BLOCK * (block * (block + 1) / 2);
    return (civ_mat){start + (row - block * CIV_BLOCK) * stride + col, n_rows, n_cols,
                     stride, CIV_F64};
}

#endif
