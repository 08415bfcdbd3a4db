/* SPDX-License-Identifier: Apache-2.0 */
#include "errors.h"

module_state *
module_get_state(PyObject *module)
{
    return PyModule_GetState(module);
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

static bool
is_left_alone(const module_state *state)
{
    return !PyErr_ExceptionMatches(PyExc_Exception) ||
           PyErr_ExceptionMatches(PyExc_MemoryError) ||
           PyErr_ExceptionMatches(state->base_error);
}

/* "type: 'text'" of an exception, in printable letters on one line. */
static PyObject *
describe(PyObject *error)
{
    PyObject *text = PyObject_Str(error);
    if (text == NULL) {
        PyErr_Clear();
        return PyUnicode_FromString(Py_TYPE(error)->tp_name);
    }
    PyObject *result =
        PyUnicode_FromFormat("%.100s: %.200R", Py_TYPE(error)->tp_name, text);
    Py_DECREF(text);
    return result;
}

void
raise_instead(const module_state *state, PyObject *type, const char *format,
              const char *name)
{
    PyObject *old, *cause, *traceback, *new_type, *error, *new_traceback;
    if (is_left_alone(state)) {
        return;
    }
    PyErr_Fetch(&old, &cause, &traceback);
    PyErr_NormalizeException(&old, &cause, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(cause, traceback);
    }
    PyObject *description = describe(cause);
    if (description != NULL) {
        PyErr_Format(type, format, name, description);
    }
    PyErr_Fetch(&new_type, &error, &new_traceback);
    PyErr_NormalizeException(&new_type, &error, &new_traceback);
    PyException_SetCause(error, cause);
    PyErr_Restore(new_type, error, new_traceback);
    Py_XDECREF(description);
    Py_XDECREF(old);
    Py_XDECREF(traceback);
}

int
errors_load(module_state *state)
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

int
errors_traverse(const module_state *state, visitproc visit, void *arg)
{
    Py_VISIT(state->base_error);
    Py_VISIT(state->argument_error);
    Py_VISIT(state->dtype_error);
    Py_VISIT(state->nonfinite_error);
    Py_VISIT(state->singular_error);
    return 0;
}

void
errors_clear(module_state *state)
{
    Py_CLEAR(state->base_error);
    Py_CLEAR(state->argument_error);
    Py_CLEAR(state->dtype_error);
    Py_CLEAR(state->nonfinite_error);
    Py_CLEAR(state->singular_error);
}
