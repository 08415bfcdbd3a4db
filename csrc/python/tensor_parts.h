/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files that make up tensor.h: tensor.c and one for each other source. */
#ifndef CIV_TENSOR_PARTS_H
#define CIV_TENSOR_PARTS_H

#include "tensor.h"

/* View of an object with __dlpack__. */
bool tensor_from_producer(const struct module_state *state, PyObject *obj,
                          tensor *self);

/* View of an object with the buffer protocol. */
bool tensor_from_buffer(const struct module_state *state, PyObject *obj, tensor *self);

/* Fills mat from the source fields; packs what a matrix cannot express. */
bool tensor_make_matrix(const struct module_state *state, tensor *self,
                        civ_dtype dtype);

/* Writes the packed elements back to where they came from. */
void tensor_unpack(const tensor *self);

/* Set an exception and return false. */
bool tensor_refuse_ndim(const struct module_state *state, const char *name, int ndim);
bool tensor_refuse_dtype(const struct module_state *state, const char *name,
                         PyObject *got);

#endif
