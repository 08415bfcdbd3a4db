/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for 64-bit ARM processors, all of which have NEON: 32 registers, which the
 * blocks of the baseline leave half empty. */
#include "kernels/dtype.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>

#if CIV_ARM64
#define KERNELS neon
#define VECTOR_BYTES 16
#define GEMM_ROWS 8
#define DOT_ROWS 4
#include "kernels/kernels.inc"
#endif
