/* SPDX-License-Identifier: Apache-2.0 */
#include "capsule.h"

#include "errors.h"

/* Names of capsules: those of the protocol, before and after they are taken, and of
 * those that own a block of the core. */
#define LEGACY "dltensor"
#define VERSIONED "dltensor_versioned"
#define TAKEN_LEGACY "used_dltensor"
#define TAKEN_VERSIONED "used_dltensor_versioned"
#define BLOCK "cintervene.block"
/* Bytes of a cache line: vectors that lie across two are read twice. */
#define LINE 64

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

static const dlpack_tensor *
refuse_capsule(const module_state *state, PyObject *obj, const char *name)
{
    const char *got = Py_TYPE(obj)->tp_name;
    if (PyCapsule_CheckExact(obj)) {
        got = PyCapsule_GetName(obj);
    }
    PyErr_Clear();
    PyErr_Format(state->argument_error,
                 "%s: its __dlpack__ returned %.100s; expected a new capsule of a "
                 "tensor. Pass it as a NumPy array",
                 name, got == NULL ? "a capsule without name" : got);
    return NULL;
}

/* After this the fields below `flags` are as in dlpack.h. */
static bool
check_version(const module_state *state, PyObject *capsule, const char *name,
              const dlpack_versioned *managed)
{
    if (managed->major == DLPACK_MAJOR) {
        return true;
    }
    uint32_t major = managed->major;
    capsule_close(capsule);
    PyErr_Format(state->argument_error,
                 "%s: exported with DLPack %u; expected version %d. Pass it as a NumPy "
                 "array",
                 name, (unsigned)major, DLPACK_MAJOR);
    return false;
}

const dlpack_tensor *
capsule_open(const module_state *state, PyObject *capsule, const char *name,
             bool *writable)
{
    *writable = false;
    if (PyCapsule_IsValid(capsule, VERSIONED)) {
        dlpack_versioned *managed = PyCapsule_GetPointer(capsule, VERSIONED);
        if (PyCapsule_SetName(capsule, TAKEN_VERSIONED) < 0 ||
            !check_version(state, capsule, name, managed)) {
            return NULL;
        }
        uint64_t kept = DLPACK_FLAG_READ_ONLY | DLPACK_FLAG_IS_COPIED;
        *writable = (managed->flags & kept) == 0;
        return &managed->tensor;
    }
    if (PyCapsule_IsValid(capsule,
                          LEGACY)) { /* which cannot tell what may be written */
        dlpack_legacy *managed = PyCapsule_GetPointer(capsule, LEGACY);
        return PyCapsule_SetName(capsule, TAKEN_LEGACY) < 0 ? NULL : &managed->tensor;
    }
    return refuse_capsule(state, capsule, name);
}

static void
delete_managed(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, TAKEN_VERSIONED)) {
        dlpack_versioned *managed = PyCapsule_GetPointer(capsule, TAKEN_VERSIONED);
        if (managed->deleter != NULL) {
            managed->deleter(managed);
        }
    } else if (PyCapsule_IsValid(capsule, TAKEN_LEGACY)) {
        dlpack_legacy *managed = PyCapsule_GetPointer(capsule, TAKEN_LEGACY);
        if (managed->deleter != NULL) {
            managed->deleter(managed);
        }
    }
}

void
capsule_close(PyObject *capsule)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    delete_managed(capsule);
    PyErr_Restore(type, value, traceback);
}

/* ---- blocks of the core --------------------------------------------------------- */

static void
give_block(PyObject *capsule)
{
    civ_block_give(PyCapsule_GetPointer(capsule, BLOCK),
                   (size_t)(uintptr_t)PyCapsule_GetContext(capsule));
}

PyObject *
capsule_take_block(size_t size, void **data)
{
    size_t taken;
    bool overflow = __builtin_add_overflow(size, LINE - 1, &taken);
    char *block = overflow ? NULL : civ_block_take(taken);
    if (block == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *capsule = PyCapsule_New(block, BLOCK, give_block);
    if (capsule == NULL) {
        civ_block_give(block, taken);
        return NULL;
    }
    PyCapsule_SetContext(capsule, (void *)(uintptr_t)taken);
    *data = block + (LINE - (uintptr_t)block % LINE) % LINE;
    return capsule;
}
