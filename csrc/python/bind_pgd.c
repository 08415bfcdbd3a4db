/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of the projected gradient on float64 arrays that belong to the caller. */
#include "bind.h"

/* A point as one array (2, m, d): coefficients, then displacements. */
static bool
read_point(const module_state *state, PyObject *obj, const char *name, tensor *self,
           civ_pgd_point *point)
{
    if (!tensor_write(state, obj, name, self)) {
        return false;
    }
    if (self->ndim != 3 || self->shape[0] != 2 || self->packed != NULL) {
        PyErr_Format(state->argument_error,
                     "%s: expected a C-contiguous array (2, m, d)", name);
        return false;
    }
    civ_mat half = self->mat;
    half.n_rows /= 2;
    point->coefficients = point->displacements = half;
    point->displacements.data = (double *)half.data + half.n_rows * half.row_stride;
    return true;
}

/*
 * pgd_step(gram, gradient, response, here, trail, age, radius, step, length) -> dict
 * response is None where it is to be computed, trail without momentum; here and trail
 * are changed.
 */
static PyObject *
pgd_step(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor gram = {0}, gradient = {0}, response = {0}, here = {0}, trail = {0};
    PyObject *result = NULL;
    if (!expect_arguments("pgd_step", n_args, 9)) {
        return NULL;
    }
    bool known = args[2] != Py_None;
    civ_pgd self = {.momentum = args[4] != Py_None};
    civ_pgd_options options = civ_pgd_options_default();
    self.age = PyFloat_AsDouble(args[5]);
    options.radius = PyFloat_AsDouble(args[6]);
    options.step = PyFloat_AsDouble(args[7]);
    options.length = PyFloat_AsDouble(args[8]);
    if (PyErr_Occurred() || !tensor_read(state, args[0], "gram", &gram) ||
        !tensor_read(state, args[1], "grad_outputs", &gradient) ||
        (known && !tensor_read_as(state, args[2], "response", CIV_F64, &response)) ||
        !read_point(state, args[3], "here", &here, &self.here) ||
        (self.momentum && !read_point(state, args[4], "trail", &trail, &self.trail))) {
        goto done;
    }
    civ_pgd_info info;
    core_call call;
    call_begin(&call, state);
    civ_status status =
        civ_pgd_step(&call.exec, &gram.mat, &gradient.mat, known ? &response.mat : NULL,
                     &options, &self, &info);
    call_end(&call);
    if (status == CIV_OK) {
        result = Py_BuildValue("{s:d,s:d,s:d,s:d,s:O,s:d}", "step", info.step,
                               "gradient_norm", info.gradient_norm, "gap", info.gap,
                               "norm", info.norm, "restarted",
                               info.restarted ? Py_True : Py_False, "age", self.age);
    } else if (status != CIV_NONFINITE || !raise_nonfinite(state, &gradient, false)) {
        raise_status(state, status, "grad_outputs");
    }
done:
    tensor_release(&gram);
    tensor_release(&gradient);
    tensor_release(&response);
    tensor_release(&here);
    tensor_release(&trail);
    return result;
}

PyMethodDef bind_pgd_methods[] = {
    MODULE_FUNCTION(pgd_step),
    {NULL, NULL, 0, NULL},
};
