/* SPDX-License-Identifier: Apache-2.0 */
#include "bind.h"

#include <time.h>

/* Between two looks at Python's signals. */
#define POLL_INTERVAL INT64_C(10000000)

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

bool
raise_nonfinite(const module_state *state, const tensor *x, bool allow_minus_inf)
{
    int64_t row, col;
    civ_status status = civ_find_nonfinite(NULL, &x->mat, allow_minus_inf, &row, &col);
    if (status != CIV_OK) {
        raise_status(state, status, x->name);
        return true;
    }
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

bool
sets_read(const module_state *state, PyObject *ids, PyObject *offsets, sets_arg *self)
{
    int64_t n_ids, n_offsets;
    if (!tensor_read_int64(state, ids, "ids", &self->ids, &self->sets.ids, &n_ids) ||
        !tensor_read_int64(state, offsets, "offsets", &self->offsets,
                           &self->sets.offsets, &n_offsets)) {
        return false;
    }
    if (n_offsets < 2 || self->sets.offsets[n_offsets - 1] != n_ids) {
        PyErr_Format(state->argument_error,
                     "offsets: do not end with the number of ids; expected where each "
                     "set starts, and %lld at the end",
                     (long long)n_ids);
        return false;
    }
    self->sets.n_sets = n_offsets - 1;
    return true;
}

void
sets_release(sets_arg *self)
{
    Py_CLEAR(self->ids);
    Py_CLEAR(self->offsets);
}
