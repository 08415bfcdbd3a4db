/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serial kernels, compiled once per instruction set from kernels.inc and reached
 * through a table. Arrays of kernels are indexed by storage type; `void *` then
 * points to elements of that type, and "compute" means civ_dtype_compute of it.
 */
#ifndef CIV_KERNELS_H
#define CIV_KERNELS_H

#include "common.h"

/*
 * -log of the probability that softmax(x) gives to the set, and its gradient when
 * grad (n, compute type) is not NULL. *bad is set on NaN, +inf or no finite value.
 */
typedef double (*civ_set_nll_fn)(const void *x, int64_t n, const int64_t *ids,
                                 int64_t n_ids, void *grad, bool *bad);

/* Index of the first NaN or infinity (-inf may be allowed) among n, or -1. */
typedef int64_t (*civ_first_bad_fn)(const void *x, int64_t n, bool allow_minus_inf);

typedef struct civ_kernels {
    const char *name;
    civ_first_bad_fn first_bad[CIV_N_DTYPES];
    civ_set_nll_fn set_nll[CIV_N_DTYPES];
} civ_kernels;

extern const civ_kernels civ_kernels_baseline;
#if CIV_X86
extern const civ_kernels civ_kernels_avx2;
extern const civ_kernels civ_kernels_avx512;
#endif

#endif
