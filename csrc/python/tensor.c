/* SPDX-License-Identifier: Apache-2.0 */
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include "module.h"

#include <numpy/arrayobject.h>

#include "tensor_parts.h"

/* Name of capsules that own a block of the core; smaller arrays are NumPy's own. */
#define BLOCK "cintervene.block"
#define LEAST_BLOCK 65536

/* ---- geometry ---------------------------------------------------------------- */

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

/* Fills mat from the source fields; packs what a matrix cannot express. */
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

/* ---- NumPy ------------------------------------------------------------------- */

static bool
dtype_of_array(PyArrayObject *array, civ_dtype *dtype)
{
    PyArray_Descr *descr = PyArray_DESCR(array);
    switch (descr->type_num) {
    case NPY_FLOAT32:
        *dtype = CIV_F32;
        return true;
    case NPY_FLOAT64:
        *dtype = CIV_F64;
        return true;
    case NPY_FLOAT16:
        *dtype = CIV_F16;
        return true;
    default:
        *dtype = CIV_BF16;
        return PyTypeNum_ISUSERDEF(descr->type_num) && PyDataType_ELSIZE(descr) == 2 &&
               strcmp(descr->typeobj->tp_name, "ml_dtypes.bfloat16") == 0;
    }
}

/* Steals the reference to array. */
static bool
from_array(const module_state *state, PyArrayObject *array, tensor *self)
{
    self->owner = (PyObject *)array;
    civ_dtype dtype;
    if (!dtype_of_array(array, &dtype)) {
        return tensor_refuse_dtype(state, self->name, (PyObject *)PyArray_DESCR(array));
    }
    if (PyArray_NDIM(array) > TENSOR_MAX_NDIM) {
        return tensor_refuse_ndim(state, self->name, PyArray_NDIM(array));
    }
    self->ndim = PyArray_NDIM(array);
    for (int i = 0; i < self->ndim; i++) {
        self->shape[i] = PyArray_DIM(array, i);
        self->strides[i] = PyArray_STRIDE(array, i);
    }
    self->source = PyArray_BYTES(array);
    self->writable = PyArray_ISWRITEABLE(array);
    return tensor_make_matrix(state, self, dtype);
}

static bool
from_numpy(const module_state *state, PyArrayObject *array, tensor *self)
{
    if (PyArray_ISNOTSWAPPED(array)) {
        Py_INCREF(array);
        return from_array(state, array, self);
    }
    PyArray_Descr *native = PyArray_DescrNewByteorder(PyArray_DESCR(array), '=');
    PyObject *copy = PyArray_FromArray(array, native, NPY_ARRAY_CARRAY_RO);
    if (copy == NULL) {
        return false;
    }
    PyArray_CLEARFLAGS((PyArrayObject *)copy, NPY_ARRAY_WRITEABLE);
    return from_array(state, (PyArrayObject *)copy, self);
}

/* ---- buffers and lists ------------------------------------------------------- */

static bool
dtype_of_format(const char *format, civ_dtype *dtype)
{
    if (format == NULL || (*format == '@' || *format == '=' ? format[2] : format[1])) {
        return false;
    }
    switch (*format == '@' || *format == '=' ? format[1] : format[0]) {
    case 'f':
        *dtype = CIV_F32;
        return true;
    case 'd':
        *dtype = CIV_F64;
        return true;
    case 'e':
        *dtype = CIV_F16;
        return true;
    default:
        return false;
    }
}

static bool
from_buffer(const module_state *state, PyObject *obj, tensor *self)
{
    if (PyObject_GetBuffer(obj, &self->buffer, PyBUF_RECORDS_RO) < 0) {
        return false;
    }
    self->has_buffer = true;
    civ_dtype dtype;
    const Py_buffer *buffer = &self->buffer;
    if (!dtype_of_format(buffer->format, &dtype)) {
        PyErr_Format(state->dtype_error,
                     "%s: has buffer format '%s'; expected 'f', 'd' or 'e' in native "
                     "byte order. Wrap it with numpy.frombuffer",
                     self->name, buffer->format == NULL ? "B" : buffer->format);
        return false;
    }
    if (buffer->ndim > TENSOR_MAX_NDIM) {
        return tensor_refuse_ndim(state, self->name, buffer->ndim);
    }
    self->ndim = buffer->ndim;
    for (int i = 0; i < self->ndim; i++) {
        self->shape[i] = buffer->shape[i];
        self->strides[i] = buffer->strides[i];
    }
    self->source = buffer->buf;
    self->writable = !buffer->readonly;
    return tensor_make_matrix(state, self, dtype);
}

static bool
from_list(const module_state *state, PyObject *obj, tensor *self)
{
    PyObject *array = NULL;
    if (obj != Py_None) { /* which NumPy reads as NaN */
        array = PyArray_FROM_OTF(obj, NPY_DOUBLE, NPY_ARRAY_CARRAY_RO);
    }
    if (array == NULL) {
        PyErr_Clear();
        PyErr_Format(state->dtype_error,
                     "%s: got %.100s; expected an array or nested lists of numbers. "
                     "Convert it with numpy.asarray",
                     self->name, Py_TYPE(obj)->tp_name);
        return false;
    }
    PyArray_CLEARFLAGS((PyArrayObject *)array, NPY_ARRAY_WRITEABLE);
    return from_array(state, (PyArrayObject *)array, self);
}

/* ---- interface --------------------------------------------------------------- */

static bool
open_any(const module_state *state, PyObject *obj, tensor *self)
{
    if (PyArray_Check(obj)) {
        return from_numpy(state, (PyArrayObject *)obj, self);
    }
    if (PyObject_HasAttrString(obj, "__dlpack__")) {
        return tensor_from_producer(state, obj, self);
    }
    if (PyObject_CheckBuffer(obj)) {
        return from_buffer(state, obj, self);
    }
    return from_list(state, obj, self);
}

bool
tensor_read(const module_state *state, PyObject *obj, const char *name, tensor *self)
{
    *self = (tensor){.name = name};
    bool done = open_any(state, obj, self);
    if (!done) {
        tensor_release(self);
    }
    return done;
}

/* Whether writing one element could change another. */
static bool
repeats_elements(const tensor *self)
{
    bool repeats = false;
    for (int i = 0; i < self->ndim; i++) {
        if (self->shape[i] == 0) {
            return false;
        }
        repeats |= self->shape[i] > 1 && self->strides[i] == 0;
    }
    return repeats;
}

bool
tensor_write(const module_state *state, PyObject *obj, const char *name, tensor *self)
{
    if (!tensor_read(state, obj, name, self)) {
        return false;
    }
    if (self->writable && !repeats_elements(self)) {
        return true;
    }
    PyErr_Format(state->argument_error, "%s: %s; expected writable memory. Pass a copy",
                 name, self->writable ? "elements share memory" : "cannot be written");
    tensor_release(self);
    return false;
}

static void
give_block(PyObject *capsule)
{
    civ_block_give(PyCapsule_GetPointer(capsule, BLOCK),
                   (size_t)(uintptr_t)PyCapsule_GetContext(capsule));
}

/* A new array in a block of the core, which keeps large ones from call to call. */
static PyObject *
new_array(int ndim, const npy_intp *dims, int type, size_t size)
{
    void *block = civ_block_take(size);
    if (block == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *capsule = PyCapsule_New(block, BLOCK, give_block);
    if (capsule == NULL) {
        civ_block_give(block, size);
        return NULL;
    }
    PyCapsule_SetContext(capsule, (void *)(uintptr_t)size);
    PyObject *array = PyArray_SimpleNewFromData(ndim, dims, type, block);
    if (array == NULL) {
        Py_DECREF(capsule);
        return NULL;
    }
    if (PyArray_SetBaseObject((PyArrayObject *)array, capsule) < 0) {
        Py_CLEAR(array);
    }
    return array;
}

bool
tensor_new(const char *name, int ndim, const int64_t *shape, civ_dtype dtype,
           tensor *self)
{
    static const int types[] = {
        [CIV_F32] = NPY_FLOAT32, [CIV_F64] = NPY_FLOAT64, [CIV_F16] = NPY_FLOAT16};
    npy_intp dims[TENSOR_MAX_NDIM];
    int64_t rows = 1;
    *self = (tensor){.name = name, .ndim = ndim, .writable = true};
    for (int i = 0; i < ndim; i++) {
        dims[i] = (npy_intp)shape[i];
        self->shape[i] = shape[i];
        rows *= i < ndim - 1 ? shape[i] : 1;
    }
    int64_t columns = shape[ndim - 1];
    int64_t size = 0;
    bool large = !__builtin_mul_overflow(rows * (int64_t)civ_dtype_size(dtype), columns,
                                         &size) &&
                 size >= LEAST_BLOCK;
    self->owner = large ? new_array(ndim, dims, types[dtype], (size_t)size)
                        : PyArray_SimpleNew(ndim, dims, types[dtype]);
    if (self->owner == NULL) {
        return false;
    }
    void *data = PyArray_DATA((PyArrayObject *)self->owner);
    self->mat = (civ_mat){data, rows, columns, columns, dtype};
    return true;
}

/* Replaces a tensor by a new array of another dtype. */
static bool
convert(const module_state *state, tensor *self, civ_dtype dtype)
{
    if (self->mat.dtype == dtype) {
        return true;
    }
    tensor copy = {0};
    bool done = tensor_new(self->name, self->ndim, self->shape, dtype, &copy);
    if (done) {
        civ_status status = civ_convert(NULL, &self->mat, &copy.mat);
        raise_status(state, status, self->name);
        done = status == CIV_OK;
    }
    tensor_release(self);
    *self = copy;
    if (!done) {
        tensor_release(self);
    }
    return done;
}

bool
tensor_read_as(const module_state *state, PyObject *obj, const char *name,
               civ_dtype dtype, tensor *self)
{
    return tensor_read(state, obj, name, self) && convert(state, self, dtype);
}

/* Array of the dtype of x, which may be one that NumPy only knows by extension. */
static bool
output_like_array(const module_state *state, const tensor *x, tensor *self)
{
    PyArrayObject *source = (PyArrayObject *)x->owner;
    *self = (tensor){.name = "out"};
    PyObject *array = PyArray_NewLikeArray(source, NPY_CORDER, NULL, 0);
    if (array == NULL || !from_array(state, (PyArrayObject *)array, self)) {
        tensor_release(self);
        return false;
    }
    return true;
}

bool
tensor_output(const module_state *state, PyObject *wanted, tensor *x, tensor *self)
{
    if (wanted == Py_None && x->owner != NULL && PyArray_Check(x->owner)) {
        return output_like_array(state, x, self);
    }
    if (wanted == Py_None && x->mat.dtype != CIV_BF16) {
        return tensor_new("out", x->ndim, x->shape, x->mat.dtype, self);
    }
    if (wanted == Py_None) {
        if (!convert(state, x, CIV_F32)) {
            return false;
        }
        *self = *x;
        Py_INCREF(self->owner);
        return true;
    }
    if (!tensor_write(state, wanted, "out", self) ||
        !tensor_same_shape(state, x, self)) {
        return false;
    }
    if (x->mat.dtype != self->mat.dtype) {
        PyErr_Format(state->dtype_error,
                     "out: has dtype %s; expected %s like %s. Allocate it like %s",
                     civ_dtype_text(self->mat.dtype), civ_dtype_text(x->mat.dtype),
                     x->name, x->name);
        return false;
    }
    return true;
}

PyObject *
tensor_result(tensor *self, PyObject *given)
{
    if (self->packed != NULL) {
        transfer(self, false);
    }
    return Py_NewRef(given == Py_None ? self->owner : given);
}

bool
tensor_read_int64(PyObject *obj, const char *name, PyObject **owner,
                  const int64_t **data, int64_t *n)
{
    if (!PyArray_Check(obj) || PyArray_TYPE((PyArrayObject *)obj) != NPY_INT64 ||
        PyArray_NDIM((PyArrayObject *)obj) != 1 ||
        !PyArray_ISCARRAY_RO((PyArrayObject *)obj)) {
        PyErr_Format(PyExc_TypeError, "%s: expected a contiguous 1-D int64 array",
                     name);
        return false;
    }
    *owner = Py_NewRef(obj);
    *data = PyArray_DATA((PyArrayObject *)obj);
    *n = PyArray_DIM((PyArrayObject *)obj, 0);
    return true;
}

bool
tensor_same_shape(const module_state *state, const tensor *a, const tensor *b)
{
    bool same = a->ndim == b->ndim;
    for (int i = 0; same && i < a->ndim; i++) {
        same = a->shape[i] == b->shape[i];
    }
    if (!same) {
        PyErr_Format(state->argument_error,
                     "%s: its shape differs from that of %s; expected the same shape. "
                     "Allocate it like %s",
                     b->name, a->name, a->name);
    }
    return same;
}

void
tensor_release(tensor *self)
{
    PyMem_RawFree(self->packed);
    self->packed = NULL;
    if (self->has_buffer) {
        PyBuffer_Release(&self->buffer);
        self->has_buffer = false;
    }
    Py_CLEAR(self->owner);
}

int
tensor_import_numpy(void)
{
    return PyArray_ImportNumPyAPI();
}
