/* SPDX-License-Identifier: Apache-2.0 */
/* Compiler facts and the error idiom shared by every file of the core. */
#ifndef CIV_COMMON_H
#define CIV_COMMON_H

#include "cintervene.h"

#include <assert.h>

#if defined(__x86_64__) || defined(__i386__)
#define CIV_X86 1
#else
#define CIV_X86 0
#endif

#if defined(__aarch64__)
#define CIV_ARM64 1
#else
#define CIV_ARM64 0
#endif

#define CIV_INLINE static inline __attribute__((always_inline))

/* Forwards a failure to the caller. */
#define CIV_TRY(expr)                       \
    do {                                    \
        civ_status civ_try_status = (expr); \
        if (civ_try_status != CIV_OK) {     \
            return civ_try_status;          \
        }                                   \
    } while (0)

/* Fails with a status when a condition holds. */
#define CIV_FAIL_IF(condition, status) \
    do {                               \
        if (condition) {               \
            return (status);           \
        }                              \
    } while (0)

/* NO_MEMORY where a table of a by b overflows, or a thousand of them together. */
CIV_INLINE civ_status
civ_check_table(int64_t a, int64_t b)
{
    int64_t size;
    bool fits = !__builtin_mul_overflow(a, b, &size) && size <= INT64_MAX >> 10;
    return fits ? CIV_OK : CIV_NO_MEMORY;
}

CIV_INLINE int64_t
civ_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

CIV_INLINE int64_t
civ_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

#endif
