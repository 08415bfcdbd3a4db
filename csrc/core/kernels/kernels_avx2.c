/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for x86 processors with AVX2. Headers come before the target pragma. */
#include "kernels/dtype.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>

#if CIV_X86
#pragma GCC target("avx2,fma")

#define KERNELS avx2
#define VECTOR_BYTES 32
#define GEMM_ROWS 6
#define DOT_ROWS 3
#include "kernels/kernels.inc"
#endif
