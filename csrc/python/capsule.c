/* SPDX-License-Identifier: Apache-2.0 */
#include "capsule.h"

#include "errors.h"

/* Name of capsules that own a block of the core. */
#define BLOCK "cintervene.block"

/* ---- DLPack -------------------------------------------------------------------- */

PyObject *
capsule_request(PyObject *obj)
{
    PyObject *method = PyObject_GetAttrString(obj, "__dlpack__");
    PyObject *arguments = PyTuple_New(0);
    PyObject *keywords = Py_BuildValue("{s:(ii)}", "max_version", DLPACK_MAJOR, 0);
    PyObject *capsule = NULL;
    if (method != NULL && arguments != NULL && keywords != NULL) {
        capsule = PyObject_Call(method, arguments, keywords);
        if (capsule == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            capsule = PyObject_Call(method, arguments, NULL);
        }
    }
    Py_XDECREF(method);
    Py_XDECREF(arguments);
    Py_XDECREF(keywords);
    return capsule;
}

const dlpack_tensor *
capsule_open(const module_state *state, PyObject *capsule, const char *name,
             bool *writable)
{
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        dlpack_versioned *managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        if (managed->major > DLPACK_MAJOR) {
            PyErr_Format(state->argument_error,
                         "%s: exported with DLPack %u; expected version 1. Pass it as "
                         "a NumPy array",
                         name, managed->major);
            return NULL;
        }
        *writable = (managed->flags & DLPACK_FLAG_READ_ONLY) == 0;
        return &managed->tensor;
    }
    dlpack_legacy *managed = PyCapsule_GetPointer(capsule, "dltensor");
    *writable = false; /* a legacy capsule cannot tell */
    return managed == NULL ? NULL : &managed->tensor;
}

/* ---- blocks of the core --------------------------------------------------------- */

static void
give_block(PyObject *capsule)
{
    civ_block_give(PyCapsule_GetPointer(capsule, BLOCK),
                   (size_t)(uintptr_t)PyCapsule_GetContext(capsule));
}

PyObject *
capsule_take_block(size_t size, void **block)
{
    *block = civ_block_take(size);
    if (*block == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *capsule = PyCapsule_New(*block, BLOCK, give_block);
    if (capsule == NULL) {
        civ_block_give(*block, size);
        return NULL;
    }
    PyCapsule_SetContext(capsule, (void *)(uintptr_t)size);
    return capsule;
}
