/* SPDX-License-Identifier: Apache-2.0 */
/* The module cintervene._core: state, errors, and the list of function groups. */
#include "module.h"

#include <time.h>

/* Adding a group of functions is one line here and one in module.h. */
static PyMethodDef *const groups[] = {
    bind_runtime_methods,     bind_arrays_methods, bind_losses_methods,
    bind_projections_methods, bind_update_methods, bind_products_methods,
    bind_solve_methods,       bind_pgd_methods,    bind_head_methods,
};

/* Between two looks at Python's signals. */
#define POLL_INTERVAL INT64_C(10000000)

module_state *
module_get_state(PyObject *module)
{
    return PyModule_GetState(module);
}

static int64_t
nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int
poll_signals(void *arg)
{
    core_call *self = arg;
    int64_t now = nanoseconds();
    if (now - self->last_poll < POLL_INTERVAL) {
        return 0;
    }
    self->last_poll = now;
    PyEval_RestoreThread(self->thread);
    int stop = PyErr_CheckSignals();
    self->thread = PyEval_SaveThread();
    return stop;
}

void
call_begin(core_call *self, const module_state *state)
{
    self->exec = (civ_exec){state->n_threads, poll_signals, self};
    self->last_poll = nanoseconds();
    self->thread = PyEval_SaveThread();
}

void
call_end(core_call *self)
{
    PyEval_RestoreThread(self->thread);
}

void
raise_status(const module_state *state, civ_status status, const char *what)
{
    PyObject *type = state->base_error;
    switch (status) {
    case CIV_OK:
    case CIV_INTERRUPTED: /* poll_signals has set the exception */
        return;
    case CIV_NO_MEMORY:
        PyErr_NoMemory();
        return;
    case CIV_INVALID_ARGUMENT:
    case CIV_SHAPE:
    case CIV_ALIAS:
        type = state->argument_error;
        break;
    case CIV_DTYPE:
        type = state->dtype_error;
        break;
    case CIV_NONFINITE:
        type = state->nonfinite_error;
        break;
    case CIV_SINGULAR:
        type = state->singular_error;
        break;
    case CIV_INTERNAL:
        break;
    }
    PyErr_Format(type, "%s: %s", what, civ_status_text(status));
}

bool
raise_nonfinite(const module_state *state, const tensor *x, bool allow_minus_inf)
{
    int64_t row, col;
    civ_find_nonfinite(NULL, &x->mat, allow_minus_inf, &row, &col);
    if (row < 0) {
        return false;
    }
    PyErr_Format(state->nonfinite_error,
                 "%s: not finite at row %lld, column %lld (rows of the last axis); "
                 "expected finite values%s. Find what produced it before going on",
                 x->name, (long long)row, (long long)col,
                 allow_minus_inf ? ", or -inf for a masked entry" : "");
    return true;
}

bool
expect_arguments(const char *function, Py_ssize_t got, Py_ssize_t expected)
{
    if (got == expected) {
        return true;
    }
    PyErr_Format(PyExc_TypeError, "_core.%s takes %zd arguments, got %zd", function,
                 expected, got);
    return false;
}

static int
load_errors(module_state *state)
{
    PyObject *errors = PyImport_ImportModule("cintervene.errors");
    if (errors == NULL) {
        return -1;
    }
    const struct {
        PyObject **slot;
        const char *name;
    } wanted[] = {
        {&state->base_error, "CinterveneError"},
        {&state->argument_error, "ArgumentError"},
        {&state->dtype_error, "DtypeError"},
        {&state->nonfinite_error, "NonFiniteError"},
        {&state->singular_error, "SingularSystemError"},
    };
    int result = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(wanted) && result == 0; i++) {
        *wanted[i].slot = PyObject_GetAttrString(errors, wanted[i].name);
        result = *wanted[i].slot == NULL ? -1 : 0;
    }
    Py_DECREF(errors);
    return result;
}

static int
module_exec(PyObject *module)
{
    module_state *state = module_get_state(module);
    if (load_errors(state) < 0 || tensor_import_numpy() < 0) {
        return -1;
    }
    civ_status status = civ_init();
    if (status != CIV_OK) {
        raise_status(state, status,
                     "environment variable CINTERVENE_CPU (expected baseline, avx2 or "
                     "avx512, and a processor that has it; unset it to choose the "
                     "best)");
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(groups); i++) {
        if (PyModule_AddFunctions(module, groups[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = module_get_state(module);
    Py_VISIT(state->base_error);
    Py_VISIT(state->argument_error);
    Py_VISIT(state->dtype_error);
    Py_VISIT(state->nonfinite_error);
    Py_VISIT(state->singular_error);
    return 0;
}

static int
module_clear(PyObject *module)
{
    module_state *state = module_get_state(module);
    Py_CLEAR(state->base_error);
    Py_CLEAR(state->argument_error);
    Py_CLEAR(state->dtype_error);
    Py_CLEAR(state->nonfinite_error);
    Py_CLEAR(state->singular_error);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cintervene._core",
    .m_doc = "C core of cintervene; use the functions of the package instead.",
    .m_size = sizeof(module_state),
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
