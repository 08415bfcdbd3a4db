/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays of any library as NumPy arrays of float32 or float64. */
#include "bind.h"

/*
 * A copy of x as that type. Where `largest` is not NULL x must be finite, the copy is
 * float64, and the size of the largest element is put there.
 */
static PyObject *
read_as(PyObject *module, PyObject *arg, const char *name, civ_dtype dtype,
        double *largest)
{
    tensor x = {0}, copy = {0};
    PyObject *result = NULL;
    module_state *state = module_get_state(module);
    if (!tensor_read(state, arg, name, &x) ||
        !tensor_new(name, x.ndim, x.shape, dtype, &copy)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = largest == NULL
                            ? civ_convert(&call.exec, &x.mat, &copy.mat)
                            : civ_widen(&call.exec, &x.mat, &copy.mat, largest);
    call_end(&call);
    if (status == CIV_OK) {
        result = tensor_result(&copy, Py_None);
    } else if (status != CIV_NONFINITE || !raise_nonfinite(state, &x, false)) {
        raise_status(state, status, name);
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
    return read_as(module, arg, "array", CIV_F32, NULL);
}

/* as_float64(x) -> new float64 array */
static PyObject *
as_float64(PyObject *module, PyObject *arg)
{
    return read_as(module, arg, "array", CIV_F64, NULL);
}

/* widen(x, name) -> float64 copy of finite x, and the size of its largest element */
static PyObject *
widen(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const char *name = n_args == 2 ? PyUnicode_AsUTF8(args[1]) : "";
    if (name == NULL || !expect_arguments("widen", n_args, 2)) {
        return NULL;
    }
    double largest;
    PyObject *copy = read_as(module, args[0], name, CIV_F64, &largest);
    return copy == NULL ? NULL : Py_BuildValue("Nd", copy, largest);
}

/* numbers(x, name) -> float64 copy, at least one axis; whole numbers are numbers too */
static PyObject *
numbers(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    const char *name = n_args == 2 ? PyUnicode_AsUTF8(args[1]) : "";
    tensor x = {0}, copy = {0};
    PyObject *result = NULL;
    if (name == NULL || !expect_arguments("numbers", n_args, 2)) {
        return NULL;
    }
    if (tensor_read_numbers(state, args[0], name, &x) &&
        tensor_new(name, x.ndim, x.shape, CIV_F64, &copy)) {
        civ_status status = civ_convert(NULL, &x.mat, &copy.mat);
        raise_status(state, status, name);
        result = status == CIV_OK ? tensor_result(&copy, Py_None) : NULL;
    }
    tensor_release(&x);
    tensor_release(&copy);
    return result;
}

/* plain(x, name) -> x as NumPy reads it, of any dtype */
static PyObject *
plain(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    const char *name = n_args == 2 ? PyUnicode_AsUTF8(args[1]) : "";
    if (name == NULL || !expect_arguments("plain", n_args, 2)) {
        return NULL;
    }
    return tensor_plain_array(module_get_state(module), args[0], name);
}

PyMethodDef bind_arrays_methods[] = {
    {"as_float32", as_float32, METH_O, NULL},
    {"as_float64", as_float64, METH_O, NULL},
    MODULE_FUNCTION(widen),
    MODULE_FUNCTION(numbers),
    MODULE_FUNCTION(plain),
    {NULL, NULL, 0, NULL},
};
