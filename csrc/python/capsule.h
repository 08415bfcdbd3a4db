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
 * What a capsule of DLPack holds, and whether it may be written. The capsule is not
 * renamed: while it is held the memory is, and then its own destructor tells the
 * producer that the memory is free again. name: of the argument.
 */
const dlpack_tensor *capsule_open(const struct module_state *state, PyObject *capsule,
                                  const char *name, bool *writable);

/* A capsule that owns a new block of the core. */
PyObject *capsule_take_block(size_t size, void **block);

#endif
