/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for x86 processors with AVX512. Headers come before the target pragma. */
#include "kernels/dtype.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>

#if CIV_X86
#pragma GCC target( \
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")

#define KERNELS avx512
#define VECTOR_BYTES 64
#define GEMM_ROWS 8
#define DOT_ROWS 4
#include "kernels/kernels.inc"
#endif
