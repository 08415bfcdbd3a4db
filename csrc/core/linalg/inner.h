/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inner products and squared distances of float64 vectors that may lie anywhere. The
 * vectors are neither copied nor packed; of a symmetric table half is computed.
 */
#ifndef CIV_INNER_H
#define CIV_INNER_H

#include "runtime/common.h"

typedef struct civ_inner_block {
    const double *const *x; /* (n_x) */
    const double *const *y; /* (n_y) */
    int64_t n_x;
    int64_t n_y;
    int64_t depth;
    bool distances; /* || x_i - y_k ||^2 in place of <x_i, y_k> */
    bool symmetric; /* pairs (i, k) and (k, i) agree for i, k < n_x <= n_y */
    civ_mat out;    /* (n_x, n_y) */
} civ_inner_block;

/* The same bits for any number of threads, and for each element wherever it is. */
civ_status civ_inner_products(const civ_exec *exec, const civ_inner_block *block);

#endif
