/* SPDX-License-Identifier: Apache-2.0 */
/* Point-constrained regions: prepared float64 arrays in, plain results out. */
#include "bind.h"

#include <string.h>

enum { GRAM, OUTPUTS, CONCEPTS, RADIUS, DIRECTIONS, OFFSETS, N_INPUTS };

typedef civ_status (*solve_fn)(const civ_exec *, const civ_pcr_problem *,
                               const civ_pcr_options *, const civ_pcr_result *,
                               civ_pcr_info *);

typedef struct solve_args {
    tensor inputs[N_INPUTS];
    tensor coefficients;
    tensor multipliers;
    tensor displacements;
    tensor margins;
    tensor history;
    civ_pcr_options options;
} solve_args;

static bool
read_inputs(const module_state *state, PyObject *const *args, tensor *inputs)
{
    static const char *const names[] = {"gram",   "outputs",    "concepts",
                                        "radius", "directions", "offsets"};
    for (int i = 0; i < N_INPUTS; i++) {
        if (!tensor_read(state, args[i], names[i], &inputs[i])) {
            return false;
        }
    }
    return true;
}

static civ_pcr_problem
problem_of(const tensor *inputs)
{
    return (civ_pcr_problem){inputs[GRAM].mat,       inputs[OUTPUTS].mat,
                             inputs[CONCEPTS].mat,   inputs[RADIUS].mat,
                             inputs[DIRECTIONS].mat, inputs[OFFSETS].mat};
}

static void
release_inputs(tensor *inputs)
{
    for (int i = 0; i < N_INPUTS; i++) {
        tensor_release(&inputs[i]);
    }
}

/* args: tolerance, max_iterations, history rows */
static bool
read_options(PyObject *const *args, solve_args *self, int64_t *history_rows)
{
    self->options = civ_pcr_options_default();
    self->options.tolerance = PyFloat_AsDouble(args[0]);
    self->options.max_iterations = PyLong_AsLongLong(args[1]);
    *history_rows = PyLong_AsLongLong(args[2]);
    return !PyErr_Occurred();
}

static bool
open_outputs(solve_args *self, int64_t history_rows)
{
    int64_t m = self->inputs[OUTPUTS].mat.n_rows;
    int64_t coefficients[] = {m, self->inputs[OUTPUTS].mat.n_cols};
    int64_t multipliers[] = {m, self->inputs[CONCEPTS].mat.n_rows +
                                    self->inputs[DIRECTIONS].mat.n_rows};
    int64_t history[] = {history_rows, CIV_PCR_HISTORY};
    return tensor_new("coefficients", 2, coefficients, CIV_F64, &self->coefficients) &&
           tensor_new("multipliers", 2, multipliers, CIV_F64, &self->multipliers) &&
           tensor_new("displacements", 2, coefficients, CIV_F64,
                      &self->displacements) &&
           tensor_new("margins", 2, multipliers, CIV_F64, &self->margins) &&
           tensor_new("history", 2, history, CIV_F64, &self->history);
}

static void
release(solve_args *self)
{
    release_inputs(self->inputs);
    tensor_release(&self->coefficients);
    tensor_release(&self->multipliers);
    tensor_release(&self->displacements);
    tensor_release(&self->margins);
    tensor_release(&self->history);
}

static PyObject *
solve(PyObject *module, PyObject *const *args, Py_ssize_t n_args, const char *name,
      solve_fn fn)
{
    module_state *state = module_get_state(module);
    solve_args self = {0};
    PyObject *result = NULL;
    int64_t history_rows;
    if (!expect_arguments(name, n_args, N_INPUTS + 3) ||
        !read_inputs(state, args, self.inputs) ||
        !read_options(args + N_INPUTS, &self, &history_rows) ||
        !open_outputs(&self, history_rows)) {
        goto done;
    }
    civ_pcr_problem problem = problem_of(self.inputs);
    civ_pcr_result out = {self.coefficients.mat, self.multipliers.mat,
                          self.displacements.mat, self.margins.mat, self.history.mat};
    civ_pcr_info info;
    core_call call;
    call_begin(&call, state);
    civ_status status = fn(&call.exec, &problem, &self.options, &out, &info);
    call_end(&call);
    if (status != CIV_OK) {
        raise_status(state, status, name);
        goto done;
    }
    result = Py_BuildValue(
        "{s:O,s:O,s:O,s:O,s:O,s:i,s:L,s:L,s:d,s:d}", "coefficients",
        self.coefficients.owner, "multipliers", self.multipliers.owner, "displacements",
        self.displacements.owner, "margins", self.margins.owner, "history",
        self.history.owner, "outcome", (int)info.outcome, "iterations",
        (long long)info.iterations, "history_rows", (long long)info.history_rows,
        "unit", info.unit, "violation", info.violation);
done:
    release(&self);
    return result;
}

/*
 * pcr_most_violated(gram, outputs, concepts, radius, directions, offsets, tolerance,
 *                   max_iterations, history_rows) -> dict
 */
static PyObject *
pcr_most_violated(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    return solve(module, args, n_args, "pcr_most_violated", civ_pcr_most_violated);
}

/* pcr_exact: as pcr_most_violated */
static PyObject *
pcr_exact(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    return solve(module, args, n_args, "pcr_exact", civ_pcr_exact);
}

/* pcr_margins(moved, outputs, concepts, radius, directions, offsets) -> (m, n + k) */
static PyObject *
pcr_margins(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor inputs[N_INPUTS] = {0}, margins = {0};
    PyObject *result = NULL;
    if (!expect_arguments("pcr_margins", n_args, N_INPUTS) ||
        !read_inputs(state, args, inputs)) {
        goto done;
    }
    int64_t shape[] = {inputs[OUTPUTS].mat.n_rows,
                       inputs[CONCEPTS].mat.n_rows + inputs[DIRECTIONS].mat.n_rows};
    if (!tensor_new("margins", 2, shape, CIV_F64, &margins)) {
        goto done;
    }
    civ_pcr_problem problem = problem_of(inputs);
    core_call call;
    call_begin(&call, state);
    civ_status status =
        civ_pcr_margins(&call.exec, &problem, &inputs[GRAM].mat, &margins.mat);
    call_end(&call);
    if (status == CIV_OK) {
        result = tensor_result(&margins, Py_None);
    } else {
        raise_status(state, status, "pcr_margins");
    }
done:
    release_inputs(inputs);
    tensor_release(&margins);
    return result;
}

/*
 * pcr_certify(gram, outputs, concepts, radius, directions, offsets, coefficients,
 *             multipliers) -> dict
 */
static PyObject *
pcr_certify(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor inputs[N_INPUTS] = {0}, coefficients = {0}, multipliers = {0};
    PyObject *result = NULL;
    if (!expect_arguments("pcr_certify", n_args, N_INPUTS + 2) ||
        !read_inputs(state, args, inputs) ||
        !tensor_read(state, args[N_INPUTS], "coefficients", &coefficients) ||
        !tensor_read(state, args[N_INPUTS + 1], "multipliers", &multipliers)) {
        goto done;
    }
    civ_pcr_problem problem = problem_of(inputs);
    civ_pcr_certificate certificate;
    core_call call;
    call_begin(&call, state);
    civ_status status = civ_pcr_certify(&call.exec, &problem, &coefficients.mat,
                                        &multipliers.mat, &certificate);
    call_end(&call);
    if (status != CIV_OK) {
        raise_status(state, status, "pcr_certify");
        goto done;
    }
    result = Py_BuildValue("{s:d,s:d,s:d,s:d,s:d}", "cost", certificate.cost,
                           "lower_bound", certificate.lower_bound, "stationarity",
                           certificate.stationarity, "complementarity",
                           certificate.complementarity, "shrink", certificate.shrink);
done:
    release_inputs(inputs);
    tensor_release(&coefficients);
    tensor_release(&multipliers);
    return result;
}

/* outcomes() -> {name: (number, text)} */
static PyObject *
outcomes(PyObject *module, PyObject *ignored)
{
    (void)module;
    (void)ignored;
    PyObject *result = PyDict_New();
#define X(name, value, text)                                                 \
    if (result != NULL) {                                                    \
        PyObject *item = Py_BuildValue("(is)", value, text);                 \
        if (item == NULL || PyDict_SetItemString(result, #name, item) < 0) { \
            Py_CLEAR(result);                                                \
        }                                                                    \
        Py_XDECREF(item);                                                    \
    }
    CIV_OUTCOME_LIST(X)
#undef X
    return result;
}

PyMethodDef bind_solve_methods[] = {
    MODULE_FUNCTION(pcr_most_violated),
    MODULE_FUNCTION(pcr_exact),
    MODULE_FUNCTION(pcr_margins),
    MODULE_FUNCTION(pcr_certify),
    {"outcomes", outcomes, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
