/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays from Python as matrices for the core. Takes NumPy arrays (ml_dtypes'
 * bfloat16 too), anything with __dlpack__ (torch, JAX), buffers, and nested lists.
 * The memory is borrowed for the length of one call; only strides that a civ_mat
 * cannot express are packed into a copy. Nothing else knows about NumPy.
 *
 * All functions need the GIL. On failure they set an exception that names the
 * argument and leave the tensor released.
 */
#ifndef CIV_TENSOR_H
#define CIV_TENSOR_H

#include "tensor_parts.h"

/* Readable view of obj. */
bool tensor_read(const struct module_state *state, PyObject *obj, const char *name,
                 tensor *self);

/* The same as CIV_F32 or CIV_F64; a converted copy when obj is of another type. */
bool tensor_read_as(const struct module_state *state, PyObject *obj, const char *name,
                    civ_dtype dtype, tensor *self);

/* Readable view in which whole numbers count as numbers, and a single one as an axis of
 * one. */
bool tensor_read_numbers(const struct module_state *state, PyObject *obj,
                         const char *name, tensor *self);

/* New reference to obj as NumPy reads it, in whatever dtype; no mask is lost. */
PyObject *tensor_plain_array(const struct module_state *state, PyObject *obj,
                             const char *name);

/*
 * View of obj that the caller writes, and may read too. It may be a packed copy:
 * tensor_result puts the data where they belong.
 */
bool tensor_write(const struct module_state *state, PyObject *obj, const char *name,
                  tensor *self);

/* New uninitialised NumPy array of CIV_F32, CIV_F64 or CIV_F16; owned by the tensor. */
bool tensor_new(const char *name, int ndim, const int64_t *shape, civ_dtype dtype,
                tensor *self);

/*
 * Place for a result like x. `wanted` is the user's array, of the shape and dtype of
 * x, or None for a new NumPy array. Where NumPy has no such dtype (bfloat16 from
 * another library) x becomes a float32 copy and the result is to replace it.
 */
bool tensor_output(const struct module_state *state, PyObject *wanted, tensor *x,
                   tensor *self);

/*
 * What to return for a tensor that was written: a new reference to `given`, the
 * object it was made of, or with None to the new array.
 */
PyObject *tensor_result(tensor *self, PyObject *given);

/* One-dimensional, C-contiguous int64 array; only NumPy arrays of that type. */
bool tensor_read_int64(const struct module_state *state, PyObject *obj,
                       const char *name, PyObject **owner, const int64_t **data,
                       int64_t *n);

/* ArgumentError unless both have the same shape. */
bool tensor_same_shape(const struct module_state *state, const tensor *a,
                       const tensor *b);

/* Safe on a zeroed tensor and on one already released. */
void tensor_release(tensor *self);

int tensor_import_numpy(void);

#endif
