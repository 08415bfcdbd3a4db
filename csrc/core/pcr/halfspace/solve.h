/* SPDX-License-Identifier: Apache-2.0 */
/* The solver for half-spaces alone. */
#ifndef CIV_PCR_HALFSPACE_SOLVE_H
#define CIV_PCR_HALFSPACE_SOLVE_H

#include "pcr/common/space.h"

/* Half-spaces alone: adds to zeroed coefficients and multipliers, and sets outcome,
 * iterations and history. */
civ_status civ_pcr_halfspace_solve(const civ_exec *exec, const civ_pcr_space *space,
                                   const civ_pcr_options *options,
                                   const civ_pcr_result *result, civ_pcr_info *info);

#endif
