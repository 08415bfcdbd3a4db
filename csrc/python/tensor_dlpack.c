/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of libraries that speak DLPack. */
#include "capsule.h"
#include "errors.h"
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
    self->owner = capsule_request(obj);
    if (self->owner == NULL) {
        return false;
    }
    const dlpack_tensor *source =
        capsule_open(state, self->owner, self->name, &self->writable);
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
