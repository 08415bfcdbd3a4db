/* SPDX-License-Identifier: Apache-2.0 */
#include "bind.h"

static void
raise_apply(const module_state *state, civ_status status)
{
    if (status == CIV_ALIAS) {
        PyErr_SetString(state->argument_error,
                        "out: overlaps an input; expected the weights themselves or "
                        "memory of its own. Pass a new array");
    } else {
        raise_status(state, status, "apply");
    }
}

/* lowrank_apply(w, left, right, out) -> w or out; out None: in place */
static PyObject *
lowrank_apply(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor w = {0}, left = {0}, right = {0}, out = {0};
    PyObject *result = NULL;
    if (!expect_arguments("lowrank_apply", n_args, 4)) {
        return NULL;
    }
    bool in_place = args[3] == Py_None;
    bool opened = in_place ? tensor_write(state, args[0], "W", &w)
                           : tensor_read(state, args[0], "W", &w) &&
                                 tensor_output(state, args[3], &w, &out);
    if (!opened) {
        goto done;
    }
    civ_dtype dtype = civ_dtype_compute(w.mat.dtype);
    if (!tensor_read_as(state, args[1], "left", dtype, &left) ||
        !tensor_read_as(state, args[2], "right", dtype, &right)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = civ_lowrank_apply(&call.exec, &w.mat, &left.mat, &right.mat,
                                          in_place ? &w.mat : &out.mat);
    call_end(&call);
    if (status != CIV_OK) {
        raise_apply(state, status);
        goto done;
    }
    result = in_place ? tensor_result(&w, args[0]) : tensor_result(&out, args[3]);
done:
    tensor_release(&w);
    tensor_release(&left);
    tensor_release(&right);
    tensor_release(&out);
    return result;
}

/* displacement(base, changed, inputs) -> (m, d_out) float64 array */
static PyObject *
displacement(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor base = {0}, changed = {0}, inputs = {0}, out = {0};
    PyObject *result = NULL;
    if (!expect_arguments("displacement", n_args, 3)) {
        return NULL;
    }
    if (!tensor_read(state, args[0], "base", &base) ||
        !tensor_read(state, args[1], "changed", &changed) ||
        !tensor_read_as(state, args[2], "inputs", CIV_F64, &inputs)) {
        goto done;
    }
    int64_t shape[] = {inputs.mat.n_rows, base.mat.n_rows};
    if (!tensor_new("displacement", 2, shape, CIV_F64, &out)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status =
        civ_displacement(&call.exec, &base.mat, &changed.mat, &inputs.mat, &out.mat);
    call_end(&call);
    if (status != CIV_OK) {
        raise_status(state, status, "displacement (base, changed, inputs)");
        goto done;
    }
    result = tensor_result(&out, Py_None);
done:
    tensor_release(&base);
    tensor_release(&changed);
    tensor_release(&inputs);
    tensor_release(&out);
    return result;
}

PyMethodDef bind_update_methods[] = {
    MODULE_FUNCTION(lowrank_apply),
    MODULE_FUNCTION(displacement),
    {NULL, NULL, 0, NULL},
};
