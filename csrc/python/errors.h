/* SPDX-License-Identifier: Apache-2.0 */
/* State of the module: the exceptions of cintervene.errors, and how they are raised. */
#ifndef CIV_ERRORS_H
#define CIV_ERRORS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "cintervene.h"

#include <stdbool.h>

typedef struct module_state {
    PyObject *argument_error; /* cintervene.errors.* */
    PyObject *dtype_error;
    PyObject *nonfinite_error;
    PyObject *singular_error;
    PyObject *base_error;
    int n_threads; /* limit set by the user; 0 = none */
} module_state;

module_state *module_get_state(PyObject *module);

/* Sets the exception that belongs to a failed status; `what` names the function. */
void raise_status(const module_state *state, civ_status status, const char *what);

/*
 * Replaces the exception that is set by one of `type`, with it as the cause. Those of
 * the package stay as they are, and so do MemoryError and what is no Exception, such as
 * KeyboardInterrupt. The format has %s for the name of the argument
 * and then %S for what happened.
 */
void raise_instead(const module_state *state, PyObject *type, const char *format,
                   const char *name);

/* Fills the state from cintervene.errors; -1 and an exception when that fails. */
int errors_load(module_state *state);

/* For the garbage collector. */
int errors_traverse(const module_state *state, visitproc visit, void *arg);
void errors_clear(module_state *state);

#endif
