/* SPDX-License-Identifier: Apache-2.0 */
/* Starts every part of the core that has a state. */
#include "kernels/dispatch.h"
#include "linalg/linalg.h"
#include "runtime/forks.h"

#include <stdlib.h>

civ_status
civ_init(void)
{
    const char *wanted = getenv("CINTERVENE_CPU");
    civ_linalg_init();
    civ_kernels_init();
    CIV_TRY(civ_forks_init());
    return wanted == NULL || *wanted == '\0' ? CIV_OK : civ_cpu_select(wanted);
}
