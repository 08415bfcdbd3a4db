/* SPDX-License-Identifier: Apache-2.0 */
/* What every source of tensors needs: rows and columns of any strides, and refusals. */
#include "tensor_parts.h"

#include "errors.h"

#include <string.h>

static int64_t
count_rows(const tensor *self)
{
    int64_t rows = 1;
    for (int i = 0; i < self->ndim - 1; i++) {
        rows *= self->shape[i];
    }
    return rows;
}

/* Bytes from row to row, when the leading axes can be walked with one stride. */
static bool
single_row_stride(const tensor *self, int64_t *stride)
{
    int64_t step = 0, extent = 0;
    for (int i = self->ndim - 2; i >= 0; i--) {
        if (self->shape[i] == 1) {
            continue;
        }
        if (extent == 0) {
            step = self->strides[i];
            extent = self->shape[i] * step;
        } else if (self->strides[i] != extent) {
            return false;
        } else {
            extent *= self->shape[i];
        }
    }
    *stride = step;
    return true;
}

static bool
fits_matrix(const tensor *self, int64_t item, int64_t *row_stride)
{
    int64_t columns = self->shape[self->ndim - 1];
    return (columns <= 1 || self->strides[self->ndim - 1] == item) &&
           single_row_stride(self, row_stride) && *row_stride % item == 0 &&
           (uintptr_t)self->source % (uintptr_t)item == 0;
}

/* Copies all elements between the strided source and the packed rows. */
static void
transfer(const tensor *self, bool pack)
{
    int64_t item = (int64_t)civ_dtype_size(self->mat.dtype);
    int64_t index[TENSOR_MAX_NDIM] = {0};
    int last = self->ndim - 1;
    int64_t rows = count_rows(self);
    char *dense = self->packed;
    for (int64_t row = 0; row < rows; row++) {
        char *element = self->source;
        for (int i = 0; i < last; i++) {
            element += index[i] * self->strides[i];
        }
        for (int64_t j = 0; j < self->shape[last]; j++) {
            memcpy(pack ? dense : element, pack ? element : dense, (size_t)item);
            dense += item;
            element += self->strides[last];
        }
        for (int i = last - 1; i >= 0 && ++index[i] == self->shape[i]; i--) {
            index[i] = 0;
        }
    }
}

bool
tensor_make_matrix(const module_state *state, tensor *self, civ_dtype dtype)
{
    if (self->ndim == 0) {
        PyErr_Format(state->argument_error,
                     "%s: got a scalar; expected an array with at least one axis. "
                     "Wrap it in a list",
                     self->name);
        return false;
    }
    int64_t item = (int64_t)civ_dtype_size(dtype);
    int64_t rows = count_rows(self), columns = self->shape[self->ndim - 1];
    int64_t stride = 0;
    self->mat = (civ_mat){self->source, rows, columns, columns, dtype};
    if (rows * columns == 0) {
        return true;
    }
    if (fits_matrix(self, item, &stride)) {
        self->mat.row_stride = rows > 1 ? stride / item : columns;
        return true;
    }
    self->packed = PyMem_RawMalloc((size_t)(rows * columns * item));
    if (self->packed == NULL) {
        PyErr_NoMemory();
        return false;
    }
    transfer(self, true);
    self->mat.data = self->packed;
    return true;
}

void
tensor_unpack(const tensor *self)
{
    transfer(self, false);
}

bool
tensor_refuse_ndim(const module_state *state, const char *name, int ndim)
{
    PyErr_Format(state->argument_error,
                 "%s: has %d axes; expected at most %d. Merge some with reshape", name,
                 ndim, TENSOR_MAX_NDIM);
    return false;
}

bool
tensor_refuse_dtype(const module_state *state, const char *name, PyObject *got)
{
    PyErr_Format(state->dtype_error,
                 "%s: has dtype %S; expected float32, float64, bfloat16 or float16. "
                 "Convert it first",
                 name, got);
    return false;
}
