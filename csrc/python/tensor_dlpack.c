/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of libraries that speak DLPack. */
#include "capsule.h"
#include "errors.h"
#include "tensor_parts.h"

/* ---- what can be told before the export ------------------------------------------ */

static bool
check_device(const module_state *state, int type, const char *name)
{
    if (type == DLPACK_CPU || type == DLPACK_CUDA_HOST || type == DLPACK_ROCM_HOST) {
        return true;
    }
    PyErr_Format(state->argument_error,
                 "%s: lives on an accelerator (DLPack device type %d); expected "
                 "host memory. Move it with .cpu()",
                 name, type);
    return false;
}

static bool
check_device_of(const module_state *state, PyObject *obj, const char *name)
{
    PyObject *device = PyObject_CallMethod(obj, "__dlpack_device__", NULL);
    if (device == NULL) {
        return false;
    }
    int type, id;
    bool parsed = PyArg_ParseTuple(device, "ii", &type, &id);
    Py_DECREF(device);
    return parsed && check_device(state, type, name);
}

/* Truth of an attribute, or of what a method returns; 0 without one, -1 on errors. */
static int
is_true(PyObject *obj, const char *name, bool is_method)
{
    PyObject *value = PyObject_GetAttrString(obj, name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    if (value != NULL && is_method) {
        Py_SETREF(value, PyObject_CallNoArgs(value));
    }
    int truth = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return truth;
}

/* Replaces *obj by what a method of it returns, if the flag is set. */
static int
replace_if(PyObject **obj, int flag, const char *method)
{
    if (flag > 0) {
        Py_SETREF(*obj, PyObject_CallMethod(*obj, method, NULL));
    }
    return *obj == NULL ? -1 : flag;
}

/*
 * The tensor whose memory holds the values. torch refuses to export one that requires a
 * gradient, and exports one whose sign is still to be turned as if it were not: of that
 * we read a copy, which is not to be written.
 */
static PyObject *
resolve(PyObject *given, bool *copied)
{
    PyObject *obj = Py_NewRef(given);
    int done = replace_if(&obj, is_true(obj, "requires_grad", false), "detach");
    int negative = done < 0 ? -1 : is_true(obj, "is_neg", true);
    if (replace_if(&obj, negative, "resolve_neg") < 0) {
        Py_CLEAR(obj);
    }
    *copied = negative > 0;
    return obj;
}

/* ---- what the capsule tells ------------------------------------------------------ */

static bool
dtype_of_dlpack(const dlpack_tensor *source, civ_dtype *dtype)
{
    bool is_float = source->type_code == DLPACK_FLOAT;
    bool is_bfloat = source->type_code == DLPACK_BFLOAT && source->type_bits == 16;
    if (source->type_lanes != 1 || !(is_float || is_bfloat)) {
        return false;
    }
    switch (source->type_bits) {
    case 16:
        *dtype = is_bfloat ? CIV_BF16 : CIV_F16;
        return true;
    case 32:
        *dtype = CIV_F32;
        return true;
    case 64:
        *dtype = CIV_F64;
        return true;
    default:
        return false;
    }
}

static bool
refuse_dlpack_dtype(const module_state *state, PyObject *obj, const char *name,
                    const dlpack_tensor *source)
{
    PyObject *dtype = PyObject_GetAttrString(obj, "dtype");
    if (dtype != NULL) {
        tensor_refuse_dtype(state, name, dtype);
        Py_DECREF(dtype);
    } else if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        PyErr_Format(
            state->dtype_error,
            "%s: has DLPack type code %d, %d bits, %d lanes; expected float32, "
            "float64, bfloat16 or float16. Convert it first",
            name, source->type_code, source->type_bits, source->type_lanes);
    }
    return false;
}

static bool
refuse_layout(const module_state *state, const char *name)
{
    PyErr_Format(state->argument_error,
                 "%s: its strides or its offset lead out of memory; expected those of "
                 "an array. Pass it as a NumPy array",
                 name);
    return false;
}

static bool
read_shape(const module_state *state, const dlpack_tensor *source, tensor *self)
{
    int64_t rows, columns;
    self->ndim = source->ndim;
    if (self->ndim < 0 || self->ndim > TENSOR_MAX_NDIM ||
        (self->ndim > 0 && source->shape == NULL)) {
        return tensor_refuse_ndim(state, self->name, self->ndim);
    }
    for (int i = 0; i < self->ndim; i++) {
        self->shape[i] = source->shape[i];
    }
    return self->ndim == 0 || tensor_count(self->ndim, self->shape, &rows, &columns) ||
           tensor_refuse_size(state, self->name);
}

/* Strides in bytes, and the first element. */
static bool
read_strides(const module_state *state, const dlpack_tensor *source, int64_t item,
             tensor *self)
{
    int64_t dense = item;
    for (int i = self->ndim - 1; i >= 0; i--) {
        bool given = source->strides != NULL && self->shape[i] > 1;
        self->strides[i] = dense;
        if (given &&
            __builtin_mul_overflow(source->strides[i], item, &self->strides[i])) {
            return refuse_layout(state, self->name);
        }
        dense *= self->shape[i];
    }
    if (source->byte_offset > TENSOR_MAX_SIZE) {
        return refuse_layout(state, self->name);
    }
    self->source =
        source->data == NULL ? NULL : (char *)source->data + source->byte_offset;
    return true;
}

static bool
read_capsule(const module_state *state, PyObject *obj, PyObject *capsule, tensor *self)
{
    self->owner = capsule;
    const dlpack_tensor *source =
        capsule_open(state, capsule, self->name, &self->writable);
    self->has_capsule = source != NULL;
    if (source == NULL || !check_device(state, source->device_type, self->name)) {
        return false;
    }
    civ_dtype dtype;
    if (!dtype_of_dlpack(source, &dtype)) {
        return refuse_dlpack_dtype(state, obj, self->name, source);
    }
    return read_shape(state, source, self) &&
           read_strides(state, source, (int64_t)civ_dtype_size(dtype), self) &&
           tensor_make_matrix(state, self, dtype);
}

bool
tensor_from_producer(const module_state *state, PyObject *given, tensor *self)
{
    bool copied;
    PyObject *obj = resolve(given, &copied);
    PyObject *capsule = NULL;
    if (obj != NULL && check_device_of(state, obj, self->name)) {
        capsule = capsule_request(obj);
    }
    bool done = capsule != NULL && read_capsule(state, obj, capsule, self);
    self->writable = self->writable && !copied;
    Py_XDECREF(obj);
    return done;
}
