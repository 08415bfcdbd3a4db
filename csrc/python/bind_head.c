/* SPDX-License-Identifier: Apache-2.0 */
/* Safe regions of a linear head: prepared arrays in, plain results out. */
#include "bind.h"

typedef civ_status (*region_fn)(const civ_exec *, const civ_head_problem *,
                                const civ_head_options *, const civ_head_result *,
                                civ_head_info *);

typedef struct region_args {
    tensor gram;
    tensor logits;
    sets_arg sets;
    civ_head_options options;
    int64_t history_rows;
    tensor coefficients;
    tensor displacements;
    tensor losses;
    tensor weights;
    tensor history;
} region_args;

/* args: gram, logits, ids, offsets, radius, tolerance, max_iterations, history rows */
static bool
read_args(const module_state *state, PyObject *const *args, region_args *self)
{
    self->options = civ_head_options_default();
    self->options.radius = PyFloat_AsDouble(args[4]);
    self->options.tolerance = PyFloat_AsDouble(args[5]);
    self->options.max_iterations = PyLong_AsLongLong(args[6]);
    self->history_rows = PyLong_AsLongLong(args[7]);
    return !PyErr_Occurred() && tensor_read(state, args[0], "gram", &self->gram) &&
           tensor_read(state, args[1], "logits", &self->logits) &&
           sets_read(state, args[2], args[3], &self->sets);
}

static bool
open_outputs(region_args *self)
{
    int64_t shape[] = {self->logits.mat.n_rows, self->logits.mat.n_cols};
    int64_t history[] = {self->history_rows, CIV_HEAD_HISTORY};
    civ_dtype lanes = civ_dtype_compute(self->logits.mat.dtype);
    return tensor_new("coefficients", 2, shape, lanes, &self->coefficients) &&
           tensor_new("displacements", 2, shape, lanes, &self->displacements) &&
           tensor_new("losses", 1, shape, CIV_F64, &self->losses) &&
           tensor_new("weights", 1, shape, CIV_F64, &self->weights) &&
           tensor_new("history", 2, history, CIV_F64, &self->history);
}

static void
release(region_args *self)
{
    tensor_release(&self->gram);
    tensor_release(&self->logits);
    sets_release(&self->sets);
    tensor_release(&self->coefficients);
    tensor_release(&self->displacements);
    tensor_release(&self->losses);
    tensor_release(&self->weights);
    tensor_release(&self->history);
}

static void
raise_region(const module_state *state, civ_status status, const tensor *logits,
             const char *name)
{
    if (status != CIV_NONFINITE) {
        raise_status(state, status, name);
    } else if (!raise_nonfinite(state, logits, true)) {
        PyErr_SetString(state->nonfinite_error,
                        "logits: every token of some row's set is -inf, or moved "
                        "logits leave the range of their type; expected sets with a "
                        "finite logit. Drop that row, or lower the radius");
    }
}

static PyObject *
solve(PyObject *module, PyObject *const *args, Py_ssize_t n_args, const char *name,
      region_fn fn)
{
    module_state *state = module_get_state(module);
    region_args self = {0};
    PyObject *result = NULL;
    if (!expect_arguments(name, n_args, 8) || !read_args(state, args, &self) ||
        !open_outputs(&self)) {
        goto done;
    }
    civ_head_problem problem = {self.gram.mat, self.logits.mat, self.sets.sets};
    civ_head_result out = {self.coefficients.mat, self.displacements.mat,
                           self.losses.mat.data, self.weights.mat.data,
                           self.history.mat};
    civ_head_info info;
    core_call call;
    call_begin(&call, state);
    civ_status status = fn(&call.exec, &problem, &self.options, &out, &info);
    call_end(&call);
    if (status != CIV_OK) {
        raise_region(state, status, &self.logits, name);
        goto done;
    }
    result = Py_BuildValue(
        "{s:O,s:O,s:O,s:O,s:O,s:i,s:L,s:L,s:d,s:d,s:d,s:d}", "coefficients",
        self.coefficients.owner, "displacements", self.displacements.owner, "losses",
        self.losses.owner, "weights", self.weights.owner, "history", self.history.owner,
        "outcome", (int)info.outcome, "iterations", (long long)info.iterations,
        "history_rows", (long long)info.history_rows, "loss", info.loss, "stationarity",
        info.stationarity, "bound", info.bound, "norm", info.norm);
done:
    release(&self);
    return result;
}

/*
 * tsr(gram, logits, ids, offsets, radius, tolerance, max_iterations, history_rows)
 * -> dict; the weights are undefined
 */
static PyObject *
tsr(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    return solve(module, args, n_args, "tsr", civ_tsr);
}

/* arr: as tsr */
static PyObject *
arr(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    return solve(module, args, n_args, "arr", civ_arr);
}

PyMethodDef bind_head_methods[] = {
    MODULE_FUNCTION(tsr),
    MODULE_FUNCTION(arr),
    {NULL, NULL, 0, NULL},
};
