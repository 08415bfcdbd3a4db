/* SPDX-License-Identifier: Apache-2.0 */
/* Which table of kernels is in use. */
#ifndef CIV_DISPATCH_H
#define CIV_DISPATCH_H

#include "kernels/kernels.h"

/* Chooses the best table that this processor has; part of civ_init. */
void civ_kernels_init(void);

const civ_kernels *civ_kernel_table(void);

#endif
