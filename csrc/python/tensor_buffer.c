/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of objects with the buffer protocol. */
#include "errors.h"
#include "tensor_parts.h"

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

bool
tensor_from_buffer(const module_state *state, PyObject *obj, tensor *self)
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
