/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays of any library as NumPy arrays of float32 or float64. */
#include "module.h"

static PyObject *
read_as(PyObject *module, PyObject *arg, civ_dtype dtype)
{
    tensor x = {0}, copy = {0};
    PyObject *result = NULL;
    module_state *state = module_get_state(module);
    if (!tensor_read(state, arg, "array", &x) ||
        !tensor_new("array", x.ndim, x.shape, dtype, &copy)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = civ_convert(&call.exec, &x.mat, &copy.mat);
    call_end(&call);
    if (status == CIV_OK) {
        result = tensor_result(&copy, Py_None);
    } else {
        raise_status(state, status, "array");
    }
done:
    tensor_release(&x);
    tensor_release(&copy);
    return result;
}

/* as_float32(x) -> new float32 array */
static PyObject *
as_float32(PyObject *module, PyObject *arg)
{
    return read_as(module, arg, CIV_F32);
}

/* as_float64(x) -> new float64 array */
static PyObject *
as_float64(PyObject *module, PyObject *arg)
{
    return read_as(module, arg, CIV_F64);
}

PyMethodDef bind_arrays_methods[] = {
    {"as_float32", as_float32, METH_O, NULL},
    {"as_float64", as_float64, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
