/* SPDX-License-Identifier: Apache-2.0 */
/* From multipliers to vectors. */
#ifndef CIV_PCR_DUAL_RECOVER_H
#define CIV_PCR_DUAL_RECOVER_H

#include "pcr/dual/state.h"

/*
 * rows (R, d) = A = (N B + 1) Q, in the problem's units, where there is no pull to an
 * anchor and no free direction. factors (R, R) and pull (R, d): work memory.
 */
civ_status civ_pcr_dual_recover(const civ_pcr_dual *s, const civ_mat *factors,
                                const civ_mat *pull, const civ_mat *rows);

/* Writes A of the prompts in the working set (m, d), in the problem's units. */
civ_status civ_pcr_dual_write_coefficients(const civ_pcr_dual *s,
                                           const civ_mat *coefficients);

#endif
