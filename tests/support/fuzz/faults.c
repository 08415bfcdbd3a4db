/* SPDX-License-Identifier: Apache-2.0 */
/* Makes one allocation of a call fail: of the core's, of Python's or of NumPy's. Linked
 * into the extension with --wrap=malloc, and reached through ctypes. */
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <numpy/arrayobject.h>

#include "python/dlpack.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#define EXPORTED __attribute__((visibility("default")))

int faults_install(void);
PyObject *faults_call(PyObject *function, PyObject *arguments);
void faults_start(long count);
long faults_made(void);
void faults_delete_legacy(void *managed);
void faults_delete_versioned(void *managed);

static atomic_bool inside; /* of a function of the extension */
static atomic_long made;   /* allocations there since the start */
static long failing = -1;  /* number of the one that fails */

static bool
fails(void)
{
    return atomic_load(&inside) && atomic_fetch_add(&made, 1) == failing;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

/* The linker sends the extension's calls of malloc here. */
void *
__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

/* ---- Python's domains ---------------------------------------------------------- */

static PyMemAllocatorEx real[3];

static void *
python_malloc(void *domain, size_t size)
{
    const PyMemAllocatorEx *allocator = domain;
    return fails() ? NULL : allocator->malloc(allocator->ctx, size);
}

static void *
python_calloc(void *domain, size_t count, size_t size)
{
    const PyMemAllocatorEx *allocator = domain;
    return fails() ? NULL : allocator->calloc(allocator->ctx, count, size);
}

static void *
python_realloc(void *domain, void *block, size_t size)
{
    const PyMemAllocatorEx *allocator = domain;
    return fails() ? NULL : allocator->realloc(allocator->ctx, block, size);
}

static void
python_free(void *domain, void *block)
{
    const PyMemAllocatorEx *allocator = domain;
    allocator->free(allocator->ctx, block);
}

/* ---- NumPy's data -------------------------------------------------------------- */

static void *
numpy_malloc(void *context, size_t size)
{
    (void)context;
    return fails() ? NULL : __real_malloc(size);
}

static void *
numpy_calloc(void *context, size_t count, size_t size)
{
    (void)context;
    return fails() ? NULL : calloc(count, size);
}

static void *
numpy_realloc(void *context, void *block, size_t size)
{
    (void)context;
    return fails() ? NULL : realloc(block, size);
}

static void
numpy_free(void *context, void *block, size_t size)
{
    (void)context;
    (void)size;
    free(block);
}

static PyDataMem_Handler handler = {
    "faults", 1, {NULL, numpy_malloc, numpy_calloc, numpy_realloc, numpy_free}};

/* ---- interface ----------------------------------------------------------------- */

/* Puts the hooks in place; once, before any call. */
EXPORTED int
faults_install(void)
{
    for (int i = 0; i < 3; i++) {
        PyMem_GetAllocator((PyMemAllocatorDomain)i, &real[i]);
        PyMemAllocatorEx hooked = {&real[i], python_malloc, python_calloc,
                                   python_realloc, python_free};
        PyMem_SetAllocator((PyMemAllocatorDomain)i, &hooked);
    }
    if (PyArray_ImportNumPyAPI() < 0) {
        return -1;
    }
    PyObject *capsule = PyCapsule_New(&handler, "mem_handler", NULL);
    PyObject *before = capsule == NULL ? NULL : PyDataMem_SetHandler(capsule);
    Py_XDECREF(capsule);
    Py_XDECREF(before);
    return before == NULL ? -1 : 0;
}

/* From here on allocation number `count` in the extension fails; < 0: none. */
EXPORTED void
faults_start(long count)
{
    failing = count;
    atomic_store(&made, 0);
}

/* function(*arguments), a function of the extension; what Python and NumPy allocate
 * between such calls is their own affair. */
EXPORTED PyObject *
faults_call(PyObject *function, PyObject *arguments)
{
    atomic_store(&inside, true);
    PyObject *result = PyObject_CallObject(function, arguments);
    atomic_store(&inside, false);
    return result;
}

/* Allocations in the extension since the start. */
EXPORTED long
faults_made(void)
{
    return atomic_load(&made);
}

/* Deleters of DLPack that count up the number that the manager points to; written in C
 * because a callback of Python may fail to allocate too. */
EXPORTED void
faults_delete_legacy(void *managed)
{
    ++*(int64_t *)((dlpack_legacy *)managed)->manager;
}

EXPORTED void
faults_delete_versioned(void *managed)
{
    ++*(int64_t *)((dlpack_versioned *)managed)->manager;
}
