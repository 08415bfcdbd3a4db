/* SPDX-License-Identifier: Apache-2.0 */
/* Python capsules: the only place that knows them. Functions need the GIL and set an
 * exception when they fail. */
#ifndef CIV_CAPSULE_H
#define CIV_CAPSULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "dlpack.h"

#include <stdbool.h>

struct module_state;

/* Asks for a versioned capsule; producers that predate versions get asked bare. */
PyObject *capsule_request(PyObject *producer);

/*
 * Takes what a capsule of DLPack holds, as the protocol wants it: the capsule is
 * renamed and belongs to the caller, who hands it to capsule_close. Sets whether the
 * memory may be written. Refuses, and leaves nothing to close, what is no such capsule;
 * the tensor is unchecked. name: of the argument.
 */
const dlpack_tensor *capsule_open(const struct module_state *state, PyObject *capsule,
                                  const char *name, bool *writable);

/* Tells the producer that the memory of an opened capsule is free again; keeps the
 * exception that is set. Once for each that was opened. */
void capsule_close(PyObject *capsule);

/* A capsule that owns a new block of the core, and where in it the data are to lie: at
 * the beginning of a cache line. */
PyObject *capsule_take_block(size_t size, void **data);

#endif
