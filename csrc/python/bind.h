/* SPDX-License-Identifier: Apache-2.0 */
/* What every bind_*.c file shares: the call bracket, arguments, and its table. */
#ifndef CIV_BIND_H
#define CIV_BIND_H

#include "errors.h"
#include "tensor.h"

/*
 * Bracket around every call of the core: releases the GIL, and lets Ctrl-C through
 * by polling Python's signals.
 *
 *     core_call call;
 *     call_begin(&call, state);
 *     civ_status status = civ_...(&call.exec, ...);
 *     call_end(&call);
 */
typedef struct core_call {
    civ_exec exec;
    PyThreadState *thread;
    int64_t last_poll; /* nanoseconds */
} core_call;

void call_begin(core_call *self, const module_state *state);
void call_end(core_call *self);

/*
 * For NONFINITE: names the argument and its first bad element. Returns false, with
 * no exception set, when x holds none; true with another one where it cannot tell.
 */
bool raise_nonfinite(const module_state *state, const tensor *x, bool allow_minus_inf);

/* TypeError unless the number of positional arguments is as expected. */
bool expect_arguments(const char *function, Py_ssize_t got, Py_ssize_t expected);

/* The token sets as the core takes them, with the arrays that hold them. */
typedef struct sets_arg {
    civ_token_sets sets;
    PyObject *ids;
    PyObject *offsets;
} sets_arg;

bool sets_read(const module_state *state, PyObject *ids, PyObject *offsets,
               sets_arg *self);
void sets_release(sets_arg *self);

/* Entry of a method table, for a function of positional arguments. */
#define MODULE_FUNCTION(name) \
    {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

/* One table of functions for each bind_*.c, gathered in module.c. */
extern PyMethodDef bind_runtime_methods[];
extern PyMethodDef bind_arrays_methods[];
extern PyMethodDef bind_losses_methods[];
extern PyMethodDef bind_projections_methods[];
extern PyMethodDef bind_update_methods[];
extern PyMethodDef bind_products_methods[];
extern PyMethodDef bind_solve_methods[];
extern PyMethodDef bind_pgd_methods[];
extern PyMethodDef bind_head_methods[];

#endif
