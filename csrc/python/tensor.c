/* SPDX-License-Identifier: Apache-2.0 */
/* NumPy arrays, read and made: the only file that knows them. */
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include "tensor.h"

#include <numpy/arrayobject.h>

#include <stdlib.h>

#include "capsule.h"
#include "errors.h"
#include "tensor_parts.h"

/* Bytes from which on arrays are blocks of the core; smaller ones are NumPy's own. */
#define LEAST_BLOCK 65536

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

/* From a copy of that type, or from array itself where it is of that type already;
 * steals the reference to descr, which may be NULL after an error. */
static bool
from_copy(const module_state *state, PyArrayObject *array, PyArray_Descr *descr,
          tensor *self)
{
    if (descr == NULL) {
        return false;
    }
    PyObject *copy = PyArray_FromArray(array, descr, NPY_ARRAY_CARRAY_RO);
    bool done = copy != NULL && from_array(state, (PyArrayObject *)copy, self);
    self->writable = false;
    return done;
}

/* Whether obj is a masked array, of which the elements alone do not tell the values; -1
 * on errors. Without the module that makes them there are none. */
static int
is_masked(PyObject *obj)
{
    if (!PyArray_Check(obj) || PyArray_CheckExact(obj)) {
        return 0;
    }
    PyObject *name = PyUnicode_FromString("numpy.ma");
    PyObject *module = name == NULL ? NULL : PyImport_GetModule(name);
    PyObject *type = NULL;
    int result = PyErr_Occurred() ? -1 : 0;
    if (module != NULL) {
        type = PyObject_GetAttrString(module, "MaskedArray");
        result = type == NULL ? -1 : PyObject_IsInstance(obj, type);
    }
    Py_XDECREF(type);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return result;
}

/* The same for the arrays in lists of lists; deeper ones NumPy refuses itself. */
static int
holds_masked(PyObject *obj, int depth)
{
    if (depth > TENSOR_MAX_NDIM || !(PyList_Check(obj) || PyTuple_Check(obj))) {
        return is_masked(obj);
    }
    int found = 0;
    for (Py_ssize_t i = 0; found == 0 && i < PySequence_Size(obj); i++) {
        PyObject *item = PySequence_GetItem(obj, i);
        found = item == NULL ? -1 : holds_masked(item, depth + 1);
        Py_XDECREF(item);
    }
    return found;
}

/* False with an exception unless `masked`, what the functions above tell, is 0. */
static bool
check_masked(const module_state *state, int masked, const char *name)
{
    if (masked > 0) {
        PyErr_Format(state->dtype_error,
                     "%s: is a masked array, whose mask would be lost; expected plain "
                     "numbers. Pass its .filled(value), or .data to use them all",
                     name);
    }
    return masked == 0;
}

static bool
from_numpy(const module_state *state, PyArrayObject *array, tensor *self)
{
    if (!check_masked(state, is_masked((PyObject *)array), self->name)) {
        return false;
    }
    if (PyArray_ISNOTSWAPPED(array)) {
        Py_INCREF(array);
        return from_array(state, array, self);
    }
    return from_copy(state, array, PyArray_DescrNewByteorder(PyArray_DESCR(array), '='),
                     self);
}

/* ---- lists, and whatever else NumPy reads ---------------------------------------- */

PyObject *
tensor_plain_array(const module_state *state, PyObject *obj, const char *name)
{
    PyObject *array = NULL;
    if (check_masked(state, holds_masked(obj, 0), name)) {
        array = PyArray_FromAny(obj, NULL, 0, 0, 0, NULL);
    }
    if (array != NULL && !check_masked(state, is_masked(array), name)) {
        Py_CLEAR(array);
    }
    if (array == NULL) {
        raise_instead(state, state->dtype_error,
                      "%s: is no array (%S); expected an array or nested lists of "
                      "numbers. Convert it with numpy.asarray",
                      name);
    }
    return array;
}

/* Whether the elements are numbers that float64 holds. */
static bool
holds_numbers(PyArrayObject *array)
{
    civ_dtype dtype;
    int type = PyArray_TYPE(array);
    return dtype_of_array(array, &dtype) || PyTypeNum_ISBOOL(type) ||
           PyTypeNum_ISINTEGER(type);
}

static bool
from_list(const module_state *state, PyObject *obj, tensor *self)
{
    PyArrayObject *array = (PyArrayObject *)tensor_plain_array(state, obj, self->name);
    if (array == NULL) {
        return false;
    }
    bool done = false;
    if (holds_numbers(array)) {
        done = from_copy(state, array, PyArray_DescrFromType(NPY_DOUBLE), self);
    } else {
        PyErr_Format(
            state->dtype_error,
            "%s: got %.100s of dtype %.200S; expected an array or nested lists "
            "of numbers. Convert it with numpy.asarray(x, dtype=float)",
            self->name, Py_TYPE(obj)->tp_name, PyArray_DESCR(array));
    }
    Py_DECREF(array);
    return done;
}

/* ---- interface --------------------------------------------------------------- */

/* Whether obj speaks DLPack; -1 on errors. */
static int
is_producer(PyObject *obj)
{
    PyObject *method = PyObject_GetAttrString(obj, "__dlpack__");
    Py_XDECREF(method);
    if (method == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    return method == NULL ? -1 : 1;
}

static bool
open_any(const module_state *state, PyObject *obj, tensor *self)
{
    if (PyArray_Check(obj)) {
        return from_numpy(state, (PyArrayObject *)obj, self);
    }
    int producer = is_producer(obj);
    if (producer != 0) {
        return producer > 0 && tensor_from_producer(state, obj, self);
    }
    if (PyObject_CheckBuffer(obj)) {
        return tensor_from_buffer(state, obj, self);
    }
    return from_list(state, obj, self);
}

bool
tensor_read(const module_state *state, PyObject *obj, const char *name, tensor *self)
{
    *self = (tensor){.name = name};
    bool done = open_any(state, obj, self);
    if (!done) {
        raise_instead(state, state->argument_error,
                      "%s: cannot be read (%S); expected an array in host memory. Pass "
                      "it as a NumPy array",
                      name);
        tensor_release(self);
    }
    return done;
}

bool
tensor_read_numbers(const module_state *state, PyObject *obj, const char *name,
                    tensor *self)
{
    *self = (tensor){.name = name, .loose = true};
    bool done = open_any(state, obj, self);
    if (!done && PyErr_ExceptionMatches(state->dtype_error)) {
        PyErr_Clear();
        tensor_release(self);
        done = from_list(state, obj, self);
    }
    if (!done) {
        raise_instead(state, state->argument_error,
                      "%s: cannot be read (%S); expected numbers in host memory. Pass "
                      "them as a NumPy array",
                      name);
        tensor_release(self);
    }
    return done;
}

/* The axes of more than one element, from the shortest stride to the longest. */
static int
sort_axes(const tensor *self, int *axes)
{
    int n = 0;
    for (int i = 0; i < self->ndim; i++) {
        int place = n;
        if (self->shape[i] <= 1) {
            continue;
        }
        while (place > 0 &&
               llabs(self->strides[axes[place - 1]]) > llabs(self->strides[i])) {
            axes[place] = axes[place - 1];
            place--;
        }
        axes[place] = i;
        n++;
    }
    return n;
}

/* Whether writing one element could change another: unless each axis steps over all
 * that the axes of shorter strides reach. */
static bool
repeats_elements(const tensor *self)
{
    int axes[TENSOR_MAX_NDIM];
    int n = sort_axes(self, axes);
    int64_t reach = (int64_t)civ_dtype_size(self->mat.dtype);
    for (int i = 0; i < n && self->mat.n_rows * self->mat.n_cols > 0; i++) {
        int64_t stride = llabs(self->strides[axes[i]]);
        if (stride < reach) {
            return true;
        }
        reach += stride * (self->shape[axes[i]] - 1);
    }
    return false;
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
    PyErr_Format(
        state->argument_error,
        "%s: %s; expected a writable array or tensor in this machine's byte "
        "order. Pass a copy such as numpy.array(x, dtype=float)",
        name, self->writable ? "elements share memory" : "cannot be written in place");
    tensor_release(self);
    return false;
}

/* A new array in a block of the core, which keeps large ones from call to call. */
static PyObject *
new_array(int ndim, const npy_intp *dims, int type, size_t size)
{
    void *block;
    PyObject *owner = capsule_take_block(size, &block);
    if (owner == NULL) {
        return NULL;
    }
    PyObject *array = PyArray_SimpleNewFromData(ndim, dims, type, block);
    if (array == NULL) {
        Py_DECREF(owner);
        return NULL;
    }
    if (PyArray_SetBaseObject((PyArrayObject *)array, owner) < 0) {
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
    int64_t rows, columns;
    *self = (tensor){.name = name, .ndim = ndim, .writable = true};
    if (!tensor_count(ndim, shape, &rows, &columns)) {
        PyErr_NoMemory();
        return false;
    }
    for (int i = 0; i < ndim; i++) {
        dims[i] = (npy_intp)shape[i];
        self->shape[i] = shape[i];
    }
    size_t size = (size_t)(rows * columns) * civ_dtype_size(dtype);
    self->owner = size >= LEAST_BLOCK ? new_array(ndim, dims, types[dtype], size)
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
        tensor_unpack(self);
    }
    return Py_NewRef(given == Py_None ? self->owner : given);
}

bool
tensor_read_int64(const module_state *state, PyObject *obj, const char *name,
                  PyObject **owner, const int64_t **data, int64_t *n)
{
    if (!PyArray_Check(obj) || PyArray_TYPE((PyArrayObject *)obj) != NPY_INT64 ||
        PyArray_NDIM((PyArrayObject *)obj) != 1 ||
        !PyArray_ISCARRAY_RO((PyArrayObject *)obj)) {
        PyErr_Format(state->dtype_error,
                     "%s: got %.100s; expected a contiguous 1-D int64 array. Make one "
                     "with numpy.array(x, dtype=numpy.int64)",
                     name, Py_TYPE(obj)->tp_name);
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
    if (self->has_capsule) {
        capsule_close(self->owner);
        self->has_capsule = false;
    }
    Py_CLEAR(self->owner);
}

int
tensor_import_numpy(void)
{
    return PyArray_ImportNumPyAPI();
}
