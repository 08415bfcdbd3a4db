/* SPDX-License-Identifier: Apache-2.0 */
/* What every source of tensors needs: rows and columns of any strides, and refusals. */
#include "tensor_parts.h"

#include "errors.h"

#include <string.h>

static bool
multiply(int64_t a, int64_t b, int64_t *product)
{
    return !__builtin_mul_overflow(a, b, product) && *product <= TENSOR_MAX_SIZE;
}

bool
tensor_count(int ndim, const int64_t *shape, int64_t *rows, int64_t *columns)
{
    int64_t size;
    *rows = 1;
    *columns = shape[ndim - 1];
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0 || shape[i] > TENSOR_MAX_SIZE) {
            return false;
        }
        if (i < ndim - 1 && !multiply(*rows, shape[i], rows)) {
            return false;
        }
    }
    return multiply(*rows, *columns, &size);
}

/* Bytes from row to row, when the leading axes can be walked with one stride. */
static bool
single_row_stride(const tensor *self, int64_t *stride)
{
    bool found = false;
    int64_t extent = 0;
    *stride = 0;
    for (int i = self->ndim - 2; i >= 0; i--) {
        if (self->shape[i] == 1) {
            continue;
        }
        if (found && self->strides[i] != extent) {
            return false;
        }
        *stride = found ? *stride : self->strides[i];
        found = true;
        extent = self->shape[i] * self->strides[i];
    }
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
    char *dense = self->packed;
    for (int64_t row = 0; row < self->mat.n_rows; row++) {
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

/* Whether the elements lie within what an address space can hold, and do not wrap. */
static bool
is_addressable(const tensor *self, int64_t item)
{
    int64_t before = 0, behind = item;
    for (int i = 0; i < self->ndim; i++) {
        int64_t span, *reach = self->strides[i] < 0 ? &before : &behind;
        if (__builtin_mul_overflow(self->shape[i] - 1, self->strides[i], &span) ||
            __builtin_add_overflow(*reach, span, reach)) {
            return false;
        }
    }
    uintptr_t source = (uintptr_t)self->source;
    return before >= -TENSOR_MAX_SIZE && behind <= TENSOR_MAX_SIZE &&
           source >= (uintptr_t)-before && (uintptr_t)behind <= UINTPTR_MAX - source;
}

static bool
refuse_source(const module_state *state, const tensor *self)
{
    PyErr_Format(state->argument_error,
                 "%s: has %s; expected numbers in host memory. Pass them as a NumPy "
                 "array",
                 self->name,
                 self->source == NULL ? "a shape but no data, as meta and fake tensors"
                                      : "strides that lead out of memory");
    return false;
}

/* Copies what a matrix cannot express. */
static bool
pack(tensor *self)
{
    const civ_mat *mat = &self->mat;
    size_t bytes = (size_t)(mat->n_rows * mat->n_cols) * civ_dtype_size(mat->dtype);
    self->packed = PyMem_RawMalloc(bytes);
    if (self->packed == NULL) {
        PyErr_NoMemory();
        return false;
    }
    transfer(self, true);
    self->mat.data = self->packed;
    return true;
}

static bool
refuse_scalar(const module_state *state, const char *name)
{
    PyErr_Format(state->argument_error,
                 "%s: got a scalar; expected an array with at least one axis. "
                 "Wrap it in a list",
                 name);
    return false;
}

bool
tensor_make_matrix(const module_state *state, tensor *self, civ_dtype dtype)
{
    int64_t item = (int64_t)civ_dtype_size(dtype);
    int64_t rows, columns, stride;
    if (self->ndim == 0 && !self->loose) {
        return refuse_scalar(state, self->name);
    }
    if (self->ndim == 0) {
        self->ndim = 1;
        self->shape[0] = 1;
        self->strides[0] = item;
    }
    if (!tensor_count(self->ndim, self->shape, &rows, &columns)) {
        return tensor_refuse_size(state, self->name);
    }
    self->mat = (civ_mat){self->source, rows, columns, columns, dtype};
    if (rows * columns == 0) {
        return true;
    }
    if (self->source == NULL || !is_addressable(self, item)) {
        return refuse_source(state, self);
    }
    if (!fits_matrix(self, item, &stride)) {
        return pack(self);
    }
    self->mat.row_stride = rows > 1 ? stride / item : columns;
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
                 "%s: has %d axes; expected at most %d, each with a length. Merge some "
                 "with reshape",
                 name, ndim, TENSOR_MAX_NDIM);
    return false;
}

bool
tensor_refuse_size(const module_state *state, const char *name)
{
    PyErr_Format(state->argument_error,
                 "%s: its shape is negative or has more than 2**47 elements; expected "
                 "an array that memory can hold. Pass a part of it",
                 name);
    return false;
}

bool
tensor_refuse_dtype(const module_state *state, const char *name, PyObject *got)
{
    PyErr_Format(
        state->dtype_error,
        "%s: has dtype %.200S; expected float32, float64, bfloat16 or float16. "
        "Convert it first",
        name, got);
    return false;
}
