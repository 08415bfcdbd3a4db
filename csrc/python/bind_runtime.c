/* SPDX-License-Identifier: Apache-2.0 */
/* How the core runs: kernels, threads, libraries. */
#include "bind.h"

static PyObject *
config(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    civ_exec exec = {.n_threads = module_get_state(module)->n_threads};
    return Py_BuildValue("{s:s,s:i,s:s}", "cpu", civ_cpu_name(), "threads",
                         civ_threads(&exec), "lapack", civ_lapack_text());
}

static PyObject *
set_thread_limit(PyObject *module, PyObject *arg)
{
    module_state *state = module_get_state(module);
    long limit = PyLong_AsLong(arg);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (limit < 0 || limit > 4096) {
        PyErr_Format(state->argument_error,
                     "limit: got %ld; expected 1 to 4096, or 0 for no limit", limit);
        return NULL;
    }
    long previous = state->n_threads;
    state->n_threads = (int)limit;
    return PyLong_FromLong(previous);
}

static PyObject *
select_kernels(PyObject *module, PyObject *arg)
{
    module_state *state = module_get_state(module);
    const char *name = PyUnicode_AsUTF8(arg);
    if (name == NULL) {
        return NULL;
    }
    if (civ_cpu_select(name) != CIV_OK) {
        PyErr_Format(
            state->argument_error,
            "name: got '%s'; expected one of baseline, avx2, avx512, neon that "
            "this processor has",
            name);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef bind_runtime_methods[] = {
    {"config", config, METH_NOARGS, NULL},
    {"set_thread_limit", set_thread_limit, METH_O, NULL},
    {"select_kernels", select_kernels, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
