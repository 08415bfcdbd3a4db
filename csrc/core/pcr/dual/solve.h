/* SPDX-License-Identifier: Apache-2.0 */
/* The dual solver, for problems with concepts. */
#ifndef CIV_PCR_DUAL_SOLVE_H
#define CIV_PCR_DUAL_SOLVE_H

#include "pcr/common/space.h"

/* Concepts, with or without half-spaces: adds to zeroed coefficients and multipliers,
 * and sets outcome, iterations and history. */
civ_status civ_pcr_dual_solve(const civ_exec *exec, const civ_pcr_space *space,
                              const civ_pcr_options *options,
                              const civ_pcr_result *result, civ_pcr_info *info);

#endif
