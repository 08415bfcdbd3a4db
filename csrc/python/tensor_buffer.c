/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of objects with the buffer protocol. */
#include "errors.h"
#include "tensor_parts.h"

/* Whether the mark at the start of a format says native byte order. */
static bool
is_native(char mark)
{
    const uint16_t one = 1;
    bool little = *(const char *)&one == 1;
    return mark == '@' || mark == '=' || mark == (little ? '<' : '>') ||
           (mark == '!' && !little);
}

static bool
dtype_of_format(const char *format, civ_dtype *dtype)
{
    if (format == NULL || *format == '\0') {
        return false;
    }
    const char *code = is_native(*format) ? format + 1 : format;
    if (*code == '\0' || code[1] != '\0') {
        return false;
    }
    switch (*code) {
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
refuse_format(const module_state *state, const char *name, const char *format)
{
    PyErr_Format(state->dtype_error,
                 "%s: has buffer format '%.100s'; expected 'f', 'd' or 'e' in native "
                 "byte order. Wrap it with numpy.frombuffer",
                 name, format == NULL ? "B" : format);
    return false;
}

/* Shape and strides of the buffer; exporters leave out the strides of dense ones. */
static bool
read_layout(const module_state *state, tensor *self, int64_t item)
{
    const Py_buffer *buffer = &self->buffer;
    int64_t rows, columns, dense = item;
    self->ndim = buffer->ndim;
    for (int i = 0; i < self->ndim; i++) {
        self->shape[i] = buffer->shape[i];
    }
    if (self->ndim > 0 && !tensor_count(self->ndim, self->shape, &rows, &columns)) {
        return tensor_refuse_size(state, self->name);
    }
    for (int i = self->ndim - 1; i >= 0; i--) {
        self->strides[i] = buffer->strides != NULL ? buffer->strides[i] : dense;
        dense *= self->shape[i];
    }
    return true;
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
    if (!dtype_of_format(buffer->format, &dtype) ||
        buffer->itemsize != (Py_ssize_t)civ_dtype_size(dtype)) {
        return refuse_format(state, self->name, buffer->format);
    }
    bool described = buffer->ndim == 0 || buffer->shape != NULL;
    if (buffer->ndim < 0 || buffer->ndim > TENSOR_MAX_NDIM || !described) {
        return tensor_refuse_ndim(state, self->name, buffer->ndim);
    }
    self->source = buffer->buf;
    self->writable = !buffer->readonly;
    return read_layout(state, self, (int64_t)civ_dtype_size(dtype)) &&
           tensor_make_matrix(state, self, dtype);
}
