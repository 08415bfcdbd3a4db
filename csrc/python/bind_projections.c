/* SPDX-License-Identifier: Apache-2.0 */
#include "bind.h"

/* Raises what a projection of x can fail with. */
static void
raise_projection(const module_state *state, civ_status status, const tensor *x,
                 bool allow_minus_inf)
{
    if (status != CIV_NONFINITE) {
        raise_status(state, status, "out");
    } else if (!raise_nonfinite(state, x, allow_minus_inf)) {
        PyErr_SetString(state->nonfinite_error,
                        "x: a row is -inf throughout; expected at least one finite "
                        "value in each row. Drop that row");
    }
}

/* project_ball(x, radius, out) -> out; radius: float64 array of 1 or rows elements */
static PyObject *
project_ball(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor x = {0}, radius = {0}, out = {0};
    PyObject *result = NULL;
    if (!expect_arguments("project_ball", n_args, 3)) {
        return NULL;
    }
    if (!tensor_read(state, args[0], "x", &x) ||
        !tensor_read_as(state, args[1], "radius", CIV_F64, &radius) ||
        !tensor_output(state, args[2], &x, &out)) {
        goto done;
    }
    int64_t n_radius = radius.ndim == 1 ? radius.mat.n_cols : -1;
    core_call call;
    call_begin(&call, state);
    civ_status status =
        civ_project_ball(&call.exec, &x.mat, radius.mat.data, n_radius, &out.mat);
    call_end(&call);
    if (status != CIV_OK) {
        raise_projection(state, status, &x, false);
        goto done;
    }
    result = tensor_result(&out, args[2]);
done:
    tensor_release(&x);
    tensor_release(&radius);
    tensor_release(&out);
    return result;
}

/* project_simplex(x, entropy, out) -> out */
static PyObject *
project_simplex(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor x = {0}, out = {0};
    PyObject *result = NULL;
    if (!expect_arguments("project_simplex", n_args, 3)) {
        return NULL;
    }
    double entropy = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred() || !tensor_read(state, args[0], "x", &x) ||
        !tensor_output(state, args[2], &x, &out)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = civ_project_simplex(&call.exec, &x.mat, entropy, &out.mat);
    call_end(&call);
    if (status != CIV_OK) {
        raise_projection(state, status, &x, true);
        goto done;
    }
    result = tensor_result(&out, args[2]);
done:
    tensor_release(&x);
    tensor_release(&out);
    return result;
}

PyMethodDef bind_projections_methods[] = {
    MODULE_FUNCTION(project_ball),
    MODULE_FUNCTION(project_simplex),
    {NULL, NULL, 0, NULL},
};
