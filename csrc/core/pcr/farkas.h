/* SPDX-License-Identifier: Apache-2.0 */
/* Proof that half-spaces contradict each other. */
#ifndef CIV_PCR_FARKAS_H
#define CIV_PCR_FARKAS_H

#include "pcr/common/space.h"

/*
 * Whether the multipliers of the half-spaces alone prove that no displacements meet
 * them: Q, the sum of mu r, costs nothing although b . mu > 0. Multipliers of
 * concepts, which cannot take part in a contradiction, are zeroed if so.
 */
civ_status civ_pcr_farkas(const civ_exec *exec, const civ_pcr_space *space,
                          const civ_mat *multipliers, bool *proved);

#endif
