/* SPDX-License-Identifier: Apache-2.0 */
/* The tensor, and what the files that make one share: tensor.c and one for each other
 * source. */
#ifndef CIV_TENSOR_PARTS_H
#define CIV_TENSOR_PARTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "cintervene.h"

#include <stdbool.h>

#define TENSOR_MAX_NDIM 16
/* Elements, rows and columns that an array may have, and how far it may reach in bytes.
 * No memory holds more; only repeated elements and empty axes get there. Products with
 * a size in bytes, and sums of a few, stay far from overflow. */
#define TENSOR_MAX_SIZE (INT64_C(1) << 47)

struct module_state;

typedef struct tensor {
    civ_mat mat; /* last axis as columns, all leading axes as rows; 1-D is one row */
    const char *name;
    int ndim;
    int64_t shape[TENSOR_MAX_NDIM];
    int64_t strides[TENSOR_MAX_NDIM]; /* of the source, in bytes */
    char *source;                     /* first element of the source */
    bool writable;
    bool loose; /* whole numbers are numbers too, a single one is an axis of one */
    bool has_capsule; /* owner is an opened capsule */
    bool has_buffer;
    Py_buffer buffer;
    PyObject *owner; /* array or capsule that keeps the memory alive */
    void *packed;    /* copy that mat points to, or NULL */
} tensor;

/* View of an object with __dlpack__. */
bool tensor_from_producer(const struct module_state *state, PyObject *obj,
                          tensor *self);

/* View of an object with the buffer protocol. */
bool tensor_from_buffer(const struct module_state *state, PyObject *obj, tensor *self);

/*
 * Rows and columns of a shape. False, with no exception set, where an axis is negative
 * or there are more elements than TENSOR_MAX_SIZE.
 */
bool tensor_count(int ndim, const int64_t *shape, int64_t *rows, int64_t *columns);

/* Fills mat from the source fields; packs what a matrix cannot express. */
bool tensor_make_matrix(const struct module_state *state, tensor *self,
                        civ_dtype dtype);

/* Writes the packed elements back to where they came from. */
void tensor_unpack(const tensor *self);

/* Set an exception and return false. */
bool tensor_refuse_ndim(const struct module_state *state, const char *name, int ndim);
bool tensor_refuse_size(const struct module_state *state, const char *name);
bool tensor_refuse_dtype(const struct module_state *state, const char *name,
                         PyObject *got);

#endif
