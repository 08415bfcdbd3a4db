/* SPDX-License-Identifier: Apache-2.0 */
#include "linalg/matrix.h"

#include <string.h>

/* First and one-past-last byte that a matrix may touch. */
static void
extent(const civ_mat *x, uintptr_t *begin, uintptr_t *end)
{
    uintptr_t first = (uintptr_t)civ_row(x, 0);
    uintptr_t last = (uintptr_t)civ_row(x, x->n_rows - 1);
    *begin = first < last ? first : last;
    *end =
        (first < last ? last : first) + (uintptr_t)x->n_cols * civ_dtype_size(x->dtype);
}

bool
civ_overlap(const civ_mat *x, const civ_mat *y)
{
    if (x->n_rows == 0 || x->n_cols == 0 || y->n_rows == 0 || y->n_cols == 0) {
        return false;
    }
    uintptr_t x_begin, x_end, y_begin, y_end;
    extent(x, &x_begin, &x_end);
    extent(y, &y_begin, &y_end);
    return x_begin < y_end && y_begin < x_end;
}

civ_status
civ_check_output(const civ_mat *x, const civ_mat *out)
{
    bool same =
        x->data == out->data && (x->row_stride == out->row_stride || x->n_rows <= 1);
    return same || !civ_overlap(x, out) ? CIV_OK : CIV_ALIAS;
}

void
civ_set_zero(const civ_mat *x)
{
    size_t bytes = (size_t)x->n_cols * civ_dtype_size(x->dtype);
    for (int64_t i = 0; i < x->n_rows && bytes > 0; i++) {
        memset(civ_row(x, i), 0, bytes);
    }
}

bool
civ_row_is_zero(const civ_mat *x, int64_t i)
{
    const double *row = civ_at(x, i, 0);
    for (int64_t j = 0; j < x->n_cols; j++) {
        if (row[j] != 0.0) {
            return false;
        }
    }
    return true;
}
