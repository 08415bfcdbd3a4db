/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of libraries that speak DLPack: the only file that knows capsules. */
#include "module.h"
#include "dlpack.h"
#include "tensor_parts.h"

static bool
check_device(const module_state *state, PyObject *obj, const char *name)
{
    PyObject *device = PyObject_CallMethod(obj, "__dlpack_device__", NULL);
    if (device == NULL) {
        return false;
    }
    int type, id;
    bool parsed = PyArg_ParseTuple(device, "ii", &type, &id);
    Py_DECREF(device);
    if (!parsed) {
        return false;
    }
    if (type != DLPACK_CPU && type != DLPACK_CUDA_HOST && type != DLPACK_ROCM_HOST) {
        PyErr_Format(state->argument_error,
                     "%s: lives on an accelerator (DLPack device type %d); expected "
                     "host memory. Move it with .cpu()",
                     name, type);
        return false;
    }
    return true;
}

/* Asks for a versioned capsule; producers that predate versions get asked bare. */
static PyObject *
request_capsule(PyObject *obj)
{
    PyObject *method = PyObject_GetAttrString(obj, "__dlpack__");
    PyObject *arguments = PyTuple_New(0);
    PyObject *keywords = Py_BuildValue("{s:(ii)}", "max_version", DLPACK_MAJOR, 0);
    PyObject *capsule = NULL;
    if (method != NULL && arguments != NULL && keywords != NULL) {
        capsule = PyObject_Call(method, arguments, keywords);
        if (capsule == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            capsule = PyObject_Call(method, arguments, NULL);
        }
    }
    Py_XDECREF(method);
    Py_XDECREF(arguments);
    Py_XDECREF(keywords);
    return capsule;
}

/*
 * The capsule is not renamed: it is held until tensor_release, and then its own
 * destructor tells the producer that the memory is free again.
 */
static const dlpack_tensor *
open_capsule(const module_state *state, PyObject *capsule, tensor *self)
{
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        dlpack_versioned *managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        if (managed->major > DLPACK_MAJOR) {
            PyErr_Format(state->argument_error,
                         "%s: exported with DLPack %u; expected version 1. Pass it as "
                         "a NumPy array",
                         self->name, managed->major);
            return NULL;
        }
        self->writable = (managed->flags & DLPACK_FLAG_READ_ONLY) == 0;
        return &managed->tensor;
    }
    dlpack_legacy *managed = PyCapsule_GetPointer(capsule, "dltensor");
    self->writable = false; /* a legacy capsule cannot tell */
    return managed == NULL ? NULL : &managed->tensor;
}

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
refuse_dlpack_dtype(const module_state *state, PyObject *obj, const char *name)
{
    PyObject *dtype = PyObject_GetAttrString(obj, "dtype");
    if (dtype != NULL) {
        tensor_refuse_dtype(state, name, dtype);
        Py_DECREF(dtype);
    }
    return false;
}

static bool
from_dlpack(const module_state *state, PyObject *obj, tensor *self)
{
    if (!check_device(state, obj, self->name)) {
        return false;
    }
    self->owner = request_capsule(obj);
    if (self->owner == NULL) {
        return false;
    }
    const dlpack_tensor *source = open_capsule(state, self->owner, self);
    if (source == NULL) {
        return false;
    }
    civ_dtype dtype;
    if (!dtype_of_dlpack(source, &dtype)) {
        return refuse_dlpack_dtype(state, obj, self->name);
    }
    if (source->ndim > TENSOR_MAX_NDIM) {
        return tensor_refuse_ndim(state, self->name, source->ndim);
    }
    int64_t item = (int64_t)civ_dtype_size(dtype);
    int64_t dense = item;
    self->ndim = source->ndim;
    for (int i = self->ndim - 1; i >= 0; i--) {
        self->shape[i] = source->shape[i];
        self->strides[i] = source->strides != NULL ? source->strides[i] * item : dense;
        dense *= source->shape[i];
    }
    self->source = (char *)source->data + source->byte_offset;
    return tensor_make_matrix(state, self, dtype);
}

/* torch refuses to export a tensor that requires a gradient; we only want values. */
bool
tensor_from_producer(const module_state *state, PyObject *obj, tensor *self)
{
    PyObject *flag = PyObject_GetAttrString(obj, "requires_grad");
    if (flag == NULL) {
        PyErr_Clear();
        return from_dlpack(state, obj, self);
    }
    int requires_grad = PyObject_IsTrue(flag);
    Py_DECREF(flag);
    if (requires_grad <= 0) {
        return requires_grad == 0 && from_dlpack(state, obj, self);
    }
    PyObject *detached = PyObject_CallMethod(obj, "detach", NULL);
    bool done = detached != NULL && from_dlpack(state, detached, self);
    Py_XDECREF(detached);
    return done;
}
