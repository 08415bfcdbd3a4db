/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for the compiler's default target; the reference for the other tables. */
#include "kernels/dtype.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>

#define KERNELS baseline
#define VECTOR_BYTES 16
#define GEMM_ROWS 4
#define DOT_ROWS 3
#include "kernels/kernels.inc"
