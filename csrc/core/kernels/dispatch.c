/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/dispatch.h"

#include <string.h>

static const civ_kernels *chosen = &civ_kernels_baseline;

#if CIV_X86
static bool
has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool
has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

/* The table of that name, or NULL when unknown or beyond this processor. */
static const civ_kernels *
find_table(const char *name)
{
#if CIV_X86
    if (strcmp(name, "avx512") == 0 && has_avx512()) {
        return &civ_kernels_avx512;
    }
    if (strcmp(name, "avx2") == 0 && has_avx2()) {
        return &civ_kernels_avx2;
    }
#endif
#if CIV_ARM64
    if (strcmp(name, "neon") == 0) {
        return &civ_kernels_neon;
    }
#endif
    return strcmp(name, "baseline") == 0 ? &civ_kernels_baseline : NULL;
}

static const civ_kernels *
best_table(void)
{
    static const char *const names[] = {"avx512", "avx2", "neon"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const civ_kernels *table = find_table(names[i]);
        if (table != NULL) {
            return table;
        }
    }
    return &civ_kernels_baseline;
}

void
civ_kernels_init(void)
{
    chosen = best_table();
}

civ_status
civ_cpu_select(const char *name)
{
    const civ_kernels *table = find_table(name);
    CIV_FAIL_IF(table == NULL, CIV_INVALID_ARGUMENT);
    chosen = table;
    return CIV_OK;
}

const char *
civ_cpu_name(void)
{
    return chosen->name;
}

const civ_kernels *
civ_kernel_table(void)
{
    return chosen;
}
